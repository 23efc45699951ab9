//! A cache for Rust services: in this process, or on a Redis that may die.
//!
//! This crate is the cache itself and depends on no runtime. In memory it needs none; for Redis take the driver crate of
//! your runtime, which re-exports all of this: `larder-tokio`, `larder-smol` or `larder-async-std`. Without any, the feature
//! `blocking` has the same cache for plain threads.
//!
//! - [`Cache`]: serde values, in memory ([`Cache::memory`]), on Redis ([`Cache::redis`]), or on a [`Backend`] of yours.
//! - [`MemoryCache<K, V>`](MemoryCache): typed values in this process, without serialisation and without futures.
//!
//! # When Redis does not answer
//!
//! | what happens | what a caller sees, with the fallback on (default) |
//! |---|---|
//! | Redis is slow | each operation ends within [`operation_timeout`](RedisBuilder::operation_timeout) |
//! | a connection is lost | it is dialled again; what was in flight is sent again where that is safe |
//! | Redis is gone | reads are answered from copies of what this process has read or written, at most [`max_staleness`](RedisBuilder::max_staleness) old; writes are kept in this process and say [`SetOutcome::StoredInFallback`] |
//! | it stays away | after [`breaker_threshold`](RedisBuilder::breaker_threshold) failures nobody waits for it any more |
//! | it comes back | after [`breaker_timeout`](RedisBuilder::breaker_timeout) a PING, then a few operations, then all traffic |
//!
//! Writes accepted during an outage are kept in a journal in memory, which answers for their keys until Redis has them. When it
//! is back, a value is set there if Redis still holds what this process last saw under the key, and the key is deleted otherwise, so
//! that the next reader asks the source of truth ([`Reconcile`] has other policies). A clear is carried
//! out when Redis is back, and until then this process answers for the whole namespace. A crash of the process loses the journal.
//! [`lookup`](Cache::lookup) tells where an answer came from.

#[cfg(feature = "async-io")]
pub mod async_io;
mod backend;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod cache;
mod clock;
mod error;
mod future;
mod memory;
mod redis;
pub mod runtime;
mod stats;
#[cfg(feature = "sockets")]
mod tcp;
mod ttl;
mod url;

pub use backend::{Backend, BackendError, BackendFuture};
pub use builder::{CustomBuilder, MemoryBuilder, RedisBuilder};
pub use cache::{Cache, Undecodable};
pub use error::{ConfigError, Error};
pub use future::{
    Clear, Close, CloseReport, Delete, Exists, Found, Get, GetBytes, GetRef, Lookup, ServerInfo, Set,
    SetOutcome, ValueRef,
};
pub use memory::{DefaultHashBuilder, MemoryCache, MemoryCacheBuilder, MemoryStats};
pub use stats::{RedisStats, Stats};
pub use ttl::Ttl;

pub use larder_engine::codec::{Codec, DecodeValueError, EncodeError};
pub use larder_engine::key::{KeyError, KeyFault, KeyRules};
pub use larder_engine::machine::{Cause, Cleared, Failure, OperationError, Reconcile, Source};
pub use larder_engine::policy::{BreakerState, Executed, Jitter};
pub use larder_engine::resp::{ErrorClass, Limits, ServerError};
pub use larder_engine::store::{Policy, RemovalCause, StoreStats, TooLarge, TtlJitter};
