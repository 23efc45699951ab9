//! The engine's time: nanoseconds since the driver was made.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use larder_engine::Instant;

/// Turns a runtime's time into the engine's and back. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock {
    epoch: StdInstant,
    source: Source,
}

#[derive(Clone)]
enum Source {
    System(Coarse),
    Runtime(Arc<dyn Fn() -> StdInstant + Send + Sync>),
}

/// How late a coarse clock may be, generously: it is moved on by the kernel's tick, every 1 to 10 ms, or by the first to run
/// after a pause of these.
const LATE: Duration = Duration::from_millis(100);

impl Clock {
    /// The system's monotonic clock.
    pub(crate) fn system() -> Self {
        loop {
            let epoch = StdInstant::now();
            let coarse = Coarse::new();
            // Had the thread lost the processor between the two, they would differ for ever.
            if epoch.elapsed() < LATE / 100 {
                return Self { epoch, source: Source::System(coarse) };
            }
        }
    }

    /// A runtime's clock, which a test may have paused.
    pub(crate) fn new(now: impl Fn() -> StdInstant + Send + Sync + 'static) -> Self {
        Self { epoch: now(), source: Source::Runtime(Arc::new(now)) }
    }

    pub(crate) fn now(&self) -> Instant {
        let now = match &self.source {
            Source::System(_) => StdInstant::now(),
            Source::Runtime(now) => now(),
        };
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The time, or a little before: close enough to tell whether it is past the deadline. That is some four times as
    /// fast as [`now`](Self::now) where the deadline is not near.
    #[inline(never)] // dear enough not to be in the way of those who need no time
    pub(crate) fn now_to_tell(&self, deadline: Instant) -> Instant {
        match &self.source {
            Source::System(coarse) => coarse.now().filter(|now| are_apart(*now, deadline)),
            Source::Runtime(_) => None,
        }
        .unwrap_or_else(|| self.now())
    }

    /// When that is for the runtime; `None` is further away than its clock can tell.
    pub(crate) fn to_std(&self, at: Instant) -> Option<StdInstant> {
        self.epoch.checked_add(at.saturating_since(Instant::EPOCH))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

fn are_apart(one: Instant, other: Instant) -> bool {
    one.as_nanos().abs_diff(other.as_nanos()) > LATE.as_nanos() as u64
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use linux::Coarse;

/// The clock that the kernel keeps in memory: the time of its last tick.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use larder_engine::Instant;
    use nix::time::{ClockId, clock_gettime};

    /// Its beginning in nanoseconds, by the exact clock that it follows: so it is never ahead. `None` on a kernel without.
    #[derive(Clone, Copy)]
    pub(super) struct Coarse(Option<u64>);

    impl Coarse {
        pub(super) fn new() -> Self {
            Self(nanos(ClockId::CLOCK_MONOTONIC))
        }

        pub(super) fn now(self) -> Option<Instant> {
            let now = nanos(ClockId::CLOCK_MONOTONIC_COARSE)?;
            Some(Instant::from_nanos(now.saturating_sub(self.0?)))
        }
    }

    /// Since the system was started, which is not before zero.
    fn nanos(clock: ClockId) -> Option<u64> {
        let time = clock_gettime(clock).ok()?;
        Some(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Clone, Copy)]
struct Coarse;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Coarse {
    fn new() -> Self {
        Self
    }

    fn now(self) -> Option<Instant> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn time_goes_by_the_runtimes_clock_and_never_before_its_beginning() {
        let start = StdInstant::now() + Duration::from_secs(100);
        let time = Arc::new(Mutex::new(start));
        let clock = Clock::new({
            let time = Arc::clone(&time);
            move || *time.lock().expect("no panic")
        });
        let set = |to| *time.lock().expect("no panic") = to;
        let first = clock.now();
        set(start + Duration::from_millis(5));
        assert_eq!(clock.now().saturating_since(first), Duration::from_millis(5));
        assert_eq!(clock.to_std(clock.now()), Some(start + Duration::from_millis(5)));
        set(start - Duration::from_secs(50));
        assert_eq!(clock.now(), first, "a clock that went backwards");
        set(start + Duration::from_secs(300 * 365 * 86_400));
        assert!(clock.now() > first && clock.now() < Instant::NEVER, "three hundred years");
    }

    #[test]
    fn the_systems_clock_moves() {
        let clock = Clock::system();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now().saturating_since(first) >= Duration::from_millis(2));
    }

    #[test]
    fn only_a_deadline_that_is_near_is_told_by_the_exact_clock() {
        let clock = Clock::system();
        std::thread::sleep(2 * LATE);
        for _ in 0..1_000 {
            let (before, near) = (clock.now(), clock.now().saturating_add(LATE / 2));
            assert!(clock.now_to_tell(before) >= before && clock.now_to_tell(near) >= before);
            for far in [Instant::EPOCH, before.saturating_add(4 * LATE), Instant::NEVER] {
                let told = clock.now_to_tell(far);
                assert!(told <= clock.now() && told.saturating_add(LATE) > before, "{told:?} for {before:?}");
            }
        }
    }
}
