//! What becomes of entries: in, changed, out, with every structure kept in step.

use super::fingerprint::{Fingerprint, indexed};
use super::policy::Ordering;
use super::slab::{Entry, is_over};
use super::{EntryRef, LATEST, Removal, RemovalCause, STEPS_PER_INSERT, Store};
use crate::Instant;
use hashbrown::{Equivalent, HashTable};

/// Which bound an eviction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// That on the number of entries.
    Entries,
    /// That on the sum of their bytes.
    Bytes,
}

impl<K, V, S> Store<K, V, S> {
    /// What is shown of the entry.
    pub(super) fn entry(&self, id: u32) -> Option<EntryRef<'_, K, V>> {
        let Entry { key, value, deadline, .. } = self.slab.get(id)?;
        Some(EntryRef { key, value, bytes: self.weights.get(id), deadline: *deadline })
    }

    #[inline]
    pub(super) fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let is_it = |&id: &u32| self.slab.get(id).is_some_and(|entry| key.equivalent(&entry.key));
        self.index.find(indexed(hash, self.index.num_buckets()), is_it).copied()
    }

    /// The id of `key`'s entry. Where that is over, it goes, and there is none.
    #[inline]
    pub(super) fn find_live<Q>(&mut self, now: Instant, hash: u64, key: &Q) -> Option<u32>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let id = self.find(hash, key)?;
        if self.slab.get(id)?.is_over(now) {
            self.expire(id);
            return None;
        }
        Some(id)
    }

    /// A value that cannot be held: what it was to replace is no longer current.
    #[cold]
    pub(super) fn refuse(&mut self, old: Option<u32>) {
        self.stats.refused += 1;
        if let Some(id) = old {
            self.stats.removals += 1;
            self.end(id, RemovalCause::Removed);
        }
    }

    /// Takes a new entry in, and makes room for it before. Apart from the overwriting of one, which is shorter without.
    ///
    /// Its parts come one by one, for registers: a whole that is written to the stack in words and read in pairs of them
    /// has the processor wait until the writes, and all before them, are done.
    #[inline(never)]
    pub(super) fn admit(&mut self, hash: u64, key: K, value: V, bytes: u64, end: Instant) {
        self.stats.inserts += 1;
        let deadline = self.deadline(end);
        if is_over(deadline, self.now) {
            self.stats.expired += 1;
            return self.report(key, value, RemovalCause::Expired);
        }
        if self.capacity == 0 {
            self.stats.evicted_for_entries += 1;
            return self.report(key, value, RemovalCause::Evicted);
        }
        while self.len() >= self.capacity && self.make_room(Bound::Entries) {}
        self.make_bytes(bytes);
        let id = self.slab.insert(Entry { deadline, key, value });
        self.enter(hash, id);
        self.order.insert(id, Fingerprint::of(hash));
        self.wheel.schedule(id, deadline);
        if let Some(idle) = &mut self.idle {
            idle.set_end(id, end);
        }
        self.weigh(id, bytes);
        self.bytes += bytes;
    }

    /// Takes a new entry in, in the slot of the one that has to go for it: that is in `key` and `value` then, and the answer
    /// says why it went. `None` where bytes would not stay within their bounds whoever goes, or nobody is there, and nothing
    /// has changed.
    ///
    /// Key and value change places with those in the slot, and are moved no other time. On the way through a list of what has
    /// ended, they would be read right after they were written, in pieces of other sizes, which has the processor wait until
    /// all writes before are done.
    #[inline(never)]
    pub(super) fn exchange(
        &mut self,
        hash: u64,
        key: &mut K,
        value: &mut V,
        bytes: u64,
        deadline: Instant,
    ) -> Option<RemovalCause> {
        if bytes > self.config.max_entry_bytes.min(self.config.max_bytes - self.bytes) {
            return None;
        }
        let id = self.order.evict()?;
        let entry = self.slab.get_mut(id)?;
        let cause = self.stats.make_way(Bound::Entries, entry.is_over(self.now));
        if cause == RemovalCause::Expired {
            self.looks += 1;
        }
        self.stats.inserts += 1;
        core::mem::swap(&mut entry.key, key);
        core::mem::swap(&mut entry.value, value);
        entry.deadline = deadline;
        self.strike(id);
        self.enter(hash, id);
        self.order.insert(id, Fingerprint::of(hash));
        // Its own place there: the other's would be looked at for nothing, before what is over.
        self.wheel.cancel(id);
        self.wheel.schedule(id, deadline);
        let weight = self.weights.get(id);
        if bytes != weight {
            self.weigh(id, bytes);
            self.bytes = self.bytes - weight + bytes;
        }
        Some(cause)
    }

    /// Puts an entry, which is not in the order yet, into the index.
    #[inline]
    fn enter(&mut self, hash: u64, id: u32) {
        if self.len() >= self.index_room.min(self.index.capacity()) {
            self.renew_index();
        }
        let places = self.index.num_buckets();
        self.index.insert_unique(indexed(hash, places), id, hashes(&self.order, places));
    }

    /// Takes an entry, whose id the order has not been given again, out of the index.
    #[inline]
    fn strike(&mut self, id: u32) {
        let hash = hashes(&self.order, self.index.num_buckets())(&id);
        let slot = self.index.find_entry(hash, |&other| other == id);
        debug_assert!(slot.is_ok(), "the index has every entry under its fingerprint");
        if let Ok(slot) = slot {
            slot.remove();
        }
    }

    /// Makes the index anew where it holds as many entries as it was made for, then for twice as many, or where those that
    /// were removed have left so many marks behind that these and the entries fill all the places that may be filled.
    ///
    /// It has half as many places more than it needs, so that it has hardly any of these marks, and nearly every search ends
    /// with the first few places that it looks at. A table that grows by itself becomes twice as large for its marks.
    #[cold]
    fn renew_index(&mut self) {
        let grows = self.len() >= self.index_room;
        if grows {
            self.index_room = self.len().saturating_mul(2).clamp(4, self.capacity.max(4));
        }
        // A table without entries keeps its marks when it is cleared.
        if grows || self.index.is_empty() {
            self.index = HashTable::with_capacity(self.index_room.saturating_add(self.index_room / 2));
        } else {
            self.index.clear();
        }
        let hash_of = hashes(&self.order, self.index.num_buckets());
        for id in self.order.iter() {
            self.index.insert_unique(hash_of(&id), id, hash_of);
        }
    }

    #[inline]
    pub(super) fn overwrite(&mut self, id: u32, value: V, bytes: u64, deadline: Instant) -> Option<V> {
        self.stats.updates += 1;
        let entry = self.slab.get_mut(id)?;
        let previous = core::mem::replace(&mut entry.value, value);
        // Where it is the same, as it is for what has none, it is not over: the entry is live.
        if (entry.deadline != deadline || self.idle.is_some()) && !self.set_deadline(id, deadline) {
            return Some(previous);
        }
        self.order.touch(id);
        let weight = self.weights.get(id);
        if bytes != weight {
            self.reweigh(id, weight, bytes);
        }
        Some(previous)
    }

    /// An entry of so many bytes has others now.
    #[inline(never)]
    fn reweigh(&mut self, id: u32, weight: u64, bytes: u64) {
        self.make_bytes(bytes.saturating_sub(weight));
        // Under another policy than LRU it may have been its own victim.
        if self.slab.get(id).is_some() {
            self.weigh(id, bytes);
            self.bytes = self.bytes - weight + bytes;
        }
    }

    /// When an entry is over that is used now and ends at `end` at the latest.
    fn deadline(&self, end: Instant) -> Instant {
        self.idle.as_ref().map_or(end, |idle| idle.deadline(end, self.now))
    }

    /// A read that comes too late.
    #[cold]
    #[inline(never)]
    pub(super) fn miss(&mut self, id: u32) -> Option<&mut V> {
        self.expire(id);
        self.stats.misses += 1;
        None
    }

    /// A read that finds a live entry: it is the most recently used now.
    #[inline]
    pub(super) fn hit(&mut self, id: u32) -> Option<&mut V> {
        // Looked up first: whoever found the id has looked there, too, and nothing has changed since.
        let entry = self.slab.get_mut(id)?;
        self.stats.hits += 1;
        self.order.touch(id);
        Some(&mut entry.value)
    }

    /// A [`hit`](Self::hit) of an entry that has a deadline, as all have where there is a time to idle: that begins anew. Apart
    /// from other hits, which are shorter without.
    #[inline(never)]
    pub(super) fn hit_timed(&mut self, id: u32) -> Option<&mut V> {
        if let Some(idle) = &self.idle {
            self.set_deadline(id, idle.end_of(id));
        }
        self.hit(id)
    }

    /// The entry is used, and ends at `end` at the latest. Whether it is still there then.
    #[inline]
    pub(super) fn set_deadline(&mut self, id: u32, end: Instant) -> bool {
        if self.idle.is_some() { self.set_end(id, end) } else { self.end_at(id, end) }
    }

    /// [`set_deadline`](Self::set_deadline) where there is a time to idle.
    #[inline(never)]
    fn set_end(&mut self, id: u32, end: Instant) -> bool {
        if let Some(idle) = &mut self.idle {
            idle.set_end(id, end);
        }
        self.end_at(id, self.deadline(end))
    }

    /// The entry ends at `deadline` from now on. Whether it is still there then.
    #[inline]
    fn end_at(&mut self, id: u32, deadline: Instant) -> bool {
        if is_over(deadline, self.now) {
            self.expire(id);
            return false;
        }
        if let Some(entry) = self.slab.get_mut(id) {
            let previous = core::mem::replace(&mut entry.deadline, deadline);
            self.wheel.reschedule(id, previous, deadline);
        }
        true
    }

    /// The time that it is for the store, if it is told of `now`.
    #[inline]
    pub(super) fn time(&self, now: Instant) -> Instant {
        self.now.max(now).min(LATEST)
    }

    /// Time goes forward only.
    #[inline]
    pub(super) fn advance(&mut self, now: Instant) -> Instant {
        if self.now < now {
            self.now = self.time(now);
        }
        self.now
    }

    /// Takes the entry out of every structure.
    pub(super) fn detach(&mut self, id: u32) -> Option<Entry<K, V>> {
        let entry = self.detach_evicted(id)?;
        self.order.remove(id);
        Some(entry)
    }

    /// Takes the entry out of every structure but the order of use, where it no longer is.
    #[inline]
    fn detach_evicted(&mut self, id: u32) -> Option<Entry<K, V>> {
        let entry = self.slab.remove(id)?;
        self.strike(id);
        self.wheel.cancel(id);
        self.bytes -= self.weights.get(id);
        Some(entry)
    }

    /// Takes the entry out, for whoever wants to know.
    pub(super) fn end(&mut self, id: u32, cause: RemovalCause) {
        if let Some(entry) = self.detach(id) {
            self.report(entry.key, entry.value, cause);
        }
    }

    pub(super) fn report(&mut self, key: K, value: V, cause: RemovalCause) {
        if let Some(removals) = &mut self.removals {
            removals.push(Removal { key, value, cause });
        }
    }

    /// The entry has ended by its deadline.
    #[cold]
    pub(super) fn expire(&mut self, id: u32) {
        self.stats.expired += 1;
        self.end(id, RemovalCause::Expired);
    }

    /// Removes at least one entry, unless there is none: what has expired, or else what the policy says.
    pub(super) fn make_room(&mut self, bound: Bound) -> bool {
        if !self.wheel.is_idle(self.now) && self.sweep(self.now, STEPS_PER_INSERT) > 0 {
            return true;
        }
        let Some(entry) = self.order.evict().and_then(|id| self.detach_evicted(id)) else { return false };
        let cause = self.stats.make_way(bound, entry.is_over(self.now));
        if cause == RemovalCause::Expired {
            self.looks += 1;
        }
        self.report(entry.key, entry.value, cause);
        true
    }

    /// Evicts until there is room for so many bytes more, which are no more than there can be.
    fn make_bytes(&mut self, bytes: u64) {
        while self.config.max_bytes - self.bytes < bytes && self.make_room(Bound::Bytes) {}
    }

    fn weigh(&mut self, id: u32, bytes: u64) {
        self.weights.set(id, bytes, self.len() > 1, self.capacity);
    }
}

/// Under which hash an index of so many places knows each id.
#[inline]
fn hashes(order: &Ordering, places: usize) -> impl Fn(&u32) -> u64 + Copy {
    move |id| indexed(order.fingerprint(*id).hash(), places)
}

#[cfg(test)]
mod tests {
    use crate::Instant;
    use crate::store::{Store, StoreConfig};

    #[test]
    fn the_index_has_places_to_spare_and_keeps_their_number_whatever_is_removed() {
        const ENTRIES: u64 = 280;
        let config = StoreConfig { max_entries: ENTRIES as usize, ..StoreConfig::default() };
        let mut store = Store::new(config, (), Instant::EPOCH);
        // Side by side, so that whoever is removed from among them leaves a mark.
        let hash = |key: u64| key;
        for key in 0..ENTRIES {
            store.insert_hashed(Instant::EPOCH, hash(key), key, (), 1, Instant::NEVER).expect("fits");
        }
        assert_eq!(store.index.num_buckets(), 512, "for 420, of which 7 of 8 are used at most");
        for turn in 0..5 * ENTRIES {
            // From the middle of those that came before, and behind those that came after.
            let (gone, new) = (turn + ENTRIES / 2, turn + ENTRIES);
            assert!(store.remove_hashed(Instant::EPOCH, hash(gone), &gone).is_some(), "{gone}");
            store.insert_hashed(Instant::EPOCH, hash(new), new, (), 1, Instant::NEVER).expect("fits");
            assert_eq!((store.len(), store.index.num_buckets()), (ENTRIES as usize, 512), "turn {turn}");
        }
        assert!((0..ENTRIES / 2).all(|key| store.peek_hashed(Instant::EPOCH, hash(key), &key).is_some()));
    }
}
