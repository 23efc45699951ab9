//! The rules for the breaker, as far as callers see it: B2, B3 and B7.

use larder_engine::Instant;
use larder_engine::machine::Engine;
use larder_engine::policy::BreakerState;

use super::{Ended, Oracle};
use crate::rule::Rule;
use crate::setup::millis;

/// What is known of the trial that a breaker may be in.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Changes when another one may have begun.
    number: u64,
    /// When somebody was first seen to be let in, since the breaker is half-open.
    since: Option<Instant>,
    let_in: u32,
    cancelled: u32,
    /// Whether places may be taken by others than the operations of callers.
    shared: bool,
}

impl Trial {
    fn has_changed(&mut self) {
        *self = Self { number: self.number + 1, ..Self::default() };
    }

    /// The breaker may have asked first; or it was a health check, and those let in before have their places.
    pub(super) fn pinged(&mut self) {
        self.number += 1;
    }

    pub(super) fn is_shared(&mut self) {
        self.shared = true;
    }

    pub(super) fn cancelled(&mut self, of: Option<u64>) {
        self.cancelled += u32::from(of == Some(self.number));
    }
}

impl Oracle {
    pub(crate) fn engine_was_driven(&mut self, now: Instant, process: usize, engine: &Engine) {
        let state = engine.breaker().0;
        let seen = &mut self.processes[process];
        let before = seen.state.replace(state);
        let changed = before != Some(state);
        if changed {
            seen.trial.has_changed();
        }
        if state == BreakerState::HalfOpen && engine.journalled() > 0 {
            seen.trial.is_shared();
        }
        if changed && state == BreakerState::Open {
            seen.opened_at = Some(now);
        }
        let opened_at = seen.opened_at.filter(|_| changed && before == Some(BreakerState::Open));
        if let Some(opened_at) = opened_at {
            let open = now.saturating_since(opened_at) + self.setup.clock_error();
            let least = millis(self.setup.open_for) * 85 / 100;
            self.check(Rule::B3, open >= least, || format!("{now:?}: process {process}: open for {open:?}"));
        }
    }

    /// A caller began to wait, where the breaker was so before: in which trial it is, if in any.
    pub(crate) fn waits_first(&mut self, now: Instant, id: usize, before: BreakerState) -> Option<u64> {
        self.check(Rule::B3, before != BreakerState::Open, || {
            format!("{now:?}: operation {id} waits although the breaker was open")
        });
        let seen = &mut self.processes[self.ops[id].process];
        if seen.state != Some(BreakerState::HalfOpen) {
            return None;
        }
        seen.trial.let_in += 1;
        seen.trial.since.get_or_insert(now);
        Some(seen.trial.number)
    }

    /// So many callers wait who began to in the same trial.
    pub(crate) fn in_trial(&mut self, now: Instant, process: usize, out: usize) {
        let holds = out <= self.setup.half_open_permits as usize;
        self.check(Rule::B2, holds, || {
            format!("{now:?}: process {process} has {out} operations in one trial")
        });
    }

    /// A caller did not have to wait, although the connection was ready, nothing was journalled and the breaker half-open.
    pub(crate) fn did_not_wait(&mut self, now: Instant, id: usize) {
        let op = &self.ops[id];
        let trial = &self.processes[op.process].trial;
        let is_refused = matches!(op.ended, Some((.., Ended::Fallback)));
        let Some(since) = trial.since.filter(|_| is_refused && !trial.shared) else { return };
        // Who waits longer than this for its end, or nobody, may find that it has ended.
        let lasts = since.saturating_add(millis(self.setup.half_open_timeout));
        if now.saturating_add(self.setup.clock_error()) >= lasts {
            return;
        }
        let taken = trial.let_in - trial.cancelled;
        self.check(Rule::B7, taken >= self.setup.half_open_permits, || {
            format!("{now:?}: operation {id} was refused a place, of which {taken} were taken")
        });
    }
}
