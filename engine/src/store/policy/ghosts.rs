//! Who has gone lately.

use super::super::fingerprint::Fingerprint;
use alloc::vec::Vec;

/// The last few keys that went from each of two parts, by their fingerprints. In a table by these; one that falls on another's place
/// displaces it. The two parts' places are side by side: whoever comes in is looked for in both.
#[repr(C)] // first what each of them changes
pub(super) struct Ghosts {
    /// How many have gone from each part, modulo 2^32, beginning with as many as count: an empty slot is then too old.
    turns: [u32; 2],
    /// How many of a part count.
    depth: u32,
    /// A power of two of them, four for each ghost that counts, or none.
    slots: Vec<[Ghost; 2]>,
}

#[derive(Clone, Copy, Default)]
struct Ghost {
    fingerprint: Fingerprint,
    turn: u32,
}

impl Ghosts {
    pub(super) const fn new() -> Self {
        Self { turns: [0; 2], depth: 0, slots: Vec::new() }
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

    /// The key has gone from the part.
    pub(super) fn push(&mut self, part: u32, fingerprint: Fingerprint) {
        if let Some((slot, turn)) = self.slot(part, fingerprint) {
            *turn = turn.wrapping_add(1);
            *slot = Ghost { fingerprint, turn: *turn };
        }
    }

    /// Whether the key is one of the last that went from the part. It is forgotten then: it is back.
    pub(super) fn take(&mut self, part: u32, fingerprint: Fingerprint) -> bool {
        let depth = self.depth;
        let Some((slot, turn)) = self.slot(part, fingerprint) else { return false };
        let found = slot.fingerprint == fingerprint && turn.wrapping_sub(slot.turn) < depth;
        if found {
            slot.turn = turn.wrapping_sub(depth);
        }
        found
    }

    /// The place of the key, and how many have gone, of a part.
    fn slot(&mut self, part: u32, fingerprint: Fingerprint) -> Option<(&mut Ghost, &mut u32)> {
        let place = fingerprint.get() as usize & self.slots.len().wrapping_sub(1);
        self.slots.get_mut(place)?.get_mut(part as usize).zip(self.turns.get_mut(part as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::BuildHasher;
    use foldhash::quality::FixedState;

    fn fingerprint(key: u32) -> Fingerprint {
        Fingerprint::of(FixedState::with_seed(5).hash_one(key))
    }

    #[test]
    fn the_last_ones_are_remembered_once_and_older_ones_are_not() {
        for part in 0..2 {
            let mut ghosts = Ghosts::new();
            ghosts.push(part, fingerprint(0));
            assert!(!ghosts.take(part, fingerprint(0)), "there is no room yet");
            ghosts.resize(8);
            assert!(
                !ghosts.take(part, Fingerprint::default()),
                "an empty slot is nobody's, whatever its tag"
            );
            for key in 0..100 {
                ghosts.push(part, fingerprint(key));
            }
            assert!(!(0..100).any(|key| ghosts.take(1 - part, fingerprint(key))), "of the other part");
            assert!(!(0..92).any(|key| ghosts.take(part, fingerprint(key))), "too old");
            let found = (92..100).filter(|key| ghosts.take(part, fingerprint(*key))).count();
            assert!(found >= 6, "{found} of 8, where some share a slot");
            assert!(!(0..100).any(|key| ghosts.take(part, fingerprint(key))), "taken");
            ghosts.push(part, fingerprint(1));
            ghosts.clear();
            assert!(!ghosts.take(part, fingerprint(1)));
        }
    }
}
