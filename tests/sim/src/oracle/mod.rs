//! What must hold, held against what callers saw and what the server did.
//!
//! Virtual time is coarse: much happens at one instant. So everything that is observed gets a number, and *before* and
//! *after* are said of those.

mod fresh;
mod trial;

use trial::Trial;

use std::collections::BTreeMap;

use larder_engine::Instant;
use larder_engine::machine::{Answer, Cleared, OperationError, Source, Tally};
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
    executed_at: Instant,
    /// When Redis was last seen to have its value.
    seen_at: Option<Instant>,
    /// When Redis last answered a read with it, and which processes' reads it has, as bits.
    read: Option<Stamp>,
    read_by: u32,
    /// When a replay last asked Redis to take it, whatever became of that.
    brought: Option<Stamp>,
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
    /// The connection, and where the reply ends in what comes over it.
    reply: (usize, u64),
    used: bool,
}

#[derive(Debug, Default)]
struct Seen {
    state: Option<BreakerState>,
    /// When the breaker was seen to open.
    opened_at: Option<Instant>,
    trial: Trial,
    /// When a key was last deleted for this process, by a replay or by itself.
    deleted: BTreeMap<Vec<u8>, Stamp>,
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
    /// How much came over each connection to an engine.
    received: Vec<u64>,
    processes: Vec<Seen>,
    /// When a key last lost writes that had been acknowledged.
    rolled_back: BTreeMap<Vec<u8>, Stamp>,
    all_rolled_back: Option<Stamp>,
    pub(crate) violation: Option<Violation>,
    /// How often each rule was looked at, in the order of them all.
    checks: [u64; Rule::ALL.len()],
}

impl Oracle {
    pub(crate) fn new(setup: &Setup) -> Self {
        let seen = || Seen { state: Some(BreakerState::Closed), ..Seen::default() };
        Self {
            setup: setup.clone(),
            next: 0,
            ops: Vec::new(),
            deeds: Vec::new(),
            received: Vec::new(),
            processes: (0..setup.processes).map(|_| seen()).collect(),
            rolled_back: BTreeMap::new(),
            all_rolled_back: None,
            violation: None,
            checks: [0; Rule::ALL.len()],
        }
    }

    /// Holds a rule against what was seen.
    pub(crate) fn check(&mut self, rule: Rule, holds: bool, detail: impl FnOnce() -> String) {
        if self.setup.is_byzantine() && !rule.holds_against_liars() {
            return;
        }
        self.checks[rule as usize] += 1;
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { rule, detail: detail() });
        }
    }

    /// How often each rule was looked at, of those that were.
    pub(crate) fn checks(&self) -> BTreeMap<Rule, u64> {
        Rule::ALL.iter().copied().zip(self.checks).filter(|(_, checks)| *checks > 0).collect()
    }

    pub(crate) fn operations(&self) -> usize {
        self.ops.len()
    }

    // ---- callers ----

    pub(crate) fn begun(&mut self, at: Instant, process: usize, what: What, key: u32, ttl: u32) -> usize {
        if what == What::Clear {
            self.processes[process].trial.is_shared();
        }
        let begun = self.stamp();
        self.ops.push(Op {
            process,
            what,
            key,
            ttl,
            begun,
            begun_at: at,
            ended: None,
            sent: 0,
            executed: None,
            executed_at: at,
            seen_at: None,
            read: None,
            read_by: 0,
            brought: None,
        });
        self.ops.len() - 1
    }

    /// One that was cancelled, in this trial of the breaker.
    pub(crate) fn cancelled(&mut self, at: Instant, id: usize, trial: Option<u64>) {
        self.is_first_end(at, id);
        self.processes[self.ops[id].process].trial.cancelled(trial);
        self.end(at, id, Ended::Cancelled);
    }

    pub(crate) fn cleared(&mut self, at: Instant, id: usize, result: &Result<Cleared, OperationError>) {
        self.is_first_end(at, id);
        let (how, tally) = match result {
            Ok(Cleared { source: Source::Primary, .. }) => (Ended::Primary, None),
            Ok(_) => (Ended::Fallback, Some(Tally::FallbackWrite)),
            Err(_) => (Ended::Error, Some(Tally::Error)),
        };
        self.processes[self.ops[id].process].trial.is_shared();
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
        // Three PINGs may be on top: a health check, a probe, and whether the replies are in step.
        const PINGS: usize = 3;
        let setup = &self.setup;
        let most = (setup.max_in_flight as usize + PINGS, setup.max_in_flight_bytes as usize + PINGS * 14);
        let holds = operations <= most.0 && bytes <= most.1;
        self.check(Rule::C7, holds, || {
            format!(
                "{now:?}: process {process} has {operations} in flight with {bytes} bytes; most: {most:?}"
            )
        });
    }

    /// So many operations of a lane wait, and so many were called and have not come yet, where so much is in flight.
    pub(crate) fn turns(
        &mut self,
        (now, process, lane): (Instant, usize, usize),
        in_flight: Option<(usize, usize)>,
        waiting: usize,
        called: usize,
    ) {
        // More than the longest command of a run.
        const LONGEST: usize = 128;
        let Some((operations, bytes)) = in_flight else { return };
        if waiting <= operations {
            return; // All of them may be in flight.
        }
        let setup = &self.setup;
        let has_room = operations + called < setup.max_in_flight as usize
            && bytes + (called + 1) * LONGEST <= setup.max_in_flight_bytes as usize;
        self.check(Rule::C8, !has_room, || {
            format!("{now:?}: process {process} lane {lane}: {waiting} wait with {operations} in flight, {called} called")
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
        if bytes.windows(4).any(|window| window == b"PING") {
            self.processes[process].trial.pinged();
        }
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

    pub(crate) fn did(&mut self, now: Instant, (process, conn): (usize, usize), did: Did, reply_end: u64) {
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
            Did::Replayed { brought: Some(brought), value, over, .. } => {
                if let Some(id) = self.set_of(brought) {
                    self.ops[id].brought = Some(at);
                }
                self.leaves_alone(now, process, value.as_deref(), over.as_deref());
            }
            Did::Replayed { key, .. } | Did::Delete { key, .. } => {
                self.processes[process].deleted.insert(key.clone(), at);
            }
            _ => {}
        }
        match &did {
            Did::Set { value, .. } | Did::Replayed { value: Some(value), .. } => {
                if let Some(id) = self.set_of(value) {
                    self.ops[id].executed = Some(at);
                    self.ops[id].executed_at = now;
                    self.ops[id].seen_at = Some(now);
                }
            }
            Did::Get { value: Some(value), .. } => {
                if let Some(id) = self.set_of(value) {
                    self.ops[id].seen_at = Some(now);
                    self.ops[id].read = Some(at);
                    self.ops[id].read_by |= 1 << process;
                }
            }
            _ => {}
        }
        self.deeds.push(Deed { process, at, did, reply: (conn, reply_end), used: false });
    }

    /// An engine was given so many bytes of what comes over a connection, and it is the one of a lane still.
    pub(crate) fn received(&mut self, conn: usize, bytes: u64) {
        if self.received.len() <= conn {
            self.received.resize(conn + 1, 0);
        }
        self.received[conn] = bytes;
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
        let fits = |deed: &Deed| !deed.used && deed.process == process && matches(&deed.did);
        let came = |deed: &Deed| {
            let (conn, end) = deed.reply;
            self.received.get(conn).is_some_and(|received| *received >= end)
        };
        let deeds = &self.deeds[first..];
        let whole = deeds.iter().position(|deed| fits(deed) && came(deed));
        let deed = whole.or_else(|| deeds.iter().position(fits));
        self.check(Rule::P1, deed.is_some(), || format!("{at:?}: operation {id} got {answer:?}"));
        self.check(Rule::P4, whole.is_some(), || {
            format!(
                "{at:?}: operation {id} got {answer:?}, which has not come over the connection of its command"
            )
        });
        if let Some(deed) = deed {
            self.deeds[first + deed].used = true;
        }
    }

    /// F8: a replay puts a value over its own, over one of this process, or over one that it has read, and over no other.
    fn leaves_alone(&mut self, now: Instant, process: usize, value: Option<&[u8]>, over: Option<&[u8]>) {
        let (Some(value), Some(over)) = (value, over) else { return };
        let knows = |op: &Op| op.process == process || op.read_by & 1 << process != 0;
        let holds = value == over || self.set_of(over).is_some_and(|id| knows(&self.ops[id]));
        self.check(Rule::F8, holds, || {
            format!("{now:?}: a replay of process {process} replaced {}", over.escape_ascii())
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
