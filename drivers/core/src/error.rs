//! What can go wrong, in one enum.

use std::sync::Arc;
use std::time::Duration;

use larder_engine::codec::{DecodeValueError, EncodeError};
use larder_engine::key::KeyError;
use larder_engine::machine::OperationError;
use larder_engine::resp::ServerError;
use larder_engine::store::TooLarge;

/// An error of a cache. Cheap to clone; shows no passwords and no values.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key, or a namespace, is not acceptable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value cannot be written with the cache's codec.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// What is stored is not a value of the type that was asked for.
    #[error(transparent)]
    Decode(#[from] DecodeValueError),
    /// The time to live makes no sense.
    #[error(
        "a time to live of {0:?} stores nothing: delete the key instead, or use Ttl::Never for a value without end"
    )]
    Ttl(Duration),
    /// The value is larger than a memory cache may hold.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Redis did not answer, or with an error.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// A parameter makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The first connection could not be made.
    #[error("cannot connect to {endpoint}: {cause}")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why not.
        cause: String,
    },
    /// A backend of your own failed.
    #[error("the backend {backend} failed: {source}")]
    Backend {
        /// Its name.
        backend: &'static str,
        /// What it said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether the operation ran out of time.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Operation(error) if error.is_timeout())
    }

    /// Whether Redis could not be asked, or not answer: another attempt later may succeed.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Operation(error) => error.is_outage(),
            Self::Connect { .. } => true,
            _ => false,
        }
    }

    /// Whether more was asked at a time than the configuration allows.
    #[must_use]
    pub const fn is_overload(&self) -> bool {
        matches!(self, Self::Operation(error) if error.is_overload())
    }

    /// Whether the cache was closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Operation(OperationError::Closed))
    }

    /// Whether stored bytes are not a value of the type that was asked for.
    #[must_use]
    pub const fn is_undecodable(&self) -> bool {
        matches!(self, Self::Decode(_))
    }

    /// Whether the key holds something else than a string, such as a list.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        self.server_error().is_some_and(|error| error.code() == b"WRONGTYPE")
    }

    /// The error that the server answered with, if that is what it is.
    #[must_use]
    pub const fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Operation(OperationError::Server(error)) => Some(error),
            _ => None,
        }
    }
}

/// A parameter that makes no sense: which, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    field: &'static str,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    /// The parameter, as its builder method is named; `url` for a part of the URL.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::machine::{Cause, Failure};
    use larder_engine::policy::Executed;

    use super::*;

    /// What each cause means to a caller: out of time, Redis is gone, asked too much, closed.
    #[test]
    fn causes_are_told_apart() {
        let failed = |cause| OperationError::Failed(Failure { cause, executed: Executed::Unknown });
        let cases: [(OperationError, [bool; 4]); 11] = [
            (failed(Cause::TimedOut), [true, true, false, false]),
            (failed(Cause::Stalled), [false, true, false, false]),
            (failed(Cause::Unreachable), [false, true, false, false]),
            (failed(Cause::ConnectionLost), [false, true, false, false]),
            (failed(Cause::Protocol), [false, true, false, false]),
            (failed(Cause::Overloaded), [true, false, true, false]),
            (OperationError::BreakerOpen, [false, true, false, false]),
            (OperationError::Overloaded, [false, false, true, false]),
            (OperationError::TooLarge { len: 2, max: 1 }, [false, false, false, false]),
            (OperationError::Unexpected { command: "GET" }, [false, false, false, false]),
            (OperationError::Closed, [false, false, false, true]),
        ];
        for (cause, expected) in cases {
            let error = Error::from(cause);
            let told = [error.is_timeout(), error.is_unavailable(), error.is_overload(), error.is_closed()];
            assert_eq!(told, expected, "{error:?}");
            assert!(!error.is_undecodable() && !error.is_wrong_type() && error.server_error().is_none());
        }
    }
}
