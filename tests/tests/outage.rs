//! Redis stalls, dies, comes back: nobody hangs, nobody gets another's value, and traffic returns.

use std::future::Future;
use std::time::{Duration, Instant};

use larder_tests::{RedisServer, free_port};
use larder_tokio::{BreakerState, Cache, Error, RedisBuilder, RedisStats, SetOutcome, Source, Tokio};
use tokio::task::JoinSet;

/// How much later than promised a noisy machine may be.
const GRACE: Duration = Duration::from_secs(2);

fn quick(url: String) -> RedisBuilder {
    Cache::redis(url)
        .namespace("t")
        .operation_timeout(Duration::from_secs(1))
        .breaker_timeout(Duration::from_millis(500))
        .reconnect_backoff_base(Duration::from_millis(20))
        .retry_backoff_max(Duration::from_millis(200))
}

fn redis(cache: &Cache) -> RedisStats {
    cache.stats().redis.expect("a cache on Redis")
}

/// Polls for a state, with a generous limit.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (future.await, begun.elapsed())
}

async fn returns_to_redis(cache: &Cache) {
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

#[tokio::test]
async fn a_full_server_refuses_writes_and_nothing_falls_back() {
    let server =
        RedisServer::builder().args(["--maxmemory", "100kb", "--maxmemory-policy", "noeviction"]).start();
    let cache = quick(server.url()).connect(Tokio).await.expect("connects");
    let error = cache.set_bytes("k", vec![b'x'; 100]).await.expect_err("the server is full");
    assert_eq!(error.server_error().map(|error| error.code().to_vec()), Some(b"OOM".to_vec()), "{error}");
    assert_eq!(cache.get_bytes("k").await.expect("reads go on"), None);
    let redis = redis(&cache);
    assert_eq!((redis.circuit_state, redis.fallback_writes, redis.unserved), (BreakerState::Closed, 0, 0));
}

#[tokio::test]
async fn dropped_futures_give_nobody_anothers_value() {
    let server = RedisServer::start();
    let cache = quick(server.url()).fallback(false).connect(Tokio).await.expect("connects");
    for n in 0..100_u32 {
        cache.set(&format!("k{n}"), &n).await.expect("set");
    }
    let mut callers = JoinSet::new();
    for caller in 0..32_u32 {
        let cache = cache.clone();
        callers.spawn(async move {
            for round in 0..200_u32 {
                let n = (caller * 31 + round) % 100;
                let key = format!("k{n}");
                // Each third is given up after a moment, wherever it is by then.
                if round % 3 == 0 {
                    let moment = Duration::from_micros(u64::from((caller + round) % 20) * 10);
                    let _ = tokio::time::timeout(moment, cache.get::<u32>(&key)).await;
                } else {
                    assert_eq!(cache.get::<u32>(&key).await.expect("answered"), Some(n));
                }
            }
        });
    }
    while let Some(result) = callers.join_next().await {
        result.expect("no caller fails");
    }
    assert_eq!(redis(&cache).in_flight, 0, "nothing is left behind");
}

#[tokio::test]
async fn dropping_last_handle_ends_task() {
    let server = RedisServer::start();
    let connections = || server.cli(&["CLIENT", "LIST", "TYPE", "normal"]).matches("name=mine").count();
    let cache = quick(server.url()).client_name("mine").connect(Tokio).await.expect("connects");
    let clone = cache.namespace("other").expect("a good namespace");
    drop(cache);
    clone.set("k", &1).await.expect("a view keeps the connection");
    assert_eq!(connections(), 1);
    drop(clone);
    eventually("the connection is gone", async || connections() == 0).await;
}

#[tokio::test]
async fn close_drains_what_is_in_flight() {
    let server = RedisServer::start();
    let cache = quick(server.url()).fallback(false).connect(Tokio).await.expect("connects");
    let writers: Vec<_> = (0..100)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.set(&format!("k{n}"), &n).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let report = cache.close().await;
    let mut stored = 0;
    for writer in writers {
        match writer.await.expect("no panic") {
            Ok(outcome) => {
                assert_eq!(outcome, SetOutcome::Stored);
                stored += 1;
            }
            Err(error) => assert!(error.is_closed(), "{error}"),
        }
    }
    println!("{report:?}, {stored} stored");
    assert_eq!(
        server.cli(&["DBSIZE"]),
        stored.to_string(),
        "what was acknowledged is there, and nothing else"
    );
    assert_eq!(report.aborted, 0, "the server was there to answer");
    let error = cache.get::<u32>("k1").await.expect_err("closed");
    assert!(matches!(error, Error::Operation(_)) && error.is_closed(), "{error:?}");
}
