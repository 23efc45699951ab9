//! The parameters of a [`MemoryCache`], checked once.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use foldhash::SharedSeed;
use larder_engine::store::{Policy, RemovalCause, Store, StoreConfig, TtlJitter};

use super::{DefaultHashBuilder, Inner, Listener, MemoryCache, Room, Shard, Weigher};
use crate::clock::Clock;
use crate::error::ConfigError;

/// Below so many entries, an LRU cache is one shard: then its order is exact.
const EXACT_BELOW: usize = 16 * 1024;

/// Two threads seldom meet in one of so many shards.
const SHARDS_PER_PROCESSOR: usize = 32;
const MAX_SHARDS: usize = 256;

/// By default a shard has room for so many entries at least: a policy has to have a choice.
const MIN_SHARE: usize = 128;

/// The parameters of a [`MemoryCache`].
#[must_use = "a builder does nothing before `build`"]
pub struct MemoryCacheBuilder<K, V, S = DefaultHashBuilder> {
    max_entries: usize,
    max_bytes: Option<u64>,
    max_entry_bytes: Option<u64>,
    default_ttl: Option<Duration>,
    time_to_idle: Option<Duration>,
    ttl_jitter: f64,
    shards: Option<usize>,
    policy: Policy,
    weigher: Option<Weigher<K, V>>,
    listener: Option<Listener<K, V>>,
    hasher: S,
}

impl<K, V> MemoryCacheBuilder<K, V> {
    pub(super) fn new() -> Self {
        Self {
            max_entries: 1000,
            max_bytes: None,
            max_entry_bytes: None,
            default_ttl: None,
            time_to_idle: None,
            ttl_jitter: 0.0,
            shards: None,
            policy: Policy::Lru,
            weigher: None,
            listener: None,
            // Chosen keys collide only for who knows the seed, which is the system's randomness.
            hasher: DefaultHashBuilder::with_seed(
                RandomState::new().hash_one(0),
                SharedSeed::global_random(),
            ),
        }
    }
}

impl<K: Hash + Eq, V, S> MemoryCacheBuilder<K, V, S> {
    /// The most entries. Default 1000; 0 stores nothing.
    #[doc(alias = "max_size")]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// The most bytes, as the [weigher](Self::weigher) counts them. Default unbounded.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// The largest single entry; larger ones are refused and evict nothing. Default: what `max_bytes` allows.
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = Some(bytes);
        self
    }

    /// How long values live that are set without a time to live. Default for ever.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// How long values live that nobody reads. Default for ever. A get renews it; [`contains`](MemoryCache::contains) and
    /// snapshots do not. Where there is a time to live as well, the value ends by whichever is over first.
    ///
    /// A hit of such a cache reads the exact clock.
    pub fn time_to_idle(mut self, idle: Duration) -> Self {
        self.time_to_idle = Some(idle);
        self
    }

    /// The share of each time to live that is left to chance, below 1. Default 0. With 0.1 a value lives for 90 to 100 % of its
    /// time, so that what was stored together is not missed together. By how much it is less is the key's, for as long as
    /// the cache lives: see [`TtlJitter`]. A time to idle has none.
    pub fn ttl_jitter(mut self, share: f64) -> Self {
        self.ttl_jitter = share;
        self
    }

    /// Parts that are locked separately, rounded up to a power of two. More shards are less waiting; one shard is exact LRU.
    ///
    /// Default 1 for LRU of fewer than 16 384 entries. Else 32 for each processor, as long as each has 128 entries on average, and
    /// 256 at most.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Which live entry goes when room is needed. Default [`Policy::Lru`]; large caches do better with
    /// [`Policy::Adaptive`], for 16 to 24 bytes more for each entry.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// What an entry weighs, in bytes. Default the sizes of `K` and `V` themselves, without what they point to.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// What keys are hashed with. Default [`DefaultHashBuilder`]. With one of a fixed seed, two caches to which the same is
    /// done hold the same.
    ///
    /// All of the key has to count for the lowest 24 bits of a hash and for the highest 7 (of the lower 32, where pointers have as
    /// many): by these it is found in a shard, and known to [`Policy::Adaptive`].
    pub fn hasher<T>(self, hasher: T) -> MemoryCacheBuilder<K, V, T> {
        MemoryCacheBuilder {
            max_entries: self.max_entries,
            max_bytes: self.max_bytes,
            max_entry_bytes: self.max_entry_bytes,
            default_ttl: self.default_ttl,
            time_to_idle: self.time_to_idle,
            ttl_jitter: self.ttl_jitter,
            shards: self.shards,
            policy: self.policy,
            weigher: self.weigher,
            listener: self.listener,
            hasher,
        }
    }

    /// Is told of each value that ends, with its key and why, except those that are there when the cache is dropped.
    ///
    /// It is called by the thread whose call ended the value, after that has let go of the shard: it may call the cache, and
    /// by then the key may have another value. What expires is told of when somebody notices: a read of the key, or a
    /// sweep. A panic in it goes to that caller, and the cache can be used on; what else was to be told of the same
    /// call is lost, and what it had still to do: an insert may have evicted and not set, a clear stops at a shard. A call
    /// that ends several values without handing them to its caller allocates for them.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use larder::{MemoryCache, RemovalCause};
    ///
    /// let (told, removals) = mpsc::channel();
    /// let cache = MemoryCache::builder()
    ///     .max_entries(1)
    ///     .removal_listener(move |key: &u32, value: &&str, cause| drop(told.send((*key, *value, cause))))
    ///     .build()?;
    /// cache.insert(1, "one")?;
    /// cache.insert(1, "uno")?;
    /// cache.insert(2, "two")?;
    /// assert_eq!(removals.try_recv(), Ok((1, "one", RemovalCause::Replaced)));
    /// assert_eq!(removals.try_recv(), Ok((1, "uno", RemovalCause::Evicted)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "eviction_listener")]
    pub fn removal_listener(
        mut self,
        listener: impl Fn(&K, &V, RemovalCause) + Send + Sync + 'static,
    ) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// The cache. Allocates little: it grows with its entries.
    ///
    /// # Errors
    /// A parameter makes no sense: no shards, more shards than entries, a default time to live or a time to idle of zero, a
    /// jitter that is no share, an entry bound above the bound of all.
    pub fn build(self) -> Result<MemoryCache<K, V, S>, ConfigError>
    where
        S: BuildHasher,
    {
        let ttl_jitter = self.check()?;
        let shards = self.shard_count()?;
        let clock = Clock::system();
        let now = clock.now();
        let max_bytes = self.max_bytes.unwrap_or(u64::MAX);
        let max_entry_bytes = self.max_entry_bytes.unwrap_or(u64::MAX).min(max_bytes);
        let config = StoreConfig {
            max_entries: most_in_one(self.max_entries, shards),
            max_bytes,
            max_entry_bytes,
            policy: self.policy,
            time_to_idle: self.time_to_idle,
        };
        let shard = |_| {
            let mut store = Store::new(config, (), now);
            // What has code to run when it is dropped is dropped with no lock held.
            if self.listener.is_some() || std::mem::needs_drop::<(K, V)>() {
                store.keep_removals();
            }
            Shard::new(store)
        };
        Ok(MemoryCache {
            inner: Arc::new(Inner {
                shards: (0..shards).map(shard).collect(),
                room: (shards > 1).then(|| Room::new(self.max_entries, self.max_bytes)),
                hasher: self.hasher,
                clock,
                default_ttl: self.default_ttl,
                ttl_jitter,
                has_time_to_idle: self.time_to_idle.is_some(),
                weigher: self.weigher,
                listener: self.listener,
                max_entries: self.max_entries,
                max_bytes: self.max_bytes,
                max_entry_bytes,
                next_sweep: AtomicUsize::new(0),
                next_victim: AtomicUsize::new(0),
            }),
        })
    }

    fn check(&self) -> Result<TtlJitter, ConfigError> {
        for (field, time) in [("default_ttl", self.default_ttl), ("time_to_idle", self.time_to_idle)] {
            if time == Some(Duration::ZERO) {
                return Err(ConfigError::new(
                    field,
                    "is zero, so that nothing would ever be found; leave it out for values without end",
                ));
            }
        }
        if let (Some(entry), Some(all)) = (self.max_entry_bytes, self.max_bytes) {
            if entry > all {
                return Err(ConfigError::new(
                    "max_entry_bytes",
                    "is above max_bytes, so that it never applies; lower it, or raise max_bytes",
                ));
            }
        }
        TtlJitter::new(self.ttl_jitter).ok_or_else(|| {
            ConfigError::new("ttl_jitter", "is no share of 0 to 1, 1 excluded; 0.1 shortens by up to a tenth")
        })
    }

    fn shard_count(&self) -> Result<usize, ConfigError> {
        match self.shards {
            None if self.policy == Policy::Lru && self.max_entries < EXACT_BELOW => Ok(1),
            None => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                let most = (SHARDS_PER_PROCESSOR * processors).min(MAX_SHARDS);
                Ok(1 << (self.max_entries / MIN_SHARE).clamp(1, most).ilog2())
            }
            Some(0) => Err(ConfigError::new("shards", "is 0; there must be at least one")),
            Some(n) if n > self.max_entries.max(1) => Err(ConfigError::new(
                "shards",
                "is above max_entries, so that there are more parts than entries; lower it",
            )),
            Some(n) => Ok(n.next_power_of_two()),
        }
    }
}

/// The most entries that one of so many shards can have. Keys fall on shards by chance, so that one has its fair share and hardly
/// ever more than a few times the root of that more. This is eight times; a shard that came to have more would
/// evict early, and none reserves memory for entries that it will not have.
fn most_in_one(entries: usize, shards: usize) -> usize {
    let share = entries / shards.max(1);
    if shards == 1 { entries } else { share.saturating_add(8 * share.isqrt() + 8).min(entries) }
}
