//! The journal of one shard of the fallback tier: what was accepted while Redis could not be asked, until Redis has it.
//!
//! ```text
//!                    record()                 take()                   settle(), written meanwhile
//!   (not there) ----------------> queued ----------------> replaying ------------------------------> queued
//!        ^                          ^  |                     |   |
//!        |                          +--+ record(): replaced  |   | put_back(): Redis failed again
//!        |                                                   |   +-----------------------------> queued
//!        +---------------------------------------------------+
//!                     settle(): Redis has it
//! ```
//!
//! A key has one entry: the latest write of it. As long as it is there it answers for the key, and every new write goes into
//! it. So nobody but the [`Replay`](super::Replay) writes the key to Redis, and nothing can overtake anything.
//!
//! A clear is remembered by its prefix. Until Redis was swept the journal answers for every key that begins with it, and
//! takes what is written to them; none of that is replayed before.

mod state;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use foldhash::quality::SeedableRandomState;

use crate::store::{Policy, Store, StoreConfig};
use crate::time::Instant;
pub(super) use state::ItemParts;

/// What was accepted for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A value, until its deadline; from then on it is a delete.
    Set(Bytes, Instant),
    Delete,
}

impl Change {
    pub(crate) fn value(&self, now: Instant) -> Option<&Bytes> {
        match self {
            Self::Set(value, deadline) => (now < *deadline).then_some(value),
            Self::Delete => None,
        }
    }
}

/// What Redis was last known to hold under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Never,
    Absent,
    Value(Bytes),
}

impl Seen {
    fn weight(&self) -> usize {
        match self {
            Self::Value(value) => value.len(),
            Self::Never | Self::Absent => 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    change: Change,
    seen: Seen,
    since: Instant,
    /// Tells this change of the key from others.
    serial: u64,
    /// Whether Redis is being asked to take an entry of this key, this one or the one before.
    replaying: bool,
}

/// An entry on its way to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Bytes,
    pub(crate) change: Change,
    pub(crate) seen: Seen,
    serial: u64,
}

/// Every look at a key passes them all.
const MAX_CLEARS: usize = 64;

/// What lies under a prefix is to be removed from Redis.
#[derive(Debug)]
struct Clear {
    prefix: Bytes,
    since: Instant,
    /// Redis is being swept, and nobody has cleared again since.
    sweeping: bool,
}

/// By who writes, not by the store: nothing here may be evicted, and nothing expires.
const UNBOUNDED: StoreConfig = StoreConfig {
    max_entries: usize::MAX,
    max_bytes: u64::MAX,
    max_entry_bytes: u64::MAX,
    policy: Policy::Lru,
    time_to_idle: None,
};

#[derive(Debug)]
pub(crate) struct Journal {
    entries: Store<Bytes, Entry>,
    /// The keys that are not being replayed, each once, in the order of their turns.
    queue: VecDeque<Bytes>,
    /// None of them lies under another.
    clears: Vec<Clear>,
    /// Changes recorded so far.
    serial: u64,
    /// Of the store, which has no use for the time here.
    now: Instant,
}

impl Journal {
    pub(crate) fn new(hasher: SeedableRandomState, now: Instant) -> Self {
        Self {
            entries: Store::new(UNBOUNDED, hasher, now),
            queue: VecDeque::new(),
            clears: Vec::new(),
            serial: 0,
            now,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.bytes()
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        !self.entries.is_empty() && self.entries.contains(self.now, key)
    }

    /// What was accepted last for a key, and when. `hash` is what the hasher makes of the key.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<(&Change, Instant)> {
        let entry = self.entries.peek_hashed(self.now, hash, key)?.value;
        Some((&entry.change, entry.since))
    }

    /// What an entry for this would add to [`Journal::len`] and [`Journal::bytes`], and what it would replace.
    pub(crate) fn size_with(&self, key: &[u8], change: &Change, seen: &Seen) -> (usize, u64) {
        match self.entries.peek(self.now, key) {
            Some(old) => {
                let rest = self.bytes() - weight(key, &old.change, &old.seen);
                (self.len(), rest.saturating_add(weight(key, change, &old.seen)))
            }
            None => (self.len() + 1, self.bytes().saturating_add(weight(key, change, seen))),
        }
    }

    /// Accepts a change. What Redis holds is only news where the key has no entry yet.
    pub(crate) fn record(&mut self, now: Instant, key: &[u8], change: Change, seen: Seen) {
        let old = self.entries.remove(self.now, key);
        let (seen, replaying) = match old {
            Some(old) => (old.seen, old.replaying),
            None => {
                self.queue.push_back(Bytes::copy_from_slice(key));
                (seen, false)
            }
        };
        self.serial += 1;
        let entry = Entry { change, seen, since: now, serial: self.serial, replaying };
        self.insert(Bytes::copy_from_slice(key), entry);
    }

    /// Redis was heard to hold something for a key, because of a write that began before the entry.
    pub(crate) fn saw(&mut self, key: &[u8], seen: Seen) {
        if let Some(entry) = self.entries.remove(self.now, key) {
            self.insert(Bytes::copy_from_slice(key), Entry { seen, ..entry });
        }
    }

    /// Takes entries for a replay whose keys `fit`, at most so many and so many bytes, but one at least.
    pub(crate) fn take(
        &mut self,
        most: usize,
        most_bytes: u64,
        mut fits: impl FnMut(&[u8]) -> bool,
    ) -> Vec<Item> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else { break };
            let Some(entry) = self.entries.peek_mut(self.now, &key) else { continue };
            bytes += weight(&key, &entry.change, &entry.seen);
            if !items.is_empty() && bytes > most_bytes {
                self.queue.push_front(key);
                break;
            }
            if !fits(&key) {
                self.queue.push_back(key);
                continue;
            }
            entry.replaying = true;
            let (change, seen, serial) = (entry.change.clone(), entry.seen.clone(), entry.serial);
            items.push(Item { key, change, seen, serial });
            if items.len() == most {
                break;
            }
        }
        items
    }

    /// Redis has taken an item, and holds `now_seen` since. The answer is whether the entry is gone: nothing was written
    /// meanwhile.
    pub(crate) fn settle(&mut self, item: &Item, now_seen: Seen) -> bool {
        let Some(entry) = self.entries.remove(self.now, &item.key) else { return false };
        if entry.serial == item.serial || mistake!(NewerDropped) {
            return true;
        }
        self.queue.push_back(item.key.clone());
        self.insert(item.key.clone(), Entry { seen: now_seen, replaying: false, ..entry });
        false
    }

    /// An item was not taken, as far as is known: its turn comes again.
    pub(crate) fn put_back(&mut self, item: &Item) {
        if let Some(entry) = self.entries.peek_mut(self.now, &item.key) {
            if core::mem::replace(&mut entry.replaying, false) {
                self.queue.push_back(item.key.clone());
            }
        }
    }

    /// Gives up the entry of a key.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        if self.entries.remove(self.now, key).is_some() {
            self.queue.retain(|queued| queued != key);
        }
    }

    /// Gives up everything.
    pub(crate) fn discard(&mut self) {
        self.entries.clear();
        self.queue.clear();
        self.clears.clear();
    }

    /// Whether an entry waits for its turn.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Turns every set whose key begins with `prefix` into a delete, and says how many had a value.
    pub(crate) fn clear(&mut self, now: Instant, prefix: &[u8]) -> usize {
        let keys: Vec<Bytes> = self
            .entries
            .iter()
            .filter(|entry| entry.key.starts_with(prefix) && entry.value.change.value(now).is_some())
            .map(|entry| entry.key.clone())
            .collect();
        for key in &keys {
            self.record(now, key, Change::Delete, Seen::Never);
        }
        keys.len()
    }

    /// Redis is to be swept of what begins with `prefix`. Entries of such keys are not touched, and replayed afterwards.
    /// `false` where that is one clear too many.
    pub(crate) fn clear_later(&mut self, now: Instant, prefix: &[u8]) -> bool {
        if let Some(wider) = self.clears.iter_mut().find(|clear| prefix.starts_with(&clear.prefix)) {
            wider.sweeping = false; // What it has passed by may have been set since.
            return true;
        }
        self.clears.retain(|clear| !clear.prefix.starts_with(prefix));
        let has_room = self.clears.len() < MAX_CLEARS;
        if has_room {
            self.clears.push(Clear { prefix: Bytes::copy_from_slice(prefix), since: now, sweeping: false });
        }
        has_room
    }

    /// Since when a key is to be cleared from Redis.
    pub(crate) fn cleared_at(&self, key: &[u8]) -> Option<Instant> {
        self.clears.iter().find(|clear| key.starts_with(&clear.prefix)).map(|clear| clear.since)
    }

    /// Clears that Redis has not seen.
    pub(crate) fn clears(&self) -> usize {
        self.clears.len()
    }

    /// A prefix that Redis is to be swept of.
    pub(crate) fn next_clear(&self) -> Option<&Bytes> {
        self.clears.first().map(|clear| &clear.prefix)
    }

    /// Redis is being swept of what begins with `prefix`.
    pub(crate) fn begin_sweep(&mut self, prefix: &[u8]) {
        self.clears.iter_mut().filter(|clear| clear.prefix == prefix).for_each(|clear| clear.sweeping = true);
    }

    /// The sweep of a prefix has ended. Where it was carried out, Redis holds nothing under it as far as is known.
    pub(crate) fn end_sweep(&mut self, prefix: &[u8], carried_out: bool) {
        let before = self.clears.len();
        self.clears.retain(|clear| clear.prefix != prefix || !clear.sweeping);
        if self.clears.len() == before || !carried_out {
            return;
        }
        let covered = self.entries.iter().filter(|entry| entry.key.starts_with(prefix));
        let keys: Vec<Bytes> = covered.map(|entry| entry.key.clone()).collect();
        keys.iter().for_each(|key| self.saw(key, Seen::Absent));
    }

    fn insert(&mut self, key: Bytes, entry: Entry) {
        let weight = weight(&key, &entry.change, &entry.seen);
        let stored = self.entries.insert(self.now, key, entry, weight, Instant::NEVER);
        debug_assert!(stored.is_ok(), "the store has no bound");
    }
}

fn weight(key: &[u8], change: &Change, seen: &Seen) -> u64 {
    let value = match change {
        Change::Set(value, _) => value.len(),
        Change::Delete => 0,
    };
    (key.len() + value + seen.weight()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NOW: Instant = Instant::EPOCH;

    #[derive(Clone, Debug)]
    enum Step {
        Record(u8, Option<u8>, Seen),
        Saw(u8, Seen),
        Take(usize, u64),
        Settle(usize, Seen),
        PutBack(usize),
        Clear(u8),
        Forget(u8),
        ClearLater(Vec<u8>),
        BeginSweep,
        EndSweep(bool),
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Never),
            Just(Seen::Absent),
            (0..3_usize).prop_map(|len| Seen::Value(std::vec![7; len].into()))
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..6_u8;
        prop_oneof![
            4 => (key.clone(), proptest::option::of(any::<u8>()), seen())
                .prop_map(|(key, value, seen)| Step::Record(key, value, seen)),
            1 => (key.clone(), seen()).prop_map(|(key, seen)| Step::Saw(key, seen)),
            3 => (1..4_usize, 0..8_u64).prop_map(|(most, bytes)| Step::Take(most, bytes)),
            3 => (any::<usize>(), seen()).prop_map(|(at, seen)| Step::Settle(at, seen)),
            2 => any::<usize>().prop_map(Step::PutBack),
            1 => key.clone().prop_map(Step::Clear),
            1 => key.clone().prop_map(Step::Forget),
            1 => proptest::collection::vec(key, 0..2).prop_map(Step::ClearLater),
            1 => Just(Step::BeginSweep),
            1 => any::<bool>().prop_map(Step::EndSweep),
        ]
    }

    /// What a journal is to the outside: for each key what was accepted last, what Redis holds, which change that was, and
    /// whether it is on its way.
    type Model = BTreeMap<u8, (Change, Seen, u64, bool)>;

    fn change(value: Option<u8>) -> Change {
        value.map_or(Change::Delete, |value| Change::Set(std::vec![value].into(), Instant::NEVER))
    }

    proptest! {
        /// Items come back only once, as in the replay: one chunk is under way at a time.
        #[test]
        fn a_journal_is_a_map_whose_entries_take_turns(steps in proptest::collection::vec(step(), 1..80)) {
            let mut journal = Journal::new(super::super::tier::hasher(1), NOW);
            let (mut model, mut out, mut serial) = (Model::new(), Vec::<Item>::new(), 0);
            let (mut cleared, mut sweep) = (std::vec![0_u64; 6], None::<(Bytes, u64)>);
            let mut clears = 0;
            for step in steps {
                match step {
                    Step::Record(key, value, seen) => {
                        serial += 1;
                        journal.record(NOW, &[key], change(value), seen.clone());
                        let entry = model.entry(key).or_insert((Change::Delete, seen, 0, false));
                        (entry.0, entry.2) = (change(value), serial);
                    }
                    Step::Saw(key, seen) => {
                        journal.saw(&[key], seen.clone());
                        model.entry(key).and_modify(|entry| entry.1 = seen);
                    }
                    Step::Take(most, bytes) if out.is_empty() => {
                        out = journal.take(most, bytes, |_| true);
                        let waiting = model.values().filter(|entry| !entry.3).count();
                        prop_assert!(out.len() <= most && out.is_empty() == (waiting == 0));
                        for item in &out {
                            let entry = model.get_mut(&item.key[0]).expect("it was accepted");
                            prop_assert_eq!((&item.change, &item.seen, item.serial), (&entry.0, &entry.1, entry.2));
                            prop_assert!(!std::mem::replace(&mut entry.3, true), "on its way already");
                        }
                    }
                    Step::Settle(at, seen) if !out.is_empty() => {
                        let item = out.swap_remove(at % out.len());
                        let key = item.key[0];
                        let same = model.get(&key).is_some_and(|entry| entry.2 == item.serial);
                        prop_assert_eq!(journal.settle(&item, seen.clone()), same);
                        if same {
                            model.remove(&key);
                        } else if let Some(entry) = model.get_mut(&key) {
                            (entry.1, entry.3) = (seen, false);
                        }
                    }
                    Step::PutBack(at) if !out.is_empty() => {
                        let item = out.swap_remove(at % out.len());
                        journal.put_back(&item);
                        model.entry(item.key[0]).and_modify(|entry| entry.3 = false);
                    }
                    Step::Clear(key) => {
                        let set = matches!(model.get(&key), Some((Change::Set(..), ..)));
                        prop_assert_eq!(journal.clear(NOW, &[key]), usize::from(set));
                        if let Some(entry) = model.get_mut(&key).filter(|_| set) {
                            serial += 1;
                            (entry.0, entry.2) = (Change::Delete, serial);
                        }
                    }
                    // As the replay does it: not while the key is on its way.
                    Step::Forget(key) if !out.iter().any(|item| item.key[0] == key) => {
                        journal.forget(&[key]);
                        model.remove(&key);
                    }
                    Step::ClearLater(prefix) => {
                        clears += 1;
                        prop_assert!(journal.clear_later(NOW, &prefix));
                        for key in 0..6 {
                            if [key].starts_with(&prefix) {
                                cleared[usize::from(key)] = clears;
                            }
                        }
                    }
                    Step::BeginSweep if sweep.is_none() => {
                        sweep = journal.next_clear().map(|prefix| (prefix.clone(), clears));
                        sweep.iter().for_each(|(prefix, _)| journal.begin_sweep(prefix));
                    }
                    Step::EndSweep(carried_out) => {
                        let Some((prefix, begun)) = sweep.take() else { continue };
                        journal.end_sweep(&prefix, carried_out);
                        let covered = (0..6_u8).filter(|key| [*key].starts_with(&prefix));
                        let covered: Vec<u8> = covered.collect();
                        // All or nothing: a key that was cleared again needs a sweep of its own, and with it the prefix.
                        if covered.iter().all(|key| cleared[usize::from(*key)] <= begun) {
                            for key in covered {
                                cleared[usize::from(key)] = 0;
                                model.entry(key).and_modify(|entry| entry.1 = if carried_out { Seen::Absent } else { entry.1.clone() });
                            }
                        }
                    }
                    Step::BeginSweep | Step::Take(..) | Step::Settle(..) | Step::PutBack(_) | Step::Forget(_) => {}
                }
                let bytes: u64 = model.iter().map(|(key, entry)| weight(&[*key], &entry.0, &entry.1)).sum();
                prop_assert_eq!((journal.len(), journal.bytes()), (model.len(), bytes));
                prop_assert_eq!(journal.has_queued(), model.values().any(|entry| !entry.3));
                for key in 0..6 {
                    prop_assert_eq!(journal.cleared_at(&[key]).is_some(), cleared[usize::from(key)] > 0);
                    let expected = model.get(&key).map(|entry| &entry.0);
                    let hash = journal.entries.hash_of(&[key][..]);
                    prop_assert_eq!(journal.get(hash, &[key]).map(|(change, _)| change), expected);
                }
            }
        }
    }
}
