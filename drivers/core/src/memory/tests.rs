//! What the cache promises beyond the store it is made of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};

use larder_engine::store::Policy;

use super::shard::Size;
use super::*;

type Sharded = MemoryCache<u64, u64>;

/// Eight shards, values that are their own weights.
fn sharded(max_entries: usize, max_bytes: u64) -> Sharded {
    let builder = MemoryCache::builder().max_entries(max_entries).max_bytes(max_bytes).shards(8);
    builder.weigher(|_, value| *value).build().expect("valid")
}

/// What is left for all shards is what is not in them.
fn check_room(cache: &Sharded) {
    let stats = cache.stats();
    let left = cache.inner.room.as_ref().expect("several shards").left();
    let used = Size { entries: stats.current_size as u64, bytes: stats.memory_usage };
    let bounds = Size { entries: stats.max_entries as u64, bytes: stats.max_bytes.expect("bounded") };
    assert_eq!(left.plus(used), bounds, "{stats:?}");
}

#[test]
fn bounds_are_those_of_all_shards_together() {
    let cache = sharded(20_000, 150_000);
    for key in 0..20_000 {
        cache.insert(key, key % 8).expect("fits");
    }
    assert_eq!((cache.len(), cache.stats().counters.evictions()), (20_000, 0), "there was room");
    for key in 20_000..50_000 {
        cache.insert(key, key % 10).expect("fits");
        assert_eq!(cache.stats().current_size, 20_000);
    }
    check_room(&cache);
    let kept: u64 = (0..50_000).filter_map(|key| cache.get(&key)).sum();
    assert_eq!(kept, cache.stats().memory_usage, "the weight of what is there, and of nothing else");
    for key in 50_000..80_000 {
        cache.insert(key, 20).expect("fits");
        assert!(cache.stats().memory_usage <= 150_000);
    }
    assert_eq!((cache.len(), cache.stats().memory_usage), (7_500, 150_000));
    assert!(cache.remove_if(|key, _| key % 2 == 0) > 0 && cache.remove(&79_999).is_some());
    check_room(&cache);
    cache.clear();
    check_room(&cache);
}

#[test]
fn overwriting_in_full_shards_evicts_nothing() {
    let cache = sharded(1_000, 8_000);
    for turn in 0..3 {
        for key in 0..1_000 {
            cache.insert(key, 8 - turn).expect("fits");
        }
        assert_eq!((cache.len(), cache.stats().counters.evictions()), (1_000, 0));
    }
    check_room(&cache);
    cache.insert_with_ttl(5_000, 1, Duration::ZERO).expect("fits");
    cache.insert(5_000, 8_001).expect_err("too large");
    assert_eq!(
        (cache.len(), cache.stats().counters.evictions()),
        (1_000, 0),
        "what stays out pushes nothing out"
    );
}

#[test]
fn a_shard_that_has_nothing_left_has_others_evict() {
    let cache = sharded(8, 1_000);
    for key in 0..100 {
        cache.insert(key, 1).expect("fits");
        assert_eq!((cache.len() as u64, cache.get(&key)), (8.min(key + 1), Some(1)));
    }
    cache.insert(7_000, 1_000).expect("all of the bytes");
    assert_eq!((cache.len(), cache.get(&7_000)), (1, Some(1_000)));
    cache.insert(7_001, 1).expect("fits");
    assert_eq!((cache.len(), cache.get(&7_001)), (1, Some(1)), "wherever its room came from");
    check_room(&cache);
}

#[test]
fn an_overwrite_whose_old_value_was_evicted_for_it_takes_all_of_its_room() {
    let builder = MemoryCache::builder().max_entries(100).max_bytes(30).shards(2).policy(Policy::Adaptive);
    let cache: Sharded = builder.weigher(|_, value| *value).build().expect("valid");
    for turn in 0..20_000_u64 {
        cache.insert(turn * turn % 7, turn * 31 % 29 + 1).expect("fits");
        assert!(cache.contains(&(turn * turn % 7)) && cache.stats().memory_usage <= 30);
        check_room(&cache);
    }
}

#[test]
fn room_is_neither_lost_nor_made_by_threads() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let builder = MemoryCache::builder().max_entries(300).max_bytes(2_000).shards(4).policy(policy);
        let cache: Sharded = builder.weigher(|_, value| *value).build().expect("valid");
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let cache = cache.clone();
                scope.spawn(move || {
                    for turn in 0..20_000_u64 {
                        let key = turn.wrapping_mul(thread + 7) % 1_000;
                        let inserted = match turn % 16 {
                            0 => Ok(cache.remove(&key)),
                            1 => cache.insert(key, 2_000 - thread),
                            2 => cache.insert_with_ttl(key, 3, Duration::from_micros(turn % 9)),
                            n => cache.insert(key, n),
                        };
                        assert!(inserted.is_ok() && (turn % 64 > 0 || cache.sweep() <= 256));
                    }
                });
            }
        });
        check_room(&cache);
        assert!(cache.len() <= 300 && cache.stats().memory_usage <= 2_000);
    }
}

#[test]
fn a_panic_in_the_callers_code_leaves_the_cache_usable() {
    let cache: MemoryCache<u8, u8> = MemoryCache::builder().build().expect("valid");
    cache.insert(1, 1).expect("fits");
    let look = || cache.get_with(&1, |_| -> u8 { panic!("the caller's") });
    assert!(catch_unwind(AssertUnwindSafe(look)).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| cache.remove_if(|_, _| panic!("the caller's")))).is_err());
    assert_eq!((cache.get(&1), cache.len()), (Some(1), 1));
    cache.insert(2, 2).expect("fits");
    assert_eq!(cache.clear(), 2);
}

#[test]
fn values_of_zero_time_are_never_found() {
    let cache: MemoryCache<u8, u8> = MemoryCache::builder().build().expect("valid");
    cache.insert(1, 1).expect("fits");
    cache.insert_with_ttl(1, 2, Duration::ZERO).expect("fits");
    assert_eq!(cache.get(&1), None);
    cache.insert_with_ttl(1, 3, Duration::MAX).expect("fits");
    assert_eq!(cache.get(&1), Some(3));
}

#[test]
fn reads_that_share_a_shard_count_and_mark() {
    let cache: MemoryCache<u32, u32> =
        MemoryCache::builder().max_entries(100).policy(Policy::Adaptive).build().expect("valid");
    for key in 0..100 {
        cache.insert(key, key).expect("fits");
    }
    // Keys are hashed otherwise in each process: now and then a newcomer is taken for one that is asked for. Without
    // marks 150 or more are lost, with them 4 at most in a thousand runs.
    let mut hits = 0;
    for turn in 0..4_000 {
        match cache.get(&(turn % 50)) {
            Some(value) => assert_eq!(value, turn % 50),
            None => drop(cache.insert(turn % 50, turn % 50)),
        }
        hits = cache.stats().counters.hits;
        cache.insert(1_000 + turn, turn).expect("fits");
    }
    assert!(hits > 3_900, "what is asked for stays: {hits} hits");
    assert_eq!((cache.get(&9_999), cache.len()), (None, 100));
    let counters = cache.stats().counters;
    assert_eq!((counters.hits, counters.misses), (hits, 4_000 - hits + 1));
    cache.insert_with_ttl(1, 1, Duration::from_nanos(1)).expect("fits");
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(cache.get(&1), None, "the clock is read from now on");
}

/// Has the cache go by a clock of the test's, which the answer moves on.
fn set_clock<V>(cache: &mut MemoryCache<u32, V>) -> impl Fn(Duration) + use<V> {
    let passed = Arc::new(AtomicU64::new(0));
    let same = Arc::clone(&passed);
    set_source(cache, move || Duration::from_nanos(same.load(Ordering::Relaxed)));
    move |time| _ = passed.fetch_add(time.as_nanos() as u64, Ordering::Relaxed)
}

fn set_source<V>(cache: &mut MemoryCache<u32, V>, passed: impl Fn() -> Duration + Send + Sync + 'static) {
    let start = std::time::Instant::now();
    let inner = Arc::get_mut(&mut cache.inner).expect("nobody else has it yet");
    inner.clock = Clock::new(move || start + passed());
}

#[test]
fn misses_and_hits_of_entries_without_a_deadline_read_no_clock() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let mut cache: MemoryCache<u32, u32> =
            MemoryCache::builder().policy(policy).shards(1).build().expect("valid");
        let reads = Arc::new(AtomicU64::new(0));
        let same = Arc::clone(&reads);
        set_source(&mut cache, move || Duration::from_nanos(same.fetch_add(1, Ordering::Relaxed)));
        cache.insert(1, 1).expect("fits");
        cache.insert_with_ttl(2, 2, Duration::from_secs(90)).expect("fits");
        let before = reads.load(Ordering::Relaxed);
        assert!(cache.get(&1).is_some() && cache.get(&3).is_none());
        assert!(cache.contains(&1) && !cache.contains(&3));
        assert_eq!(reads.load(Ordering::Relaxed), before, "{policy:?}");
        assert!(cache.get(&2).is_some() && cache.contains(&2));
        assert_eq!(reads.load(Ordering::Relaxed), before + 2, "{policy:?}");
    }
}

#[test]
fn no_clock_is_read_where_no_entry_of_the_shard_has_a_deadline() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let mut cache: MemoryCache<u32, u32> =
            MemoryCache::builder().policy(policy).shards(1).build().expect("valid");
        let reads = Arc::new(AtomicU64::new(0));
        let same = Arc::clone(&reads);
        // A minute passes whenever somebody looks.
        let minutes = move || Duration::from_secs(60 * same.fetch_add(1, Ordering::Relaxed));
        set_source(&mut cache, minutes);
        let reads = || reads.swap(1, Ordering::Relaxed) - 1;
        let all = || {
            for key in 0..10 {
                cache.insert(key, key).expect("fits");
                assert!(
                    cache.get(&key).is_some() && cache.contains(&key) && cache.get(&(key + 20)).is_none()
                );
            }
            assert!(cache.remove(&9).is_some() && cache.iter_snapshot().count() >= 9 && cache.sweep() < 2);
        };
        all();
        assert_eq!(reads(), 0, "{policy:?}");
        cache.insert_with_ttl(10, 10, Duration::from_secs(90)).expect("fits");
        all();
        assert!(reads() > 0 && cache.get(&10).is_none());
        cache.sweep();
        reads();
        all();
        assert_eq!(reads(), 0, "{policy:?}: the last deadline is over");
    }
}

type Told = (u32, u32, RemovalCause);

/// A cache that writes down what its listener is told.
fn told(builder: MemoryCacheBuilder<u32, u32>) -> (MemoryCache<u32, u32>, Receiver<Told>) {
    let (sender, receiver) = channel();
    let tell = move |key: &u32, value: &u32, cause| sender.send((*key, *value, cause)).unwrap_or_default();
    (builder.removal_listener(tell).build().expect("valid"), receiver)
}

#[test]
fn a_read_ends_what_is_over_under_either_policy() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let (mut cache, told) = told(MemoryCache::builder().max_entries(1_000).policy(policy).shards(4));
        let minutes = Arc::new(AtomicU64::new(0));
        let same = Arc::clone(&minutes);
        set_source(&mut cache, move || Duration::from_secs(60 * same.load(Ordering::Relaxed)));
        cache.insert_with_ttl(1, 10, Duration::from_secs(90)).expect("fits");
        assert_eq!(cache.get(&1), Some(10), "{policy:?}");
        minutes.store(2, Ordering::Relaxed);
        assert_eq!((cache.get(&1), cache.len()), (None, 0), "{policy:?}");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(1, 10, RemovalCause::Expired)], "{policy:?}");
        let StoreStats { hits, misses, expired, .. } = cache.stats().counters;
        assert_eq!((hits, misses, expired), (1, 1, 1), "{policy:?}");
        let left = cache.inner.room.as_ref().expect("several shards").left();
        assert_eq!(left.entries, 1_000, "{policy:?}: its room is free again");
    }
}

#[test]
fn the_listener_is_told_of_every_end_and_why() {
    use RemovalCause::{Evicted, Expired, Removed, Replaced};
    let (cache, told) =
        told(MemoryCache::builder().max_entries(3).max_bytes(10).weigher(|_, value| u64::from(*value % 100)));
    let told = || told.try_iter().collect::<Vec<_>>();
    for (key, value) in [(1, 101), (2, 201), (3, 301), (1, 102), (4, 401)] {
        cache.insert(key, value).expect("fits");
    }
    assert_eq!(told(), [(1, 101, Replaced), (2, 201, Evicted)]);
    cache.insert(5, 509).expect("fits");
    assert_eq!(told(), [(3, 301, Evicted), (1, 102, Evicted)], "for a place, and then for the bytes");
    cache.insert(4, 411).expect_err("too large");
    assert_eq!((cache.remove(&5), cache.remove(&5)), (Some(509), None));
    assert_eq!(told(), [(4, 401, Removed), (5, 509, Removed)]);
    cache.insert_with_ttl(6, 601, Duration::from_nanos(1)).expect("fits");
    cache.insert_with_ttl(7, 701, Duration::from_nanos(1)).expect("fits");
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!((cache.get(&6), told()), (None, vec![(6, 601, Expired)]));
    assert_eq!((cache.sweep(), told()), (1, vec![(7, 701, Expired)]));
    for key in 8..11 {
        cache.insert(key, 0).expect("fits");
    }
    cache.insert_with_ttl(8, 1, Duration::ZERO).expect("fits");
    assert_eq!(told(), [(8, 1, Expired), (8, 0, Replaced)]);
    assert_eq!((cache.remove_if(|key, _| *key == 9), told()), (1, vec![(9, 0, Removed)]));
    assert_eq!((cache.clear(), told()), (1, vec![(10, 0, Removed)]));
    cache.insert(11, 0).expect("fits");
    drop(cache);
    assert!(told().is_empty(), "the end of the cache is none of its values");
}

#[test]
fn in_a_full_cache_of_many_shards_each_new_key_has_one_other_evicted() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let builder = MemoryCache::builder().max_entries(100).shards(8).policy(policy);
        let (cache, told) = told(builder);
        for key in 0..1_000 {
            cache.insert(key, key + 7).expect("fits");
            let evicted: Vec<_> = told.try_iter().collect();
            assert_eq!(evicted.len(), usize::from(key >= 100), "{evicted:?} for {key}");
            assert!(evicted.iter().all(|(old, value, cause)| *value == old + 7
                && *cause == RemovalCause::Evicted
                && !cache.contains(old)));
        }
        let (stats, left) = (cache.stats(), cache.inner.room.as_ref().expect("several shards").left());
        assert_eq!((stats.current_size, left.entries), (100, 0), "{policy:?}");
        assert_eq!((stats.counters.inserts, stats.counters.evicted_for_entries), (1_000, 900));
        let held: Vec<_> = cache.iter_snapshot().collect();
        assert!(held.len() == 100 && held.iter().all(|(key, value)| cache.get(key) == Some(*value)));
    }
}

#[test]
fn what_a_call_has_ended_that_panicked_is_told_of_with_what_is_evicted_next() {
    let (cache, told) = told(MemoryCache::builder().max_entries(4).shards(2));
    let shards = &cache.inner.shards;
    let is_in = |key: &u32, at: usize| {
        std::ptr::eq(cache.shard(cache.inner.hasher.hash_one(key)), &raw const shards[at])
    };
    let [first, second] = [0, 1].map(|at| (0_u32..).filter(|key| is_in(key, at)).take(3).collect::<Vec<_>>());
    for key in [first[0], first[1], second[0], second[1]] {
        cache.insert(key, 0).expect("fits");
    }
    let mut asked = 0;
    let second_panics = |_: &u32, _: &u32| {
        asked += 1;
        assert!(asked < 2, "the caller's");
        true
    };
    assert!(catch_unwind(AssertUnwindSafe(|| cache.remove_if(second_panics))).is_err());
    cache.insert(second[2], 0).expect("fits");
    assert_eq!(told.try_iter().count(), 0, "it was of the other shard");
    cache.insert(first[2], 0).expect("fits");
    let causes: Vec<_> = told.try_iter().map(|(key, _, cause)| (key, cause)).collect();
    assert_eq!(causes, [(first[1], RemovalCause::Removed), (first[0], RemovalCause::Evicted)]);
}

#[test]
fn the_listener_may_call_the_cache_and_may_panic() {
    let cache = Arc::new(OnceLock::<MemoryCache<u32, u32>>::new());
    let same = Arc::clone(&cache);
    let listener = move |key: &u32, value: &u32, _| {
        let found = same.get().and_then(|cache| cache.get(key));
        assert_ne!(found, Some(*value), "it is gone already");
        assert!(*key != 3, "the listener's");
    };
    let built = MemoryCache::builder().max_entries(2).removal_listener(listener).build().expect("valid");
    let cache = cache.get_or_init(|| built);
    for key in 1..5 {
        cache.insert(key, key).expect("fits");
    }
    let evicts = || cache.insert(5, 5).expect("fits");
    assert!(catch_unwind(AssertUnwindSafe(evicts)).is_err());
    assert_eq!((cache.get(&3), cache.get(&4), cache.get(&5)), (None, Some(4), Some(5)));
    cache.insert(6, 6).expect("fits");
    assert_eq!(cache.len(), 2);
}

#[test]
fn a_hit_renews_the_time_to_idle_and_nothing_else_does() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let builder = MemoryCache::builder().time_to_idle(Duration::from_secs(40)).policy(policy);
        let mut cache: MemoryCache<u32, u8> = builder.build().expect("valid");
        let pass = set_clock(&mut cache);
        pass(Duration::from_secs(100));
        cache.insert(1, 1).expect("fits");
        cache.insert(2, 2).expect("fits");
        cache.insert_with_ttl(3, 3, Duration::from_secs(50)).expect("fits");
        pass(Duration::from_secs(25));
        assert!(cache.get(&1).is_some() && cache.contains(&2) && cache.get(&3).is_some());
        assert_eq!(cache.iter_snapshot().count(), 3);
        pass(Duration::from_secs(25));
        assert_eq!((cache.get(&2), cache.get(&3)), (None, None), "by idleness, and by its time to live");
        assert_eq!(cache.iter_snapshot().collect::<Vec<_>>(), [(1, 1)]);
        pass(Duration::from_nanos(14_999_999_999));
        assert_eq!(cache.get(&1), Some(1), "{policy:?}");
        pass(Duration::from_secs(40));
        assert_eq!(cache.get(&1), None, "{policy:?}");
    }
}

#[test]
fn jitter_spreads_what_was_set_together_and_never_prolongs() {
    let builder = MemoryCache::builder().default_ttl(Duration::from_secs(100)).ttl_jitter(0.5);
    let mut cache: MemoryCache<u32, u32> = builder.build().expect("valid");
    let pass = set_clock(&mut cache);
    for key in 0..1_000 {
        cache.insert(key, key).expect("fits");
    }
    pass(Duration::from_secs(50));
    assert_eq!(cache.iter_snapshot().count(), 1_000, "half of the time is certain");
    for tenth in 1..10 {
        pass(Duration::from_secs(5));
        let left = cache.iter_snapshot().count();
        assert!(left.abs_diff(1_000 - 100 * tenth) < 60, "{left} are left after {tenth} tenths");
    }
    pass(Duration::from_secs(5));
    assert_eq!(cache.iter_snapshot().count(), 0);
}

#[test]
fn a_snapshot_has_every_live_entry_of_every_shard() {
    let cache: MemoryCache<u32, u32> =
        MemoryCache::builder().max_entries(100_000).shards(8).build().expect("valid");
    for key in 0..1_000 {
        cache.insert(key, key + 1).expect("fits");
    }
    cache.insert_with_ttl(1_000, 0, Duration::from_nanos(1)).expect("fits");
    std::thread::sleep(Duration::from_millis(1));
    let mut all: Vec<_> = cache.iter_snapshot().collect();
    all.sort_unstable();
    assert_eq!(all, (0..1_000).map(|key| (key, key + 1)).collect::<Vec<_>>());
    assert_eq!((cache.len(), cache.stats().counters.hits), (1_001, 0));
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    type Builder = MemoryCacheBuilder<u8, u8>;
    type Set = fn(Builder) -> Builder;
    let cases: [(&str, Set); 7] = [
        ("default_ttl", |builder| builder.default_ttl(Duration::ZERO)),
        ("time_to_idle", |builder| builder.time_to_idle(Duration::ZERO)),
        ("ttl_jitter", |builder| builder.ttl_jitter(1.0)),
        ("ttl_jitter", |builder| builder.ttl_jitter(f64::NAN)),
        ("max_entry_bytes", |builder| builder.max_bytes(5).max_entry_bytes(6)),
        ("shards", |builder| builder.shards(0)),
        ("shards", |builder| builder.shards(1_001)),
    ];
    for (field, set) in cases {
        let error = set(MemoryCache::builder()).build().expect_err("makes no sense");
        assert_eq!(error.field(), field);
    }
}

/// What stays, under a policy that goes by hashes, is the hasher's doing alone.
#[test]
fn a_seeded_hasher_makes_two_caches_alike() {
    let kept = |seed| -> Vec<u32> {
        let cache: MemoryCache<u32, (), _> = MemoryCache::builder()
            .max_entries(100)
            .policy(Policy::Adaptive)
            .hasher(foldhash::quality::FixedState::with_seed(seed))
            .build()
            .expect("valid");
        for turn in 0..5_000_u32 {
            let key = turn.wrapping_mul(turn) % 251;
            if cache.get(&key).is_none() {
                cache.insert(key, ()).expect("fits");
            }
        }
        (0..251).filter(|key| cache.contains(key)).collect()
    };
    assert_eq!(kept(1), kept(1));
    assert_ne!(kept(1), kept(2));
}

#[test]
fn what_has_expired_is_not_shown_to_who_removes_by_value() {
    let mut cache = MemoryCache::builder().build().expect("valid");
    let pass = set_clock(&mut cache);
    cache.insert_with_ttl(1, "old", Duration::from_secs(1)).expect("fits");
    cache.insert(2, "new").expect("fits");
    pass(Duration::from_secs(2));
    let mut shown = Vec::new();
    let removed = cache.remove_if(|_, value| {
        shown.push(*value);
        true
    });
    assert_eq!((removed, shown), (1, vec!["new"]));
}

/// Calls the cache that it was in, which would wait for itself for ever if that were locked.
struct Caller(u32);

static CALLED: OnceLock<MemoryCache<u32, Caller>> = OnceLock::new();

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(cache) = CALLED.get() {
            cache.contains(&self.0);
        }
    }
}

#[test]
fn what_ends_is_dropped_with_no_lock_held() {
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        let cache = CALLED.get_or_init(|| {
            let builder = MemoryCache::builder().max_entries(2).max_bytes(10);
            builder.weigher(|key, _| u64::from(*key)).build().expect("valid")
        });
        for key in [1, 2, 3, 3] {
            cache.insert(key, Caller(key)).expect("fits");
        }
        assert!(cache.insert(11, Caller(11)).is_err());
        cache.insert_with_ttl(3, Caller(3), Duration::ZERO).expect("fits");
        cache.remove(&2);
        cache.insert_with_ttl(4, Caller(4), Duration::from_nanos(1)).expect("fits");
        cache.insert(5, Caller(5)).expect("fits");
        assert_eq!(cache.remove_if(|key, _| *key == 5), 1);
        cache.insert(6, Caller(6)).expect("fits");
        cache.clear();
        done.send(cache.len()).expect("somebody waits");
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(0), "a value was dropped under the lock");
}
