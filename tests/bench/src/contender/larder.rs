//! Larder on tokio, with its defaults: breaker, retries and the fallback with its copies of what Redis confirmed are on.

use larder_tokio::{Cache, Tokio};

use super::{Contender, Result};

#[derive(Clone)]
pub(crate) struct Larder(Cache);

impl Contender for Larder {
    const NAME: &'static str = "larder";

    async fn connect(url: &str) -> Result<Self> {
        let cache = Cache::redis(url).connect(Tokio).await?;
        match cache.stats().redis {
            Some(redis) if redis.connected => Ok(Self(cache)),
            _ => Err(format!("not connected: {:?}", cache.stats()).into()),
        }
    }

    async fn get(&mut self, key: &str) -> Result<Option<usize>> {
        Ok(self.0.get_bytes(key).await?.map(|value| value.len()))
    }

    async fn set(&mut self, key: &str, value: &'static [u8]) -> Result<()> {
        self.0.set_bytes(key, value).await?;
        Ok(())
    }
}
