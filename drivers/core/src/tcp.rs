//! The options of every TCP socket, whichever runtime opened it.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Idle connections are probed after this time. Before the usual limits of address translators, which forget a silent
/// connection after some minutes, and then drop what is sent on it.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Then so often, until [`KEEPALIVE_PROBES`] of them were not answered.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Sends small writes without delay (`TCP_NODELAY`), and has the system probe a silent connection: after 30 s, each 5 s,
/// three times. The cache's own PING finds a dead server earlier; this is for what is between, and for a cache that was
/// told to PING seldom.
///
/// # Errors
/// The system refuses, as it does where the peer has gone already.
pub fn prepare_tcp<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())
}

#[cfg(any(
    target_os = "android",
    target_os = "freebsd",
    target_os = "ios",
    target_os = "linux",
    target_os = "macos",
    target_os = "netbsd",
    target_os = "windows",
))]
fn keepalive() -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    keepalive.with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_PROBES)
}

/// How often and how many is the system's to say here.
#[cfg(not(any(
    target_os = "android",
    target_os = "freebsd",
    target_os = "ios",
    target_os = "linux",
    target_os = "macos",
    target_os = "netbsd",
    target_os = "windows",
)))]
fn keepalive() -> TcpKeepalive {
    let _ = (KEEPALIVE_EVERY, KEEPALIVE_PROBES);
    TcpKeepalive::new().with_time(KEEPALIVE_AFTER)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_are_prepared() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        prepare_tcp(&stream).expect("nothing unusual");
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("readable") && socket.keepalive().expect("readable"));
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().expect("readable"), KEEPALIVE_AFTER);
            assert_eq!(socket.tcp_keepalive_interval().expect("readable"), KEEPALIVE_EVERY);
            assert_eq!(socket.tcp_keepalive_retries().expect("readable"), KEEPALIVE_PROBES);
        }
    }
}
