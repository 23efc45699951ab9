//! [`Cache`]: the one handle, whatever is behind it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_engine::codec::Codec;
use larder_engine::key::{KeyRules, check_namespace};
use larder_engine::machine::{Clear as ClearMachine, KeyBuf, Operation, Request, key_hash};
use larder_engine::stats::Counts;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::builder::{CustomBuilder, MemoryBuilder, RedisBuilder};
use crate::error::{ConfigError, Error};
use crate::future::{
    Call, Clear, Close, Delete, Exists, Get, GetBytes, GetRef, Lookup, RedisCall, ServerInfo, Set, Wipe,
};
use crate::memory::MemoryCache;
use crate::redis::Handle;
use crate::stats::{Counters, RedisStats, Stats};
use crate::ttl::Ttl;
use crate::url::UrlSource;

/// A cache: in memory, on Redis, or on a backend of your own. The same type and the same calls for all three, so that
/// development and production differ in the line that builds it.
///
/// Cheap to clone, `Send + Sync`, and without a type parameter: a library takes `&Cache` and works under every
/// executor. Clones and [namespace views](Self::namespace) share everything; the last one to go ends the connection.
///
/// Values are `serde` types, written with the cache's [`Codec`]. Futures do nothing before they are polled, and may be
/// dropped at any time; a write that was sent may then take place all the same.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Ttl};
///
/// # fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     match std::pin::pin!(future).poll(&mut cx) { std::task::Poll::Ready(value) => value, _ => unreachable!() }
/// # }
/// # block_on(async {
/// let cache = Cache::memory().max_entries(1_000).default_ttl(Duration::from_secs(300)).build()?;
/// cache.set("user:1", &("Ada", 36)).await?;
/// cache.set("motto", "permanent").ttl(Ttl::Never).await?;
/// assert_eq!(cache.get::<(String, u32)>("user:1").await?, Some(("Ada".to_owned(), 36)));
/// assert!(cache.delete("user:1").await?);
/// assert_eq!(cache.get::<(String, u32)>("user:1").await?, None);
/// # Ok::<(), larder::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
    namespace: Arc<str>,
}

/// What clones and namespace views share.
pub(crate) struct Inner {
    pub(crate) kind: Kind,
    pub(crate) codec: Codec,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) key_rules: KeyRules,
    pub(crate) undecodable: Undecodable,
    pub(crate) undecodable_count: AtomicU64,
}

pub(crate) enum Kind {
    Memory { cache: MemoryCache<Bytes, Bytes>, tally: Counters },
    Redis(Handle),
    Custom { backend: Box<dyn Backend>, tally: Counters },
}

/// What [`Cache::get`] makes of a stored value that cannot be decoded: of another type, or corrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecodable {
    /// A miss, counted in [`Stats::undecodable`]: the caller loads and sets the value anew.
    #[default]
    Miss,
    /// [`Error::Decode`].
    Error,
}

impl Cache {
    /// A cache in this process.
    pub fn memory() -> MemoryBuilder {
        MemoryBuilder::new()
    }

    /// A cache on the Redis server at `url`: `redis://[[user][:password]@]host[:port][/database]`, the same with `rediss://`
    /// for [TLS](RedisBuilder#tls), or `redis+unix://[[user][:password]@]/path[?db=database]`. The page's name for the
    /// default is `redis://localhost:6379/0`. What has a meaning in URLs, such as `@` or `/` in a password, is written as
    /// `%40` or `%2F`; an IPv6 address stands in brackets.
    ///
    /// Behind a question mark parameters can follow, so that they can be changed where a service is run:
    /// `redis://host/0?operation_timeout=500ms&lanes=2`. They are called as the methods of the builder are, and win over
    /// them:
    ///
    /// | options | value |
    /// |---|---|
    /// | `operation_timeout`, `connect_timeout`, `stall_timeout`, `health_check_interval`, `breaker_timeout`, `default_ttl`, `max_staleness` | a whole number and a unit: `500ms`, `5s`, `10m`, `1h` |
    /// | `db`, `max_connections`, `lanes`, `retry_attempts`, `breaker_threshold` | a whole number |
    /// | `fallback` | `on` or `off` |
    /// | `namespace`, `client_name` | a text |
    /// | `tls_ca_file`, `tls_server_name`, `tls_client_certificate` with `tls_client_key` | a text; files are PEM |
    ///
    /// What is wrong with any of it is an error of [`connect`](RedisBuilder::connect), which shows no password.
    pub fn redis(url: impl Into<String>) -> RedisBuilder {
        RedisBuilder::new(UrlSource::Given(url.into()))
    }

    /// A cache on the Redis server at the [URL](Self::redis) that an environment variable holds, such as `REDIS_URL`. The
    /// variable is read now; that it is missing is an error of [`connect`](RedisBuilder::connect).
    ///
    /// ```
    /// # use larder::Cache;
    /// let builder = Cache::redis_from_env("REDIS_URL").namespace("shop");
    /// ```
    pub fn redis_from_env(variable: impl Into<String>) -> RedisBuilder {
        RedisBuilder::new(UrlSource::variable(variable.into()))
    }

    /// A cache on a backend of your own.
    pub fn custom(backend: impl Backend) -> CustomBuilder {
        CustomBuilder::new(Box::new(backend))
    }

    pub(crate) fn new(inner: Inner, namespace: &str) -> Self {
        Self { inner: Arc::new(inner), namespace: namespace.into() }
    }

    /// The same cache with other keys: those of `<namespace>:<key>`. Connections, bounds and statistics are shared.
    ///
    /// # Errors
    /// The namespace has characters that a key may not have.
    pub fn namespace(&self, namespace: &str) -> Result<Self, Error> {
        check_namespace(namespace)?;
        Ok(Self { inner: Arc::clone(&self.inner), namespace: namespace.into() })
    }

    /// The value of a key, or `None`. A stored `null` is a value: ask for `Option<T>` to see it.
    ///
    /// A value that is no `T` is a miss and counted, unless the builder says [`Undecodable::Error`].
    ///
    /// # Errors
    /// The key is not acceptable, the key holds something else than a string, or Redis could not be asked and there is
    /// no fallback.
    pub fn get<'a, T: for<'de> Deserialize<'de>>(&'a self, key: &str) -> Get<'a, T> {
        Get::new(self.get_bytes(key))
    }

    /// Like [`get`](Self::get), with who answered.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn lookup<'a, T: for<'de> Deserialize<'de>>(&'a self, key: &str) -> Lookup<'a, T> {
        Lookup::new(self.get_bytes(key))
    }

    /// The stored value as it is, to be decoded by borrowing from it: see [`ValueRef`](crate::ValueRef).
    ///
    /// # Errors
    /// As for [`get`](Self::get), but decoding is up to you.
    pub fn get_ref<'a>(&'a self, key: &str) -> GetRef<'a> {
        GetRef::new(self.get_bytes(key))
    }

    /// The stored bytes, whatever the codec. They may be a slice of a larger read buffer: copy what you keep for long.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_bytes<'a>(&'a self, key: &str) -> GetBytes<'a> {
        GetBytes::new(self, self.call(key, Request::Get))
    }

    /// Sets a key, with the default time to live unless [`.ttl(…)`](Set::ttl) follows. The value is encoded at once;
    /// nothing else happens before the future is polled.
    ///
    /// # Errors
    /// The key is not acceptable, the value cannot be encoded or is too large, or Redis could not be asked and the
    /// fallback did not take it.
    pub fn set<'a, T: Serialize + ?Sized>(&'a self, key: &str, value: &T) -> Set<'a> {
        match self.inner.codec.encode(value) {
            Ok(value) => self.set_bytes(key, value),
            Err(error) => Set::new(self, Call::Failed(error.into())),
        }
    }

    /// Like [`set`](Self::set), with bytes that are stored as they are, whatever the codec.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn set_bytes<'a>(&'a self, key: &str, value: impl Into<Bytes>) -> Set<'a> {
        let ttl = Ttl::Default.or_default(self.inner.default_ttl);
        Set::new(self, self.call(key, Request::Set { value: value.into(), ttl }))
    }

    /// Removes a key; the answer is whether there was something to remove. After a lost connection the answer may be
    /// that of a second attempt.
    ///
    /// # Errors
    /// The key is not acceptable, or Redis could not be asked and the fallback did not take it.
    pub fn delete<'a>(&'a self, key: &str) -> Delete<'a> {
        Delete::new(self.call(key, Request::Delete))
    }

    /// Whether a key has a value. Changes neither recency nor hit statistics.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn exists<'a>(&'a self, key: &str) -> Exists<'a> {
        Exists::new(self.call(key, Request::Exists))
    }

    /// Removes every key of this namespace, and of namespaces below it (`shop` clears `shop:eu`, not `shopping`).
    ///
    /// On Redis in steps of some hundred keys, by `SCAN` and `UNLINK`, which hold nobody up; each step has the deadline
    /// of one operation. Keys that are set meanwhile may survive.
    ///
    /// During an outage the fallback promises it: the namespace is this process's alone until Redis was cleared, and what is
    /// written since survives that. A server that refuses then (a user without the right to `SCAN` or `UNLINK`) voids the
    /// promise.
    ///
    /// # Errors
    /// Redis could not be asked and there is no fallback; Redis refuses, in an outage 64 namespaces were cleared already; or the namespace is empty on a Redis: that would remove every
    /// key of the database, whosever they are.
    pub fn clear(&self) -> Clear<'_> {
        let prefix = self.prefix();
        Clear::new(match &self.inner.kind {
            Kind::Redis(_) if self.namespace.is_empty() => {
                let problem = "is empty, and clearing would remove every key of the database, whosever they are; set one";
                Wipe::Failed(ConfigError::new("namespace", problem).into())
            }
            Kind::Redis(handle) => {
                Wipe::Redis(&handle.shared, Box::new(ClearMachine::new(self.namespace.as_bytes())))
            }
            Kind::Memory { cache, tally } => Wipe::Memory { cache, tally, prefix },
            Kind::Custom { backend, tally } => {
                Wipe::Custom { future: backend.clear(prefix), tally, name: backend.name() }
            }
        })
    }

    /// The latest that connections, breaker and fallback tier were told, where [`RedisBuilder::record`](crate::RedisBuilder::record)
    /// asked for it, and the states that they were in before: a file for `larder-sim replay`, which does all of it again, step by step, and says whether the same came of it.
    ///
    /// No key, value, password or user name is in it: each is replaced by its length and a hash with a random key, which is in no
    /// recording. What is in it: when operations began and ended, their kinds and sizes, times to live, the colons in keys, and
    /// the names of Redis's errors.
    #[must_use]
    pub fn recording(&self) -> Option<Vec<u8>> {
        match &self.inner.kind {
            Kind::Redis(handle) => handle.shared.recording(),
            Kind::Memory { .. } | Kind::Custom { .. } => None,
        }
    }

    /// A section of what the Redis server says of itself (`INFO`), such as `memory` or `stats`; `None` where there is no
    /// server. One round trip, within the operation deadline.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub fn server_info(&self, section: &str) -> ServerInfo<'_> {
        ServerInfo::new(match &self.inner.kind {
            Kind::Redis(handle) => {
                let section = KeyBuf::from_slice(section.as_bytes());
                Some(Call::Redis(RedisCall::new(&handle.shared, Operation::new(section, 0, Request::Info))))
            }
            Kind::Memory { .. } | Kind::Custom { .. } => None,
        })
    }

    /// The counters of all clones and namespaces. Asks nobody: as fast during an outage.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let (backend, counts, memory, redis) = match &inner.kind {
            Kind::Memory { cache, tally } => ("memory", tally.counts(), Some(cache.stats()), None),
            Kind::Custom { backend, tally } => (backend.name(), tally.counts(), None, None),
            Kind::Redis(handle) => {
                let counts = handle.shared.counts();
                ("redis", counts, None, Some(redis_stats(handle, &counts)))
            }
        };
        Stats {
            backend,
            total_operations: counts.operations,
            hits: counts.hits,
            misses: counts.misses,
            hit_rate: counts.hit_ratio(),
            sets: counts.sets,
            deletes: counts.deletes,
            errors: counts.errors,
            error_rate: counts.error_ratio(),
            undecodable: inner.undecodable_count.load(Ordering::Relaxed),
            memory,
            redis,
        }
    }

    /// Closes the cache for all its clones: what is under way is answered first, for up to the operation timeout, or as
    /// long as [`.drain_for(…)`](Close::drain_for) says. Later operations fail. Dropping the last clone closes too,
    /// without waiting. A memory cache has nothing to close.
    pub fn close(&self) -> Close<'_> {
        Close::new(match &self.inner.kind {
            Kind::Redis(handle) => Some((&handle.shared, handle.operation_timeout)),
            Kind::Memory { .. } | Kind::Custom { .. } => None,
        })
    }

    /// The codec that values are written with.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.inner.codec
    }

    fn prefix(&self) -> Bytes {
        if self.namespace.is_empty() { Bytes::new() } else { format!("{}:", self.namespace).into() }
    }

    /// The key as it is stored, if it is acceptable.
    fn full_key(&self, key: &str) -> Result<KeyBuf, Error> {
        self.inner.key_rules.check(key)?;
        let mut full = KeyBuf::new();
        if !self.namespace.is_empty() {
            full.extend_from_slice(self.namespace.as_bytes());
            full.push(b':');
        }
        full.extend_from_slice(key.as_bytes());
        Ok(full)
    }

    fn call(&self, key: &str, request: Request) -> Call<'_> {
        let key = match self.full_key(key) {
            Ok(key) => key,
            Err(error) => return Call::Failed(error),
        };
        match &self.inner.kind {
            Kind::Redis(handle) => {
                let hash = key_hash(&key);
                let namespace_len = if self.namespace.is_empty() { 0 } else { self.namespace.len() + 1 };
                let operation = Operation::new(key, hash, request).in_namespace(namespace_len);
                Call::Redis(RedisCall::new(&handle.shared, operation))
            }
            Kind::Memory { cache, tally } => Call::Memory { cache, tally, key, request },
            Kind::Custom { backend, tally } => {
                Call::Custom { backend: &**backend, tally, begin: Some((key, request)), future: None }
            }
        }
    }
}

fn redis_stats(handle: &Handle, counts: &Counts) -> RedisStats {
    let shared = &*handle.shared;
    let lanes = shared.lane_stats();
    let (fallback_size, fallback_memory) = shared.tier_size();
    RedisStats {
        connected: shared.is_connected(),
        circuit_state: shared.view().state(),
        circuit_breaker_trips: shared.trips(),
        connection_errors: lanes.dial_failures + lanes.losses,
        connects: lanes.connects,
        retries: lanes.retries,
        timeouts: lanes.timeouts,
        in_flight: shared.live(),
        unserved: counts.unserved,
        fallback_hits: counts.fallback_hits,
        fallback_misses: counts.fallback_misses,
        fallback_writes: counts.fallback_writes,
        fallback_enabled: shared.has_fallback(),
        fallback_size,
        fallback_memory,
        journalled: shared.journalled(),
        last_connection_error: shared.dial_trouble().map(|trouble| trouble.cause),
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Cache");
        match &self.inner.kind {
            Kind::Memory { cache, .. } => debug.field("backend", cache),
            Kind::Redis(handle) => {
                debug.field("backend", &format_args!("redis at {}", handle.shared.endpoint))
            }
            Kind::Custom { backend, .. } => debug.field("backend", backend),
        };
        debug
            .field("namespace", &self.namespace)
            .field("codec", &self.inner.codec)
            .field("default_ttl", &self.inner.default_ttl)
            .finish_non_exhaustive()
    }
}
