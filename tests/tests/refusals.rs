//! Redis is there and says no: what that means for the caller, the breaker and the fallback.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use common::{eventually, quick, redis, returns_to_redis};
use larder_tests::{RedisServer, free_port};
use larder_tokio::{BreakerState, Cache, SetOutcome, Source, Tokio};

async fn source(cache: &Cache, key: &str) -> (Option<u32>, Source) {
    let found = cache.lookup::<u32>(key).await.expect("answered");
    (found.value, found.source)
}

/// Capacity: the server is well, so that nobody else may answer for it.
#[tokio::test]
async fn a_full_server_refuses_writes_and_nothing_falls_back() {
    let server = RedisServer::builder().args(["--maxmemory-policy", "noeviction"]).start();
    let cache = quick(server.url()).breaker_threshold(1).connect(Tokio).await.expect("connects");
    cache.set("k", &1).await.expect("there is room");
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    for _ in 0..10 {
        let error = cache.set("k", &2).await.expect_err("the server is full");
        let code = error.server_error().map(|error| error.code().to_vec());
        assert_eq!(code.as_deref(), Some(&b"OOM"[..]), "{error}");
        assert!(!error.is_unavailable(), "{error:?}");
        assert_eq!(source(&cache, "k").await, (Some(1), Source::Primary), "reads go on");
    }
    assert!(cache.delete("k").await.expect("deletes make room"));
    let stats = redis(&cache);
    assert_eq!((stats.circuit_state, stats.circuit_breaker_trips), (BreakerState::Closed, 0));
    assert_eq!((stats.fallback_writes, stats.fallback_hits, stats.unserved), (0, 0, 0));
    assert_eq!(cache.stats().errors, 10);
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(cache.set("k", &3).await.expect("room again"), SetOutcome::Stored);
}

/// Topology: what was the primary has become a replica, and becomes one again.
#[tokio::test]
async fn failover_to_replica_recovers() {
    let server = RedisServer::start();
    let cache = quick(server.url()).breaker_threshold(3).connect(Tokio).await.expect("connects");
    cache.set("k", &1).await.expect("set");
    let nobody = free_port().to_string();
    assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", &nobody]), "OK");
    assert_eq!(cache.set("k", &2).await.expect("accepted"), SetOutcome::StoredInFallback);
    assert_eq!(server.cli(&["GET", "t:k"]), "1");
    eventually("the breaker opens", async || {
        assert_eq!(cache.set("k", &3).await.expect("accepted"), SetOutcome::StoredInFallback);
        redis(&cache).circuit_breaker_trips > 0
    })
    .await;
    // Until then reads were the replica's to answer. Now they are ours, unless the breaker tries the server again already.
    let (value, source) = source(&cache, "k").await;
    assert!(value == Some(3) || source == Source::Primary, "{value:?} of {source:?}");
    assert!(redis(&cache).fallback_writes > 1 && redis(&cache).unserved > 1);
    assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    returns_to_redis(&cache).await;
    assert_eq!(cache.set("k", &4).await.expect("set"), SetOutcome::Stored);
    assert_eq!(server.cli(&["GET", "t:k"]), "4");
}

/// Rights: no retry cures that, so that the breaker opens at once, and closes when an operator has cured it.
#[tokio::test]
async fn missing_rights_open_the_breaker_at_once() {
    let server = RedisServer::start();
    assert_eq!(server.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~t:*", "+@all", "-set"]), "OK");
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port());
    let cache = quick(url.clone()).connect(Tokio).await.expect("connects");
    assert_eq!(source(&cache, "k").await, (None, Source::Primary));
    assert_eq!(cache.set("k", &1).await.expect("accepted"), SetOutcome::StoredInFallback);
    let stats = redis(&cache);
    assert_eq!((stats.circuit_state, stats.circuit_breaker_trips), (BreakerState::Open, 1));
    assert_eq!(stats.retries, 0);

    let strict = quick(url).fallback(false).connect(Tokio).await.expect("connects");
    let error = strict.set("k", &1).await.expect_err("refused");
    assert!(error.to_string().contains("NOPERM") && error.is_unavailable(), "{error}");

    assert_eq!(server.cli(&["ACL", "SETUSER", "app", "+set"]), "OK");
    returns_to_redis(&cache).await;
    returns_to_redis(&strict).await;
}

/// Transient: the server has no room for another connection, until it has.
#[tokio::test]
async fn a_server_with_too_many_clients_is_found_when_it_has_room() {
    let server = RedisServer::builder().args(["--maxclients", "2"]).start();
    // The server may not have noticed yet that who asked before has gone.
    let mut others = Vec::new();
    eventually("the server is full", async || {
        others.extend(occupy(&server));
        others.len() == 2
    })
    .await;
    let strict = quick(server.url()).fallback(false).connect(Tokio).await.expect_err("no room");
    assert!(strict.to_string().contains("max number of clients"), "{strict}");
    let cache = quick(server.url()).connect(Tokio).await.expect("starts degraded");
    assert_eq!(cache.set("k", &1).await.expect("accepted"), SetOutcome::StoredInFallback);
    drop(others);
    returns_to_redis(&cache).await;
}

/// A connection that the server has let in.
fn occupy(server: &RedisServer) -> Option<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).ok()?;
    stream.write_all(b"PING\r\n").ok()?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).ok()?;
    (reply == *b"+PONG\r\n").then_some(stream)
}
