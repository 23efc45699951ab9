//! The first steps without a runtime, on plain threads. Needs the feature `blocking`.
//!
//! In memory, with nothing else running:            cargo run --example quickstart_blocking --features blocking
//! The same code on Redis:  REDIS_URL=redis://localhost cargo run --example quickstart_blocking --features blocking

use std::time::Duration;

use larder::{Cache, Ttl};

fn main() -> Result<(), larder::Error> {
    let cache = match std::env::var("REDIS_URL") {
        Ok(url) => Cache::redis(url).namespace("quickstart").connect_blocking()?,
        Err(_) => Cache::memory().max_entries(1_000).build()?.blocking(),
    };
    cache.set_with_ttl("user:1", &("Ada", 36), Duration::from_secs(300))?;
    cache.set_with_ttl("motto", "waste not", Ttl::Never)?;
    println!("user:1  {:?}", cache.get::<(String, u32)>("user:1")?);
    println!("motto   {:?}", cache.get::<String>("motto")?);
    println!("clear   {} keys removed\n\n{}", cache.clear()?.removed, cache.stats());
    cache.close(Duration::from_secs(5));
    Ok(())
}
