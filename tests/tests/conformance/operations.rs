//! What each operation does on the server.

use std::time::Duration;

use larder::{BreakerState, Cache, Codec, Error, SetOutcome, Source, Ttl, Undecodable};

use super::World;
use super::common::eventually;

pub(super) async fn every_operation_is_the_servers(cache: &Cache, world: &World) {
    assert_eq!(cache.set("k", &vec![1, 2, 3]).await.expect("set"), SetOutcome::Stored);
    assert_eq!(world.cli(&["GET", "t:k"]), "[1,2,3]");
    assert_eq!(cache.get::<Vec<u8>>("k").await.expect("get"), Some(vec![1, 2, 3]));
    let found = cache.lookup::<Vec<u8>>("k").await.expect("lookup");
    assert_eq!((found.value, found.source), (Some(vec![1, 2, 3]), Source::Primary));
    let value = cache.get_ref("k").await.expect("get_ref").expect("a value");
    assert_eq!(value.decode::<Vec<u8>>().expect("decodes"), [1, 2, 3]);
    assert_eq!(cache.get_bytes("k").await.expect("get_bytes").as_deref(), Some(&b"[1,2,3]"[..]));
    cache.set_bytes("raw", "as it is").await.expect("set_bytes");
    assert_eq!(world.cli(&["GET", "t:raw"]), "as it is");
    assert_eq!(world.cli(&["SET", "t:theirs", "\"written by others\""]), "OK");
    let theirs = cache.get::<String>("theirs").await.expect("get");
    assert_eq!(theirs.as_deref(), Some("written by others"));
    assert!(cache.exists("k").await.expect("exists"));
    assert!(cache.delete("k").await.expect("delete"));
    assert!(!cache.delete("k").await.expect("delete"));
    assert!(!cache.exists("k").await.expect("exists"));
    assert_eq!(world.cli(&["EXISTS", "t:k"]), "0");
    assert_eq!(cache.get::<Vec<u8>>("k").await.expect("get"), None);
    let info = cache.server_info("server").await.expect("info").expect("there is a server");
    assert!(info.contains("redis_version"), "{info}");
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.sets, stats.deletes), (5, 1, 2, 2));
    assert_eq!((stats.backend, stats.error_rate), ("redis", Some(0.0)));
}

pub(super) async fn times_to_live_are_the_servers(_: &Cache, world: &World) {
    let builder = world.builder().default_ttl(Duration::from_secs(60));
    let cache = world.connect(builder).await.expect("connects");
    cache.set("default", &1).await.expect("set");
    cache.set("never", &1).ttl(Ttl::Never).await.expect("set");
    cache.set("after", &1).ttl(Duration::from_millis(30_500)).await.expect("set");
    let left = world.time_to_live("t:default");
    assert!((45_000..=60_000).contains(&left), "{left}");
    assert_eq!(world.time_to_live("t:never"), -1);
    let left = world.time_to_live("t:after");
    assert!((15_000..=30_500).contains(&left), "{left}");
    let zero = cache.set("zero", &1).ttl(Duration::ZERO).await.expect_err("zero");
    assert!(matches!(zero, Error::Ttl(_)) && zero.to_string().contains("Ttl::Never"), "{zero}");
}

/// Each set decides anew; a TTL is never inherited, and the shortest and longest ones are within what Redis takes.
pub(super) async fn overwriting_replaces_the_time_to_live(cache: &Cache, world: &World) {
    cache.set("k", &1).ttl(Duration::from_secs(60)).await.expect("set");
    assert!((45_000..=60_000).contains(&world.time_to_live("t:k")));
    cache.set("k", &2).await.expect("set");
    assert_eq!(world.time_to_live("t:k"), -1);
    cache.set("k", &3).ttl(Duration::MAX).await.expect("set");
    assert!(world.time_to_live("t:k") > 1 << 60);
    // Rounded up to a millisecond: rounded down, Redis would refuse it.
    cache.set("k", &4).ttl(Duration::from_nanos(1)).await.expect("set");
    eventually("it is gone", async || world.time_to_live("t:k") == -2).await;
    assert_eq!(cache.get::<u8>("k").await.expect("get"), None);
}

pub(super) async fn clear_touches_only_its_namespace(a: &Cache, world: &World) {
    let view = |namespace| a.namespace(namespace).expect("a good namespace");
    let (star, below, longer) = (view("t*"), view("t:eu"), view("tt"));
    for cache in [a, &star, &below, &longer] {
        cache.set("k", &1).await.expect("set");
    }
    assert_eq!(star.clear().await.expect("clear").removed, 1);
    assert!(longer.exists("k").await.expect("exists"), "t* is no pattern");
    assert_eq!(a.clear().await.expect("clear").removed, 2, "with the namespace below it");
    assert!(longer.exists("k").await.expect("exists"), "t is no prefix of tt");
    assert_eq!(world.size(), 1);

    for n in 0..1_200 {
        a.set_bytes(&format!("k{n}"), "v").await.expect("set");
    }
    let cleared = a.clear().await.expect("clear");
    assert_eq!((cleared.removed, cleared.source), (1_200, Source::Primary));
    assert_eq!(world.size(), 1);

    let refused = view("").clear().await.expect_err("it would wipe the database");
    assert!(refused.to_string().contains("namespace"), "{refused}");
    assert_eq!(world.size(), 1);
}

pub(super) async fn keys_are_checked_and_stored_as_they_are(cache: &Cache, world: &World) {
    let long = "k".repeat(250);
    for key in ["größe:世界", "a*b?[c]", "é\u{10ffff}", long.as_str()] {
        cache.set(key, key).await.expect(key);
        assert_eq!(world.cli(&["EXISTS", &format!("t:{key}")]), "1", "{key}");
        assert_eq!(cache.get::<String>(key).await.expect("get").as_deref(), Some(key));
    }
    let too_long = "k".repeat(251);
    for key in ["", "a b", "a\r\nb", "a\tb", "a\0b", too_long.as_str()] {
        let error = cache.get::<u8>(key).await.expect_err(key);
        assert!(matches!(error, Error::Key(_)), "{error:?}");
    }
    let other = cache.namespace("tt").expect("a good namespace");
    assert_eq!(other.get::<String>(&long).await.expect("get"), None, "another namespace");
}

/// What the caller got wrong is no failure of the server.
pub(super) async fn null_miss_undecodable_and_wrong_type_are_four_things(_: &Cache, world: &World) {
    let cache = world.connect(world.builder().breaker_threshold(1)).await.expect("connects");
    let picky = world.connect(world.builder().undecodable(Undecodable::Error)).await.expect("connects");
    let postcard = world.connect(world.builder().codec(Codec::Postcard)).await.expect("connects");
    cache.set("null", &None::<u8>).await.expect("set");
    assert_eq!(cache.get::<Option<u8>>("null").await.expect("get"), Some(None), "a stored null is a hit");
    assert_eq!(cache.get::<Option<u8>>("missing").await.expect("get"), None);

    assert_eq!(world.cli(&["SET", "t:corrupt", "{\"name\": "]), "OK");
    cache.set("text", "not a number").await.expect("set");
    postcard.set("postcard", &(300_u16, "x")).await.expect("set");
    for key in ["corrupt", "text", "postcard"] {
        assert_eq!(cache.get::<u64>(key).await.expect("a miss"), None, "{key}");
        let error = picky.get::<u64>(key).await.expect_err(key);
        assert!(error.is_undecodable(), "{error:?}");
    }
    assert_eq!(world.cli(&["RPUSH", "t:list", "x"]), "1");
    let error = cache.get::<u64>("list").await.expect_err("a list");
    assert!(error.is_wrong_type() && !error.is_unavailable(), "{error:?}");
    for cache in [&cache, &picky] {
        let stats = cache.stats();
        let redis = stats.redis.as_ref().expect("on Redis");
        let breaker = (redis.circuit_state, redis.circuit_breaker_trips, redis.unserved);
        assert_eq!(breaker, (BreakerState::Closed, 0, 0));
        assert_eq!((stats.undecodable, stats.error_rate), (3, Some(0.0)));
    }
}
