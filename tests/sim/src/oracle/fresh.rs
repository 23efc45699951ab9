//! The rules for what a read may be answered with, whoever answers it: F1 to F7, and S2.

use larder_engine::Instant;

use super::{Ended, NAMESPACE_LEN, Op, Oracle, key_name};
use crate::event::What;
use crate::rule::Rule;
use crate::setup::millis;

impl Oracle {
    /// The rules for a value, or none, whoever had it.
    pub(super) fn is_fresh(&mut self, now: Instant, id: usize, value: Option<&[u8]>, from: Ended) {
        let (process, key, begun) = (self.ops[id].process, self.ops[id].key, self.ops[id].begun);
        let source = value.and_then(|value| self.set_of(value));
        let copy = source.filter(|_| from == Ended::Fallback);
        if let Some(source) = copy {
            self.is_young(now, id, source);
            self.is_alive(now, id, source);
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
        let is_own = source_op.process == process && !self.is_at_large(source);
        let was_over = is_own && source_op.ended.is_some_and(|(ended, ..)| ended < write_begun);
        let holds = made.is_none_or(|made| made > write_begun);
        self.check(Rule::F1, holds, || {
            format!("{now:?}: operation {read} got the value of {source}, which {write} had replaced")
        });
        self.check(Rule::F7, !was_over, || {
            format!(
                "{now:?}: operation {read} got the value of {source}, which had ended before {write} began"
            )
        });
    }

    /// Whether a SET may come back where connections cannot be ended: it was executed so late that the fallback tier, which
    /// answers for its key meanwhile, has to give up waiting for it; or there is none.
    fn is_at_large(&self, source: usize) -> bool {
        let (op, setup) = (&self.ops[source], &self.setup);
        if setup.old_server > 0 && setup.tier == 0 {
            return true;
        }
        // A clock that is behind and catches up makes the wait shorter.
        let waits = millis(setup.stall_timeout).saturating_sub(setup.clock_error());
        let waited = |at: Instant| at.saturating_add(waits);
        setup.old_server > 0 && op.ended.is_some_and(|(_, at, _)| op.executed_at > waited(at))
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
        let replayed = op.brought.max(seen.deleted.get(&name).max(swept).copied());
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

    /// S2: a copy of what this process set itself. One that came by a read does not know how long the value lives.
    fn is_alive(&mut self, now: Instant, read: usize, source: usize) {
        let (process, op) = (self.ops[read].process, &self.ops[source]);
        let is_own = op.process == process && op.ttl > 0 && op.read_by & 1 << process == 0;
        let Some((_, set_at, _)) = op.accepted().filter(|_| is_own) else { return };
        let (age, ttl) = (now.saturating_since(set_at), millis(op.ttl));
        self.check(Rule::S2, age < ttl + self.setup.clock_error(), || {
            format!("{now:?}: operation {read} got the value of {source}, set {age:?} ago for {ttl:?}")
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
}
