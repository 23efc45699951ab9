//! What lies between a lane and its socket: nothing, or TLS.

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;

#[cfg(feature = "tls-rustls")]
use super::tls::{TlsClient, TlsStream};
use crate::runtime::Stream;

/// How the connections of a cache are secured.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    Plain,
    #[cfg(feature = "tls-rustls")]
    Tls(TlsClient),
}

impl Security {
    /// A connection on a socket that has just been opened; it serves once it is [secured](Transport::poll_secured).
    pub(crate) fn wrap<S: Stream>(&self, stream: S) -> io::Result<Transport<S>> {
        match self {
            Self::Plain => Ok(Transport::Plain(stream)),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(client) => Ok(Transport::Tls(Box::new(client.wrap(stream)?))),
        }
    }
}

/// A connection, secured as it was asked for.
#[derive(Debug)]
pub(crate) enum Transport<S: Stream> {
    Plain(S),
    #[cfg(feature = "tls-rustls")]
    Tls(Box<TlsStream<S>>),
}

impl<S: Stream> Transport<S> {
    /// Ready once bytes may be exchanged.
    #[cfg_attr(not(feature = "tls-rustls"), expect(unused_variables, reason = "only a handshake waits"))]
    pub(crate) fn poll_secured(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(stream) => stream.poll_handshake(cx),
        }
    }

    /// As [`Stream::poll_read`].
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_read(cx, buf),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(stream) => stream.poll_read(cx, buf),
        }
    }

    /// As [`Stream::poll_write`]; after `Pending` the same bytes must come again. Bytes count as written once the socket
    /// has all that it takes to make them out.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_write(cx, bytes),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(stream) => stream.poll_write(cx, bytes),
        }
    }
}
