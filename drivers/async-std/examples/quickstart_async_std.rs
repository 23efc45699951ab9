//! The first steps on async-std. From `larder-tokio` on, one line of code and one dependency differ.
//!
//! In memory, with nothing else running:            cargo run --example quickstart_async_std
//! The same code on Redis:  REDIS_URL=redis://localhost cargo run --example quickstart_async_std

use std::time::Duration;

use larder_async_std::{AsyncStd, Cache, Ttl};

fn main() -> Result<(), larder_async_std::Error> {
    async_std::task::block_on(async {
        let cache = match std::env::var("REDIS_URL") {
            Ok(url) => Cache::redis(url).namespace("quickstart").connect(AsyncStd).await?,
            Err(_) => Cache::memory().max_entries(1_000).default_ttl(Duration::from_secs(300)).build()?,
        };
        cache.set("user:1", &("Ada", 36)).await?;
        cache.set("motto", "waste not").ttl(Ttl::Never).await?;
        println!("user:1  {:?}", cache.get::<(String, u32)>("user:1").await?);
        println!("motto   {:?}", cache.get::<String>("motto").await?);
        println!("clear   {} keys removed\n\n{}", cache.clear().await?.removed, cache.stats());
        cache.close().await;
        Ok(())
    })
}
