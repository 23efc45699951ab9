//! When to wait, when to try again, when to stop asking: pure step functions over `now` and a seeded generator.
//!
//! | | question | state |
//! |---|---|---|
//! | [`Backoff`] | how long until the next try? | none |
//! | [`RetryPolicy`] | may this operation be tried again, and when? | [`RetryBudget`], one per endpoint |
//! | [`Breaker`] | is the server worth asking at all? | its own, one per endpoint |
//!
//! Nothing here reads a clock, sleeps or knows what an operation is. The same seed and the same calls give the same
//! answers, so a simulation replays exactly.

mod backoff;
mod breaker;
mod retry;

pub use backoff::{Backoff, Jitter};
pub use breaker::{Breaker, BreakerConfig, BreakerState, BreakerView, Permit, Verdict};
pub use retry::{Executed, FailedAttempt, RetryBudget, RetryBudgetConfig, RetryPolicy};

use core::time::Duration;

/// Nanoseconds of `duration`, at most `u64::MAX` (584 years, all that an `Instant` can hold).
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
