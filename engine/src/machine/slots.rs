//! The operations of a lane: a slab of reusable slots, so that an operation allocates nothing.
//!
//! ```text
//!              room           staged             reply, or the last failure
//!  Waiting ----------> Again --------> InFlight ----------------------------> Done
//!     ^                  ^                | failed, to be tried again           |
//!     | no room          | due, room      v                                     | taken
//!   (new)                +------------- Delayed                               (free)
//! ```
//!
//! A delayed operation that is due and finds no room goes to `Waiting`. From any state an operation can be
//! cancelled (to free) or run out of time (to `Done`).
//!
//! Slots whose operation is not done are linked in the order of their deadlines. All operations of a cache have
//! the same time to live, so that a new one goes to the end in one step, and the next deadline is the front.

use alloc::vec::Vec;
use core::task::Waker;
use core::time::Duration;

use super::outcome::Outcome;
use crate::archive::{Archive, Archived};
use crate::link::TICK;
use crate::policy::Permit;
use crate::resp::Command;
use crate::time::Instant;

/// An operation that was submitted to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    index: u32,
    generation: u32,
}

impl OpId {
    /// For a recording: what makes it up.
    pub(crate) const fn into_parts(self) -> (u32, u32) {
        (self.index, self.generation)
    }

    pub(crate) const fn from_parts((index, generation): (u32, u32)) -> Self {
        Self { index, generation }
    }
}

/// One attempt of one operation, as the link knows it. An attempt that is over leaves its ticket behind in
/// the order of replies; it matches no slot any more, so its reply is given to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    index: u32,
    attempt: u32,
}

#[derive(Debug)]
pub(crate) struct Slot {
    generation: u32,
    /// Counts the attempts of all operations that ever had this slot.
    attempt: u32,
    state: State,
    pub(crate) op: Op,
    waker: Option<Waker>,
    /// Neighbours in the order of deadlines; [`NONE`] at the ends, and for an operation that is done.
    earlier: u32,
    later: u32,
}

/// What the lane must know about an operation besides where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    /// Whether it may be sent again when nobody knows whether it was executed.
    pub(crate) idempotent: bool,
    /// Whether a server that refuses it may be well otherwise.
    pub(crate) may_be_denied: bool,
    pub(crate) permit: Permit,
    pub(crate) deadline: Instant,
    /// The size of its command on the wire.
    pub(crate) len: usize,
    /// Attempts already begun, and when the latest was.
    pub(crate) attempts: u32,
    pub(crate) begun: Instant,
    /// The delay before the latest attempt.
    pub(crate) delay: Duration,
    /// Whether any attempt was sent and not answered.
    pub(crate) maybe_executed: bool,
}

impl Op {
    pub(crate) const fn new(command: &Command<'_>, permit: Permit, deadline: Instant, len: usize) -> Self {
        Self {
            idempotent: command.is_idempotent(),
            may_be_denied: command.may_be_denied(),
            permit,
            deadline,
            len,
            attempts: 0,
            begun: Instant::EPOCH,
            delay: Duration::ZERO,
            maybe_executed: false,
        }
    }

    /// How long the server has had for the latest attempt, over a connection that serves since `ready_at`.
    pub(crate) fn since(&self, ready_at: Instant, now: Instant) -> Duration {
        now.saturating_since(self.begun.max(ready_at))
    }
}

#[derive(Debug)]
pub(crate) enum State {
    Free {
        next: u32,
    },
    /// For room.
    Waiting,
    /// The caller is asked to hand its command in (again); the room is kept for it.
    Again,
    /// On the link; the ticket of its stage tells whether it has been handed over.
    InFlight {
        staged: u64,
    },
    /// To be tried again then.
    Delayed {
        until: Instant,
    },
    /// And when that was.
    Done(Outcome, Instant),
}

const NONE: u32 = u32::MAX;

/// Grows to its high-water mark and stays there.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: u32,
    live: usize,
    /// The ends of the list of deadlines.
    first: u32,
    last: u32,
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, live: 0, first: NONE, last: NONE }
    }

    /// Operations not yet taken or cancelled.
    pub(crate) const fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn insert(&mut self, op: Op, state: State) -> OpId {
        self.live += 1;
        let index = self.free;
        let id = if let Some(slot) = self.slots.get_mut(index as usize) {
            if let State::Free { next } = slot.state {
                self.free = next;
            }
            slot.op = op;
            slot.state = state;
            OpId { index, generation: slot.generation }
        } else {
            // Fewer than 2^32 slots: the lane's bounds refuse an operation long before.
            let index = self.slots.len() as u32;
            let slot = Slot { generation: 0, attempt: 0, state, op, waker: None, earlier: NONE, later: NONE };
            self.slots.push(slot);
            OpId { index, generation: 0 }
        };
        self.link(id.index);
        id
    }

    pub(crate) fn get(&self, id: OpId) -> Option<&Slot> {
        self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: OpId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)
    }

    /// Begins an attempt.
    pub(crate) fn ticket(&mut self, id: OpId, now: Instant) -> Option<Ticket> {
        let slot = self.get_mut(id)?;
        slot.attempt = slot.attempt.wrapping_add(1);
        slot.op.attempts = slot.op.attempts.saturating_add(1);
        slot.op.begun = now;
        Some(Ticket { index: id.index, attempt: slot.attempt })
    }

    /// The operation whose current attempt this is.
    pub(crate) fn redeem(&self, ticket: Ticket) -> Option<OpId> {
        let slot = self.slots.get(ticket.index as usize)?;
        let is_its = slot.attempt == ticket.attempt || mistake!(AnyAttempt);
        let current = is_its && matches!(slot.state, State::InFlight { .. });
        current.then_some(OpId { index: ticket.index, generation: slot.generation })
    }

    /// Moves an operation to where its caller has nothing to do yet: whoever waits for it goes on waiting.
    pub(crate) fn put(&mut self, id: OpId, state: State) {
        debug_assert!(!matches!(state, State::Again | State::Done(..) | State::Free { .. }));
        if let Some(slot) = self.get_mut(id) {
            slot.state = state;
        }
    }

    /// Moves an operation to where its caller has something to do, and hands out the waker of whoever waits for that.
    #[must_use = "the caller must be woken"]
    pub(crate) fn advance(&mut self, id: OpId, state: State) -> Option<Waker> {
        self.get(id)?;
        if matches!(state, State::Done(..)) {
            self.unlink(id.index);
        }
        let slot = self.get_mut(id)?;
        slot.state = state;
        slot.waker.take()
    }

    /// Ends an operation; the answer is where it stood.
    pub(crate) fn free(&mut self, id: OpId) -> Option<(Op, State)> {
        self.get(id)?;
        self.unlink(id.index);
        let free = self.free;
        let slot = self.get_mut(id)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.waker = None;
        let state = core::mem::replace(&mut slot.state, State::Free { next: free });
        let op = slot.op;
        self.free = id.index;
        self.live -= 1;
        Some((op, state))
    }

    /// The undone operation with the earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<(OpId, Instant)> {
        let slot = self.slots.get(self.first as usize)?;
        let late = if mistake!(TickLate) { TICK } else { Duration::ZERO };
        let id = OpId { index: self.first, generation: slot.generation };
        Some((id, slot.op.deadline.saturating_add(late)))
    }

    fn link(&mut self, index: u32) {
        let Some(deadline) = self.slots.get(index as usize).map(|slot| slot.op.deadline) else { return };
        let mut earlier = self.last;
        while let Some(slot) = self.slots.get(earlier as usize).filter(|slot| slot.op.deadline > deadline) {
            earlier = slot.earlier;
        }
        let later = self.slots.get(earlier as usize).map_or(self.first, |slot| slot.later);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            (slot.earlier, slot.later) = (earlier, later);
        }
        self.join(earlier, index);
        self.join(index, later);
    }

    /// Takes a slot out of the list; twice does no harm.
    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let (earlier, later) = (slot.earlier, slot.later);
        (slot.earlier, slot.later) = (NONE, NONE);
        if earlier == NONE && later == NONE && self.first != index {
            return;
        }
        self.join(earlier, later);
    }

    /// Makes two slots neighbours; [`NONE`] stands for the end of the list.
    fn join(&mut self, earlier: u32, later: u32) {
        match self.slots.get_mut(earlier as usize) {
            Some(slot) => slot.later = later,
            None => self.first = later,
        }
        match self.slots.get_mut(later as usize) {
            Some(slot) => slot.earlier = earlier,
            None => self.last = earlier,
        }
    }
}

impl Slot {
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn watch(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Slots {
    /// What they are made of, for recordings.
    pub(super) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { slots, free, live, first, last } = self;
        archive.list(slots, Slot::blank, Slot::archive);
        archive.values([free, first, last]);
        archive.value(live);
    }
}

impl Slot {
    fn blank() -> Self {
        let op = Op::new(&Command::Ping, Permit::from_parts((0, 0, false)), Instant::NEVER, 0);
        let state = State::Free { next: NONE };
        Self { generation: 0, attempt: 0, state, op, waker: None, earlier: NONE, later: NONE }
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { generation, attempt, state, op, waker: _, earlier, later } = self;
        archive.values([generation, attempt, earlier, later]);
        state.archive(archive);
        op.archive(archive);
    }
}

impl Op {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { idempotent, may_be_denied, permit, deadline, len, attempts, begun, delay, maybe_executed } =
            self;
        archive.values([idempotent, may_be_denied, maybe_executed]);
        archive.by(permit, |permit| permit.into_parts(), |parts| Some(Permit::from_parts(parts)));
        archive.times([deadline, begun]);
        archive.value(len);
        archive.value(attempts);
        archive.value(delay);
    }
}

impl State {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let to = |state: &Self| match *state {
            Self::Free { next } => (0_u8, next.into()),
            Self::Waiting => (1, 0),
            Self::Again => (2, 0),
            Self::InFlight { staged } => (3, staged),
            Self::Delayed { until } => (4, until.as_nanos()),
            Self::Done(_, at) => (5, at.as_nanos()),
        };
        archive.by(self, to, |(number, detail)| {
            Some(match number {
                0 => Self::Free { next: u32::try_from(detail).ok()? },
                1 => Self::Waiting,
                2 => Self::Again,
                3 => Self::InFlight { staged: detail },
                4 => Self::Delayed { until: Instant::from_nanos(detail) },
                5 => Self::Done(Outcome::closed(), Instant::from_nanos(detail)),
                _ => return None,
            })
        });
        if let Self::Done(outcome, _) = self {
            outcome.archive(archive);
        }
    }
}

impl OpId {
    pub(super) fn archive(&mut self, archive: &mut Archive<'_>) {
        archive.by(self, |id| id.into_parts(), |parts| Some(Self::from_parts(parts)));
    }
}

impl Archived for Ticket {
    fn blank() -> Self {
        Self { index: NONE, attempt: 0 }
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { index, attempt } = self;
        archive.values([index, attempt]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Breaker, BreakerConfig};
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn op(deadline: u64) -> Op {
        let now = Instant::EPOCH;
        let permit = Breaker::new(BreakerConfig::default(), 0).admit(now).expect("a new breaker is closed");
        Op::new(&Command::Ping, permit, Instant::from_millis(deadline), 1)
    }

    #[test]
    fn a_ticket_matches_only_its_own_attempt() {
        let mut slots = Slots::new();
        let id = slots.insert(op(1), State::Again);
        let first = slots.ticket(id, Instant::EPOCH).expect("the operation lives");
        slots.put(id, State::InFlight { staged: 1 });
        assert_eq!(slots.redeem(first), Some(id));
        let second = slots.ticket(id, Instant::EPOCH).expect("the operation lives");
        assert_eq!(slots.redeem(first), None, "a second attempt has begun");
        assert_eq!(slots.redeem(second), Some(id));
        slots.free(id);
        assert_eq!(slots.redeem(second), None, "the operation is gone");
        let next = slots.insert(op(1), State::InFlight { staged: 2 });
        assert_eq!(slots.redeem(second).filter(|&found| found == next && second.attempt == 0), None);
        assert!(slots.get(id).is_none(), "the slot has a new generation");
    }

    proptest! {
        /// Whatever comes and goes, the front of the list is the earliest deadline of what is not done.
        #[test]
        fn the_next_deadline_is_the_earliest(steps in proptest::collection::vec((0u8..3, 0u64..50), 1..200)) {
            let mut slots = Slots::new();
            let mut model: Vec<(OpId, u64)> = Vec::new();
            let mut undone: BTreeSet<usize> = BTreeSet::new();
            for (step, n) in steps {
                let nth = undone.iter().nth(n as usize % undone.len().max(1)).copied();
                match (step, nth) {
                    (0, _) => {
                        undone.insert(model.len());
                        model.push((slots.insert(op(n), State::Waiting), n));
                    }
                    (1, Some(i)) => {
                        prop_assert!(slots.advance(model[i].0, State::Done(Outcome::closed(), Instant::EPOCH)).is_none());
                        undone.remove(&i);
                        prop_assert!(slots.advance(model[i].0, State::Done(Outcome::closed(), Instant::EPOCH)).is_none());
                    }
                    (_, Some(i)) => {
                        prop_assert!(slots.free(model[i].0).is_some());
                        undone.remove(&i);
                        prop_assert!(slots.free(model[i].0).is_none());
                    }
                    (_, None) => {}
                }
                let expected = undone.iter().map(|&i| model[i].1).min().map(Instant::from_millis);
                prop_assert_eq!(slots.next_deadline().map(|(_, deadline)| deadline), expected);
            }
        }
    }
}
