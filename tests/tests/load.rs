//! Many callers at once: everything reaches Redis, nothing opens the breaker, nothing goes to the fallback.

use std::time::Duration;

use larder_tests::RedisServer;
use larder_tokio::{BreakerState, Cache, SetOutcome, Tokio};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

async fn set_all(cache: &Cache, count: usize) {
    let mut writers = JoinSet::new();
    for n in 0..count {
        let cache = cache.clone();
        writers.spawn(async move { cache.set(&format!("key{n}"), &n).await.expect("acknowledged") });
    }
    while let Some(outcome) = writers.join_next().await {
        assert_eq!(outcome.expect("no panic"), SetOutcome::Stored);
    }
}

fn assert_undisturbed(cache: &Cache) {
    let redis = cache.stats().redis.expect("a cache on Redis");
    assert_eq!((redis.circuit_state, redis.circuit_breaker_trips), (BreakerState::Closed, 0));
    assert_eq!(
        (redis.fallback_writes, redis.fallback_hits, redis.fallback_misses, redis.unserved),
        (0, 0, 0, 0)
    );
}

/// R1, with the default configuration.
async fn concurrent_sets_all_reach_redis() {
    for count in [100, 100_000] {
        let server = RedisServer::start();
        let cache = Cache::redis(server.url()).connect(Tokio).await.expect("connects");
        set_all(&cache, count).await;
        assert_eq!(server.cli(&["DBSIZE"]), count.to_string());
        assert_undisturbed(&cache);
    }
}

#[test]
fn concurrent_sets_all_reach_redis_on_one_thread() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(concurrent_sets_all_reach_redis());
}

#[test]
fn concurrent_sets_all_reach_redis_on_two_workers() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(concurrent_sets_all_reach_redis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_connection_under_load_does_not_open_the_breaker() {
    let server = RedisServer::start();
    let cache = Cache::redis(server.url()).connect(Tokio).await.expect("connects");
    let mut callers = JoinSet::new();
    for caller in 0..64_u32 {
        let cache = cache.clone();
        callers.spawn(async move {
            let key = format!("k{caller}");
            for round in 0..100_u32 {
                cache.set(&key, &(caller, round)).await.expect("answered");
                let value = cache.get::<(u32, u32)>(&key).await.expect("answered");
                assert_eq!(value, Some((caller, round)), "{key}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let killed = server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert!(killed.parse::<u32>().is_ok(), "{killed}");
    }
    while let Some(result) = callers.join_next().await {
        result.expect("every caller is answered, with its own value");
    }
    let redis = cache.stats().redis.expect("a cache on Redis");
    println!("{redis:?}");
    assert!(redis.connection_errors >= 1, "the connection was lost");
    assert_eq!((redis.circuit_state, redis.circuit_breaker_trips), (BreakerState::Closed, 0));
}

#[tokio::test]
async fn lanes_share_the_load_by_key() {
    let server = RedisServer::start();
    let cache =
        Cache::redis(server.url()).lanes(4).client_name("lane").connect(Tokio).await.expect("connects");
    set_all(&cache, 1000).await;
    for n in 0..1000 {
        assert_eq!(cache.get::<usize>(&format!("key{n}")).await.expect("answered"), Some(n));
    }
    assert_eq!(server.cli(&["CLIENT", "LIST"]).matches("name=lane").count(), 4);
    assert_undisturbed(&cache);
}
