//! Writes that a server may still execute when nobody expects it any more.

mod common;

use std::time::Duration;

use common::{eventually, redis};
use larder_tests::RedisServer;
use larder_tokio::{Cache, Tokio};

/// How many rounds are played, if not a handful.
const ROUNDS_VARIABLE: &str = "LARDER_ZOMBIE_ROUNDS";

/// What the stopped server has to read before it comes to the old write: enough for it to serve a new connection meanwhile.
const AHEAD: usize = 1024 * 1024;

/// A write whose answer never came does not win over a newer one that was acknowledged: the server is stopped with the old
/// one in its socket, the lane gives up and dials again, the server goes on, and the new one is sent.
#[tokio::test]
async fn a_write_that_was_given_up_never_replaces_a_newer_one() {
    let rounds =
        std::env::var(ROUNDS_VARIABLE).map_or(8, |rounds| rounds.parse().expect("a number of rounds"));
    let server = RedisServer::start();
    let cache = Cache::redis(server.url())
        .namespace("t")
        .client_name("mine")
        .fallback(false)
        .retry_attempts(1) // An old write that is sent again would be none of the zombies.
        .stall_timeout(Duration::from_millis(50))
        .reconnect_backoff_base(Duration::from_millis(1))
        .connect(Tokio)
        .await
        .expect("connects");
    let mut old = 0;
    for _ in 0..rounds {
        server.pause();
        let (ahead, given_up) =
            tokio::join!(cache.set_bytes("ahead", vec![b'v'; AHEAD]), cache.set_bytes("k", "old"));
        assert!(ahead.is_err() && given_up.is_err(), "nobody has answered");
        tokio::time::sleep(Duration::from_millis(10)).await; // It is dialled again, and greeted.
        server.resume();
        while !redis(&cache).connected {
            tokio::task::yield_now().await;
        }
        cache.set_bytes("k", "new").await.expect("it serves again");
        let connections = || server.cli(&["CLIENT", "LIST", "TYPE", "normal"]).matches("name=mine").count();
        eventually("the old connection ends", async || connections() == 1).await;
        old += usize::from(server.cli(&["GET", "t:k"]).contains("old"));
    }
    println!("the old value won {old} times of {rounds}");
    assert_eq!(old, 0, "of {rounds} rounds");
}
