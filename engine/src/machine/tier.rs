//! The fallback tier: what this process can still answer when Redis cannot.
//!
//! Two kinds of entries, kept apart because they live by different rules:
//!
//! - **Mirrors** are copies of what Redis confirmed, made by the way, so that an outage does not begin with an empty
//!   cache: a value, or that there is none. They are bounded by LRU and never older than `max_staleness`.
//! - The **journal** holds the writes and deletes accepted while Redis could not be asked, until Redis has taken them. They are
//!   newer than any mirror, never evicted, and bounded by refusing more.
//!
//! ```text
//!            reply to a read or write, fence unmoved           the outcome of an own write is unknown
//!  (nothing) --------------------------------------> mirror ------------------------------------------> (nothing)
//!      |                                               |  ^
//!      +--------------------- accepted while degraded -+  | replayed, and not written meanwhile
//!                                                      v  |
//!                                                    journal
//! ```
//!
//! # The fence
//!
//! A read that was answered before a write, and is looked at after it, must not put the old value back. Each key
//! belongs to one of a few hundred counters; every own write moves the counter when it begins and when it ends. A read
//! samples it when it is submitted, and its copy is dropped if the counter has moved since. Keys that share a counter
//! only cost each other a copy.
//!
//! # Reconciliation
//!
//! While Redis was away, others may have written what we have written too. [`Reconcile`] says who wins. The default asks
//! Redis to take a value only if it still holds what was last seen there, and to forget the key otherwise: so the next
//! reader asks the source of truth, and no value is put over a newer one of somebody else. What cannot be seen: that
//! somebody set the key and set it back.

mod state;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use foldhash::quality::SeedableRandomState;

use super::journal::{Change, Item, Journal, Seen};
use super::record::{Machine, Recorder, TierInput};
use crate::store::{Store, StoreConfig};
use crate::time::Instant;

/// What becomes of the writes accepted during an outage when Redis is back. Deletes are always carried out, and a key whose
/// last write may or may not have reached Redis is always deleted there unless a newer write was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconcile {
    /// A value is set if Redis still holds what this process last saw there, be it nothing; otherwise, and where this process
    /// never saw the key, it is deleted. Where the server refuses scripts, as [`Reconcile::Invalidate`].
    #[default]
    Conditional,
    /// What was written is deleted: the next reader fetches it anew.
    Invalidate,
    /// What was written is set, whatever Redis holds: for a single writer. Where the server refuses scripts, as
    /// [`Reconcile::Invalidate`].
    Overwrite,
    /// What was written is forgotten, deletes included; Redis's copies count again.
    Discard,
}

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
    /// Entries of the journal; default 10 000.
    pub max_journal_entries: usize,
    /// The bytes of their keys and values, and of the values that Redis held before; default 16 MiB.
    pub max_journal_bytes: u64,
    /// What becomes of the journal when Redis is back; default [`Reconcile::Conditional`].
    pub reconcile: Reconcile,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_staleness: Duration::from_secs(5 * 60),
            mirror_refresh: Duration::from_secs(1),
            max_journal_entries: 10_000,
            max_journal_bytes: 16 << 20,
            reconcile: Reconcile::Conditional,
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
            max_journal_entries: self.max_journal_entries.div_ceil(shards as usize),
            max_journal_bytes: self.max_journal_bytes.div_ceil(shards as u64),
            ..self
        }
    }

    fn of_mirrors(&self) -> StoreConfig {
        let Self { max_entries, max_bytes, .. } = *self;
        StoreConfig { max_entries, max_bytes, ..StoreConfig::default() }
    }
}

/// A key's fence as it was when an operation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(u32);

impl Fence {
    /// For a recording: what makes it up.
    pub(crate) const fn into_parts(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_parts(fence: u32) -> Self {
        Self(fence)
    }
}

/// What the tier knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value; `None` where there is known to be none.
    pub value: Option<Bytes>,
    /// How long ago Redis confirmed it, or it was written here.
    pub age: Duration,
}

/// The tier has no room for another local write. The write was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fallback tier is full")]
pub struct TierFull;

#[derive(Clone, Debug)]
struct Mirror {
    value: Option<Bytes>,
    since: Instant,
}

/// One shard of the fallback tier: a plain structure that a driver keeps under a mutex.
#[derive(Debug)]
pub struct Tier {
    config: TierConfig,
    mirrors: Store<Bytes, Mirror>,
    journal: Journal,
    fences: Vec<u32>,
    /// Writes down what it is told, if anybody does.
    pub(super) recorder: Option<Box<Recorder>>,
}

/// A power of two: enough that keys in flight at the same time seldom share one.
const FENCES: usize = 256;

impl Tier {
    /// An empty tier. `seed` seeds the hasher against crafted keys.
    #[must_use]
    pub fn new(config: TierConfig, seed: u64, now: Instant) -> Self {
        Self {
            config,
            mirrors: Store::new(config.of_mirrors(), hasher(seed), now),
            journal: Journal::new(hasher(seed), now), // Equal hashers: a key is hashed once for both.
            fences: vec![0; FENCES],
            recorder: None,
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
        let fence = self.move_fence(hash);
        self.note(
            |redaction| TierInput::BeginWrite { place: redaction.place(hash) },
            |_, digest| digest.number(fence.0.into()),
        );
        fence
    }

    /// Whether the journal answers for a key, and takes what is written to it, although Redis could.
    #[must_use]
    pub fn is_journalled(&self, key: &[u8]) -> bool {
        (self.journal.contains(key) || self.journal.cleared_at(key).is_some()) && !self.discards()
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
        if fence == self.fence(hash) || mistake!(FenceUnread) {
            if self.discards() {
                self.journal.forget(key);
            }
            if !self.is_fresh(now, key, value.is_some()) {
                self.mirror(now, key, value, Instant::NEVER);
            }
        }
        self.note(|redaction| TierInput::read_confirmed(redaction, now, hash, key, fence, value), |_, _| {});
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
        let alone = fence == self.fence(hash);
        self.move_fence(hash);
        if alone && self.discards() {
            self.journal.forget(key);
        }
        match value {
            _ if self.journal.contains(key) => {
                // The acknowledgement was late, and what was accepted since is newer.
                let seen =
                    value.map_or(Seen::Absent, |(value, _)| Seen::Value(Bytes::copy_from_slice(value)));
                self.journal.saw(key, seen);
            }
            Some((value, deadline)) if alone => self.mirror(now, key, Some(value), deadline),
            None if alone => self.mirror(now, key, None, Instant::NEVER),
            _ => drop(self.mirrors.remove(now, key)),
        }
        self.note(|redaction| TierInput::write_confirmed(redaction, now, hash, key, fence, value), |_, _| {});
    }

    /// Nobody knows what became of a write: no copy can be trusted.
    pub fn write_lost(&mut self, now: Instant, hash: u64, key: &[u8]) {
        self.distrust(now, hash, key);
        self.note(|redaction| TierInput::write_lost(redaction, now, hash, key), |_, _| {});
    }

    fn distrust(&mut self, now: Instant, hash: u64, key: &[u8]) {
        self.move_fence(hash);
        if !mistake!(CopyOfLost) {
            self.mirrors.remove(now, key);
        }
    }

    /// A write of a key may still be executed at any time, after newer ones too: until that has passed, and the key was
    /// deleted, the journal answers for it. Not bounded: there are no more of these than there can be in flight.
    pub fn write_at_large(&mut self, now: Instant, hash: u64, key: &[u8]) {
        self.distrust(now, hash, key);
        if !self.journal.contains(key) && !self.discards() {
            self.journal.record(now, key, Change::Delete, Seen::Never);
        }
        self.note(|redaction| TierInput::write_at_large(redaction, now, hash, key), |_, _| {});
    }

    /// What can be said about a key without Redis; `None` is nothing.
    pub fn get(&mut self, now: Instant, key: &[u8]) -> Option<Found> {
        let found = self.look_up(now, key);
        self.note(|redaction| TierInput::get(redaction, now, key), |_, digest| digest.found(found.as_ref()));
        found
    }

    fn look_up(&mut self, now: Instant, key: &[u8]) -> Option<Found> {
        // The journal's hasher is the same.
        let hash = self.mirrors.hash_of(key);
        if let Some((change, since)) = self.journal.get(hash, key) {
            return Some(Found { value: change.value(now).cloned(), age: now.saturating_since(since) });
        }
        if let Some(since) = self.journal.cleared_at(key) {
            return Some(Found { value: None, age: now.saturating_since(since) });
        }
        let mirror = self.mirrors.get_hashed(hash, key, |_| now)?;
        Some(Found { value: mirror.value.clone(), age: now.saturating_since(mirror.since) })
    }

    /// Accepts a value while Redis cannot be asked. The answer is whether the key had one.
    ///
    /// # Errors
    /// [`TierFull`]: the key's mirror is gone then, and an earlier write of it that was accepted still counts.
    pub fn accept_set(
        &mut self,
        now: Instant,
        hash: u64,
        key: &[u8],
        value: Bytes,
        deadline: Instant,
    ) -> Result<bool, TierFull> {
        let told = self.recorder.is_some().then(|| value.clone());
        let deadline = if mistake!(TtlForgotten) { Instant::NEVER } else { deadline };
        let (existed, taken) = self.accept(now, hash, key, Change::Set(value, deadline));
        let answer = taken.map(|()| existed);
        let value = told.unwrap_or_default();
        self.note(
            |redaction| TierInput::accept_set(redaction, now, hash, key, &value, deadline),
            |_, digest| digest.accepted(answer),
        );
        answer
    }

    /// Accepts a delete while Redis cannot be asked. The answer is whether the key had a value. Where there is no room for
    /// it, all of the key's namespace is to go: its first `namespace_len` bytes.
    ///
    /// # Errors
    /// As for [`Tier::accept_set`], where there is no namespace: a shared database is never wiped.
    pub fn accept_delete(
        &mut self,
        now: Instant,
        hash: u64,
        key: &[u8],
        namespace_len: usize,
    ) -> Result<bool, TierFull> {
        let (existed, taken) = self.accept(now, hash, key, Change::Delete);
        let taken = taken.or_else(|full| match key.get(..namespace_len) {
            None | Some([]) => Err(full),
            Some(namespace) => self.note_clear(now, namespace),
        });
        let answer = taken.map(|()| existed);
        self.note(
            |redaction| TierInput::accept_delete(redaction, now, hash, key, namespace_len),
            |_, digest| digest.accepted(answer),
        );
        answer
    }

    /// Takes a change into the journal, if there is room; and whether the key had a value.
    fn accept(
        &mut self,
        now: Instant,
        hash: u64,
        key: &[u8],
        change: Change,
    ) -> (bool, Result<(), TierFull>) {
        self.move_fence(hash);
        let before = match self.journal.get(self.mirrors.hash_of(key), key) {
            Some((change, _)) => Some(change.value(now).is_some()),
            None => self.journal.cleared_at(key).map(|_| false),
        };
        let mirror = self.mirrors.remove(now, key);
        let mirrored = mirror.as_ref().is_some_and(|mirror| mirror.value.is_some());
        let existed = before.unwrap_or(mirrored);
        let seen = match mirror {
            None => Seen::Never,
            Some(Mirror { value: None, .. }) => Seen::Absent,
            Some(Mirror { value: Some(value), .. }) => Seen::Value(value),
        };
        if mistake!(DeleteOfNothing) && change == Change::Delete && !existed {
            return (existed, Ok(()));
        }
        // Writes at large may have filled it over its bounds. What makes it no larger is taken all the same: else a delete
        // of what it holds could not be.
        let max_entries = self.config.max_journal_entries.max(self.journal.len());
        let max_bytes = self.config.max_journal_bytes.max(self.journal.bytes());
        let (entries, bytes) = self.journal.size_with(key, &change, &seen);
        if entries > max_entries || bytes > max_bytes {
            return (existed, Err(TierFull));
        }
        self.journal.record(now, key, change, seen);
        (existed, Ok(()))
    }

    /// Forgets every key that begins with `prefix`; the answer is how many had a value. Values in the journal become
    /// deletes.
    pub fn clear(&mut self, now: Instant, prefix: &[u8]) -> usize {
        for fence in &mut self.fences {
            *fence = fence.wrapping_add(1);
        }
        // No budget, so this only tells the time: what has expired by now is not counted.
        self.mirrors.sweep(now, 0);
        let mut cleared = 0;
        let journal = &self.journal;
        self.mirrors.remove_if(|key, mirror| {
            let doomed = key.starts_with(prefix);
            // A key that is journalled is counted by that.
            cleared += usize::from(doomed && mirror.value.is_some() && !journal.contains(key));
            doomed
        });
        let cleared = cleared + self.journal.clear(now, prefix);
        self.note(
            |redaction| TierInput::Clear { now: now.as_nanos(), prefix: redaction.key(prefix) },
            |_, digest| digest.number(cleared as u64),
        );
        cleared
    }

    /// Redis is to be swept of what begins with `prefix` when it is back; what is written meanwhile survives that. The keys'
    /// mirrors stay: [`Tier::clear`] comes first, where they are to go too.
    ///
    /// # Errors
    /// [`TierFull`]: 64 other prefixes are to be swept already.
    pub fn clear_later(&mut self, now: Instant, prefix: &[u8]) -> Result<(), TierFull> {
        let noted = self.note_clear(now, prefix);
        self.note(
            |redaction| TierInput::ClearLater { now: now.as_nanos(), prefix: redaction.key(prefix) },
            |_, digest| digest.number(noted.is_ok().into()),
        );
        noted
    }

    fn note_clear(&mut self, now: Instant, prefix: &[u8]) -> Result<(), TierFull> {
        match self.discards() || self.journal.clear_later(now, prefix) {
            true => Ok(()),
            false => Err(TierFull),
        }
    }

    /// Redis is back. With [`Reconcile::Discard`] what was written here meanwhile is given up.
    pub fn recovered(&mut self) {
        if self.discards() {
            self.journal.discard();
        }
        self.note(|_| TierInput::Recovered {}, |_, _| {});
    }

    // ---- the replay ----

    /// Whether anything is to be replayed.
    pub(crate) fn has_work(&self) -> bool {
        (self.journal.has_queued() || self.journal.clears() > 0) && !self.discards()
    }

    /// A prefix that Redis is to be swept of before anything is taken.
    pub(crate) fn next_clear(&self) -> Option<&Bytes> {
        self.journal.next_clear()
    }

    /// Redis is being swept of what begins with `prefix`.
    pub(crate) fn begin_sweep(&mut self, prefix: &[u8]) {
        self.journal.begin_sweep(prefix);
        self.note(|redaction| TierInput::BeginSweep { prefix: redaction.key(prefix) }, |_, _| {});
    }

    /// Whether a sweep removes a key. Other shards than those that were cleared keep theirs.
    pub(crate) fn is_cleared(&self, key: &[u8]) -> bool {
        self.journal.cleared_at(key).is_some()
    }

    /// The sweep of a prefix has ended, or the server will not do it.
    pub(crate) fn end_sweep(&mut self, prefix: &[u8], carried_out: bool) {
        self.journal.end_sweep(prefix, carried_out);
        self.note(|redaction| TierInput::EndSweep { prefix: redaction.key(prefix), carried_out }, |_, _| {});
    }

    /// Takes entries of the journal whose keys `fit` to Redis; see [`Journal::take`].
    pub(crate) fn take(
        &mut self,
        most: usize,
        most_bytes: u64,
        mut fits: impl FnMut(&[u8]) -> bool,
    ) -> Vec<Item> {
        let mut told = Vec::new();
        let is_recorded = self.recorder.is_some();
        let items = self.journal.take(most, most_bytes, |key| {
            let fits = fits(key);
            told.extend(is_recorded.then_some(fits));
            fits
        });
        self.note(
            |_| TierInput::Take { most: most as u64, most_bytes, fits: told },
            |_, digest| items.iter().for_each(|item| digest.item(item)),
        );
        items
    }

    /// Redis has taken an item: it holds its value now where `set` says so, and nothing otherwise.
    pub(crate) fn settle(&mut self, now: Instant, item: &Item, set: bool) {
        let (seen, deadline) = match &item.change {
            Change::Set(value, deadline) if set => (Seen::Value(value.clone()), *deadline),
            _ => (Seen::Absent, Instant::NEVER),
        };
        if self.journal.settle(item, seen) {
            match &item.change {
                Change::Set(value, _) if set => self.mirror(now, &item.key, Some(value), deadline),
                _ => self.mirror(now, &item.key, None, deadline),
            }
        }
        self.note(
            |redaction| TierInput::Settle { now: now.as_nanos(), item: redaction.item(item), set },
            |_, _| {},
        );
    }

    /// Redis may not have taken an item: its turn comes again.
    pub(crate) fn put_back(&mut self, item: &Item) {
        self.journal.put_back(item);
        self.note(|redaction| TierInput::PutBack { item: redaction.item(item) }, |_, _| {});
    }

    /// Nothing can ever be sent for a key.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        self.journal.forget(key);
        self.note(|redaction| TierInput::Forget { key: redaction.key(key) }, |_, _| {});
    }

    // ---- views ----

    /// Entries of the journal.
    #[must_use]
    pub fn journalled(&self) -> usize {
        self.journal.len()
    }

    /// Clears that Redis has not seen yet.
    #[must_use]
    pub fn clears(&self) -> usize {
        self.journal.clears()
    }

    /// Mirrors and entries of the journal, and the bytes of both.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        (self.mirrors.len() + self.journal.len(), self.mirrors.bytes().saturating_add(self.journal.bytes()))
    }

    fn discards(&self) -> bool {
        self.config.reconcile == Reconcile::Discard
    }

    /// Whether there is a young mirror of a key that says the same of its being there.
    fn is_fresh(&self, now: Instant, key: &[u8], exists: bool) -> bool {
        self.mirrors.peek(now, key).is_some_and(|mirror| {
            mirror.value.is_some() == exists
                && now.saturating_since(mirror.since) < self.config.mirror_refresh
        })
    }

    fn mirror(&mut self, now: Instant, key: &[u8], value: Option<&[u8]>, deadline: Instant) {
        let weight = (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        let stale = now.saturating_add(self.config.max_staleness);
        let deadline = if mistake!(NoStaleness) { deadline } else { deadline.min(stale) };
        // Copied: a slice of a read buffer would keep the whole buffer alive.
        let mirror = Mirror { value: value.map(Bytes::copy_from_slice), since: now };
        // Too large for the tier is no error of anybody's: there is no copy then, and no older one either.
        drop(self.mirrors.insert(now, Bytes::copy_from_slice(key), mirror, weight, deadline));
    }

    fn move_fence(&mut self, hash: u64) -> Fence {
        if let Some(fence) = self.fences.get_mut(bucket(hash)) {
            *fence = fence.wrapping_add(1);
        }
        self.fence(hash)
    }
}

pub(super) fn hasher(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed())
}

const fn bucket(hash: u64) -> usize {
    hash as usize & (FENCES - 1)
}
