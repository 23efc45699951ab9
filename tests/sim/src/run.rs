//! One run from its choices to what came of it.

use std::collections::BTreeMap;

use larder_engine::machine::Recording;

use crate::canary::Canary;
use crate::choices::Choices;
use crate::event::{self, What};
use crate::rule::{Rule, Violation};
use crate::script::Script;
use crate::setup::Setup;
use crate::world::{World, outside};

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The mistake that is made, if any.
    pub canary: Option<Canary>,
    /// Whether to keep what happens as lines of text.
    pub readable: bool,
    /// How many bytes of what each of their machines is told the engines record; `None` is nothing.
    pub record: Option<usize>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not hold.
    pub violation: Option<Violation>,
    /// Of all that the engines put out.
    pub hash: u64,
    /// Operations of callers.
    pub operations: usize,
    /// What was done to it.
    pub script: Script,
    /// How often each rule was looked at.
    pub checks: BTreeMap<Rule, u64>,
    /// What happened, where that was asked for.
    pub lines: Vec<String>,
    /// What each engine was told, where that was asked for.
    pub recordings: Vec<Recording>,
}

/// Runs what the choices say.
pub fn run(choices: &mut Choices, options: Options) -> Outcome {
    let setup = Setup::draw(choices);
    let events = event::draw_all(choices, &setup);
    run_script(&Script { setup, events }, options)
}

/// Runs a script; what it does not say is boring.
#[must_use]
pub fn run_script(script: &Script, options: Options) -> Outcome {
    Canary::choose(options.canary);
    let mut world =
        World::new(outside(script.setup.clone(), options.canary, options.readable), options.record);
    world.run(&script.events);
    let recordings = world.recordings();
    let oracle = world.outside.oracle;
    Outcome {
        operations: oracle.operations(),
        checks: oracle.checks(),
        violation: oracle.violation,
        hash: world.outside.tape.hash(),
        lines: world.outside.tape.into_lines(),
        script: script.clone(),
        recordings,
    }
}

impl Outcome {
    /// How often each kind of fault struck.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<What, u64> {
        let mut faults = BTreeMap::new();
        for event in self.script.events.iter().filter(|event| event.what.is_fault()) {
            *faults.entry(event.what).or_default() += 1;
        }
        faults
    }
}
