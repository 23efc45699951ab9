//! What a store has done so far.

use super::{Bound, RemovalCause};
use core::ops::AddAssign;

/// Counters of a [`Store`](super::Store) since it was made. They never reset; rates are differences.
///
/// Every entry that came in has ended in exactly one way or is still there:
/// `inserts == len + expired + removals + evicted_for_entries + evicted_for_bytes`.
///
/// Counters of several stores (shards) add up with `+=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)] // first what nearly every operation counts: see the store
pub struct StoreStats {
    /// Reads that found a live entry.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Values that replaced a live entry's.
    pub updates: u64,
    /// Entries that came in under a key that had none.
    pub inserts: u64,
    /// Live entries that went because there were `max_entries` already.
    pub evicted_for_entries: u64,
    /// Live entries that went because the sum of bytes would have passed `max_bytes`.
    pub evicted_for_bytes: u64,
    /// Entries that ended by their deadline, whoever noticed: a read, a write or a sweep.
    pub expired: u64,
    /// Entries that the caller ended: removed, cleared, or given up because their new value was refused.
    pub removals: u64,
    /// Values that were refused as larger than the store could ever hold.
    pub refused: u64,
}

impl StoreStats {
    /// The share of reads that were hits, `0.0..=1.0`; `None` before the first read.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits.saturating_add(self.misses);
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }

    /// Live entries that were evicted, for whichever bound.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evicted_for_entries.saturating_add(self.evicted_for_bytes)
    }

    /// An entry has gone for a bound. It may have expired within the current tick, of which the timer wheel knows nothing.
    #[inline]
    pub(super) fn make_way(&mut self, bound: Bound, is_over: bool) -> RemovalCause {
        let (counter, cause) = match bound {
            _ if is_over => (&mut self.expired, RemovalCause::Expired),
            Bound::Entries => (&mut self.evicted_for_entries, RemovalCause::Evicted),
            Bound::Bytes => (&mut self.evicted_for_bytes, RemovalCause::Evicted),
        };
        *counter += 1;
        cause
    }
}

impl AddAssign for StoreStats {
    fn add_assign(&mut self, other: Self) {
        // Taken apart in full, so that a new counter cannot be forgotten here.
        let Self {
            hits,
            misses,
            inserts,
            updates,
            expired,
            removals,
            evicted_for_entries,
            evicted_for_bytes,
            refused,
        } = other;
        for (sum, more) in [
            (&mut self.hits, hits),
            (&mut self.misses, misses),
            (&mut self.inserts, inserts),
            (&mut self.updates, updates),
            (&mut self.expired, expired),
            (&mut self.removals, removals),
            (&mut self.evicted_for_entries, evicted_for_entries),
            (&mut self.evicted_for_bytes, evicted_for_bytes),
            (&mut self.refused, refused),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}
