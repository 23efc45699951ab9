//! Attempts of operations: how one begins, what its end means, and whether there is another.

use core::cmp::Reverse;
use core::time::Duration;

use super::{Lane, is_delayed, signal_verdict};
use crate::link::{Cause, DialError, Ended, TICK};
use crate::machine::outcome::{Failure, Outcome, Signal};
use crate::machine::slots::{OpId, State};
use crate::policy::{Executed, FailedAttempt, Verdict};
use crate::resp::{Command, ErrorClass, Reply};

impl Lane {
    /// Begins an attempt with the command of an operation.
    pub(super) fn send(&mut self, id: OpId, command: &Command<'_>) {
        let Some(ticket) = self.slots.ticket(id, self.now) else { return };
        if self.link.accepts() {
            self.news = true;
            let staged = self.link.stage(command, ticket);
            self.slots.put(id, State::InFlight { staged });
        } else {
            let cause = if self.link.is_closing() { Cause::Closed } else { Cause::Unreachable };
            self.conclude(id, Ended::NotSent(cause));
        }
    }

    /// What the end of an attempt means to its operation: over, or to be tried again.
    pub(super) fn conclude(&mut self, id: OpId, ended: Ended) {
        let Some(op) = self.slots.get_mut(id).map(|slot| &mut slot.op) else { return };
        let executed_now = executed(matches!(ended, Ended::Unknown(_)));
        op.maybe_executed |= executed_now == Executed::Unknown;
        let (permit, maybe_executed) = (op.permit, op.maybe_executed);
        let answered_after = op.since(self.ready_at, self.now);
        let (outcome, verdict, took, retry) = match ended {
            Ended::Reply(reply) => {
                let (verdict, retry) = self.judge(id, &reply);
                (Outcome::Reply(reply), verdict, answered_after, retry)
            }
            Ended::NotSent(cause) | Ended::Unknown(cause) => {
                let failure = Failure { cause, executed: executed(maybe_executed) };
                let again = cause != Cause::Closed && !self.is_refused();
                // A lost connection is one failure, and not a slow call for each operation on it.
                (Outcome::Failed(failure), Verdict::Abandoned, Duration::ZERO, again)
            }
        };
        if retry && self.retry(id, executed_now) {
            return;
        }
        signal_verdict(&mut self.signals, permit, verdict, took);
        self.finish(id, outcome);
    }

    fn finish(&mut self, id: OpId, outcome: Outcome) {
        if matches!(outcome, Outcome::Failed(Failure { cause: Cause::Closed, .. })) {
            self.stats.aborted += 1;
        }
        self.wakers.extend(self.slots.advance(id, State::Done(outcome, self.now)));
    }

    /// Whether the latest dial ended with a refusal that only another configuration cures.
    fn is_refused(&self) -> bool {
        matches!(&self.last_error, Some(DialError::Handshake(error)) if error.is_configuration())
    }

    /// What an error reply says about the server, and whether the command may be tried again.
    fn judge(&mut self, id: OpId, reply: &Reply) -> (Verdict, bool) {
        let Reply::Error(error) = reply else { return (Verdict::Success, false) };
        match error.class() {
            ErrorClass::Transient => {
                self.budget.record_failure();
                (Verdict::Failure, true)
            }
            ErrorClass::Topology if error.code() == b"READONLY" => {
                // The server was demoted: what the address leads to now is found by dialling it again, once.
                self.link.retire(self.now, &mut |_, _| {});
                let first = self.slots.get(id).is_some_and(|slot| slot.op.attempts < 2);
                (Verdict::Failure, first)
            }
            // The server is well; it only has not got this key.
            ErrorClass::Topology => (Verdict::Abandoned, false),
            ErrorClass::Auth | ErrorClass::Unsupported => {
                if self.slots.get(id).is_some_and(|slot| slot.op.may_be_denied) && error.code() != b"NOAUTH" {
                    // What callers ask for may be allowed all the same: the server has answered, and is well.
                    return (Verdict::Success, false);
                }
                if error.code() == b"NOAUTH" {
                    // A password was set since we came: only who dials again is asked for it.
                    self.link.retire(self.now, &mut |_, _| {});
                }
                self.signals.push(Signal::Trip);
                (Verdict::Abandoned, false)
            }
            ErrorClass::Capacity => {
                self.budget.record_success();
                (Verdict::Abandoned, false)
            }
            ErrorClass::Caller => {
                self.budget.record_success();
                (Verdict::Success, false)
            }
        }
    }

    /// Puts an operation off until its next attempt is due, if it may have one.
    fn retry(&mut self, id: OpId, executed: Executed) -> bool {
        let config = self.link.config();
        if !self.link.accepts() && (config.fail_fast || self.link.is_closing()) {
            return false; // Somebody else can answer at once.
        }
        let policy = config.retry;
        let Some(slot) = self.slots.get_mut(id) else { return false };
        let failed = FailedAttempt {
            made: slot.op.attempts,
            executed,
            idempotent: slot.op.idempotent,
            previous: slot.op.delay,
            deadline: slot.op.deadline,
        };
        let Some(until) = policy.next(self.now, &failed, &self.budget, &mut self.rng) else { return false };
        let until = until.max(self.now.saturating_add(TICK));
        slot.op.delay = until.saturating_since(self.now);
        self.stats.retries += 1;
        self.news = true; // The timer may have to be set earlier.
        self.slots.put(id, State::Delayed { until });
        if self.delayed.len() > 2 * self.slots.live() + 64 {
            let slots = &self.slots;
            self.delayed.retain(|Reverse((until, id))| is_delayed(slots, *id, *until));
        }
        self.delayed.push(Reverse((until, id)));
        true
    }

    pub(super) fn time_out(&mut self, id: OpId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let cause = match *slot.state() {
            State::Waiting => Cause::Overloaded,
            State::Again if slot.op.attempts == 0 => Cause::Overloaded, // Asked too late.
            _ => Cause::TimedOut,
        };
        let mut took = Duration::ZERO;
        if matches!(*slot.state(), State::InFlight { staged } if !self.link.is_staged(staged)) {
            slot.op.maybe_executed = true;
            took = slot.op.since(self.ready_at, self.now);
            self.count_timeout();
            self.link.doubt();
        }
        self.stats.timeouts += 1;
        self.fail(id, cause, took);
    }

    /// However many operations time out, a silent server is one failure per stall timeout.
    fn count_timeout(&mut self) {
        if self.timeouts_counted_until.is_none_or(|until| until <= self.now) {
            let stall_timeout = self.link.config().stall_timeout;
            self.timeouts_counted_until = Some(self.now.saturating_add(stall_timeout));
            self.budget.record_failure();
            self.signals.push(Signal::Failure);
        }
    }

    /// Ends an operation for a reason of our own.
    pub(super) fn fail(&mut self, id: OpId, cause: Cause, took: Duration) {
        self.leave(id, took);
        let maybe_executed = self.slots.get(id).is_some_and(|slot| slot.op.maybe_executed);
        let failure = Failure { cause, executed: executed(maybe_executed) };
        self.finish(id, Outcome::Failed(failure));
    }
}

const fn executed(maybe: bool) -> Executed {
    if maybe { Executed::Unknown } else { Executed::No }
}
