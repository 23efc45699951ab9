//! What happens to a server and to the way there, while callers use it, on every runtime.
//!
//! ```text
//! cargo test -p larder-tests --test faults                            each fault once, from a fixed seed, and a table of it
//! LARDER_FAULT_SEED=7 cargo test -p larder-tests --test faults        from this seed
//! LARDER_FAULT_MINUTES=20 cargo test -p larder-tests --test faults    for so long, from random seeds, which are printed
//! ```
//!
//! A seed decides what callers and proxies do; when, the machine decides. What is held under every fault: no operation is
//! over much later than its deadline, no reply is another's, no value is older than an acknowledged write, nothing that Redis
//! acknowledged is lost, and afterwards everything is answered by Redis, the journal is empty, and nothing is left behind.

#[path = "../common/mod.rs"]
mod common;
mod load;
mod proxy;
#[path = "../common/runtimes.rs"]
mod runtimes;
mod scenarios;
#[path = "../common/table.rs"]
mod table;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use load::Seen;
use runtimes::{Check, RUNTIMES, Runtime};
use table::Table;

/// A fault, and what it is done to.
struct World {
    runtime: &'static Runtime,
    seed: u64,
}

/// All that was seen by all callers.
static TOTAL: Mutex<Option<Seen>> = Mutex::new(None);

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        const SCENARIOS: &[(&str, fn(World) -> Check)] =
            &[$((stringify!($name), |world| Box::pin(async move { scenarios::$name(&world).await }))),*];
    };
}

scenarios! {
    killed_and_restarted,
    stopped_and_resumed,
    every_connection_killed,
    clients_paused,
    busy_with_one_command,
    password_changed,
    out_of_memory,
    replica_promoted,
    cut_at_random_bytes,
    delayed,
    trickling,
    stalled_to_the_server,
    stalled_to_the_client,
    answered_with_garbage,
    answered_too_late,
    closed_while_stopped,
}

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let until =
        number("LARDER_FAULT_MINUTES").map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut seed =
        number("LARDER_FAULT_SEED").unwrap_or_else(|| if until.is_some() { fastrand::u64(..) } else { 1 });
    let mut table = Table::new("faults");
    thread::spawn(measure_noise);
    loop {
        if until.is_some() {
            println!("LARDER_FAULT_SEED={seed}");
        }
        for (name, scenario) in SCENARIOS {
            let wanted =
                RUNTIMES.iter().filter(|runtime| table.wants("", name, runtime.name)).collect::<Vec<_>>();
            let running: Vec<_> = wanted
                .into_iter()
                .map(|runtime| table::start("", name, runtime, move || scenario(World { runtime, seed })))
                .collect();
            running.into_iter().for_each(|running| table.end(running));
        }
        if until.is_none_or(|until| Instant::now() >= until) {
            break;
        }
        seed = fastrand::u64(..);
    }
    if let Some(seen) = TOTAL.lock().expect("no panic").take() {
        println!("\n{seen:?}; a thread that sleeps was late by up to {} ms", NOISE.load(Ordering::Relaxed));
    }
    table.finish()
}

/// The latest that a thread woke up which did nothing but sleep, in milliseconds: what the machine adds to every deadline.
static NOISE: AtomicU64 = AtomicU64::new(0);

fn measure_noise() {
    const STEP: Duration = Duration::from_millis(5);
    loop {
        let begun = Instant::now();
        thread::sleep(STEP);
        NOISE.fetch_max(begun.elapsed().saturating_sub(STEP).as_millis() as u64, Ordering::Relaxed);
    }
}
