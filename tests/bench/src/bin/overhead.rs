//! What an entry costs beyond its key and value: every cache filled to its capacity, and the allocator asked.
//!
//! `cargo run --release -p larder-bench --bin overhead`. A program of its own, since counting would slow the others down.

use std::alloc::System;
use std::time::Duration;

use bytes::Bytes;
use larder_engine::Instant;
use larder_engine::store::{Store, StoreConfig};
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

// Of the memory suite: this program fills what that one times.
#[path = "../memory_suite/contenders.rs"]
mod contenders;

use contenders::Entry;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What the allocator itself notes beside each allocation.
const HEADER: isize = 8;

const NUMBERS: usize = 1_000_000;
const TEXTS: usize = 200_000;

const NAMES: [&str; 15] = [
    "larder",
    "larder.lru",
    "larder.store",
    "larder.store.lru",
    "larder.store.ttl",
    "quick_cache",
    "quick_cache.unsync",
    "moka",
    "mini-moka",
    "foyer",
    "stretto",
    "lru",
    "schnellru",
    "cached.ttl",
    "hashbrown",
];

fn main() {
    println!("bytes for each entry beyond key and value");
    println!("{:20}{:>20}{:>26}", "", "1 M u64 to u64", "200 k String to 100 B");
    for name in NAMES {
        let numbers = overhead::<u64, u64>(name, NUMBERS);
        let texts = overhead::<String, Bytes>(name, TEXTS);
        if let (Some(numbers), Some(texts)) = (numbers, texts) {
            println!("{name:20}{numbers:>20.1}{texts:>26.1}");
        }
    }
    reschedule();
}

/// `None` for a name that nobody has.
fn overhead<K: Entry, V: Entry>(name: &str, entries: usize) -> Option<f64> {
    // Keys and values alone, each of which is allocated as often as the cache will have it.
    let region = Region::new(ALLOCATOR);
    let payload: Vec<(K, V)> = (0..entries as u64).map(entry).collect();
    let payload_bytes = held(&region) - HEADER;
    drop(payload);

    let region = Region::new(ALLOCATOR);
    let mut handles = contenders::make::<K, V>(name, entries, 1)?;
    for (key, value) in (0..entries as u64).map(entry) {
        handles.first_mut()?.insert(key, value);
    }
    // Some take in what was inserted later, by a thread of their own.
    std::thread::sleep(Duration::from_millis(300));
    let (last, _) = entry::<K, V>(entries as u64 - 1);
    std::hint::black_box(handles.first_mut()?.get(&last));
    Some((held(&region) - payload_bytes) as f64 / entries as f64)
}

fn entry<K: Entry, V: Entry>(number: u64) -> (K, V) {
    (K::of(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)), V::of(number))
}

fn held(region: &Region<'_, System>) -> isize {
    let change = region.change();
    let count = change.allocations as isize - change.deallocations as isize;
    change.bytes_allocated as isize - change.bytes_deallocated as isize + HEADER * count
}

/// How long moving a deadline takes in a store of many, the look-up of the key left out: to any time, and to a later one as
/// renewals do.
fn reschedule() {
    const ENTRIES: u64 = 10_000;
    const MOVES: u64 = 1_000_000;
    let config = StoreConfig { max_entries: ENTRIES as usize, ..StoreConfig::default() };
    let mut store = Store::new(config, foldhash::quality::FixedState::default(), Instant::EPOCH);
    let mut random = fastrand::Rng::with_seed(1);
    let times: Vec<Instant> =
        (0..1 << 16).map(|_| Instant::from_nanos(random.u64(1 << 30..1 << 45))).collect();
    let any = |turn: u64| times.get(turn as usize % times.len()).copied().unwrap_or(Instant::NEVER);
    let later = |turn: u64| Instant::from_nanos((1 << 45) + (turn << 20));
    for key in 0..ENTRIES {
        // An entry that weighs nothing is never too large.
        let _ = store.insert(Instant::EPOCH, key, key, 0, any(key));
    }
    let key = |turn: u64| turn * 7_919 % ENTRIES;
    let each = |work: &mut dyn FnMut(u64) -> bool| {
        let started = cpu_time();
        let done = (0..MOVES).filter(|turn| work(*turn)).count();
        cpu_time().saturating_sub(started).as_secs_f64() * 1e9 / done.max(1) as f64
    };
    let found = each(&mut |turn| store.contains(any(turn).min(Instant::EPOCH), &key(turn)));
    let moved = each(&mut |turn| store.renew(Instant::EPOCH, &key(turn), any(turn)));
    let renewed = each(&mut |turn| store.renew(Instant::EPOCH, &key(turn), later(turn)));
    println!(
        "\na deadline among {ENTRIES}: moved to any time in {:.1} ns, to a later one in {:.1} ns, and {found:.1} ns to find the key",
        moved - found,
        renewed - found
    );
}

/// Of this thread: others may be on the machine.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
