//! The entries themselves, in one array with a free list through its holes.

use super::growth::make_space;
use crate::Instant;
use alloc::vec::Vec;

/// What the store keeps of an entry, next to its key and value.
pub(super) struct Entry<K, V> {
    pub(super) deadline: Instant,
    pub(super) key: K,
    pub(super) value: V,
}

impl<K, V> Entry<K, V> {
    /// Whether the entry has ended by `now`, which is [`LATEST`](super::LATEST) at most: one without a deadline never does.
    #[inline]
    pub(super) fn is_over(&self, now: Instant) -> bool {
        is_over(self.deadline, now)
    }
}

/// Whether a deadline has been reached by `now`, which is [`LATEST`](super::LATEST) at most: the deadline itself is already
/// too late.
#[inline]
pub(super) fn is_over(deadline: Instant, now: Instant) -> bool {
    deadline <= now
}

/// `Instant` is never zero, which is where the compiler hides the tag: a slot is as large as its entry where that holds anything.
enum Slot<K, V> {
    Occupied(Entry<K, V>),
    Vacant { next: u32 },
}

/// The end of the free list.
const NONE: u32 = u32::MAX;

#[repr(C)] // the array last, for it is what reads look at
pub(super) struct Slab<K, V> {
    limit: u32,
    vacant: u32,
    slots: Vec<Slot<K, V>>,
}

impl<K, V> Slab<K, V> {
    /// Bytes of a slot beyond the key and the value.
    pub(super) const OVERHEAD: usize = size_of::<Slot<K, V>>() - size_of::<K>() - size_of::<V>();

    /// Room for `limit` entries, none of it allocated yet.
    pub(super) const fn new(limit: u32) -> Self {
        Self { limit, vacant: NONE, slots: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Entry<K, V>> {
        match self.slots.get(id as usize)? {
            Slot::Occupied(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Entry<K, V>> {
        match self.slots.get_mut(id as usize)? {
            Slot::Occupied(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    /// Stores an entry in the hole left last, or at the end. The caller keeps the limit.
    pub(super) fn insert(&mut self, entry: Entry<K, V>) -> u32 {
        if let Some(slot) = self.slots.get_mut(self.vacant as usize) {
            if let Slot::Vacant { next } = *slot {
                *slot = Slot::Occupied(entry);
                return core::mem::replace(&mut self.vacant, next);
            }
        }
        make_space(&mut self.slots, self.limit as usize);
        self.slots.push(Slot::Occupied(entry));
        (self.slots.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Entry<K, V>> {
        let slot = self.slots.get_mut(id as usize)?;
        if let Slot::Vacant { .. } = slot {
            return None;
        }
        match core::mem::replace(slot, Slot::Vacant { next: core::mem::replace(&mut self.vacant, id) }) {
            Slot::Occupied(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    /// Panics where the free list does not hold exactly the vacant slots, or their number and that of `occupied` ones
    /// do not add up.
    pub(super) fn validate(&self, occupied: usize) {
        let vacant = core::iter::successors(self.slots.get(self.vacant as usize), |slot| match slot {
            Slot::Vacant { next } => self.slots.get(*next as usize),
            Slot::Occupied(_) => panic!("an occupied slot is in the free list"),
        });
        assert_eq!(vacant.count() + occupied, self.slots.len(), "slots got lost");
    }

    /// Takes every entry out, in no order. Keeps the memory.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry<K, V>> {
        self.vacant = NONE;
        self.slots.drain(..).filter_map(|slot| match slot {
            Slot::Occupied(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        })
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}
