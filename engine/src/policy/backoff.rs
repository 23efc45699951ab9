//! Exponential backoff with jitter.

use core::time::Duration;

use super::nanos;

/// A schedule of growing delays: `base`, `2·base`, `4·base` … up to `cap`, each spread by [`Jitter`].
///
/// The step is clamped to the cap **before** it is jittered. The other order looks the same until the cap is
/// reached; from then on every client would wait exactly the cap, and a fleet that lost its server together would
/// come back together.
///
/// Delays saturate at 584 years; no pair of durations overflows. A `base` above `cap` counts as `cap`.
///
/// ```
/// use core::time::Duration;
/// use larder_engine::policy::{Backoff, Jitter};
///
/// let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1), jitter: Jitter::None };
/// let mut rng = fastrand::Rng::with_seed(7);
/// let delays = [0, 1, 2, 3, 4, 99].map(|attempt| backoff.delay(attempt, Duration::ZERO, &mut rng).as_millis());
/// assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first step.
    pub base: Duration,
    /// No step is longer than this.
    pub cap: Duration,
    /// How a step is spread.
    pub jitter: Jitter,
}

/// How a step of a [`Backoff`] becomes a delay.
///
/// The names and formulas are those of Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// `step/2 ..= step`: spreads, and keeps a floor under the delay.
    #[default]
    Equal,
    /// `0 ..= step`: spreads the most; best where many clients reconnect to one server.
    Full,
    /// `base ..= min(3·previous, cap)`: grows from the delay drawn last instead of from the number of the attempt.
    Decorrelated,
    /// The step itself, for tests and for a single client.
    None,
}

impl Backoff {
    /// The delay before another try, after `attempt` earlier delays (0 for the first one).
    ///
    /// `previous` is the delay that this function answered last, zero for the first; only
    /// [`Jitter::Decorrelated`] looks at it. Draws at most one number from `rng`.
    #[must_use]
    pub fn delay(&self, attempt: u32, previous: Duration, rng: &mut fastrand::Rng) -> Duration {
        let cap = nanos(self.cap);
        let base = nanos(self.base).min(cap);
        // From 2^64 on any base but zero is past every cap.
        let factor = 1u64.checked_shl(attempt).unwrap_or(u64::MAX);
        let step = base.saturating_mul(factor).min(cap);
        let delay = match self.jitter {
            Jitter::Equal => rng.u64(step / 2..=step),
            Jitter::Full => rng.u64(0..=step),
            Jitter::Decorrelated => rng.u64(base..=nanos(previous).saturating_mul(3).clamp(base, cap)),
            Jitter::None => step,
        };
        Duration::from_nanos(delay)
    }
}
