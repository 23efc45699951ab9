//! redis-rs: a multiplexed connection in its default configuration, which has a response timeout of 500 ms.

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd};

use super::{Contender, Result};

#[derive(Clone)]
pub(crate) struct RedisRs(MultiplexedConnection);

// `Cmd::query_async` rather than `AsyncCommands::get`: that boxes the same future once more.
impl Contender for RedisRs {
    const NAME: &'static str = "redis-rs";

    async fn connect(url: &str) -> Result<Self> {
        Ok(Self(Client::open(url)?.get_multiplexed_async_connection().await?))
    }

    async fn get(&mut self, key: &str) -> Result<Option<usize>> {
        let value: Option<Vec<u8>> = Cmd::get(key).query_async(&mut self.0).await?;
        Ok(value.map(|value| value.len()))
    }

    async fn set(&mut self, key: &str, value: &'static [u8]) -> Result<()> {
        Ok(Cmd::set(key, value).query_async(&mut self.0).await?)
    }
}
