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
/// renewals do. Time goes by meanwhile, and sweeps look after those whose bucket it has reached, at the movers' cost. Medians
/// of rounds, since a processor is not always equally fast.
fn reschedule() {
    const ENTRIES: u64 = 10_000;
    const ROUNDS: usize = 31;
    const MOVES: u64 = 100_000;
    const MOVES_PER_SWEEP: u64 = 64;
    const HOUR: u64 = 3_600_000;
    let config = StoreConfig { max_entries: ENTRIES as usize, ..StoreConfig::default() };
    let mut store = Store::new(config, foldhash::quality::FixedState::default(), Instant::EPOCH);
    let mut random = fastrand::Rng::with_seed(1);
    let times: Vec<Duration> =
        (0..1 << 16).map(|_| Duration::from_millis(random.u64(HOUR..10 * HOUR))).collect();
    let key = |turn: u64| turn * 7_919 % ENTRIES;
    let now = |turn: u64| Instant::from_millis(10 * turn);
    let any = |turn: u64| {
        now(turn).saturating_add(times.get(turn as usize % times.len()).copied().unwrap_or_default())
    };
    let later = |turn: u64| now(turn).saturating_add(Duration::from_millis(11 * HOUR));
    for key in 0..ENTRIES {
        // An entry that weighs nothing is never too large.
        let _ = store.insert(now(0), key, key, 0, any(key));
    }
    let mut turn = 0;
    let mut each = |work: &dyn Fn(&mut Store<_, _, _>, u64) -> bool| {
        let (started, mut done) = (cpu_time(), 0);
        for _ in 0..MOVES {
            turn += 1;
            done += u64::from(work(&mut store, turn));
            if turn % MOVES_PER_SWEEP == 0 {
                store.sweep(now(turn), usize::MAX);
            }
        }
        assert_eq!(done, MOVES, "every key is there");
        cpu_time().saturating_sub(started).as_secs_f64() * 1e9 / MOVES as f64
    };
    let [mut found, mut moved, mut renewed] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let alone = each(&|store, turn| store.contains(now(turn).min(any(turn)), &key(turn)));
        found.push(alone);
        moved.push(each(&|store, turn| store.renew(now(turn), &key(turn), any(turn))) - alone);
        renewed.push(each(&|store, turn| store.renew(now(turn), &key(turn), later(turn))) - alone);
    }
    let [found, moved, renewed] = [found, moved, renewed].map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        rounds.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
    });
    println!(
        "\na deadline among {ENTRIES}: moved to any time in {moved:.1} ns, to a later one in {renewed:.1} ns, and {found:.1} ns to find the key"
    );
}

/// Of this thread: others may be on the machine.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
