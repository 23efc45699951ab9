//! The same work in memory and on Redis: 100 different keys, written and then read, by one caller and by a hundred.
//!
//! cargo run --release --example compare_backends
//!
//! Starts a redis-server of its own; `REDIS_URL` names another. It shows orders of magnitude: in memory an operation is a
//! function call, on Redis it is a round trip, which callers at the same time share. To compare clients with each other,
//! use larder-bench.

use std::error::Error;
use std::time::{Duration, Instant};

use larder_tests::RedisServer;
use larder_tokio::{Cache, Tokio};
use tokio::task::JoinSet;

const KEYS: usize = 100;
/// How often each key is written, and then read.
const PASSES: usize = 50;

#[derive(Clone, Copy)]
enum Phase {
    Write,
    Read,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (url, _server) = match std::env::var("REDIS_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = RedisServer::start();
            (server.url(), Some(server))
        }
    };
    let memory = Cache::memory().namespace("compare_backends").max_entries(1_000).build()?;
    // Without the fallback: a table of what this process remembers would say nothing about Redis.
    let redis = Cache::redis(url).namespace("compare_backends").fallback(false).connect(Tokio).await?;

    println!("{KEYS} keys, each written {PASSES} times and then read {PASSES} times\n");
    println!("backend  callers  write time      ops/s   read time      ops/s  hit rate");
    for cache in [&memory, &redis] {
        cache.clear().await?;
        for callers in [1, KEYS] {
            let writing = run(cache, callers, Phase::Write).await?;
            let before = cache.stats();
            let reading = run(cache, callers, Phase::Read).await?;
            let after = cache.stats();

            let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
            println!(
                "{:<7} {callers:>8} {} {} {:>8.1}%",
                after.backend,
                Rate(writing),
                Rate(reading),
                100.0 * hits as f64 / (hits + misses) as f64,
            );
            assert_eq!((hits as usize, misses), (KEYS * PASSES, 0), "what was written is found");
        }
        let removed = cache.clear().await?.removed;
        assert_eq!(removed, KEYS as u64, "there were {KEYS} different keys");
    }
    if cfg!(debug_assertions) {
        println!("\nA debug build: take --release for times that mean something.");
    }
    redis.close().await;
    Ok(())
}

/// Divides the keys among the callers, lets them all work at once, and waits for the last.
async fn run(cache: &Cache, callers: usize, phase: Phase) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let cache = cache.clone();
        tasks.spawn(async move { work(&cache, (caller..KEYS).step_by(callers), phase).await });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(started.elapsed())
}

async fn work(
    cache: &Cache,
    keys: impl Iterator<Item = usize> + Clone,
    phase: Phase,
) -> Result<(), larder_tokio::Error> {
    for _ in 0..PASSES {
        for i in keys.clone() {
            let key = format!("key:{i}");
            match phase {
                Phase::Write => drop(cache.set(&key, &format!("value of {key}")).await?),
                Phase::Read => {
                    let value: Option<String> = cache.get(&key).await?;
                    assert_eq!(value, Some(format!("value of {key}")));
                }
            }
        }
    }
    Ok(())
}

/// The time that `KEYS * PASSES` operations took, and how many that is per second.
struct Rate(Duration);

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs_f64();
        write!(f, "{:>8.1} ms {:>10.0}", seconds * 1e3, (KEYS * PASSES) as f64 / seconds)
    }
}
