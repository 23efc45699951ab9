//! fred: one client in its default configuration, which pipelines and has no timeout.

use fred::bytes::Bytes;
use fred::prelude::{Builder, Client, ClientLike, Config, KeysInterface};

use super::{Contender, Result};

#[derive(Clone)]
pub(crate) struct Fred(Client);

impl Contender for Fred {
    const NAME: &'static str = "fred";

    async fn connect(url: &str) -> Result<Self> {
        let client = Builder::from_config(Config::from_url(url)?).build()?;
        // The connection's task ends with the runtime.
        let _task = client.init().await?;
        Ok(Self(client))
    }

    async fn get(&mut self, key: &str) -> Result<Option<usize>> {
        let value: Option<Bytes> = self.0.get(key).await?;
        Ok(value.map(|value| value.len()))
    }

    async fn set(&mut self, key: &str, value: &'static [u8]) -> Result<()> {
        Ok(self.0.set(key, Bytes::from_static(value), None, None, false).await?)
    }
}
