//! Every deliberate mistake must be caught, by the rule that is there for it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_sim::{Canary, Choices, Options, Rule, run};

/// Seeds in which a mistake must be found.
const SEEDS: u64 = 2_000;

/// The same for what takes more to be seen: a write that comes late, a newer one of the same key, and a read in between;
/// or a reader who comes late, a write before he does, and then an outage.
const SEEDS_FOR_RARE: u64 = 10_000;
const RARE: [&str; 3] = ["deaf-kill", "no-fence", "fence-unread"];

/// The least seed with which it is found, from 1, searched for on as many threads as there are cores.
fn seeds_to_detection(canary: Canary, rule: Rule) -> Result<u64, BTreeMap<Rule, u64>> {
    let seeds = if RARE.contains(&canary.entry().0) { SEEDS_FOR_RARE } else { SEEDS };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let (found, others) = (AtomicU64::new(seeds), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (found, others) = (&found, &others);
            scope.spawn(move || {
                for seed in (thread..seeds).step_by(threads as usize) {
                    if seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    match broken(canary, rule, seed) {
                        Some(broken) if broken == rule => {
                            found.fetch_min(seed, Ordering::Relaxed);
                        }
                        Some(other) => *others.lock().expect("nobody panics").entry(other).or_default() += 1,
                        None => {}
                    }
                }
            });
        }
    });
    match found.into_inner() {
        found if found < seeds => Ok(found + 1),
        _ => Err(others.into_inner().expect("nobody panics")),
    }
}

/// The rule that a mistake breaks in a run.
fn broken(canary: Canary, rule: Rule, seed: u64) -> Option<Rule> {
    let options = Options { canary: Some(canary), ..Options::default() };
    let outcome = run(&mut Choices::seed(seed), options);
    // What a mistake changes from run to run is not seen in a single one.
    let again = (rule == Rule::D1).then(|| run(&mut Choices::seed(seed), options).hash);
    if again.is_some_and(|again| again != outcome.hash) {
        return Some(rule);
    }
    outcome.violation.map(|violation| violation.rule)
}

/// In a build with mistakes of the engine these; the others are looked for in the usual build.
fn canaries() -> impl Iterator<Item = Canary> {
    Canary::all().skip(if cfg!(larder_canary) { Canary::AROUND.len() } else { 0 })
}

#[test]
fn every_canary_is_caught() {
    println!("{:<6}{:<22}seeds to detection", "rule", "canary");
    let mut missed = Vec::new();
    for canary in canaries() {
        let (name, rule) = canary.entry();
        let found = seeds_to_detection(canary, rule);
        match &found {
            Ok(seeds) => println!("{:<6}{name:<22}{seeds}", rule.to_string()),
            Err(others) => {
                println!("{:<6}{name:<22}not found; so often broke instead: {others:?}", rule.to_string());
            }
        }
        if found.is_err() {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn every_rule_has_a_canary() {
    for rule in Rule::ALL {
        assert!(Canary::AROUND.iter().any(|canary| canary.entry().1 == *rule), "{rule}");
    }
}
