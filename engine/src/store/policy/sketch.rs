//! How often keys were asked for lately, about.

use alloc::vec::Vec;

/// Lanes of a block. A key's four counters are in one block, so that a look touches one line of the processor's cache, and
/// each of them in a lane of its own choice: the first row's in the lowest four bits, and so on.
const LANES: usize = 32;
/// Entries that share a block: 16 counters, or 8 bytes, for each.
const ENTRIES_PER_BLOCK: usize = 8;
/// The most that a counter says. Telling keys apart that are asked for often needs no more (TinyLFU, section 3.4).
const MOST: u16 = 15;
/// After so many counts per entry everything is halved: what was often asked for long ago counts less and less.
const SAMPLE_PER_ENTRY: usize = 10;
const HALVED: u16 = 0x7777;

/// A count-min sketch of four rows, with four bits a counter and conservative update.
///
/// G. Cormode and S. Muthukrishnan, *An Improved Data Stream Summary: The Count-Min Sketch and its Applications*,
/// J. Algorithms 55 (2005); aged by halving as in G. Einziger, R. Friedman and B. Manes, *TinyLFU: A Highly Efficient
/// Cache Admission Policy*, ACM ToS 13 (2017). A block is halved when it is next looked at, not when it is due, so that
/// no call has to halve all of them.
///
/// Keys are known by 31 bits of their hashes.
#[derive(Default)]
pub(super) struct Sketch {
    counted: usize,
    /// How often each block should have been halved, modulo 256.
    due: u8,
    /// A power of two of them, or none.
    blocks: Vec<[u16; LANES]>,
    /// How often each has been.
    halvings: Vec<u8>,
}

impl Sketch {
    /// Begins anew, with counters for so many entries.
    pub(super) fn resize(&mut self, entries: usize) {
        let blocks = entries.div_ceil(ENTRIES_PER_BLOCK).next_power_of_two();
        self.blocks.clear();
        self.halvings.clear();
        self.blocks.resize(blocks, [0; LANES]);
        self.halvings.resize(blocks, self.due);
        self.counted = 0;
    }

    /// Forgets all counts. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.blocks.fill([0; LANES]);
        self.counted = 0;
    }

    /// How often the key was counted lately, at most 15. It may be too many, hardly ever too few.
    pub(super) fn estimate(&self, print: u32) -> u8 {
        let (at, choice) = self.place(print);
        let (Some(block), Some(halvings)) = (self.blocks.get(at), self.halvings.get(at)) else { return 0 };
        let late = self.due.wrapping_sub(*halvings);
        (least(counts(block, choice)) as u8).checked_shr(late.into()).unwrap_or(0)
    }

    /// Counts the key so many times, in a cache of so many entries. The answer is the [estimate](Self::estimate) before.
    pub(super) fn count(&mut self, print: u32, times: u8, entries: usize) -> u8 {
        let (at, choice) = self.place(print);
        let (Some(block), Some(halvings)) = (self.blocks.get_mut(at), self.halvings.get_mut(at)) else {
            return 0;
        };
        let late = self.due.wrapping_sub(*halvings);
        if late > 0 {
            *halvings = self.due;
            halve(block, late);
        }
        // As if the least of its counters were incremented so many times: none of them falls behind.
        let counts = counts(block, choice);
        let least = least(counts);
        let wanted = (least + u16::from(times)).min(MOST);
        for (row, count) in counts.into_iter().enumerate() {
            if let Some(lane) = block.get_mut(lane(choice, row)) {
                *lane += wanted.saturating_sub(count) << (4 * row);
            }
        }
        self.counted += usize::from(times);
        if self.counted >= entries.saturating_mul(SAMPLE_PER_ENTRY).max(64) {
            self.counted /= 2;
            self.due = self.due.wrapping_add(1);
        }
        least as u8
    }

    /// The block of a key, and the bits that choose its counters there.
    fn place(&self, print: u32) -> (usize, u32) {
        let spread = u64::from(print).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((spread >> 32) as usize & self.blocks.len().wrapping_sub(1), spread as u32)
    }
}

/// Halves a block so many times.
#[cold]
fn halve(block: &mut [u16; LANES], times: u8) {
    for _ in 0..times.min(4) {
        block.iter_mut().for_each(|lane| *lane = *lane >> 1 & HALVED);
    }
}

/// Which lane a key's counter of this row is in.
fn lane(choice: u32, row: usize) -> usize {
    (choice >> (8 * row)) as usize % LANES
}

/// What the counters of a key say, row by row.
fn counts(block: &[u16; LANES], choice: u32) -> [u16; 4] {
    core::array::from_fn(|row| block.get(lane(choice, row)).map_or(0, |lane| lane >> (4 * row) & MOST))
}

fn least(counts: [u16; 4]) -> u16 {
    counts.into_iter().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::properties;
    use core::hash::BuildHasher;
    use foldhash::quality::FixedState;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn print(key: u16) -> u32 {
        FixedState::with_seed(5).hash_one(key) as u32 >> 1
    }

    #[test]
    fn nothing_was_counted_in_a_sketch_without_counters() {
        let mut sketch = Sketch::default();
        sketch.count(print(1), 3, 10);
        assert_eq!(sketch.estimate(print(1)), 0);
    }

    #[test]
    fn a_count_is_halved_for_each_sample_that_has_passed_and_stops_at_15() {
        const ENTRIES: usize = if cfg!(miri) { 50 } else { 1_000 };
        let mut sketch = Sketch::default();
        sketch.resize(ENTRIES);
        sketch.count(print(1), 40, ENTRIES);
        assert_eq!(sketch.estimate(print(1)), 15);
        for expected in [7, 3, 1, 0] {
            let due = sketch.due;
            while sketch.due == due {
                sketch.count(print(2), 1, ENTRIES);
            }
            assert_eq!(sketch.estimate(print(1)), expected);
        }
        sketch.count(print(1), 1, ENTRIES);
        assert_eq!(sketch.estimate(print(1)), 1, "a block that is late is halved before it counts");
        sketch.clear();
        assert_eq!((sketch.estimate(print(1)), sketch.estimate(print(2))), (0, 0));
    }

    const KEYS: u16 = if cfg!(miri) { 40 } else { 400 };

    proptest! {
        #![proptest_config(properties())]

        /// Against a map of true counts, within one sample: never too few, and hardly ever too many.
        #[test]
        fn estimates_are_counts(keys in prop::collection::vec(0..KEYS, 0..KEYS as usize * 15 / 4)) {
            let mut sketch = Sketch::default();
            sketch.resize(KEYS.into());
            let mut counts = HashMap::<u16, u8>::new();
            for key in keys {
                sketch.count(print(key), 1, KEYS.into());
                *counts.entry(key).or_default() += 1;
            }
            let mut over = 0;
            for key in 0..KEYS {
                let (count, estimate) = (counts.get(&key).copied().unwrap_or(0).min(15), sketch.estimate(print(key)));
                prop_assert!(estimate >= count, "{estimate} for {count}");
                over += usize::from(estimate > count);
            }
            prop_assert!(over <= usize::from(KEYS / 20), "{over} of {KEYS} keys are overestimated");
        }
    }
}
