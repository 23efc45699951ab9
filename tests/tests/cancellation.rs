//! Answers that come late, and a close that nobody answers.

mod common;

use std::time::Duration;

use common::{GRACE, eventually, quick, redis, timed};
use larder_tests::RedisServer;
use larder_tokio::Tokio;
use tokio::task::JoinSet;

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
