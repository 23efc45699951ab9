//! The caches, each behind the same two calls.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cached::{Cached, LruTtlCache};
use larder_engine::Instant;
use larder_engine::store::{Store, StoreConfig};
use larder_tokio::{MemoryCache, Policy};

/// A key or a value.
pub(super) trait Entry: Clone + Eq + Hash + Send + Sync + 'static {
    fn of(number: u64) -> Self;
}

impl Entry for u64 {
    fn of(number: u64) -> Self {
        number
    }
}

impl Entry for String {
    fn of(number: u64) -> Self {
        format!("user:profile:{number:016x}")
    }
}

impl Entry for Bytes {
    /// As a cache gets them: a buffer of its own each time.
    fn of(number: u64) -> Self {
        Self::from(vec![number as u8; 100])
    }
}

/// What is measured of a cache. A handle, where it is for several threads.
pub(super) trait Contender<K, V>: Send {
    /// Whether the key is there. The value is cloned out: some can do no other.
    fn get(&mut self, key: &K) -> bool;

    fn insert(&mut self, key: K, value: V);
}

type Handles<K, V> = Vec<Box<dyn Contender<K, V>>>;

/// Handles of one cache of so many entries; `None` where it is not for so many threads.
pub(super) fn make<K: Entry, V: Entry>(name: &str, capacity: usize, threads: usize) -> Option<Handles<K, V>> {
    let shared =
        |handle: &dyn Fn() -> Box<dyn Contender<K, V>>| Some((0..threads).map(|_| handle()).collect());
    let alone = |cache: Box<dyn Contender<K, V>>| (threads == 1).then(|| vec![cache]);
    let size = std::num::NonZero::new(capacity)?;
    match name {
        "larder" | "larder.lru" => {
            let policy = if name == "larder" { Policy::Adaptive } else { Policy::Lru };
            let cache = MemoryCache::<K, V>::builder().max_entries(capacity).policy(policy).build().ok()?;
            shared(&|| Box::new(cache.clone()))
        }
        "larder.store" => alone(Box::new(Ours::<K, V>::new(capacity, Policy::Adaptive, None))),
        "larder.store.lru" => alone(Box::new(Ours::<K, V>::new(capacity, Policy::Lru, None))),
        "larder.store.ttl" => alone(Box::new(Ours::<K, V>::new(capacity, Policy::Lru, Some(HOUR)))),
        "quick_cache" => {
            let cache = Arc::new(quick_cache::sync::Cache::<K, V>::new(capacity));
            shared(&|| Box::new(Arc::clone(&cache)))
        }
        "moka" => {
            let cache = moka::sync::Cache::<K, V>::new(capacity as u64);
            shared(&|| Box::new(cache.clone()))
        }
        "foyer" => {
            let cache = foyer_memory::CacheBuilder::new(capacity).build::<foyer_memory::CacheProperties>();
            let cache: foyer_memory::Cache<K, V> = cache;
            shared(&|| Box::new(cache.clone()))
        }
        "mini-moka" => {
            let cache = mini_moka::sync::Cache::<K, V>::new(capacity as u64);
            shared(&|| Box::new(cache.clone()))
        }
        "stretto" => {
            // Ten counters for each entry, as its documentation advises.
            let cache = stretto::Cache::<K, V>::new(10 * capacity, capacity as i64).ok()?;
            shared(&|| Box::new(cache.clone()))
        }
        "quick_cache.unsync" => alone(Box::new(quick_cache::unsync::Cache::<K, V>::new(capacity))),
        "lru" => alone(Box::new(lru::LruCache::<K, V>::new(size))),
        "schnellru" => {
            let limit = schnellru::ByLength::new(u32::try_from(capacity).ok()?);
            alone(Box::new(schnellru::LruMap::<K, V>::new(limit)))
        }
        "cached.ttl" => {
            let cache = LruTtlCache::<K, V>::new(capacity, HOUR);
            alone(Box::new(cache))
        }
        "hashbrown" => alone(Box::<hashbrown::HashMap<K, V, Hasher>>::default()),
        _ => None,
    }
}

type Hasher = foldhash::quality::RandomState;

const HOUR: Duration = Duration::from_secs(3_600);

/// The engine's store, whose caller knows the time.
struct Ours<K, V> {
    store: Store<K, V, Hasher>,
    deadline: Instant,
}

impl<K: Entry, V: Entry> Ours<K, V> {
    fn new(max_entries: usize, policy: Policy, ttl: Option<Duration>) -> Self {
        let config = StoreConfig { max_entries, policy, ..StoreConfig::default() };
        let deadline = ttl.map_or(Instant::NEVER, |ttl| NOW.saturating_add(ttl));
        Self { store: Store::new(config, Hasher::default(), NOW), deadline }
    }
}

const NOW: Instant = Instant::EPOCH;

impl<K: Entry, V: Entry> Contender<K, V> for Ours<K, V> {
    fn get(&mut self, key: &K) -> bool {
        is_some(self.store.get(NOW, key).cloned())
    }

    fn insert(&mut self, key: K, value: V) {
        // An entry that weighs nothing is never too large.
        let _ = self.store.insert(NOW, key, value, 0, self.deadline);
    }
}

impl<K: Entry, V: Entry> Contender<K, V> for MemoryCache<K, V> {
    fn get(&mut self, key: &K) -> bool {
        is_some(Self::get(self, key))
    }

    fn insert(&mut self, key: K, value: V) {
        let _ = Self::insert(self, key, value);
    }
}

/// Keeps the compiler from leaving the clone out.
fn is_some<V>(value: Option<V>) -> bool {
    std::hint::black_box(value).is_some()
}

/// A peer whose calls have the names that most of them have.
macro_rules! contender {
    ($cache:ty, $get:expr, $insert:expr) => {
        impl<K: Entry, V: Entry> Contender<K, V> for $cache {
            fn get(&mut self, key: &K) -> bool {
                let get: fn(&mut Self, &K) -> Option<V> = $get;
                is_some(get(self, key))
            }

            fn insert(&mut self, key: K, value: V) {
                let insert: fn(&mut Self, K, V) = $insert;
                insert(self, key, value);
            }
        }
    };
}

contender!(Arc<quick_cache::sync::Cache<K, V>>, |c, k| (**c).get(k), |c, k, v| (**c).insert(k, v));
contender!(moka::sync::Cache<K, V>, |c, k| Self::get(c, k), |c, k, v| Self::insert(c, k, v));
contender!(
    foyer_memory::Cache<K, V>,
    |c, k| Self::get(c, k).map(|entry| entry.value().clone()),
    |c, k, v| drop(Self::insert(c, k, v))
);
contender!(mini_moka::sync::Cache<K, V>, |c, k| Self::get(c, k), |c, k, v| Self::insert(c, k, v));
contender!(
    stretto::Cache<K, V>,
    |c, k| Self::get(c, k).map(|value| value.value().clone()),
    |c, k, v| _ = Self::insert(c, k, v, 1)
);
contender!(quick_cache::unsync::Cache<K, V>, |c, k| Self::get(c, k).cloned(), |c, k, v| Self::insert(c, k, v));
contender!(lru::LruCache<K, V>, |c, k| Self::get(c, k).cloned(), |c, k, v| drop(c.put(k, v)));
contender!(
    schnellru::LruMap<K, V>,
    |c, k| Self::get(c, k).map(|value| value.clone()),
    |c, k, v| _ = Self::insert(c, k, v)
);
contender!(LruTtlCache<K, V>, |c, k| c.cache_get(k).cloned(), |c, k, v| drop(c.cache_set(k, v)));
contender!(
    hashbrown::HashMap<K, V, Hasher>,
    |c, k| Self::get(c, k).cloned(),
    |c, k, v| drop(Self::insert(c, k, v))
);
