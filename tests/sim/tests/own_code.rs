//! Somebody's own code over a `Cache`, tested on simulated time: prices that must be there whatever happens to Redis.

use std::time::Duration;

use larder::{BreakerState, Cache, Error, SetOutcome};
use larder_sim::SimRuntime;

const SECOND: Duration = Duration::from_secs(1);

/// The code under test: the cache first, and the slow source of truth if that knows nothing.
async fn price(cache: &Cache, sim: &SimRuntime, item: &str) -> Result<u32, Error> {
    if let Some(price) = cache.get(item).await? {
        return Ok(price);
    }
    sim.sleep(SECOND / 3).await; // A database.
    cache.set(item, &42).await?;
    Ok(42)
}

#[test]
fn prices_survive_an_outage() -> Result<(), Error> {
    for seed in 0..100 {
        let sim = SimRuntime::new(seed);
        let redis = Cache::redis("redis://sim").namespace("shop").breaker_timeout(20 * SECOND);
        let cache = redis.connect_lazy(sim.clone())?;
        let state = || cache.stats().redis.expect("on Redis").circuit_state;
        for item in ["tea", "milk"] {
            assert_eq!(sim.block_on(price(&cache, &sim, item))?, 42);
            assert_eq!(sim.redis_get(&format!("shop:{item}")).as_deref(), Some(&b"42"[..]));
        }
        sim.kill_redis();
        assert_eq!(sim.block_on(price(&cache, &sim, "tea"))?, 42, "a copy");
        for item in ["tea", "milk"] {
            assert_eq!(sim.block_on(cache.set(item, &50))?, SetOutcome::StoredInFallback);
        }
        sim.advance(10 * SECOND);
        assert_eq!(state(), BreakerState::Open, "seed {seed}");
        let before = sim.now();
        assert_eq!(sim.block_on(price(&cache, &sim, "tea"))?, 50, "from the journal");
        assert_eq!(sim.now(), before, "an open breaker costs nobody any time");

        sim.restart_redis();
        sim.redis_set("shop:milk", "60"); // Another process was faster.
        sim.advance(20 * SECOND); // Until the breaker's trial, with which the journal is replayed.
        assert_eq!(sim.redis_get("shop:tea").as_deref(), Some(&b"50"[..]), "seed {seed}");
        assert_eq!(sim.redis_get("shop:milk"), None, "who is right is for the source to say");
        assert_eq!(sim.block_on(price(&cache, &sim, "milk"))?, 42);
        assert_eq!((state(), cache.stats().redis.expect("on Redis").connected), (BreakerState::Closed, true));
    }
    Ok(())
}
