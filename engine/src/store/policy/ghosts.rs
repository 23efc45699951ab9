//! Who has gone lately.

use alloc::vec::Vec;

/// The hashes of the last few ids that went, in a table by hash; one that falls on another's place displaces it.
pub(super) struct Ghosts {
    /// A power of two of them, four for each ghost that counts, or none.
    slots: Vec<Ghost>,
    /// How many have gone, modulo 2^32, beginning with as many as count: an empty slot is then too old.
    turn: u32,
    /// How many count.
    depth: u32,
}

#[derive(Clone, Copy, Default)]
struct Ghost {
    tag: u32,
    turn: u32,
}

impl Ghosts {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), turn: 0, depth: 0 }
    }

    /// Begins anew and remembers `depth` from now on.
    pub(super) fn resize(&mut self, depth: u32) {
        self.depth = depth;
        self.slots.clear();
        self.slots.resize((4 * depth as usize).next_power_of_two(), Ghost::default());
        self.turn = depth;
    }

    /// Forgets all. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.slots.fill(Ghost::default());
        self.turn = self.depth;
    }

    /// The key of this hash has gone.
    pub(super) fn push(&mut self, hash: u64) {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        if let Some(slot) = self.slot(hash) {
            *slot = Ghost { tag: tag(hash), turn };
        }
    }

    /// Whether the key of this hash is one of the last that went. It is forgotten then: it is back.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let (turn, depth) = (self.turn, self.depth);
        let Some(slot) = self.slot(hash) else { return false };
        let found = slot.tag == tag(hash) && turn.wrapping_sub(slot.turn) < depth;
        if found {
            slot.turn = turn.wrapping_sub(depth);
        }
        found
    }

    fn slot(&mut self, hash: u64) -> Option<&mut Ghost> {
        let place = (hash >> 16) as usize & self.slots.len().wrapping_sub(1);
        self.slots.get_mut(place)
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
        let mut ghosts = Ghosts::new();
        ghosts.push(hash(0));
        assert!(!ghosts.take(hash(0)), "there is no room yet");
        ghosts.resize(8);
        assert!(!ghosts.take(0), "an empty slot is nobody's, whatever its tag");
        for key in 0..100 {
            ghosts.push(hash(key));
        }
        assert!(!(0..92).any(|key| ghosts.take(hash(key))), "too old");
        let found = (92..100).filter(|key| ghosts.take(hash(*key))).count();
        assert!(found >= 6, "{found} of 8, where some share a slot");
        assert!(!(0..100).any(|key| ghosts.take(hash(key))), "taken");
        ghosts.push(hash(1));
        ghosts.clear();
        assert!(!ghosts.take(hash(1)));
    }
}
