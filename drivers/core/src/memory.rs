//! [`MemoryCache`]: a typed cache in this process. No runtime, no task, no serialisation.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_engine::Instant;
use larder_engine::store::{Bound, Overdue, RemovalCause, Store, StoreStats, TooLarge, TtlJitter};

use crate::clock::Clock;
use crate::ttl::Ttl;

mod builder;
#[cfg(all(test, shuttle))]
mod interleavings;
mod lock;
mod shard;
#[cfg(all(test, not(shuttle)))]
mod tests;

pub use builder::MemoryCacheBuilder;
use shard::{Room, Shard, Writing};

/// A bounded map with time to live and LRU eviction, for any number of threads.
///
/// Cheap to clone: clones share the entries. Values are cloned out, so make them cheap to clone (`Arc`, `Bytes`), or
/// look at them in place with [`get_with`](Self::get_with). Keys are hashed once, with `S`. What they and values bring for
/// that, `Clone` and `Eq`, runs with a shard locked, and must not call the cache.
///
/// No clock is read by a look-up that finds nothing, or an entry without a time to live; nor, but to set one, where no entry of the
/// shard has one. Other look-ups read a coarse clock on Linux, at a quarter of the cost, and the exact one within 100 ms of the entry's deadline or
/// where there is a time to idle: that is exact unless the kernel's tick is later than this.
///
/// Each operation locks one shard for about a hundred nanoseconds, and does a bounded amount of work there: expiry is
/// exact on read, and what nobody reads is swept in small steps by inserts. To lock a shard takes one atomic operation, and to
/// let go of it none; in return nobody is woken: who finds one locked looks again, at once at first, and after some microseconds
/// between sleeps of at most a millisecond.
///
/// LRU of fewer than 16 384 entries, or with [`shards(1)`](MemoryCacheBuilder::shards), has one shard, and is exact; with
/// more, each shard evicts its own least recently used entry. The bounds are those of the whole cache, exactly, however many shards there are: nothing
/// is evicted while there is room, there is never more than they allow, and one entry may have all of the bytes.
///
/// ```
/// use std::time::Duration;
/// use larder::{MemoryCache, Ttl};
///
/// let cache = MemoryCache::builder().max_entries(10_000).default_ttl(Duration::from_secs(300)).build()?;
/// cache.insert("user:1".to_owned(), "Ada")?;
/// cache.insert_with_ttl("motto".to_owned(), "permanent", Ttl::Never)?;
/// assert_eq!(cache.get("user:1"), Some("Ada"));
/// assert_eq!(cache.get_with("motto", |text| text.len()), Some(9));
/// assert!(!cache.contains("user:2"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryCache<K, V, S = DefaultHashBuilder> {
    inner: Arc<Inner<K, V, S>>,
}

/// What keys are hashed with unless [`hasher`](MemoryCacheBuilder::hasher) says otherwise: [foldhash] in its better quality,
/// with a seed of the system's randomness for each cache. It is fast, and resists keys that are chosen to collide as
/// long as nobody can tell the seed from how the cache behaves; where that is not enough, the standard library's
/// [`RandomState`](std::hash::RandomState) takes a few nanoseconds more.
///
/// [foldhash]: https://docs.rs/foldhash
pub type DefaultHashBuilder = foldhash::quality::SeedableRandomState;

struct Inner<K, V, S> {
    /// A power of two.
    shards: Box<[Shard<K, V>]>,
    /// What all shards share; `None` where there is one, whose own bounds are those of the cache.
    room: Option<Room>,
    hasher: S,
    clock: Clock,
    default_ttl: Option<Duration>,
    ttl_jitter: TtlJitter,
    has_time_to_idle: bool,
    /// `None` weighs what is in the store itself.
    weigher: Option<Weigher<K, V>>,
    listener: Option<Listener<K, V>>,
    max_entries: usize,
    max_bytes: Option<u64>,
    /// What `max_bytes` allows at most.
    max_entry_bytes: u64,
    /// Where the next sweep goes on.
    next_sweep: AtomicUsize,
    /// Which shard is the next to evict for another.
    next_victim: AtomicUsize,
}

/// What a value comes with.
#[derive(Clone, Copy)]
struct Terms {
    now: Instant,
    hash: u64,
    bytes: u64,
    deadline: Instant,
}

type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;
type Listener<K, V> = Box<dyn Fn(&K, &V, RemovalCause) + Send + Sync>;

impl<K, V> MemoryCache<K, V> {
    /// The parameters, with their defaults.
    pub fn builder() -> MemoryCacheBuilder<K, V> {
        MemoryCacheBuilder::new()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> MemoryCache<K, V, S> {
    /// A copy of the value, which becomes the most recently used.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.get_with(key, V::clone)
    }

    /// What `look` makes of the value, without a copy. Its shard is locked meanwhile, for reads as well: be brief, and do not
    /// call the cache from within, which may wait for itself for ever.
    pub fn get_with<Q, R>(&self, key: &Q, look: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        let mut shard = self.shard(hash).look();
        match shard.get_live_hashed(hash, key, |end| self.now_to_read(end)) {
            Ok(found) => found.map(look),
            Err(Overdue) => {
                // Answers here, and not by what a call hands back: with `look` alone to make the result, that goes out in
                // registers.
                self.end_overdue(Writing::new(shard, self.inner.room.as_ref()), hash, key);
                None
            }
        }
    }

    /// A read that has found an entry whose time is over ends it, and misses.
    #[cold]
    fn end_overdue<Q>(&self, mut shard: Writing<'_, K, V>, hash: u64, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        shard.get_hashed(hash, key, |end| self.now_to_read(end));
        self.let_go(shard);
    }

    /// Whether there is a value. Changes neither recency nor statistics.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        let store = self.shard(hash).look();
        let entry = store.peek_hashed(Instant::EPOCH, hash, key);
        let is_live = |end: Instant| end.is_never() || end > self.inner.clock.now_to_tell(end);
        entry.is_some_and(|entry| is_live(entry.deadline))
    }

    /// Sets a value with the default time to live; the answer is the one it replaces.
    ///
    /// Overwriting evicts nothing else, unless the new value is larger and the byte bound demands it.
    ///
    /// # Errors
    /// [`TooLarge`] where the entry alone is over a byte bound. The key has no value then.
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>, TooLarge> {
        let hash = self.inner.hasher.hash_one(&key);
        self.set(hash, key, value, self.inner.default_ttl)
    }

    /// Sets a value. A time to live of zero leaves nothing under the key.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: impl Into<Ttl>) -> Result<Option<V>, TooLarge> {
        let hash = self.inner.hasher.hash_one(&key);
        self.set(hash, key, value, ttl.into().or_default(self.inner.default_ttl))
    }

    /// The value of a key, or that of `make`, which is set with the default time to live. Two callers at once may both
    /// make one; the later one stays.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn get_or_insert_with<Q>(&self, key: &Q, make: impl FnOnce() -> V) -> Result<V, TooLarge>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        let value = make();
        self.insert(key.to_owned(), value.clone())?;
        Ok(value)
    }

    /// Removes a value and returns it.
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        let removed = self.change(self.shard(hash), |store| store.remove_hashed(self.now(store), hash, key));
        removed.map(|(key, value)| {
            self.tell(&key, &value, RemovalCause::Removed);
            value
        })
    }

    /// Removes all values, shard by shard; the answer is how many there were.
    #[allow(clippy::must_use_candidate, reason = "called for what it does, not for the count")]
    pub fn clear(&self) -> usize {
        self.inner.shards.iter().map(|shard| self.change(shard, Store::clear)).sum()
    }

    /// Removes the values for which `doomed` says so, shard by shard, and looks at every entry for it.
    pub fn remove_if(&self, mut doomed: impl FnMut(&K, &V) -> bool) -> usize {
        let remove = |shard| {
            self.change(shard, |store| {
                store.sweep(self.now(store), 0); // tells it the time
                store.remove_if(&mut doomed)
            })
        };
        self.inner.shards.iter().map(remove).sum()
    }

    /// Copies of all entries that have not expired, in no order. Each shard is copied when the iterator comes to it, and
    /// locked for that; what changes meanwhile is in the copy or not. Changes neither recency nor statistics.
    pub fn iter_snapshot(&self) -> impl Iterator<Item = (K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.inner.shards.iter().flat_map(|shard| {
            let store = shard.look();
            let now = self.now(&store);
            let live = store.iter().filter(|entry| entry.deadline > now || entry.deadline.is_never());
            live.map(|entry| (entry.key.clone(), entry.value.clone())).collect::<Vec<_>>()
        })
    }

    /// Takes a few hundred steps of sweeping in one shard, and the next call in the next; the answer is how many
    /// expired entries that removed. Nobody has to call it: reads never see an expired value, inserts sweep on the
    /// side, and expired entries are the first to be evicted. A program that has stopped inserting, and wants the
    /// memory back, calls it now and then.
    #[allow(clippy::must_use_candidate, reason = "called for what it does, not for the count")]
    pub fn sweep(&self) -> usize {
        let next = self.inner.next_sweep.fetch_add(1, Ordering::Relaxed) % self.inner.shards.len().max(1);
        let sweep = |shard| self.change(shard, |store| store.sweep(self.now(store), 256));
        self.inner.shards.get(next).map_or(0, sweep)
    }

    /// Entries, with expired ones that are not swept yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.shards.iter().map(|shard| shard.look().len()).sum()
    }

    /// Whether [`len`](Self::len) is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counters and sizes. Locks each shard in turn.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats {
            max_entries: self.inner.max_entries,
            max_bytes: self.inner.max_bytes,
            current_size: 0,
            memory_usage: 0,
            counters: StoreStats::default(),
        };
        for shard in &self.inner.shards {
            let store = shard.look();
            stats.current_size += store.len();
            stats.memory_usage += store.bytes();
            stats.counters += store.stats();
        }
        stats
    }

    /// Sets a value; the answer is the one that it replaces.
    ///
    /// The caller hashes the key where it lies: once moved, it is in pieces of other sizes than it is read in, and the processor
    /// waits until all writes before are done.
    #[inline]
    fn set(&self, hash: u64, mut key: K, mut value: V, ttl: Option<Duration>) -> Result<Option<V>, TooLarge> {
        let bytes = self.weigh(&key, &value);
        if bytes > self.inner.max_entry_bytes {
            return Err(self.refuse(hash, &key, bytes));
        }
        let mut shard = self.shard(hash).look();
        let (now, deadline) = match ttl {
            None if !shard.is_timed() => (Instant::EPOCH, Instant::NEVER),
            _ => self.times(hash, ttl),
        };
        let is_full = |store: &Store<K, V, ()>| match &self.inner.room {
            Some(room) => room.is_full_of_entries(),
            None => store.is_full(),
        };
        match shard.exchange_hashed(now, hash, &mut key, &mut value, bytes, deadline, is_full) {
            Some(RemovalCause::Replaced) => {
                drop(shard);
                self.tell(&key, &value, RemovalCause::Replaced);
                Ok(Some(value))
            }
            Some(cause) => {
                // With what a call before has ended, and not told of for a panic.
                self.let_go(Writing::new(shard, self.inner.room.as_ref()));
                self.tell(&key, &value, cause);
                Ok(None)
            }
            None => {
                let terms = Terms { now, hash, bytes, deadline };
                self.set_with_more(key, value, terms, Writing::new(shard, self.inner.room.as_ref()))
            }
        }
    }

    /// Sets a value for which more is to be done than to exchange it for another: most sets are shorter without. The shard is
    /// the last parameter, so that it is let go of first where the caller's code panics.
    #[inline(never)]
    fn set_with_more<'a>(
        &'a self,
        key: K,
        value: V,
        terms: Terms,
        mut shard: Writing<'a, K, V>,
    ) -> Result<Option<V>, TooLarge> {
        let Terms { mut now, hash, bytes, deadline } = terms;
        loop {
            match shard.place(now, hash, &key, bytes, deadline) {
                Ok(place) => {
                    let replaced = place.insert(key, value, bytes, deadline);
                    self.let_go(shard);
                    return Ok(replaced?.map(|(key, value)| {
                        self.tell(&key, &value, RemovalCause::Replaced);
                        value
                    }));
                }
                Err(missing) => {
                    self.let_go(shard);
                    // Once more where somebody else is faster to take that room.
                    self.evict_anywhere(missing);
                    shard = self.shard(hash).write(self.inner.room.as_ref());
                    now = self.now(&shard);
                }
            }
        }
    }

    /// The time, and when what is set now ends.
    #[inline(never)] // most caches need neither, or need the clock, which costs more
    fn times(&self, hash: u64, ttl: Option<Duration>) -> (Instant, Instant) {
        let now = self.inner.clock.now();
        let end = |ttl| now.saturating_add(self.inner.ttl_jitter.shorten(ttl, hash));
        (now, ttl.map_or(Instant::NEVER, end))
    }

    #[inline]
    fn weigh(&self, key: &K, value: &V) -> u64 {
        let plain = (size_of::<K>() + size_of::<V>()) as u64;
        self.inner.weigher.as_ref().map_or(plain, |weigh| weigh(key, value))
    }

    /// As an insert would, but key and value are dropped later, with no lock held.
    #[cold]
    fn refuse(&self, hash: u64, key: &K, bytes: u64) -> TooLarge {
        let refuse =
            |store: &mut Store<K, V, ()>| store.place_hashed(self.now(store), hash, key).refuse(bytes);
        self.change(self.shard(hash), refuse)
    }

    /// Evicts an entry of the next shard that has one: that of the newcomer has none left.
    #[cold]
    fn evict_anywhere(&self, bound: Bound) {
        let shards = &self.inner.shards;
        let next = || self.inner.next_victim.fetch_add(1, Ordering::Relaxed) & (shards.len() - 1);
        let mut turns = (0..shards.len()).filter_map(|_| shards.get(next()));
        turns.any(|shard| self.change(shard, |store| store.evict(self.now(store), bound)));
    }

    /// Changes a shard, lets go of it, and tells the listener what has ended by that.
    fn change<R>(&self, shard: &Shard<K, V>, change: impl FnOnce(&mut Store<K, V, ()>) -> R) -> R {
        let mut shard = shard.write(self.inner.room.as_ref());
        let result = change(&mut shard);
        self.let_go(shard);
        result
    }

    #[inline(always)] // where nothing has ended it is the lock's release, which every change ends with
    fn let_go(&self, shard: Writing<'_, K, V>) {
        if shard.has_removals() {
            self.tell_and_drop(shard);
        }
    }

    /// Lets go of a shard, and then of what has ended there: the caller's code may take long over it, or call the cache.
    #[inline(never)]
    fn tell_and_drop(&self, mut shard: Writing<'_, K, V>) {
        let removals = shard.take_removals();
        drop(shard);
        for removal in removals {
            self.tell(&removal.key, &removal.value, removal.cause);
        }
    }

    /// Tells the listener of an entry that has ended, with no lock held.
    fn tell(&self, key: &K, value: &V, cause: RemovalCause) {
        if let Some(listener) = &self.inner.listener {
            listener(key, value, cause);
        }
    }

    fn shard(&self, hash: u64) -> &Shard<K, V> {
        let shards = &self.inner.shards;
        // The high bits, but for those that the store's table takes for its tags; it takes the low ones to find a place.
        &shards[(hash >> 41) as usize & (shards.len() - 1)]
    }

    /// The time, as far as it matters to a read of what ends at `end`.
    #[inline(never)] // reads of what has no deadline are shorter without
    fn now_to_read(&self, end: Instant) -> Instant {
        let Inner { clock, has_time_to_idle, .. } = &*self.inner;
        // A time to idle begins now, and not a little before.
        if *has_time_to_idle { clock.now() } else { clock.now_to_tell(end) }
    }

    /// The time, as far as it matters to a shard, whose lock is held.
    fn now(&self, store: &Store<K, V, ()>) -> Instant {
        if store.is_timed() { self.inner.clock.now() } else { Instant::EPOCH }
    }
}

impl<K, V, S> Clone for MemoryCache<K, V, S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K, V, S> fmt::Debug for MemoryCache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache")
            .field("shards", &self.inner.shards.len())
            .field("max_entries", &self.inner.max_entries)
            .field("max_bytes", &self.inner.max_bytes)
            .field("default_ttl", &self.inner.default_ttl)
            .finish_non_exhaustive()
    }
}

/// Counters of a memory cache since it was built, and its sizes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// The bound on entries.
    pub max_entries: usize,
    /// The bound on bytes; `None` is none.
    pub max_bytes: Option<u64>,
    /// Entries now, with expired ones that are not swept yet.
    pub current_size: usize,
    /// The bytes of these, as weighed: for [`Cache::memory`](crate::Cache::memory) those of keys and values.
    pub memory_usage: u64,
    /// What has happened to entries.
    pub counters: StoreStats,
}

impl MemoryStats {
    /// Hits of all reads, 0..=1; `None` before the first.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        self.counters.hit_ratio()
    }

    /// Entries that ended by their time to live.
    #[must_use]
    pub const fn expired_items(&self) -> u64 {
        self.counters.expired
    }
}
