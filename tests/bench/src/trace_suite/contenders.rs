//! One cache each, asked for one key after the other: a key that is not there is put in.

use foyer_memory::{CacheBuilder, EvictionConfig, LfuConfig, LruConfig, S3FifoConfig};
use larder_engine::Instant;
use larder_engine::store::{Policy, Store, StoreConfig};

/// Asks for a key, and puts it in where it is not there. Whether it was.
pub(crate) type Access = Box<dyn FnMut(u64) -> bool>;

/// Makes a cache of so many entries.
pub(crate) type Prepare = fn(usize) -> Access;

/// Who takes part. Peers have one shard where they can be told so: their best, since a sharded cache is full before it is.
pub(crate) const CONTENDERS: [(&str, Prepare); 11] = [
    ("larder.adaptive", |capacity| larder(capacity, Policy::Adaptive)),
    ("larder.lru", |capacity| larder(capacity, Policy::Lru)),
    ("lru", lru),
    ("quick_cache", quick_cache),
    ("moka", moka),
    ("moka.lru", moka_lru),
    ("mini-moka", mini_moka),
    ("foyer.lru", |capacity| foyer(capacity, LruConfig::default())),
    ("foyer.lfu", |capacity| foyer(capacity, LfuConfig::default())),
    ("foyer.s3fifo", |capacity| foyer(capacity, S3FifoConfig::default())),
    ("infinite", infinite),
];

fn larder(max_entries: usize, policy: Policy) -> Access {
    let config = StoreConfig { max_entries, policy, ..StoreConfig::default() };
    let now = Instant::EPOCH;
    let mut store = Store::new(config, foldhash::quality::FixedState::default(), now);
    Box::new(move |key| {
        let hit = store.get(now, &key).is_some();
        hit || store.insert(now, key, (), 0, Instant::NEVER).is_err()
    })
}

fn lru(capacity: usize) -> Access {
    let Some(capacity) = std::num::NonZero::new(capacity) else { return Box::new(|_| false) };
    let mut cache = lru::LruCache::new(capacity);
    Box::new(move |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.put(key, ());
        }
        hit
    })
}

fn quick_cache(capacity: usize) -> Access {
    let mut cache = quick_cache::unsync::Cache::new(capacity);
    Box::new(move |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
        }
        hit
    })
}

fn moka(capacity: usize) -> Access {
    moka_with(capacity, moka::policy::EvictionPolicy::tiny_lfu())
}

fn moka_lru(capacity: usize) -> Access {
    moka_with(capacity, moka::policy::EvictionPolicy::lru())
}

/// It puts its housekeeping off, and holds more than its capacity until then; here it may not.
fn moka_with(capacity: usize, policy: moka::policy::EvictionPolicy) -> Access {
    let cache = moka::sync::Cache::builder().max_capacity(capacity as u64).eviction_policy(policy).build();
    Box::new(move |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
            cache.run_pending_tasks();
        }
        hit
    })
}

fn mini_moka(capacity: usize) -> Access {
    let mut cache = mini_moka::unsync::Cache::new(capacity as u64);
    Box::new(move |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
        }
        hit
    })
}

fn foyer(capacity: usize, eviction: impl Into<EvictionConfig>) -> Access {
    let cache: foyer_memory::Cache<u64, ()> =
        CacheBuilder::new(capacity).with_shards(1).with_eviction_config(eviction).build();
    Box::new(move |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, ());
        }
        hit
    })
}

/// What no cache can pass: only the first request of a key is a miss.
fn infinite(_: usize) -> Access {
    let mut seen = std::collections::HashSet::new();
    Box::new(move |key| !seen.insert(key))
}
