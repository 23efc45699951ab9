//! The shards and the room that they share, under every interleaving that chance comes upon.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p larder --lib interleavings`

use shuttle::{check_random, thread};

use super::*;

const ITERATIONS: usize = 20_000;

type Cache = MemoryCache<u64, u64>;

/// Two shards; values are their own weights.
fn cache(max_entries: usize, max_bytes: Option<u64>, policy: crate::Policy) -> Cache {
    let mut builder = MemoryCache::builder().max_entries(max_entries).shards(2).policy(policy);
    if let Some(max_bytes) = max_bytes {
        builder = builder.max_bytes(max_bytes);
    }
    builder.weigher(|_, value| *value).build().expect("valid")
}

/// Keys of one shard and of the other, in turn.
fn keys(cache: &Cache) -> Vec<u64> {
    let in_shard = |shard: usize| {
        let is_there = move |key: &u64| {
            std::ptr::eq(cache.shard(cache.inner.hasher.hash_one(key)), &cache.inner.shards[shard])
        };
        (0_u64..).filter(is_there).take(3).collect::<Vec<_>>()
    };
    in_shard(0).into_iter().zip(in_shard(1)).flat_map(|(a, b)| [a, b]).collect()
}

/// All shards at one moment: whoever writes holds one lock at a time, so that holding both waits for nobody for ever.
fn check_bounds(cache: &Cache) {
    let stores: Vec<_> = cache.inner.shards.iter().map(Shard::look).collect();
    let entries: usize = stores.iter().map(|store| store.len()).sum();
    let bytes: u64 = stores.iter().map(|store| store.bytes()).sum();
    assert!(entries <= cache.inner.max_entries, "{entries} entries at once");
    assert!(cache.inner.max_bytes.is_none_or(|most| bytes <= most), "{bytes} bytes at once");
}

/// With nobody at work, what is not in the shards is left.
fn check_room(cache: &Cache) {
    check_bounds(cache);
    let (left, stats) = (cache.inner.room.as_ref().expect("two shards").left(), cache.stats());
    assert_eq!(left.entries as usize + stats.current_size, stats.max_entries);
    if let Some(max_bytes) = stats.max_bytes {
        assert_eq!(left.bytes + stats.memory_usage, max_bytes);
    }
    let ended = stats.counters.removals + stats.counters.evictions();
    assert_eq!(stats.counters.inserts, stats.current_size as u64 + ended);
}

#[test]
fn bounds_hold_at_every_moment_and_every_insert_ends() {
    let policies = [crate::Policy::Lru, crate::Policy::Adaptive];
    // Without a bound on bytes, a new entry is exchanged for another.
    for (policy, max_bytes) in policies.into_iter().flat_map(|policy| [(policy, Some(10)), (policy, None)]) {
        let run = move || {
            let cache = cache(2, max_bytes, policy);
            let keys = keys(&cache);
            let mut threads = Vec::new();
            for thread in 0..2 {
                let (cache, keys) = (cache.clone(), keys.clone());
                threads.push(thread::spawn(move || {
                    cache.insert(keys[thread], 4).expect("fits");
                    cache.insert(keys[3 - thread], 10).expect("fits, if all else goes");
                    cache.remove(&keys[thread + 1]);
                    cache.insert(keys[thread + 4], 1).expect("fits");
                }));
            }
            check_bounds(&cache);
            thread::yield_now();
            check_bounds(&cache);
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
            check_room(&cache);
            assert!(!cache.is_empty());
        };
        check_random(run, ITERATIONS);
    }
}

#[test]
fn a_reader_sees_the_value_or_none_and_never_another_keys() {
    let run = || {
        let cache = cache(2, Some(10), crate::Policy::Adaptive);
        let keys = keys(&cache);
        let (same, of) = (cache.clone(), keys.clone());
        let writer = thread::spawn(move || {
            for turn in 0..3 {
                same.insert(of[turn], turn as u64 + 1).expect("fits");
            }
            same.clear();
            same.insert(of[0], 7).expect("fits");
        });
        for _ in 0..2 {
            for (turn, key) in (0..3).zip(&keys) {
                let found = cache.get(key);
                assert!(found.is_none_or(|value| value == turn + 1 || turn == 0 && value == 7), "{found:?}");
            }
        }
        writer.join().expect("no panic");
        assert_eq!(cache.get(&keys[0]), Some(7));
        check_room(&cache);
    };
    check_random(run, ITERATIONS);
}
