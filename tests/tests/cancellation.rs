//! Futures that are dropped, answers that come late, caches that are closed: nobody gets what is another's.

mod common;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::{GRACE, eventually, quick, redis, timed};
use larder_tests::RedisServer;
use larder_tokio::{Error, SetOutcome, Tokio};
use tokio::task::{JoinSet, yield_now};

/// Polls a future so many times at most, with turns for other tasks between, and drops it. Whether it was still under way.
async fn poll_and_drop(future: impl Future, polls: u32) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return false;
        }
        yield_now().await;
    }
    polls > 0
}

/// Every tenth value is larger than a socket takes at once, so that some are dropped half written or half read.
fn value(n: u32) -> Vec<u8> {
    let len = match n % 10 {
        0 => 300_000,
        _ => 10 + n as usize,
    };
    vec![n as u8; len]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_futures_give_nobody_anothers_value() {
    let server = RedisServer::start();
    let cache = quick(server.url())
        .operation_timeout(Duration::from_secs(10))
        .fallback(false)
        .connect(Tokio)
        .await
        .expect("connects");
    for n in 0..100 {
        cache.set_bytes(&format!("k{n}"), value(n)).await.expect("set");
    }
    let mut callers = JoinSet::new();
    for caller in 0..32_u32 {
        let cache = cache.clone();
        callers.spawn(async move {
            let mut dropped = 0;
            for round in 0..100_u32 {
                let n = (caller * 31 + round * 7) % 100;
                let (key, gone) = (format!("k{n}"), format!("gone{n}"));
                let polls = 1 + (caller + round) % 3;
                dropped += u32::from(match round % 5 {
                    0 => poll_and_drop(cache.get_bytes(&key), polls).await,
                    1 => poll_and_drop(cache.set_bytes(&key, value(n)), polls).await,
                    2 => poll_and_drop(cache.exists(&key), polls).await,
                    3 => poll_and_drop(cache.delete(&gone), polls).await,
                    _ => poll_and_drop(cache.clear(), 0).await,
                });
                let found = cache.get_bytes(&key).await.expect("answered").expect("never deleted");
                assert!(found == value(n), "{key} holds {} bytes of {:?}", found.len(), found.first());
                assert!(!cache.exists(&gone).await.expect("answered"), "{gone}");
            }
            dropped
        });
    }
    let mut dropped = 0;
    while let Some(result) = callers.join_next().await {
        dropped += result.expect("no caller fails");
    }
    println!("{dropped} of 2 560 operations were dropped under way");
    assert!(dropped > 500, "only {dropped} were dropped under way: this tests nothing");
    let redis = redis(&cache);
    assert_eq!(
        (redis.in_flight, redis.connects),
        (0, 1),
        "nothing is left behind, and one connection served"
    );
}

#[tokio::test]
async fn a_future_that_is_never_polled_does_nothing() {
    let server = RedisServer::start();
    let cache = quick(server.url()).connect(Tokio).await.expect("connects");
    cache.set("kept", &1).await.expect("set");
    drop(cache.set("k", &1));
    drop(cache.delete("kept"));
    drop(cache.clear());
    drop(cache.close());
    assert_eq!(cache.get::<u32>("k").await.expect("answered"), None);
    assert_eq!(cache.get::<u32>("kept").await.expect("answered"), Some(1));
    assert_eq!(cache.stats().total_operations, 3);
}

/// Operations time out on a stopped server, and their answers arrive after all, on the connection that others use by then.
#[tokio::test]
async fn late_reply_is_not_given_to_the_next_caller() {
    let server = RedisServer::start();
    let cache = quick(server.url())
        .fallback(false)
        .operation_timeout(Duration::from_millis(300))
        .stall_timeout(Duration::from_secs(60))
        .retry_attempts(1)
        .breaker_threshold(1_000)
        .connect(Tokio)
        .await
        .expect("connects");
    for n in 0..100_u32 {
        cache.set(&format!("k{n}"), &n).await.expect("set");
    }
    server.pause();
    let mut late = JoinSet::new();
    for n in 0..50 {
        let cache = cache.clone();
        late.spawn(async move { cache.get::<u32>(&format!("k{n}")).await });
    }
    while let Some(result) = late.join_next().await {
        let error = result.expect("no panic").expect_err("the server is stopped");
        assert!(error.is_timeout(), "{error:?}");
    }
    server.resume();
    for n in (0..100_u32).rev() {
        let key = format!("k{n}");
        eventually("an answer", async || match cache.get::<u32>(&key).await {
            Ok(value) => {
                assert_eq!(value, Some(n), "{key}");
                true
            }
            Err(error) => {
                assert!(error.is_timeout(), "{error:?}");
                false
            }
        })
        .await;
    }
    let redis = redis(&cache);
    assert!(redis.timeouts >= 50, "{redis:?}");
    assert_eq!((redis.connects, redis.connection_errors), (1, 0), "it was the same connection all the time");
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
    yield_now().await;
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

/// Closing waits for a server that does not answer as long as it was told, and no longer.
#[tokio::test]
async fn close_does_not_wait_for_a_stopped_server() {
    let server = RedisServer::start();
    let cache = quick(server.url())
        .fallback(false)
        .operation_timeout(Duration::from_secs(60))
        .stall_timeout(Duration::from_secs(60))
        .connect(Tokio)
        .await
        .expect("connects");
    server.pause();
    let waiting: Vec<_> = (0..10)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get::<u32>(&format!("k{n}")).await })
        })
        .collect();
    eventually("all are under way", async || redis(&cache).in_flight == 10).await;
    let limit = Duration::from_millis(200);
    let (report, took) = timed(cache.close().drain_for(limit)).await;
    println!("closed in {took:?}: {report:?}");
    assert_eq!((report.drained, report.aborted), (0, 10));
    assert!(took < limit + GRACE, "{took:?}");
    for caller in waiting {
        let error = caller.await.expect("no panic").expect_err("aborted");
        assert!(error.is_closed(), "{error:?}");
    }
}
