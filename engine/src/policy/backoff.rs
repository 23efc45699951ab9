//! Exponential backoff with jitter.

use core::time::Duration;

use super::nanos;
use crate::archive::Archive;

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

    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        const JITTERS: [Jitter; 4] = [Jitter::Equal, Jitter::Full, Jitter::Decorrelated, Jitter::None];
        let Self { base, cap, jitter } = self;
        archive.values([base, cap]);
        archive.by(jitter, |&jitter| jitter as u8, |number| JITTERS.get(usize::from(number)).copied());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The step by the formula, in integers wide enough for it.
    fn step(backoff: &Backoff, attempt: u32) -> Duration {
        let (base, cap) = (u128::from(nanos(backoff.base)), u128::from(nanos(backoff.cap)));
        let step = (0..attempt.min(64)).fold(base.min(cap), |step, _| (step * 2).min(cap));
        Duration::from_nanos(u64::try_from(step).expect("no more than the cap"))
    }

    #[test]
    fn the_documented_schedule() {
        let mut backoff = Backoff { base: ms(100), cap: ms(60_000), jitter: Jitter::None };
        let mut rng = fastrand::Rng::with_seed(0);
        let steps = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000];
        for (attempt, expected) in (0..).zip(steps) {
            backoff.jitter = Jitter::None;
            assert_eq!(backoff.delay(attempt, Duration::ZERO, &mut rng), ms(expected));
            backoff.jitter = Jitter::Equal;
            let delay = backoff.delay(attempt, Duration::ZERO, &mut rng);
            assert!((ms(expected / 2)..=ms(expected)).contains(&delay), "{attempt}: {delay:?}");
        }
    }

    /// Clamping after jitter would answer the cap itself, or nearly always so.
    #[test]
    fn jitter_is_not_cancelled_at_the_cap() {
        for (jitter, lowest) in [(Jitter::Equal, 50), (Jitter::Full, 0), (Jitter::Decorrelated, 10)] {
            let backoff = Backoff { base: ms(10), cap: ms(100), jitter };
            let mut rng = fastrand::Rng::with_seed(1);
            let delays: Vec<_> = (0..1000).map(|_| backoff.delay(40, ms(100), &mut rng)).collect();
            let mean = delays.iter().sum::<Duration>() / 1000;
            let expected = ms((lowest + 100) / 2);
            assert!(
                mean.abs_diff(expected) < ms(4),
                "{jitter:?}: mean {mean:?} where {expected:?} is uniform"
            );
            assert!(delays.iter().filter(|&&delay| delay == ms(100)).count() < 5, "{jitter:?}");
        }
    }

    #[test]
    fn decorrelated_grows_from_the_previous_delay() {
        let backoff = Backoff { base: ms(10), cap: ms(1000), jitter: Jitter::Decorrelated };
        let mut rng = fastrand::Rng::with_seed(2);
        assert_eq!(backoff.delay(0, Duration::ZERO, &mut rng), ms(10));
        for previous in [10, 100, 333] {
            let longest = (0..1000).map(|_| backoff.delay(0, ms(previous), &mut rng)).max().expect("some");
            assert!(longest > ms(previous * 5 / 2) && longest <= ms(previous * 3), "{previous}: {longest:?}");
        }
    }

    fn durations() -> impl Strategy<Value = Duration> {
        let any = (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos));
        prop_oneof![any, (0u64..100_000).prop_map(ms), Just(Duration::ZERO), Just(Duration::MAX)]
    }

    proptest! {
        #[test]
        fn every_delay_is_in_its_bounds(
            base in durations(),
            cap in durations(),
            previous in durations(),
            attempt in prop_oneof![0u32..70, any::<u32>()],
            jitter in prop::sample::select(&[Jitter::Equal, Jitter::Full, Jitter::Decorrelated, Jitter::None][..]),
            seed: u64,
        ) {
            let backoff = Backoff { base, cap, jitter };
            let (mut rng, mut again) = (fastrand::Rng::with_seed(seed), fastrand::Rng::with_seed(seed));
            let delay = backoff.delay(attempt, previous, &mut rng);
            prop_assert_eq!(delay, backoff.delay(attempt, previous, &mut again), "equal seeds, equal delays");

            let step = step(&backoff, attempt);
            let bounds = match jitter {
                Jitter::Equal => step / 2..=step,
                Jitter::Full => Duration::ZERO..=step,
                Jitter::Decorrelated => base.min(cap)..=previous.saturating_mul(3).max(base).min(cap),
                Jitter::None => step..=step,
            };
            // The bounds are those of whole nanoseconds in 64 bits.
            let bounds = nanos(*bounds.start())..=nanos(*bounds.end());
            prop_assert!(bounds.contains(&nanos(delay)), "{:?} not in {:?}", delay, bounds);
            prop_assert!(delay <= cap);
        }
    }
}
