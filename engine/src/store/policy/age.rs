//! What was often asked for long ago counts less and less.

/// After so many counts per entry everything is halved (TinyLFU, section 3.3).
const SAMPLE_PER_ENTRY: usize = 10;

/// How often everything that was counted should have been halved so far. Each count is halved when it is next looked at,
/// not when it is due, so that no call has to halve all of them.
#[derive(Default)]
pub(super) struct Age {
    counted: usize,
    halvings: u8,
}

impl Age {
    /// So many requests were counted, in a cache of so many entries.
    pub(super) fn count(&mut self, times: usize, entries: usize) {
        self.counted += times;
        let sample = entries.saturating_mul(SAMPLE_PER_ENTRY).max(64);
        if self.counted >= sample {
            // Of a cache that was larger before, no more than half a sample: or everything would be halved again at once.
            self.counted = (self.counted / 2).min(sample / 2);
            self.halvings = self.halvings.wrapping_add(1);
        }
    }

    /// The halvings so far, modulo 256.
    pub(super) fn halvings(&self) -> u8 {
        self.halvings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_halved_after_ten_counts_for_each_entry() {
        let mut age = Age::default();
        let mut halvings_after = |counts, entries| {
            age.count(counts, entries);
            age.halvings()
        };
        assert_eq!([halvings_after(999, 100), halvings_after(1, 100)], [0, 1]);
        // What was counted before is halved as well: half as much again, then.
        assert_eq!([halvings_after(499, 100), halvings_after(1, 100)], [1, 2]);
        // In a small cache after 64, and once for what was counted in a large one.
        assert_eq!([halvings_after(0, 1), halvings_after(31, 1), halvings_after(1, 1)], [3, 3, 4]);
    }

    #[test]
    fn the_number_of_halvings_begins_anew() {
        let mut age = Age::default();
        for _ in 0..256 {
            age.count(64, 1);
        }
        assert_eq!(age.halvings(), 0);
    }
}
