//! Measures one cell: one contender doing one operation from so many callers on one runtime, for a fixed time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

use crate::args::{Flavor, Operation};
use crate::contender::{Contender, Result};

/// Long enough for connections, caches and the processor's clock to settle.
const WARM_UP: Duration = Duration::from_millis(100);
const KEYS: usize = 1_000;
const VALUE: &[u8] = &[b'v'; 100];
/// One operation in so many is timed: two readings of the clock around each would show in the CPU time.
const TIMED: u64 = 16;

/// What is measured, apart from who.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) operation: Operation,
    pub(crate) callers: usize,
    pub(crate) flavor: Flavor,
    pub(crate) measure: Duration,
}

/// What one measurement of a cell found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) ops_per_s: f64,
    /// CPU time of this process, user and system, all threads: the contender, its runtime, and our callers' few instructions.
    pub(crate) client_cpu_us_per_op: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Connects a contender on a fresh runtime, warms it up and measures it.
pub(crate) fn measure<C: Contender>(cell: &Cell, url: &str) -> Result<Sample> {
    let runtime = runtime(cell.flavor)?;
    runtime.block_on(async {
        let mut client = C::connect(url).await?;
        let keys: Arc<[String]> = (0..KEYS).map(|n| format!("bench:key:{n:06}")).collect();
        if cell.operation == Operation::Get {
            for key in keys.iter() {
                client.set(key, VALUE).await?;
            }
        }

        let phase = Arc::new(Phase::default());
        let spawn = |seed| {
            let caller = Caller { client: client.clone(), keys: keys.clone(), phase: phase.clone(), seed };
            tokio::spawn(caller.run(cell.operation))
        };
        let callers: Vec<_> = (0..cell.callers as u64).map(spawn).collect();

        tokio::time::sleep(WARM_UP).await;
        phase.enter(Phase::MEASURE);
        let (started, cpu_before) = (Instant::now(), cpu_time());
        tokio::time::sleep(cell.measure).await;
        phase.enter(Phase::STOP);
        let (elapsed, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu_before));

        let mut total = Tally::default();
        for caller in callers {
            total.add(caller.await??);
        }
        total.sample(elapsed, cpu)
    })
}

fn runtime(flavor: Flavor) -> std::io::Result<Runtime> {
    let mut builder = match flavor {
        Flavor::CurrentThread => Builder::new_current_thread(),
        Flavor::MultiThread => Builder::new_multi_thread(),
    };
    builder.worker_threads(2).enable_all().build()
}

/// User and system time of all threads of this process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Tells the callers what their operations count for.
#[derive(Default)]
struct Phase(AtomicU8);

impl Phase {
    const MEASURE: u8 = 1;
    const STOP: u8 = 2;

    fn enter(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn current(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One task that does one operation after the other, as a request handler would.
struct Caller<C> {
    client: C,
    keys: Arc<[String]>,
    phase: Arc<Phase>,
    seed: u64,
}

impl<C: Contender> Caller<C> {
    /// Counts the operations that end while the phase is [`Phase::MEASURE`].
    async fn run(mut self, operation: Operation) -> Result<Tally> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut tally = Tally::default();
        for turn in 0_u64.. {
            let key = random.choice(self.keys.iter()).ok_or("there are no keys")?;
            let started = (turn % TIMED == 0).then(Instant::now);
            match operation {
                Operation::Get => {
                    let len = self.client.get(key).await?;
                    if len != Some(VALUE.len()) {
                        return Err(format!("{}: {key} came back as {len:?} bytes", C::NAME).into());
                    }
                }
                Operation::Set => self.client.set(key, VALUE).await?,
            }
            match self.phase.current() {
                Phase::MEASURE => tally.count(started.map(|started| started.elapsed())),
                Phase::STOP => break,
                _ => {}
            }
        }
        Ok(tally)
    }
}

/// Operations that ended, and how long some of them took.
#[derive(Default)]
struct Tally {
    operations: u64,
    latencies: Vec<Duration>,
}

impl Tally {
    fn count(&mut self, latency: Option<Duration>) {
        self.operations += 1;
        self.latencies.extend(latency);
    }

    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.latencies.extend(other.latencies);
    }

    fn sample(mut self, elapsed: Duration, cpu: Duration) -> Result<Sample> {
        self.latencies.sort_unstable();
        let percentile = |percent: usize| {
            // Nearest rank: the smallest latency that at least so many percent do not exceed.
            let rank = (self.latencies.len() * percent).div_ceil(100);
            self.latencies
                .get(rank.saturating_sub(1))
                .copied()
                .ok_or("too few operations ended; measure for longer")
        };
        Ok(Sample {
            ops_per_s: self.operations as f64 / elapsed.as_secs_f64(),
            client_cpu_us_per_op: micros(cpu) / self.operations as f64,
            p50_us: micros(percentile(50)?),
            p99_us: micros(percentile(99)?),
        })
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every GET with so many bytes.
    #[derive(Clone)]
    struct Always<const LEN: usize>;

    impl<const LEN: usize> Contender for Always<LEN> {
        const NAME: &'static str = "always";

        async fn connect(_: &str) -> Result<Self> {
            Ok(Self)
        }

        async fn get(&mut self, _: &str) -> Result<Option<usize>> {
            tokio::task::yield_now().await;
            Ok(Some(LEN))
        }

        async fn set(&mut self, _: &str, _: &'static [u8]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_whole_values_count() {
        for flavor in [Flavor::CurrentThread, Flavor::MultiThread] {
            let cell =
                Cell { operation: Operation::Get, callers: 2, flavor, measure: Duration::from_millis(20) };
            let sample = measure::<Always<100>>(&cell, "").expect("whole values");
            assert!(
                sample.ops_per_s > 0.0 && sample.client_cpu_us_per_op > 0.0 && sample.p50_us <= sample.p99_us
            );
            let error = measure::<Always<99>>(&cell, "").expect_err("values cut short").to_string();
            assert!(error.contains("came back as Some(99) bytes"), "{error}");
        }
    }

    #[test]
    fn a_sample_is_per_second_and_per_operation() {
        let mut tally = Tally { operations: 900, latencies: (1..=60).map(Duration::from_micros).collect() };
        tally.add(Tally { operations: 100, latencies: (61..=100).map(Duration::from_micros).collect() });
        let sample =
            tally.sample(Duration::from_millis(500), Duration::from_millis(3)).expect("enough operations");
        let found = [sample.ops_per_s, sample.client_cpu_us_per_op, sample.p50_us, sample.p99_us];
        for (found, expected) in found.into_iter().zip([2_000.0, 3.0, 50.0, 99.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_sample_of_nothing_is_an_error() {
        assert!(Tally::default().sample(Duration::from_secs(1), Duration::ZERO).is_err());
    }

    #[test]
    fn cpu_time_is_that_of_work_not_of_waiting() {
        let (started, before) = (Instant::now(), cpu_time());
        let mut spent = Duration::ZERO;
        while spent < Duration::from_millis(20) {
            assert!(started.elapsed() < Duration::from_secs(10), "the process's clock stands still");
            spent = cpu_time() - before;
        }
    }
}
