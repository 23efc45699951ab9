//! Where a key's value is, or would be.

use super::{Bound, STEPS_PER_INSERT, Store, TooLarge};
use crate::Instant;

/// A key's place in a store: found once, for a caller who wants to know what an insert needs, and make room for that,
/// before he does it. [`Store::place_hashed`] finds it.
///
/// ```
/// use larder_engine::Instant;
/// use larder_engine::store::{Bound, Store, StoreConfig};
///
/// let now = Instant::EPOCH;
/// let mut store = Store::new(StoreConfig::default(), (), now);
/// store.place_hashed(now, 17, &"one").insert("one", 1, 10, Instant::NEVER)?;
///
/// // A caller who has room for ten bytes elsewhere, but not for ten more.
/// let mut place = store.place_hashed(now, 23, &"two");
/// assert_eq!((place.bytes(), place.store().bytes()), (None, 10));
/// assert!(place.evict(Bound::Bytes));
/// place.insert("two", 2, 10, Instant::NEVER)?;
/// assert_eq!(store.len(), 1);
/// # Ok::<(), larder_engine::store::TooLarge>(())
/// ```
#[derive(Debug)]
pub struct Place<'a, K, V, S> {
    store: &'a mut Store<K, V, S>,
    hash: u64,
    /// Of the key's live entry.
    id: Option<u32>,
}

impl<'a, K, V, S> Place<'a, K, V, S> {
    /// After the few steps of sweeping that an insert does.
    #[inline]
    pub(super) fn find(store: &'a mut Store<K, V, S>, now: Instant, hash: u64, key: &K) -> Self
    where
        K: Eq,
    {
        let now = store.advance(now);
        if !store.wheel.is_idle(now) {
            store.sweep(now, STEPS_PER_INSERT);
        }
        let id = store.find_live(now, hash, key);
        Self { store, hash, id }
    }

    /// The store as it is now.
    #[must_use]
    pub fn store(&self) -> &Store<K, V, S> {
        self.store
    }

    /// The bytes of the key's live entry; `None` where there is none.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.id.map(|id| self.store.weights.get(id))
    }

    /// [`Store::evict`]. The key's own entry may be the one that goes.
    pub fn evict(&mut self, bound: Bound) -> bool {
        let is_evicted = self.store.make_room(bound);
        self.id = self.id.filter(|id| self.store.slab.get(*id).is_some());
        is_evicted
    }

    /// [`Store::insert_hashed`]. Of another key than the place was found for, the value is not found again.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn insert(self, key: K, value: V, bytes: u64, deadline: Instant) -> Result<Option<(K, V)>, TooLarge> {
        if bytes > self.store.config.entry_limit() {
            return Err(self.refuse(bytes));
        }
        let Self { store, hash, id } = self;
        let Some(id) = id else {
            store.admit(hash, key, value, bytes, deadline);
            return Ok(None);
        };
        Ok(store.overwrite(id, value, bytes, deadline).map(|old| (key, old)))
    }

    /// What an insert does that comes with more bytes than there can be, for a caller who keeps key and value: the key's old value
    /// goes.
    #[cold]
    #[must_use]
    pub fn refuse(self, bytes: u64) -> TooLarge {
        self.store.refuse(self.id);
        TooLarge { bytes, limit: self.store.config.entry_limit() }
    }
}

#[cfg(test)]
mod tests {
    use crate::Instant;
    use crate::store::{Bound, Store, StoreConfig};
    use foldhash::quality::FixedState;

    #[test]
    fn a_place_whose_entry_is_evicted_is_empty_and_may_be_filled() {
        let mut store = Store::new(StoreConfig::default(), FixedState::default(), Instant::EPOCH);
        let hash = store.hash_of("key");
        let mut insert = |value, evictions: usize| {
            let mut place = store.place_hashed(Instant::EPOCH, hash, &"key");
            let bytes = place.bytes();
            let evicted = (0..evictions).filter(|_| place.evict(Bound::Bytes)).count();
            let left = place.bytes();
            let replaced = place.insert("key", value, 5, Instant::NEVER).expect("fits");
            store.debug_validate();
            (bytes, evicted, left, replaced)
        };
        assert_eq!(insert(1, 0), (None, 0, None, None));
        assert_eq!(insert(2, 0), (Some(5), 0, Some(5), Some(("key", 1))));
        assert_eq!(insert(3, 2), (Some(5), 1, None, None));
        assert_eq!(store.peek(Instant::EPOCH, "key"), Some(&3));
    }
}
