//! The store's rules by name, and every transition of an entry's life.

use super::*;
use core::time::Duration;
use foldhash::quality::FixedState;
use proptest::test_runner::{Config, RngAlgorithm};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

/// How properties are tried. An interpreter that looks for undefined behaviour has no files to keep failures in, and little
/// time: most of it would go into random numbers of quality.
pub(super) fn properties() -> Config {
    let config = Config::default();
    if cfg!(miri) {
        Config { cases: 4, failure_persistence: None, rng_algorithm: RngAlgorithm::XorShift, ..config }
    } else {
        config
    }
}

type TestStore = Store<&'static str, u32, FixedState>;

const NEVER: Instant = Instant::NEVER;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn store(config: StoreConfig) -> TestStore {
    Store::new(config, FixedState::with_seed(1), at(0))
}

fn of_entries(max_entries: usize) -> TestStore {
    store(StoreConfig { max_entries, ..StoreConfig::default() })
}

fn of_bytes(max_bytes: u64) -> TestStore {
    store(StoreConfig { max_bytes, ..StoreConfig::default() })
}

/// One byte each, without a deadline.
fn fill(store: &mut TestStore, keys: &[&'static str]) {
    for key in keys {
        store.insert(at(0), key, 0, 1, NEVER).expect("one byte fits");
    }
}

fn keys(store: &TestStore) -> Vec<&'static str> {
    store.debug_validate();
    store.iter().map(|entry| *entry.key).collect()
}

// Inventory M6: what the original LRU got wrong.

#[test]
fn overwriting_in_a_full_store_evicts_nothing() {
    let mut store = of_entries(3);
    fill(&mut store, &["a", "b", "c"]);
    assert_eq!(store.insert(at(1), "a", 7, 1, NEVER), Ok(Some(0)));
    assert_eq!(keys(&store), ["a", "c", "b"]);
    assert_eq!((store.stats().updates, store.stats().evictions()), (1, 0));
}

#[test]
fn overwriting_refreshes_recency() {
    let mut store = of_entries(2);
    fill(&mut store, &["a", "b", "a", "c"]);
    assert_eq!(keys(&store), ["c", "a"]);
}

#[test]
fn expired_entries_are_evicted_before_live_ones() {
    let mut store = of_entries(3);
    fill(&mut store, &["old"]);
    store.insert(at(0), "brief", 0, 1, at(10)).expect("fits");
    fill(&mut store, &["new"]);
    store.insert(at(20), "next", 0, 1, NEVER).expect("fits");
    assert_eq!(keys(&store), ["next", "new", "old"]);
    assert_eq!((store.stats().expired, store.stats().evictions()), (1, 0));
}

#[test]
fn a_heavy_value_displaces_every_expired_entry_before_a_live_one() {
    const MANY: u64 = 5 * STEPS_PER_INSERT as u64;
    let config = StoreConfig { max_bytes: MANY + 1, ..StoreConfig::default() };
    let mut store = Store::new(config, FixedState::default(), at(0));
    store.insert(at(0), MANY, (), 1, NEVER).expect("fits");
    for key in 0..MANY {
        store.insert(at(0), key, (), 1, at(10)).expect("fits");
    }
    store.insert(at(20), MANY + 1, (), MANY, NEVER).expect("fits");
    assert!(store.contains(at(20), &MANY), "the oldest of all, but live");
    assert_eq!((store.stats().expired, store.stats().evictions()), (MANY, 0));
}

#[test]
fn a_read_refreshes_recency() {
    let mut store = of_entries(2);
    fill(&mut store, &["a", "b"]);
    assert!(store.get(at(0), "a").is_some());
    fill(&mut store, &["c"]);
    assert_eq!(keys(&store), ["c", "a"]);
    assert_eq!(store.stats().evicted_for_entries, 1);
}

#[test]
fn contains_and_peek_change_nothing() {
    let mut store = of_entries(2);
    fill(&mut store, &["a", "b"]);
    store.insert(at(0), "b", 0, 1, at(5)).expect("fits");
    let before = store.stats();
    assert!(store.contains(at(1), "a") && !store.contains(at(1), "z") && !store.contains(at(5), "b"));
    assert_eq!((store.peek(at(1), "a"), store.peek(at(5), "b")), (Some(&0), None));
    assert_eq!((store.stats(), store.len()), (before, 2));
    assert_eq!(keys(&store), ["b", "a"]);
    fill(&mut store, &["c"]);
    assert_eq!(keys(&store), ["c", "b"], "peeking did not save a");
}

// Inventory M3 and M4: deadlines.

#[test]
fn never_is_never_whatever_the_clock_says() {
    let mut store = of_entries(2);
    fill(&mut store, &["a"]);
    assert_eq!(store.next_expiry(), None);
    for now in [at(1_000_000_000_000), Instant::from_nanos(u64::MAX - 2), NEVER] {
        assert_eq!(store.get(now, "a"), Some(&0));
        assert_eq!(store.sweep(now, usize::MAX), 0);
    }
    assert_eq!(keys(&store), ["a"]);
}

#[test]
fn expiry_is_exact_on_read() {
    let mut store = of_entries(2);
    let deadline = Instant::from_nanos(1_234_567_891);
    store.insert(at(0), "a", 1, 1, deadline).expect("fits");
    assert_eq!(store.get(Instant::from_nanos(1_234_567_890), "a"), Some(&1));
    assert_eq!(store.get(deadline, "a"), None, "the deadline itself is too late");
    assert_eq!(store.len(), 0, "a read that finds it over takes it out");
    let StoreStats { hits, misses, expired, .. } = store.stats();
    assert_eq!((hits, misses, expired), (1, 1, 1));
}

#[test]
fn a_clock_that_steps_back_revives_nothing() {
    let mut store = of_entries(2);
    store.insert(at(0), "a", 1, 1, at(10)).expect("fits");
    fill(&mut store, &["b"]);
    assert!(store.get(at(20), "b").is_some());
    assert!(!store.contains(at(5), "a"), "time has been later than its deadline already");
    assert_eq!(store.get(at(5), "a"), None);
    store.insert(at(5), "a", 1, 1, at(15)).expect("fits");
    assert_eq!(keys(&store), ["b"], "over on arrival");
}

#[test]
fn a_deadline_that_is_over_leaves_nothing() {
    let mut store = of_entries(1);
    fill(&mut store, &["a"]);
    assert_eq!(store.insert(at(7), "b", 1, 1, at(7)), Ok(None));
    assert_eq!(keys(&store), ["a"], "and evicts nothing");
    assert_eq!(store.insert(at(7), "a", 1, 1, at(3)), Ok(Some(0)));
    assert_eq!((keys(&store), store.stats().expired), (vec![], 2));
}

#[test]
fn renewed_entry_survives_its_old_bucket() {
    let mut store = of_entries(4);
    for key in ["renewed", "overwritten", "persisted", "left"] {
        store.insert(at(0), key, 1, 1, at(100)).expect("fits");
    }
    assert!(store.renew(at(50), "renewed", at(300)));
    store.insert(at(50), "overwritten", 2, 1, at(300)).expect("fits");
    assert!(store.renew(at(50), "persisted", NEVER));
    assert_eq!(store.sweep(at(200), usize::MAX), 1);
    assert_eq!(keys(&store), ["overwritten", "persisted", "renewed"]);
    assert!(store.renew(at(200), "renewed", at(250)), "earlier works as well");
    assert_eq!(store.sweep(at(260), usize::MAX), 1);
    assert_eq!(store.sweep(at(400), usize::MAX), 1);
    assert_eq!(keys(&store), ["persisted"]);
}

#[test]
fn who_makes_way_is_a_step_whether_he_is_over_or_not() {
    for (deadline, expected) in [(NEVER, (0, 100)), (Instant::from_nanos(5), (100, 0))] {
        let config = StoreConfig { max_bytes: 100, ..StoreConfig::default() };
        let mut store = Store::new(config, FixedState::default(), Instant::EPOCH);
        for key in 0..100 {
            store.insert(Instant::EPOCH, key, (), 1, deadline).expect("fits");
        }
        let steps = store.steps();
        store.insert(Instant::from_nanos(6), 100, (), 100, NEVER).expect("fits");
        assert_eq!((store.steps() - steps, store.len()), (100, 1), "within the tick, no sweep knows");
        assert_eq!((store.stats().expired, store.stats().evictions()), expected);

        let mut full =
            Store::new(StoreConfig { max_entries: 1, ..config }, FixedState::default(), Instant::EPOCH);
        full.insert(Instant::EPOCH, 0, (), 1, deadline).expect("fits");
        full.insert(Instant::from_nanos(6), 1, (), 1, NEVER).expect("fits");
        assert_eq!(full.steps(), 1, "in an exchange as well");
    }
}

#[test]
fn a_jump_of_years_takes_as_many_steps_as_there_are_entries() {
    let year = Duration::from_secs(365 * 86_400);
    let mut store = of_entries(100);
    store.insert(at(0), "soon", 1, 1, at(1)).expect("fits");
    store.insert(at(0), "later", 1, 1, at(0).saturating_add(year * 2)).expect("fits");
    store.insert(at(0), "last", 1, 1, Instant::from_nanos(u64::MAX - 2)).expect("fits");
    let jump = at(0).saturating_add(year);
    assert_eq!(store.sweep(jump, usize::MAX), 1);
    assert_eq!(store.sweep(jump.saturating_add(year), usize::MAX), 1);
    assert_eq!(keys(&store), ["last"]);
    assert!(store.steps() <= 3 * u64::from(wheel::LEVELS), "{} steps", store.steps());
}

#[test]
fn sweeping_when_told_is_never_late_and_always_ends() {
    let mut store = of_entries(100);
    let tick = Duration::from_nanos(1 << 20);
    let names = ["a", "b", "c", "d", "e", "f"];
    for (key, millis) in names.into_iter().zip([1, 50, 70, 5_000, 400_000, 90_000_000]) {
        store.insert(at(0), key, 1, 1, at(millis)).expect("fits");
    }
    let mut wakes = 0;
    while let Some(when) = store.next_expiry() {
        let deadline = store.iter().map(|entry| entry.deadline).min().expect("something is timed");
        assert!(when < deadline.saturating_add(tick), "{when:?} is late for {deadline:?}");
        store.sweep(when, usize::MAX);
        assert!(store.next_expiry().is_none_or(|next| next > when), "the next time is later than now");
        wakes += 1;
    }
    assert_eq!((store.len(), store.stats().expired), (0, 6));
    assert!(wakes <= 6 * wheel::LEVELS, "{wakes} wakes");
}

#[test]
fn a_use_moves_the_deadline_but_not_past_its_end() {
    let idle = Some(Duration::from_millis(40));
    let mut store = store(StoreConfig { time_to_idle: idle, ..StoreConfig::default() });
    let deadline = |store: &TestStore, key: &'static str| {
        store.debug_validate();
        store.iter().find(|entry| *entry.key == key).map(|entry| entry.deadline)
    };
    fill(&mut store, &["a"]);
    store.insert(at(0), "b", 0, 1, at(50)).expect("fits");
    assert_eq!((deadline(&store, "a"), deadline(&store, "b")), (Some(at(40)), Some(at(40))));
    assert!(store.peek(at(25), "a").is_some() && store.get_shared(at(25), "a").is_some());
    assert_eq!(deadline(&store, "a"), Some(at(40)), "these are no uses");
    assert!(store.get(at(25), "a").is_some() && store.get_mut(at(25), "b").is_some());
    assert_eq!((deadline(&store, "a"), deadline(&store, "b")), (Some(at(65)), Some(at(50))));
    assert!(store.renew(at(30), "b", NEVER));
    assert_eq!(deadline(&store, "b"), Some(at(70)));
    store.insert(at(40), "a", 0, 1, at(45)).expect("fits");
    assert!(store.get(at(41), "a").is_some(), "the place of an earlier entry remembers nothing of it");
    assert_eq!((deadline(&store, "a"), store.sweep(at(100), 9)), (Some(at(45)), 2));
}

#[test]
fn what_has_ended_is_kept_for_those_only_who_ask() {
    let mut store = of_entries(1);
    fill(&mut store, &["a", "b"]);
    assert!(!store.has_removals() && store.take_removals().is_empty());
    store.keep_removals();
    fill(&mut store, &["c", "d", "d"]);
    let removal = |key, cause| Removal { key, value: 0, cause };
    let evicted = |key| removal(key, RemovalCause::Evicted);
    assert!(store.has_removals());
    assert_eq!(store.take_removals().into_iter().collect::<Vec<_>>(), [evicted("b"), evicted("c")]);
    assert!(!store.has_removals() && store.take_removals().is_empty(), "each once");
    store.clear();
    assert_eq!(store.take_removals().into_iter().collect::<Vec<_>>(), [removal("d", RemovalCause::Removed)]);
}

// Inventory M5 and M8: cost and bytes.

#[test]
fn a_million_entries_that_expire_at_once_stall_nobody() {
    const MANY: u32 = if cfg!(miri) { 2_000 } else { 1_000_000 };
    const MORE: u32 = if cfg!(miri) { 400 } else { 1_000 };
    let config = StoreConfig { max_entries: MANY as usize, ..StoreConfig::default() };
    let mut store = Store::new(config, FixedState::default(), at(0));
    for key in 0..MANY {
        // A quarter shares one instant; the rest falls due at its own time, but in the same bucket of a high level.
        let deadline = at(3_600_000 + u64::from(key).saturating_sub(u64::from(MANY / 4)) / 100);
        store.insert(at(0), key, (), 1, deadline).expect("fits");
    }
    let now = at(3_600_000);
    let mut steps = store.steps();
    let mut steps_of =
        |store: &Store<u32, (), FixedState>| store.steps() - core::mem::replace(&mut steps, store.steps());
    assert_eq!(steps_of(&store), 0);

    assert!(store.get(now, &0).is_none() && store.get(now, &(MANY - 1)).is_some());
    assert!(store.remove(now, &(MANY - 2)).is_some() && store.renew(now, &(MANY - 3), NEVER));
    assert_eq!(steps_of(&store), 0, "reads, removals and renewals do no other work");

    for key in MANY..MANY + MORE {
        store.insert(now, key, (), 1, NEVER).expect("fits");
        let steps = steps_of(&store);
        assert!(steps <= 2 * STEPS_PER_INSERT as u64 + 1, "{steps} steps in one insert");
    }
    while store.next_expiry().is_some_and(|next| next <= now) {
        store.sweep(now, 1000);
        assert!(steps_of(&store) <= 1000, "a sweep keeps to its budget");
    }
    assert_eq!((store.stats().expired, store.stats().evictions()), (u64::from(MANY / 4) + 100, 0));
    store.debug_validate();
}

#[test]
fn inserts_alone_give_expired_memory_back() {
    const INSERTS: u64 = if cfg!(miri) { 1_000 } else { 20_000 };
    let config = StoreConfig { max_entries: usize::MAX, ..StoreConfig::default() };
    let mut store = Store::new(config, FixedState::default(), at(0));
    for millis in 0..INSERTS {
        store.insert(at(millis), millis, (), 1, at(millis + 100)).expect("fits");
        // Each lives for 100 inserts, and a few more while its bucket is refiled.
        assert!(store.len() <= 120, "{} held where 100 are live", store.len());
    }
    assert_eq!(store.stats().evictions(), 0);
}

#[test]
fn the_bytes_bound_holds_and_evicts_in_order_of_use() {
    let mut store = of_bytes(10);
    for (key, bytes) in [("a", 3), ("b", 3), ("c", 4)] {
        store.insert(at(0), key, 0, bytes, NEVER).expect("fits");
    }
    assert_eq!(store.bytes(), 10);
    store.insert(at(0), "d", 0, 4, NEVER).expect("fits");
    assert_eq!((keys(&store), store.bytes()), (vec!["d", "c"], 8));
    store.insert(at(0), "c", 0, 10, NEVER).expect("fits");
    assert_eq!((keys(&store), store.bytes()), (vec!["c"], 10), "growing in place may evict others");
    store.insert(at(0), "c", 0, 0, NEVER).expect("fits");
    fill(&mut store, &["e"]);
    assert_eq!((keys(&store), store.bytes()), (vec!["e", "c"], 1));
    assert_eq!((store.stats().evicted_for_bytes, store.stats().evicted_for_entries), (3, 0));
}

#[test]
fn a_refused_overwrite_does_not_leave_the_old_value() {
    let config = StoreConfig { max_bytes: 100, max_entry_bytes: 10, ..StoreConfig::default() };
    let mut store = store(config);
    fill(&mut store, &["a", "b"]);
    assert_eq!(store.insert(at(0), "a", 1, 11, NEVER), Err(TooLarge { bytes: 11, limit: 10 }));
    assert_eq!((keys(&store), store.bytes()), (vec!["b"], 1));
    assert_eq!(store.insert(at(0), "c", 1, 1000, NEVER), Err(TooLarge { bytes: 1000, limit: 10 }));
    let StoreStats { inserts, updates, removals, refused, .. } = store.stats();
    assert_eq!((inserts, updates, removals, refused), (2, 0, 1, 2));
    assert_eq!(keys(&store), ["b"], "and evicts nothing");
    assert!(TooLarge { bytes: 11, limit: 10 }.to_string().contains("raise max_entry_bytes"));
}

#[test]
fn without_a_bound_on_bytes_the_sum_still_cannot_overflow() {
    let mut store = of_entries(10);
    store.insert(at(0), "a", 0, u64::MAX, NEVER).expect("as large as the bound");
    fill(&mut store, &["b"]);
    assert_eq!((keys(&store), store.bytes()), (vec!["b"], 1));
}

#[test]
fn capacity_zero_stores_nothing_and_one_stores_the_last() {
    let mut none = of_entries(0);
    fill(&mut none, &["a", "b"]);
    assert_eq!(none.get(at(0), "a"), None);
    assert_eq!((none.len(), none.bytes()), (0, 0));
    none.debug_validate();
    let mut one = of_entries(1);
    fill(&mut one, &["a", "b", "b", "c"]);
    assert_eq!(keys(&one), ["c"]);
    let mut weightless = of_bytes(0);
    assert!(weightless.insert(at(0), "a", 0, 1, NEVER).is_err());
    weightless.insert(at(0), "a", 0, 0, NEVER).expect("nothing fits into nothing");
    assert_eq!(keys(&weightless), ["a"]);
}

#[test]
fn an_entry_costs_what_the_docs_say() {
    assert_eq!(ENTRY_OVERHEAD, 55);
    assert_eq!(
        Slab::<u64, u64>::OVERHEAD + policy::OVERHEAD + wheel::OVERHEAD,
        30,
        "without the index, where weights are equal"
    );
    assert_eq!(Slab::<String, Vec<u8>>::OVERHEAD, 8);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn what_an_operation_looks_at_lies_on_few_cache_lines_behind_a_lock() {
    use core::mem::offset_of;
    type Numbers = Store<u64, u64, ()>;
    let place = |offset: usize| ((offset + 8) / 64, (offset + 8) % 64);
    let counters = place(offset_of!(Numbers, stats));
    assert_eq!(
        (place(offset_of!(Numbers, now)), place(offset_of!(Numbers, idle)), counters),
        ((0, 8), (0, 16), (0, 24))
    );
    let last = counters.1 + offset_of!(StoreStats, evicted_for_entries);
    assert_eq!(last, 56, "what an exchange counts ends with the line");
    // An array's pointer and length before it, and after it those of the uses.
    let (index, order) = (place(offset_of!(Numbers, index)), place(offset_of!(Numbers, order)));
    assert_eq!((index, order), ((3, 16), (3, 48)));
    assert_eq!(place(offset_of!(Numbers, weights)), (2, 16), "after the end of the wheel");
}

#[test]
fn memory_ends_at_the_bound_without_slack() {
    const KEYS: u32 = if cfg!(miri) { 1_100 } else { 3_000 };
    let mut store = Store::new(StoreConfig::default(), FixedState::default(), at(0));
    for key in 0..KEYS {
        store.insert(at(0), key, (), 1, at(10)).expect("fits");
    }
    let wheel = 1000 + wheel::HEADS as usize;
    assert_eq!(store.memory(), [1000, 1001 + 1000, wheel, 1000, 0]);
    for key in 0..KEYS {
        store.insert(at(0), key, (), key.into(), at(10)).expect("fits");
    }
    assert_eq!(store.memory(), [1000, 1001 + 1000, wheel, 1000, 1000]);
    store.clear();
    store.insert(at(0), 0, (), 1, at(10)).expect("fits");
    assert_eq!(store.memory(), [1000, 1001 + 1000, wheel, 1000, 1000], "clear keeps it");
}

impl<K, V, S> Store<K, V, S> {
    /// Capacities of the slab, the order of use (its links and prints), the wheel's links and places, and the weights.
    fn memory(&self) -> [usize; 5] {
        let [links, filed] = self.wheel.capacity();
        [self.slab.capacity(), self.order.capacity(), links, filed, self.weights.capacity()]
    }
}

// The rest of the interface.

#[test]
fn clear_and_remove_if_count_what_they_remove() {
    let mut store = of_entries(10);
    fill(&mut store, &["a1", "b1", "a2", "b2"]);
    store.insert(at(0), "a3", 0, 1, at(1)).expect("fits");
    store.get(at(2), "b1").expect("live");
    let mut shown = Vec::new();
    let removed = store.remove_if(|key, _| {
        shown.push(*key);
        key.starts_with('a')
    });
    assert_eq!((removed, shown), (2, vec!["b1", "b2", "a2", "a1"]), "an expired entry is not shown");
    assert_eq!(keys(&store), ["b1", "b2"]);
    assert_eq!((store.clear(), store.bytes(), store.next_expiry()), (3, 0, None));
    fill(&mut store, &["c"]);
    assert_eq!((keys(&store), store.stats().removals), (vec!["c"], 5));
}

#[test]
fn values_can_be_changed_in_place() {
    let mut store = of_entries(2);
    fill(&mut store, &["a", "b"]);
    *store.peek_mut(at(0), "a").expect("live") += 1;
    assert_eq!((keys(&store), store.stats().hits), (vec!["b", "a"], 0));
    *store.get_mut(at(0), "a").expect("live") += 1;
    assert_eq!((store.peek(at(0), "a"), store.stats().hits), (Some(&2), 1));
    assert_eq!(keys(&store), ["a", "b"]);
}

#[test]
fn keys_are_found_by_what_they_are_equivalent_to() {
    let mut store = Store::new(StoreConfig::default(), FixedState::default(), at(0));
    store.insert(at(0), "owned".to_string(), 1, 1, NEVER).expect("fits");
    assert_eq!(store.get(at(0), "owned"), Some(&1));
    assert_eq!(store.remove(at(0), "owned"), Some(1));
}

#[test]
fn colliding_hashes_are_told_apart() {
    const HELD: u32 = if cfg!(miri) { 5 } else { 50 };
    #[derive(Default)]
    struct Same;
    impl core::hash::Hasher for Same {
        fn finish(&self) -> u64 {
            42
        }
        fn write(&mut self, _: &[u8]) {}
    }
    let hasher = core::hash::BuildHasherDefault::<Same>::default();
    let config = StoreConfig { max_entries: HELD as usize, ..StoreConfig::default() };
    let mut store = Store::new(config, hasher, at(0));
    for key in 0..4 * HELD {
        store.insert(at(0), key, key, 1, NEVER).expect("fits");
        store.debug_validate();
    }
    assert_eq!(
        store.iter().map(|entry| *entry.value).collect::<Vec<_>>(),
        (3 * HELD..4 * HELD).rev().collect::<Vec<_>>()
    );
}

#[test]
fn stats_add_up_over_shards() {
    let mut shards = [of_entries(1), of_entries(1)];
    let mut sum = StoreStats::default();
    assert_eq!(sum.hit_ratio(), None);
    for shard in &mut shards {
        fill(shard, &["a", "b"]);
        assert!(shard.get(at(0), "a").is_none() && shard.get(at(0), "b").is_some());
        sum += shard.stats();
    }
    assert_eq!((sum.inserts, sum.evictions(), sum.hits, sum.hit_ratio()), (4, 2, 2, Some(0.5)));
}

#[test]
fn debug_shows_figures_and_no_values() {
    let mut store = of_entries(2);
    fill(&mut store, &["secret"]);
    let shown = format!("{store:?}");
    assert!(shown.contains("len: 1") && !shown.contains("secret"), "{shown}");
}

// Every state of an entry under every call, as drawn in the module's docs.

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Absent,
    Live,
    Overdue,
}
use State::{Absent, Live, Overdue};

const KEY: &str = "key";
const NOW: u64 = 100;

/// A store of one entry at most, its key in the given state at `NOW`.
fn in_state(state: State) -> TestStore {
    let mut store = store(StoreConfig { max_entries: 1, max_entry_bytes: 9, ..StoreConfig::default() });
    match state {
        Absent => {}
        Live => assert_eq!(store.insert(at(0), KEY, 1, 1, at(200)), Ok(None)),
        Overdue => assert_eq!(store.insert(at(0), KEY, 1, 1, at(50)), Ok(None)),
    }
    store
}

fn state_of(store: &TestStore) -> State {
    store.debug_validate();
    match store.slab.get(0).filter(|entry| entry.key == KEY) {
        None => Absent,
        Some(entry) if entry.is_over(at(NOW)) => Overdue,
        Some(_) => Live,
    }
}

/// A call, what it answers, and the state it leaves, from Absent, Live and Overdue.
type Row = (&'static str, fn(&mut TestStore) -> bool, [(bool, State); 3]);

#[test]
fn every_transition_of_an_entry() {
    let table: [Row; 13] = [
        ("get", |s| s.get(at(NOW), KEY).is_some(), [(false, Absent), (true, Live), (false, Absent)]),
        ("get_mut", |s| s.get_mut(at(NOW), KEY).is_some(), [(false, Absent), (true, Live), (false, Absent)]),
        ("peek", |s| s.peek(at(NOW), KEY).is_some(), [(false, Absent), (true, Live), (false, Overdue)]),
        ("contains", |s| s.contains(at(NOW), KEY), [(false, Absent), (true, Live), (false, Overdue)]),
        ("renew", |s| s.renew(at(NOW), KEY, at(300)), [(false, Absent), (true, Live), (false, Absent)]),
        (
            "renew to the past",
            |s| s.renew(at(NOW), KEY, at(1)),
            [(false, Absent), (true, Absent), (false, Absent)],
        ),
        (
            "insert",
            |s| s.insert(at(NOW), KEY, 2, 1, NEVER) == Ok(Some(1)),
            [(false, Live), (true, Live), (false, Live)],
        ),
        (
            "insert, over already",
            |s| s.insert(at(NOW), KEY, 2, 1, at(NOW)) == Ok(Some(1)),
            [(false, Absent), (true, Absent), (false, Absent)],
        ),
        (
            "insert, refused",
            |s| s.insert(at(NOW), KEY, 2, 10, NEVER).is_ok(),
            [(false, Absent), (false, Absent), (false, Absent)],
        ),
        ("remove", |s| s.remove(at(NOW), KEY) == Some(1), [(false, Absent), (true, Absent), (false, Absent)]),
        (
            "evicting insert",
            |s| s.insert(at(NOW), "other", 2, 1, NEVER).is_ok(),
            [(true, Absent), (true, Absent), (true, Absent)],
        ),
        ("sweep", |s| s.sweep(at(NOW), 9) == 1, [(false, Absent), (false, Live), (true, Absent)]),
        ("clear", |s| s.clear() == 1, [(false, Absent), (true, Absent), (true, Absent)]),
    ];
    for (name, call, expected) in table {
        for (from, expected) in [Absent, Live, Overdue].into_iter().zip(expected) {
            let mut store = in_state(from);
            let answer = call(&mut store);
            assert_eq!((answer, state_of(&store)), expected, "{name} from {from:?}");
            let noticed = from == Overdue && expected.1 != Overdue && name != "clear";
            let over_on_arrival =
                name == "insert, over already" || (name == "renew to the past" && from == Live);
            let expired = u64::from(noticed) + u64::from(over_on_arrival);
            assert_eq!(store.stats().expired, expired, "expirations of {name} from {from:?}");
        }
    }
}

#[test]
fn a_store_is_timed_while_an_entry_has_a_deadline_or_may_be_idle() {
    let mut store = of_entries(10);
    fill(&mut store, &["a", "b"]);
    assert!(!store.is_timed());
    store.insert(at(0), "c", 0, 1, at(10)).expect("fits");
    store.insert(at(0), "d", 0, 1, at(20_000)).expect("fits");
    store.sweep(at(15), 10);
    assert!(store.is_timed(), "there is another");
    assert!(store.renew(at(15), "d", NEVER));
    store.sweep(at(30_000), 10);
    assert!(!store.is_timed());
    let time_to_idle = Some(Duration::from_secs(1));
    assert!(self::store(StoreConfig { time_to_idle, ..StoreConfig::default() }).is_timed());
}
