//! What is asked of the cache, what is answered, and why there is no answer.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::outcome::{Failure, Refused};
use super::tier::TierFull;
use crate::link::Cause;
use crate::resp::{Command, ErrorClass, Key, Reply, ServerError};

/// A whole key, namespace included; keys of usual length are kept without an allocation.
pub type KeyBuf = SmallVec<[u8; 64]>;

/// What is asked of the cache.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// The value of a key.
    Get,
    /// Sets a key.
    Set {
        /// The value as it will be stored.
        value: Bytes,
        /// Time to live; `None` is without end.
        ttl: Option<Duration>,
    },
    /// Removes a key.
    Delete,
    /// Whether a key has a value.
    Exists,
    /// A step of a clear: some keys of a pattern, which stands in the place of the key.
    Scan {
        /// Where the previous step ended; 0 begins.
        cursor: u64,
    },
    /// A step of a clear: removes keys as `Scan` told them.
    Unlink(Vec<Bytes>),
    /// A section of the server's `INFO`, named in the place of the key.
    Info,
}

impl Request {
    /// Whether the reply is a page of keys.
    pub(crate) const fn is_scan(&self) -> bool {
        matches!(self, Self::Scan { .. })
    }

    pub(crate) const fn is_write(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::Delete)
    }

    /// Whether the fallback tier can answer it. The others are steps of something that can.
    pub(crate) const fn has_fallback(&self) -> bool {
        matches!(self, Self::Get | Self::Set { .. } | Self::Delete | Self::Exists)
    }

    /// What is sent for it.
    pub(crate) fn command<'a>(&'a self, key: &'a [u8]) -> Command<'a> {
        let whole = Key { namespace: b"", key };
        match self {
            Self::Get => Command::Get(whole),
            Self::Set { value, ttl } => Command::Set { key: whole, value, ttl: *ttl },
            Self::Delete => Command::Del(whole),
            Self::Exists => Command::Exists(whole),
            Self::Scan { cursor } => Command::Scan { cursor: *cursor, pattern: key, count: SCAN_COUNT },
            Self::Unlink(keys) => Command::Unlink(keys),
            Self::Info => Command::Info(key),
        }
    }

    /// What a reply to it means that is no error.
    pub(crate) fn answer(&self, reply: Reply) -> Result<Answer, OperationError> {
        match (self, reply) {
            (Self::Get, Reply::Bulk(value)) => Ok(Answer::Value(Some(value), Source::Primary)),
            (Self::Get, Reply::Null) => Ok(Answer::Value(None, Source::Primary)),
            (Self::Set { .. }, reply) if reply.is_ok() => Ok(Answer::Stored(Source::Primary)),
            (Self::Delete, Reply::Integer(n)) => Ok(Answer::Deleted(n > 0, Source::Primary)),
            (Self::Exists, Reply::Integer(n)) => Ok(Answer::Exists(n > 0, Source::Primary)),
            (Self::Scan { .. } | Self::Unlink(_) | Self::Info, reply) => Ok(Answer::Reply(reply)),
            (request, _) => Err(OperationError::Unexpected { command: request.command(b"").name() }),
        }
    }
}

impl fmt::Debug for Request {
    /// Without values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "Get",
            Self::Set { .. } => "Set",
            Self::Delete => "Delete",
            Self::Exists => "Exists",
            Self::Scan { .. } => "Scan",
            Self::Unlink(_) => "Unlink",
            Self::Info => "Info",
        })
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache itself: Redis, or the memory of a memory cache.
    Primary,
    /// The fallback tier, because Redis could not.
    Fallback {
        /// How long ago Redis confirmed the value, or it was written here; zero where it is not about a value.
        age: Duration,
    },
}

/// What came of a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Get`.
    Value(Option<Bytes>, Source),
    /// To `Set`.
    Stored(Source),
    /// To `Delete`: whether there was something to delete. After a retry `false` may stand for a first attempt that
    /// deleted it without our hearing of it.
    Deleted(bool, Source),
    /// To `Exists`.
    Exists(bool, Source),
    /// To a step of a clear and to `Info`, as the server put it.
    Reply(Reply),
}

/// Why a [`Request`] has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The breaker is open, and nobody else could answer.
    #[error("the circuit breaker is open, and there is no fallback")]
    BreakerOpen,
    /// The server did not answer.
    #[error("{}", describe(.0))]
    Failed(Failure),
    /// The server answered with an error.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// The server answered what is no answer to this command.
    #[error("the server's answer to {command} is not one of a Redis server")]
    Unexpected {
        /// The command.
        command: &'static str,
    },
    /// More operations are under way than the configuration allows.
    #[error("too many operations wait already; raise `max_in_flight`, or send less at a time")]
    Overloaded,
    /// The command is larger than all that may be in flight.
    #[error(
        "the command takes {len} bytes, more than the {max} that may be in flight; raise `max_in_flight_bytes`"
    )]
    TooLarge {
        /// Its size.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The server could not be asked, and the fallback tier has no room for the write. It was not accepted.
    #[error(transparent)]
    FallbackFull(#[from] TierFull),
    /// The cache was closed.
    #[error("the cache is closed")]
    Closed,
}

fn describe(failure: &Failure) -> &'static str {
    match failure.cause {
        Cause::Unreachable => "the server could not be reached",
        Cause::ConnectionLost => "the connection was lost before the server answered",
        Cause::Stalled => "the server was silent for longer than the stall timeout",
        Cause::Protocol => "the server broke the protocol",
        Cause::TimedOut => "the server did not answer within the operation's deadline",
        Cause::Overloaded => "the operation's deadline passed while it waited for its turn",
        Cause::Closed => "the cache was closed",
    }
}

impl OperationError {
    /// Whether more was asked than the configuration allows; the server is not to blame.
    #[must_use]
    pub const fn is_overload(&self) -> bool {
        matches!(self, Self::Overloaded | Self::Failed(Failure { cause: Cause::Overloaded, .. }))
    }

    /// Whether the server could not serve the operation; the same one may succeed when it is back.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::BreakerOpen | Self::FallbackFull(_) => true,
            Self::Failed(Failure { cause, .. }) => !matches!(cause, Cause::Overloaded | Cause::Closed),
            Self::Server(error) => falls_back(error.class()),
            Self::Unexpected { .. } | Self::Overloaded | Self::TooLarge { .. } | Self::Closed => false,
        }
    }

    /// Whether the operation ran out of time.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed(Failure { cause: Cause::TimedOut | Cause::Overloaded, .. }))
    }
}

impl From<Refused> for OperationError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Overloaded => Self::Overloaded,
            Refused::TooLarge { len, max } => Self::TooLarge { len, max },
            Refused::Closed => Self::Closed,
        }
    }
}

/// Whether the fallback tier may answer in the place of a server that answered with an error of this class.
pub(crate) const fn falls_back(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Transient | ErrorClass::Topology | ErrorClass::Auth | ErrorClass::Unsupported => true,
        ErrorClass::Capacity | ErrorClass::Caller => false,
    }
}

/// Keys that the server looks at in one step of a clear: small enough not to hold others up, about a millisecond.
const SCAN_COUNT: u32 = 512;
