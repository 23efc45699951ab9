//! What is kept of a key's hash.
//!
//! ```text
//!   hash          ┌─────┬────────────────────────────────────┬────────────────┐
//!                 │  7  │ 33 that the store does not ask for │       24       │
//!                 └──┬──┴────────────────────────────────────┴───────┬────────┘
//!   fingerprint   ┌──┴──┬────────────────┐                           │
//!                 │  7  │       24       │ ◀─────────────────────────┘
//!                 └─────┴────────────────┘
//! ```
//!
//! The index finds a place by the lowest bits of a hash, and tells keys at neighbouring places apart by the highest seven. Both are
//! kept for each entry, so that the index can be made anew, and be rid of an entry, without its key. The order of use keeps them:
//! the adaptive one wants to know keys by something anyway, beside its links and with a bit of its own in the same word. The whole
//! hash took two words of each entry.

/// The part of a key's hash that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(u32);

/// Which bits of a hash are kept. Entries are found whichever these are; these are where hashbrown looks, so that it has not to
/// look at many: the highest are those of as many bits as a pointer has.
const LOW: u64 = (1 << 24) - 1;
const HIGH: u64 = 0x7F << (usize::BITS - 7);
/// From the high ones' place to that next to the low ones.
const SHIFT: u32 = usize::BITS - 31;

impl Fingerprint {
    /// Which bits of a word there are.
    pub(super) const MASK: u32 = (HIGH >> SHIFT | LOW) as u32;

    /// That of a key with this hash.
    #[inline]
    pub(super) const fn of(hash: u64) -> Self {
        Self(((hash & HIGH) >> SHIFT | hash & LOW) as u32)
    }

    /// From a word that has something else in its highest bit.
    #[inline]
    pub(super) const fn from_word(word: u32) -> Self {
        Self(word & Self::MASK)
    }

    /// As a number.
    #[inline]
    pub(super) const fn get(self) -> u32 {
        self.0
    }

    /// The hash, as far as it is kept.
    #[inline]
    pub(super) const fn hash(self) -> u64 {
        let word = self.0 as u64;
        word << SHIFT & HIGH | word & LOW
    }
}

/// Under which hash an index of so many places, a power of two, knows a key: one that depends on no other bits than those that
/// are kept.
///
/// Where there are more places than the low bits can tell apart, which is from 9.8 million entries on, the high ones help, and are
/// not as good at telling neighbours apart then: who asks for what is not there waits for a neighbour's entry more often.
#[inline]
pub(super) const fn indexed(hash: u64, places: usize) -> u64 {
    let kept = hash & (HIGH | LOW);
    if places as u64 > LOW + 1 { spread(kept) } else { kept }
}

/// Apart, for a branch that is always foretold rightly: the way to a place is shorter than with a choice between two.
#[cold]
#[inline(never)]
const fn spread(kept: u64) -> u64 {
    kept ^ (kept & HIGH) >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::properties;
    use hashbrown::HashTable;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn who_shares_a_place_is_told_apart_without_a_look_at_the_entry() {
        let mut index = HashTable::<u64>::with_capacity(300);
        let places = index.num_buckets();
        // A hash's high bits count up, and its low bits are alike.
        let hash = |id: u64| id * (1 << HIGH.trailing_zeros()) + 5;
        let indexed = |id: &u64| indexed(Fingerprint::of(hash(*id)).hash(), places);
        for id in 0..100 {
            index.insert_unique(indexed(&id), id, indexed);
        }
        let mut looks = 0;
        for id in 0..100 {
            let is_it = |other: &u64| {
                looks += 1;
                *other == id
            };
            assert_eq!(index.find(indexed(&id), is_it), Some(&id));
        }
        assert_eq!(looks, 100, "one for each");
    }

    proptest! {
        #![proptest_config(properties())]

        #[test]
        fn the_index_knows_a_key_by_what_is_kept_of_its_hash(hash: u64, bits in 0_u32..32) {
            let places = 1 << bits;
            prop_assert_eq!(indexed(Fingerprint::of(hash).hash(), places), indexed(hash, places));
            let word = Fingerprint::of(hash).get() | !Fingerprint::MASK;
            prop_assert_eq!(Fingerprint::from_word(word), Fingerprint::of(hash));
        }
    }

    #[test]
    fn every_bit_that_is_kept_counts_for_the_place_up_to_2_to_the_31_places() {
        for bits in [10, 24, 25, 31] {
            let places = 1 << bits;
            let kept = (0..64).filter(|&bit| Fingerprint::of(1 << bit) != Fingerprint::default());
            let place = |bit: u32| indexed(1 << bit, places) & (places as u64 - 1);
            // The place is a sum of these, without carries: as many of them as it has bits are no sums of others.
            let mut independent: Vec<u64> = Vec::new();
            for place in kept.map(place) {
                let rest = independent.iter().fold(place, |rest, other| rest.min(rest ^ other));
                independent.extend((rest > 0).then_some(rest));
            }
            assert_eq!(independent.len(), bits, "of {bits}");
        }
    }
}
