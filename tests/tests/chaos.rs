//! A server that is killed, restarted and stopped over and over, under 64 callers: nothing acknowledged is lost, nobody is given
//! another's value, and nobody waits longer than agreed.
//!
//! Runs for some seconds; `LARDER_CHAOS_SECONDS=600 cargo test -p larder-tests --test chaos -- --nocapture` is a long run.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{GRACE, eventually, quick, redis, returns_to_redis, timed};
use larder_tests::RedisServer;
use larder_tokio::{Cache, Reconcile, Source, Tokio};

const CALLERS: u32 = 64;
const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);

/// What a caller saw.
#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    degraded: u64,
    errors: u64,
    longest: Duration,
}

/// A caller with a key of its own: so he knows what must be in it.
struct Caller {
    cache: Cache,
    key: String,
    rng: fastrand::Rng,
    /// What was accepted last, and what may have been accepted since: a call that ended with an error.
    accepted: Option<String>,
    perhaps: Vec<Option<String>>,
    writes: u64,
    tally: Tally,
}

impl Caller {
    fn new(cache: &Cache, id: u32) -> Self {
        Self {
            cache: cache.clone(),
            key: format!("k{id}"),
            rng: fastrand::Rng::with_seed(u64::from(id)),
            accepted: None,
            perhaps: Vec::new(),
            writes: 0,
            tally: Tally::default(),
        }
    }

    async fn call(&mut self) {
        let (cache, key) = (self.cache.clone(), self.key.clone());
        let took = match self.rng.u32(..10) {
            0..5 => {
                let (found, took) = timed(cache.lookup::<String>(&key)).await;
                let found = found.expect("somebody answers");
                self.tally.degraded += u64::from(found.source != Source::Primary);
                self.holds(&found.value);
                took
            }
            5..9 => {
                self.writes += 1;
                let value = format!("{key}.{}", self.writes);
                let (result, took) = timed(cache.set(&key, &value)).await;
                self.wrote(Some(value), result.is_ok());
                took
            }
            _ => {
                let (result, took) = timed(cache.delete(&key)).await;
                self.wrote(None, result.is_ok());
                took
            }
        };
        self.tally.calls += 1;
        self.tally.longest = self.tally.longest.max(took);
    }

    fn wrote(&mut self, value: Option<String>, accepted: bool) {
        if accepted {
            self.accepted = value;
            self.perhaps.clear();
        } else {
            self.tally.errors += 1;
            self.perhaps.push(value);
        }
    }

    fn holds(&self, value: &Option<String>) {
        let (key, accepted, perhaps) = (&self.key, &self.accepted, &self.perhaps);
        assert!(
            value == accepted || perhaps.contains(value),
            "{key} is {value:?}, not {accepted:?} or {perhaps:?}"
        );
    }
}

/// Kills, restarts and stops the server until `end`; the answer is how often.
fn torment(server: &mut RedisServer, end: Instant) -> (u32, u32) {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut kills, mut stops) = (0, 0);
    let mut sleep = |most: u64| std::thread::sleep(Duration::from_millis(rng.u64(..most)));
    while Instant::now() < end {
        sleep(2_000);
        if (kills + stops) % 2 == 0 {
            kills += 1;
            server.kill();
            sleep(1_500);
            server.restart();
        } else {
            stops += 1;
            server.pause();
            sleep(2_500);
            server.resume();
        }
    }
    (kills, stops)
}

/// In MiB.
fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The policy is for a single writer, which each caller is: then nothing at all may be lost. The server forgets nothing when it is
/// killed.
#[test]
fn a_tormented_server_loses_nothing_that_was_acknowledged() {
    let seconds = std::env::var("LARDER_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut server = RedisServer::builder().args(["--appendonly", "yes", "--appendfsync", "always"]).start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = quick(server.url())
        .operation_timeout(OPERATION_TIMEOUT)
        .stall_timeout(Duration::from_millis(300))
        .reconcile(Reconcile::Overwrite);
    let cache = runtime.block_on(cache.connect(Tokio)).expect("connects");
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|id| {
            let (mut caller, over) = (Caller::new(&cache, id), Arc::clone(&over));
            runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    caller.call().await;
                    tokio::time::sleep(Duration::from_millis(caller.rng.u64(..8))).await;
                }
                caller
            })
        })
        .collect();

    let begun = Instant::now();
    let mut torments = torment(&mut server, begun + Duration::from_secs(seconds) / 2);
    let half_way = resident_memory();
    let more = torment(&mut server, begun + Duration::from_secs(seconds));
    torments = (torments.0 + more.0, torments.1 + more.1);
    let grown = resident_memory().saturating_sub(half_way);
    over.store(true, Ordering::Relaxed);

    runtime.block_on(async {
        let mut sum = Tally::default();
        let mut ended = Vec::new();
        for caller in callers {
            let caller = caller.await.expect("nothing was lost or mixed up");
            sum.calls += caller.tally.calls;
            sum.degraded += caller.tally.degraded;
            sum.errors += caller.tally.errors;
            sum.longest = sum.longest.max(caller.tally.longest);
            ended.push(caller);
        }
        returns_to_redis(&cache).await;
        eventually("the journal is empty", async || redis(&cache).journalled == 0).await;
        for caller in &ended {
            let found = cache.lookup::<String>(&caller.key).await.expect("Redis answers");
            assert_eq!(found.source, Source::Primary);
            caller.holds(&found.value);
        }
        println!(
            "{torments:?} kills and stops, {half_way} MiB half-way, {grown} MiB more at the end: {sum:?}"
        );
        assert!(sum.longest < OPERATION_TIMEOUT + GRACE, "{sum:?}");
        assert!(sum.degraded > 0 && grown < 64, "{sum:?}");
    });
}
