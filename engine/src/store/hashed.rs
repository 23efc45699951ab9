//! The calls for those who have hashed the key already.
//!
//! Who shards keys has to hash them to choose the store. He gives that hash to these, and has none made in here. Stores whose
//! hashers are clones of one another agree on it; under another hash than [`Store::hash_of`] says, no key is found.

use super::{EntryRef, Place, RemovalCause, Store, TooLarge, is_over};
use crate::Instant;
use hashbrown::Equivalent;

/// The entry's time is over, and it is still held: see [`Store::get_live_hashed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry's time is over; get_hashed removes it")]
pub struct Overdue;

impl<K: Eq, V, S> Store<K, V, S> {
    /// [`get`](Self::get) for a caller who has hashed the key already, to choose the store by it. Under another hash than
    /// [`hash_of`](Self::hash_of) says, the key is not found.
    ///
    /// He is asked for `now` where the entry has a deadline, and told that: he need not look at a clock more closely than it takes
    /// to tell which is earlier, unless there is a time to idle, which begins anew then.
    #[inline]
    pub fn get_hashed<Q>(&mut self, hash: u64, key: &Q, now: impl FnOnce(Instant) -> Instant) -> Option<&V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.read(hash, key, now).map(|value| &*value)
    }

    /// [`get_hashed`](Self::get_hashed) that ends nothing, for a caller to whom it is dear to look, after each read, for what has
    /// ended.
    ///
    /// # Errors
    ///
    /// [`Overdue`] where the entry's time is over. Nothing is changed then, and nothing counted; `get_hashed` ends it, and counts a
    /// miss.
    #[inline]
    pub fn get_live_hashed<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: impl FnOnce(Instant) -> Instant,
    ) -> Result<Option<&V>, Overdue>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let Some((id, deadline)) = self.find_timed(hash, key) else {
            self.stats.misses += 1;
            return Ok(None);
        };
        if deadline.is_never() {
            return Ok(self.hit(id).map(|value| &*value));
        }
        if is_over(deadline, self.advance(now(deadline))) {
            return Err(Overdue);
        }
        Ok(self.hit_timed(id).map(|value| &*value))
    }

    /// All that is known of the live entry of `key`, for a caller who has hashed it already. Leaves recency and
    /// statistics alone.
    pub fn peek_hashed<Q>(&self, now: Instant, hash: u64, key: &Q) -> Option<EntryRef<'_, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let entry = self.entry(self.find(hash, key)?)?;
        (!is_over(entry.deadline, self.time(now))).then_some(entry)
    }

    /// [`insert`](Self::insert) for a caller who has hashed the key already, and gets the key back with the value that it
    /// replaced. Under another hash than [`hash_of`](Self::hash_of) says, the key is not found again.
    ///
    /// # Errors
    ///
    /// As for [`insert`](Self::insert).
    #[inline(never)] // most inserts are exchanges, which are shorter without
    pub fn insert_hashed(
        &mut self,
        now: Instant,
        hash: u64,
        key: K,
        value: V,
        bytes: u64,
        deadline: Instant,
    ) -> Result<Option<(K, V)>, TooLarge> {
        self.place_hashed(now, hash, &key).insert(key, value, bytes, deadline)
    }

    /// [`insert_hashed`](Self::insert_hashed) where one value comes and one goes, and that is all there is to do. What has gone
    /// is in `key` and `value` then, and the answer says why:
    ///
    /// * [`Replaced`](RemovalCause::Replaced): the key's value before, of as many bytes.
    /// * [`Evicted`](RemovalCause::Evicted) or [`Expired`](RemovalCause::Expired): the entry whose place a new key has got. It is
    ///   not among those that are [kept](Self::keep_removals). Happens only where `is_full` says of the store that a new
    ///   entry has to have another's place, and is asked for new keys only.
    ///
    /// `None` where an insert would do more, and nothing has changed but the time: there is room, or nobody to go; bytes would not
    /// stay within their bounds whoever goes, or differ from those to be replaced; what would be replaced, or the new value, is
    /// over already; something has expired that an insert sweeps; there is a time to idle.
    ///
    /// ```
    /// use larder_engine::Instant;
    /// use larder_engine::store::{RemovalCause, Store, StoreConfig};
    ///
    /// let now = Instant::EPOCH;
    /// let config = StoreConfig { max_entries: 1, ..StoreConfig::default() };
    /// let mut store = Store::new(config, (), now);
    /// store.insert_hashed(now, 17, "one", 1, 0, Instant::NEVER)?;
    ///
    /// let (mut key, mut value) = ("two", 2);
    /// let cause = store.exchange_hashed(now, 23, &mut key, &mut value, 0, Instant::NEVER, Store::is_full);
    /// assert_eq!((cause, key, value), (Some(RemovalCause::Evicted), "one", 1));
    /// # Ok::<(), larder_engine::store::TooLarge>(())
    /// ```
    #[inline]
    #[expect(
        clippy::too_many_arguments,
        reason = "an insert's, and who is full; one by one they stay in registers"
    )]
    pub fn exchange_hashed(
        &mut self,
        now: Instant,
        hash: u64,
        key: &mut K,
        value: &mut V,
        bytes: u64,
        deadline: Instant,
        is_full: impl FnOnce(&Self) -> bool,
    ) -> Option<RemovalCause> {
        let now = self.advance(now);
        if !self.wheel.is_idle(now) || is_over(deadline, now) || self.idle.is_some() {
            return None;
        }
        let Some(id) = self.find(hash, &*key) else {
            return if is_full(self) { self.exchange(hash, key, value, bytes, deadline) } else { None };
        };
        if self.weights.get(id) != bytes {
            return None;
        }
        let entry = self.slab.get_mut(id).filter(|entry| !entry.is_over(now))?;
        self.stats.updates += 1;
        if entry.deadline != deadline {
            self.wheel.reschedule(id, core::mem::replace(&mut entry.deadline, deadline), deadline);
        }
        self.order.touch(id);
        core::mem::swap(&mut entry.value, value);
        Some(RemovalCause::Replaced)
    }

    /// Where the value of `key` is, or would be, for a caller who has hashed it already: the first half of an
    /// [`insert_hashed`](Self::insert_hashed).
    pub fn place_hashed(&mut self, now: Instant, hash: u64, key: &K) -> Place<'_, K, V, S> {
        Place::find(self, now, hash, key)
    }

    /// [`remove`](Self::remove) for a caller who has hashed the key already, and gets the stored one as well.
    pub fn remove_hashed<Q>(&mut self, now: Instant, hash: u64, key: &Q) -> Option<(K, V)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let now = self.advance(now);
        let id = self.find_live(now, hash, key)?;
        self.stats.removals += 1;
        self.detach(id).map(|entry| (entry.key, entry.value))
    }

    /// A read: the value of `key`'s live entry, which is the most recently used then.
    #[inline]
    pub(super) fn read<Q>(
        &mut self,
        hash: u64,
        key: &Q,
        now: impl FnOnce(Instant) -> Instant,
    ) -> Option<&mut V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let Some((id, deadline)) = self.find_timed(hash, key) else {
            self.stats.misses += 1;
            return None;
        };
        if deadline.is_never() {
            return self.hit(id);
        }
        if is_over(deadline, self.advance(now(deadline))) {
            return self.miss(id);
        }
        self.hit_timed(id)
    }

    /// The key's entry, and when it ends.
    #[inline]
    fn find_timed<Q>(&self, hash: u64, key: &Q) -> Option<(u32, Instant)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let id = self.find(hash, key)?;
        Some((id, self.slab.get(id)?.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreConfig, StoreStats};
    use core::time::Duration;
    use foldhash::quality::FixedState;

    const NEVER: Instant = Instant::NEVER;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(1_000 * micros + 1)
    }

    /// A store with one entry of ten bytes, and its hash.
    fn store(deadline: Instant, time_to_idle: Option<Duration>) -> (Store<u32, u32, FixedState>, u64) {
        let config = StoreConfig { time_to_idle, ..StoreConfig::default() };
        let mut store = Store::new(config, FixedState::default(), at(0));
        store.insert(at(0), 1, 10, 10, deadline).expect("fits");
        let hash = store.hash_of(&1);
        (store, hash)
    }

    #[test]
    fn a_value_is_replaced_only_where_nothing_else_is_to_do() {
        let idle = Some(Duration::from_secs(1));
        // The entry's deadline, its time to idle, the time, the key, the bytes, the new deadline, and whether it is replaced.
        for (deadline, idle, now, key, bytes, new, expected) in [
            (NEVER, None, at(1), 1, 10, NEVER, true),
            (NEVER, None, at(1), 1, 10, at(2), true),
            (at(9_000), None, at(1), 1, 10, NEVER, true),
            (at(9_000), None, at(1), 1, 10, at(2), true),
            (NEVER, None, at(1), 2, 10, NEVER, false),
            (NEVER, None, at(1), 1, 11, NEVER, false),
            (NEVER, None, at(1), 1, 10, at(1), false),
            (NEVER, idle, at(1), 1, 10, NEVER, false),
            // Over, within a tick of the wheel, which knows nothing of it yet; and when it does.
            (at(5), None, at(6), 1, 10, NEVER, false),
            (at(5), None, at(9_000), 1, 10, NEVER, false),
        ] {
            let (mut store, hash) = store(deadline, idle);
            let hash = if key == 1 { hash } else { store.hash_of(&key) };
            let before = (store.len(), store.bytes(), store.stats());
            let (mut swapped, mut value) = (key, 20);
            let is_full = |_: &Store<_, _, _>| false;
            let answer = store.exchange_hashed(now, hash, &mut swapped, &mut value, bytes, new, is_full);
            let case = (deadline, idle, now, key, bytes, new);
            let replaced = (Some(RemovalCause::Replaced), key, 10);
            assert_eq!(
                (answer, swapped, value),
                if expected { replaced } else { (None, key, 20) },
                "{case:?}"
            );
            let stats = StoreStats { updates: u64::from(expected), ..before.2 };
            assert_eq!((store.len(), store.bytes(), store.stats()), (before.0, before.1, stats), "{case:?}");
            let shown = store.iter().next().map(|entry| (*entry.value, entry.deadline));
            let is_held = shown
                .is_none_or(|(value, end)| if expected { (value, end) == (20, new) } else { value == 10 });
            assert!(is_held, "{case:?}: {shown:?}");
            store.debug_validate();
        }
    }

    /// What becomes of key and value, and the answer.
    fn exchange(
        store: &mut Store<u32, u32, FixedState>,
        now: Instant,
        (mut key, mut value, bytes, deadline): (u32, u32, u64, Instant),
    ) -> (Option<RemovalCause>, u32, u32) {
        let hash = store.hash_of(&key);
        let cause = store.exchange_hashed(now, hash, &mut key, &mut value, bytes, deadline, Store::is_full);
        (cause, key, value)
    }

    #[test]
    fn what_waits_to_be_swept_is_swept_by_an_insert() {
        let (mut store, hash) = store(NEVER, None);
        store.insert(at(0), 2, 0, 10, at(5)).expect("fits");
        assert_eq!(exchange(&mut store, at(9_000), (1, 20, 10, NEVER)), (None, 1, 20));
        assert_eq!(store.insert_hashed(at(9_000), hash, 1, 20, 10, NEVER), Ok(Some((1, 10))));
        assert_eq!((store.len(), store.stats().expired), (1, 1));
        let replaced = (Some(RemovalCause::Replaced), 1, 20);
        assert_eq!(exchange(&mut store, at(9_000), (1, 30, 10, NEVER)), replaced);
    }

    #[test]
    fn a_new_key_gets_the_place_of_another_where_there_is_no_room() {
        let evicted = Some((Some(RemovalCause::Evicted), 1, 10));
        let expired = Some((Some(RemovalCause::Expired), 1, 10));
        let idle = Some(Duration::from_secs(1));
        // How many entries there may be, the bound on an entry's bytes, the first entry's deadline, the time to idle, the
        // time, the new entry's bytes and deadline, and what has gone: the first of two that hold ten bytes each, of forty
        // that there may be.
        for (capacity, limit, first, idle, now, bytes, deadline, gone) in [
            (2, 40, NEVER, None, at(1), 10, NEVER, evicted),
            (2, 40, NEVER, None, at(1), 20, at(9_000), evicted),
            (2, 40, at(9_000), None, at(1), 0, NEVER, evicted),
            // Over, within a tick of the wheel, which knows nothing of it yet; and when it does.
            (2, 40, at(5), None, at(6), 10, NEVER, expired),
            (2, 40, at(5), None, at(9_000), 10, NEVER, None),
            (3, 40, NEVER, None, at(1), 10, NEVER, None),
            (2, 40, NEVER, None, at(1), 21, NEVER, None),
            (2, 15, NEVER, None, at(1), 16, NEVER, None),
            (2, 40, NEVER, None, at(1), 10, at(1), None),
            (2, 40, NEVER, idle, at(1), 10, NEVER, None),
        ] {
            let config = StoreConfig {
                max_entries: capacity,
                max_bytes: 40,
                max_entry_bytes: limit,
                time_to_idle: idle,
                ..StoreConfig::default()
            };
            let mut store = Store::new(config, FixedState::default(), at(0));
            store.keep_removals();
            store.insert(at(0), 1, 10, 10, first).expect("fits");
            store.insert(at(0), 2, 20, 10, NEVER).expect("fits");
            let before = (store.len(), store.bytes(), store.stats());
            let answer = exchange(&mut store, now, (3, 30, bytes, deadline));
            let case = (capacity, limit, first, idle, now, bytes, deadline);
            assert_eq!(answer, gone.unwrap_or((None, 3, 30)), "{case:?}");
            assert!(!store.has_removals(), "the caller has it: {case:?}");
            if gone.is_some() {
                let held = store.iter().map(|entry| (*entry.key, *entry.value, entry.bytes, entry.deadline));
                assert!(held.eq([(3, 30, bytes, deadline), (2, 20, 10, NEVER)]), "{case:?}");
                assert_eq!(store.bytes(), 10 + bytes, "{case:?}");
            } else {
                assert_eq!((store.len(), store.bytes(), store.stats()), before, "{case:?}");
            }
            store.debug_validate();
        }
    }

    #[test]
    fn who_has_no_room_elsewhere_says_so_and_is_asked_for_new_keys_only() {
        let (mut store, hash) = store(NEVER, None);
        let (mut key, mut value) = (1, 20);
        let never = |_: &Store<_, _, _>| panic!("nothing comes in");
        let cause = store.exchange_hashed(at(0), hash, &mut key, &mut value, 10, NEVER, never);
        assert_eq!((cause, key, value), (Some(RemovalCause::Replaced), 1, 10));
        let (mut key, hash) = (2, store.hash_of(&2));
        assert!(!store.is_full());
        let cause = store.exchange_hashed(at(0), hash, &mut key, &mut value, 5, NEVER, |_| true);
        assert_eq!((cause, key, value), (Some(RemovalCause::Evicted), 1, 20));
        assert_eq!((store.len(), store.bytes(), store.peek(at(0), &2)), (1, 5, Some(&10)));
        store.debug_validate();
        // An empty part of a full cache.
        store.clear();
        let cause = store.exchange_hashed(at(0), hash, &mut key, &mut value, 5, NEVER, |_| true);
        assert_eq!((cause, key, value, store.len()), (None, 1, 20, 0));
    }

    #[test]
    fn without_anybody_to_go_nothing_is_exchanged() {
        let config = StoreConfig { max_entries: 0, ..StoreConfig::default() };
        let mut store = Store::new(config, FixedState::default(), at(0));
        assert_eq!(exchange(&mut store, at(0), (1, 10, 0, NEVER)), (None, 1, 10));
        assert_eq!(store.stats(), StoreStats::default());
    }

    #[test]
    fn a_read_of_what_is_over_ends_nothing_unless_it_is_told_to() {
        let (mut store, hash) = store(at(5), None);
        assert_eq!(store.get_live_hashed(hash, &1, |_| at(4)), Ok(Some(&10)));
        assert_eq!(store.get_live_hashed(hash, &1, |_| at(5)), Err(Overdue));
        assert_eq!((store.len(), store.stats().expired, store.stats().misses), (1, 0, 0));
        assert_eq!(store.get_hashed(hash, &1, |_| at(5)), None);
        assert_eq!((store.len(), store.stats().expired, store.stats().misses), (0, 1, 1));
        assert_eq!(store.get_live_hashed(hash, &1, |_| at(6)), Ok(None));
    }
}
