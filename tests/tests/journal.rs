//! Writes accepted while Redis was away, and what a real server holds afterwards.

mod common;

use std::time::Duration;

use common::{eventually, quick, redis, returns_to_redis};
use larder_tests::RedisServer;
use larder_tokio::{BreakerState, Cache, Reconcile, SetOutcome, Tokio, Ttl};

async fn set(cache: &Cache, key: &str, value: &str) {
    let outcome = cache.set(key, value).await.expect("accepted");
    assert_eq!(outcome, SetOutcome::StoredInFallback, "{key}");
}

/// Every way that the script can go, on a server that was stopped for a while and is changed by somebody else meanwhile.
#[tokio::test]
async fn what_was_accepted_is_carried_over_as_the_policy_says() {
    let seen = ["kept", "changed", "gone", "deleted", "expiring"];
    let table = [
        // policy, then what becomes of each key: see the writes below
        (Reconcile::Conditional, ["new", "", "", "", "new", "new", ""]),
        (Reconcile::Overwrite, ["new", "new", "new", "", "new", "new", "new"]),
        (Reconcile::Invalidate, ["", "", "", "", "", "", ""]),
        (Reconcile::Discard, ["old", "theirs", "", "old", "old", "", "theirs"]),
    ];
    for (policy, expected) in table {
        let server = RedisServer::start();
        let cache = quick(server.url())
            .breaker_threshold(1)
            .reconcile(policy)
            .connect(Tokio)
            .await
            .expect("connects");
        for key in seen {
            cache.set(key, "old").await.expect("set");
        }
        assert_eq!(cache.get::<String>("absent").await.expect("answered"), None);
        // Somebody else writes too, and this process does not see it.
        for (key, value) in [("t:changed", "\"theirs\""), ("t:unseen", "\"theirs\"")] {
            assert_eq!(server.cli(&["SET", key, value]), "OK");
        }
        assert_eq!(server.cli(&["DEL", "t:gone"]), "1");
        server.pause();
        // Nothing is sent any more then, and so nothing arrives when the server goes on.
        eventually("the breaker opens", async || {
            cache.get::<String>("other").await.expect("answered");
            redis(&cache).circuit_state == BreakerState::Open
        })
        .await;
        for key in ["kept", "changed", "gone", "absent", "unseen"] {
            set(&cache, key, "new").await;
        }
        cache.delete("deleted").await.expect("accepted");
        let ttl = Ttl::After(Duration::from_secs(300));
        assert_eq!(
            cache.set("expiring", "new").ttl(ttl).await.expect("accepted"),
            SetOutcome::StoredInFallback
        );
        assert_eq!(cache.get::<String>("kept").await.expect("answered").as_deref(), Some("new"));

        server.resume();
        returns_to_redis(&cache).await;
        eventually("the journal is empty", async || redis(&cache).journalled == 0).await;

        let keys = ["kept", "changed", "gone", "deleted", "expiring", "absent", "unseen"];
        for (key, expected) in keys.into_iter().zip(expected) {
            let held = server.cli(&["GET", &format!("t:{key}")]);
            assert_eq!(held.trim().trim_matches('"'), expected, "{key} with {policy:?}");
            let read = cache.get::<String>(key).await.expect("answered");
            assert_eq!(read.unwrap_or_default(), expected, "{key} with {policy:?}");
        }
        let ttl: i64 = server.cli(&["PTTL", "t:expiring"]).trim().parse().expect("a number");
        let lives = matches!(policy, Reconcile::Conditional | Reconcile::Overwrite);
        assert_eq!((200_000..=300_000).contains(&ttl), lives, "{ttl} ms with {policy:?}");
    }
}

/// A user without the right to scripts: what would be set is deleted, and the breaker does not open for it.
#[tokio::test]
async fn without_the_right_to_scripts_what_was_written_is_deleted() {
    let server = RedisServer::start();
    let rights = ["ACL", "SETUSER", "plain", "on", ">pw", "~*", "+@all", "-@scripting"];
    assert_eq!(server.cli(&rights), "OK");
    let url = server.url().replace("redis://", "redis://plain:pw@");
    let cache = quick(url).connect(Tokio).await.expect("connects");
    cache.set("k", "old").await.expect("set");
    server.pause();
    eventually("the fallback accepts it", async || {
        cache.set("k", "new").await.is_ok_and(|outcome| outcome == SetOutcome::StoredInFallback)
    })
    .await;
    server.resume();
    returns_to_redis(&cache).await;
    eventually("the journal is empty", async || redis(&cache).journalled == 0).await;
    assert_eq!(server.cli(&["EXISTS", "t:k"]), "0");
}

/// The server dies again in the middle of the replay of thousands of deletes, twice; it loses nothing itself.
#[tokio::test]
async fn a_replay_survives_another_outage() {
    const KEYS: usize = 4000;
    let server = RedisServer::start();
    let cache = quick(server.url()).connect(Tokio).await.expect("connects");
    for n in 0..KEYS {
        cache.set(&format!("k{n}"), "stale").await.expect("set");
    }
    server.pause();
    eventually("the fallback accepts writes", async || {
        cache.set("other", "x").await.is_ok_and(|outcome| outcome == SetOutcome::StoredInFallback)
    })
    .await;
    for n in 0..KEYS {
        cache.delete(&format!("k{n}")).await.expect("accepted");
    }
    for _ in 0..2 {
        let before = redis(&cache).journalled;
        server.resume();
        eventually("the replay has begun", async || {
            let _ = cache.get::<String>("any").await;
            redis(&cache).journalled < before
        })
        .await;
        server.pause();
        for n in (0..KEYS).step_by(97) {
            assert_eq!(cache.get::<String>(&format!("k{n}")).await.expect("answered"), None, "never stale");
        }
    }
    server.resume();
    returns_to_redis(&cache).await;
    eventually("the journal is empty", async || redis(&cache).journalled == 0).await;
    assert_eq!(server.cli(&["--raw", "KEYS", "t:k*"]).trim(), "");
}

/// What a clear promised during an outage is done when Redis is back: also to keys that this process never saw, and not to
/// what was set since.
#[tokio::test]
async fn a_clear_reaches_redis_when_it_is_back() {
    let server = RedisServer::start();
    let cache = quick(server.url()).breaker_threshold(1).connect(Tokio).await.expect("connects");
    cache.set("known", "old").await.expect("set");
    let fill =
        "for n = 1, 5000 do redis.call('SET', 't:k' .. n, 'theirs') end redis.call('SET', 'u:k', 'theirs')";
    assert_eq!(server.cli(&["EVAL", fill, "0"]), "");
    server.pause();
    eventually("the breaker opens", async || {
        cache.get::<String>("other").await.expect("answered");
        redis(&cache).circuit_state == BreakerState::Open
    })
    .await;
    cache.clear().await.expect("promised");
    set(&cache, "since", "new").await;
    assert_eq!(redis(&cache).journalled, 2);
    assert_eq!(cache.get::<String>("k1").await.expect("answered"), None);
    server.resume();
    returns_to_redis(&cache.namespace("u").expect("a namespace")).await;
    eventually("the journal is empty", async || redis(&cache).journalled == 0).await;
    assert_eq!(server.cli(&["GET", "t:since"]).trim_matches('"'), "new");
    assert_eq!(server.cli(&["--raw", "KEYS", "t:*"]).trim(), "t:since");
    assert_eq!(server.cli(&["EXISTS", "u:k"]), "1", "of another namespace");
}
