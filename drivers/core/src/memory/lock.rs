//! The lock of a shard, made for the many times when nobody else wants it.
//!
//! ```text
//!             lock: one atomic exchange
//!   ┌──────┐ ───────────────────────────▶ ┌──────┐
//!   │ free │                              │ held │ ◀─ lock: spins, then yields, then sleeps for longer and longer,
//!   └──────┘ ◀─────────────────────────── └──────┘    until it sees the lock free, and tries again
//!             drop: one plain store
//! ```
//!
//! A lock that wakes who waits has to find out, when it is let go of, whether somebody does. That is a second atomic
//! operation, and these cost a fifth of a hit each. This lock is let go of by a plain store, and who finds it held looks again by
//! himself: at once for as long as another's operation takes, and then ever more rarely, asleep, so that he takes no
//! processor from a holder that is not running, whatever the priorities.

use std::time::Duration;

#[cfg(not(all(test, shuttle)))]
use spin::mutex::{SpinMutex as Raw, SpinMutexGuard as RawGuard};

// In tests of interleavings, a scheduler decides who goes on.
#[cfg(all(test, shuttle))]
use shuttle::sync::{Mutex as Raw, MutexGuard as RawGuard};

/// Not fair, and not to be locked again by who holds it: he would wait for ever.
pub(super) struct Lock<T>(Raw<T>);

/// Lets go of the lock when it is dropped, by a panic as well.
pub(super) type Guard<'a, T> = RawGuard<'a, T>;

impl<T> Lock<T> {
    pub(super) fn new(guarded: T) -> Self {
        Self(Raw::new(guarded))
    }

    #[cfg(not(all(test, shuttle)))]
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.0.try_lock().unwrap_or_else(|| self.wait())
    }

    #[cfg(not(all(test, shuttle)))]
    #[cold]
    fn wait(&self) -> Guard<'_, T> {
        let mut turn = 0_u32;
        loop {
            Pause::of(turn).take();
            turn = turn.saturating_add(1);
            // Looks before it tries: a failed attempt, too, takes the cache line from who holds the lock.
            if !self.0.is_locked() {
                if let Some(guard) = self.0.try_lock() {
                    return guard;
                }
            }
        }
    }

    #[cfg(all(test, shuttle))]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().expect("no test panics with a lock held")
    }
}

/// What who waits does until he looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(all(test, shuttle), allow(dead_code, reason = "the scheduler's own locks wait by themselves"))]
enum Pause {
    Spin,
    Yield,
    Sleep(Duration),
}

#[cfg_attr(all(test, shuttle), allow(dead_code, reason = "the scheduler's own locks wait by themselves"))]
impl Pause {
    /// A microsecond or two: operations hold the lock for a tenth of one. Where two threads do nothing but fight for one lock, each
    /// gets more done if the other sleeps than if the cache lines go to and fro.
    const SPINS: u32 = 32;
    /// So many turns of others, whose time may have been up while they held the lock.
    const YIELDS: u32 = 4;
    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(1);

    /// What to do for the `turn`th time, the first being 0.
    fn of(turn: u32) -> Self {
        let Some(late) = turn.checked_sub(Self::SPINS) else { return Self::Spin };
        let Some(late) = late.checked_sub(Self::YIELDS) else { return Self::Yield };
        let doubled = 1_u32.checked_shl(late).unwrap_or(u32::MAX);
        Self::Sleep(Self::SHORTEST.saturating_mul(doubled).min(Self::LONGEST))
    }

    fn take(self) {
        match self {
            Self::Spin => std::hint::spin_loop(),
            Self::Yield => std::thread::yield_now(),
            Self::Sleep(time) => std::thread::sleep(time),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn who_waits_spins_then_yields_then_sleeps_for_longer_and_longer() {
        let sleep = |micros| Pause::Sleep(Duration::from_micros(micros));
        for (turn, expected) in [
            (0, Pause::Spin),
            (31, Pause::Spin),
            (32, Pause::Yield),
            (35, Pause::Yield),
            (36, sleep(50)),
            (37, sleep(100)),
            (40, sleep(800)),
            (41, sleep(1_000)),
            (36 + 32, sleep(1_000)),
            (u32::MAX, sleep(1_000)),
        ] {
            assert_eq!(Pause::of(turn), expected, "{turn}");
        }
    }

    #[test]
    fn the_lock_is_held_by_one_at_a_time_and_whoever_waits_gets_it() {
        const THREADS: u64 = 8;
        const TURNS: u64 = 2_000;
        let lock = Lock::new(0_u64);
        let is_inside = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for turn in 0..TURNS {
                        let mut count = lock.lock();
                        assert!(!is_inside.swap(true, Ordering::Relaxed), "two at once");
                        *count += 1;
                        // Some hold it until the others sleep.
                        if turn % 500 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        is_inside.store(false, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), THREADS * TURNS);
    }

    #[test]
    fn a_panic_lets_go_of_the_lock() {
        let lock = Lock::new(7);
        let panic = std::panic::AssertUnwindSafe(|| {
            let _guard = lock.lock();
            panic!("on purpose");
        });
        assert!(std::panic::catch_unwind(panic).is_err());
        assert_eq!(*lock.lock(), 7);
    }
}
