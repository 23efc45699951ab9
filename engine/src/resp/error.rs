//! What can be wrong: with a reply (the server refused), or with the stream (it is not RESP, or too much of it).

use core::fmt::{self, Write};

use bytes::Bytes;
use thiserror::Error;

/// An error line of the server, without its type byte and line end. It is bytes: a server quotes what it was sent,
/// UTF-8 or not.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError(Bytes);

impl ServerError {
    /// Wraps the line.
    #[must_use]
    pub const fn new(line: Bytes) -> Self {
        Self(line)
    }

    /// The first word, if it is an upper-case word such as `WRONGTYPE`; otherwise `ERR`.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.split().0
    }

    /// What follows the code.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.split().1
    }

    /// What the error means for the command, the connection and the circuit breaker.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        let (code, message) = self.split();
        let says = |start: &[u8]| message.get(..start.len()).is_some_and(|m| m.eq_ignore_ascii_case(start));
        match code {
            b"LOADING" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" | b"MASTERDOWN" => ErrorClass::Transient,
            b"MOVED" | b"ASK" | b"READONLY" => ErrorClass::Topology,
            b"OOM" | b"MISCONF" | b"NOREPLICAS" => ErrorClass::Capacity,
            // DENIED: protected mode. The `ERR` lines below: servers before 6.0, and AUTH where no password is set.
            b"NOAUTH" | b"WRONGPASS" | b"NOPERM" | b"DENIED" => ErrorClass::Auth,
            b"NOPROTO" => ErrorClass::Unsupported,
            b"ERR" if says(b"max number of clients") => ErrorClass::Transient,
            b"ERR" if says(b"invalid password") || says(b"client sent auth") || says(b"auth <password>") => {
                ErrorClass::Auth
            }
            b"ERR" if says(b"unknown command") || says(b"unknown subcommand") => ErrorClass::Unsupported,
            _ => ErrorClass::Caller,
        }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let is_code = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
        let length = self.0.iter().position(|&byte| byte == b' ').unwrap_or(self.0.len());
        match self.0.split_at_checked(length) {
            Some((code, rest)) if !code.is_empty() && code.iter().all(is_code) => {
                (code, rest.get(1..).unwrap_or_default())
            }
            _ => (b"ERR", &self.0),
        }
    }
}

/// The line as text: what is not printable or not UTF-8 is escaped, what is longer than 256 bytes is cut, and the
/// arguments that a server quotes after `unknown command` are left out, because old servers quote the password
/// of a `HELLO … AUTH` they do not know.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const QUOTES: &[u8] = b"with args beginning with:";
        const LONGEST: usize = 256;

        let line = self.0.as_ref();
        let quoted = line.windows(QUOTES.len()).position(|window| window.eq_ignore_ascii_case(QUOTES));
        let shown = quoted.map_or(line.len(), |at| at + QUOTES.len()).min(LONGEST);
        for chunk in line.get(..shown).unwrap_or_default().utf8_chunks() {
            for char in chunk.valid().chars() {
                if char.is_control() {
                    write!(f, "{}", char.escape_default())?;
                } else {
                    f.write_char(char)?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        if shown < line.len() {
            f.write_str(if quoted.is_some() { " (hidden)" } else { "…" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerError({self})")
    }
}

impl core::error::Error for ServerError {}

/// What an error reply means, for everyone who has to decide what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The server cannot now, but will: `LOADING`, `BUSY`, `TRYAGAIN`, `CLUSTERDOWN`, `MASTERDOWN`, too many clients.
    /// Not executed, so anything may be tried again.
    Transient,
    /// Another server has to be asked: `MOVED`, `ASK`, and `READONLY` after a failover. Not executed.
    Topology,
    /// The server is well but takes no writes: `OOM`, `MISCONF`, `NOREPLICAS`. Not executed.
    Capacity,
    /// Credentials or rights: `NOAUTH`, `WRONGPASS`, `NOPERM`, protected mode. Not executed; needs an operator.
    Auth,
    /// The server does not know the command or protocol version: `NOPROTO`, unknown command. Not executed.
    Unsupported,
    /// The caller's mistake, such as `WRONGTYPE`, and everything not named above. The server itself is healthy.
    Caller,
}

/// A stream that cannot be read on: its connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{violation}, at byte {offset} of what the server sent")]
pub struct DecodeError {
    /// Where the offending token begins, counted from the first byte of the connection.
    pub offset: u64,
    /// What is wrong there.
    pub violation: Violation,
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A byte that begins no reply: another protocol, or framing lost.
    #[error("'{}' begins no RESP reply: is this a Redis server, and is TLS on at both ends or neither?", .0.escape_ascii())]
    UnknownType(u8),
    /// A line that is not what its type byte says.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A line with a CR or LF on its own.
    #[error("a line does not end in CR LF")]
    LineEnd,
    /// Something other than CR LF after a bulk string.
    #[error("a bulk string is not followed by CR LF")]
    BulkEnd,
    /// Strings and aggregates of unannounced length, which Redis does not send.
    #[error("streamed replies are not supported")]
    Streamed,
    /// A push inside another reply.
    #[error("a push interrupts a reply")]
    NestedPush,
    /// Over [`Limits::depth`](super::Limits::depth).
    #[error("a reply is nested deeper than the limit of {limit}")]
    Depth {
        /// The limit.
        limit: u32,
    },
    /// Over [`Limits::line`](super::Limits::line).
    #[error("a line is longer than the limit of {limit} bytes")]
    Line {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::bulk`](super::Limits::bulk).
    #[error("a bulk string is longer than the limit of {limit} bytes")]
    Bulk {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::elements`](super::Limits::elements).
    #[error("a reply has more elements than the limit of {limit}")]
    Elements {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::frame`](super::Limits::frame).
    #[error("a reply is longer than the limit of {limit} bytes")]
    Frame {
        /// The limit.
        limit: usize,
    },
}

impl Violation {
    /// Whether the stream was well-formed as far as it was read, but too much for a limit that can be raised.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::Depth { .. }
                | Self::Line { .. }
                | Self::Bulk { .. }
                | Self::Elements { .. }
                | Self::Frame { .. }
        )
    }
}

/// A reply that is well-formed but is not the answer that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The server refused.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// Another kind of reply.
    #[error("the server answered {got} instead of {wanted}")]
    Unexpected {
        /// What the command is answered with.
        wanted: &'static str,
        /// What came.
        got: &'static str,
    },
    /// A `SCAN` cursor that is no unsigned 64-bit number.
    #[error("the server answered SCAN with a cursor that is no number")]
    BadCursor,
}
