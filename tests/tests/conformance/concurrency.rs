//! Many callers, and callers that go away.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use larder::{BreakerState, Cache, SetOutcome};

use super::World;
use super::common::redis;

fn assert_undisturbed(cache: &Cache) {
    let redis = redis(cache);
    assert_eq!((redis.circuit_state, redis.circuit_breaker_trips), (BreakerState::Closed, 0));
    assert_eq!((redis.in_flight, redis.unserved, redis.connection_errors), (0, 0, 0));
}

pub(super) async fn callers_get_their_own_values(cache: &Cache, world: &World) {
    let callers: Vec<_> = (0..32_u32)
        .map(|caller| {
            let cache = cache.clone();
            world.runtime.spawn(async move {
                let key = format!("k{caller}");
                for round in 0..50_u32 {
                    cache.set(&key, &(caller, round)).await.expect("set");
                    let value = cache.get::<(u32, u32)>(&key).await.expect("get");
                    assert_eq!(value, Some((caller, round)), "{key}");
                }
                assert!(cache.delete(&key).await.expect("delete"));
            })
        })
        .collect();
    for caller in callers {
        caller.join().await;
    }
    assert_eq!(world.size(), 0);
    assert_undisturbed(cache);
}

pub(super) async fn ten_thousand_writes_at_once_are_all_stored(cache: &Cache, world: &World) {
    set_all(cache, world, 10_000).await;
    assert_eq!(world.size(), 10_000);
    assert_eq!(redis(cache).connects, 1);
    assert_undisturbed(cache);
}

pub(super) async fn lanes_share_the_load_by_key(_: &Cache, world: &World) {
    let cache = world.connect(world.builder().lanes(4).client_name("lane")).await.expect("connects");
    set_all(&cache, world, 1_000).await;
    for n in 0..1_000 {
        assert_eq!(cache.get::<u32>(&format!("k{n}")).await.expect("answered"), Some(n));
    }
    assert_eq!(world.cli(&["CLIENT", "LIST"]).matches("name=lane").count(), 4);
    assert_undisturbed(&cache);
}

async fn set_all(cache: &Cache, world: &World, count: u32) {
    let writers: Vec<_> = (0..count)
        .map(|n| {
            let cache = cache.clone();
            world.runtime.spawn(async move { cache.set(&format!("k{n}"), &n).await.expect("acknowledged") })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.join().await, SetOutcome::Stored);
    }
}

/// Every tenth value is larger than a socket takes at once, so that some are dropped half written or half read.
fn value(n: u32) -> Vec<u8> {
    let len = match n % 10 {
        0 => 300_000,
        _ => 10 + n as usize,
    };
    vec![n as u8; len]
}

/// Polls a future so many times at most, with turns for other tasks between, and drops it. Whether it was still under way.
async fn poll_and_drop(future: impl Future, polls: u32) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return false;
        }
        smol::future::yield_now().await;
    }
    polls > 0
}

/// Cancelled at a random point: before it is sent, while it is written, waits, or is answered.
pub(super) async fn dropped_futures_give_nobody_anothers_value(cache: &Cache, world: &World) {
    for n in 0..50 {
        cache.set_bytes(&format!("k{n}"), value(n)).await.expect("set");
    }
    let callers: Vec<_> = (0..8_u64)
        .map(|caller| {
            let cache = cache.clone();
            world.runtime.spawn(async move {
                let (mut random, mut dropped) = (fastrand::Rng::with_seed(caller), 0);
                for round in 0..60 {
                    let n = random.u32(0..50);
                    let (key, gone) = (format!("k{n}"), format!("gone{n}"));
                    let polls = random.u32(1..4);
                    dropped += u32::from(match round % 5 {
                        0 => poll_and_drop(cache.get_bytes(&key), polls).await,
                        1 => poll_and_drop(cache.set_bytes(&key, value(n)), polls).await,
                        2 => poll_and_drop(cache.exists(&key), polls).await,
                        3 => poll_and_drop(cache.delete(&gone), polls).await,
                        _ => poll_and_drop(cache.server_info("server"), polls).await,
                    });
                    let found = cache.get_bytes(&key).await.expect("answered").expect("never deleted");
                    assert!(found == value(n), "{key} holds {} bytes of {:?}", found.len(), found.first());
                    assert!(!cache.exists(&gone).await.expect("answered"), "{gone}");
                }
                dropped
            })
        })
        .collect();
    let mut dropped = 0;
    for caller in callers {
        dropped += caller.join().await;
    }
    assert!(dropped > 50, "only {dropped} of 480 were dropped under way: this tests nothing");
    assert_undisturbed(cache);
    assert_eq!(redis(cache).connects, 1);
}

pub(super) async fn a_future_that_is_never_polled_does_nothing(cache: &Cache, _: &World) {
    cache.set("kept", &1).await.expect("set");
    drop(cache.set("k", &1));
    drop(cache.delete("kept"));
    drop(cache.clear());
    drop(cache.close());
    assert_eq!(cache.get::<u32>("k").await.expect("answered"), None);
    assert_eq!(cache.get::<u32>("kept").await.expect("answered"), Some(1));
    assert_eq!(cache.stats().total_operations, 3);
}
