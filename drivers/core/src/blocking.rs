//! The same cache for threads, without any runtime: each call returns its `Result`, and the calling thread waits for it.
//!
//! ```
//! use std::time::Duration;
//!
//! # fn example() -> Result<(), larder::Error> {
//! let cache = larder::Cache::memory().build()?.blocking();
//! cache.set("user:1", &("Ada", 36))?;
//! cache.set_with_ttl("token", "abc", Duration::from_secs(60))?;
//! assert_eq!(cache.get::<(String, u32)>("user:1")?, Some(("Ada".to_owned(), 36)));
//! # Ok(())
//! # }
//! # example().unwrap();
//! ```
//!
//! On Redis the line that builds it ends in [`connect_blocking`](RedisBuilder::connect_blocking). All such caches of a process
//! share one thread that talks to their servers; many threads that ask at a time share a connection, as tasks do.
//!
//! A thread of an async executor must not wait: use [`crate::Cache`] there. Both faces are one cache
//! ([`as_async`](Cache::as_async), [`blocking`](crate::Cache::blocking)).

use std::future::{Future, pending};
use std::io;
use std::panic::catch_unwind;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use async_executor::Executor;
use bytes::Bytes;
use futures_lite::future::block_on;
use serde::{Deserialize, Serialize};

use crate::async_io::{Socket, Timer, connect};
use crate::runtime::{Endpoint, Runtime};
use crate::{Cleared, CloseReport, Error, Found, RedisBuilder, SetOutcome, Stats, Ttl, ValueRef};

/// A cache whose calls wait for their answer. Cheap to clone, `Send + Sync`; see the [module](self).
///
/// The methods are those of [`crate::Cache`], which says more about each, and about its errors.
#[derive(Clone, Debug)]
pub struct Cache(crate::Cache);

impl Cache {
    /// The value of a key, or `None`.
    ///
    /// # Errors
    /// Those of [`crate::Cache::get`].
    pub fn get<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, Error> {
        block_on(self.0.get(key))
    }

    /// Like [`get`](Self::get), with who answered.
    ///
    /// # Errors
    /// Those of [`crate::Cache::lookup`].
    pub fn lookup<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Found<T>, Error> {
        block_on(self.0.lookup(key))
    }

    /// The stored value as it is, to be decoded by borrowing from it.
    ///
    /// # Errors
    /// Those of [`crate::Cache::get_ref`].
    pub fn get_ref(&self, key: &str) -> Result<Option<ValueRef>, Error> {
        block_on(self.0.get_ref(key))
    }

    /// The stored bytes, whatever the codec.
    ///
    /// # Errors
    /// Those of [`crate::Cache::get_bytes`].
    pub fn get_bytes(&self, key: &str) -> Result<Option<Bytes>, Error> {
        block_on(self.0.get_bytes(key))
    }

    /// Sets a key, with the cache's default time to live.
    ///
    /// # Errors
    /// Those of [`crate::Cache::set`].
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<SetOutcome, Error> {
        block_on(self.0.set(key, value))
    }

    /// Sets a key, with a time to live: a `Duration` or a [`Ttl`].
    ///
    /// # Errors
    /// Those of [`crate::Cache::set`].
    pub fn set_with_ttl<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: impl Into<Ttl>,
    ) -> Result<SetOutcome, Error> {
        block_on(self.0.set(key, value).ttl(ttl))
    }

    /// Sets bytes that are stored as they are, whatever the codec; [`Ttl::Default`] is the cache's.
    ///
    /// # Errors
    /// Those of [`crate::Cache::set_bytes`].
    pub fn set_bytes(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        ttl: impl Into<Ttl>,
    ) -> Result<SetOutcome, Error> {
        block_on(self.0.set_bytes(key, value).ttl(ttl))
    }

    /// Removes a key; the answer is whether there was something to remove.
    ///
    /// # Errors
    /// Those of [`crate::Cache::delete`].
    pub fn delete(&self, key: &str) -> Result<bool, Error> {
        block_on(self.0.delete(key))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// Those of [`crate::Cache::exists`].
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        block_on(self.0.exists(key))
    }

    /// Removes every key of this namespace, and of namespaces below it.
    ///
    /// # Errors
    /// Those of [`crate::Cache::clear`].
    pub fn clear(&self) -> Result<Cleared, Error> {
        block_on(self.0.clear())
    }

    /// A section of what the Redis server says of itself; `None` where there is no server.
    ///
    /// # Errors
    /// Those of [`crate::Cache::server_info`].
    pub fn server_info(&self, section: &str) -> Result<Option<String>, Error> {
        block_on(self.0.server_info(section))
    }

    /// The same cache with other keys.
    ///
    /// # Errors
    /// Those of [`crate::Cache::namespace`].
    pub fn namespace(&self, namespace: &str) -> Result<Self, Error> {
        self.0.namespace(namespace).map(Self)
    }

    /// The counters of all clones and namespaces, and of the other face.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Closes the cache for all its clones. What is under way is answered first, for up to `drain_for`.
    #[allow(clippy::must_use_candidate, reason = "one closes to close, not to read the report")]
    pub fn close(&self, drain_for: Duration) -> CloseReport {
        block_on(self.0.close().drain_for(drain_for))
    }

    /// The same cache for tasks, and for a library that takes `&larder::Cache`.
    #[must_use]
    pub fn as_async(&self) -> &crate::Cache {
        &self.0
    }
}

impl crate::Cache {
    /// The same cache for threads; works with any runtime, as long as that runs on other threads.
    #[must_use]
    pub fn blocking(&self) -> Cache {
        Cache(self.clone())
    }
}

impl RedisBuilder {
    /// [`connect`](Self::connect) without a runtime, by [`Blocking`]; the calling thread waits. `connect_lazy(Blocking)` does not.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_blocking(self) -> Result<Cache, Error> {
        block_on(self.connect(Blocking)).map(Cache)
    }
}

/// The runtime of those who have none: one thread of the process, named `larder` and started by the first task, runs the tasks of all
/// caches that are connected with it. The cache works from anywhere then, under any executor.
///
/// # Panics
/// Connecting panics where the system cannot start a thread, as [`thread::spawn`] does.
#[derive(Clone, Copy, Debug)]
pub struct Blocking;

impl Runtime for Blocking {
    type Stream = Socket;
    type Timer = Timer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        connect(to.clone())
    }

    fn timer(&self) -> Timer {
        Timer::default()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        static EXECUTOR: Executor<'static> = Executor::new();
        static THREAD: Once = Once::new();

        THREAD.call_once(|| {
            let run = || {
                loop {
                    // The tasks of every cache are here: one that panicked must not take the others with it.
                    let _ = catch_unwind(|| ::async_io::block_on(EXECUTOR.run(pending::<()>())));
                }
            };
            if let Err(error) = thread::Builder::new().name("larder".to_owned()).spawn(run) {
                panic!("cannot start the thread of blocking caches: {error}");
            }
        });
        EXECUTOR.spawn(task).detach();
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
