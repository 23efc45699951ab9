//! Runs checks on every runtime, and prints a table of both.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::runtimes::{Check, RUNTIMES, Runtime};

/// After this a check hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// What became of each check, in the order in which they were run.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    begun: Instant,
    filter: Vec<String>,
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    setting: &'static str,
    check: &'static str,
    runtime: &'static str,
    failed: bool,
    took: Duration,
}

/// A check under way.
#[derive(Debug)]
pub(crate) struct Running {
    setting: &'static str,
    check: &'static str,
    runtime: &'static str,
    begun: Instant,
    /// Told whether it failed, and how long it took.
    finished: mpsc::Receiver<(bool, Duration)>,
}

/// Starts a check on a thread of its own, so that one that hangs fails alone.
pub(crate) fn start(
    setting: &'static str,
    check: &'static str,
    runtime: &'static Runtime,
    future: impl FnOnce() -> Check + Send + 'static,
) -> Running {
    let (sender, finished) = mpsc::channel();
    let begun = Instant::now();
    let body = move || {
        let result = catch_unwind(AssertUnwindSafe(|| (runtime.block_on)(future())));
        let _ = sender.send((result.is_err(), begun.elapsed()));
    };
    let thread = thread::Builder::new().name(format!("{check}, {setting}, {}", runtime.name));
    thread.spawn(body).expect("a thread");
    Running { setting, check, runtime: runtime.name, begun, finished }
}

impl Table {
    /// Arguments of the command line are parts of names: of a check, a runtime or a setting; what matches none of them is
    /// left out. Options are for the usual harness, and ignored.
    pub(crate) fn new(title: &'static str) -> Self {
        let filter = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        Self { title, begun: Instant::now(), filter, cells: Vec::new() }
    }

    pub(crate) fn wants(&self, setting: &str, check: &str, runtime: &str) -> bool {
        let named =
            |filter: &String| [setting, check, runtime].iter().any(|name| name.contains(filter.as_str()));
        self.filter.iter().all(named)
    }

    /// Waits for a check, and notes what became of it.
    pub(crate) fn end(&mut self, running: Running) {
        let Running { setting, check, runtime, begun, finished } = running;
        let rest = LIMIT.saturating_sub(begun.elapsed());
        let (failed, took) = finished.recv_timeout(rest).unwrap_or_else(|_| {
            eprintln!("{check}, {setting}, {runtime}: not over after {LIMIT:?}");
            (true, begun.elapsed())
        });
        if failed {
            eprintln!("{check}, {setting}, {runtime}: FAILED after {took:?}");
        }
        self.cells.push(Cell { setting, check, runtime, failed, took });
    }

    /// Prints how often each check, and each setting, passed on each runtime.
    pub(crate) fn finish(self) -> ExitCode {
        if self.cells.is_empty() {
            println!("{}: nothing is named so", self.title);
            return ExitCode::SUCCESS; // As the usual harness does, where a name is meant for another file.
        }
        println!("\n{}: passed of run", self.title);
        self.print(|cell| cell.check);
        if self.cells.iter().any(|cell| !cell.setting.is_empty()) {
            self.print(|cell| cell.setting);
        }
        let failed = self.cells.iter().filter(|cell| cell.failed).count();
        let (run, took) = (self.cells.len(), self.begun.elapsed());
        println!("\n{}: {run} run, {failed} failed, in {:.1} s\n", self.title, took.as_secs_f64());
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn print(&self, row: impl Fn(&Cell) -> &'static str) {
        print!("\n{:55}", "");
        RUNTIMES.iter().for_each(|runtime| print!("{:>10}", runtime.name));
        println!("{:>10}", "seconds");
        let mut seen = BTreeSet::new();
        for name in self.cells.iter().map(&row).filter(|name| seen.insert(*name)) {
            print!("{name:55}");
            for runtime in RUNTIMES {
                let cells =
                    || self.cells.iter().filter(|cell| row(cell) == name && cell.runtime == runtime.name);
                let (run, passed) = (cells().count(), cells().filter(|cell| !cell.failed).count());
                let mark = if run == passed { "" } else { "!" };
                print!("{:>10}", format!("{mark}{passed}/{run}"));
            }
            let took: Duration =
                self.cells.iter().filter(|cell| row(cell) == name).map(|cell| cell.took).sum();
            println!("{:>10.1}", took.as_secs_f64());
        }
    }
}
