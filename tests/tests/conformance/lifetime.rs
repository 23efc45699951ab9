//! How a cache begins and ends.

use larder::{Cache, Error, SetOutcome};
use larder_tests::{RedisServer, free_port};

use super::World;
use super::common::{eventually, redis};

pub(super) async fn dropping_last_handle_ends_task(_: &Cache, world: &World) {
    let sockets = || world.cli(&["CLIENT", "LIST"]).matches("name=mine").count();
    let before = world.live_tasks();
    // With the fallback, so that there is a task for the journal, too.
    let builder = world.builder().client_name("mine").lanes(2).fallback(true);
    let cache = world.connect(builder).await.expect("connects");
    eventually("both lanes are connected", async || sockets() == 2).await;
    assert_eq!(world.live_tasks(), before + 3);
    let view = cache.namespace("tt").expect("a good namespace");
    drop(cache);
    view.set("k", &1).await.expect("a view keeps the connection");
    assert_eq!((sockets(), world.live_tasks()), (2, before + 3));
    drop(view);
    eventually("the tasks end", async || world.live_tasks() == before).await;
    eventually("the sockets are closed", async || sockets() == 0).await;
}

pub(super) async fn close_drains_what_is_in_flight(cache: &Cache, world: &World) {
    let writers: Vec<_> = (0..100)
        .map(|n| {
            let cache = cache.clone();
            world.runtime.spawn(async move { cache.set(&format!("k{n}"), &n).await })
        })
        .collect();
    eventually("some are under way", async || redis(cache).in_flight > 0 || world.size() > 0).await;
    let report = cache.close().await;
    let mut stored = 0;
    for writer in writers {
        match writer.join().await {
            Ok(outcome) => {
                assert_eq!(outcome, SetOutcome::Stored);
                stored += 1;
            }
            Err(error) => assert!(error.is_closed(), "{error}"),
        }
    }
    assert_eq!(world.size(), stored, "what was acknowledged is there, and nothing else");
    assert_eq!(report.aborted, 0, "the server was there to answer");
    let error = cache.get::<u32>("k1").await.expect_err("closed");
    assert!(matches!(error, Error::Operation(_)) && error.is_closed(), "{error:?}");
    eventually("the task ends", async || world.live_tasks() == 0).await;
}

pub(super) async fn connecting_fails_with_the_cause(_: &Cache, world: &World) {
    let server = RedisServer::builder().arg("--requirepass").arg("right").start();
    let port = server.port();
    for (url, says) in [
        (format!("redis://127.0.0.1:{}", free_port()), "refused"),
        (format!("redis://no-such-host.invalid:{port}"), "no-such-host.invalid"),
        (format!("redis://:wrong@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
        (format!("redis://:right@127.0.0.1:{port}/99"), "SELECT"),
        ("redis+unix:///nowhere/redis.sock".to_owned(), "No such file"),
    ] {
        let error = world.connect(Cache::redis(url.as_str()).fallback(false)).await;
        let error = error.expect_err("cannot connect");
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains("wrong@"), "{url}: {text}");
        assert!(error.is_unavailable());
    }
    // A wrong password is not an outage: even with a fallback it is told.
    let wrong = Cache::redis(format!("redis://:wrong@127.0.0.1:{port}"));
    let error = world.connect(wrong).await.expect_err("refused");
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
}

/// The system's own table says so: of a connection with keepalive, a timer runs while nothing else goes on.
pub(super) async fn silent_connections_are_probed(cache: &Cache, world: &World) {
    const TABLE: &str = "/proc/net/tcp";
    if !std::path::Path::new(TABLE).exists() {
        println!("silent_connections_are_probed: there is no {TABLE} here to look at");
        return;
    }
    cache.set("k", &1).await.expect("set");
    let remote = format!(":{:04X}", world.server.port());
    eventually("the timer of keepalive runs", async || {
        let table = std::fs::read_to_string(TABLE).expect("readable");
        // The third column is the other end, the fourth the state (1 is established), the sixth the timer (2 is keepalive).
        let mut ours = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|row| matches!(row.as_slice(), [_, _, to, "01", ..] if to.ends_with(&remote)));
        ours.any(|row| row.get(5).is_some_and(|timer| timer.starts_with("02:")))
    })
    .await;
}
