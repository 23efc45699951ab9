//! Every deliberate mistake must be caught, by the rule that is there for it.

use larder_sim::{Canary, Choices, Options, Rule, run};

/// Seeds in which a mistake must be found.
const SEEDS: u64 = 2_000;

/// The same for what takes a write that comes late, a newer one of the same key, and a read in between.
const SEEDS_FOR_ZOMBIES: u64 = 10_000;

fn seeds_to_detection(canary: Canary, rule: Rule) -> Result<u64, String> {
    let options = Options { canary: Some(canary), ..Options::default() };
    let mut others = Vec::new();
    let seeds = if rule == Rule::F7 { SEEDS_FOR_ZOMBIES } else { SEEDS };
    for seed in 0..seeds {
        let outcome = run(&mut Choices::seed(seed), options);
        // What a mistake changes from run to run is not seen in a single one.
        let again = (rule == Rule::D1).then(|| run(&mut Choices::seed(seed), options).hash);
        if again.is_some_and(|again| again != outcome.hash) {
            return Ok(seed + 1);
        }
        match outcome.violation {
            Some(violation) if violation.rule == rule => return Ok(seed + 1),
            Some(violation) => others.push(violation.rule),
            None => {}
        }
    }
    others.dedup();
    Err(format!("not found in {seeds} seeds; instead: {others:?}"))
}

#[test]
fn every_canary_is_caught() {
    println!("{:<6}{:<22}seeds to detection", "rule", "canary");
    let mut missed = Vec::new();
    for &canary in Canary::ALL {
        let (name, rule) = canary.entry();
        let found = seeds_to_detection(canary, rule);
        println!("{:<6}{name:<22}{found:?}", rule.to_string());
        if found.is_err() {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn every_rule_has_a_canary() {
    for rule in Rule::ALL {
        assert!(Canary::ALL.iter().any(|canary| canary.entry().1 == *rule), "{rule}");
    }
}
