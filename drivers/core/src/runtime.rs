//! What a driver crate provides: sockets, a timer, a place to run a task, and the time. Everything else is shared.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

#[cfg(feature = "sockets")]
pub use crate::tcp::prepare_tcp;

/// Where a server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// A name or an address. Names are resolved at each dial, so that a failover by DNS is followed.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An async runtime. Pass one to [`connect`](crate::RedisBuilder::connect); the cache and its futures do not depend on
/// its type and work under any executor.
pub trait Runtime: Send + Sync + 'static {
    /// Its connected sockets.
    type Stream: Stream;
    /// Its timers.
    type Timer: Timer;

    /// Opens a connection. Without delay of small writes (`TCP_NODELAY`), and without a timeout of its own: whoever
    /// waits for it drops the future.
    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Runs a task to its end, detached.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// The time that its timers go by.
    fn now(&self) -> Instant;

    /// A seed for jitter and for hashers, one for each call. By default from the source that the standard library seeds its
    /// maps from; a runtime that wants the same run twice has its own.
    fn seed(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};

        RandomState::new().hash_one(Instant::now())
    }
}

/// A connected socket. Both methods register the waker when they return `Pending`, and retry `Interrupted` themselves.
pub trait Stream: Send + Unpin + 'static {
    /// Appends what can be read to `buf`, at most its spare capacity; 0 is the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Writes some of `bytes`.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// One timer.
pub trait Timer: Send + Unpin + 'static {
    /// Sets it, whatever it was set to before.
    fn set(&mut self, at: Instant);

    /// Ready once it has fired. A timer that was never set is pending.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_shown_as_they_are_written() {
        let tcp = |host: &str| Endpoint::Tcp { host: host.to_owned(), port: 6379 };
        assert_eq!(tcp("localhost").to_string(), "localhost:6379");
        assert_eq!(tcp("::1").to_string(), "[::1]:6379");
        assert_eq!(Endpoint::Unix("/run/redis.sock".into()).to_string(), "/run/redis.sock");
    }
}
