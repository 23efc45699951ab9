//! What a call costs while Redis is away and the breaker is open: the fallback tier beside a cache that is memory only.

use std::hint::black_box;
use std::time::{Duration, Instant};

use larder_tests::RedisServer;
use larder_tokio::{BreakerState, Cache, Codec, Tokio};

use crate::args::Options;
use crate::contender::Result;
use crate::progress::Progress;
use crate::report::{Better, Metric, Report, Role};

const FALLBACK: &str = "fallback";
const MEMORY: &str = "memory";

/// Who takes part, by the name they have in tables.
pub(crate) const CONTENDERS: [(&str, Role); 2] = [(FALLBACK, Role::Subject), (MEMORY, Role::Mark)];

const METRICS: [Metric; 1] = [Metric { name: "ns_per_call", heading: "ns/call", better: Better::Lower }];

/// What is asked for; the values have 100 bytes.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// A copy of what Redis confirmed, where it is the fallback's.
    Copy,
    /// What was written during the outage.
    Journalled,
    Miss,
    Set,
}

const ROWS: [(&str, Row); 4] = [
    ("get of a copy", Row::Copy),
    ("get of what was written meanwhile", Row::Journalled),
    ("get of nothing", Row::Miss),
    ("set", Row::Set),
];

pub(crate) fn run(options: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report> {
    let mut server = RedisServer::start();
    let fallback = Cache::redis(server.url())
        .codec(Codec::Raw)
        .breaker_threshold(1)
        .breaker_timeout(Duration::from_secs(3_600))
        .connect(Tokio)
        .await?;
    let memory = Cache::memory().codec(Codec::Raw).max_entries(10_000).build()?;
    for cache in [&fallback, &memory] {
        set(cache, "copy").await?;
    }
    server.kill();
    while fallback.stats().redis.is_some_and(|redis| redis.circuit_state != BreakerState::Open) {
        fallback.get_bytes("other").await?;
    }
    for cache in [&fallback, &memory] {
        set(cache, "journalled").await?;
    }

    let contenders: Vec<_> = CONTENDERS.into_iter().filter(|(name, _)| options.is_chosen(name)).collect();
    let heading = format!(
        "Redis is gone and the breaker open; one thread; medians of {} rounds of {} s, with min..max",
        options.rounds,
        options.measure.as_secs_f64()
    );
    let mut report = Report::new("outage", heading, &METRICS, contenders.iter().copied());
    let mut progress = Progress::new(options.rounds * ROWS.len() * contenders.len());
    for _ in 0..options.rounds {
        for (scenario, row) in ROWS {
            for (name, _) in &contenders {
                progress.next(scenario, name);
                let cache = if *name == FALLBACK { &fallback } else { &memory };
                report.add(scenario, name, &[time(cache, row, options.measure).await?]);
            }
        }
    }
    progress.clear();
    Ok(report)
}

/// Nanoseconds per call.
async fn time(cache: &Cache, row: Row, measure: Duration) -> Result<f64> {
    const BATCH: u32 = 1_000;

    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < measure {
        for _ in 0..BATCH {
            match row {
                Row::Copy => drop(black_box(cache.get_bytes("copy").await?)),
                Row::Journalled => drop(black_box(cache.get_bytes("journalled").await?)),
                Row::Miss => drop(black_box(cache.get_bytes("nothing").await?)),
                Row::Set => set(cache, "journalled").await?,
            }
        }
        calls += BATCH;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(calls))
}

async fn set(cache: &Cache, key: &str) -> Result<()> {
    black_box(cache.set_bytes(key, vec![b'x'; 100]).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};

    #[test]
    fn every_row_has_its_figures() {
        let args = ["outage", "--seconds", "0.001", "--rounds", "1"];
        let Ok(Command::Run(options)) = parse(args) else { panic!("{args:?} are valid") };
        let tables = run(&options).expect("all rows work").to_string();
        for (row, _) in ROWS {
            assert!(tables.contains(row), "{tables}");
        }
    }
}
