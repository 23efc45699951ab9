//! What is counted over all operations of a cache on Redis.

use crate::machine::Tally;

/// Counters since the engine was built. Every operation is in `operations`, and each other counter says what else was
/// true of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Operations that have ended with an answer or an error: `get`, `set`, `delete`, `exists` and `clear`. Those that
    /// were withdrawn are not counted.
    pub operations: u64,
    /// Reads answered with a value, by Redis or by the fallback tier.
    pub hits: u64,
    /// Reads answered with none.
    pub misses: u64,
    /// Sets that Redis acknowledged.
    pub sets: u64,
    /// Deletes that Redis acknowledged, whether or not there was something to delete.
    pub deletes: u64,
    /// Operations that Redis could not serve: the breaker was open, no answer came, or one that says so.
    pub unserved: u64,
    /// Reads that the fallback tier answered with a value.
    pub fallback_hits: u64,
    /// Reads that the fallback tier answered with none.
    pub fallback_misses: u64,
    /// Writes, deletes and clears that only the fallback tier accepted.
    pub fallback_writes: u64,
    /// Operations that ended with an error to the caller.
    pub errors: u64,
}

impl Counts {
    /// Counts one.
    pub const fn add(&mut self, tally: Tally) {
        let counter = self.counter(tally);
        *counter = counter.saturating_add(1);
    }

    /// The counter of a tally.
    pub const fn counter(&mut self, tally: Tally) -> &mut u64 {
        match tally {
            Tally::Operation => &mut self.operations,
            Tally::Hit => &mut self.hits,
            Tally::Miss => &mut self.misses,
            Tally::Set => &mut self.sets,
            Tally::Delete => &mut self.deletes,
            Tally::Unserved => &mut self.unserved,
            Tally::FallbackHit => &mut self.fallback_hits,
            Tally::FallbackMiss => &mut self.fallback_misses,
            Tally::FallbackWrite => &mut self.fallback_writes,
            Tally::Error => &mut self.errors,
        }
    }

    /// Hits of all reads, 0..=1; `None` before the first.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        ratio(self.hits, self.hits.saturating_add(self.misses))
    }

    /// The share of operations that Redis could not serve, 0..=1, whether or not the fallback tier then did; `None`
    /// before the first.
    #[must_use]
    pub fn error_ratio(&self) -> Option<f64> {
        ratio(self.unserved, self.operations)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tally_has_its_own_counter() {
        use Tally::*;
        let all =
            [Operation, Hit, Miss, Set, Delete, Unserved, FallbackHit, FallbackMiss, FallbackWrite, Error];
        let mut counts = Counts::default();
        for (nth, tally) in (1..).zip(all) {
            (0..nth).for_each(|_| counts.add(tally));
        }
        let expected = Counts {
            operations: 1,
            hits: 2,
            misses: 3,
            sets: 4,
            deletes: 5,
            unserved: 6,
            fallback_hits: 7,
            fallback_misses: 8,
            fallback_writes: 9,
            errors: 10,
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn ratios_begin_with_the_first_of_a_kind() {
        let mut counts = Counts::default();
        assert_eq!((counts.hit_ratio(), counts.error_ratio()), (None, None));
        counts.add(Tally::Operation); // A set, say.
        assert_eq!((counts.hit_ratio(), counts.error_ratio()), (None, Some(0.0)));
        for reads in [
            [Tally::Operation, Tally::Hit, Tally::Operation, Tally::Miss],
            [Tally::Operation, Tally::Hit, Tally::FallbackHit, Tally::Unserved],
        ] {
            reads.into_iter().for_each(|tally| counts.add(tally));
        }
        assert_eq!((counts.hit_ratio(), counts.error_ratio()), (Some(2.0 / 3.0), Some(0.25)));
    }
}
