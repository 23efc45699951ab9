//! Time as the engine sees it: a number that the driver hands in.
//!
//! The engine never reads a clock. A driver keeps an epoch, measures against it, and passes the result as `now`
//! to every call that depends on time; a test passes literals. There is deliberately no conversion from
//! `std::time::Instant`: it would need a clock to anchor it.

use core::fmt;
use core::num::NonZeroU64;
use core::time::Duration;

/// A point in time: nanoseconds since an epoch that the driver chose, good for 584 years.
///
/// Arithmetic saturates, so no duration however large can overflow; [`Instant::NEVER`] is the far end and stays
/// there. `Option<Instant>` is as small as `Instant`.
///
/// ```
/// use core::time::Duration;
/// use larder_engine::Instant;
///
/// let start = Instant::from_millis(5);
/// let later = start.saturating_add(Duration::from_millis(20));
/// assert_eq!(later.saturating_since(start), Duration::from_millis(20));
/// assert_eq!(start.saturating_since(later), Duration::ZERO);
/// assert_eq!(start.saturating_add(Duration::MAX), Instant::NEVER);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The driver's epoch: nanosecond zero.
    pub const EPOCH: Self = Self(NonZeroU64::MIN);
    /// The end of time: a deadline that is never reached.
    pub const NEVER: Self = Self(NonZeroU64::MAX);

    /// The instant `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        // Stored plus one, so that zero is free for `None`; `saturating_add` on a non-zero cannot fail.
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// The instant `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// This instant plus `duration`, at most [`Instant::NEVER`].
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        if nanos > u64::MAX as u128 {
            return Self::NEVER;
        }
        Self(self.0.saturating_add(nanos as u64))
    }

    /// How long ago `earlier` was; zero when it lies in the future. From [`Instant::NEVER`] the answer is
    /// [`Duration::MAX`].
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        if self.is_never() {
            return Duration::MAX;
        }
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// Whether this is [`Instant::NEVER`].
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0.get() == u64::MAX
    }
}

/// The earlier of two times, where either may be none.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() {
            return f.write_str("never");
        }
        write!(f, "+{:?}", Duration::from_nanos(self.as_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant::from_nanos(u64::MAX), Instant::NEVER);
        assert_eq!(Instant::NEVER.saturating_add(Duration::from_secs(1)), Instant::NEVER);
        assert_eq!(Instant::EPOCH.saturating_since(Instant::NEVER), Duration::ZERO);
        assert_eq!(Instant::NEVER.saturating_since(Instant::EPOCH), Duration::MAX);
        assert_eq!(Instant::EPOCH.as_nanos(), 0);
        assert_eq!(Instant::from_millis(3).as_nanos(), 3_000_000);
    }

    #[test]
    fn an_optional_instant_costs_nothing_more() {
        assert_eq!(size_of::<Option<Instant>>(), size_of::<u64>());
    }

    #[test]
    fn debug_reads_like_a_duration() {
        assert_eq!(std::format!("{:?}", Instant::from_millis(1500)), "+1.5s");
        assert_eq!(std::format!("{:?}", Instant::NEVER), "never");
    }
}
