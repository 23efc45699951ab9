//! A monitor that looks at a cache at intervals: connected, breaker, and the error rate *since the last look*. A total since
//! the start would hide an outage after a good day, and ring for ever after a bad one.
//!
//! cargo run --example monitor_health
//!
//! Starts a redis-server of its own, whatever `REDIS_URL` says, because it kills it: a healthy phase, an outage, recovery.

use std::error::Error;
use std::time::{Duration, Instant};

use larder_tests::RedisServer;
use larder_tokio::{BreakerState, Cache, Stats, Tokio};

/// How often to look. A real monitor takes its time: 10 to 30 s.
const INTERVAL: Duration = Duration::from_millis(250);
/// The share of operations that Redis may fail to serve before somebody is told.
const TOLERATED: f64 = 0.1;
/// Looks that a phase may take until it shows what it should.
const PATIENCE: usize = 60;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut server = RedisServer::start();
    // Everything much shorter than the defaults, so that the outage is over in seconds.
    let cache = Cache::redis(server.url())
        .namespace("monitor_health")
        .operation_timeout(Duration::from_millis(500))
        .breaker_threshold(3)
        .breaker_timeout(Duration::from_millis(500))
        .reconnect_backoff_base(Duration::from_millis(50))
        .retry_backoff_max(Duration::from_millis(200))
        .connect(Tokio)
        .await?;
    let traffic = tokio::spawn(serve(cache.clone()));
    let mut monitor = Monitor::new(&cache);

    println!("a healthy server");
    for _ in 0..4 {
        let alerts = monitor.look().await;
        assert_eq!(alerts, [] as [String; 0], "nothing is wrong yet");
    }

    println!("the server is killed");
    server.kill();
    monitor.look_until("the breaker opens", |alerts| alerts.iter().any(|alert| alert.contains("open"))).await;
    monitor.look().await;

    println!("the server is started again");
    server.restart();
    monitor.look_until("all is well again", <[String]>::is_empty).await;
    let alerts = monitor.look().await;
    assert_eq!(alerts, [] as [String; 0], "and it stays well");

    traffic.abort();
    cache.close().await;
    Ok(())
}

/// Some traffic to be watched. It never fails: during the outage the fallback answers.
async fn serve(cache: Cache) {
    for n in 0_u32.. {
        let key = format!("key:{}", n % 50);
        if cache.get::<u32>(&key).await.expect("answered").is_none() {
            let _ = cache.set(&key, &n).await.expect("accepted");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What was seen last, to tell what is new.
struct Monitor<'a> {
    cache: &'a Cache,
    started: Instant,
    last: Stats,
}

impl<'a> Monitor<'a> {
    fn new(cache: &'a Cache) -> Self {
        Self { cache, started: Instant::now(), last: cache.stats() }
    }

    /// Waits for the interval, prints a line, and returns what somebody should be told.
    async fn look(&mut self) -> Vec<String> {
        tokio::time::sleep(INTERVAL).await;
        let now = self.cache.stats();
        let (Some(redis), Some(before)) = (&now.redis, &self.last.redis) else { return Vec::new() };

        let operations = now.total_operations - self.last.total_operations;
        let unserved = redis.unserved - before.unserved;
        // `None` without traffic, which is no error rate at all.
        let error_rate = (operations > 0).then(|| unserved as f64 / operations as f64);
        let trips = redis.circuit_breaker_trips - before.circuit_breaker_trips;

        let mut alerts = Vec::new();
        if !redis.connected {
            alerts.push("not connected".to_owned());
        }
        if redis.circuit_state != BreakerState::Closed {
            alerts.push(format!("breaker {}, the fallback answers", redis.circuit_state));
        } else if trips > 0 {
            alerts.push("the breaker has opened and closed again".to_owned());
        }
        if let Some(rate) = error_rate.filter(|&rate| rate > TOLERATED) {
            alerts.push(format!("{:.0} % of operations not served by Redis", rate * 100.0));
        }
        let state = redis.circuit_state.to_string();
        let rate = error_rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
        println!(
            "  {:5.2} s  {:<13}  breaker {state:<9}  {operations:>4} operations, {rate:>7} unserved{}{}",
            self.started.elapsed().as_secs_f64(),
            if redis.connected { "connected" } else { "not connected" },
            if alerts.is_empty() { "" } else { "  ALERT: " },
            alerts.join("; "),
        );
        self.last = now;
        alerts
    }

    async fn look_until(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) {
        for _ in 0..PATIENCE {
            if is_so(&self.look().await) {
                return;
            }
        }
        panic!("in {PATIENCE} looks it did not come to pass that {what}");
    }
}
