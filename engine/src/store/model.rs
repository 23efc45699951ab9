//! The store against a naive model: a vector in order of use, scanned for everything.

use super::*;
use crate::store::tests::properties;
use core::time::Duration;
use foldhash::quality::FixedState;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

#[derive(Clone, Debug, PartialEq)]
struct Item {
    key: u8,
    value: u32,
    bytes: u64,
    /// When it ends if it is not used.
    deadline: Instant,
    /// When it ends however much it is used.
    end: Instant,
}

/// Live items only, most recently used first: the model forgets an item the moment its time is over.
struct Model {
    items: Vec<Item>,
    config: StoreConfig,
}

impl Model {
    fn pass_time(&mut self, now: Instant) {
        self.items.retain(|item| item.deadline > now);
    }

    fn take(&mut self, key: u8) -> Option<Item> {
        let place = self.items.iter().position(|item| item.key == key)?;
        Some(self.items.remove(place))
    }

    fn get(&mut self, key: u8, now: Instant) -> Option<u32> {
        let mut item = self.take(key)?;
        item.deadline = self.deadline(item.end, now);
        self.items.insert(0, item.clone());
        Some(item.value)
    }

    fn deadline(&self, end: Instant, now: Instant) -> Instant {
        self.config.time_to_idle.map_or(end, |idle| now.saturating_add(idle).min(end))
    }

    fn peek(&self, key: u8) -> Option<u32> {
        self.items.iter().find(|item| item.key == key).map(|item| item.value)
    }

    fn renew(&mut self, key: u8, end: Instant, now: Instant) {
        let deadline = self.deadline(end, now);
        if let Some(item) = self.items.iter_mut().find(|item| item.key == key) {
            (item.deadline, item.end) = (deadline, end);
        }
        self.pass_time(now);
    }

    fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// The answer, and how many others had to go.
    fn insert(&mut self, mut item: Item, now: Instant) -> (Result<Option<u32>, TooLarge>, u64) {
        item.deadline = self.deadline(item.end, now);
        let old = self.take(item.key).map(|old| old.value);
        let limit = self.config.max_entry_bytes.min(self.config.max_bytes);
        if item.bytes > limit {
            return (Err(TooLarge { bytes: item.bytes, limit }), 0);
        }
        if item.deadline > now {
            self.items.insert(0, item);
        }
        let mut evicted = 0;
        while self.items.len() > self.config.max_entries || self.bytes() > self.config.max_bytes {
            self.items.pop();
            evicted += 1;
        }
        (Ok(old), evicted)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Pass(Duration),
    StepBack,
    Get(u8),
    GetMut(u8),
    Peek(u8),
    Insert { key: u8, bytes: u64, ttl: Option<Duration> },
    Renew(u8, Option<Duration>),
    Remove(u8),
    Sweep(usize),
    RemoveEven,
    Clear,
}

/// Durations of every magnitude, from less than a tick to years, in whole multiples of `unit` nanoseconds.
fn durations(unit: u64) -> impl Strategy<Value = Duration> {
    (0..36_u32, 0..16_u64).prop_map(move |(magnitude, factor)| {
        Duration::from_nanos((unit << magnitude.saturating_sub(unit.ilog2() / 2)).saturating_mul(factor))
    })
}

fn ops(unit: u64) -> impl Strategy<Value = Vec<Op>> {
    let key = || 0..12_u8;
    let ttl = move || prop_oneof![1 => Just(None), 4 => durations(unit).prop_map(Some)];
    let op = prop_oneof![
        4 => durations(unit).prop_map(Op::Pass),
        1 => Just(Op::StepBack),
        6 => key().prop_map(Op::Get),
        1 => key().prop_map(Op::GetMut),
        2 => key().prop_map(Op::Peek),
        12 => (key(), 0..14_u64, ttl()).prop_map(|(key, bytes, ttl)| Op::Insert { key, bytes, ttl }),
        2 => (key(), ttl()).prop_map(|(key, ttl)| Op::Renew(key, ttl)),
        2 => key().prop_map(Op::Remove),
        2 => (0..6_usize).prop_map(Op::Sweep),
        1 => Just(Op::RemoveEven),
        1 => Just(Op::Clear),
    ];
    prop::collection::vec(op, 1..120)
}

fn configs(unit: u64) -> impl Strategy<Value = StoreConfig> {
    let max_bytes = prop_oneof![Just(u64::MAX), 0..40_u64];
    let max_entry_bytes = prop_oneof![Just(u64::MAX), 0..14_u64];
    let time_to_idle = prop_oneof![2 => Just(None), 1 => durations(unit).prop_map(Some)];
    (0..9_usize, max_bytes, max_entry_bytes, time_to_idle).prop_map(
        |(max_entries, max_bytes, max_entry_bytes, time_to_idle)| StoreConfig {
            max_entries,
            max_bytes,
            max_entry_bytes,
            policy: Policy::Lru,
            time_to_idle,
        },
    )
}

/// A read in two steps: first one that ends nothing.
fn get(store: &mut Store<u8, u32, FixedState>, now: Instant, key: u8) -> Option<u32> {
    let before = (store.len(), store.stats());
    match store.get_live_hashed(store.hash_of(&key), &key, |_| now) {
        Ok(found) => found.copied(),
        Err(Overdue) => {
            assert_eq!((store.len(), store.stats()), before, "nothing has ended, and nothing was counted");
            assert_eq!(store.get(now, &key), None, "it is over");
            assert_eq!(store.len(), before.0 - 1);
            None
        }
    }
}

/// The store and the model side by side.
struct Pair {
    store: Store<u8, u32, FixedState>,
    model: Model,
    now: Instant,
    /// Sweep in full before each call: then nothing that is over holds a place, and evictions are exact.
    swept: bool,
    inserted: u32,
    /// Values that came in and of which nobody has said that they ended.
    alive: BTreeSet<u32>,
    /// What the store had counted when it was last asked what has ended.
    counted: StoreStats,
}

impl Pair {
    fn new(config: StoreConfig, swept: bool) -> Self {
        let now = Instant::from_millis(5_000);
        let mut store = Store::new(config, FixedState::with_seed(3), now);
        store.keep_removals();
        let model = Model { items: Vec::new(), config };
        Self { store, model, now, swept, inserted: 0, alive: BTreeSet::new(), counted: StoreStats::default() }
    }

    /// A new value, which nobody had before.
    fn new_item(&mut self, key: u8, bytes: u64, ttl: Option<Duration>) -> Item {
        self.inserted += 1;
        let end = ttl.map_or(Instant::NEVER, |ttl| self.now.saturating_add(ttl));
        Item { key, value: self.inserted, bytes, deadline: end, end }
    }

    fn insert_whole(&mut self, item: &Item) -> Result<Option<u32>, TooLarge> {
        self.store.insert(self.now, item.key, item.value, item.bytes, item.end)
    }

    /// Sets by an exchange, if that is all there is to do: the value that was replaced, if one was.
    fn exchange(&mut self, item: &Item) -> Option<Option<u32>> {
        let (mut key, mut value) = (item.key, item.value);
        let hash = self.store.hash_of(&key);
        let state = |store: &Store<u8, u32, FixedState>| (store.len(), store.stats());
        let before = (state(&self.store), self.store.bytes());
        let cause = self.store.exchange_hashed(
            self.now,
            hash,
            &mut key,
            &mut value,
            item.bytes,
            item.end,
            Store::is_full,
        );
        let (len, mut stats) = before.0;
        match cause {
            None => {
                assert_eq!((key, value), (item.key, item.value), "nothing was exchanged");
                assert_eq!((state(&self.store), self.store.bytes()), before, "nothing has changed");
                return None;
            }
            Some(RemovalCause::Replaced) => {
                stats.updates += 1;
                assert_eq!((key, self.store.bytes()), (item.key, before.1), "nothing came or went");
            }
            Some(cause) => {
                stats.inserts += 1;
                // It is not among what has ended by other calls.
                for stats in [&mut stats, &mut self.counted] {
                    match cause {
                        RemovalCause::Expired => stats.expired += 1,
                        _ => stats.evicted_for_entries += 1,
                    }
                }
                assert!(self.store.peek(self.now, &key).is_none(), "{key} has gone");
                assert!(self.alive.remove(&value), "{value} ended twice");
            }
        }
        assert_eq!(state(&self.store), (len, stats), "one for one");
        Some((cause == Some(RemovalCause::Replaced)).then_some(value))
    }

    /// Sets, and notes what the answer says of the values.
    fn store_insert(&mut self, item: &Item) -> Result<Option<u32>, TooLarge> {
        // Every other one as a driver does it: by an exchange, where that is all there is to do, or else by an insert.
        let answer = match item.value % 2 {
            0 => self.exchange(item).map_or_else(|| self.insert_whole(item), Ok),
            _ => self.insert_whole(item),
        };
        if let Ok(old) = answer {
            self.alive.insert(item.value);
            self.handed_back(old);
        }
        answer
    }

    fn handed_back(&mut self, value: Option<u32>) {
        assert!(value.is_none_or(|value| self.alive.remove(&value)), "{value:?} has ended before");
    }

    /// Every value that came in has ended exactly once or is held, and each end was counted as what it was.
    fn compare_ends(&mut self) {
        let mut causes = [0_u64; 3];
        for Removal { value, cause, .. } in self.store.take_removals() {
            assert!(self.alive.remove(&value), "{value} ended twice");
            match cause {
                RemovalCause::Expired => causes[0] += 1,
                RemovalCause::Evicted => causes[1] += 1,
                RemovalCause::Removed => causes[2] += 1,
                RemovalCause::Replaced => panic!("an insert hands back what it replaces"),
            }
        }
        let held = self.store.order.iter().filter_map(|id| self.store.slab.get(id)).map(|entry| entry.value);
        assert_eq!(held.collect::<BTreeSet<_>>(), self.alive);
        let after = self.store.stats();
        let before = core::mem::replace(&mut self.counted, after);
        assert_eq!(causes[..2], [after.expired - before.expired, after.evictions() - before.evictions()]);
        assert!(causes[2] <= after.removals - before.removals);
    }

    fn apply(&mut self, op: &Op) {
        let Self { store, model, now, .. } = self;
        if self.swept {
            store.sweep(*now, usize::MAX);
        }
        match *op {
            Op::Pass(time) => {
                *now = now.saturating_add(time).min(Instant::from_nanos(u64::MAX - 2));
                model.pass_time(*now);
            }
            // A clock that steps back is taken for one that stands.
            Op::StepBack => assert_eq!(store.get(Instant::EPOCH, &0).copied(), model.get(0, store.now)),
            Op::Get(key) => assert_eq!(get(store, *now, key), model.get(key, *now)),
            Op::GetMut(key) => {
                let found = store.get_mut(*now, &key);
                assert_eq!(found.as_deref().copied(), model.get(key, *now));
                if let Some(place) = found {
                    self.alive.remove(place);
                    self.inserted += 1;
                    *place = self.inserted;
                    model.items[0].value = self.inserted;
                    self.alive.insert(self.inserted);
                }
            }
            Op::Peek(key) => {
                assert_eq!(store.peek(*now, &key).copied(), model.peek(key));
                assert_eq!(store.contains(*now, &key), model.peek(key).is_some());
            }
            Op::Insert { key, bytes, ttl } => {
                let item = self.new_item(key, bytes, ttl);
                self.insert(&item);
            }
            Op::Renew(key, ttl) => {
                let end = ttl.map_or(Instant::NEVER, |ttl| now.saturating_add(ttl));
                assert_eq!(store.renew(*now, &key, end), model.peek(key).is_some());
                model.renew(key, end, *now);
            }
            Op::Remove(key) => {
                let removed = store.remove(*now, &key);
                assert_eq!(removed, model.take(key).map(|item| item.value));
                self.handed_back(removed);
            }
            Op::Sweep(budget) => {
                let steps = store.steps();
                let removed = store.sweep(*now, budget);
                assert!(removed <= budget && store.steps() - steps <= budget as u64);
            }
            Op::RemoveEven => {
                store.sweep(*now, 0);
                let removed = store.remove_if(|key, _| key % 2 == 0);
                let before = model.items.len();
                model.items.retain(|item| item.key % 2 != 0);
                assert_eq!(removed, before - model.items.len());
            }
            Op::Clear => {
                assert!(store.clear() >= model.items.len());
                model.items.clear();
            }
        }
    }

    fn insert(&mut self, item: &Item) {
        let (held, evicted, steps) = (self.store.len(), self.store.stats().evictions(), self.store.steps());
        let unswept = held > self.model.items.len();
        let answer = self.store_insert(item);
        let Self { store, model, now, .. } = self;
        let evicted = store.stats().evictions() - evicted;

        let (expected_answer, expected) = model.insert(item.clone(), *now);
        assert_eq!(answer, expected_answer);
        let extra = evicted.checked_sub(expected).expect("the bounds ask for these evictions");
        // Only what is over and still held can make the store evict more than the model does.
        assert!(extra == 0 || unswept && !self.swept, "{evicted} evicted where {expected} had to go");
        for _ in 0..extra {
            model.items.pop();
        }

        let (steps, gone) = (store.steps() - steps, (held + 1).saturating_sub(store.len()) as u64);
        assert!(steps <= (STEPS_PER_INSERT as u64 + 1) * (gone + 1), "{steps} steps for {gone} gone");
    }

    /// Not under an interpreter, which would spend its time on walks over empty buckets.
    fn validate(&self) {
        if !cfg!(miri) {
            self.store.debug_validate();
        }
    }

    fn compare(&mut self) {
        self.validate();
        self.compare_items();
    }

    fn compare_items(&mut self) {
        // The walk shows what is live at the latest time seen.
        self.store.sweep(self.now, if self.swept { usize::MAX } else { 0 });
        let shown: Vec<_> = self
            .store
            .iter()
            .map(|EntryRef { key, value, bytes, deadline }| (*key, *value, bytes, deadline))
            .collect();
        let items = self.model.items.iter();
        let expected: Vec<_> = items.map(|item| (item.key, item.value, item.bytes, item.deadline)).collect();
        assert_eq!(shown, expected);
        assert!(self.store.bytes() >= self.model.bytes());
        if self.swept {
            assert_eq!((self.store.len(), self.store.bytes()), (shown.len(), self.model.bytes()));
        }
    }
}

/// A store that may have let go of anything that the model, whose bounds are none, still has.
impl Pair {
    fn apply_loosely(&mut self, op: &Op) {
        self.model.config = StoreConfig { max_entries: usize::MAX, max_bytes: u64::MAX, ..self.model.config };
        let Self { store, model, now, .. } = self;
        let is_of = |found: Option<u32>, expected: Option<u32>| found.is_none() || found == expected;
        match *op {
            Op::Insert { key, bytes, ttl } => {
                let item = self.new_item(key, bytes, ttl);
                let limit = self.store.config().entry_limit();
                match self.store_insert(&item) {
                    Ok(old) => assert!(is_of(old, self.model.insert(item, self.now).0.expect("fits"))),
                    Err(refused) => {
                        self.model.take(key);
                        assert_eq!(refused, TooLarge { bytes, limit });
                        assert!(bytes > limit);
                    }
                }
            }
            Op::Renew(key, ttl) => {
                let end = ttl.map_or(Instant::NEVER, |ttl| now.saturating_add(ttl));
                if store.renew(*now, &key, end) {
                    assert!(model.peek(key).is_some());
                    model.renew(key, end, *now);
                }
            }
            Op::Pass(time) => {
                *now = now.saturating_add(time).min(Instant::from_nanos(u64::MAX - 2));
                model.pass_time(*now);
            }
            Op::Get(key) => {
                let shared = store.get_shared(*now, &key).copied();
                assert!(is_of(shared, model.get(key, *now)));
                assert_eq!(get(store, *now, key), shared, "who shares sees the same");
            }
            Op::Remove(key) => {
                let removed = store.remove(*now, &key);
                assert!(is_of(removed, model.take(key).map(|item| item.value)));
                self.handed_back(removed);
            }
            Op::Sweep(budget) => assert!(store.sweep(*now, budget) <= budget),
            Op::RemoveEven => {
                store.sweep(*now, 0);
                store.remove_if(|key, _| key % 2 == 0);
                model.items.retain(|item| item.key % 2 != 0);
            }
            Op::Clear => {
                store.clear();
                model.items.clear();
            }
            Op::StepBack | Op::GetMut(_) | Op::Peek(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(properties())]

    /// On whole ticks and swept in full, everything is exact: answers, order, victims, counts.
    #[test]
    fn swept_store_is_the_model(config in configs(1 << 20), ops in ops(1 << 20)) {
        let mut pair = Pair::new(config, true);
        pair.now = Instant::from_nanos(5 << 30);
        for op in ops {
            pair.apply(&op);
            pair.compare_ends();
            pair.compare();
        }
    }

    /// At any nanosecond and swept as it comes, answers and order are the model's still; where something that is
    /// over still holds a place, a live entry may go in its stead.
    #[test]
    fn unswept_store_answers_as_the_model(config in configs(1), ops in ops(1)) {
        let mut pair = Pair::new(config, false);
        for op in ops {
            pair.apply(&op);
            pair.compare_ends();
            pair.compare();
        }
    }

    /// Whatever its policy, a store answers with what was set last or with nothing, keeps its bounds, and never lets go
    /// of a live entry without counting it.
    #[test]
    fn adaptive_store_is_a_cache_of_the_map(config in configs(1), ops in ops(1)) {
        let mut pair = Pair::new(StoreConfig { policy: Policy::Adaptive, ..config }, false);
        for op in ops {
            pair.apply_loosely(&op);
            pair.compare_ends();
            pair.validate();
        }
    }
}
