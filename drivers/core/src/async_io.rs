//! The socket and the timer of a driver whose runtime stands on the [`async-io`](https://docs.rs/async-io) reactor, as smol and
//! async-std do. The reactor has a thread of its own, so that both work under any executor.
//!
//! ```no_run
//! use std::{future::Future, io, time::Instant};
//! use larder::async_io::{Socket, Timer, connect};
//! use larder::runtime::{Endpoint, Runtime};
//!
//! /// A driver is this, and a way to run a task.
//! struct Mine;
//!
//! impl Runtime for Mine {
//!     type Stream = Socket;
//!     type Timer = Timer;
//!     fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
//!         connect(to.clone())
//!     }
//!     fn timer(&self) -> Timer {
//!         Timer::default()
//!     }
//!     fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
//! #       drop(task);
//!         // … run it to its end, detached
//!     }
//!     fn now(&self) -> Instant {
//!         Instant::now()
//!     }
//! }
//! ```

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use ::async_io::Async;
use bytes::BytesMut;

use crate::runtime::{Endpoint, Stream, prepare_tcp};

/// The most that is read by one system call.
const READ_AT_MOST: usize = 64 * 1024;

/// Opens a connection. Each address of a name is tried, in the order in which the system names them; names are resolved
/// on a thread that may wait, so that the executor's do not.
///
/// # Errors
/// The name cannot be resolved, or no address can be reached; then the error is that of the last one.
pub async fn connect(to: Endpoint) -> io::Result<Socket> {
    match to {
        Endpoint::Tcp { host, port } => {
            let stream = connect_tcp(resolve(host, port).await?).await?;
            prepare_tcp(&stream)?;
            Socket::new(stream.into())
        }
        #[cfg(unix)]
        Endpoint::Unix(path) => Socket::new(Async::<UnixStream>::connect(path).await?.into_inner()?.into()),
        #[allow(unreachable_patterns, reason = "without Unix sockets some are left")]
        _ => Err(io::Error::new(ErrorKind::Unsupported, "this kind of address is not supported here")),
    }
}

async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(vec![(address, port).into()]),
        Err(_) => {
            ::blocking::unblock(move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter)).await
        }
    }
}

async fn connect_tcp(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut error = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match Async::<TcpStream>::connect(address).await {
            Ok(stream) => return stream.into_inner(),
            Err(this) => error = this,
        }
    }
    Err(error)
}

/// A connected socket, of TCP or a Unix socket.
pub struct Socket {
    socket: Async<socket2::Socket>,
    /// What is read goes through here: the reader's buffer has no initialised room, and this was zeroed once for all.
    scratch: Box<[u8]>,
    /// The last read found less than it could have taken. Then the next one waits for the reactor first, which spares the
    /// system call that would only say so; there is one in most rounds of the driver loop.
    drained: bool,
}

impl Socket {
    fn new(socket: socket2::Socket) -> io::Result<Self> {
        Ok(Self { socket: Async::new(socket)?, scratch: vec![0; READ_AT_MOST].into(), drained: false })
    }
}

impl Stream for Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = READ_AT_MOST.min(buf.capacity() - buf.len());
        let scratch = self.scratch.get_mut(..room).unwrap_or_default();
        loop {
            if self.drained {
                ready!(self.socket.poll_readable(cx))?;
            }
            match self.socket.get_ref().read(scratch) {
                Ok(n) => {
                    self.drained = n < room;
                    buf.extend_from_slice(scratch.get(..n).unwrap_or_default());
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.drained = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.get_ref().write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_writable(cx))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl fmt::Debug for Socket {
    /// Without what was read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(self.socket.get_ref()).finish()
    }
}

/// A timer of the reactor's, not set at first.
#[derive(Debug)]
pub struct Timer(::async_io::Timer);

impl Default for Timer {
    fn default() -> Self {
        Self(::async_io::Timer::never())
    }
}

impl crate::runtime::Timer for Timer {
    fn set(&mut self, at: Instant) {
        self.0.set_at(at);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    /// What was sent by a peer that reads nothing before it has been read from, in pieces and by several names.
    #[test]
    fn bytes_go_both_ways_by_address_and_by_name() {
        const MUCH: usize = 8 << 20;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let peer = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a connection");
                stream.write_all(&vec![b'a'; MUCH]).expect("read by the client");
                let mut back = vec![0; MUCH];
                stream.read_exact(&mut back).expect("sent by the client");
                assert!(back.iter().all(|&byte| byte == b'b'));
            }
        });
        // The name has an IPv6 address first on most machines, where nobody listens.
        for host in ["127.0.0.1", "localhost"] {
            let socket = ::async_io::block_on(connect(Endpoint::Tcp { host: host.to_owned(), port }));
            let mut socket = socket.expect(host);
            let (mut buf, mut read, mut written) = (BytesMut::new(), 0, 0);
            let out = vec![b'b'; MUCH];
            ::async_io::block_on(poll_fn(|cx| {
                while let Poll::Ready(n) = {
                    buf.clear();
                    buf.reserve(10_000);
                    socket.poll_read(cx, &mut buf)
                } {
                    assert!(buf.iter().all(|&byte| byte == b'a'));
                    match n.expect("no error") {
                        0 => return Poll::Ready(()),
                        n => read += n,
                    }
                }
                while written < MUCH {
                    written += ready!(socket.poll_write(cx, &out[written..])).expect("no error");
                }
                Poll::Pending
            }));
            assert_eq!((read, written), (MUCH, MUCH));
        }
        peer.join().expect("the peer got everything");
    }

    #[test]
    fn what_cannot_be_reached_says_why() {
        let fails = |to| ::async_io::block_on(connect(to)).expect_err("nobody is there");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let tcp = |host: &str| Endpoint::Tcp { host: host.to_owned(), port };
        assert_eq!(fails(tcp("127.0.0.1")).kind(), ErrorKind::ConnectionRefused);
        assert!(fails(tcp("no such name")).to_string().contains("address"), "{}", fails(tcp("no such name")));
        #[cfg(unix)]
        assert_eq!(fails(Endpoint::Unix("/nowhere/redis.sock".into())).kind(), ErrorKind::NotFound);
    }
}
