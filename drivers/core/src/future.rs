//! The futures of [`Cache`](crate::Cache): plain structs, `Send`, lazy, and safe to drop at any time.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use larder_engine::codec::{Codec, DecodeValueError};
use larder_engine::machine::{
    Answer, Clear as ClearMachine, Cleared, KeyBuf, Operation, OperationError, Request, Source, Tally,
};
use serde::Deserialize;

use crate::backend::{Backend, BackendError, BackendFuture};
use crate::cache::{Cache, Undecodable};
use crate::error::Error;
use crate::memory::MemoryCache;
use crate::redis::Shared;
use crate::stats::Counters;
use crate::ttl::Ttl;

/// One request to whatever is behind the cache.
pub(crate) enum Call<'a> {
    Failed(Error),
    Memory {
        cache: &'a MemoryCache<Bytes, Bytes>,
        tally: &'a Counters,
        key: KeyBuf,
        request: Request,
    },
    Redis(RedisCall<'a>),
    Custom {
        backend: &'a dyn Backend,
        tally: &'a Counters,
        begin: Option<(KeyBuf, Request)>,
        future: Option<BackendFuture<'a, Answer>>,
    },
    Over,
}

impl<'a> Call<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Error>> {
        let result = match self {
            Self::Redis(RedisCall { shared, operation }) => {
                ready!(operation.poll(&mut &**shared, cx.waker())).map_err(Error::from)
            }
            Self::Custom { backend, tally, begin, future } => {
                if let Some((key, request)) = begin.take() {
                    *future = Some(ask(*backend, &key, request));
                }
                let Some(future) = future else { return Poll::Ready(Err(OperationError::Closed.into())) };
                let answer = ready!(future.as_mut().poll(cx));
                let result = answer.map_err(|source| Error::backend(backend.name(), source));
                count(tally, &result);
                result
            }
            Self::Failed(_) | Self::Memory { .. } | Self::Over => match std::mem::replace(self, Self::Over) {
                Self::Memory { cache, tally, key, request } => {
                    let result = ask_memory(cache, &key, request);
                    count(tally, &result);
                    result
                }
                Self::Failed(error) => Err(error),
                // Polled again after it was ready: it has nothing more to say.
                _ => Err(OperationError::Closed.into()),
            },
        };
        *self = Self::Over;
        Poll::Ready(result)
    }

    fn set_ttl(&mut self, ttl: Option<Duration>) {
        match self {
            Self::Redis(call) => call.operation.set_ttl(ttl),
            Self::Memory { request: Request::Set { ttl: old, .. }, .. }
            | Self::Custom { begin: Some((_, Request::Set { ttl: old, .. })), .. } => *old = ttl,
            _ => {}
        }
    }
}

/// An operation that is withdrawn when it is dropped.
pub(crate) struct RedisCall<'a> {
    shared: &'a Shared,
    operation: Operation,
}

impl<'a> RedisCall<'a> {
    pub(crate) fn new(shared: &'a Shared, operation: Operation) -> Self {
        Self { shared, operation }
    }
}

impl Drop for RedisCall<'_> {
    fn drop(&mut self) {
        self.operation.cancel(&mut &*self.shared);
    }
}

fn ask_memory(cache: &MemoryCache<Bytes, Bytes>, key: &[u8], request: Request) -> Result<Answer, Error> {
    Ok(match request {
        Request::Get => Answer::Value(cache.get(key), Source::Primary),
        Request::Exists => Answer::Exists(cache.contains(key), Source::Primary),
        Request::Delete => Answer::Deleted(cache.remove(key).is_some(), Source::Primary),
        Request::Set { value, ttl } => {
            let ttl = ttl.map_or(Ttl::Never, Ttl::After);
            // Copied: what is kept must not keep a larger buffer alive that it is a slice of.
            cache.insert_with_ttl(Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value), ttl)?;
            Answer::Stored(Source::Primary)
        }
        // Steps that only a clear on Redis takes.
        Request::Scan { .. } | Request::Unlink(_) | Request::Info => {
            return Err(OperationError::Closed.into());
        }
    })
}

fn ask<'a>(backend: &'a dyn Backend, key: &[u8], request: Request) -> BackendFuture<'a, Answer> {
    let key = Bytes::copy_from_slice(key);
    match request {
        Request::Get => {
            let value = backend.get(key);
            Box::pin(async { Ok(Answer::Value(value.await?, Source::Primary)) })
        }
        Request::Set { value, ttl } => {
            let stored = backend.set(key, value, ttl);
            Box::pin(async { stored.await.map(|()| Answer::Stored(Source::Primary)) })
        }
        Request::Delete => {
            let existed = backend.delete(key);
            Box::pin(async { Ok(Answer::Deleted(existed.await?, Source::Primary)) })
        }
        _ => {
            let exists = backend.exists(key);
            Box::pin(async { Ok(Answer::Exists(exists.await?, Source::Primary)) })
        }
    }
}

/// Counts for a cache that has no lanes.
fn count(tally: &Counters, result: &Result<Answer, Error>) {
    tally.add(Tally::Operation);
    match result {
        Ok(Answer::Value(Some(_), _)) => tally.add(Tally::Hit),
        Ok(Answer::Value(None, _)) => tally.add(Tally::Miss),
        Ok(Answer::Stored(_)) => tally.add(Tally::Set),
        Ok(Answer::Deleted(..)) => tally.add(Tally::Delete),
        Ok(Answer::Exists(..) | Answer::Reply(_)) => {}
        Err(error) => {
            tally.add(Tally::Error);
            if matches!(error, Error::Backend { .. }) {
                tally.add(Tally::Unserved);
            }
        }
    }
}

impl Error {
    fn backend(backend: &'static str, source: BackendError) -> Self {
        Self::Backend { backend, source: source.into() }
    }
}

fn unexpected() -> Error {
    // The engine answers each request with its own kind of answer.
    OperationError::Unexpected { command: "the request" }.into()
}

macro_rules! opaque_debug {
    ($($name:ident $(<$t:ident>)?),*) => {$(
        impl$(<$t>)? fmt::Debug for $name<'_ $(, $t)?> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(GetBytes, GetRef, Get<T>, Lookup<T>, Set, Delete, Exists, Clear, ServerInfo, Close);

/// The future of [`Cache::get_bytes`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct GetBytes<'a> {
    cache: &'a Cache,
    call: Call<'a>,
}

impl<'a> GetBytes<'a> {
    pub(crate) fn new(cache: &'a Cache, call: Call<'a>) -> Self {
        Self { cache, call }
    }

    fn poll_value(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Option<Bytes>, Source), Error>> {
        match ready!(self.call.poll(cx))? {
            Answer::Value(value, source) => Poll::Ready(Ok((value, source))),
            _ => Poll::Ready(Err(unexpected())),
        }
    }

    fn poll_decoded<T: for<'de> Deserialize<'de>>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Option<T>, Source), Error>> {
        let (value, source) = ready!(self.poll_value(cx))?;
        let Some(bytes) = value else { return Poll::Ready(Ok((None, source))) };
        let inner = &*self.cache.inner;
        Poll::Ready(match inner.codec.decode(&bytes) {
            Ok(value) => Ok((Some(value), source)),
            Err(error) => {
                inner.undecodable_count.fetch_add(1, Ordering::Relaxed);
                match inner.undecodable {
                    Undecodable::Miss => Ok((None, source)),
                    Undecodable::Error => Err(error.into()),
                }
            }
        })
    }
}

impl Future for GetBytes<'_> {
    type Output = Result<Option<Bytes>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_value(cx).map_ok(|(value, _)| value)
    }
}

/// The future of [`Cache::get_ref`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct GetRef<'a>(GetBytes<'a>);

impl<'a> GetRef<'a> {
    pub(crate) fn new(bytes: GetBytes<'a>) -> Self {
        Self(bytes)
    }
}

impl Future for GetRef<'_> {
    type Output = Result<Option<ValueRef>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let codec = self.0.cache.codec();
        self.0.poll_value(cx).map_ok(|(value, source)| value.map(|bytes| ValueRef { bytes, source, codec }))
    }
}

/// A stored value that is decoded by borrowing from it.
///
/// ```
/// # use larder::Cache;
/// # fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     match std::pin::pin!(future).poll(&mut cx) { std::task::Poll::Ready(value) => value, _ => unreachable!() }
/// # }
/// # block_on(async {
/// let cache = Cache::memory().build()?;
/// cache.set("words", &["no", "copies"]).await?;
/// let value = cache.get_ref("words").await?.expect("it was set");
/// let words: Vec<&str> = value.decode()?;
/// assert_eq!(words, ["no", "copies"]);
/// # Ok::<(), larder::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ValueRef {
    bytes: Bytes,
    source: Source,
    codec: Codec,
}

impl ValueRef {
    /// Decodes the value; strings and byte slices may borrow from it.
    ///
    /// # Errors
    /// It is no `T`.
    pub fn decode<'de, T: Deserialize<'de>>(&'de self) -> Result<T, DecodeValueError> {
        self.codec.decode(&self.bytes)
    }

    /// The bytes as they are stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Who answered.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }
}

impl fmt::Debug for ValueRef {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueRef({} bytes, {:?}, {})", self.bytes.len(), self.source, self.codec)
    }
}

/// The future of [`Cache::get`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Get<'a, T>(GetBytes<'a>, PhantomData<fn() -> T>);

impl<'a, T> Get<'a, T> {
    pub(crate) fn new(bytes: GetBytes<'a>) -> Self {
        Self(bytes, PhantomData)
    }
}

impl<T: for<'de> Deserialize<'de>> Future for Get<'_, T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_decoded(cx).map_ok(|(value, _)| value)
    }
}

/// The future of [`Cache::lookup`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Lookup<'a, T>(GetBytes<'a>, PhantomData<fn() -> T>);

impl<'a, T> Lookup<'a, T> {
    pub(crate) fn new(bytes: GetBytes<'a>) -> Self {
        Self(bytes, PhantomData)
    }
}

impl<T: for<'de> Deserialize<'de>> Future for Lookup<'_, T> {
    type Output = Result<Found<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_decoded(cx).map_ok(|(value, source)| Found { value, source })
    }
}

/// What [`Cache::lookup`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The value, or a miss.
    pub value: Option<T>,
    /// Who says so: a miss in the fallback only means that this process does not know.
    pub source: Source,
}

/// The future of [`Cache::set`] and [`Cache::set_bytes`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Set<'a> {
    cache: &'a Cache,
    call: Call<'a>,
}

impl<'a> Set<'a> {
    pub(crate) fn new(cache: &'a Cache, call: Call<'a>) -> Self {
        Self { cache, call }
    }

    /// How long the value lives, in the place of the cache's default: a `Duration` or a [`Ttl`]. Zero is an error.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        match ttl.into().or_default(self.cache.inner.default_ttl) {
            Some(Duration::ZERO) if !matches!(self.call, Call::Failed(_)) => {
                self.call = Call::Failed(Error::Ttl(Duration::ZERO));
            }
            ttl => self.call.set_ttl(ttl),
        }
        self
    }
}

impl Future for Set<'_> {
    type Output = Result<SetOutcome, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.call.poll(cx))? {
            Answer::Stored(Source::Primary) => Ok(SetOutcome::Stored),
            Answer::Stored(Source::Fallback { .. }) => Ok(SetOutcome::StoredInFallback),
            _ => Err(unexpected()),
        })
    }
}

/// Where a value went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetOutcome {
    /// To where it belongs: Redis has acknowledged it, or the memory cache holds it.
    Stored,
    /// To the journal of this process, because Redis could not be asked. It answers reads here until Redis is back and has
    /// it, see [`Reconcile`](crate::Reconcile).
    StoredInFallback,
}

/// The future of [`Cache::delete`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Delete<'a>(Call<'a>);

impl<'a> Delete<'a> {
    pub(crate) fn new(call: Call<'a>) -> Self {
        Self(call)
    }
}

impl Future for Delete<'_> {
    type Output = Result<bool, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.0.poll(cx))? {
            Answer::Deleted(existed, _) => Poll::Ready(Ok(existed)),
            _ => Poll::Ready(Err(unexpected())),
        }
    }
}

/// The future of [`Cache::exists`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Exists<'a>(Call<'a>);

impl<'a> Exists<'a> {
    pub(crate) fn new(call: Call<'a>) -> Self {
        Self(call)
    }
}

impl Future for Exists<'_> {
    type Output = Result<bool, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.0.poll(cx))? {
            Answer::Exists(exists, _) => Poll::Ready(Ok(exists)),
            _ => Poll::Ready(Err(unexpected())),
        }
    }
}

/// How a clear is done.
pub(crate) enum Wipe<'a> {
    Failed(Error),
    Memory { cache: &'a MemoryCache<Bytes, Bytes>, tally: &'a Counters, prefix: Bytes },
    Redis(&'a Shared, Box<ClearMachine>),
    Custom { future: BackendFuture<'a, u64>, tally: &'a Counters, name: &'static str },
}

/// The future of [`Cache::clear`]. Dropped, it stops where it is; what is removed stays removed.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Clear<'a>(Wipe<'a>);

impl<'a> Clear<'a> {
    pub(crate) fn new(wipe: Wipe<'a>) -> Self {
        Self(wipe)
    }
}

impl Future for Clear<'_> {
    type Output = Result<Cleared, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, tally) = match &mut self.0 {
            Wipe::Redis(shared, clear) => return clear.poll(&mut &**shared, cx.waker()).map_err(Error::from),
            Wipe::Failed(error) => return Poll::Ready(Err(error.clone())),
            Wipe::Memory { cache, tally, prefix } => {
                let removed = if prefix.is_empty() {
                    cache.clear()
                } else {
                    cache.remove_if(|key, _| key.starts_with(prefix))
                };
                (Ok(removed as u64), tally)
            }
            Wipe::Custom { future, tally, name } => {
                let result = ready!(future.as_mut().poll(cx));
                (result.map_err(|source| Error::backend(name, source)), tally)
            }
        };
        tally.add(Tally::Operation);
        if result.is_err() {
            tally.add(Tally::Error);
            tally.add(Tally::Unserved);
        }
        Poll::Ready(result.map(|removed| Cleared { removed, source: Source::Primary }))
    }
}

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        if let Wipe::Redis(shared, clear) = &mut self.0 {
            clear.cancel(&mut &**shared);
        }
    }
}

/// The future of [`Cache::server_info`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct ServerInfo<'a>(Option<Call<'a>>);

impl<'a> ServerInfo<'a> {
    pub(crate) fn new(call: Option<Call<'a>>) -> Self {
        Self(call)
    }
}

impl Future for ServerInfo<'_> {
    type Output = Result<Option<String>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.0 else { return Poll::Ready(Ok(None)) };
        match ready!(call.poll(cx))? {
            Answer::Reply(reply) => match reply.as_bytes() {
                Some(text) => Poll::Ready(Ok(Some(String::from_utf8_lossy(text).into_owned()))),
                None => Poll::Ready(Err(OperationError::Unexpected { command: "INFO" }.into())),
            },
            _ => Poll::Ready(Err(unexpected())),
        }
    }
}

/// The future of [`Cache::close`]. Dropped after its first poll, the cache closes all the same.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Close<'a> {
    shared: Option<&'a Shared>,
    drain_for: Duration,
    begun: Option<usize>,
}

impl<'a> Close<'a> {
    pub(crate) fn new(redis: Option<(&'a Shared, Duration)>) -> Self {
        let (shared, drain_for) = redis.unzip();
        Self { shared, drain_for: drain_for.unwrap_or_default(), begun: None }
    }

    /// How long what is in flight may take to be answered.
    pub fn drain_for(mut self, drain_for: Duration) -> Self {
        self.drain_for = drain_for;
        self
    }
}

impl Future for Close<'_> {
    type Output = CloseReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReport> {
        let Some(shared) = self.shared else { return Poll::Ready(CloseReport::default()) };
        let before = if let Some(before) = self.begun {
            before
        } else {
            let in_flight = shared.live();
            shared.close(shared.clock.now().saturating_add(self.drain_for));
            self.begun = Some(in_flight);
            in_flight
        };
        shared.watch(cx.waker());
        if !shared.is_closed() {
            return Poll::Pending;
        }
        let aborted = usize::try_from(shared.lane_stats().aborted).unwrap_or(usize::MAX).min(before);
        Poll::Ready(CloseReport { drained: before - aborted, aborted })
    }
}

/// How a cache was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Operations that were under way and have been answered.
    pub drained: usize,
    /// Operations that were under way, or waiting for their turn, and ended without an answer.
    pub aborted: usize,
}
