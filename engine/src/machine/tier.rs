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
//!            reply to a read or write, fence unmoved           the outcome of an own write is unknown
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

impl Fence {
    /// Whether this was sampled after `other`. The counter wraps, so it is the distance that tells.
    const fn is_after(self, other: Self) -> bool {
        let distance = self.0.wrapping_sub(other.0);
        distance != 0 && distance <= u32::MAX / 2
    }
}

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
    /// Where the key's fence stood when this was written.
    fence: Fence,
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

    /// A write is about to be submitted. The copy stays: until the write is acknowledged, or its outcome is unknown, what
    /// Redis confirmed last is still the best answer.
    pub fn begin_write(&mut self, hash: u64) -> Fence {
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
            Some(value) if !self.is_fresh(now, key) => self.mirror(now, key, value, Instant::NEVER, fence),
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
        // A local that is newer than this write stays: the acknowledgement was late.
        if self.locals.peek(now, key).is_some_and(|local| fence.is_after(local.fence)) {
            self.locals.remove(now, key);
        }
        let alone = fence == self.fence(hash);
        self.move_fence(hash);
        match value {
            Some((value, deadline)) if alone => self.mirror(now, key, value, deadline, fence),
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
        let fence = self.move_fence(hash);
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
        let entry = Entry { value, since: now, fence };
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

    fn mirror(&mut self, now: Instant, key: &[u8], value: &[u8], deadline: Instant, fence: Fence) {
        let weight = weight(key, Some(value));
        let deadline = deadline.min(now.saturating_add(self.config.max_staleness));
        // Copied: a slice of a read buffer would keep the whole buffer alive.
        let entry = Entry { value: Some(Bytes::copy_from_slice(value)), since: now, fence };
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

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u64 = 7;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn tier(configure: impl FnOnce(&mut TierConfig)) -> Tier {
        let mut config = TierConfig::default();
        configure(&mut config);
        Tier::new(config, 0, Instant::EPOCH)
    }

    impl Tier {
        /// The value held for a key: `Some(None)` where it is known to have none.
        fn value(&mut self, now: Instant, key: &str) -> Option<Option<Bytes>> {
            self.get(now, key.as_bytes()).map(|found| found.value)
        }

        fn read(&mut self, now: Instant, key: &str, value: Option<&str>) {
            let fence = self.fence(HASH);
            self.read_confirmed(now, HASH, key.as_bytes(), fence, value.map(str::as_bytes));
        }

        fn set(&mut self, now: Instant, key: &str, value: &str) -> Result<bool, TierFull> {
            let value = Bytes::copy_from_slice(value.as_bytes());
            self.write(now, HASH, key.as_bytes(), Some(value), Instant::NEVER)
        }

        fn delete(&mut self, now: Instant, key: &str) -> Result<bool, TierFull> {
            self.write(now, HASH, key.as_bytes(), None, Instant::NEVER)
        }
    }

    const fn known(value: &'static str) -> Option<Option<Bytes>> {
        Some(Some(Bytes::from_static(value.as_bytes())))
    }

    #[test]
    fn reads_and_writes_that_redis_confirmed_are_mirrored() {
        let mut tier = tier(|_| {});
        tier.read(at(1), "read", Some("r"));
        let fence = tier.begin_write(HASH);
        tier.write_confirmed(at(2), HASH, b"written", fence, Some((b"w", at(100))));
        assert_eq!(
            tier.get(at(5), b"read"),
            Some(Found { value: Some("r".into()), age: Duration::from_millis(4) })
        );
        assert_eq!(tier.value(at(99), "written"), known("w"));
        assert_eq!(tier.value(at(100), "written"), None, "its time to live is over");
        tier.read(at(100), "read", None);
        assert_eq!(tier.value(at(100), "read"), None, "Redis has it no more");
        assert_eq!(tier.size(), (0, 0));
    }

    /// What may happen between a read's submission and the look at its answer, and whether the copy is kept then.
    #[test]
    fn a_copy_is_dropped_when_a_write_of_the_key_came_between() {
        type Between = fn(&mut Tier);
        let cases: [(&str, bool, Between); 6] = [
            ("nothing", true, |_| {}),
            ("another read", true, |tier| tier.read(at(1), "k", Some("old"))),
            ("a write that began", false, |tier| _ = tier.begin_write(HASH)),
            ("a write whose outcome is unknown", false, |tier| tier.write_lost(at(1), HASH, b"k")),
            ("a local write", false, |tier| _ = tier.set(at(1), "other key of the fence", "v")),
            ("a clear", false, |tier| _ = tier.clear(at(1), b"elsewhere")),
        ];
        for (name, kept, between) in cases {
            let mut tier = tier(|_| {});
            let fence = tier.fence(HASH);
            between(&mut tier);
            tier.read_confirmed(at(2), HASH, b"k", fence, Some(b"old"));
            assert_eq!(tier.value(at(2), "k"), if kept { known("old") } else { None }, "{name}");
        }
    }

    /// Two writes under way at once: which one Redis took last nobody here knows, so neither is mirrored, and no read
    /// that began before the end of either is.
    #[test]
    fn overlapping_writes_leave_no_mirror() {
        let mut tier = tier(|_| {});
        let first = tier.begin_write(HASH);
        let second = tier.begin_write(HASH);
        let read = tier.fence(HASH);
        tier.write_confirmed(at(2), HASH, b"k", second, Some((b"second", Instant::NEVER)));
        tier.write_confirmed(at(3), HASH, b"k", first, Some((b"first", Instant::NEVER)));
        assert_eq!(tier.value(at(3), "k"), None);
        tier.read_confirmed(at(4), HASH, b"k", read, Some(b"old"));
        assert_eq!(tier.value(at(4), "k"), None);
    }

    #[test]
    fn mirrors_are_refreshed_no_more_often_than_configured() {
        let mut tier = tier(|config| config.mirror_refresh = Duration::from_millis(10));
        tier.read(at(1), "k", Some("1"));
        tier.read(at(10), "k", Some("2"));
        assert_eq!(tier.value(at(10), "k"), known("1"), "young enough");
        tier.read(at(11), "k", Some("3"));
        assert_eq!(tier.value(at(11), "k"), known("3"));
        let fence = tier.begin_write(HASH);
        tier.write_confirmed(at(12), HASH, b"k", fence, Some((b"4", Instant::NEVER)));
        assert_eq!(tier.value(at(12), "k"), known("4"), "own writes always");
    }

    #[test]
    fn no_mirror_is_older_than_max_staleness() {
        let mut tier = tier(|config| config.max_staleness = Duration::from_millis(50));
        tier.read(at(1), "read", Some("v"));
        let fence = tier.begin_write(HASH);
        tier.write_confirmed(at(1), HASH, b"written", fence, Some((b"v", at(1_000))));
        tier.set(at(1), "local", "v").expect("there is room");
        assert_eq!((tier.value(at(50), "read"), tier.value(at(50), "written")), (known("v"), known("v")));
        assert_eq!((tier.value(at(51), "read"), tier.value(at(51), "written")), (None, None));
        assert_eq!(tier.value(at(10_000), "local"), known("v"), "own writes do not grow stale");
    }

    #[test]
    fn mirrors_are_bounded_by_entries_and_bytes() {
        let mut tier = tier(|config| (config.max_entries, config.max_bytes) = (3, 20));
        for key in ["a", "b", "c", "d"] {
            tier.read(at(1), key, Some("1"));
        }
        assert_eq!((tier.value(at(1), "a"), tier.size()), (None, (3, 6)));
        tier.read(at(1), "e", Some("a value of 19 bytes"));
        assert_eq!((tier.value(at(1), "d"), tier.size()), (None, (1, 20)));
        tier.read(at(2_000), "e", Some("a value of 20 bytes."));
        assert_eq!(tier.size(), (0, 0), "too large to hold, and the older copy is not current");
    }

    #[test]
    fn locals_are_refused_over_a_bound_and_never_evicted() {
        let mut tier = tier(|config| (config.max_local_entries, config.max_local_bytes) = (2, 10));
        tier.read(at(1), "c", Some("mirror"));
        assert_eq!(tier.set(at(1), "a", "1"), Ok(false));
        assert_eq!(tier.set(at(1), "b", "1"), Ok(false));
        assert_eq!(tier.set(at(1), "c", "1"), Err(TierFull));
        assert_eq!(tier.delete(at(1), "c"), Err(TierFull), "a tombstone takes room too");
        assert_eq!(tier.value(at(1), "c"), None, "the mirror is older than what was refused");
        assert_eq!(tier.set(at(1), "b", "1234567"), Ok(true), "10 bytes in all");
        assert_eq!(tier.set(at(1), "b", "12345678"), Err(TierFull));
        assert_eq!(tier.value(at(1), "b"), known("1234567"), "what was accepted counts");
        assert_eq!(tier.delete(at(1), "b"), Ok(true));
        assert_eq!((tier.value(at(1), "a"), tier.size()), (known("1"), (2, 3)));
    }

    #[test]
    fn expired_locals_make_room() {
        let mut tier = tier(|config| config.max_local_entries = 100);
        for n in 0..100_u8 {
            tier.write(at(1), HASH, &[n], Some(Bytes::new()), at(50)).expect("there is room");
        }
        assert_eq!(tier.set(at(40), "k", "v"), Err(TierFull));
        assert_eq!(tier.set(at(60), "k", "v"), Ok(false));
        assert_eq!(tier.size().0, 1);
    }

    #[test]
    fn a_key_deleted_here_stays_deleted_until_recovery() {
        let mut tier = tier(|config| config.max_staleness = Duration::from_millis(100));
        tier.read(at(1), "k", Some("v"));
        assert_eq!(tier.delete(at(2), "k"), Ok(true));
        assert_eq!(tier.delete(at(2), "k"), Ok(false), "it was gone already");
        for now in [at(2), at(1_000_000)] {
            assert_eq!(tier.value(now, "k"), Some(None));
        }
        assert_eq!(tier.set(at(1_000_000), "k", "w"), Ok(false));
        assert_eq!(tier.value(at(1_000_000), "k"), known("w"));
        tier.recovered();
        assert_eq!(tier.value(at(1_000_000), "k"), None);
    }

    #[test]
    fn what_redis_says_again_replaces_a_local() {
        let mut tier = tier(|_| {});
        for key in ["read", "absent", "written", "deleted"] {
            tier.set(at(1), key, "local").expect("there is room");
        }
        tier.read(at(2), "read", Some("redis"));
        tier.read(at(2), "absent", None);
        let fence = tier.begin_write(HASH);
        assert_eq!(tier.value(at(2), "written"), known("local"), "until it is confirmed");
        tier.write_confirmed(at(3), HASH, b"written", fence, Some((b"redis", Instant::NEVER)));
        let fence = tier.begin_write(HASH);
        tier.write_confirmed(at(3), HASH, b"deleted", fence, None);
        assert_eq!((tier.value(at(3), "read"), tier.value(at(3), "absent")), (known("redis"), None));
        assert_eq!((tier.value(at(3), "written"), tier.value(at(3), "deleted")), (known("redis"), None));
    }

    #[test]
    fn a_late_acknowledgement_keeps_the_newer_local() {
        let mut tier = tier(|_| {});
        let first = tier.begin_write(HASH);
        tier.set(at(1), "k", "second").expect("there is room");
        tier.write_confirmed(at(2), HASH, b"k", first, Some((b"first", Instant::NEVER)));
        assert_eq!(tier.value(at(2), "k"), known("second"));
        let third = tier.begin_write(HASH);
        tier.write_confirmed(at(3), HASH, b"k", third, Some((b"third", Instant::NEVER)));
        assert_eq!(tier.value(at(3), "k"), known("third"));
    }

    #[test]
    fn recovery_gives_up_locals_and_keeps_mirrors() {
        let mut tier = tier(|_| {});
        tier.read(at(1), "mirror", Some("m"));
        tier.set(at(1), "local", "l").expect("there is room");
        tier.recovered();
        assert_eq!((tier.value(at(1), "mirror"), tier.value(at(1), "local")), (known("m"), None));
    }

    #[test]
    fn a_clear_counts_each_live_value_of_its_prefix_once() {
        let mut tier = tier(|config| config.max_staleness = Duration::from_millis(100));
        tier.read(at(1), "n:expired", Some("v"));
        for key in ["n:mirror", "m:mirror", "n:both"] {
            tier.read(at(50), key, Some("v"));
        }
        for key in ["n:both", "n:local", "nn:local"] {
            tier.set(at(50), key, "v").expect("there is room");
        }
        tier.delete(at(50), "n:deleted").expect("there is room");
        assert_eq!(tier.clear(at(101), b"n:"), 3, "mirror, both and local");
        assert_eq!(tier.value(at(101), "m:mirror"), known("v"));
        assert_eq!(tier.value(at(101), "nn:local"), known("v"));
        assert_eq!(tier.value(at(101), "n:deleted"), None);
        assert_eq!(tier.clear(at(101), b""), 2);
    }

    #[test]
    fn shards_together_hold_what_was_configured() {
        let config = TierConfig::default();
        assert_eq!(config.divided(1), config);
        assert_eq!(config.divided(0), config);
        let divided = config.divided(16);
        assert_eq!((divided.max_entries, divided.max_local_entries), (625, 625));
        assert_eq!((divided.max_bytes, divided.max_local_bytes), (4 << 20, 1 << 20));
        assert_eq!(divided.max_staleness, config.max_staleness);
    }
}
