//! The memory cache, row by row of what it promises. No runtime anywhere: the futures are ready at once.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use larder_tokio::{Cache, Error, MemoryCache, MemoryStats, SetOutcome, Source, Ttl, Undecodable};

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a memory cache never waits"),
    }
}

fn memory(cache: &Cache) -> MemoryStats {
    cache.stats().memory.expect("a memory cache")
}

#[test]
fn m1_needs_no_runtime() {
    let cache = Cache::memory().build().expect("valid");
    assert_eq!(now(cache.set("k", &1)).expect("set"), SetOutcome::Stored);
    assert_eq!(now(cache.lookup::<u32>("k")).expect("get").source, Source::Primary);
    assert_eq!(now(cache.get::<u32>("k")).expect("get"), Some(1));
    assert_eq!(now(cache.server_info("server")).expect("nobody to ask"), None);
    assert_eq!(now(cache.close()), Default::default());
}

#[test]
fn m2_m3_m4_ttl_default_never_and_after() {
    let cache = Cache::memory().default_ttl(Duration::from_millis(30)).build().expect("valid");
    now(cache.set("default", &1)).expect("set");
    now(cache.set("never", &1).ttl(Ttl::Never)).expect("set");
    now(cache.set("after", &1).ttl(Duration::from_secs(60))).expect("set");
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(now(cache.get::<u32>("default")).expect("get"), None);
    assert_eq!(now(cache.get::<u32>("never")).expect("get"), Some(1));
    assert_eq!(now(cache.get::<u32>("after")).expect("get"), Some(1));
    assert_eq!(memory(&cache).expired_items(), 1);
}

#[test]
fn m5_expired_entries_go_without_a_task() {
    let cache = Cache::memory().max_entries(1000).build().expect("valid");
    for n in 0..500 {
        now(cache.set(&format!("short{n}"), &n).ttl(Duration::from_millis(5))).expect("set");
        now(cache.set(&format!("long{n}"), &n)).expect("set");
    }
    std::thread::sleep(Duration::from_millis(20));
    for n in 0..500 {
        now(cache.set(&format!("new{n}"), &n)).expect("set");
    }
    let stats = memory(&cache);
    assert_eq!((stats.current_size, stats.expired_items(), stats.counters.evictions()), (1000, 500, 0));
    for n in 0..500 {
        assert_eq!(now(cache.get(&format!("long{n}"))).expect("get"), Some(n), "a live one was pushed out");
    }
}

#[test]
fn m6_overwriting_in_a_full_cache_evicts_nothing_and_refreshes() {
    let cache = Cache::memory().max_entries(3).build().expect("valid");
    for key in ["a", "b", "c"] {
        now(cache.set(key, key)).expect("set");
    }
    now(cache.set("a", "again")).expect("set");
    assert_eq!(memory(&cache).counters.evictions(), 0);
    now(cache.set("d", "d")).expect("set");
    assert!(!now(cache.exists("b")).expect("exists"), "the least recently used");
    for key in ["a", "c", "d"] {
        assert!(now(cache.exists(key)).expect("exists"), "{key}");
    }
    assert_eq!(memory(&cache).counters.evictions(), 1);
}

#[test]
fn b6_exists_changes_neither_recency_nor_statistics() {
    let cache = Cache::memory().max_entries(2).build().expect("valid");
    now(cache.set("old", &None::<u8>)).expect("set");
    now(cache.set("new", &1)).expect("set");
    assert!(now(cache.exists("old")).expect("exists"), "a stored null is there");
    assert!(!now(cache.exists("none")).expect("exists"));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.hit_rate), (0, 0, None));
    assert_eq!((memory(&cache).counters.hits, memory(&cache).counters.misses), (0, 0));
    now(cache.set("newest", &1)).expect("set");
    assert!(!now(cache.exists("old")).expect("exists"), "it was not refreshed");
}

#[test]
fn m7_any_number_of_threads() {
    let cache: MemoryCache<String, usize> =
        MemoryCache::builder().max_entries(50_000).build().expect("valid");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let cache = cache.clone();
            scope.spawn(move || {
                for n in 0..2_000 {
                    let key = format!("{thread}:{n}");
                    cache.insert(key.clone(), n).expect("fits");
                    assert_eq!(cache.get(key.as_str()), Some(n));
                    assert_eq!(cache.get_with(key.as_str(), |n| n + 1), Some(n + 1));
                    if n % 2 == 0 {
                        assert_eq!(cache.remove(key.as_str()), Some(n));
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert_eq!((cache.len(), stats.current_size), (8_000, 8_000));
    assert_eq!((stats.counters.inserts, stats.counters.removals), (16_000, 8_000));
    assert_eq!(cache.clear(), 8_000);
    assert!(cache.is_empty());
}

#[test]
fn m8_bytes_are_counted_exactly_and_bounded() {
    let cache = Cache::memory().max_bytes(100).max_entry_bytes(60).build().expect("valid");
    now(cache.set_bytes("k", vec![0; 49])).expect("set");
    assert_eq!(memory(&cache).memory_usage, 50);
    now(cache.set_bytes("l", vec![0; 49])).expect("set");
    assert_eq!((memory(&cache).memory_usage, memory(&cache).current_size), (100, 2));
    now(cache.set_bytes("m", vec![0; 9])).expect("set");
    assert_eq!((memory(&cache).memory_usage, memory(&cache).current_size), (60, 2), "the oldest went");
    let error = now(cache.set_bytes("n", vec![0; 60])).expect_err("too large");
    assert!(matches!(error, Error::TooLarge(_)) && error.to_string().contains("max_entry_bytes"), "{error}");
    assert_eq!(memory(&cache).current_size, 2, "nothing was evicted for it");
}

#[test]
fn m9_values_are_the_caches_own() {
    let cache = Cache::memory().build().expect("valid");
    let mut list = vec![1, 2];
    let set = cache.set("k", &list);
    list.push(3);
    now(set).expect("set");
    let mut found: Vec<u8> = now(cache.get("k")).expect("get").expect("a value");
    assert_eq!(found, [1, 2], "as it was when `set` was called");
    found.clear();
    assert_eq!(now(cache.get::<Vec<u8>>("k")).expect("get"), Some(vec![1, 2]));

    let typed: MemoryCache<u8, Vec<u8>> = MemoryCache::builder().build().expect("valid");
    typed.insert(1, vec![1, 2]).expect("fits");
    typed.get(&1).expect("a value").clear();
    assert_eq!(typed.get(&1), Some(vec![1, 2]));
}

#[test]
fn b3_null_miss_and_undecodable_are_three_things() {
    let cache = Cache::memory().build().expect("valid");
    let picky = Cache::memory().undecodable(Undecodable::Error).build().expect("valid");
    for cache in [&cache, &picky] {
        now(cache.set("null", &None::<u8>)).expect("set");
        now(cache.set_bytes("corrupt", "{")).expect("set");
        assert_eq!(now(cache.get::<Option<u8>>("null")).expect("get"), Some(None));
        assert_eq!(now(cache.get::<Option<u8>>("none")).expect("get"), None);
    }
    assert_eq!(now(cache.get::<u8>("corrupt")).expect("a miss"), None);
    assert!(now(picky.get::<u8>("corrupt")).expect_err("no number").is_undecodable());
    assert_eq!((cache.stats().undecodable, picky.stats().undecodable), (1, 1));
}

#[test]
fn b9_bad_keys_are_errors_that_touch_nothing() {
    let cache = Cache::memory().build().expect("valid");
    let too_long = "k".repeat(251);
    for key in ["", "a b", "a\r\nb", "a\tb", "a\0b", too_long.as_str()] {
        assert!(matches!(now(cache.get::<u8>(key)), Err(Error::Key(_))), "{key:?}");
        assert!(matches!(now(cache.set(key, &1)), Err(Error::Key(_))), "{key:?}");
        assert!(matches!(now(cache.exists(key)), Err(Error::Key(_))), "{key:?}");
        assert!(matches!(now(cache.delete(key)), Err(Error::Key(_))), "{key:?}");
    }
    now(cache.set(&"ü".repeat(250), &1)).expect("characters are counted, not bytes");
    assert_eq!(memory(&cache).current_size, 1);
}

#[test]
fn store_does_not_pin_read_buffers() {
    let cache = Cache::memory().build().expect("valid");
    let buffer = Bytes::from(vec![7; 1 << 20]);
    now(cache.set_bytes("k", buffer.slice(100..110))).expect("set");
    let kept = now(cache.get_bytes("k")).expect("get").expect("a value");
    assert_eq!(kept, buffer.slice(100..110));
    assert!(!buffer.as_ptr_range().contains(&kept.as_ptr()), "a slice of the large buffer was kept");
}

#[test]
fn m10_stats_are_true() {
    let cache = Cache::memory().max_entries(7).build().expect("valid");
    assert_eq!(cache.stats().hit_rate, None);
    now(cache.set("k", &1)).expect("set");
    now(cache.set("k", &2)).expect("set");
    for key in ["k", "k", "k", "none"] {
        let _ = now(cache.get::<u32>(key)).expect("get");
    }
    now(cache.delete("k")).expect("delete");
    let stats = cache.stats();
    assert_eq!((stats.backend, stats.hits, stats.misses, stats.hit_rate), ("memory", 3, 1, Some(0.75)));
    assert_eq!((stats.total_operations, stats.sets, stats.deletes, stats.errors), (7, 2, 1, 0));
    assert_eq!((stats.error_rate, stats.undecodable), (Some(0.0), 0));
    let memory = memory(&cache);
    assert_eq!((memory.max_entries, memory.current_size, memory.memory_usage), (7, 0, 0));
    assert_eq!((memory.counters.inserts, memory.counters.updates, memory.counters.removals), (1, 1, 1));
}

#[test]
fn b7_clear_of_a_namespace_leaves_the_others() {
    let a = Cache::memory().namespace("a").build().expect("valid");
    let ab = a.namespace("ab").expect("a good namespace");
    now(a.set("k", &1)).expect("set");
    now(ab.set("k", &1)).expect("set");
    assert_eq!(now(a.clear()).expect("clear").removed, 1);
    assert!(now(ab.exists("k")).expect("exists"));
    let all = a.namespace("").expect("none at all");
    assert_eq!(now(all.clear()).expect("clear").removed, 1);
}

#[test]
fn typed_values_are_made_once_and_expire() {
    let cache: MemoryCache<u32, String> = MemoryCache::builder().build().expect("valid");
    assert_eq!(cache.get_or_insert_with(&1, || "made".to_owned()).expect("fits"), "made");
    assert_eq!(cache.get_or_insert_with(&1, || unreachable!()).expect("fits"), "made");
    cache.insert_with_ttl(2, "short".to_owned(), Duration::from_millis(10)).expect("fits");
    std::thread::sleep(Duration::from_millis(20));
    assert!(!cache.contains(&2));
    assert_eq!(cache.len(), 2, "not swept yet");
    cache.sweep();
    assert_eq!((cache.len(), cache.stats().expired_items()), (1, 1));
}
