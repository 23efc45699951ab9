//! Many callers at once: everything reaches Redis, nothing opens the breaker, nothing goes to the fallback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
        let begun = Instant::now();
        set_all(&cache, count).await;
        println!("{count} concurrent sets: {:?}", begun.elapsed());
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

/// The callers never pause, so that each kill finds operations of many of them on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_connection_under_load_does_not_open_the_breaker() {
    let server = RedisServer::start();
    let cache = Cache::redis(server.url()).connect(Tokio).await.expect("connects");
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..64_u32 {
        let (cache, stop) = (cache.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let key = format!("k{caller}");
            let mut round = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                cache.set(&key, &(caller, round)).await.expect("answered");
                let value = cache.get::<(u32, u32)>(&key).await.expect("answered");
                assert_eq!(value, Some((caller, round)), "{key}");
            }
            round
        });
    }
    // More kills than the breaker's threshold, and on until some have met operations on their way.
    let (redis, mut kills) = (|| cache.stats().redis.expect("a cache on Redis"), 0);
    let begun = Instant::now();
    while kills < 6 || redis().retries == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_ne!(server.cli(&["CLIENT", "KILL", "TYPE", "normal"]), "0", "no connection to kill");
        kills += 1;
        while redis().connects <= kills {
            assert!(begun.elapsed() < Duration::from_secs(60), "after {kills} kills: {:?}", redis());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    while let Some(result) = callers.join_next().await {
        rounds += result.expect("every caller is answered, with its own value");
    }
    println!("{rounds} rounds, {kills} kills, {:?}", redis());
    assert_eq!(redis().connection_errors, kills);
    assert_undisturbed(&cache);
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

/// Bounds are not outages: who finds no room waits for its turn, and nothing goes past a healthy server.
#[tokio::test]
async fn callers_beyond_a_bound_wait_for_their_turn() {
    let server = RedisServer::start();
    let few = Cache::redis(server.url()).namespace("few").max_in_flight(4).connect(Tokio).await;
    let few = few.expect("connects");
    set_all(&few, 2_000).await;
    assert_undisturbed(&few);
    assert_eq!(server.cli(&["DBSIZE"]), "2000");

    let small =
        Cache::redis(server.url()).namespace("small").max_in_flight_bytes(64 << 10).connect(Tokio).await;
    let small = small.expect("connects");
    let mut writers = JoinSet::new();
    for n in 0..200_usize {
        let cache = small.clone();
        writers.spawn(async move { cache.set_bytes(&format!("k{n}"), vec![b'v'; 20_000 + n]).await });
    }
    while let Some(outcome) = writers.join_next().await {
        assert_eq!(outcome.expect("no panic").expect("acknowledged"), SetOutcome::Stored);
    }
    for n in [0, 99, 199] {
        assert_eq!(server.cli(&["STRLEN", &format!("small:k{n}")]), (20_000 + n).to_string());
    }
    let error = small.set_bytes("huge", vec![b'v'; 64 << 10]).await.expect_err("never fits");
    assert!(error.to_string().contains("max_in_flight_bytes") && !error.is_unavailable(), "{error}");
    assert_undisturbed(&small);
}

/// Overload of a healthy server is the caller's to see: neither the breaker's nor the fallback's affair.
#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_overload() {
    let server = RedisServer::start();
    let cache = Cache::redis(server.url())
        .max_in_flight(1)
        .operation_timeout(Duration::from_millis(200))
        .stall_timeout(Duration::from_secs(60))
        .breaker_threshold(2)
        .connect(Tokio)
        .await
        .expect("connects");
    server.pause();
    let mut callers = JoinSet::new();
    for n in 0..50_u32 {
        let cache = cache.clone();
        callers.spawn(async move { cache.set(&format!("k{n}"), &n).await });
    }
    let (mut overloaded, mut accepted) = (0, 0);
    while let Some(result) = callers.join_next().await {
        match result.expect("no panic") {
            Ok(outcome) => {
                assert_eq!(outcome, SetOutcome::StoredInFallback, "the server is stopped");
                accepted += 1;
            }
            Err(error) => {
                assert!(error.is_overload() && error.is_timeout() && !error.is_unavailable(), "{error:?}");
                overloaded += 1;
            }
        }
    }
    println!("{overloaded} waited in vain, {accepted} went to the fallback");
    assert!(overloaded > 0 && accepted > 0);
    assert_eq!(cache.stats().redis.expect("on Redis").circuit_breaker_trips, 0);
    server.resume();
}
