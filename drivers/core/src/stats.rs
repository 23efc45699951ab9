//! What a cache tells about itself.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_engine::machine::Tally;
use larder_engine::policy::BreakerState;
use larder_engine::stats::Counts;

use crate::memory::MemoryStats;

/// A snapshot of a cache's counters, since it was built and over all its clones and namespaces. Taking one locks
/// briefly and asks nobody: it is as fast during an outage.
///
/// Ratios are 0..=1, and `None` where nothing was asked yet.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// `memory`, `redis`, or the name of your own backend.
    pub backend: &'static str,
    /// Operations that have ended, however.
    pub total_operations: u64,
    /// Reads answered with a value, by whomever.
    pub hits: u64,
    /// Reads answered with none.
    pub misses: u64,
    /// Hits of all reads.
    pub hit_rate: Option<f64>,
    /// Sets that the cache itself has acknowledged.
    pub sets: u64,
    /// Deletes that the cache itself has acknowledged.
    pub deletes: u64,
    /// Operations that ended with an error to the caller.
    pub errors: u64,
    /// Operations that the cache itself could not serve, of all: the share that a fallback had to answer, or that failed.
    pub error_rate: Option<f64>,
    /// Values found that could not be decoded. By default they count as misses to the caller, and as hits here.
    pub undecodable: u64,
    /// What only a memory cache knows.
    pub memory: Option<MemoryStats>,
    /// What only a Redis cache knows.
    pub redis: Option<RedisStats>,
}

/// The part of [`Stats`] that is about Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Whether a connection serves now. It takes a lost packet's time to notice an outage: at most the stall timeout
    /// under load, and the health check interval when idle.
    pub connected: bool,
    /// The circuit breaker.
    pub circuit_state: BreakerState,
    /// How often the breaker has opened.
    pub circuit_breaker_trips: u64,
    /// Dials that failed, and connections that were lost.
    pub connection_errors: u64,
    /// Connections that were made.
    pub connects: u64,
    /// Attempts that were made again.
    pub retries: u64,
    /// Operations whose deadline passed.
    pub timeouts: u64,
    /// Operations that are under way now.
    pub in_flight: usize,
    /// Operations that Redis could not serve.
    pub unserved: u64,
    /// Reads that the fallback answered with a value.
    pub fallback_hits: u64,
    /// Reads that the fallback answered with none.
    pub fallback_misses: u64,
    /// Writes, deletes and clears that only the fallback has accepted.
    pub fallback_writes: u64,
    /// Whether there is a fallback.
    pub fallback_enabled: bool,
    /// Entries in the fallback now.
    pub fallback_size: usize,
    /// The bytes of their keys and values.
    pub fallback_memory: u64,
    /// Of these, keys whose latest write Redis has not got yet; and clears.
    pub journalled: usize,
    /// Why the latest attempt to connect failed; `None` once one has succeeded.
    pub last_connection_error: Option<String>,
}

impl fmt::Display for Stats {
    /// A few lines for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} operations, hit rate {} ({} hits, {} misses), error rate {}, {} errors, {} undecodable",
            self.backend,
            self.total_operations,
            Percent(self.hit_rate),
            self.hits,
            self.misses,
            Percent(self.error_rate),
            self.errors,
            self.undecodable,
        )?;
        if let Some(memory) = &self.memory {
            writeln!(
                f,
                "  {} of {} entries, {} bytes, {} expired, {} evicted",
                memory.current_size,
                memory.max_entries,
                memory.memory_usage,
                memory.expired_items(),
                memory.counters.evictions(),
            )?;
        }
        if let Some(redis) = &self.redis {
            writeln!(
                f,
                "  {}, breaker {} ({} trips), {} connection errors, {} retries, {} timeouts",
                if redis.connected { "connected" } else { "not connected" },
                redis.circuit_state,
                redis.circuit_breaker_trips,
                redis.connection_errors,
                redis.retries,
                redis.timeouts,
            )?;
            writeln!(
                f,
                "  fallback: {} hits, {} misses, {} writes; {} entries, {} bytes, {} not in Redis yet",
                redis.fallback_hits,
                redis.fallback_misses,
                redis.fallback_writes,
                redis.fallback_size,
                redis.fallback_memory,
                redis.journalled,
            )?;
        }
        Ok(())
    }
}

struct Percent(Option<f64>);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ratio) => write!(f, "{:.1} %", ratio * 100.0),
            None => f.write_str("–"),
        }
    }
}

/// [`Counts`] that any thread may add to.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; Tally::ALL.len()]);

impl Counters {
    pub(crate) fn add(&self, tally: Tally) {
        if let Some(counter) = self.0.get(tally as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (tally, counter) in Tally::ALL.into_iter().zip(&self.0) {
            *counts.counter(tally) = counter.load(Ordering::Relaxed);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

    #[test]
    fn each_tally_has_a_counter_of_its_own() {
        let counters = Counters::default();
        for (n, tally) in Tally::ALL.into_iter().enumerate() {
            assert_eq!(tally as usize, n, "{tally:?} stands elsewhere in the array");
            (0..=n).for_each(|_| counters.add(tally));
        }
        let mut counts = counters.counts();
        for (n, tally) in Tally::ALL.into_iter().enumerate() {
            assert_eq!(*counts.counter(tally), n as u64 + 1, "{tally:?}");
        }
    }

    #[test]
    fn what_was_never_asked_has_no_rate() {
        let cache = Cache::memory().max_entries(5).build().expect("valid");
        assert_eq!(
            cache.stats().to_string(),
            "memory: 0 operations, hit rate – (0 hits, 0 misses), error rate –, 0 errors, 0 undecodable\n  \
             0 of 5 entries, 0 bytes, 0 expired, 0 evicted\n"
        );
        assert_eq!(Percent(Some(1.0 / 3.0)).to_string(), "33.3 %");
    }
}
