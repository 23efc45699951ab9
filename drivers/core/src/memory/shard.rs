//! A part of a cache that is locked by itself, and the room that all parts share.
//!
//! The bounds are those of the whole cache: a shard takes room before it grows, from what is left for all, and gives back
//! what it no longer needs when it is let go of. So there is never more in the shards together than the bounds allow,
//! and nothing is evicted while there is room anywhere. A shard that finds none left evicts from its own, whose place the
//! newcomer gets without anybody else noticing: in a full cache an insert only reads that there is no room.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;

use larder_engine::Instant;
use larder_engine::store::{Bound, Place, Store};

use super::lock::{Guard, Lock};

// In tests of interleavings, a scheduler decides at each of these who goes on.
#[cfg(all(test, shuttle))]
use shuttle::sync::atomic::AtomicU64;
#[cfg(not(all(test, shuttle)))]
use std::sync::atomic::AtomicU64;

/// On a cache line of its own, so that a busy shard does not slow its neighbours down. What is written most begins there,
/// beside the lock, so that whoever locks it has fetched it.
#[repr(align(128))]
pub(super) struct Shard<K, V> {
    /// Of hashed keys: the cache hashes each once.
    store: Lock<Store<K, V, ()>>,
}

impl<K, V> Shard<K, V> {
    pub(super) fn new(store: Store<K, V, ()>) -> Self {
        Self { store: Lock::new(store) }
    }

    /// For calls that leave the number of entries as it is, and their bytes where these are bounded: no room changes hands when
    /// the shard is let go of.
    #[inline]
    pub(super) fn look(&self) -> Guard<'_, Store<K, V, ()>> {
        self.store.lock()
    }

    #[inline]
    pub(super) fn write<'a>(&'a self, room: Option<&'a Room>) -> Writing<'a, K, V> {
        Writing::new(self.look(), room)
    }
}

/// A shard that is being changed.
pub(super) struct Writing<'a, K, V> {
    store: Guard<'a, Store<K, V, ()>>,
    /// `None` where the store's own bounds are those of the cache.
    room: Option<&'a Room>,
    /// The room that the shard has taken. While nobody changes the store, it is as large as that.
    taken: Size,
}

impl<'a, K, V> Writing<'a, K, V> {
    #[inline]
    pub(super) fn new(store: Guard<'a, Store<K, V, ()>>, room: Option<&'a Room>) -> Self {
        let taken = room.map_or(Size::ZERO, |room| room.size_of(&store));
        Self { store, room, taken }
    }
}

impl<K: Eq, V> Writing<'_, K, V> {
    /// The place of a key, with the room that its new value needs. Or the bound that does not allow it, where the shard has
    /// nothing left to evict.
    #[inline]
    pub(super) fn place(
        &mut self,
        now: Instant,
        hash: u64,
        key: &K,
        bytes: u64,
        deadline: Instant,
    ) -> Result<Place<'_, K, V, ()>, Bound> {
        let Self { store, room, taken } = self;
        let mut place = store.place_hashed(now, hash, key);
        if let Some(room) = room {
            // Most overwrites need none, and what is over at once.
            if place.bytes().is_none_or(|old| old < bytes) && deadline > now {
                room.make(taken, &mut place, bytes)?;
            }
        }
        Ok(place)
    }
}

impl<K, V> Deref for Writing<'_, K, V> {
    type Target = Store<K, V, ()>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

impl<K, V> DerefMut for Writing<'_, K, V> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.store
    }
}

impl<K, V> Drop for Writing<'_, K, V> {
    /// With the shard still locked, and also when the caller's code has panicked.
    #[inline]
    fn drop(&mut self) {
        let Some(room) = self.room else { return };
        let size = room.size_of(&self.store);
        if size != self.taken {
            room.give(self.taken.minus(size));
        }
    }
}

/// Entries, and bytes where these are bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Size {
    pub(super) const ZERO: Self = Self { entries: 0, bytes: 0 };

    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(more.entries),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    /// What this has beyond the other, of each kind.
    fn minus(self, less: Self) -> Self {
        Self {
            entries: self.entries.saturating_sub(less.entries),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

/// What may still come in, over all shards.
#[repr(align(128))]
pub(super) struct Room {
    entries: AtomicU64,
    bytes: AtomicU64,
    is_weighed: bool,
}

impl Room {
    pub(super) fn new(max_entries: usize, max_bytes: Option<u64>) -> Self {
        Self {
            entries: AtomicU64::new(max_entries as u64),
            bytes: AtomicU64::new(max_bytes.unwrap_or(0)),
            is_weighed: max_bytes.is_some(),
        }
    }

    /// Whether a new entry surely has to have another's place, and that is all: where bytes are bounded as well,
    /// [`make`](Self::make) decides.
    #[inline]
    pub(super) fn is_full_of_entries(&self) -> bool {
        !self.is_weighed && self.entries.load(Ordering::Relaxed) == 0
    }

    fn size_of<K, V>(&self, store: &Store<K, V, ()>) -> Size {
        Size { entries: store.len() as u64, bytes: if self.is_weighed { store.bytes() } else { 0 } }
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> Size {
        let [entries, bytes] = [&self.entries, &self.bytes].map(|left| left.load(Ordering::Relaxed));
        Size { entries, bytes }
    }

    /// Takes the room that a new value of so many bytes needs in its place, and evicts from the same shard where there is
    /// not enough. The place is lent, for it would go through memory if it was handed to and fro: see the store's `admit`.
    #[inline(never)] // overwriting, which needs none, is shorter without
    fn make<K, V>(&self, taken: &mut Size, place: &mut Place<'_, K, V, ()>, bytes: u64) -> Result<(), Bound> {
        loop {
            let old = place.bytes();
            let more =
                Size { entries: u64::from(old.is_none()), bytes: bytes.saturating_sub(old.unwrap_or(0)) };
            let Err(bound) = self.hold(taken, self.size_of(place.store()).plus(more)) else {
                return Ok(());
            };
            if !place.evict(bound) {
                return Err(bound);
            }
        }
    }

    /// Takes what of so much has not been taken yet. Where there is not enough, what was taken is given back with the shard.
    fn hold(&self, taken: &mut Size, size: Size) -> Result<(), Bound> {
        hold(&self.entries, &mut taken.entries, size.entries).ok_or(Bound::Entries)?;
        if self.is_weighed {
            hold(&self.bytes, &mut taken.bytes, size.bytes).ok_or(Bound::Bytes)?;
        }
        Ok(())
    }

    fn give(&self, size: Size) {
        give(&self.entries, size.entries);
        give(&self.bytes, size.bytes);
    }
}

/// Takes what is missing, all of it or nothing. Reads only where there is not enough. Nothing else is ordered by these numbers:
/// what has been taken was let go of by somebody who held a lock, and who evicts holds another.
fn hold(left: &AtomicU64, taken: &mut u64, needed: u64) -> Option<()> {
    if needed > *taken {
        let less = |left: u64| left.checked_sub(needed - *taken);
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        *taken = needed;
    }
    Some(())
}

fn give(to: &AtomicU64, number: u64) {
    if number > 0 {
        to.fetch_add(number, Ordering::Relaxed);
    }
}
