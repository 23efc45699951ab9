//! The clients under test, each behind the same few lines.
//!
//! To add one: implement [`Contender`] in a file here, and add a row to `CONTENDERS` in `redis_suite.rs`.

use std::error::Error;

pub(crate) use self::fred::Fred;
pub(crate) use self::larder::Larder;
pub(crate) use self::redis_rs::RedisRs;

mod fred;
mod larder;
mod redis_rs;

/// Errors end the run, so they may cost what they like.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A connected client, in the configuration that its documentation leads to.
///
/// The suite is generic over it, so that no contender pays for a boxed future or a virtual call. Every caller has a clone of its own.
pub(crate) trait Contender: Clone + Send + 'static {
    /// Its name in tables and JSON.
    const NAME: &'static str;

    /// Connects, within the runtime on which it will be used.
    fn connect(url: &str) -> impl Future<Output = Result<Self>> + Send;

    /// Fetches a value into whatever the client fetches bytes into most cheaply, and returns its length.
    fn get(&mut self, key: &str) -> impl Future<Output = Result<Option<usize>>> + Send;

    /// Stores a value and waits until Redis has confirmed it.
    fn set(&mut self, key: &str, value: &'static [u8]) -> impl Future<Output = Result<()>> + Send;
}
