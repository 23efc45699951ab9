//! What the types promise, and what no output may show.

use std::fmt::{Debug, Display};
use std::time::Duration;

use larder_tests::RedisServer;
use larder_tokio::{Cache, Error, MemoryCache, RedisBuilder, Tokio};

fn is_send<T: Send>(_: &T) {}

#[test]
fn the_cache_and_its_futures_go_to_any_thread() {
    fn is_shared<T: Clone + Debug + Send + Sync + 'static>() {}
    is_shared::<Cache>();
    is_shared::<MemoryCache<String, String>>();
    is_shared::<Error>();

    let cache = Cache::memory().build().expect("valid");
    let not_send = std::rc::Rc::new(1_u8);
    is_send(&cache.get::<String>("k"));
    is_send(&cache.get_bytes("k"));
    is_send(&cache.get_ref("k"));
    is_send(&cache.lookup::<String>("k"));
    is_send(&cache.set("k", &*not_send)); // The value is encoded at once, so that it need not be Send.
    is_send(&cache.set_bytes("k", "v"));
    is_send(&cache.delete("k"));
    is_send(&cache.exists("k"));
    is_send(&cache.clear());
    is_send(&cache.server_info("memory"));
    is_send(&cache.close());
    is_send(&Cache::redis("redis://localhost").connect(Tokio));
}

#[test]
fn mistakes_in_parameters_name_the_field_and_the_remedy() {
    type Change = fn(RedisBuilder) -> RedisBuilder;
    let cases: [(&str, &str, Change); 12] = [
        ("operation_timeout", "zero", |b| b.operation_timeout(Duration::ZERO)),
        ("connect_timeout", "zero", |b| b.connect_timeout(Duration::ZERO)),
        ("stall_timeout", "zero", |b| b.stall_timeout(Duration::ZERO)),
        ("health_check_interval", "zero", |b| b.health_check_interval(Duration::ZERO)),
        ("breaker_timeout", "zero", |b| b.breaker_timeout(Duration::ZERO)),
        ("breaker_threshold", "at least 1", |b| b.breaker_threshold(0)),
        ("retry_attempts", "at least 1", |b| b.retry_attempts(0)),
        ("lanes", "max_connections", |b| b.lanes(21)),
        ("retry_backoff_base", "retry_backoff_max", |b| b.retry_backoff_base(Duration::from_secs(61))),
        ("client_name", "spaces", |b| b.client_name("a b")),
        ("default_ttl", "zero", |b| b.default_ttl(Duration::ZERO)),
        ("breaker_half_open_permits", "32", |b| b.breaker_half_open_permits(33)),
    ];
    for (field, says, change) in cases {
        let error = change(Cache::redis("redis://localhost")).connect_lazy(Tokio).expect_err(field);
        let Error::Config(config) = &error else { panic!("{field}: {error:?}") };
        assert_eq!(config.field(), field);
        assert!(error.to_string().contains(says), "{error}");
    }
    for (result, field) in [
        (Cache::memory().default_ttl(Duration::ZERO).build(), "default_ttl"),
        (Cache::memory().shards(0).build(), "shards"),
        (Cache::memory().max_bytes(1).max_entry_bytes(2).build(), "max_entry_bytes"),
    ] {
        let Error::Config(config) = result.expect_err(field) else { panic!("{field}") };
        assert_eq!(config.field(), field);
    }
    assert!(matches!(Cache::memory().namespace("a b").build(), Err(Error::Key(_))));
}

#[tokio::test]
async fn no_secret_in_any_output() {
    fn show<T: Debug>(outputs: &mut Vec<String>, value: &T) {
        outputs.push(format!("{value:?} {value:#?}"));
    }
    fn show_error<T: Debug + Display>(outputs: &mut Vec<String>, error: &T) {
        outputs.push(format!("{error} {error:?} {error:#?}"));
    }
    let server = RedisServer::builder().arg("--requirepass").arg("other").start();
    let url = format!("redis://user:secret@127.0.0.1:{}/0", server.port());
    let mut outputs = Vec::new();
    let builder = Cache::redis(url.clone()).breaker_threshold(1);
    show(&mut outputs, &builder);
    show_error(&mut outputs, &builder.clone().connect(Tokio).await.expect_err("a wrong password"));
    let cache = builder.connect_lazy(Tokio).expect("valid");
    show(&mut outputs, &cache);
    let set = cache.set_bytes("k", "secret");
    show(&mut outputs, &set);
    let _ = set.await;
    show(&mut outputs, &cache.get_ref("k").await);
    show(&mut outputs, &cache.stats());
    outputs.push(cache.stats().to_string());
    for mistake in [
        "redis://user:secret@",
        "redis://user:secret@h:x",
        "redis://u:secret/@h",
        "secret://h",
        "rediss://:secret@h?tls_ca_file=/nowhere",
    ] {
        show_error(&mut outputs, &Cache::redis(mistake).connect_lazy(Tokio).expect_err(mistake));
        show(&mut outputs, &Cache::redis(mistake));
    }
    let strict = Cache::redis(url).fallback(false).connect_lazy(Tokio).expect("valid");
    show_error(&mut outputs, &strict.get::<u8>("k").await.expect_err("refused"));
    for output in outputs {
        assert!(!output.contains("secret"), "{output}");
    }
}
