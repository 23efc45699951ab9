//! Many seeds on all cores.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_sim::{Choices, Options, Rule, Violation, What, run};

/// Each so many seeds one is played twice, to hold both outputs against each other.
const TWICE: u64 = 64;

/// What is to be played.
pub(crate) struct Campaign {
    pub(crate) from: u64,
    pub(crate) seeds: u64,
    pub(crate) time: Option<Duration>,
    pub(crate) jobs: usize,
    pub(crate) options: Options,
}

/// What was played, and the failure of the lowest seed.
#[derive(Default)]
pub(crate) struct Summary {
    seeds: u64,
    operations: u64,
    faults: BTreeMap<What, u64>,
    checks: BTreeMap<Rule, u64>,
    pub(crate) failure: Option<(u64, Violation)>,
    elapsed: Duration,
}

impl Campaign {
    pub(crate) fn fight(&self) -> Summary {
        let begun = Instant::now();
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let summary = Mutex::new(Summary::default());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        if nth >= self.seeds || self.time.is_some_and(|time| begun.elapsed() >= time) {
                            return;
                        }
                        let played = self.play(self.from.saturating_add(nth));
                        if played.failure.is_some() {
                            over.store(true, Ordering::Relaxed);
                        }
                        let Ok(mut summary) = summary.lock() else { return };
                        summary.add(played);
                        if summary.seeds % 256 == 0 {
                            self.show_progress(summary.seeds, begun.elapsed());
                        }
                    }
                });
            }
        });
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let mut summary = summary.into_inner().unwrap_or_default();
        summary.elapsed = begun.elapsed();
        summary
    }

    fn play(&self, seed: u64) -> Summary {
        let outcome = run(&mut Choices::seed(seed), self.options);
        let faults = outcome.faults();
        let mut played =
            Summary { seeds: 1, operations: outcome.operations as u64, faults, ..Summary::default() };
        played.checks = outcome.checks;
        let mut violation = outcome.violation;
        if seed % TWICE == 0 {
            *played.checks.entry(Rule::D1).or_default() += 1;
            let again = run(&mut Choices::seed(seed), self.options).hash;
            if again != outcome.hash && violation.is_none() {
                let detail = format!("{:016x}, and then {again:016x}", outcome.hash);
                violation = Some(Violation { rule: Rule::D1, detail });
            }
        }
        played.failure = violation.map(|violation| (seed, violation));
        played
    }

    fn show_progress(&self, seeds: u64, elapsed: Duration) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let done = match self.time {
            Some(time) => elapsed.as_secs_f64() / time.as_secs_f64(),
            None => seeds as f64 / self.seeds as f64,
        };
        let bar = "#".repeat((done.clamp(0.0, 1.0) * 30.0) as usize);
        eprint!("\r[{bar:<30}] {seeds} seeds, {:.0} a second ", rate(seeds, elapsed));
        let _ = std::io::stderr().flush(); // Nobody misses a progress bar.
    }
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        for (what, count) in other.faults {
            *self.faults.entry(what).or_default() += count;
        }
        for (rule, count) in other.checks {
            *self.checks.entry(rule).or_default() += count;
        }
        let earlier = |failure: &(u64, _)| self.failure.as_ref().is_none_or(|(seed, _)| failure.0 < *seed);
        if let Some(failure) = other.failure.filter(earlier) {
            self.failure = Some(failure);
        }
    }
}

fn rate(seeds: u64, elapsed: Duration) -> f64 {
    seeds as f64 / elapsed.as_secs_f64().max(1e-9)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, operations, elapsed, .. } = self;
        let rate = rate(*seeds, *elapsed);
        writeln!(
            f,
            "{seeds} seeds in {:.1} s ({rate:.0} a second), {operations} operations",
            elapsed.as_secs_f64()
        )?;
        let faults: Vec<String> =
            self.faults.iter().map(|(what, count)| format!("{} {count}", what.name())).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        let checks: Vec<String> = Rule::ALL
            .iter()
            .map(|rule| format!("{rule} {}", self.checks.get(rule).copied().unwrap_or_default()))
            .collect();
        writeln!(f, "rules checked: {}", checks.join(", "))
    }
}
