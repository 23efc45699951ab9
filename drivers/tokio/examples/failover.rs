//! Redis dies under load and comes back; the callers notice nothing but who answers.
//!
//! cargo run --example failover
//!
//! Starts a redis-server of its own, whatever `REDIS_URL` says, because it kills it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_tests::RedisServer;
use larder_tokio::{BreakerState, Cache, SetOutcome, Source, Tokio};
use tokio::task::JoinSet;

const CALLERS: usize = 16;
const KEYS: usize = 100;
/// A row of the timeline.
const ROW: Duration = Duration::from_millis(500);
/// How long recovery may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut server = RedisServer::start();
    let cache = Cache::redis(server.url())
        .namespace("failover")
        .breaker_threshold(3)
        .breaker_timeout(Duration::from_secs(1))
        .reconnect_backoff_base(Duration::from_millis(50))
        .retry_backoff_max(Duration::from_millis(500))
        .connect(Tokio)
        .await?;

    let tally = Arc::new(Tally::default());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(call(cache.clone(), Arc::clone(&tally), caller));
    }
    let mut timeline = Timeline::new(&cache, &tally);

    timeline.watch(Duration::from_secs(1)).await;
    assert_eq!(cache.get::<String>("note").await?, None, "so it is known that Redis has none");
    let healthy = timeline.end_phase();

    timeline.note("redis-server is killed");
    server.kill();
    timeline.watch(Duration::from_secs(1)).await;
    assert_eq!(cache.set("note", "written in the outage").await?, SetOutcome::StoredInFallback);
    timeline.watch(Duration::from_secs(1)).await;
    assert_eq!(cache.get::<String>("note").await?.as_deref(), Some("written in the outage"));
    let outage = timeline.end_phase();

    timeline.note("redis-server is started again, empty");
    server.restart();
    timeline.watch_until_well().await;
    let recovery = timeline.end_phase();

    timeline.watch(Duration::from_secs(1)).await;
    let after = timeline.end_phase();
    let note = cache.lookup::<String>("note").await?;
    callers.shutdown().await;

    println!("\nphase       by Redis  by the fallback  errors");
    for (name, [redis, fallback, errors]) in
        [("healthy", healthy), ("outage", outage), ("recovery", recovery), ("after", after)]
    {
        println!("{name:<9} {redis:>10} {fallback:>16} {errors:>7}");
        assert_eq!(errors, 0, "no caller sees the outage as an error");
    }
    assert!(healthy[0] > 0 && healthy[1] == 0, "Redis answers while it is there");
    assert!(outage[1] > 0, "the fallback answers when it is not");
    assert!(after[0] > 0 && after[1] == 0, "and Redis again when it is back");

    assert_eq!((note.value.as_deref(), note.source), (Some("written in the outage"), Source::Primary));
    println!("\nThe note that was written in the outage is in Redis now.");
    println!("\n{}", cache.stats());
    cache.close().await;
    Ok(())
}

/// One of many callers: reads, and writes what it does not find or every tenth time.
async fn call(cache: Cache, tally: Arc<Tally>, caller: usize) {
    for n in 0.. {
        let key = format!("key:{}", (caller * 7 + n) % KEYS);
        let found = cache.lookup::<usize>(&key).await;
        let must_write = n % 10 == 0 || found.as_ref().is_ok_and(|found| found.value.is_none());
        tally.count(found.map(|found| found.source == Source::Primary));
        if must_write {
            tally.count(cache.set(&key, &n).await.map(|outcome| outcome == SetOutcome::Stored));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Answers by Redis, answers by the fallback, and errors.
#[derive(Default)]
struct Tally([AtomicU64; 3]);

impl Tally {
    fn count(&self, by_redis: Result<bool, larder_tokio::Error>) {
        let index = by_redis.map_or(2, |by_redis| usize::from(!by_redis));
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> [u64; 3] {
        [0, 1, 2].map(|index| self.0[index].load(Ordering::Relaxed))
    }
}

/// Prints what happens, as it happens.
struct Timeline<'a> {
    cache: &'a Cache,
    tally: &'a Tally,
    started: Instant,
    breaker: BreakerState,
    /// The counts when the latest row was printed, and when the phase began.
    row: [u64; 3],
    phase: [u64; 3],
}

impl<'a> Timeline<'a> {
    fn new(cache: &'a Cache, tally: &'a Tally) -> Self {
        println!("seconds    by Redis  by the fallback  errors  breaker");
        let breaker = BreakerState::Closed;
        Self { cache, tally, started: Instant::now(), breaker, row: [0; 3], phase: [0; 3] }
    }

    /// Prints rows for this long, and changes of the breaker when they are seen.
    async fn watch(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let row = (Instant::now() + ROW).min(end);
            while Instant::now() < row {
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.follow_breaker();
            }
            self.print_row();
        }
    }

    /// Until the breaker is closed, and Redis has what was written meanwhile.
    async fn watch_until_well(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let journalled = |cache: &Cache| cache.stats().redis.map_or(0, |redis| redis.journalled);
        while self.follow_breaker() != BreakerState::Closed || journalled(self.cache) > 0 {
            assert!(Instant::now() < deadline, "all is not well within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.print_row();
    }

    /// The counts of the phase that ends here.
    fn end_phase(&mut self) -> [u64; 3] {
        let now = self.tally.now();
        difference(now, std::mem::replace(&mut self.phase, now))
    }

    fn follow_breaker(&mut self) -> BreakerState {
        let state = self.cache.stats().redis.map_or(BreakerState::Closed, |redis| redis.circuit_state);
        if state != self.breaker {
            self.note(&format!("breaker: {} -> {state}", self.breaker));
            self.breaker = state;
        }
        state
    }

    fn print_row(&mut self) {
        let now = self.tally.now();
        let [redis, fallback, errors] = difference(now, std::mem::replace(&mut self.row, now));
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{seconds:7.2} {redis:>11} {fallback:>16} {errors:>7}  {}", self.breaker);
    }

    fn note(&self, what: &str) {
        println!("{:7.2}   {what}", self.started.elapsed().as_secs_f64());
    }
}

fn difference(now: [u64; 3], before: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|index| now[index] - before[index])
}
