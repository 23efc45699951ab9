//! What a landing plays: always the same seeds, so that it never depends on luck, and what has once broken.

use std::fs;
use std::path::Path;

use larder_sim::{Choices, Options, Script, run, run_script};

/// A few seconds at the optimisation of tests. Fresh seeds are for longer runs.
const SEEDS: u64 = 2_000;

/// On as many threads as there are cores.
#[test]
fn all_rules_hold_for_fixed_seeds() {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let broken: Vec<String> = std::thread::scope(|scope| {
        let play = |thread: u64| {
            move || {
                let seeds = (thread..SEEDS).step_by(threads as usize);
                let broken = seeds.filter_map(|seed| {
                    let violation = run(&mut Choices::seed(seed), Options::default()).violation?;
                    Some(format!("seed {seed}: {violation}"))
                });
                broken.collect::<Vec<_>>()
            }
        };
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(play(thread))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no run panics")).collect()
    });
    assert!(
        broken.is_empty(),
        "replay with `cargo run --release -p larder-sim -- replay --seed N`:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    let hash = |seed| run(&mut Choices::seed(seed), Options::default()).hash;
    for seed in 0..50 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
}

/// Scripts of what was once found.
#[test]
fn what_once_broke_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regressions");
    let mut played = 0;
    for entry in fs::read_dir(folder).expect("a folder of scripts") {
        let path = entry.expect("a script").path();
        if path.extension().is_none_or(|extension| extension != "sim") {
            continue;
        }
        let script: Script = fs::read_to_string(&path).expect("a text").parse().expect("a script");
        let violation = run_script(&script, Options::default()).violation;
        assert_eq!(violation, None, "{}", path.display());
        played += 1;
    }
    assert!(played > 0, "there is at least one");
}
