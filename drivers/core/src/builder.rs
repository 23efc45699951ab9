//! The builders: every parameter with its default, checked once, with errors that name the field.

mod options;
mod resilience;
mod tls;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use larder_engine::codec::Codec;
use larder_engine::config::LaneConfig;
use larder_engine::key::{KeyRules, check_namespace};
use larder_engine::machine::{EngineConfig, Reconcile, TierConfig};
use larder_engine::policy::BreakerConfig;
use larder_engine::resp::Limits;
use larder_engine::store::Policy;

use crate::backend::Backend;
use crate::cache::{Cache, Inner, Kind, Undecodable};
use crate::error::{ConfigError, Error};
use crate::memory::{MemoryCache, MemoryCacheBuilder};
use crate::redis::Handle;
use crate::runtime::Runtime;
use crate::stats::Counters;
use crate::url::{RedisUrl, UrlSource};
use resilience::Derived;
pub(crate) use tls::TlsOptions;

/// What every kind of cache has.
#[derive(Clone, Debug)]
struct Common {
    namespace: String,
    codec: Codec,
    default_ttl: Option<Duration>,
    key_rules: KeyRules,
    undecodable: Undecodable,
}

impl Common {
    fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            codec: Codec::default(),
            default_ttl: None,
            key_rules: KeyRules::default(),
            undecodable: Undecodable::default(),
        }
    }

    fn build(self, kind: Kind) -> Cache {
        let inner = Inner {
            kind,
            codec: self.codec,
            default_ttl: self.default_ttl,
            key_rules: self.key_rules,
            undecodable: self.undecodable,
            undecodable_count: AtomicU64::new(0),
        };
        Cache::new(inner, &self.namespace)
    }

    fn check(&self) -> Result<(), Error> {
        check_namespace(&self.namespace)?;
        if self.default_ttl == Some(Duration::ZERO) {
            return Err(ConfigError::new(
                "default_ttl",
                "is zero, so that nothing would ever be found; leave it out for values without end",
            )
            .into());
        }
        Ok(())
    }
}

/// The setters of [`Common`], once for each builder.
macro_rules! common_setters {
    () => {
        /// What stands before each key, with a colon between: keeps users of one store apart.
        pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
            self.common.namespace = namespace.into();
            self
        }

        /// How values are written. Default [`Codec::Json`].
        #[doc(alias = "serializer")]
        pub fn codec(mut self, codec: Codec) -> Self {
            self.common.codec = codec;
            self
        }

        /// How long values live that are set without a time to live. Default for ever.
        pub fn default_ttl(mut self, ttl: Duration) -> Self {
            self.common.default_ttl = Some(ttl);
            self
        }

        /// Which keys are accepted. Default at most 250 characters, none of them a space or a control character.
        pub fn key_rules(mut self, rules: KeyRules) -> Self {
            self.common.key_rules = rules;
            self
        }

        /// What becomes of stored values that cannot be decoded. Default [`Undecodable::Miss`].
        pub fn undecodable(mut self, undecodable: Undecodable) -> Self {
            self.common.undecodable = undecodable;
            self
        }
    };
}

/// The parameters of a cache in this process. There is no cleanup interval to choose: expiry is exact on read, and
/// sweeping is done in small steps by the way.
#[must_use = "a builder does nothing before `build`"]
pub struct MemoryBuilder {
    common: Common,
    memory: MemoryCacheBuilder<Bytes, Bytes>,
}

impl MemoryBuilder {
    pub(crate) fn new() -> Self {
        let memory =
            MemoryCache::builder().weigher(|key: &Bytes, value: &Bytes| (key.len() + value.len()) as u64);
        Self { common: Common::new(""), memory }
    }

    common_setters!();

    /// The most entries. Default 1000; 0 stores nothing. With fewer than 16 384 entries LRU is exact; above, each of some
    /// shards evicts its own.
    #[doc(alias = "max_size")]
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.memory = self.memory.max_entries(entries);
        self
    }

    /// The most bytes of keys and values. Default unbounded.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.memory = self.memory.max_bytes(bytes);
        self
    }

    /// The largest single entry, key and value; larger ones are refused and evict nothing. Default: what `max_bytes`
    /// allows.
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.memory = self.memory.max_entry_bytes(bytes);
        self
    }

    /// Which live entry goes when room is needed. Default [`Policy::Lru`]; large caches do better with
    /// [`Policy::Adaptive`], and what was written for LFU wants that.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.memory = self.memory.policy(policy);
        self
    }

    /// How long values live that nobody gets, whatever their time to live; see [`MemoryCacheBuilder::time_to_idle`].
    pub fn time_to_idle(mut self, idle: Duration) -> Self {
        self.memory = self.memory.time_to_idle(idle);
        self
    }

    /// The share of each time to live that is left to chance; see [`MemoryCacheBuilder::ttl_jitter`].
    pub fn ttl_jitter(mut self, share: f64) -> Self {
        self.memory = self.memory.ttl_jitter(share);
        self
    }

    /// Parts that are locked separately; see [`MemoryCacheBuilder::shards`].
    pub fn shards(mut self, shards: usize) -> Self {
        self.memory = self.memory.shards(shards);
        self
    }

    /// The cache. Needs no runtime and starts no task.
    ///
    /// # Errors
    /// A parameter makes no sense.
    pub fn build(self) -> Result<Cache, Error> {
        self.common.check()?;
        let kind = Kind::Memory { cache: self.memory.build()?, tally: Counters::default() };
        Ok(self.common.build(kind))
    }
}

impl fmt::Debug for MemoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBuilder").field("common", &self.common).finish_non_exhaustive()
    }
}

/// The parameters of a cache on a backend of your own.
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct CustomBuilder {
    common: Common,
    backend: Box<dyn Backend>,
}

impl CustomBuilder {
    pub(crate) fn new(backend: Box<dyn Backend>) -> Self {
        Self { common: Common::new(""), backend }
    }

    common_setters!();

    /// The cache.
    ///
    /// # Errors
    /// A parameter makes no sense.
    pub fn build(self) -> Result<Cache, Error> {
        self.common.check()?;
        let kind = Kind::Custom { backend: self.backend, tally: Counters::default() };
        Ok(self.common.build(kind))
    }
}

/// The parameters of a cache on Redis, and the two ways to start it.
///
/// The namespace is `larder` by default.
#[derive(Clone)]
#[must_use = "a builder does nothing before `connect`"]
pub struct RedisBuilder {
    common: Common,
    url: UrlSource,
    client_name: Option<String>,
    max_connections: usize,
    lanes: usize,
    fallback: bool,
    tier: TierConfig,
    lane: LaneConfig,
    breaker: BreakerConfig,
    derived: Derived,
    limits: Limits,
    operation_timeout: Duration,
    tls: TlsOptions,
    record: Option<usize>,
}

impl RedisBuilder {
    pub(crate) fn new(url: UrlSource) -> Self {
        let engine = EngineConfig::default();
        Self {
            common: Common::new("larder"),
            url,
            client_name: None,
            max_connections: 20,
            lanes: 1,
            fallback: true,
            tier: TierConfig::default(),
            lane: engine.lane,
            breaker: engine.breaker,
            derived: Derived::default(),
            limits: Limits::default(),
            operation_timeout: engine.operation_timeout,
            tls: TlsOptions::default(),
            record: None,
        }
    }

    common_setters!();

    /// The most connections at a time. Default 20. Commands of all callers share a few connections and do not wait for
    /// each other's replies, so that this is a bound and not a size: [`lanes`](Self::lanes) are opened, one by default.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Connections that share the load, by key. Default 1, which is enough to keep one Redis busy; more keep large values
    /// of some keys from delaying others.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// The name that `CLIENT LIST` shows. Default none.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// How long an operation may take from its first poll, all attempts together. Default 5 s. Then it is answered by the
    /// fallback, or fails.
    #[doc(alias = "socket_timeout")]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long a connection may take from the start of the dial to its first command. Default 5 s.
    #[doc(alias = "socket_connect_timeout")]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.lane.connect_timeout = timeout;
        self
    }

    /// Whether this process answers from its memory while Redis cannot be asked. Default true.
    ///
    /// Without, there is also nobody to answer for a key while a write of it may still be executed that was sent on a lost
    /// connection, where the server will not end that (Redis before 6.2, a user without the right to `CLIENT`): until it was,
    /// the old value may come back.
    #[doc(alias = "enable_fallback")]
    pub fn fallback(mut self, enabled: bool) -> Self {
        self.fallback = enabled;
        self
    }

    /// The oldest copy of a Redis value that the fallback may serve. Default 5 min.
    pub fn max_staleness(mut self, age: Duration) -> Self {
        self.tier.max_staleness = age;
        self
    }

    /// The most copies of Redis values that the fallback keeps. Default 10 000.
    pub fn fallback_max_entries(mut self, entries: usize) -> Self {
        self.tier.max_entries = entries;
        self
    }

    /// The most bytes of these copies. Default 64 MiB.
    pub fn fallback_max_bytes(mut self, bytes: u64) -> Self {
        self.tier.max_bytes = bytes;
        self
    }

    /// What becomes of the writes accepted while Redis could not be asked, when it is back. Default
    /// [`Reconcile::Conditional`]: a value is set if Redis still holds what this process last saw there, and deleted
    /// otherwise.
    pub fn reconcile(mut self, policy: Reconcile) -> Self {
        self.tier.reconcile = policy;
        self
    }

    /// The most keys written during an outage that are kept until Redis is back. Default 10 000, shared out over 8 shards.
    ///
    /// One more set is refused with an error. One more delete clears the namespace when Redis is back, and until then the
    /// shard's part of it is answered with misses; without a namespace it is refused too.
    pub fn journal_max_entries(mut self, entries: usize) -> Self {
        self.tier.max_journal_entries = entries;
        self
    }

    /// The most bytes of these keys, their values, and the values that Redis held before. Default 16 MiB.
    pub fn journal_max_bytes(mut self, bytes: u64) -> Self {
        self.tier.max_journal_bytes = bytes;
        self
    }

    /// Operations that may be on their way to Redis at a time, for each lane. Default 65 536; more wait for their turn.
    pub fn max_in_flight(mut self, operations: usize) -> Self {
        self.lane.max_in_flight = operations;
        self
    }

    /// The bytes of these operations. Default 64 MiB, which is also the largest single command.
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.lane.max_in_flight_bytes = bytes;
        self
    }

    /// What a server may send in one reply before the connection is closed. Default [`Limits::default`].
    pub fn reply_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Records the latest that connections, breaker and fallback tier are told, up to so many bytes, for [`Cache::recording`]. Half of
    /// them is for the connections, which take some 100 bytes for an operation. Default: nothing, which costs nothing.
    ///
    /// For finding a fault, not for every day: keys and values are hashed, which takes microseconds for an operation. What is
    /// recorded is kept in memory, and with it two states of each machine, mostly of the fallback tier: for each copy the length of
    /// its key and some 30 bytes. To write that down takes the lock of a shard for two or three microseconds for each copy in it, now
    /// and then.
    pub fn record(mut self, max_bytes: usize) -> Self {
        self.record = Some(max_bytes);
        self
    }

    /// Connects, and waits until the server can be used.
    ///
    /// With the fallback on (the default) a server that cannot be reached is no error: the cache starts degraded, answers
    /// from memory, and finds the server when it is there. A server that refuses us (a wrong password, no such database) is
    /// one all the same. The error says why the server cannot be used.
    ///
    /// # Errors
    /// A parameter makes no sense, the server refuses us, or it cannot be reached and there is no fallback.
    pub async fn connect(self, runtime: impl Runtime) -> Result<Cache, Error> {
        let cache = self.connect_lazy(runtime)?;
        if let Kind::Redis(handle) = &cache.inner.kind {
            let fallback = handle.shared.has_fallback();
            match handle.first_dial().await {
                Err(failed) if !fallback || failed.is_configuration => return Err(failed.error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(cache)
    }

    /// Connects in the background. Operations wait for the first connection within their deadline.
    ///
    /// # Errors
    /// A parameter makes no sense.
    pub fn connect_lazy(self, runtime: impl Runtime) -> Result<Cache, Error> {
        let source = self.url.clone();
        let this = self.with_options(&source.parse()?.1)?;
        let (url, config) = this.check()?;
        let security = this.security(&url)?;
        let handle = Handle::start(&config, this.limits, url.endpoint, &security, runtime, this.record);
        Ok(this.common.build(Kind::Redis(handle)))
    }

    fn check(&self) -> Result<(RedisUrl, EngineConfig), Error> {
        self.common.check()?;
        for (field, duration) in [
            ("operation_timeout", self.operation_timeout),
            ("connect_timeout", self.lane.connect_timeout),
            ("stall_timeout", self.lane.stall_timeout),
            ("health_check_interval", self.lane.health_check_interval),
        ] {
            if duration.is_zero() {
                return Err(ConfigError::new(field, "is zero; it must be a time that can pass").into());
            }
        }
        for (field, number) in [
            ("max_connections", self.max_connections),
            ("lanes", self.lanes),
            ("max_in_flight", self.lane.max_in_flight),
            ("max_in_flight_bytes", self.lane.max_in_flight_bytes),
        ] {
            if number == 0 {
                return Err(ConfigError::new(field, "is 0; it must be at least 1").into());
            }
        }
        if self.lanes > self.max_connections {
            let problem = format!(
                "is {}, above max_connections, {}; raise that, or lower this",
                self.lanes, self.max_connections
            );
            return Err(ConfigError::new("lanes", problem).into());
        }
        if self.client_name.as_ref().is_some_and(|name| !name.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(ConfigError::new(
                "client_name",
                "has spaces or control characters, which Redis refuses",
            )
            .into());
        }
        self.check_retries()?;
        let (reconnect, breaker) = (self.reconnect()?, self.breaker()?);
        let (url, _) = self.url.parse()?;
        let mut config = EngineConfig::default();
        config.lanes = self.lanes;
        config.lane = self.lane.clone();
        config.lane.reconnect = reconnect;
        config.lane.handshake.credentials.clone_from(&url.credentials);
        config.lane.handshake.database = url.database;
        config.lane.handshake.client_name = self.client_name.clone().map(Bytes::from);
        config.breaker = breaker;
        config.tier = self.fallback.then_some(self.tier);
        config.operation_timeout = self.operation_timeout;
        Ok((url, config))
    }
}

impl fmt::Debug for RedisBuilder {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint =
            self.url.parse().map_or_else(|_| "invalid".to_owned(), |(url, _)| url.endpoint.to_string());
        f.debug_struct("RedisBuilder")
            .field("endpoint", &format_args!("{endpoint}"))
            .field("common", &self.common)
            .field("client_name", &self.client_name)
            .field("max_connections", &self.max_connections)
            .field("lanes", &self.lanes)
            .field("operation_timeout", &self.operation_timeout)
            .field("tls", &self.tls)
            .field("lane", &self.lane)
            .field("breaker", &self.breaker)
            .field("derived", &self.derived)
            .field("fallback", &self.fallback.then_some(&self.tier))
            .finish_non_exhaustive()
    }
}
