//! A place of your own to keep bytes in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// What a [`Backend`] answers with: a boxed future, so that the trait is object-safe.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// An error of a [`Backend`].
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// A cache that is not one of Larder's: a file, another store, a mock in a test. Plug it in with
/// [`Cache::custom`](crate::Cache::custom); keys come with their namespace, values as the codec wrote them.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
/// use bytes::Bytes;
/// use larder::{Backend, BackendFuture, Cache};
///
/// /// A map without bounds that ignores times to live: good enough for a test.
/// #[derive(Debug, Default)]
/// struct Map(Mutex<HashMap<Bytes, Bytes>>);
///
/// impl Backend for Map {
///     fn name(&self) -> &'static str {
///         "map"
///     }
///     fn get(&self, key: Bytes) -> BackendFuture<'_, Option<Bytes>> {
///         Box::pin(async move { Ok(self.0.lock().unwrap().get(&key).cloned()) })
///     }
///     fn set(&self, key: Bytes, value: Bytes, _ttl: Option<Duration>) -> BackendFuture<'_, ()> {
///         Box::pin(async move { Ok(drop(self.0.lock().unwrap().insert(key, value))) })
///     }
///     fn delete(&self, key: Bytes) -> BackendFuture<'_, bool> {
///         Box::pin(async move { Ok(self.0.lock().unwrap().remove(&key).is_some()) })
///     }
///     fn clear(&self, prefix: Bytes) -> BackendFuture<'_, u64> {
///         Box::pin(async move {
///             let mut map = self.0.lock().unwrap();
///             let before = map.len();
///             map.retain(|key, _| !key.starts_with(&prefix));
///             Ok((before - map.len()) as u64)
///         })
///     }
/// }
///
/// # fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
/// #     let mut future = std::pin::pin!(future);
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     loop {
/// #         if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut cx) { return value }
/// #     }
/// # }
/// # block_on(async {
/// let cache = Cache::custom(Map::default()).namespace("test").build()?;
/// cache.set("answer", &42).await?;
/// assert_eq!(cache.get::<u32>("answer").await?, Some(42));
/// # Ok::<(), larder::Error>(())
/// # }).unwrap();
/// ```
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// How statistics and errors call it.
    fn name(&self) -> &'static str;

    /// The value of a key.
    fn get(&self, key: Bytes) -> BackendFuture<'_, Option<Bytes>>;

    /// Sets a key; without a time to live it has no end.
    fn set(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> BackendFuture<'_, ()>;

    /// Removes a key; the answer is whether it was there.
    fn delete(&self, key: Bytes) -> BackendFuture<'_, bool>;

    /// Whether a key is there. By default the value is fetched for it.
    fn exists(&self, key: Bytes) -> BackendFuture<'_, bool> {
        Box::pin(async move { Ok(self.get(key).await?.is_some()) })
    }

    /// Removes every key that begins with `prefix`; the answer is how many.
    fn clear(&self, prefix: Bytes) -> BackendFuture<'_, u64>;
}
