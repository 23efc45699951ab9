//! What share of the latest calls failed, and what share was slow.
//!
//! ```text
//!              window
//!   ├──────────────────────────────┤
//!   ┌──┬──┬──┬──┬──┬──┬──┬──┬──┬──┐
//!   │  │  │  │  │  │  │  │  │  │▒ │   ten buckets, each a tally of (calls, failed, slow)
//!   └──┴──┴──┴──┴──┴──┴──┴──┴──┴──┘
//!    ▲ emptied when time needs it ▲ now
//! ```
//!
//! Time is cut into tenths of the window, counted from the driver's epoch, and the ten latest are kept in a ring. A
//! result goes into the bucket of its time, so the window that is looked at is between nine and ten tenths of its
//! nominal length. Recording costs O(1), at most ten buckets to empty and ten to add up; memory is fixed.
//!
//! A window of *time*, not of the last so many calls: those of a quiet night would still be judged in the morning,
//! and those of a busy second would be over in a millisecond, less than any hiccup lasts. Ten buckets are what Polly
//! (`RollingHealthMetrics`), Hystrix (`metrics.rollingStats.numBuckets`) and Failsafe (its time-sliced statistics) use
//! too; resilience4j's time-based window has one for each second instead, so that its memory grows with the window.

use core::time::Duration;

use crate::Instant;
use crate::archive::Archive;
use crate::policy::nanos;

const BUCKETS: usize = 10;

/// A sliding window over results.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Nanoseconds in a bucket.
    width: u64,
    /// The number, since the epoch, of the latest bucket that has been in use.
    latest: u64,
    ring: [Tally; BUCKETS],
}

/// Results of one bucket, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let width = (nanos(length) / BUCKETS as u64).max(1);
        Self { width, latest: 0, ring: [Tally::default(); BUCKETS] }
    }

    pub(super) fn clear(&mut self) {
        self.ring = [Tally::default(); BUCKETS];
    }

    /// Adds one result, and sums up those that are in the window then.
    pub(super) fn record(&mut self, now: Instant, failed: bool, slow: bool) -> Tally {
        // A result may be told a little late: it counts as one of the latest.
        let number = (now.as_nanos() / self.width).max(self.latest);
        let passed = (number - self.latest).min(BUCKETS as u64);
        for stale in number - passed..number {
            *self.bucket(stale + 1) = Tally::default();
        }
        self.latest = number;
        let bucket = self.bucket(number);
        bucket.calls += 1;
        bucket.failed += u64::from(failed);
        bucket.slow += u64::from(slow);
        self.ring.iter().fold(Tally::default(), |sum, bucket| Tally {
            calls: sum.calls + bucket.calls,
            failed: sum.failed + bucket.failed,
            slow: sum.slow + bucket.slow,
        })
    }

    pub(super) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { width, latest, ring } = self;
        archive.by(width, |&width| width, |width| (width > 0).then_some(width));
        archive.value(latest);
        for Tally { calls, failed, slow } in ring {
            archive.values([calls, failed, slow]);
        }
    }

    fn bucket(&mut self, number: u64) -> &mut Tally {
        &mut self.ring[(number % BUCKETS as u64) as usize]
    }
}
