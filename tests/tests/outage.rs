//! Redis stalls, dies, comes back: nobody hangs, nobody gets another's value, and traffic returns.

mod common;

use std::time::{Duration, Instant};

use common::{GRACE, eventually, quick, redis, returns_to_redis, timed};
use larder_tests::{RedisServer, free_port};
use larder_tokio::{BreakerState, SetOutcome, Source, Tokio};
use tokio::task::JoinSet;

/// R3, B8.
#[tokio::test]
async fn a_stopped_server_delays_nobody_beyond_the_timeout() {
    let server = RedisServer::start();
    let with = quick(server.url()).connect(Tokio).await.expect("connects");
    let without = quick(server.url()).fallback(false).connect(Tokio).await.expect("connects");
    with.set("k", "mirrored").await.expect("set");
    server.pause();
    let mut slowest = Duration::ZERO;
    for round in 0..6 {
        let (found, took) = timed(with.lookup::<String>("k")).await;
        let found = found.expect("the fallback answers");
        assert_eq!(found.value.as_deref(), Some("mirrored"), "round {round}");
        assert!(matches!(found.source, Source::Fallback { .. }));
        slowest = slowest.max(took);
        let (result, took) = timed(without.get::<String>("k")).await;
        assert!(result.expect_err("nobody answers").is_unavailable());
        slowest = slowest.max(took);
        for cache in [&with, &without] {
            let begun = Instant::now();
            drop(cache.stats());
            assert!(begun.elapsed() < Duration::from_millis(500), "stats() asks nobody");
        }
    }
    println!("slowest call on a stopped server with a timeout of 1 s: {slowest:?}");
    assert!(slowest < Duration::from_secs(1) + GRACE, "{slowest:?}");
    server.resume();
    returns_to_redis(&with).await;
    returns_to_redis(&without).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_under_load_loses_and_mixes_up_nothing() {
    let mut server = RedisServer::start();
    let cache = quick(server.url()).connect(Tokio).await.expect("connects");
    for n in 0..1000 {
        cache.set(&format!("k{n}"), &n).await.expect("set");
    }
    let mut callers = JoinSet::new();
    for n in 0..1000_u32 {
        let cache = cache.clone();
        callers.spawn(async move {
            let key = format!("k{n}");
            let mut slowest = Duration::ZERO;
            for round in 0..20 {
                let ((), took) = timed(async {
                    match (n + round) % 4 {
                        0 => drop(cache.set(&key, &n).await.expect("accepted")),
                        1 => drop(cache.exists(&key).await.expect("answered")),
                        _ => {
                            let value = cache.get::<u32>(&key).await.expect("answered");
                            assert!(value.is_none_or(|value| value == n), "{key} holds {value:?}");
                        }
                    }
                })
                .await;
                slowest = slowest.max(took);
                tokio::time::sleep(Duration::from_millis(u64::from(n % 7))).await;
            }
            slowest
        });
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    server.kill();
    let mut slowest = Duration::ZERO;
    while let Some(took) = callers.join_next().await {
        slowest = slowest.max(took.expect("no caller fails"));
    }
    println!("slowest of 20 000 operations while the server was killed: {slowest:?}");
    assert!(slowest < Duration::from_secs(1) + GRACE, "{slowest:?}");
    eventually("the breaker opens", async || {
        assert!(cache.get::<u32>("k1").await.is_ok());
        redis(&cache).circuit_state == BreakerState::Open
    })
    .await;
    assert!(redis(&cache).fallback_hits > 0);
    server.restart();
    returns_to_redis(&cache).await;
    cache.set("after", &1).await.expect("set");
    assert_eq!(server.cli(&["GET", "t:after"]), "1");
}

#[tokio::test]
async fn starts_and_serves_with_redis_down() {
    let mut server = RedisServer::start();
    server.kill();
    let cache = quick(server.url()).connect(Tokio).await.expect("starts degraded");
    assert_eq!(cache.set("k", &1).await.expect("accepted"), SetOutcome::StoredInFallback);
    let found = cache.lookup::<u32>("k").await.expect("answered");
    assert_eq!(found.value, Some(1));
    assert!(matches!(found.source, Source::Fallback { .. }));
    assert!(!redis(&cache).connected && redis(&cache).last_connection_error.is_some());
    server.restart();
    returns_to_redis(&cache).await;
    assert_eq!(server.cli(&["EXISTS", "t:probe"]), "1");

    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let lazy = quick(nowhere).fallback(false).connect_lazy(Tokio).expect("valid");
    let (result, took) = timed(lazy.get::<u32>("k")).await;
    assert!(result.expect_err("nobody is there").is_unavailable());
    assert!(took < Duration::from_secs(1) + GRACE, "{took:?}");
}

/// Every operation answers degraded, deletes and clears too.
#[tokio::test]
async fn the_fallback_answers_every_operation() {
    let mut server = RedisServer::start();
    let cache = quick(server.url()).connect(Tokio).await.expect("connects");
    cache.set("mirrored", &1).await.expect("set");
    cache.set("deleted", &2).await.expect("set");
    server.kill();
    assert_eq!(cache.get::<u32>("mirrored").await.expect("answered"), Some(1));
    assert!(cache.exists("mirrored").await.expect("answered"));
    assert!(cache.delete("deleted").await.expect("answered"));
    assert_eq!(cache.get::<u32>("deleted").await.expect("answered"), None);
    assert_eq!(cache.set("new", &3).await.expect("accepted"), SetOutcome::StoredInFallback);
    assert_eq!(cache.get::<u32>("new").await.expect("answered"), Some(3));
    let cleared = cache.clear().await.expect("answered");
    assert!(matches!(cleared.source, Source::Fallback { .. }) && cleared.removed >= 2, "{cleared:?}");
    assert_eq!(cache.get::<u32>("new").await.expect("answered"), None);
    let stats = cache.stats();
    assert!(stats.error_rate.is_some_and(|rate| rate > 0.0 && rate <= 1.0), "{stats:?}");
    assert_eq!(stats.errors, 0);
}

/// Without a fallback: each of many calls ends in time, with its own answer or an error that says that Redis is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_without_fallback_fails_each_call_in_time() {
    let mut server = RedisServer::start();
    let cache = quick(server.url()).fallback(false).connect(Tokio).await.expect("connects");
    let mut callers = JoinSet::new();
    for n in 0..1000_u32 {
        let cache = cache.clone();
        callers.spawn(async move {
            let key = format!("k{n}");
            let (mut slowest, mut failed) = (Duration::ZERO, 0);
            for round in 0..8 {
                let (result, took) = timed(async {
                    match (n + round) % 4 {
                        0 => cache.set(&key, &n).await.map(drop),
                        1 => cache.delete(&key).await.map(drop),
                        2 => cache.exists(&key).await.map(drop),
                        _ => cache.get::<u32>(&key).await.map(|value| {
                            assert!(value.is_none_or(|value| value == n), "{key} holds {value:?}");
                        }),
                    }
                })
                .await;
                if let Err(error) = result {
                    assert!(error.is_unavailable() && !error.is_undecodable(), "{error:?}");
                    failed += 1;
                }
                slowest = slowest.max(took);
                tokio::time::sleep(Duration::from_millis(u64::from(5 + n % 7))).await;
            }
            (slowest, failed)
        });
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    server.kill();
    let (mut slowest, mut failed) = (Duration::ZERO, 0);
    while let Some(result) = callers.join_next().await {
        let (took, errors) = result.expect("no caller panics");
        (slowest, failed) = (slowest.max(took), failed + errors);
    }
    println!("{failed} of 8 000 operations failed, the slowest took {slowest:?}");
    assert!(failed > 0, "the server was killed too late to test anything");
    assert!(slowest < Duration::from_secs(1) + GRACE, "{slowest:?}");
    assert_eq!(redis(&cache).in_flight, 0, "nothing is left behind");
    assert_eq!(redis(&cache).fallback_writes, 0, "there is none");
    let error = cache.clear().await.expect_err("nobody is there to clear");
    assert!(error.is_unavailable(), "{error:?}");
    server.restart();
    returns_to_redis(&cache).await;
}

/// The states one after the other: half-open lasts until callers have used its permits.
#[tokio::test]
async fn the_breaker_goes_through_its_states() {
    let mut server = RedisServer::start();
    let cache = quick(server.url()).breaker_half_open_permits(2).connect(Tokio).await.expect("connects");
    assert_eq!(redis(&cache).circuit_state, BreakerState::Closed);
    server.kill();
    eventually("the breaker opens", async || {
        let _ = cache.get::<u32>("k").await;
        redis(&cache).circuit_state == BreakerState::Open
    })
    .await;
    let unserved = redis(&cache).unserved;
    server.restart();
    // Nobody asks anything: the breaker finds the server by itself, and then waits for callers to try it.
    eventually("the probe finds the server", async || redis(&cache).circuit_state == BreakerState::HalfOpen)
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(redis(&cache).circuit_state, BreakerState::HalfOpen, "a probe alone does not close it");
    for trial in 0..2 {
        // The first may have to wait for the connection that the probe is still making.
        eventually("the trial is answered by Redis", async || {
            cache.lookup::<u32>("k").await.expect("answered").source == Source::Primary
        })
        .await;
        assert!(redis(&cache).circuit_state == BreakerState::Closed || trial == 0);
    }
    let redis = redis(&cache);
    assert!(redis.connected && redis.circuit_breaker_trips >= 1, "{redis:?}");
    println!("{} trips, {} operations unserved", redis.circuit_breaker_trips, redis.unserved - unserved);
}

/// A stopped server still accepts connections, so that only time tells.
#[tokio::test]
async fn connecting_to_a_stopped_server_ends_in_time() {
    let server = RedisServer::start();
    server.pause();
    let limit = Duration::from_millis(300);
    let builder = quick(server.url()).connect_timeout(limit);
    let (error, took) = timed(builder.clone().fallback(false).connect(Tokio)).await;
    let error = error.expect_err("nobody answers");
    assert!(error.is_unavailable() && error.to_string().contains("127.0.0.1"), "{error}");
    println!("connect() to a stopped server with a timeout of {limit:?}: {took:?}, {error}");
    assert!(took < limit + GRACE, "{took:?}");
    let (cache, took) = timed(builder.connect(Tokio)).await;
    let cache = cache.expect("starts degraded");
    assert!(took < limit + GRACE, "{took:?}");
    let (error, took) = timed(cache.server_info("server")).await;
    assert!(error.expect_err("no fallback knows").is_unavailable());
    assert!(took < Duration::from_secs(1) + GRACE, "{took:?}");
    server.resume();
    returns_to_redis(&cache).await;
}
