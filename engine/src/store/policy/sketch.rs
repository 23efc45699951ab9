//! How often keys were asked for lately, about.

use super::super::fingerprint::Fingerprint;
use alloc::vec::Vec;

/// Lanes of a block. A key's four counters are in one block, so that a look touches one line of the processor's cache, and
/// each of them in a lane of its own choice: the first row's in the lowest four bits, and so on.
const LANES: usize = 31;
/// Entries that share a block: 8 bytes for each.
const ENTRIES_PER_BLOCK: usize = 8;
/// The most that a counter says. Telling keys apart that are asked for often needs no more (TinyLFU, section 3.4).
const MOST: u16 = 15;
const HALVED: u16 = 0x7777;

/// A count-min sketch of four rows, with four bits a counter and conservative update.
///
/// G. Cormode and S. Muthukrishnan, *An Improved Data Stream Summary: The Count-Min Sketch and its Applications*,
/// J. Algorithms 55 (2005); aged by halving as in G. Einziger, R. Friedman and B. Manes, *TinyLFU: A Highly Efficient
/// Cache Admission Policy*, ACM ToS 13 (2017), when the [`Age`](super::age::Age) says so.
///
/// Keys are known by their fingerprints.
#[derive(Default)]
pub(super) struct Sketch {
    /// A power of two of them, or none.
    blocks: Vec<Block>,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))] // a line of the processor's cache
struct Block {
    lanes: [u16; LANES],
    /// How often it has been halved, modulo 256.
    halvings: u8,
}

impl Sketch {
    /// Begins anew, with counters for so many entries.
    pub(super) fn resize(&mut self, entries: usize) {
        let blocks = entries.div_ceil(ENTRIES_PER_BLOCK).next_power_of_two();
        self.blocks.clear();
        self.blocks.resize(blocks, Block::default());
    }

    /// For how many entries there are counters.
    pub(super) fn room(&self) -> usize {
        self.blocks.len() * ENTRIES_PER_BLOCK
    }

    /// Forgets all counts. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.blocks.fill(Block::default());
    }

    /// How often the key was counted lately, at most 15: it may be too many, hardly ever too few.
    pub(super) fn estimate(&mut self, fingerprint: Fingerprint, halvings: u8) -> u8 {
        self.block(fingerprint, halvings).map_or(0, |(block, choice)| block.least(choice) as u8)
    }

    /// Counts the key so many times. The answer is the [estimate](Self::estimate) before.
    pub(super) fn count(&mut self, fingerprint: Fingerprint, times: u8, halvings: u8) -> u8 {
        let Some((block, choice)) = self.block(fingerprint, halvings) else { return 0 };
        let before = block.least(choice);
        block.lift(choice, before + u16::from(times));
        before as u8
    }

    /// Counts the key until it was counted so often.
    pub(super) fn lift(&mut self, fingerprint: Fingerprint, to: u8, halvings: u8) {
        if let Some((block, choice)) = self.block(fingerprint, halvings) {
            block.lift(choice, to.into());
        }
    }

    /// The block of a key, halved as often as it is due, and the bits that choose the key's counters there.
    #[inline]
    fn block(&mut self, fingerprint: Fingerprint, halvings: u8) -> Option<(&mut Block, u32)> {
        let spread = u64::from(fingerprint.get()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let place = (spread >> 32) as usize & self.blocks.len().wrapping_sub(1);
        let block = self.blocks.get_mut(place)?;
        if block.halvings != halvings {
            block.halve(halvings);
        }
        Some((block, spread as u32))
    }
}

impl Block {
    #[cold]
    fn halve(&mut self, halvings: u8) {
        for _ in 0..halvings.wrapping_sub(self.halvings).min(4) {
            self.lanes.iter_mut().for_each(|lane| *lane = *lane >> 1 & HALVED);
        }
        self.halvings = halvings;
    }

    /// The least of a key's counters.
    #[inline]
    fn least(&self, choice: u32) -> u16 {
        let count = |row| self.lanes.get(lane(choice, row)).map_or(0, |lane| lane >> (4 * row) & MOST);
        (0..4).map(count).min().unwrap_or(0)
    }

    /// Makes none of a key's counters less than this: as if the least of them was incremented, and none fell behind.
    #[inline]
    fn lift(&mut self, choice: u32, to: u16) {
        for row in 0..4 {
            if let Some(lane) = self.lanes.get_mut(lane(choice, row)) {
                *lane += to.min(MOST).saturating_sub(*lane >> (4 * row) & MOST) << (4 * row);
            }
        }
    }
}

/// Which lane a key's counter of this row is in.
fn lane(choice: u32, row: usize) -> usize {
    let byte = (choice >> (8 * row)) as u8;
    (usize::from(byte) * LANES) >> 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::properties;
    use core::hash::BuildHasher;
    use foldhash::quality::FixedState;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn fingerprint(key: u16) -> Fingerprint {
        Fingerprint::of(FixedState::with_seed(5).hash_one(key))
    }

    #[test]
    fn nothing_was_counted_in_a_sketch_without_counters() {
        let mut sketch = Sketch::default();
        sketch.lift(fingerprint(1), 3, 0);
        assert_eq!((sketch.count(fingerprint(1), 3, 0), sketch.estimate(fingerprint(1), 0)), (0, 0));
    }

    #[test]
    fn a_count_is_halved_each_time_that_it_is_due_and_stops_at_15() {
        let mut sketch = Sketch::default();
        sketch.resize(50);
        assert_eq!((sketch.count(fingerprint(1), 40, 0), sketch.estimate(fingerprint(1), 0)), (0, 15));
        // However late, and when the number of halvings has begun anew.
        for (halvings, expected) in [(1, 7), (3, 1), (4, 0), (200, 0)] {
            assert_eq!(sketch.estimate(fingerprint(1), halvings), expected, "{halvings}");
        }
        sketch.count(fingerprint(1), 9, 255);
        assert_eq!(sketch.estimate(fingerprint(1), 0), 4);
        sketch.clear();
        assert_eq!(sketch.estimate(fingerprint(1), 0), 0);
    }

    #[test]
    fn a_count_is_lifted_and_never_lowered() {
        let mut sketch = Sketch::default();
        sketch.resize(50);
        for (to, expected) in [(3, 3), (2, 3), (7, 7), (40, 15)] {
            sketch.lift(fingerprint(1), to, 0);
            assert_eq!(sketch.estimate(fingerprint(1), 0), expected, "{to}");
        }
    }

    const KEYS: u16 = if cfg!(miri) { 40 } else { 400 };

    proptest! {
        #![proptest_config(properties())]

        /// Against a map of true counts, within one sample: never too few, and hardly ever too many.
        #[test]
        fn counts_are_those_of_a_map(keys in prop::collection::vec(0..KEYS, 0..KEYS as usize * 15 / 4)) {
            let mut sketch = Sketch::default();
            sketch.resize(KEYS.into());
            let mut counts = HashMap::<u16, u8>::new();
            for key in keys {
                sketch.count(fingerprint(key), 1, 0);
                *counts.entry(key).or_default() += 1;
            }
            let mut over = 0;
            for key in 0..KEYS {
                let (count, found) = (counts.get(&key).copied().unwrap_or(0).min(15), sketch.estimate(fingerprint(key), 0));
                prop_assert!(found >= count, "{found} for {count}");
                over += usize::from(found > count);
            }
            prop_assert!(over <= usize::from(KEYS / 20), "{over} of {KEYS} keys are overestimated");
        }
    }
}
