//! Who has gone lately.

use alloc::vec::Vec;

/// The hashes of the last few ids that went from each of two parts, in a table by hash; one that falls on another's place
/// displaces it. The two parts' places are side by side: whoever comes in is looked for in both.
pub(super) struct Ghosts {
    /// A power of two of them, four for each ghost that counts, or none.
    slots: Vec<[Ghost; 2]>,
    /// How many have gone from each part, modulo 2^32, beginning with as many as count: an empty slot is then too old.
    turns: [u32; 2],
    /// How many of a part count.
    depth: u32,
}

#[derive(Clone, Copy, Default)]
struct Ghost {
    tag: u32,
    turn: u32,
}

impl Ghosts {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), turns: [0; 2], depth: 0 }
    }

    /// Begins anew and remembers `depth` of each part from now on.
    pub(super) fn resize(&mut self, depth: u32) {
        self.depth = depth;
        self.slots.clear();
        self.slots.resize((4 * depth as usize).next_power_of_two(), [Ghost::default(); 2]);
        self.turns = [depth; 2];
    }

    /// Forgets all. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.slots.fill([Ghost::default(); 2]);
        self.turns = [self.depth; 2];
    }

    /// The key of this hash has gone from the part.
    pub(super) fn push(&mut self, part: u32, hash: u64) {
        if let Some((slot, turn)) = self.slot(part, hash) {
            *turn = turn.wrapping_add(1);
            *slot = Ghost { tag: tag(hash), turn: *turn };
        }
    }

    /// Whether the key of this hash is one of the last that went from the part. It is forgotten then: it is back.
    pub(super) fn take(&mut self, part: u32, hash: u64) -> bool {
        let depth = self.depth;
        let Some((slot, turn)) = self.slot(part, hash) else { return false };
        let found = slot.tag == tag(hash) && turn.wrapping_sub(slot.turn) < depth;
        if found {
            slot.turn = turn.wrapping_sub(depth);
        }
        found
    }

    /// The place of this hash, and how many have gone, of a part.
    fn slot(&mut self, part: u32, hash: u64) -> Option<(&mut Ghost, &mut u32)> {
        let place = (hash >> 16) as usize & self.slots.len().wrapping_sub(1);
        self.slots.get_mut(place)?.get_mut(part as usize).zip(self.turns.get_mut(part as usize))
    }
}

/// What tells ghosts of a slot apart: not the bits that choose the slot of a table below a million entries.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::BuildHasher;
    use foldhash::quality::FixedState;

    fn hash(key: u32) -> u64 {
        FixedState::with_seed(5).hash_one(key)
    }

    #[test]
    fn the_last_ones_are_remembered_once_and_older_ones_are_not() {
        for part in 0..2 {
            let mut ghosts = Ghosts::new();
            ghosts.push(part, hash(0));
            assert!(!ghosts.take(part, hash(0)), "there is no room yet");
            ghosts.resize(8);
            assert!(!ghosts.take(part, 0), "an empty slot is nobody's, whatever its tag");
            for key in 0..100 {
                ghosts.push(part, hash(key));
            }
            assert!(!(0..100).any(|key| ghosts.take(1 - part, hash(key))), "of the other part");
            assert!(!(0..92).any(|key| ghosts.take(part, hash(key))), "too old");
            let found = (92..100).filter(|key| ghosts.take(part, hash(*key))).count();
            assert!(found >= 6, "{found} of 8, where some share a slot");
            assert!(!(0..100).any(|key| ghosts.take(part, hash(key))), "taken");
            ghosts.push(part, hash(1));
            ghosts.clear();
            assert!(!ghosts.take(part, hash(1)));
        }
    }
}
