//! Larder on tokio: everything of [`larder`], and [`Tokio`] to connect with.
//!
//! ```no_run
//! use larder_tokio::{Cache, Tokio};
//!
//! # async fn example() -> Result<(), larder_tokio::Error> {
//! let cache = Cache::redis("redis://localhost:6379/0").namespace("shop").connect(Tokio).await?;
//! cache.set("greeting", "hello").await?;
//! assert_eq!(cache.get::<String>("greeting").await?.as_deref(), Some("hello"));
//! # Ok(())
//! # }
//! ```
//!
//! Under a name that stays, `larder = { package = "larder-tokio", version = "0.1" }` in `Cargo.toml`, the runtime is in one line
//! of the code, the one with `.connect(larder::Tokio)`: another one is another package there, and another name here.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::Sleep;

use larder::runtime::{Endpoint, Runtime, Stream, Timer, prepare_tcp};

pub use larder::*;

/// The tokio runtime that `connect` is called in, with I/O and time enabled; current-thread and multi-thread both do. The
/// cache works from anywhere then, for as long as that runtime runs.
///
/// Outside of a runtime `connect_lazy` panics, as `tokio::spawn` does; enter one first:
///
/// ```
/// use larder_tokio::{Cache, Tokio};
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// let cache = {
///     let _entered = runtime.enter();
///     Cache::redis("redis://localhost").connect_lazy(Tokio)?
/// };
/// # drop(cache);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tokio;

impl Runtime for Tokio {
    type Stream = TokioStream;
    type Timer = TokioTimer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<TokioStream>> + Send + 'static {
        let to = to.clone();
        async move {
            match to {
                Endpoint::Tcp { host, port } => {
                    let stream = TcpStream::connect((host, port)).await?;
                    prepare_tcp(&stream)?;
                    Ok(TokioStream::Tcp(stream))
                }
                #[cfg(unix)]
                Endpoint::Unix(path) => Ok(TokioStream::Unix(UnixStream::connect(path).await?)),
                _ => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this kind of address is not supported here",
                )),
            }
        }
    }

    fn timer(&self) -> TokioTimer {
        TokioTimer(None)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// A connected socket of tokio's.
#[derive(Debug)]
pub enum TokioStream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream for TokioStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        // `read_buf` keeps nothing between polls, so that each poll may have a future of its own.
        match self {
            Self::Tcp(stream) => pin!(stream.read_buf(buf)).poll(cx),
            #[cfg(unix)]
            Self::Unix(stream) => pin!(stream.read_buf(buf)).poll(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// A timer of tokio's, while it is set.
#[derive(Debug)]
pub struct TokioTimer(Option<Pin<Box<Sleep>>>);

impl Timer for TokioTimer {
    fn set(&mut self, at: Instant) {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(at.into()),
            none => *none = Some(Box::pin(tokio::time::sleep_until(at.into()))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}
