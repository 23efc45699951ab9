//! Why a connection could not be made, as people are told.

use std::io;

use larder_engine::machine::DialError;

/// Why the latest dial failed. A socket that knows more than its kind hands it out inside of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub(crate) struct DialTrouble {
    pub(crate) cause: String,
    /// Whether only another configuration cures it, ours or the server's; waiting does not.
    pub(crate) is_configuration: bool,
}

impl DialTrouble {
    pub(crate) fn outage(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), is_configuration: false }
    }

    /// Of a connection that was made and could not be secured in time.
    pub(crate) fn unsecured() -> Self {
        Self::outage(
            "the TLS handshake was not over within the connect timeout; does the server speak TLS on this port?",
        )
    }

    /// What an error of a socket carries, beyond that the connection is lost.
    pub(crate) fn carried_by(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().cloned()
    }
}

impl From<&io::Error> for DialTrouble {
    fn from(error: &io::Error) -> Self {
        Self::carried_by(error).unwrap_or_else(|| Self::outage(error.to_string()))
    }
}

impl From<&DialError> for DialTrouble {
    fn from(error: &DialError) -> Self {
        let is_configuration = matches!(error, DialError::Handshake(error) if error.is_configuration());
        Self { cause: error.to_string(), is_configuration }
    }
}
