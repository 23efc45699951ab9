//! How long a value lives.

use std::time::Duration;

/// The time to live of a value.
///
/// ```
/// use std::time::Duration;
/// use larder::Ttl;
///
/// assert_eq!(Ttl::from(Duration::from_secs(60)), Ttl::After(Duration::from_secs(60)));
/// assert_eq!(Ttl::default(), Ttl::Default);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The cache's `default_ttl`; for ever where it has none.
    #[default]
    Default,
    /// For ever, whatever the default is, or until it is evicted.
    Never,
    /// This long. Redis keeps whole milliseconds: fractions are rounded up.
    After(Duration),
}

impl Ttl {
    /// The time to live in a cache with this default; `None` is for ever.
    pub(crate) fn or_default(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Default => default,
            Self::Never => None,
            Self::After(ttl) => Some(ttl),
        }
    }
}

impl From<Duration> for Ttl {
    fn from(ttl: Duration) -> Self {
        Self::After(ttl)
    }
}
