//! What a link says: to its driver, to the owners of commands, and of itself.

use alloc::vec::Vec;

use bytes::Bytes;

use super::handshake::HandshakeError;
use crate::resp::{DecodeError, Reply};

/// What the driver must do with its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect, and report with `handle_connected` or `handle_dial_failed`.
    Dial,
    /// Drop the connection, or the attempt to make one, and any bytes read from it or still to be written.
    /// Nothing is to be reported.
    HangUp,
}

/// What [`poll_transmit`](crate::machine::Lane::poll_transmit) has put into the driver's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Transmit {
    /// Nothing to write.
    Nothing,
    /// The buffer holds bytes: write them all.
    Ready,
    /// There are bytes, but more are likely to join them at once: let other tasks run once, then ask again.
    /// Asking again at once is allowed and merely costs a smaller write.
    Linger,
}

/// Why an operation ended without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The server could not be reached, or refused the connection.
    Unreachable,
    /// The connection ended.
    ConnectionLost,
    /// The server was silent for the stall timeout.
    Stalled,
    /// The server sent what is not a reply, or a reply to nothing.
    Protocol,
    /// The operation's deadline passed while it was on its way, or to be tried again.
    TimedOut,
    /// The operation's deadline passed while it waited for its turn: too much is in flight.
    Overloaded,
    /// The cache was closed.
    Closed,
}

impl Cause {
    /// For a recording: the one of this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        use Cause::{Closed, ConnectionLost, Overloaded, Protocol, Stalled, TimedOut, Unreachable};
        let all = [Unreachable, ConnectionLost, Stalled, Protocol, TimedOut, Overloaded, Closed];
        all.get(usize::from(number)).copied()
    }
}

/// Why the connection ended, as the driver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// End of stream, or an error of the socket.
    Lost,
    /// The decoder refused the server's bytes.
    Protocol(DecodeError),
}

/// Why the latest dial failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The connection could not be made; the driver knows more.
    #[error("the server could not be reached")]
    Unreachable,
    /// It was made, and the server did not let us in.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// It was made, and what speaks there is no Redis.
    #[error(transparent)]
    Protocol(DecodeError),
    /// It was made, and the server hung up instead of answering.
    #[error(
        "the server hung up instead of answering {during}: is it a Redis server, and is TLS on at both ends or neither?"
    )]
    HungUp {
        /// The command it did not answer.
        during: &'static str,
    },
    /// The connect timeout passed before the connection was made.
    #[error("the server did not accept a connection within the connect timeout")]
    TimedOut,
    /// The connect timeout passed, and the server, which had accepted the connection, had not answered everything.
    #[error("the server did not answer {during} within the connect timeout")]
    Silent {
        /// The command it did not answer.
        during: &'static str,
    },
}

/// The connection must be closed: the server broke the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// It did not let us in.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It answered although nothing was asked.
    #[error("the server sent a reply that no command asked for")]
    UnmatchedReply,
    /// The answer to a PING came in the place of another's, or another's in the place of that.
    #[error("the server's replies are out of step with the commands: it has swallowed one, or made one up")]
    OutOfStep,
}

/// How a command on a link ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Ended {
    Reply(Reply),
    /// Its last byte never left: the server has not executed it.
    NotSent(Cause),
    /// It was sent and not answered: nobody knows.
    Unknown(Cause),
}

/// Where commands go whose end has come. It cannot call back into the link, which is borrowed.
pub(crate) type Sink<'a, T> = &'a mut dyn FnMut(T, Ended);

/// What happened to the link itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Ready {
        /// What writes of the connection before are about, as far as they name it, if they may still be executed: it could
        /// not be fenced.
        at_large: Option<Vec<Bytes>>,
    },
    DialFailed(DialError),
    /// Dialling again will not help before a configuration is changed.
    DialRefused(HandshakeError),
    /// It had been ready.
    Lost,
    /// A PING was answered; `false` where the server said that it cannot serve now.
    Pong(bool),
}
