//! The memory store, against a list that is scanned for everything.

use std::time::Duration;

use larder_engine::Instant;
use larder_engine::store::{Policy, RemovalCause, Store, StoreConfig, TooLarge};

use super::Choices;

/// Deadlines on whole ticks of the store's wheel are swept exactly when they are over.
const TICK: Duration = Duration::from_nanos(1 << 20);

/// Whatever is done to a store, under either policy, it answers as a list would, and its structures agree.
///
/// Under LRU that is exact, victims included; under the adaptive policy an answer may also be that there is none, where
/// the store has said that it evicted the value.
pub fn store_ops(data: &[u8]) {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let mut choices = Choices(data);
        let mut both = Both::new(policy, &mut choices);
        while !choices.is_empty() {
            both.step(&mut choices);
            both.compare();
        }
    }
}

struct Both {
    store: Store<u8, u32, foldhash::quality::FixedState>,
    /// Most recently used first.
    list: Vec<Item>,
    now: Instant,
    /// Values are numbers, each set once.
    last: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Item {
    key: u8,
    value: u32,
    bytes: u64,
    /// When it is over if it is not used.
    deadline: Instant,
    /// When it is over however much it is used.
    end: Instant,
}

impl Both {
    fn new(policy: Policy, choices: &mut Choices<'_>) -> Self {
        let bound = |choice: u8| if choice == 0 { u64::MAX } else { u64::from(choice) };
        let config = StoreConfig {
            max_entries: choices.byte().into(),
            max_bytes: bound(choices.byte()),
            max_entry_bytes: bound(choices.byte()),
            policy,
            time_to_idle: time(choices.byte()),
        };
        let now = Instant::EPOCH;
        let mut store =
            Store::new(config, foldhash::quality::FixedState::with_seed(choices.byte().into()), now);
        store.keep_removals();
        Self { store, list: Vec::new(), now, last: 0 }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let (what, key) = (choices.byte(), choices.byte() % 64);
        self.store.sweep(self.now, usize::MAX);
        self.forget_removals();
        let place = self.list.iter().position(|item| item.key == key);
        let found = place.and_then(|place| self.list.get(place)).map(|item| item.value);
        match what % 8 {
            0 => self.pass(time(choices.byte()).unwrap_or_default()),
            1 | 2 => self.insert(key, place, choices),
            3 => {
                assert_eq!(self.store.get_shared(self.now, &key).copied(), found);
                assert_eq!(self.store.peek(self.now, &key).copied(), found);
            }
            4 => {
                let end = self.end(choices);
                assert_eq!(self.store.renew(self.now, &key, end), found.is_some());
                if let Some(item) = place.and_then(|place| self.list.get_mut(place)) {
                    item.end = end;
                }
                self.used(place);
            }
            5 => {
                assert_eq!(self.store.remove(self.now, &key), found);
                place.map(|place| self.list.remove(place));
            }
            6 if key == 0 => {
                assert_eq!(self.store.clear(), self.list.len());
            }
            6 if key < 8 => {
                let doomed = self.list.iter().filter(|item| item.key % 8 == key).count();
                assert_eq!(self.store.remove_if(|other, _| other % 8 == key), doomed);
            }
            _ => {
                assert_eq!(self.get(key), found);
                self.used(place);
                if let Some(place) = place {
                    let item = self.list.remove(place);
                    self.list.insert(0, item);
                }
            }
        }
    }

    fn insert(&mut self, key: u8, place: Option<usize>, choices: &mut Choices<'_>) {
        self.last += 1;
        let (bytes, end) = (choices.byte().into(), self.end(choices));
        let config = *self.store.config();
        let answer = self.set(key, bytes, end);
        let old = place.map(|place| self.list.remove(place));
        if bytes > config.max_entry_bytes.min(config.max_bytes) {
            assert!(answer.is_err(), "{bytes} bytes were not refused");
            let removals = self.store.take_removals();
            assert_eq!(
                removals.into_iter().map(|gone| (gone.value, gone.cause)).collect::<Vec<_>>(),
                old.iter().map(|old| (old.value, RemovalCause::Removed)).collect::<Vec<_>>()
            );
            return;
        }
        assert_eq!(answer, Ok(old.map(|old| old.value)));
        let item = Item { key, value: self.last, bytes, deadline: end, end };
        self.list.insert(0, item);
        self.used(Some(0));
        if config.policy == Policy::Lru {
            let over = self.list.first().is_some_and(|item| item.deadline <= self.now);
            self.list.drain(..usize::from(over));
            while self.list.len() > config.max_entries || self.bytes() > config.max_bytes {
                self.list.pop();
            }
        }
    }

    /// Half of the keys as a driver that shards them does it: by their hashes, and with less where less is enough.
    fn set(&mut self, key: u8, bytes: u64, end: Instant) -> Result<Option<u32>, TooLarge> {
        let hash = self.store.hash_of(&key);
        let (mut gone, mut value) = (key, self.last);
        let cause = match key % 2 {
            0 => {
                self.store.exchange_hashed(self.now, hash, &mut gone, &mut value, bytes, end, Store::is_full)
            }
            _ => None,
        };
        match cause {
            Some(RemovalCause::Replaced) => Ok(Some(value)),
            Some(cause) => {
                let place = self.list.iter().position(|item| item.value == value);
                let place = place.expect("only what is held has to go");
                let item = self.list.remove(place);
                assert_eq!((gone, cause), (item.key, RemovalCause::Evicted), "what is over was swept before");
                let is_lru = self.store.config().policy == Policy::Lru;
                assert!(!is_lru || place == self.list.len(), "{item:?} is not the one used least recently");
                Ok(None)
            }
            None => self.store.insert(self.now, key, value, bytes, end),
        }
    }

    fn get(&mut self, key: u8) -> Option<u32> {
        let hash = self.store.hash_of(&key);
        match key % 2 {
            0 => self.store.get_live_hashed(hash, &key, |_| self.now).ok().flatten().copied(),
            _ => self.store.get(self.now, &key).copied(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.store.sweep(self.now, usize::MAX);
    }

    /// Moves the deadline of what is used now.
    fn used(&mut self, place: Option<usize>) {
        let idle = self.store.config().time_to_idle;
        if let Some(item) = place.and_then(|place| self.list.get_mut(place)) {
            item.deadline = idle.map_or(item.end, |idle| self.now.saturating_add(idle).min(item.end));
        }
    }

    fn end(&self, choices: &mut Choices<'_>) -> Instant {
        time(choices.byte()).map_or(Instant::NEVER, |time| self.now.saturating_add(time))
    }

    fn bytes(&self) -> u64 {
        self.list.iter().map(|item| item.bytes).sum()
    }

    /// Takes from the list what the store says it let go; each was there, unless the list has dropped it by itself.
    fn forget_removals(&mut self) {
        let is_exact = self.store.config().policy == Policy::Lru;
        for gone in self.store.take_removals() {
            let place = self.list.iter().position(|item| item.value == gone.value);
            match place.map(|place| self.list.remove(place)) {
                Some(item) if gone.cause == RemovalCause::Expired => {
                    assert!(item.deadline <= self.now, "{item:?} had not expired at {:?}", self.now);
                }
                Some(item) => {
                    let expected = gone.cause == RemovalCause::Removed || !is_exact;
                    assert!(expected, "{item:?} had not to go: {:?}", gone.cause);
                }
                None => assert!(is_exact && gone.cause != RemovalCause::Removed, "{gone:?} was not there"),
            }
        }
    }

    fn compare(&mut self) {
        self.store.sweep(self.now, usize::MAX);
        self.forget_removals();
        self.store.debug_validate();
        let mut shown: Vec<_> =
            self.store.iter().map(|entry| (*entry.value, entry.bytes, entry.deadline)).collect();
        let mut list: Vec<_> = self.list.iter().map(|item| (item.value, item.bytes, item.deadline)).collect();
        if self.store.config().policy != Policy::Lru {
            shown.sort_unstable();
            list.sort_unstable();
        }
        assert_eq!(shown, list);
        assert_eq!((self.store.len(), self.store.bytes()), (list.len(), self.bytes()));
    }
}

/// Whole ticks, of every magnitude from one to years; `None` for 0.
fn time(choice: u8) -> Option<Duration> {
    let (magnitude, factor) = (u32::from(choice >> 3), u32::from(choice & 7));
    (choice > 0).then(|| TICK * factor.max(1) * (1 << magnitude.min(28)))
}
