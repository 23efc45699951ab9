//! The fallback tier: what this process can still answer when Redis cannot.
//!
//! Two kinds of entries, kept apart because they live by different rules:
//!
//! - **Mirrors** are copies of what Redis confirmed, made by the way, so that an outage does not begin with an empty
//!   cache. They are bounded by LRU and never older than `max_staleness`.
//! - **Locals** are the writes and deletes accepted while Redis could not be asked. They are newer than any mirror,
//!   never evicted, and bounded by refusing more.
//!
//! ```text
//!            reply to a read or write, fence unmoved           own write begins, or its outcome is unknown
//!  (nothing) --------------------------------------> mirror ------------------------------------------> (nothing)
//!      |                                               |
//!      +--------------------- accepted while degraded -+------> local ---- Redis confirms, or recovered() --> ...
//! ```
//!
//! # The fence
//!
//! A read that was answered before a write, and is looked at after it, must not put the old value back. Each key
//! belongs to one of a few hundred counters; every own write moves the counter when it begins and when it ends. A read
//! samples it when it is submitted, and its copy is dropped if the counter has moved since. Keys that share a counter
//! only cost each other a copy.
//!
//! # What is not kept yet
//!
//! Locals answer this process until Redis is back, and are then given up: Redis's copy counts again, as if the write
//! had been lost. `SetOutcome::StoredInFallback` says so to the caller of each.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use foldhash::quality::SeedableRandomState;

use crate::store::{Store, StoreConfig};
use crate::time::Instant;

/// The bounds of one shard of the fallback tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierConfig {
    /// Mirrors; default 10 000.
    pub max_entries: usize,
    /// The bytes of their keys and values; default 64 MiB.
    pub max_bytes: u64,
    /// The oldest mirror that is ever served; default 5 min.
    pub max_staleness: Duration,
    /// A mirror younger than this is not copied again by reads, so that hot keys stay cheap; default 1 s.
    pub mirror_refresh: Duration,
    /// Locals; default 10 000.
    pub max_local_entries: usize,
    /// The bytes of their keys and values; default 16 MiB.
    pub max_local_bytes: u64,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_staleness: Duration::from_secs(5 * 60),
            mirror_refresh: Duration::from_secs(1),
            max_local_entries: 10_000,
            max_local_bytes: 16 << 20,
        }
    }
}

impl TierConfig {
    /// The bounds of one of `shards` shards, so that all together hold no more than this.
    #[must_use]
    pub const fn divided(self, shards: u32) -> Self {
        let shards = if shards == 0 { 1 } else { shards };
        Self {
            max_entries: self.max_entries.div_ceil(shards as usize),
            max_bytes: self.max_bytes.div_ceil(shards as u64),
            max_local_entries: self.max_local_entries.div_ceil(shards as usize),
            max_local_bytes: self.max_local_bytes.div_ceil(shards as u64),
            ..self
        }
    }
}

/// A key's fence as it was when an operation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(u32);

/// What the tier knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value; `None` where the key was deleted while degraded.
    pub value: Option<Bytes>,
    /// How long ago Redis confirmed it, or it was written here.
    pub age: Duration,
}

/// The tier has no room for another local write. The write was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fallback tier is full")]
pub struct TierFull;

#[derive(Debug)]
struct Entry {
    value: Option<Bytes>,
    since: Instant,
}

/// One shard of the fallback tier: a plain structure that a driver keeps under a mutex.
#[derive(Debug)]
pub struct Tier {
    config: TierConfig,
    mirrors: Store<Bytes, Entry>,
    locals: Store<Bytes, Entry>,
    fences: Vec<u32>,
}

/// A power of two: enough that keys in flight at the same time seldom share one.
const FENCES: usize = 256;

impl Tier {
    /// An empty tier. `seed` seeds the hasher against crafted keys.
    #[must_use]
    pub fn new(config: TierConfig, seed: u64, now: Instant) -> Self {
        let mirrors = StoreConfig {
            max_entries: config.max_entries,
            max_bytes: config.max_bytes,
            ..StoreConfig::default()
        };
        // The bounds of the locals refuse, they do not evict: they are not the store's.
        let locals = StoreConfig { max_entries: usize::MAX, ..StoreConfig::default() };
        Self {
            config,
            mirrors: Store::new(mirrors, hasher(seed), now),
            locals: Store::new(locals, hasher(seed), now),
            fences: vec![0; FENCES],
        }
    }

    /// What a read samples when it is submitted. `hash` is the key's, the same at each call.
    #[must_use]
    pub fn fence(&self, hash: u64) -> Fence {
        Fence(self.fences.get(bucket(hash)).copied().unwrap_or_default())
    }

    /// A write is about to be submitted: no older copy may survive it.
    pub fn begin_write(&mut self, now: Instant, hash: u64, key: &[u8]) -> Fence {
        self.mirrors.remove(now, key);
        self.move_fence(hash)
    }

    /// Redis answered a read.
    pub fn read_confirmed(
        &mut self,
        now: Instant,
        hash: u64,
        key: &[u8],
        fence: Fence,
        value: Option<&[u8]>,
    ) {
        if fence != self.fence(hash) {
            return;
        }
        self.locals.remove(now, key);
        match value {
            Some(value) if !self.is_fresh(now, key) => self.mirror(now, key, value, Instant::NEVER),
            Some(_) => {}
            None => drop(self.mirrors.remove(now, key)),
        }
    }

    /// Redis acknowledged a write: of this value with this deadline, or of none.
    pub fn write_confirmed(
        &mut self,
        now: Instant,
        hash: u64,
        key: &[u8],
        fence: Fence,
        value: Option<(&[u8], Instant)>,
    ) {
        self.locals.remove(now, key);
        let alone = fence == self.fence(hash);
        self.move_fence(hash);
        match value {
            Some((value, deadline)) if alone => self.mirror(now, key, value, deadline),
            _ => drop(self.mirrors.remove(now, key)),
        }
    }

    /// Nobody knows what became of a write: no copy can be trusted.
    pub fn write_lost(&mut self, now: Instant, hash: u64, key: &[u8]) {
        self.move_fence(hash);
        self.mirrors.remove(now, key);
    }

    /// What can be said about a key without Redis; `None` is nothing.
    pub fn get(&mut self, now: Instant, key: &[u8]) -> Option<Found> {
        let entry = match self.locals.peek(now, key) {
            Some(local) => local,
            None => self.mirrors.get(now, key)?,
        };
        Some(Found { value: entry.value.clone(), age: now.saturating_since(entry.since) })
    }

    /// Accepts a write (`None`: a delete) while Redis cannot be asked. The answer is whether the key had a value.
    ///
    /// # Errors
    /// [`TierFull`]: the key's mirror is gone then, and an earlier local write of it still counts.
    pub fn write(
        &mut self,
        now: Instant,
        hash: u64,
        key: &[u8],
        value: Option<Bytes>,
        deadline: Instant,
    ) -> Result<bool, TierFull> {
        self.move_fence(hash);
        // Expired locals make room. Each is looked at a few times in its life, so this is cheap for being unbounded.
        self.locals.sweep(now, usize::MAX);
        let had_mirror = self.mirrors.remove(now, key).is_some_and(|entry| entry.value.is_some());
        let (old_value, old_weight) = match self.locals.peek(now, key) {
            Some(entry) => (Some(entry.value.is_some()), weight(key, entry.value.as_deref())),
            None => (None, 0),
        };
        let weight = weight(key, value.as_deref());
        let entries = self.locals.len() + usize::from(old_value.is_none());
        let bytes = (self.locals.bytes() - old_weight).saturating_add(weight);
        if entries > self.config.max_local_entries || bytes > self.config.max_local_bytes {
            return Err(TierFull);
        }
        // A deleted key must stay deleted until Redis is back, or its mirror's successor would show.
        let deadline = if value.is_some() { deadline } else { Instant::NEVER };
        let entry = Entry { value, since: now };
        let stored = self.locals.insert(now, Bytes::copy_from_slice(key), entry, weight, deadline);
        debug_assert!(stored.is_ok(), "the locals' own bounds are infinite");
        Ok(old_value.unwrap_or(had_mirror))
    }

    /// Forgets every key that begins with `prefix`; the answer is how many had a value.
    pub fn clear(&mut self, now: Instant, prefix: &[u8]) -> usize {
        for fence in &mut self.fences {
            *fence = fence.wrapping_add(1);
        }
        // No budget, so this only tells the time: what has expired by now is not counted.
        self.mirrors.sweep(now, 0);
        self.locals.sweep(now, 0);
        let mut cleared = 0;
        let (mirrors, locals) = (&mut self.mirrors, &mut self.locals);
        mirrors.remove_if(|key, entry| {
            let doomed = key.starts_with(prefix);
            // A key with a local is counted by that.
            cleared += usize::from(doomed && entry.value.is_some() && !locals.contains(now, &key[..]));
            doomed
        });
        locals.remove_if(|key, entry| {
            let doomed = key.starts_with(prefix);
            cleared += usize::from(doomed && entry.value.is_some());
            doomed
        });
        cleared
    }

    /// Redis is back: what was written here meanwhile is given up, Redis's copies count again.
    pub fn recovered(&mut self) {
        self.locals.clear();
    }

    /// Mirrors and locals, and the bytes of both.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        (self.mirrors.len() + self.locals.len(), self.mirrors.bytes().saturating_add(self.locals.bytes()))
    }

    fn is_fresh(&self, now: Instant, key: &[u8]) -> bool {
        let fresh = |entry: &Entry| now.saturating_since(entry.since) < self.config.mirror_refresh;
        self.mirrors.peek(now, key).is_some_and(fresh)
    }

    fn mirror(&mut self, now: Instant, key: &[u8], value: &[u8], deadline: Instant) {
        let weight = weight(key, Some(value));
        let deadline = deadline.min(now.saturating_add(self.config.max_staleness));
        // Copied: a slice of a read buffer would keep the whole buffer alive.
        let entry = Entry { value: Some(Bytes::copy_from_slice(value)), since: now };
        // Too large for the tier is no error of anybody's: there is no copy then, and no older one either.
        drop(self.mirrors.insert(now, Bytes::copy_from_slice(key), entry, weight, deadline));
    }

    fn move_fence(&mut self, hash: u64) -> Fence {
        if let Some(fence) = self.fences.get_mut(bucket(hash)) {
            *fence = fence.wrapping_add(1);
        }
        self.fence(hash)
    }
}

fn weight(key: &[u8], value: Option<&[u8]>) -> u64 {
    (key.len() + value.map_or(0, <[u8]>::len)) as u64
}

fn hasher(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed())
}

const fn bucket(hash: u64) -> usize {
    hash as usize & (FENCES - 1)
}
