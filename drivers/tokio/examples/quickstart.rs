//! The first five minutes: set, get, time to live, delete, clear, statistics.
//!
//! In memory, with nothing else running:            cargo run --example quickstart
//! The same code on Redis:  REDIS_URL=redis://localhost cargo run --example quickstart

use std::time::Duration;

use larder_tokio::{Cache, Tokio, Ttl};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    email: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The one line that differs between development and production.
    let cache = match std::env::var("REDIS_URL") {
        Ok(url) => Cache::redis(url).namespace("quickstart").connect(Tokio).await?,
        Err(_) => Cache::memory().max_entries(1_000).default_ttl(Duration::from_secs(300)).build()?,
    };

    let ada = User { name: "Ada".into(), email: "ada@example.org".into() };
    cache.set("user:1", &ada).await?;
    cache.set("token", "abc").ttl(Duration::from_millis(50)).await?;
    cache.set("motto", "waste not").ttl(Ttl::Never).await?;

    let found: Option<User> = cache.get("user:1").await?;
    println!("user:1        {found:?}");
    assert_eq!(found, Some(ada));
    println!("user:2        {:?}", cache.get::<User>("user:2").await?);

    tokio::time::sleep(Duration::from_millis(60)).await;
    let token: Option<String> = cache.get("token").await?;
    println!("token         {token:?} (its 50 ms are over)");
    assert_eq!(token, None);
    println!("motto         {:?}", cache.get::<String>("motto").await?);

    assert!(cache.delete("user:1").await?);
    println!("exists user:1 {} (deleted)", cache.exists("user:1").await?);
    println!("clear         {} key removed", cache.clear().await?.removed);

    println!("\n{}", cache.stats());
    cache.close().await;
    Ok(())
}
