//! What the tests of a Redis that misbehaves share.
#![allow(dead_code, reason = "compiled into each test file, which takes what it needs")]

pub(crate) mod certificates;

use std::future::Future;
use std::time::{Duration, Instant};

use larder::{BreakerState, Cache, RedisBuilder, RedisStats, SetOutcome};

/// How much later than promised a noisy machine may be.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// A cache that gives up and comes back within a second, not a minute.
pub(crate) fn quick(url: String) -> RedisBuilder {
    Cache::redis(url)
        .namespace("t")
        .operation_timeout(Duration::from_secs(1))
        .breaker_timeout(Duration::from_millis(500))
        .reconnect_backoff_base(Duration::from_millis(20))
        .retry_backoff_max(Duration::from_millis(200))
}

pub(crate) fn redis(cache: &Cache) -> RedisStats {
    cache.stats().redis.expect("a cache on Redis")
}

/// Polls for a state, with a generous limit.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        smol::Timer::after(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (future.await, begun.elapsed())
}

pub(crate) async fn returns_to_redis(cache: &Cache) {
    eventually("traffic returns to Redis", async || {
        matches!(cache.set("probe", &1).await, Ok(SetOutcome::Stored)) && redis(cache).connected
    })
    .await;
    eventually("the breaker closes", async || {
        let _ = cache.set("probe", &1).await;
        redis(cache).circuit_state == BreakerState::Closed
    })
    .await;
}
