//! Makes a failing run small: fewer choices, and smaller ones, as long as the same rule breaks.
//!
//! A list that has come to its end goes on boring, and each event is a block of choices that begins with whether there
//! is one. So cutting out a piece takes events away, and a zero is a fault less. The passes are those of
//! [Hypothesis](https://doi.org/10.4230/LIPIcs.ECOOP.2020.13): delete, zero, halve; the big pieces first.

use crate::choices::Choices;
use crate::rule::Rule;
use crate::run::{Options, Outcome, run};

/// A small list of choices that breaks the same rule.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What to choose.
    pub choices: Vec<u32>,
    /// What comes of it.
    pub outcome: Outcome,
    /// Runs that were made to find it.
    pub runs: usize,
}

/// Shrinks what fails, with no more than `budget` runs; `None` where nothing fails.
#[must_use]
pub fn shrink(choices: Vec<u32>, options: Options, budget: usize) -> Option<Shrunk> {
    let outcome = run(&mut Choices::list(choices.clone()), options);
    let rule = outcome.violation.as_ref()?.rule;
    let best = Shrunk { choices, outcome, runs: 1 };
    let mut shrinker = Shrinker { best, rule, options, budget };
    shrinker.cut_tail();
    loop {
        let before = shrinker.best.choices.clone();
        shrinker.delete();
        shrinker.zero();
        shrinker.halve();
        if shrinker.best.choices == before || shrinker.best.runs >= budget {
            return Some(shrinker.best);
        }
    }
}

struct Shrinker {
    best: Shrunk,
    rule: Rule,
    options: Options,
    budget: usize,
}

impl Shrinker {
    /// Keeps other choices if the same rule breaks.
    fn keep(&mut self, choices: Vec<u32>) -> bool {
        if self.best.runs >= self.budget || choices == self.best.choices {
            return false;
        }
        self.best.runs += 1;
        let outcome = run(&mut Choices::list(choices.clone()), self.options);
        let same = outcome.violation.as_ref().is_some_and(|violation| violation.rule == self.rule);
        if same {
            (self.best.choices, self.best.outcome) = (choices, outcome);
            self.cut_zeros();
        }
        same
    }

    /// What stands at the end is boring anyway.
    fn cut_zeros(&mut self) {
        let len = self.best.choices.iter().rposition(|&choice| choice != 0).map_or(0, |last| last + 1);
        self.best.choices.truncate(len);
    }

    fn cut_tail(&mut self) {
        let (mut enough, mut too_few) = (self.best.choices.len(), 0);
        while too_few + 1 < enough {
            let half = usize::midpoint(too_few, enough);
            let head = self.best.choices.get(..half).unwrap_or(&self.best.choices).to_vec();
            if self.keep(head) {
                enough = half;
            } else {
                too_few = half;
            }
        }
    }

    fn delete(&mut self) {
        for size in [128, 64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1] {
            let mut at = self.best.choices.len().saturating_sub(size);
            loop {
                let mut shorter = self.best.choices.clone();
                shorter.drain(at.min(shorter.len())..(at + size).min(shorter.len()));
                self.keep(shorter);
                if at == 0 || self.best.runs >= self.budget {
                    break;
                }
                at = at.saturating_sub(if size > 8 { size / 2 } else { 1 });
            }
        }
    }

    fn zero(&mut self) {
        for size in [32, 8, 2, 1] {
            for at in (0..self.best.choices.len()).step_by(size) {
                let mut boring = self.best.choices.clone();
                boring.iter_mut().skip(at).take(size).for_each(|choice| *choice = 0);
                self.keep(boring);
            }
        }
    }

    fn halve(&mut self) {
        for at in 0..self.best.choices.len() {
            while let Some(&choice) = self.best.choices.get(at).filter(|&&choice| choice > 0) {
                let with = |value: u32| {
                    let mut choices = self.best.choices.clone();
                    choices[at] = value;
                    choices
                };
                let (half, less) = (with(choice / 2), with(choice - 1));
                if !self.keep(half) && !self.keep(less) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::Canary;

    #[test]
    fn a_failing_run_becomes_small_and_still_breaks_the_same_rule() {
        let options = Options { canary: Some(Canary::FirstValue), ..Options::default() };
        let failing = (0..).find_map(|seed| {
            let mut choices = Choices::seed(seed);
            let rule = run(&mut choices, options).violation?.rule;
            (rule == Rule::F1).then(|| choices.made().iter().map(|choice| choice.value).collect::<Vec<_>>())
        });
        let failing = failing.expect("a seed that fails");
        let shrunk = shrink(failing.clone(), options, 3_000).expect("it fails");
        assert_eq!(shrunk.outcome.violation.map(|violation| violation.rule), Some(Rule::F1));
        let events = shrunk.outcome.script.events.len();
        assert!(events <= 8, "{} choices, {}", shrunk.choices.len(), shrunk.outcome.script);
        let again = run(&mut Choices::list(shrunk.choices), options);
        assert_eq!(again.hash, shrunk.outcome.hash);
    }

    #[test]
    fn what_does_not_fail_is_not_shrunk() {
        assert!(shrink(Vec::new(), Options::default(), 10).is_none());
    }
}
