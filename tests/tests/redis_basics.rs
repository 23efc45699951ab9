//! Every operation against a real Redis, on tokio.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use larder_tests::RedisServer;
use larder_tokio::{
    BreakerState, Cache, Codec, Error, RedisBuilder, SetOutcome, Source, Tokio, Ttl, Undecodable,
};

/// A cache that never answers from memory, so that every answer is the server's.
fn strict(server: &RedisServer) -> RedisBuilder {
    Cache::redis(server.url()).namespace("t").fallback(false)
}

#[tokio::test]
async fn values_go_to_the_server_and_come_back() {
    let server = RedisServer::start();
    let cache = strict(&server).connect(Tokio).await.expect("the server runs");
    assert_eq!(cache.set("k", &vec![1, 2, 3]).await.expect("set"), SetOutcome::Stored);
    assert_eq!(server.cli(&["GET", "t:k"]), "[1,2,3]");
    assert_eq!(cache.get::<Vec<u8>>("k").await.expect("get"), Some(vec![1, 2, 3]));
    let found = cache.lookup::<Vec<u8>>("k").await.expect("lookup");
    assert_eq!((found.value, found.source), (Some(vec![1, 2, 3]), Source::Primary));
    let value = cache.get_ref("k").await.expect("get_ref").expect("a value");
    assert_eq!(value.decode::<Vec<u8>>().expect("decodes"), [1, 2, 3]);
    assert!(cache.exists("k").await.expect("exists"));
    assert!(cache.delete("k").await.expect("delete"));
    assert!(!cache.delete("k").await.expect("delete"));
    assert!(!cache.exists("k").await.expect("exists"));
    assert_eq!(cache.get::<Vec<u8>>("k").await.expect("get"), None);
    let info = cache.server_info("server").await.expect("info").expect("there is a server");
    assert!(info.contains("redis_version"), "{info}");
}

#[tokio::test]
async fn times_to_live_are_the_servers() {
    let server = RedisServer::start();
    let cache = strict(&server).default_ttl(Duration::from_secs(60)).connect(Tokio).await.expect("connects");
    cache.set("default", &1).await.expect("set");
    cache.set("never", &1).ttl(Ttl::Never).await.expect("set");
    cache.set("after", &1).ttl(Duration::from_millis(1500)).await.expect("set");
    let left = |key: &str| server.cli(&["PTTL", key]).parse::<i64>().expect("a number");
    assert!((50_000..=60_000).contains(&left("t:default")), "{}", left("t:default"));
    assert_eq!(left("t:never"), -1);
    assert!((1..=1500).contains(&left("t:after")), "{}", left("t:after"));
    let zero = cache.set("zero", &1).ttl(Duration::ZERO).await.expect_err("zero");
    assert!(matches!(zero, Error::Ttl(_)) && zero.to_string().contains("Ttl::Never"), "{zero}");
}

/// Each set decides anew; a TTL is never inherited, and the shortest and longest ones are within what Redis takes.
#[tokio::test]
async fn overwriting_replaces_the_time_to_live() {
    let server = RedisServer::start();
    let cache = strict(&server).connect(Tokio).await.expect("connects");
    let left = || server.cli(&["PTTL", "t:k"]).parse::<i64>().expect("a number");
    cache.set("k", &1).ttl(Duration::from_secs(60)).await.expect("set");
    assert!((50_000..=60_000).contains(&left()), "{}", left());
    cache.set("k", &2).await.expect("set");
    assert_eq!(left(), -1);
    cache.set("k", &3).ttl(Duration::MAX).await.expect("set");
    assert!(left() > 1 << 60, "{}", left());
    // Rounded up to a millisecond: rounded down, Redis would refuse it.
    cache.set("k", &4).ttl(Duration::from_nanos(1)).await.expect("set");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(left(), -2, "it is gone");
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
    age: Option<u8>,
    tags: Vec<String>,
}

#[tokio::test]
async fn codecs_bring_back_what_they_wrote() {
    let server = RedisServer::start();
    let ada =
        User { name: "Ada \u{1F9EE}\0".to_owned(), age: None, tags: vec![String::new(), "x y".to_owned()] };
    for codec in [Codec::Json, Codec::Postcard] {
        let cache = strict(&server).codec(codec).connect(Tokio).await.expect("connects");
        cache.set("ada", &ada).await.expect("set");
        assert_eq!(cache.get::<User>("ada").await.expect("get").as_ref(), Some(&ada), "{codec}");
    }
    let raw = strict(&server).codec(Codec::Raw).connect(Tokio).await.expect("connects");
    raw.set("text", "as it is").await.expect("set");
    assert_eq!(server.cli(&["GET", "t:text"]), "as it is");
    assert_eq!(raw.get::<String>("text").await.expect("get").as_deref(), Some("as it is"));
    let error = raw.set("ada", &ada).await.expect_err("no bytes");
    assert!(matches!(error, Error::Encode(_)), "{error:?}");
}

#[tokio::test]
async fn large_and_binary_values_survive() {
    let server = RedisServer::start();
    let cache = strict(&server).codec(Codec::Raw).connect(Tokio).await.expect("connects");
    let all: Vec<u8> = (0..=255).collect();
    for size in [0, 1, 255, 256, 65_535, 65_536, 1 << 20, 16 << 20] {
        let value: Bytes = all.iter().copied().cycle().take(size).collect();
        cache.set_bytes("big", value.clone()).await.expect("set");
        assert!(cache.get_bytes("big").await.expect("get") == Some(value), "{size} bytes");
    }
}

#[tokio::test]
async fn keys_are_checked_and_stored_as_they_are() {
    let server = RedisServer::start();
    let cache = strict(&server).connect(Tokio).await.expect("connects");
    let long = "k".repeat(250);
    for key in ["größe:世界", "a*b?[c]", long.as_str()] {
        cache.set(key, &1).await.expect(key);
        assert_eq!(server.cli(&["EXISTS", &format!("t:{key}")]), "1", "{key}");
    }
    let too_long = "k".repeat(251);
    for key in ["", "a b", "a\r\nb", "a\tb", "a\0b", too_long.as_str()] {
        let error = cache.get::<u8>(key).await.expect_err(key);
        assert!(matches!(error, Error::Key(_)), "{error:?}");
    }
    let other = cache.namespace("other").expect("a good namespace");
    assert_eq!(other.get::<u8>(&long).await.expect("get"), None, "another namespace");
}

#[tokio::test]
async fn clear_touches_only_its_namespace() {
    let server = RedisServer::start();
    let a = Cache::redis(server.url()).namespace("a").connect(Tokio).await.expect("connects");
    let view = |namespace| a.namespace(namespace).expect("a good namespace");
    let (star, ab, abc) = (view("a*"), view("ab"), view("abc"));
    for cache in [&a, &star, &ab, &abc] {
        cache.set("k", &1).await.expect("set");
    }
    assert_eq!(star.clear().await.expect("clear").removed, 1);
    assert!(abc.exists("k").await.expect("exists"), "a* is no pattern");
    assert_eq!(a.clear().await.expect("clear").removed, 1);
    assert!(ab.exists("k").await.expect("exists"), "a is no prefix of ab");
    assert_eq!(server.cli(&["DBSIZE"]), "2");

    for n in 0..5_000 {
        ab.set_bytes(&format!("k{n}"), "v").await.expect("set");
    }
    let cleared = ab.clear().await.expect("clear");
    assert_eq!((cleared.removed, cleared.source), (5_001, Source::Primary));
    assert_eq!(server.cli(&["DBSIZE"]), "1");

    let refused = view("").clear().await.expect_err("it would wipe the database");
    assert!(refused.to_string().contains("namespace"), "{refused}");
    assert_eq!(server.cli(&["DBSIZE"]), "1");
}

/// R6: what the caller got wrong is no failure of the server.
#[tokio::test]
async fn null_miss_undecodable_and_wrong_type_are_four_things() {
    let server = RedisServer::start();
    let cache = strict(&server).breaker_threshold(1).connect(Tokio).await.expect("connects");
    let picky = strict(&server).undecodable(Undecodable::Error).connect(Tokio).await.expect("connects");
    cache.set("null", &None::<u8>).await.expect("set");
    assert_eq!(cache.get::<Option<u8>>("null").await.expect("get"), Some(None), "a stored null is a hit");
    assert_eq!(cache.get::<Option<u8>>("missing").await.expect("get"), None);

    assert_eq!(server.cli(&["SET", "t:corrupt", "{\"name\": "]), "OK");
    cache.set("text", "not a number").await.expect("set");
    let postcard = strict(&server).codec(Codec::Postcard).connect(Tokio).await.expect("connects");
    postcard.set("postcard", &(300_u16, "x")).await.expect("set");
    for key in ["corrupt", "text", "postcard"] {
        assert_eq!(cache.get::<u64>(key).await.expect("a miss"), None, "{key}");
        let error = picky.get::<u64>(key).await.expect_err(key);
        assert!(error.is_undecodable(), "{error:?}");
    }
    assert_eq!(server.cli(&["RPUSH", "t:list", "x"]), "1");
    let error = cache.get::<u64>("list").await.expect_err("a list");
    assert!(error.is_wrong_type() && !error.is_unavailable(), "{error:?}");

    for cache in [&cache, &picky] {
        let stats = cache.stats();
        let redis = stats.redis.as_ref().expect("on Redis");
        assert_eq!(
            (redis.circuit_state, redis.circuit_breaker_trips, redis.unserved),
            (BreakerState::Closed, 0, 0)
        );
        assert_eq!(stats.undecodable, 3);
        assert_eq!(stats.error_rate, Some(0.0));
    }
}

#[tokio::test]
async fn every_way_in_works() {
    let password = RedisServer::builder().arg("--requirepass").arg("secret").start();
    let acl = RedisServer::start();
    assert_eq!(acl.cli(&["ACL", "SETUSER", "app", "on", ">p@ss", "~t:*", "+@all"]), "OK");
    let resp2 =
        RedisServer::builder().args(["--rename-command", "HELLO", ""]).arg("--requirepass").arg("pw").start();
    let plain = RedisServer::start();
    let tcp = |server: &RedisServer, userinfo: &str, database: u32| {
        format!("redis://{userinfo}127.0.0.1:{}/{database}", server.port())
    };
    for (what, url) in [
        ("password", tcp(&password, ":secret@", 0)),
        ("password of the default user", tcp(&password, "default:secret@", 3)),
        ("ACL user", tcp(&acl, "app:p%40ss@", 0)),
        ("RESP2 only", tcp(&resp2, ":pw@", 2)),
        ("unix socket", format!("redis+unix://{}?db=5", plain.unix_socket().display())),
        ("database", tcp(&plain, "", 7)),
    ] {
        let cache =
            Cache::redis(url).namespace("t").client_name("tester").fallback(false).connect(Tokio).await;
        let cache = cache.unwrap_or_else(|error| panic!("{what}: {error}"));
        cache.set("k", what).await.expect(what);
        assert_eq!(cache.get::<String>("k").await.expect(what).as_deref(), Some(what));
    }
    assert_eq!(plain.cli(&["-n", "7", "GET", "t:k"]), "\"database\"");
    assert_eq!(plain.cli(&["-n", "5", "GET", "t:k"]), "\"unix socket\"");
}

/// The environment of a process cannot be changed safely while it runs, so this test runs itself in another one.
#[tokio::test]
async fn a_service_is_configured_by_its_environment() {
    const NAME: &str = "a_service_is_configured_by_its_environment";
    const VARIABLE: &str = "LARDER_TEST_REDIS_URL";
    if std::env::var_os(VARIABLE).is_some() {
        let cache = Cache::redis_from_env(VARIABLE).namespace("code").connect(Tokio).await.expect("connects");
        cache.set("k", "from the environment").await.expect("set");
        return;
    }
    let error = Cache::redis_from_env(VARIABLE).connect(Tokio).await.expect_err("not set");
    assert!(error.to_string().contains(VARIABLE), "{error}");

    let server = RedisServer::start();
    let socket = server.unix_socket();
    let options = "db=3&namespace=shop&default_ttl=1h&fallback=off&client_name=me";
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", NAME])
        .env(VARIABLE, format!("unix://{}?{options}", socket.display()))
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(server.cli(&["-n", "3", "GET", "shop:k"]), "\"from the environment\"");
    let left: i64 = server.cli(&["-n", "3", "PTTL", "shop:k"]).parse().expect("a number");
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
}

#[tokio::test]
async fn connecting_fails_with_the_cause() {
    let server = RedisServer::builder().arg("--requirepass").arg("right").start();
    let port = server.port();
    let free = larder_tests::free_port();
    for (url, says) in [
        (format!("redis://127.0.0.1:{free}"), "refused"),
        (format!("redis://:wrong@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
        (format!("redis://:right@127.0.0.1:{port}/99"), "SELECT"),
        ("redis+unix:///nowhere/redis.sock".to_owned(), "No such file"),
    ] {
        let error =
            Cache::redis(url.as_str()).fallback(false).connect(Tokio).await.expect_err("cannot connect");
        let text = error.to_string();
        assert!(text.contains(says) && !text.contains("wrong@"), "{url}: {text}");
        assert!(error.is_unavailable());
    }
    // A wrong password is not an outage: even with a fallback it is told.
    let error =
        Cache::redis(format!("redis://:wrong@127.0.0.1:{port}")).connect(Tokio).await.expect_err("refused");
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
}
