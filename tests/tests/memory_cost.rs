//! What an entry in memory costs, counted by the allocator. That counts for the whole process, so there is no harness: its
//! threads, which report one test and start the next, would be counted too.

use std::alloc::System;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use larder_tokio::{Cache, MemoryCache, Policy, Ttl};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    for (name, test) in [
        ("an_entry_costs_what_it_is_said_to", an_entry_costs_what_it_is_said_to as fn()),
        (
            "a_hit_allocates_nothing_and_an_insert_into_a_full_cache_neither",
            a_hit_allocates_nothing_and_an_insert_into_a_full_cache_neither,
        ),
        ("a_stored_value_keeps_no_larger_buffer_alive", a_stored_value_keeps_no_larger_buffer_alive),
    ] {
        test();
        println!("test {name} ... ok");
    }
}

/// The bytes that are allocated since, and what the allocator itself notes beside each.
fn held(region: &Region<'_, System>) -> f64 {
    const HEADER: isize = 8;
    let change = region.change();
    let count = change.allocations as isize - change.deallocations as isize;
    // What an allocation has grown or shrunk by is in the first two numbers already.
    (change.bytes_allocated as isize - change.bytes_deallocated as isize + HEADER * count) as f64
}

/// Bytes for each of so many entries beyond keys and values, with deadlines or without, when so many times as many came in.
fn overhead<K, V>(
    count: usize,
    times: usize,
    policy: Policy,
    ttl: Ttl,
    entry: impl Fn(u64) -> (K, V),
    payload: usize,
) -> f64
where
    K: std::hash::Hash + Eq,
{
    let region = Region::new(ALLOCATOR);
    let cache = MemoryCache::builder().max_entries(count).policy(policy).build().expect("valid");
    for number in 0..(count * times) as u64 {
        let (key, value) = entry(number);
        cache.insert_with_ttl(key, value, ttl).expect("fits");
    }
    assert_eq!(cache.len(), count);
    held(&region) / count as f64 - payload as f64
}

/// In sizes that suit the index of one shard least and best: just over those for which it doubles, and just below. And as well
/// when many entries have come and gone as when the cache has just been filled.
fn an_entry_costs_what_it_is_said_to() {
    const HOUR: Ttl = Ttl::After(std::time::Duration::from_secs(3_600));
    let number = |number| (number, number);
    let key = |number: u64| format!("user:profile:{number:016x}").into_boxed_str().into_string();
    let text = |number: u64| (key(number), Bytes::from(vec![0; 100]));
    // Twice the header, for a key and a value of their own.
    let text_payload = size_of::<(String, Bytes)>() + 29 + 100 + 2 * 8;
    for (policy, ttl, most) in [
        (Policy::Lru, Ttl::Never, &[(9_600, 37.5), (9_500, 29.0), (14_000, 32.0), (15_000, 32.0)][..]),
        (Policy::Lru, HOUR, &[(9_600, 48.0), (9_500, 39.5), (14_000, 42.5), (15_000, 42.5)]),
        // In shards, of which none knows how many of the entries it will have.
        (Policy::Adaptive, Ttl::Never, &[(14_000, 63.0), (15_000, 62.0)]),
    ] {
        for &(count, most) in most {
            for times in [1, 10] {
                let numbers = overhead(count, times, policy, ttl, number, size_of::<(u64, u64)>());
                let texts = overhead(count, times, policy, ttl, text, text_payload);
                println!("{policy:?} {ttl:?} {count} {times}: {numbers:.1} {texts:.1}");
                let case = format!("{policy:?} {count} {times}: {numbers} {texts} {most}");
                assert!(numbers <= most && texts <= most + 1.0, "{case}");
            }
        }
    }
}

fn a_hit_allocates_nothing_and_an_insert_into_a_full_cache_neither() {
    for policy in [Policy::Lru, Policy::Adaptive] {
        let cache =
            MemoryCache::<u64, u64>::builder().max_entries(1_000).policy(policy).build().expect("valid");
        for key in 0..3_000 {
            cache.insert(key, key).expect("fits");
        }
        let region = Region::new(ALLOCATOR);
        for key in 3_000..5_000 {
            cache.insert(key, key).expect("fits");
            assert!(cache.get(&(key - 1)).is_some() || policy == Policy::Adaptive);
        }
        assert_eq!(region.change().allocations + region.change().reallocations, 0, "{policy:?}");
    }
}

fn a_stored_value_keeps_no_larger_buffer_alive() {
    const BUFFER: usize = 1 << 20;
    let cache = Cache::memory().build().expect("valid");
    let region = Region::new(ALLOCATOR);
    for number in 0..50_usize {
        let buffer = Bytes::from(vec![7; BUFFER]);
        let set = cache.set_bytes(&number.to_string(), buffer.slice(number..number + 10));
        drop(buffer);
        now(set).expect("set");
    }
    let held = held(&region);
    assert!(held < 30_000.0, "{held} bytes are held for 50 values of 10 bytes");
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a memory cache never waits"),
    }
}
