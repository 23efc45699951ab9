//! The engine's time: nanoseconds since the driver was made.

use std::fmt;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use larder_engine::Instant;

/// Turns a runtime's time into the engine's and back. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock {
    epoch: StdInstant,
    now: Option<Arc<dyn Fn() -> StdInstant + Send + Sync>>,
}

impl Clock {
    /// The system's monotonic clock.
    pub(crate) fn system() -> Self {
        Self { epoch: StdInstant::now(), now: None }
    }

    /// A runtime's clock, which a test may have paused.
    pub(crate) fn new(now: impl Fn() -> StdInstant + Send + Sync + 'static) -> Self {
        Self { epoch: now(), now: Some(Arc::new(now)) }
    }

    pub(crate) fn now(&self) -> Instant {
        let now = self.now.as_ref().map_or_else(StdInstant::now, |now| now());
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

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
}
