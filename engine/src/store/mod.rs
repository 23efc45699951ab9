//! The memory store: a bounded map with exact LRU, exact deadlines and exact byte accounting.
//!
//! A pure structure with one owner. It reads no clock (`now` comes in), takes no lock, needs no task, and holds no
//! reference to anything: a driver puts it under a mutex, shards it, or owns it outright.
//!
//! ```
//! use core::time::Duration;
//! use larder_engine::Instant;
//! use larder_engine::store::{Store, StoreConfig};
//!
//! let now = Instant::from_millis(0);
//! let mut store = Store::new(StoreConfig::default(), foldhash::quality::FixedState::default(), now);
//! store.insert(now, "greeting".to_owned(), "hello", 5, now.saturating_add(Duration::from_secs(60)))?;
//! assert_eq!(store.get(now, "greeting"), Some(&"hello"));
//!
//! let a_minute_later = Instant::from_millis(60_000);
//! assert_eq!(store.get(a_minute_later, "greeting"), None);
//! assert_eq!(store.stats().expired, 1);
//! # Ok::<(), larder_engine::store::TooLarge>(())
//! ```
//!
//! # Structure
//!
//! ```text
//!   key ──hash──▶ index: HashTable<u32> ──id──▶ slab: [ entry | hole | entry | entry | … ]
//!                                                       deadline, key, value
//!
//!   lru:    head ⇄ 7 ⇄ 2 ⇄ 9 ⇄ 4 ⇄ head              every id, the most recently used first
//!   wheel:  bucket 17 ⇄ 2 ⇄ bucket 17                  ids with a deadline, by the time they fall due
//!           bucket 69 ⇄ 9 ⇄ 4 ⇄ bucket 69
//! ```
//!
//! Keys and values live once, in the slab. Everything else speaks of them by `u32` ids: the index, the order of use,
//! which keeps a fingerprint of each key's hash, and the hierarchical timer wheel of Varghese and Lauck (1987). The lists of
//! the last two are links in arrays of their own, so that each is a structure over ids that can be read and tested alone; so
//! are the weights, and what a time to idle remembers.
//!
//! Values are kept as they are given. A `Bytes` that is a slice of a read buffer would keep the whole buffer alive:
//! copy it first.
//!
//! Processors share memory by the line, and one that has to fetch what another has written waits as long as a look-up takes. So
//! what nearly every operation writes, the counters and the time, lies at the front, where a driver's lock is, whose line
//! whoever locks it has fetched; what a read only looks at lies on another, and is read while the lock's is on its way, which it
//! could not be from that; what the policy writes where an entry comes or goes lies together behind that. Nothing is written
//! that is the same already.
//!
//! # Life of an entry
//!
//! ```text
//!                insert                  deadline reached
//!   ┌────────┐ ─────────▶ ┌────────────┐ ─────────────────▶ ┌─────────┐  no call sees it any more;
//!   │ absent │            │    live    │                    │ overdue │  its memory is still held
//!   └────────┘ ◀───────── └────────────┘                    └─────────┘
//!     ▲     remove, evicted,   ⟲ get, insert, renew             │
//!     │     refused insert                                      │
//!     └─────────────────────────────────────────────────────────┘
//!        a get, insert, renew or remove of its key, a sweep, or room needed: counted as expired
//! ```
//!
//! # What the bounds mean
//!
//! * Neither bound is ever exceeded, not even between two steps of one call.
//! * Overwriting a key evicts nobody, unless its new size makes the sum of bytes too large. It refreshes recency.
//! * Victims are expired entries first, then what the [`Policy`] says: by default the least recently used. An expired
//!   entry is *known* to be expired up to a tick (1.05 ms) after its deadline, or later where sweeps had more entries to look
//!   at than steps; reads are exact whatever the sweep has got to.
//! * A value that could never fit is refused with [`TooLarge`], and **the key's old value is gone**: it must not be
//!   readable as if it were current. Nothing else is evicted.
//! * `max_entries` of zero stores nothing: each insert is its own victim.
//!
//! # Cost
//!
//! Reads, writes, renewals and removals are constant time and do at most a fixed number of steps of other work: no
//! number of entries that expire at once makes an operation wait for all of them. What is not constant: `clear`,
//! `remove_if` and dropping the store visit every entry, a heavy value under `max_bytes` evicts as many light ones
//! as it displaces, and growth is amortised (the index is made anew from fingerprints, never from keys; so it is, in the
//! memory that it has, where those that were removed have filled it with marks, which is rare). A hit allocates nothing;
//! an insert allocates only where the slab, the lists or the index grow to a new high-water mark.
//!
//! More than 9.8 million entries are better off in several stores: an index of more is slower to say that a key is not there.
//!
//! An entry costs [`ENTRY_OVERHEAD`] bytes beyond its key and value.

mod config;
mod entries;
mod fingerprint;
mod growth;
mod hashed;
mod idle;
mod jitter;
mod links;
mod place;
mod policy;
mod rebuild;
mod removal;
mod slab;
mod stats;
mod validate;
mod weights;
mod wheel;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use crate::Instant;
use alloc::boxed::Box;
pub use config::{StoreConfig, TooLarge};
use core::fmt;
use core::hash::{BuildHasher, Hash};
pub use entries::Bound;
use hashbrown::{Equivalent, HashTable};
pub use hashed::Overdue;
use idle::Idle;
pub use jitter::TtlJitter;
pub use place::Place;
use policy::Ordering;
pub use policy::Policy;
pub use removal::{Removal, RemovalCause, Removals};
use slab::{Entry, Slab, is_over};
pub use stats::StoreStats;
use weights::Weights;
use wheel::Wheel;

/// Bytes that a store spends per entry beyond the key and the value at most when it is full of `max_entries`, 55: 8 in the
/// slab (deadline), 8 for the weight, 12 in the order of use (links, fingerprint), 10 in the timer wheel, and 9 to
/// 17 in the index (5 per place, of which 7/24 to 7/12 are used).
///
/// The weight's 8 are spent only where weights differ, the wheel's only where deadlines are used; the wheel's buckets add 4 KiB
/// per store then. A time to idle costs 8 more, and [`Policy::Adaptive`] 12 to 20.
pub const ENTRY_OVERHEAD: u64 =
    (Slab::<u64, u64>::OVERHEAD + Weights::OVERHEAD + policy::OVERHEAD + wheel::OVERHEAD + 17) as u64;

/// An entry as [`Store::iter`] shows it.
#[derive(Debug)]
pub struct EntryRef<'a, K, V> {
    /// The key as it was first inserted.
    pub key: &'a K,
    /// The current value.
    pub value: &'a V,
    /// The weight that the value was inserted with.
    pub bytes: u64,
    /// When the entry ends, unless it is used before where there is a time to idle; [`Instant::NEVER`] where it does
    /// not.
    pub deadline: Instant,
}

/// Ids that fit the links, next to the heads of the wheel.
const MAX_IDS: usize = (u32::MAX - wheel::HEADS) as usize;

/// Where a store's time ends: before [`Instant::NEVER`], so that what has no deadline is not over then either.
const LATEST: Instant = Instant::from_nanos(u64::MAX - 2);

/// Steps of sweeping that an insert does on the side. A deadline is looked at once a level at most, so inserts alone
/// keep up with the expiry of what was inserted. One that reads or renewals have moved to later is looked at once more, however
/// often they have: where there is hardly an insert for many of these, a driver's sweeps keep up.
const STEPS_PER_INSERT: usize = wheel::LEVELS as usize;

/// A bounded map from `K` to `V` with exact LRU and deadlines. See the [module](self) for what is promised.
///
/// Values are owned; a driver that hands out copies stores something cheap to clone. `S` hashes the keys: the default
/// is fast and as resistant to chosen keys as its seed is secret, so drivers seed it randomly and simulators do not.
#[repr(C)] // see the module docs
pub struct Store<K, V, S = foldhash::quality::SeedableRandomState> {
    // On the first line, behind a lock's eight bytes, what nearly every operation looks at or writes.
    /// The latest time seen: a clock that steps back does not bring anything back to life.
    now: Instant,
    /// Apart, as what has ended is: few have it, and what a read looks at lies closer together.
    idle: Option<Box<Idle>>,
    // Up to the second, which is not written where a value takes the place of one of as many bytes.
    stats: StoreStats,
    /// The sum of the entries' bytes.
    bytes: u64,
    /// Entries that were looked at and not evicted alive: by sweeps, and victims that were over.
    looks: u64,
    // Up to the third, with what else is written to set a value.
    wheel: Wheel,
    weights: Weights,
    // On the fourth, with the slab's array at its beginning and the uses at its end, all that a read looks at. On the fifth, what
    // the policy changes where an entry comes or goes; under LRU a read looks there as well.
    slab: Slab<K, V>,
    index: HashTable<u32>,
    order: Ordering,
    // What is needed when an entry comes or goes.
    capacity: usize,
    /// How many entries the index is made for.
    index_room: usize,
    /// What has ended and was not taken yet, where somebody takes it.
    removals: Option<Box<Removals<K, V>>>,
    config: StoreConfig,
    hasher: S,
}

impl<K, V, S> Store<K, V, S> {
    /// An empty store. Allocates nothing yet.
    ///
    /// `hasher` decides how well the store resists keys chosen to collide; `now` is where its time begins.
    #[must_use]
    pub fn new(config: StoreConfig, hasher: S, now: Instant) -> Self {
        let capacity = config.max_entries.min(MAX_IDS);
        Self {
            now: now.min(LATEST),
            idle: config.time_to_idle.map(|after| Box::new(Idle::new(after, capacity))),
            stats: StoreStats::default(),
            bytes: 0,
            looks: 0,
            wheel: Wheel::new(now, capacity),
            weights: Weights::new(),
            slab: Slab::new(capacity as u32),
            index: HashTable::new(),
            order: Ordering::new(config.policy, capacity),
            capacity,
            index_room: 0,
            removals: None,
            config,
            hasher,
        }
    }

    /// Entries held, those included that have expired and were not swept yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no entry is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether as many entries are held as there may be, expired ones that were not swept yet included: a new one has to have
    /// another's place. Bytes are another matter. True where there may be none.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// The sum of the held entries' bytes, as they were given to [`insert`](Self::insert).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bounds that the store was made with.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.stats
    }

    /// When [`sweep`](Self::sweep) next has something to do; `None` while no entry has a deadline.
    ///
    /// It may be early (a sweep then only refiles entries, and the next answer is closer to the truth), and is never
    /// later than a tick (1.05 ms) after the earliest deadline. It lies in the past while a sweep that ran out of
    /// budget has left work. Reads do not depend on it.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// Whether what time it is may matter to the entries held: `false` while none has a deadline, and there is no time to
    /// idle. A caller to whom a clock is dear may pass any `now` that is over, then, to a call that sets no deadline.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.idle.is_some() || !self.wheel.is_empty()
    }

    /// The live entries, most recently used first; a walk changes no recency.
    ///
    /// What has expired by the latest `now` that the store was given is skipped.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_, K, V>> {
        self.order.iter().filter_map(|id| self.entry(id)).filter(|entry| !is_over(entry.deadline, self.now))
    }

    /// From now on keeps what ends, for [`take_removals`](Self::take_removals): who calls this has to call that after each
    /// call, or what has gone stays in memory.
    pub fn keep_removals(&mut self) {
        self.removals.get_or_insert_with(|| Box::new(Removals::new()));
    }

    /// What has ended since the last time, in the order in which it did, but for what a clear ended; nothing unless the store was
    /// told to [keep](Self::keep_removals) it.
    ///
    /// What a call hands back to its caller is not in it: the value that an insert replaces, the one that a remove takes, the
    /// entry that an [exchange](Self::exchange_hashed) ends. With these, every value that came in is told of exactly once, and
    /// as [`stats`](Self::stats) count it.
    #[must_use]
    pub fn take_removals(&mut self) -> Removals<K, V> {
        let removals =
            self.removals.as_mut().map(|removals| core::mem::replace(&mut **removals, Removals::new()));
        removals.unwrap_or_else(Removals::new)
    }

    /// Whether [`take_removals`](Self::take_removals) has something to hand out.
    #[inline]
    #[must_use]
    pub fn has_removals(&self) -> bool {
        self.removals.as_ref().is_some_and(|removals| !removals.is_empty())
    }

    /// Removes every entry and returns how many there were, expired ones that were still held included. Linear time;
    /// the memory is kept.
    pub fn clear(&mut self) -> usize {
        let count = self.len();
        self.stats.removals += count as u64;
        if let Some(removals) = &mut self.removals {
            let gone = |entry: Entry<K, V>| Removal {
                key: entry.key,
                value: entry.value,
                cause: RemovalCause::Removed,
            };
            self.slab.drain().map(gone).for_each(|removal| removals.push(removal));
        }
        self.slab.drain().for_each(drop);
        self.bytes = 0;
        self.index.clear();
        self.order.clear();
        self.wheel.clear();
        self.weights.clear();
        count
    }

    /// Removes every live entry for which `doomed` says so, most recently used first, and returns how many. Linear
    /// time.
    ///
    /// What has expired by the latest `now` that the store was given is not shown to it.
    pub fn remove_if(&mut self, mut doomed: impl FnMut(&K, &V) -> bool) -> usize {
        let mut removed = 0;
        let mut next = self.order.first();
        while let Some(id) = next {
            next = self.order.after(id);
            let Some(entry) = self.slab.get(id) else { break };
            if !entry.is_over(self.now) && doomed(&entry.key, &entry.value) {
                self.stats.removals += 1;
                removed += 1;
                self.end(id, RemovalCause::Removed);
            }
        }
        removed
    }

    /// Removes entries whose deadline is over, in at most `budget` steps, and returns how many it removed.
    ///
    /// A step looks at one entry: it is removed, or filed closer to its deadline. A deadline is looked at eight times
    /// at most, and once more where it has become a later one. Whether anything is left to do now,
    /// [`next_expiry`](Self::next_expiry) says. Sweeping is never needed for correctness, only to give memory back; inserts do a
    /// few steps of it on the side.
    #[inline(never)]
    pub fn sweep(&mut self, now: Instant, budget: usize) -> usize {
        let now = self.advance(now);
        let mut removed = 0;
        for _ in 0..budget {
            let Some(id) = self.wheel.pop(now) else { break };
            self.looks += 1;
            let Some(entry) = self.slab.get(id) else { continue };
            if entry.is_over(now) {
                self.expire(id);
                removed += 1;
            } else {
                self.wheel.schedule(id, entry.deadline);
            }
        }
        removed
    }

    /// Makes room as an insert does that finds none, for a caller who has bounds of his own: what has expired goes, a few
    /// entries at most, or else the one that the policy says. `false` where there is none.
    pub fn evict(&mut self, now: Instant, bound: Bound) -> bool {
        self.advance(now);
        self.make_room(bound)
    }

    /// Steps of work done so far beyond the constant cost of each operation: entries that sweeps looked at, and
    /// evictions. For tests of how long an operation can take.
    #[doc(hidden)]
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.looks + self.stats.evictions()
    }
}

impl<K: Eq, V, S> Store<K, V, S> {
    /// The live value of `key`. Counts a hit or a miss, and makes the entry the most recently used.
    ///
    /// An entry whose deadline is `now` or earlier is a miss and goes at once.
    #[inline]
    pub fn get<Q>(&mut self, now: Instant, key: &Q) -> Option<&V>
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.advance(now);
        self.get_hashed(self.hash_of(key), key, |_| now)
    }

    /// [`get`](Self::get) for those who share the store for reading: under [`Policy::Adaptive`] the entry is marked as
    /// used; under [`Policy::Lru`] its recency is left alone. Counts nothing, moves no deadline where there is a time to
    /// idle, and leaves what is over to others.
    pub fn get_shared<Q>(&self, now: Instant, key: &Q) -> Option<&V>
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let id = self.find(self.hash_of(key), key)?;
        let entry = self.slab.get(id)?;
        if entry.is_over(self.time(now)) {
            return None;
        }
        self.order.touch_shared(id);
        Some(&entry.value)
    }

    /// The hash of a key, for the calls that take one. Stores whose hashers are clones of one another agree on it.
    #[inline]
    pub fn hash_of<Q: Hash + ?Sized>(&self, key: &Q) -> u64
    where
        S: BuildHasher,
    {
        self.hasher.hash_one(key)
    }

    /// [`get`](Self::get) for changing the value in place. The entry's bytes stay what they were.
    pub fn get_mut<Q>(&mut self, now: Instant, key: &Q) -> Option<&mut V>
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.advance(now);
        self.read(self.hash_of(key), key, |_| now)
    }

    /// The live value of `key`, leaving recency and statistics alone.
    pub fn peek<Q>(&self, now: Instant, key: &Q) -> Option<&V>
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.peek_hashed(now, self.hash_of(key), key).map(|entry| entry.value)
    }

    /// [`peek`](Self::peek) for changing the value in place. The entry's bytes stay what they were.
    pub fn peek_mut<Q>(&mut self, now: Instant, key: &Q) -> Option<&mut V>
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let now = self.advance(now);
        let id = self.find_live(now, self.hash_of(key), key)?;
        self.slab.get_mut(id).map(|entry| &mut entry.value)
    }

    /// Whether `key` has a live value, leaving recency and statistics alone.
    pub fn contains<Q>(&self, now: Instant, key: &Q) -> bool
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.peek(now, key).is_some()
    }

    /// Stores `value` under `key` until `deadline` ([`Instant::NEVER`]: without one), counting it as `bytes`, and
    /// returns the live value that it replaced, if any. The entry is the most recently used then.
    ///
    /// Where room is needed, expired entries go first, then what the policy says. A deadline that is over already
    /// leaves nothing under the key. The key of an entry that is overwritten stays; the new one is dropped.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] where `bytes` is over `max_entry_bytes` or `max_bytes`. Nothing is evicted, and `key` has no value
    /// afterwards: its old one went too, since it is no longer current.
    pub fn insert(
        &mut self,
        now: Instant,
        key: K,
        value: V,
        bytes: u64,
        deadline: Instant,
    ) -> Result<Option<V>, TooLarge>
    where
        K: Hash,
        S: BuildHasher,
    {
        let (hash, mut key, mut value) = (self.hash_of(&key), key, value);
        match self.exchange_hashed(now, hash, &mut key, &mut value, bytes, deadline, Self::is_full) {
            Some(RemovalCause::Replaced) => Ok(Some(value)),
            Some(cause) => {
                self.report(key, value, cause);
                Ok(None)
            }
            None => {
                let replaced = self.insert_hashed(now, hash, key, value, bytes, deadline)?;
                Ok(replaced.map(|(_, value)| value))
            }
        }
    }

    /// Moves the deadline of `key`'s live entry, earlier or later; `false` where there is none. Constant time.
    ///
    /// Leaves recency and statistics alone, but counts as a use where there is a time to idle. A deadline that is over
    /// already ends the entry.
    pub fn renew<Q>(&mut self, now: Instant, key: &Q, deadline: Instant) -> bool
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let now = self.advance(now);
        let Some(id) = self.find_live(now, self.hash_of(key), key) else { return false };
        self.set_deadline(id, deadline);
        true
    }

    /// Removes `key`'s entry and returns its value; `None` where it had expired.
    pub fn remove<Q>(&mut self, now: Instant, key: &Q) -> Option<V>
    where
        S: BuildHasher,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.remove_hashed(now, self.hash_of(key), key).map(|(_, value)| value)
    }
}

impl<K, V, S> fmt::Debug for Store<K, V, S> {
    /// Figures only: keys and values may be secret, and many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("len", &self.len())
            .field("bytes", &self.bytes)
            .field("config", &self.config)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
