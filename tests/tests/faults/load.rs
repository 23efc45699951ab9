//! Callers that use a cache while something happens to its server, and know what they may see.
//!
//! Each key belongs to one caller, and each value says which key it was set under, and in which round. So a caller sees a reply
//! that was another's, a value older than its last acknowledged write, and an acknowledged write that is gone.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use larder::{Cache, Error, SetOutcome, Source};

/// The deadline of every operation under load.
pub(crate) const DEADLINE: Duration = Duration::from_millis(400);

/// How much later a busy machine may be. What it really was is printed.
const GRACE: Duration = Duration::from_secs(2);

/// Each caller's keys. Most writes are to the first of them: the others still hold what they held before, when a fault is over.
const KEYS: usize = 8;
const BUSY_KEYS: usize = 3;

/// What callers and the test that runs them tell each other.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) stop: AtomicBool,
    /// Moves on when the server has lost what it had.
    pub(crate) wiped: AtomicU32,
}

/// What a caller has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    /// Answers of the fallback.
    pub(crate) degraded: u64,
    pub(crate) dropped: u64,
    /// The most that an operation took beyond its deadline.
    pub(crate) late: Duration,
}

impl Seen {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            errors: self.errors + other.errors,
            degraded: self.degraded + other.degraded,
            dropped: self.dropped + other.dropped,
            late: self.late.max(other.late),
        }
    }
}

/// What a caller knows of one of its keys.
#[derive(Clone, Debug)]
struct Known {
    key: String,
    /// The round of the last acknowledged write, and whether that was a delete.
    acknowledged: u32,
    deleted: bool,
    /// Redis has acknowledged that write, and no other was attempted since. Then it is there, unless the server was wiped.
    certain: bool,
    wiped: u32,
}

#[derive(Debug)]
pub(crate) struct Caller {
    cache: Cache,
    /// Whether the cache has its fallback: without, nobody remembers writes whose outcome is unknown, and they may come late.
    strict: bool,
    signals: Arc<Signals>,
    random: fastrand::Rng,
    keys: Vec<Known>,
    round: u32,
    seen: Seen,
}

impl Caller {
    pub(crate) fn new(cache: Cache, strict: bool, signals: Arc<Signals>, number: u64, seed: u64) -> Self {
        let key = |n| Known {
            key: format!("caller{number}:{n}"),
            acknowledged: 0,
            deleted: true,
            certain: false,
            wiped: 0,
        };
        let random = fastrand::Rng::with_seed(seed ^ (number << 32));
        let keys = (0..KEYS).map(key).collect();
        Self { cache, strict, signals, random, keys, round: 0, seen: Seen::default() }
    }

    /// Until it is told to stop; then it looks at all of its keys once more.
    pub(crate) async fn run(mut self) -> Seen {
        for n in 0..KEYS {
            self.round += 1;
            self.write(n).await;
        }
        while !self.signals.stop.load(Ordering::SeqCst) {
            self.step().await;
            if self.random.u8(..4) == 0 {
                smol::Timer::after(Duration::from_millis(self.random.u64(..4))).await;
            } else {
                smol::future::yield_now().await;
            }
        }
        for n in 0..KEYS {
            self.read(n).await;
        }
        self.seen
    }

    async fn step(&mut self) {
        self.round += 1;
        self.seen.operations += 1;
        let any = self.random.usize(..KEYS);
        let written = if self.random.u8(..100) == 0 { any } else { any % BUSY_KEYS };
        match self.random.u8(..16) {
            0..6 => self.write(written).await,
            6 => self.delete(any % BUSY_KEYS).await,
            7 => self.write_and_drop(written).await,
            8 => self.exists(any).await,
            _ => self.read(any).await,
        }
    }

    fn value(&mut self, n: usize) -> (String, u32, String) {
        // Some are larger than the proxy's pieces.
        let length = if self.random.u8(..8) == 0 { 20_000 } else { self.random.usize(..200) };
        (self.keys[n].key.clone(), self.round, "v".repeat(length))
    }

    async fn write(&mut self, n: usize) {
        let (value, wiped) = (self.value(n), self.signals.wiped.load(Ordering::SeqCst));
        self.keys[n].certain = false;
        let (key, cache) = (self.keys[n].key.clone(), self.cache.clone());
        let Some(outcome) = self.timed(cache.set(&key, &value)).await else { return };
        let certain = outcome == SetOutcome::Stored;
        self.seen.degraded += u64::from(!certain);
        self.keys[n] = Known { key, acknowledged: self.round, deleted: false, certain, wiped };
    }

    async fn delete(&mut self, n: usize) {
        self.keys[n].certain = false;
        let (key, cache) = (self.keys[n].key.clone(), self.cache.clone());
        if self.timed(cache.delete(&key)).await.is_some() {
            (self.keys[n].acknowledged, self.keys[n].deleted) = (self.round, true);
        }
    }

    /// Whether a write takes place that nobody waits for is not known, but that it does not take place later than another is.
    async fn write_and_drop(&mut self, n: usize) {
        let value = self.value(n);
        self.keys[n].certain = false;
        let (key, polls) = (self.keys[n].key.clone(), self.random.u8(1..4));
        let cache = self.cache.clone();
        let mut set = pin!(cache.set(&key, &value));
        for _ in 0..polls {
            if poll_fn(|cx| Poll::Ready(set.as_mut().poll(cx).is_ready())).await {
                return;
            }
            smol::future::yield_now().await;
        }
        self.seen.dropped += 1;
    }

    async fn exists(&mut self, n: usize) {
        let cache = self.cache.clone();
        let key = self.keys[n].key.clone();
        self.timed(cache.exists(&key)).await;
    }

    async fn read(&mut self, n: usize) {
        let (key, cache) = (self.keys[n].key.clone(), self.cache.clone());
        let Some(found) = self.timed(cache.lookup::<(String, u32, String)>(&key)).await else { return };
        self.seen.degraded += u64::from(found.source != Source::Primary);
        let (known, wiped) = (&self.keys[n], self.signals.wiped.load(Ordering::SeqCst));
        match found.value {
            Some((owner, round, _)) => {
                assert_eq!(owner, key, "the value of another key");
                assert!(round <= self.round, "{key} has a value of the future, {round}");
                let newest = known.acknowledged + u32::from(known.deleted);
                let source = found.source;
                assert!(
                    !self.strict || round >= newest,
                    "{round} from {source:?} at {known:?}: a value from before it"
                );
            }
            None => {
                let must =
                    self.strict && known.certain && found.source == Source::Primary && known.wiped == wiped;
                assert!(!must, "nothing at {known:?}: an acknowledged write is lost");
            }
        }
    }

    /// What an operation answered, if it did.
    async fn timed<T>(&mut self, operation: impl Future<Output = Result<T, Error>>) -> Option<T> {
        let begun = Instant::now();
        let result = operation.await;
        let late = begun.elapsed().saturating_sub(DEADLINE);
        self.seen.late = self.seen.late.max(late);
        assert!(late < GRACE, "an operation took {late:?} longer than its deadline");
        match result {
            Ok(answer) => Some(answer),
            Err(error) => {
                let of_redis = error.is_unavailable() || error.is_timeout() || error.is_overload();
                assert!(of_redis || error.server_error().is_some(), "{error:?}");
                self.seen.errors += 1;
                None
            }
        }
    }
}
