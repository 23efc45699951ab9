//! Caches in memory: the same keys to everyone, from one thread and from two.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::args::Options;
use crate::contender::Result;
use crate::progress::Progress;
use crate::report::{Better, Metric, Report, Role};
use crate::trace_suite::traces::Zipf;

mod contenders;

use contenders::{Contender, Entry};

/// Who takes part, by the name they have in tables. A handle for each thread comes from the maker.
pub(crate) const CONTENDERS: [(&str, Role); 15] = [
    ("larder", Role::Subject),
    ("larder.lru", Role::Mark),
    ("larder.store", Role::Mark),
    ("larder.store.lru", Role::Mark),
    ("larder.store.ttl", Role::Mark),
    ("quick_cache", Role::Peer),
    ("moka", Role::Peer),
    ("foyer", Role::Peer),
    ("mini-moka", Role::Peer),
    // It takes in more than its capacity and drops the rest later: its hits say nothing.
    ("stretto", Role::Mark),
    ("quick_cache.unsync", Role::Mark),
    ("lru", Role::Mark),
    ("schnellru", Role::Mark),
    ("cached.ttl", Role::Mark),
    ("hashbrown", Role::Mark),
];

const METRICS: [Metric; 3] = [
    Metric { name: "cpu_ns_per_op", heading: "CPU ns/op", better: Better::Lower },
    Metric { name: "mops_per_s", heading: "Mop/s", better: Better::Higher },
    Metric { name: "hit_ratio", heading: "hits", better: Better::Higher },
];

/// Keys for each entry that fits.
const KEYS_PER_ENTRY: u64 = 4;

/// What is done, apart from by whom.
struct Scenario {
    capacity: usize,
    exponent: f64,
    mix: Mix,
    threads: usize,
}

#[derive(Clone, Copy)]
enum Mix {
    /// What is not there is put in.
    ReadThrough,
    /// So many of a hundred operations write, whatever is there; a miss is left alone.
    Writes(u64),
    /// As for reading through, and every fourth operation asks for what nobody has asked for in a long while.
    Scan,
}

impl Mix {
    fn name(self) -> String {
        match self {
            Self::ReadThrough => "read-through".to_owned(),
            Self::Scan => "read-through with a scan".to_owned(),
            Self::Writes(percent) => format!("{}/{percent}", 100 - percent),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<Report> {
    let capacities: &[usize] = if options.quick { &[10_000] } else { &[10_000, 100_000, 1_000_000] };
    let exponents: &[f64] = if options.quick { &[1.0] } else { &[0.8, 1.0, 1.2] };
    let mut scenarios = Vec::new();
    for &capacity in capacities {
        for &exponent in exponents {
            for mix in [Mix::Writes(5), Mix::Writes(25), Mix::ReadThrough, Mix::Scan] {
                scenarios.extend([1, 2].map(|threads| Scenario { capacity, exponent, mix, threads }));
            }
        }
    }
    let chosen: Vec<_> = CONTENDERS.into_iter().filter(|(name, _)| options.is_chosen(name)).collect();
    let heading = format!(
        "caches in memory, zipf over {KEYS_PER_ENTRY} keys for each entry that fits; medians of {} rounds of {} s, with min..max",
        options.rounds,
        options.measure.as_secs_f64()
    );
    let mut report = Report::new("memory", heading, &METRICS, chosen.iter().copied());
    let mut progress = Progress::new(options.rounds * scenarios.len() * 2);
    for _ in 0..options.rounds {
        for scenario in &scenarios {
            measure_all::<u64, u64>(scenario, "u64", &chosen, options, &mut report, &mut progress);
            measure_all::<String, bytes::Bytes>(
                scenario,
                "String to 100 B",
                &chosen,
                options,
                &mut report,
                &mut progress,
            );
        }
    }
    progress.clear();
    Ok(report)
}

fn measure_all<K: Entry, V: Entry>(
    scenario: &Scenario,
    types: &str,
    chosen: &[(&'static str, Role)],
    options: &Options,
    report: &mut Report,
    progress: &mut Progress,
) {
    let Scenario { capacity, exponent, mix, threads } = scenario;
    let plural = if *threads == 1 { "" } else { "s" };
    let name =
        format!("{types}, {capacity} entries, zipf {exponent}, {}, {threads} thread{plural}", mix.name());
    progress.next(&name, "all");
    let keys = keys::<K>(scenario);
    for (contender, _) in chosen {
        let Some(handles) = contenders::make::<K, V>(contender, *capacity, *threads) else { continue };
        report.add(&name, contender, &measure(scenario, handles, &keys, options.measure));
    }
}

/// What is asked for, in turn: more than there is room for, so that something has to go.
fn keys<K: Entry>(scenario: &Scenario) -> Vec<K> {
    let universe = KEYS_PER_ENTRY * scenario.capacity as u64;
    let zipf = Zipf::new(universe, scenario.exponent);
    let mut random = fastrand::Rng::with_seed(11);
    let number = |turn: usize| match scenario.mix {
        Mix::Scan if turn.is_multiple_of(4) => universe + turn as u64,
        _ => zipf.sample(&mut random),
    };
    // Popular keys are spread over all of them, as they would be.
    let spread = |number: u64| K::of(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (0..(2 * scenario.capacity).max(1 << 18)).map(number).map(spread).collect()
}

/// One value for each of [`METRICS`].
fn measure<K: Entry, V: Entry>(
    scenario: &Scenario,
    handles: Vec<Box<dyn Contender<K, V>>>,
    keys: &[K],
    duration: Duration,
) -> [f64; METRICS.len()] {
    let barrier = Barrier::new(handles.len());
    let begun = |thread: usize| thread * keys.len() / 2;
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let threads: Vec<_> = handles
            .into_iter()
            .enumerate()
            .map(|(thread, mut cache)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut at = begun(thread);
                    // Everything has been asked for once when the measurement begins.
                    pass(&mut *cache, Mix::ReadThrough, keys, &mut at, keys.len());
                    barrier.wait();
                    let (started, cpu) = (Instant::now(), cpu_time());
                    let mut tally = Tally::default();
                    while started.elapsed() < duration {
                        tally.hits += pass(&mut *cache, scenario.mix, keys, &mut at, BATCH);
                        tally.operations += BATCH;
                    }
                    tally.cpu = cpu_time().saturating_sub(cpu);
                    tally.wall = started.elapsed();
                    tally
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let sum = |part: fn(&Tally) -> f64| tallies.iter().map(part).sum::<f64>();
    let operations = sum(|tally| tally.operations as f64);
    [
        sum(|tally| tally.cpu.as_secs_f64()) * 1e9 / operations,
        sum(|tally| tally.operations as f64 / tally.wall.as_secs_f64()) / 1e6,
        sum(|tally| tally.hits as f64) / operations,
    ]
}

/// Operations between two looks at the clock.
const BATCH: usize = 4096;

#[derive(Default)]
struct Tally {
    operations: usize,
    hits: usize,
    cpu: Duration,
    wall: Duration,
}

/// So many operations, from the key `at` on. How many hit; a write counts as one if the mix has writes of its own.
fn pass<K: Entry, V: Entry>(
    cache: &mut dyn Contender<K, V>,
    mix: Mix,
    keys: &[K],
    at: &mut usize,
    operations: usize,
) -> usize {
    let mut hits = 0;
    for turn in 0..operations {
        *at = if *at + 1 < keys.len() { *at + 1 } else { 0 };
        let key = &keys[*at];
        // An odd step through the hundred, so that writes are spread.
        let writes = matches!(mix, Mix::Writes(percent) if turn as u64 * 37 % 100 < percent);
        if writes {
            cache.insert(key.clone(), V::of(*at as u64));
            hits += 1;
        } else if cache.get(key) {
            hits += 1;
        } else if let Mix::ReadThrough | Mix::Scan = mix {
            cache.insert(key.clone(), V::of(*at as u64));
        }
    }
    hits
}

/// Of this thread: others may be on the machine.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_hits_and_misses() {
        let zipf = Zipf::new(4_000, 1.0);
        let mut random = fastrand::Rng::with_seed(1);
        let keys: Vec<String> = (0..20_000).map(|_| String::of(zipf.sample(&mut random))).collect();
        for (name, role) in CONTENDERS {
            for threads in [1, 2] {
                let scenario = Scenario { capacity: 1_000, exponent: 1.0, mix: Mix::ReadThrough, threads };
                let Some(handles) = contenders::make::<String, bytes::Bytes>(name, 1_000, threads) else {
                    assert!(threads == 2 && role == Role::Mark, "{name} is for threads");
                    continue;
                };
                let [cpu, mops, hits] = measure(&scenario, handles, &keys, Duration::from_millis(10));
                assert!(cpu > 0.0 && mops > 0.0 && hits > 0.4 && hits <= 1.0, "{name}: {cpu} {mops} {hits}");
            }
        }
    }
}
