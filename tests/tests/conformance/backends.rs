//! Redis, memory and a backend of one's own behind the same `Cache`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use larder::{Backend, BackendError, BackendFuture, Cache, Error, SetOutcome, Source, Ttl};

use super::World;

/// Who takes a `&Cache` need not know which kind it is.
pub(super) async fn every_kind_of_cache_answers_alike(redis: &Cache, _: &World) {
    let memory = Cache::memory().namespace("t").build().expect("valid");
    let custom = Cache::custom(Slow::default()).namespace("t").build().expect("valid");
    for cache in [redis, &memory, &custom] {
        assert_eq!(cache.set("k", &("x", 1)).await.expect("set"), SetOutcome::Stored);
        let found = cache.lookup::<(String, u8)>("k").await.expect("lookup");
        assert_eq!((found.value, found.source), (Some(("x".to_owned(), 1)), Source::Primary));
        assert_eq!(cache.get_bytes("k").await.expect("get").as_deref(), Some(&b"[\"x\",1]"[..]));
        assert!(cache.exists("k").await.expect("exists"));
        assert_eq!(cache.get::<u8>("none").await.expect("get"), None);
        cache.set("gone", &1).ttl(Duration::from_secs(9)).await.expect("set");
        assert!(cache.delete("gone").await.expect("delete"));
        assert!(!cache.delete("gone").await.expect("delete"));
        assert!(cache.set("k", &1).ttl(Duration::ZERO).await.is_err());
        assert!(matches!(cache.get::<u8>("a b").await, Err(Error::Key(_))));
        let other = cache.namespace("tt").expect("a good namespace");
        other.set("k", &2).await.expect("set");
        assert_eq!(cache.clear().await.expect("clear").removed, 1);
        assert_eq!(other.get::<u8>("k").await.expect("get"), Some(2));
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.sets, stats.deletes), (3, 1, 3, 2), "{}", stats.backend);
        cache.close().await;
    }
}

/// The blocking face of a cache is the same cache, whatever drives it.
pub(super) async fn threads_and_tasks_share_a_cache(cache: &Cache, world: &World) {
    let (sender, finished) = smol::channel::bounded::<()>(1);
    let blocking = cache.blocking();
    let threads = std::thread::spawn(move || {
        use_from_threads(&blocking);
        drop(sender);
    });
    // Whether they passed or not, it is gone then; waiting for the thread would hold up the runtime.
    assert!(finished.recv().await.is_err());
    threads.join().expect("the threads got what they expected");
    assert_eq!(cache.get::<String>("last").await.expect("get").as_deref(), Some("by a thread"));
    assert_eq!(world.time_to_live("t:forever"), -1);
}

fn use_from_threads(cache: &larder::blocking::Cache) {
    std::thread::scope(|scope| {
        for n in 0..8 {
            scope.spawn(move || {
                let key = format!("k{n}");
                for round in 0..50 {
                    cache.set(&key, &(n, round)).expect("set");
                    assert_eq!(cache.get::<(u8, u8)>(&key).expect("get"), Some((n, round)));
                }
                assert!(cache.exists(&key).expect("exists") && cache.delete(&key).expect("delete"));
            });
        }
    });
    cache.set_with_ttl("forever", &1, Ttl::Never).expect("set");
    cache.set_bytes("last", "\"by a thread\"", Duration::from_secs(60)).expect("set");
    assert_eq!(cache.lookup::<String>("last").expect("lookup").source, Source::Primary);
    assert_eq!(cache.get_ref("forever").expect("get").expect("a value").bytes(), "1");
    assert_eq!(cache.get_bytes("forever").expect("get").as_deref(), Some(&b"1"[..]));
    assert!(cache.server_info("server").expect("info").is_some());
    let other = cache.namespace("tt").expect("a good namespace");
    other.set("k", &1).expect("set");
    assert_eq!(other.clear().expect("clear").removed, 1);
    assert_eq!(cache.as_async().stats().sets, cache.stats().sets);
}

/// It was compiled once, without any of them; its futures are `Send`.
pub(super) async fn a_library_works_under_every_runtime(cache: &Cache, world: &World) {
    for rendered in ["first", "second"] {
        let cache = cache.clone();
        let page = async move { larder_library::page(&cache, "index", || rendered.to_owned()).await };
        assert_eq!(world.runtime.spawn(page).join().await.expect("a page"), "first");
    }
    assert_eq!(world.cli(&["GET", "tt:index"]), "\"first\"");
}

/// A map that takes its time, remembers times to live instead of obeying them, and fails when it is told to.
#[derive(Clone, Debug, Default)]
struct Slow(Arc<State>);

#[derive(Debug, Default)]
struct State {
    map: Mutex<BTreeMap<Bytes, (Bytes, Option<Duration>)>>,
    broken: AtomicBool,
}

impl Slow {
    fn later<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BTreeMap<Bytes, (Bytes, Option<Duration>)>) -> T + Send + 'static,
    ) -> BackendFuture<'_, T> {
        Box::pin(async move {
            smol::future::yield_now().await;
            if self.0.broken.load(Ordering::Relaxed) {
                return Err(BackendError::from("the disk is full"));
            }
            Ok(work(&mut self.0.map.lock().expect("no panic")))
        })
    }

    fn ttl(&self, key: &str) -> Option<Duration> {
        self.0.map.lock().expect("no panic").get(key.as_bytes()).expect("it was set").1
    }
}

impl Backend for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn get(&self, key: Bytes) -> BackendFuture<'_, Option<Bytes>> {
        self.later(move |map| map.get(&key).map(|(value, _)| value.clone()))
    }

    fn set(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> BackendFuture<'_, ()> {
        self.later(move |map| drop(map.insert(key, (value, ttl))))
    }

    fn delete(&self, key: Bytes) -> BackendFuture<'_, bool> {
        self.later(move |map| map.remove(&key).is_some())
    }

    fn clear(&self, prefix: Bytes) -> BackendFuture<'_, u64> {
        self.later(move |map| {
            let before = map.len();
            map.retain(|key, _| !key.starts_with(&prefix));
            (before - map.len()) as u64
        })
    }
}

pub(super) async fn a_backend_of_ones_own_is_given_keys_and_times_to_live(_: &Cache, _: &World) {
    let slow = Slow::default();
    let builder = Cache::custom(slow.clone()).namespace("t").default_ttl(Duration::from_secs(9));
    let cache = builder.build().expect("valid");
    let other = cache.namespace("tt").expect("a good namespace");

    assert_eq!(cache.set("default", &(1, "x")).await.expect("set"), SetOutcome::Stored);
    cache.set("never", &1).ttl(Ttl::Never).await.expect("set");
    cache.set("after", &1).ttl(Duration::from_secs(5)).await.expect("set");
    other.set("k", &None::<u8>).await.expect("set");
    assert_eq!(slow.ttl("t:default"), Some(Duration::from_secs(9)));
    assert_eq!(slow.ttl("t:never"), None);
    assert_eq!(slow.ttl("t:after"), Some(Duration::from_secs(5)));

    let found = cache.lookup::<(u8, String)>("default").await.expect("lookup");
    assert_eq!((found.value, found.source), (Some((1, "x".to_owned())), Source::Primary));
    assert_eq!(cache.get_bytes("default").await.expect("get").as_deref(), Some(&b"[1,\"x\"]"[..]));
    assert_eq!(cache.get::<u8>("none").await.expect("get"), None);
    assert_eq!(other.get::<Option<u8>>("k").await.expect("get"), Some(None));
    assert!(other.exists("k").await.expect("exists"), "a stored null is there");
    assert!(cache.delete("never").await.expect("delete"));
    assert!(!cache.delete("never").await.expect("delete"));
    assert_eq!(cache.clear().await.expect("clear").removed, 2);
    assert!(other.exists("k").await.expect("exists"), "t is no prefix of tt");
    assert_eq!(cache.server_info("server").await.expect("nobody to ask"), None);
    assert_eq!(cache.close().await, Default::default());

    let stats = cache.stats();
    assert_eq!((stats.backend, stats.hits, stats.misses, stats.errors), ("slow", 3, 1, 0));
    assert_eq!((stats.sets, stats.deletes, stats.error_rate), (4, 2, Some(0.0)));
    assert!(stats.redis.is_none() && stats.memory.is_none());
}

pub(super) async fn errors_of_a_backend_reach_the_caller(_: &Cache, _: &World) {
    let slow = Slow::default();
    let cache = Cache::custom(slow.clone()).build().expect("valid");
    cache.set("k", &1).await.expect("set");
    slow.0.broken.store(true, Ordering::Relaxed);
    let errors = [
        cache.get::<u8>("k").await.expect_err("get"),
        cache.set("k", &2).await.expect_err("set"),
        cache.delete("k").await.expect_err("delete"),
        cache.exists("k").await.expect_err("exists"),
        cache.clear().await.expect_err("clear"),
    ];
    for error in &errors {
        assert!(matches!(error, Error::Backend { backend: "slow", .. }), "{error:?}");
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert!(!error.is_unavailable() && !error.is_timeout() && !error.is_closed());
    }
    // A bad key never gets there, and is no failure of the backend's.
    assert!(matches!(cache.get::<u8>("a b").await, Err(Error::Key(_))));
    let stats = cache.stats();
    assert_eq!((stats.total_operations, stats.errors, stats.error_rate), (6, 5, Some(5.0 / 6.0)));
    slow.0.broken.store(false, Ordering::Relaxed);
    assert_eq!(cache.get::<u8>("k").await.expect("get"), Some(1));
}
