//! What must hold, held against what callers saw and what the server did.
//!
//! Virtual time is coarse: much happens at one instant. So everything that is observed gets a number, and *before* and
//! *after* are said of those.

use std::collections::BTreeMap;

use larder_engine::Instant;
use larder_engine::machine::{Answer, Cleared, Engine, OperationError, Source, Tally};
use larder_engine::policy::BreakerState;
use larder_engine::stats::Counts;

use crate::event::What;
use crate::rule::{Rule, Violation};
use crate::server::Did;
use crate::setup::{Setup, millis};

/// A key as it is on the wire; even ones are in namespace `a`, odd ones in `b`.
pub(crate) fn key_name(key: u32) -> Vec<u8> {
    format!("{}:{key}", if key % 2 == 0 { 'a' } else { 'b' }).into_bytes()
}

/// Of those names, with the colon.
pub(crate) const NAMESPACE_LEN: usize = 2;

/// The value of a SET says which one made it, so that nobody can mistake it for another's.
pub(crate) fn value_of(op: usize, key: u32) -> Vec<u8> {
    let mut value = format!("v{op}.k{key}.").into_bytes();
    value.resize(value.len() + op % 4 * 10, b'x');
    value
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp(u64);

#[derive(Debug)]
struct Op {
    process: usize,
    what: What,
    key: u32,
    ttl: u32,
    begun: Stamp,
    begun_at: Instant,
    ended: Option<(Stamp, Instant, Ended)>,
    /// Where this is a SET: how often it was sent, and when it was executed last.
    sent: u32,
    executed: Option<Stamp>,
    /// When Redis was last seen to have its value.
    seen_at: Option<Instant>,
    /// When Redis last answered a read with it.
    read: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Primary,
    Fallback,
    Error,
    Cancelled,
}

impl Op {
    const fn is_write(&self) -> bool {
        matches!(self.what, What::Set | What::Delete)
    }

    /// When the fallback tier accepted it.
    fn accepted_here(&self) -> Option<Stamp> {
        self.ended.filter(|(.., how)| *how == Ended::Fallback).map(|(at, ..)| at)
    }

    /// When it was accepted, by whom.
    fn accepted(&self) -> Option<(Stamp, Instant, Ended)> {
        self.ended.filter(|(.., how)| matches!(how, Ended::Primary | Ended::Fallback))
    }
}

/// What the server did for a process, and whether an answer has come of it.
#[derive(Debug)]
struct Deed {
    process: usize,
    at: Stamp,
    did: Did,
    used: bool,
}

#[derive(Debug, Default)]
struct Seen {
    state: Option<BreakerState>,
    /// When the breaker was seen to open.
    opened_at: Option<Instant>,
    /// Changes when a trial of the breaker may have begun.
    trial: u64,
    /// When a key was last replayed, or deleted, on behalf of this process.
    replayed: BTreeMap<Vec<u8>, Stamp>,
    /// When the last scan of a pattern ended.
    scanned: BTreeMap<Vec<u8>, Stamp>,
    /// When a step of a clear was last refused.
    sweep_refused: Option<Stamp>,
    counts: Counts,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    setup: Setup,
    next: u64,
    ops: Vec<Op>,
    deeds: Vec<Deed>,
    processes: Vec<Seen>,
    /// When a key last lost writes that had been acknowledged.
    rolled_back: BTreeMap<Vec<u8>, Stamp>,
    all_rolled_back: Option<Stamp>,
    pub(crate) violation: Option<Violation>,
    /// How often each rule was looked at.
    pub(crate) checks: BTreeMap<Rule, u64>,
}

impl Oracle {
    pub(crate) fn new(setup: &Setup) -> Self {
        let seen = || Seen { state: Some(BreakerState::Closed), ..Seen::default() };
        Self {
            setup: setup.clone(),
            next: 0,
            ops: Vec::new(),
            deeds: Vec::new(),
            processes: (0..setup.processes).map(|_| seen()).collect(),
            rolled_back: BTreeMap::new(),
            all_rolled_back: None,
            violation: None,
            checks: BTreeMap::new(),
        }
    }

    /// Holds a rule against what was seen.
    pub(crate) fn check(&mut self, rule: Rule, holds: bool, detail: impl FnOnce() -> String) {
        if self.setup.is_byzantine() && !rule.holds_against_liars() {
            return;
        }
        *self.checks.entry(rule).or_default() += 1;
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { rule, detail: detail() });
        }
    }

    pub(crate) fn operations(&self) -> usize {
        self.ops.len()
    }

    // ---- callers ----

    pub(crate) fn begun(&mut self, at: Instant, process: usize, what: What, key: u32, ttl: u32) -> usize {
        let begun = self.stamp();
        let (ended, sent, executed, seen_at, read) = (None, 0, None, None, None);
        self.ops.push(Op {
            process,
            what,
            key,
            ttl,
            begun,
            begun_at: at,
            ended,
            sent,
            executed,
            seen_at,
            read,
        });
        self.ops.len() - 1
    }

    pub(crate) fn cancelled(&mut self, at: Instant, id: usize) {
        self.is_first_end(at, id);
        self.end(at, id, Ended::Cancelled);
    }

    pub(crate) fn cleared(&mut self, at: Instant, id: usize, result: &Result<Cleared, OperationError>) {
        self.is_first_end(at, id);
        let (how, tally) = match result {
            Ok(Cleared { source: Source::Primary, .. }) => (Ended::Primary, None),
            Ok(_) => (Ended::Fallback, Some(Tally::FallbackWrite)),
            Err(_) => (Ended::Error, Some(Tally::Error)),
        };
        self.outage(at, id, result.as_ref().err());
        self.count(id, tally.into_iter());
        self.end(at, id, how);
    }

    pub(crate) fn ended(&mut self, at: Instant, id: usize, result: &Result<Answer, OperationError>) {
        self.is_first_end(at, id);
        self.outage(at, id, result.as_ref().err());
        self.count(id, tallies(result));
        let how = match result {
            Err(_) => Ended::Error,
            Ok(Answer::Value(_, source) | Answer::Stored(source)) => how(source),
            Ok(Answer::Deleted(_, source) | Answer::Exists(_, source)) => how(source),
            Ok(Answer::Reply(_)) => Ended::Primary,
        };
        if let Ok(Answer::Value(Some(value), _)) = result {
            let key = self.ops[id].key;
            let holds = self.set_of(value).is_some_and(|set| self.ops[set].key == key);
            let got = value.escape_ascii();
            self.check(Rule::P2, holds, || format!("{at:?}: operation {id} on key {key} got {got}"));
        }
        if let (Ok(answer), Ended::Primary) = (result, how) {
            self.is_of_redis(at, id, answer);
        }
        if let Ok(Answer::Value(value, _)) = result {
            self.is_fresh(at, id, value.as_deref(), how);
        }
        self.end(at, id, how);
    }

    /// A caller that was not woken yet.
    pub(crate) fn waits(&mut self, now: Instant, id: usize) {
        let op = &self.ops[id];
        if op.what == What::Clear {
            return; // Each of its steps has a deadline.
        }
        let limit = millis(self.setup.operation_timeout + self.setup.timer_lateness);
        let deadline = op.begun_at.saturating_add(limit);
        self.check(Rule::O2, now < deadline, || format!("{now:?}: operation {id} was due at {deadline:?}"));
    }

    // ---- the engine ----

    pub(crate) fn engine_was_driven(&mut self, now: Instant, process: usize, engine: &Engine) {
        let state = engine.breaker().0;
        let seen = &mut self.processes[process];
        let before = seen.state.replace(state);
        let changed = before != Some(state);
        seen.trial += u64::from(changed);
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
        let seen = &self.processes[self.ops[id].process];
        (seen.state == Some(BreakerState::HalfOpen)).then_some(seen.trial)
    }

    /// So many callers wait who began to in the same trial.
    pub(crate) fn in_trial(&mut self, now: Instant, process: usize, out: usize) {
        let holds = out <= self.setup.half_open_permits as usize;
        self.check(Rule::B2, holds, || {
            format!("{now:?}: process {process} has {out} operations in one trial")
        });
    }

    pub(crate) fn silent(&mut self, now: Instant, (process, lane): (usize, usize), since: Instant) {
        let limit = millis(self.setup.stall_timeout + self.setup.timer_lateness);
        let holds = now < since.saturating_add(limit);
        self.check(Rule::C4, holds, || {
            format!("{now:?}: process {process} lane {lane} owes answers and is silent since {since:?}")
        });
    }

    pub(crate) fn timer_was_handled(&mut self, now: Instant, due: Option<Instant>) {
        let holds = due.is_none_or(|due| due > now);
        self.check(Rule::T1, holds, || format!("{now:?}: after handle_timeout it asks for {due:?}"));
    }

    pub(crate) fn in_flight(&mut self, now: Instant, process: usize, operations: usize, bytes: usize) {
        // Two PINGs may be on top: a health check, and a probe.
        const PINGS: usize = 2;
        let setup = &self.setup;
        let most = (setup.max_in_flight as usize + PINGS, setup.max_in_flight_bytes as usize + PINGS * 14);
        let holds = operations <= most.0 && bytes <= most.1;
        self.check(Rule::C7, holds, || {
            format!(
                "{now:?}: process {process} has {operations} in flight with {bytes} bytes; most: {most:?}"
            )
        });
    }

    /// C7 as seen from outside; a liar's answers cannot be counted.
    pub(crate) fn on_wire(&mut self, now: Instant, process: usize, operations: usize, bytes: usize) {
        if !self.setup.is_byzantine() {
            self.in_flight(now, process, operations, bytes);
        }
    }

    pub(crate) fn closed(&mut self, process: usize) {
        self.processes[process].closed = true;
    }

    pub(crate) fn wants_to_write(&mut self, process: usize, bytes: &[u8]) {
        // A breaker that tries again asks first.
        self.processes[process].trial += u64::from(bytes.windows(4).any(|window| window == b"PING"));
        let closed = self.processes[process].closed;
        self.check(Rule::O3, !closed, || format!("process {process} writes although it is closed"));
    }

    pub(crate) fn counts(&mut self, process: usize, counts: &Counts) {
        let mut expected = self.processes[process].counts;
        expected.unserved = counts.unserved; // Callers do not see all of these.
        let holds = expected == *counts;
        self.check(Rule::M1, holds, || format!("process {process}: {counts:?}, callers saw {expected:?}"));
    }

    // ---- the server ----

    pub(crate) fn did(&mut self, now: Instant, process: usize, did: Did) {
        let at = self.stamp();
        let is_in_order = !matches!(did, Did::TooEarly | Did::NotACommand);
        self.check(Rule::P5, is_in_order, || format!("{now:?}: process {process}: {did}"));
        match &did {
            Did::SetArrived { value } => {
                let attempts = self.setup.attempts;
                if let Some(op) = self.set_of(value).map(|id| &mut self.ops[id]) {
                    op.sent += 1;
                    let sent = op.sent;
                    self.check(Rule::O5, sent <= attempts, || format!("{now:?}: {sent} times"));
                }
                return;
            }
            Did::TooEarly | Did::NotACommand => return,
            Did::Unlink { keys } => {
                let of_a = keys.iter().all(|key| key.starts_with(b"a:"));
                let of_b = keys.iter().all(|key| key.starts_with(b"b:"));
                let holds = of_a || (of_b && self.may_clear_b(process));
                return self.check(Rule::F5, holds, || format!("{now:?}: process {process}: {did}"));
            }
            Did::Scanned { pattern } => {
                self.processes[process].scanned.insert(pattern.clone(), at);
                return;
            }
            Did::SweepRefused => {
                self.processes[process].sweep_refused = Some(at);
                return;
            }
            Did::Replayed { key, .. } | Did::Delete { key, .. } => {
                self.processes[process].replayed.insert(key.clone(), at);
            }
            _ => {}
        }
        match &did {
            Did::Set { value, .. } | Did::Replayed { value: Some(value), .. } => {
                if let Some(id) = self.set_of(value) {
                    self.ops[id].executed = Some(at);
                    self.ops[id].seen_at = Some(now);
                }
            }
            Did::Get { value: Some(value), .. } => {
                if let Some(id) = self.set_of(value) {
                    self.ops[id].seen_at = Some(now);
                    self.ops[id].read = Some(at);
                }
            }
            _ => {}
        }
        self.deeds.push(Deed { process, at, did, used: false });
    }

    /// These keys have lost writes; `None` is all.
    pub(crate) fn rolled_back(&mut self, keys: Option<Vec<Vec<u8>>>) {
        let at = self.stamp();
        match keys {
            Some(keys) => self.rolled_back.extend(keys.into_iter().map(|key| (key, at))),
            None => self.all_rolled_back = Some(at),
        }
    }

    // ---- the rules ----

    /// O1, looked at first: what else a second end breaks says less.
    fn is_first_end(&mut self, at: Instant, id: usize) {
        let before = self.ops[id].ended;
        self.check(Rule::O1, before.is_none(), || {
            format!("{at:?}: operation {id} has ended before: {before:?}")
        });
    }

    fn end(&mut self, at: Instant, id: usize, how: Ended) {
        let stamp = self.stamp();
        self.ops[id].ended = Some((stamp, at, how));
    }

    /// Nobody clears namespace `b`, but where there is no room for one more delete, it is cleared.
    fn may_clear_b(&self, process: usize) -> bool {
        let has_deleted = |op: &Op| {
            op.process == process
                && op.what == What::Delete
                && op.key % 2 == 1
                && op.ended.is_none_or(|(.., how)| how == Ended::Fallback)
        };
        self.setup.is_tier_small() && self.ops.iter().any(has_deleted)
    }

    fn outage(&mut self, at: Instant, id: usize, error: Option<&OperationError>) {
        // Or the server will not clear, now or later.
        let refused = self.ops[id].what == What::Clear && matches!(error, Some(OperationError::Server(_)));
        let excused = refused || matches!(error, Some(OperationError::FallbackFull(_)));
        let outage = error.is_some_and(OperationError::is_outage) && !excused;
        let holds = self.setup.tier == 0 || !outage;
        self.check(Rule::A1, holds, || format!("{at:?}: operation {id}: {error:?}"));
    }

    fn count(&mut self, id: usize, tallies: impl Iterator<Item = Tally>) {
        let counts = &mut self.processes[self.ops[id].process].counts;
        counts.add(Tally::Operation);
        tallies.for_each(|tally| counts.add(tally));
    }

    /// P1: Redis gave this answer to a command of this process for this key, between its begin and now, and no other
    /// answer has come of that. The earliest will do: who began later can only use a later one.
    fn is_of_redis(&mut self, at: Instant, id: usize, answer: &Answer) {
        let op = &self.ops[id];
        let (name, own) = (key_name(op.key), value_of(id, op.key));
        let matches = |did: &Did| match (answer, did) {
            (Answer::Value(got, _), Did::Get { key, value }) => {
                *key == name && value.as_deref() == got.as_deref()
            }
            (Answer::Stored(_), Did::Set { key, value }) => *key == name && *value == own,
            (Answer::Deleted(deleted, _), Did::Delete { key, existed }) => *key == name && existed == deleted,
            (Answer::Exists(exists, _), Did::Exists { key, found }) => *key == name && found == exists,
            _ => false,
        };
        let (process, begun) = (op.process, op.begun);
        let first = self.deeds.partition_point(|deed| deed.at < begun);
        let deed = self.deeds[first..]
            .iter_mut()
            .find(|deed| !deed.used && deed.process == process && matches(&deed.did));
        let holds = deed.is_some_and(|deed| !std::mem::replace(&mut deed.used, true));
        self.check(Rule::P1, holds, || format!("{at:?}: operation {id} got {answer:?}"));
    }

    /// The rules for a value, or none, whoever had it.
    fn is_fresh(&mut self, now: Instant, id: usize, value: Option<&[u8]>, from: Ended) {
        let (process, key, begun) = (self.ops[id].process, self.ops[id].key, self.ops[id].begun);
        let source = value.and_then(|value| self.set_of(value));
        let copy = source.filter(|_| from == Ended::Fallback);
        if let Some(source) = copy {
            self.is_young(now, id, source);
        }
        let accepted: Vec<usize> = (0..self.ops.len())
            .filter(|&write| {
                let op = &self.ops[write];
                op.is_write() && op.process == process && op.key == key
            })
            .filter(|&write| self.ops[write].accepted().is_some_and(|(at, ..)| at < begun))
            .collect();
        for &write in &accepted {
            self.is_not_overwritten(now, id, source, write);
        }
        if let Some(source) = copy {
            self.is_not_given_up(now, id, source);
        }
        if let Some(source) = source {
            self.is_not_cleared(now, id, source);
        }
        let kept = |&&write: &&usize| self.ops[write].accepted_here();
        if let Some(&last) = accepted.iter().max_by_key(kept) {
            self.is_kept(now, id, source, last);
        }
    }

    /// F1: `source` made the value that `read` got, and `write` was accepted before that began.
    fn is_not_overwritten(&mut self, now: Instant, read: usize, source: Option<usize>, write: usize) {
        let Some(source) = source.filter(|&source| source != write) else { return };
        let (process, write_begun) = (self.ops[write].process, self.ops[write].begun);
        if self.is_excused(write) || self.is_promise_void(write) {
            return;
        }
        let source_op = &self.ops[source];
        let here = source_op.accepted_here().filter(|_| source_op.process == process);
        let made = source_op.executed.max(here);
        let holds = made.is_none_or(|made| made > write_begun);
        self.check(Rule::F1, holds, || {
            format!("{now:?}: operation {read} got the value of {source}, which {write} had replaced")
        });
    }

    /// F2: as F1, for a SET that nobody waited for to the end, and that was executed before the read began. But before
    /// it was, Redis may have answered a read with the old value.
    fn is_not_given_up(&mut self, now: Instant, read: usize, source: usize) {
        let (process, begun) = (self.ops[read].process, self.ops[read].begun);
        let old = &self.ops[source];
        if old.process == process && old.accepted_here().is_some() {
            return; // What the fallback tier has accepted is kept until Redis is back.
        }
        let (key, made, last_read) = (old.key, old.executed, old.read);
        let given_up = |(id, op): &(usize, &Op)| {
            let Some((ended, _, Ended::Cancelled | Ended::Error)) = op.ended else { return false };
            let took_place = op.executed.is_some_and(|at| at < begun) && ended < begun;
            let same = op.what == What::Set && op.process == process && op.key == key && *id != source;
            same && took_place && last_read.is_none_or(|at| at < ended)
        };
        let writes: Vec<usize> =
            self.ops.iter().enumerate().filter(given_up).map(|(write, _)| write).collect();
        for write in writes {
            let write_begun = self.ops[write].begun;
            let holds = self.is_excused(write) || made.is_none_or(|made| made > write_begun);
            self.check(Rule::F2, holds, || {
                format!("{now:?}: operation {read} got the value of {source}, which {write} had replaced")
            });
        }
    }

    /// F6: `source` made the value that `read` got; no clear that was over before that began has begun since.
    fn is_not_cleared(&mut self, now: Instant, read: usize, source: usize) {
        let (process, key, begun) = (self.ops[read].process, self.ops[read].key, self.ops[read].begun);
        if key % 2 == 1 {
            return;
        }
        let here = self.ops[source].accepted_here().filter(|_| self.ops[source].process == process);
        let made = self.ops[source].executed.max(here);
        let is_over = |&op: &usize| {
            let op = &self.ops[op];
            let over = op.accepted().is_some_and(|(at, ..)| at < begun);
            op.what == What::Clear && op.process == process && over
        };
        let clears: Vec<usize> = (0..self.ops.len()).filter(is_over).collect();
        for clear in clears {
            let excused = self.is_excused(clear) || self.is_promise_void(clear);
            let holds = excused || made.is_none_or(|made| made > self.ops[clear].begun);
            self.check(Rule::F6, holds, || {
                format!("{now:?}: operation {read} got the value of {source}, which {clear} had cleared")
            });
        }
    }

    /// Whether the fallback tier has promised a clear, or a delete that became one for want of room, and the server refused
    /// to carry it out.
    fn is_promise_void(&self, write: usize) -> bool {
        let op = &self.ops[write];
        let clears = match op.what {
            What::Clear => true,
            What::Delete => self.setup.is_tier_small(),
            _ => false,
        };
        let accepted = op.accepted_here();
        clears && accepted.is_some() && self.processes[op.process].sweep_refused > accepted
    }

    /// Whether Redis itself may have forgotten about a write.
    fn is_excused(&self, write: usize) -> bool {
        let op = &self.ops[write];
        let of_key = match op.what {
            What::Clear => self.rolled_back.values().max(),
            _ => self.rolled_back.get(&key_name(op.key)),
        };
        let rolled_back = of_key.copied().max(self.all_rolled_back);
        rolled_back.is_some_and(|at| at > op.begun)
    }

    /// F3: `write` is the latest that the fallback tier accepted before `read` began. Until it is replayed, it is what is
    /// read.
    fn is_kept(&mut self, now: Instant, read: usize, source: Option<usize>, write: usize) {
        let op = &self.ops[write];
        let Some((accepted, accepted_at, Ended::Fallback)) = op.ended else { return };
        let (process, begun) = (op.process, op.begun);
        let age = now.saturating_since(accepted_at) + self.setup.clock_error();
        let is_expired = op.ttl > 0 && age >= millis(op.ttl);
        let disturbs = |other: &Op| {
            let clears = other.what == What::Clear && other.ended.is_none_or(|(ended, ..)| ended > begun);
            let replaces = other.is_write() && other.key == op.key && other.accepted_here() > Some(accepted);
            other.process == process && (clears || replaces)
        };
        let (name, seen) = (key_name(op.key), &self.processes[process]);
        let pattern = [&name[..NAMESPACE_LEN], b"*"].concat();
        // A delete may have become a clear, and that may have found nothing.
        let swept = seen.scanned.get(&pattern).filter(|_| op.what == What::Delete);
        let replayed = seen.replayed.get(&name).max(swept).copied();
        if is_expired
            || replayed > Some(accepted)
            || self.is_promise_void(write)
            || self.ops.iter().any(disturbs)
        {
            return;
        }
        let expected = (op.what == What::Set).then_some(write);
        self.check(Rule::F3, source == expected, || {
            format!(
                "{now:?}: operation {read} got the value of {source:?}, not of {expected:?}, accepted before"
            )
        });
    }

    /// F4: the value of `source` is a write of this process, or Redis had it not too long ago.
    fn is_young(&mut self, now: Instant, read: usize, source: usize) {
        let (process, op) = (self.ops[read].process, &self.ops[source]);
        let here = op.process == process && op.accepted_here().is_some();
        let Some(seen_at) = op.seen_at.filter(|_| !here) else { return };
        // A reply may have been on its way for as long as an operation.
        let setup = &self.setup;
        let late = setup.operation_timeout + setup.timer_lateness;
        let age = now.saturating_since(seen_at);
        let holds = age <= millis(setup.max_staleness + late) + setup.clock_error();
        self.check(Rule::F4, holds, || {
            format!("{now:?}: operation {read} got a value that Redis last had {age:?} ago")
        });
    }

    /// The operation that made a value.
    fn set_of(&self, value: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(value).ok()?;
        let (id, rest) = text.strip_prefix('v')?.split_once(".k")?;
        let (id, key): (usize, u32) = (id.parse().ok()?, rest.split_once('.')?.0.parse().ok()?);
        let op = self.ops.get(id)?;
        (op.what == What::Set && op.key == key).then_some(id)
    }

    fn stamp(&mut self) -> Stamp {
        self.next += 1;
        Stamp(self.next)
    }
}

const fn how(source: &Source) -> Ended {
    match source {
        Source::Primary => Ended::Primary,
        Source::Fallback { .. } => Ended::Fallback,
    }
}

/// What the counters must say of an answer, besides that there was one.
fn tallies(result: &Result<Answer, OperationError>) -> impl Iterator<Item = Tally> + use<> {
    use Tally::{Delete, Error, FallbackHit, FallbackMiss, FallbackWrite, Hit, Miss, Set};
    let tallies: &[Tally] = match result {
        Ok(Answer::Value(value, source)) => match (value.is_some(), how(source)) {
            (true, Ended::Fallback) => &[Hit, FallbackHit],
            (false, Ended::Fallback) => &[Miss, FallbackMiss],
            (true, _) => &[Hit],
            (false, _) => &[Miss],
        },
        Ok(Answer::Stored(Source::Primary)) => &[Set],
        Ok(Answer::Deleted(_, Source::Primary)) => &[Delete],
        Ok(Answer::Stored(_) | Answer::Deleted(..)) => &[FallbackWrite],
        Ok(Answer::Exists(..) | Answer::Reply(_)) => &[],
        Err(_) => &[Error],
    };
    tallies.iter().copied()
}
