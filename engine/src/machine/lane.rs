//! A lane: one connection with the operations on it, and the decision of what a failure means to each.
//!
//! The link below knows commands in flight; the lane adds what a caller cares about: a bound with a fair queue,
//! a deadline, attempts, and exactly one outcome. What the breaker must know comes out as [`Signal`]s.

mod attempts;
mod state;

use alloc::boxed::Box;
use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::task::{Poll, Waker};
use core::time::Duration;

use bytes::Bytes;

use super::outcome::{LaneStats, Outcome, Progress, Refused, Signal};
use super::record::{LaneInput, Machine, Recorder};
use super::slots::{Op, OpId, Slots, State, Ticket};
use crate::config::LaneConfig;
use crate::link::{Action, Cause, DialError, Disconnect, Ended, Event, Fatal, Link, Sink, Transmit};
use crate::policy::{Permit, RetryBudget, Verdict};
use crate::resp::{Command, Reply};
use crate::time::{Instant, earlier};

/// One connection to a server with its operations. See the [crate's first page](crate) for how to drive it.
#[derive(Debug)]
pub struct Lane {
    link: Link<Ticket>,
    slots: Slots,
    /// Operations without room, oldest first, with some that have left.
    waiting: VecDeque<OpId>,
    waiters: usize,
    /// Room kept for operations that were asked to hand their command in.
    reserved: (usize, usize),
    /// When delayed operations are due, with some that have left.
    delayed: BinaryHeap<Reverse<(Instant, OpId)>>,
    budget: RetryBudget,
    rng: fastrand::Rng,
    /// The breaker's probe, not answered yet.
    probe: Option<Permit>,
    /// Timeouts count as one failure until then.
    timeouts_counted_until: Option<Instant>,
    signals: Vec<Signal>,
    wakers: Vec<Waker>,
    stats: LaneStats,
    last_error: Option<DialError>,
    /// Keys of writes that may still be executed although the connection they were sent on is gone.
    strays: Vec<Bytes>,
    /// Until when a connection before this one may have something executed.
    quiet_until: Instant,
    /// When the connection began to serve.
    ready_at: Instant,
    /// Callers have left something for the driver to do.
    news: bool,
    now: Instant,
    /// Writes down what it is told, if anybody does.
    pub(super) recorder: Option<Box<Recorder>>,
}

impl Lane {
    /// A lane that wants to dial at once. `seed` is for jitter only.
    #[must_use]
    pub fn new(config: LaneConfig, seed: u64, now: Instant) -> Self {
        let budget = RetryBudget::new(config.retry.budget);
        Self {
            link: Link::new(config, seed, now),
            slots: Slots::new(),
            waiting: VecDeque::new(),
            waiters: 0,
            reserved: (0, 0),
            delayed: BinaryHeap::new(),
            budget,
            rng: fastrand::Rng::with_seed(seed.rotate_left(32)),
            probe: None,
            timeouts_counted_until: None,
            signals: Vec::new(),
            wakers: Vec::new(),
            stats: LaneStats::default(),
            last_error: None,
            strays: Vec::new(),
            quiet_until: Instant::EPOCH,
            ready_at: now,
            news: true,
            now,
            recorder: None,
        }
    }

    // ---- callers ----

    /// Takes an operation. It is sent at once where the lane can, and otherwise waits for its turn.
    ///
    /// [`Lane::poll`] it to its end, or [`Lane::cancel`] it: one that is forgotten gives its room back at its deadline,
    /// but keeps its slot, and an answer that came, for ever.
    ///
    /// # Errors
    /// Over a bound nothing is encoded; see [`Refused`]. The permit was not used then.
    pub fn submit(
        &mut self,
        now: Instant,
        command: &Command<'_>,
        permit: Permit,
        deadline: Instant,
    ) -> Result<OpId, Refused> {
        let result = self.take(now, command, permit, deadline);
        self.note(
            |redaction| LaneInput::submit(redaction, now, command, permit, deadline),
            |_, digest| digest.submitted(&result),
        );
        result
    }

    fn take(
        &mut self,
        now: Instant,
        command: &Command<'_>,
        permit: Permit,
        deadline: Instant,
    ) -> Result<OpId, Refused> {
        self.at(now);
        let len = command.encoded_len();
        let max = self.link.config().max_in_flight_bytes;
        if self.link.is_closing() {
            return Err(Refused::Closed);
        }
        if len > max {
            return Err(Refused::TooLarge { len, max });
        }
        let must_wait = self.waiters > 0 || !self.has_room(len);
        if must_wait && self.waiters >= self.link.config().max_waiting {
            return Err(Refused::Overloaded);
        }
        let deadline = if mistake!(EndlessWait) && must_wait { Instant::NEVER } else { deadline };
        let op = Op::new(command, permit, deadline, len);
        let id = self.slots.insert(op, State::Waiting);
        if must_wait {
            self.wait(id);
        } else {
            self.send(id, command);
        }
        Ok(id)
    }

    /// Where an operation stands. Pending, it wakes `waker` when that changes; the latest waker counts.
    /// [`Progress::Done`] is told once; an operation that is not known (any more) counts as closed.
    pub fn poll(&mut self, id: OpId, waker: &Waker) -> Poll<Progress> {
        let progress = self.look(id, waker);
        if let Poll::Ready(progress) = &progress {
            self.note(|_| LaneInput::Poll { id: id.into_parts() }, |_, digest| digest.progress(progress));
        }
        progress
    }

    fn look(&mut self, id: OpId, waker: &Waker) -> Poll<Progress> {
        let Some(slot) = self.slots.get_mut(id) else {
            return Poll::Ready(Progress::Done(Outcome::closed(), self.now));
        };
        match slot.state() {
            State::Again => Poll::Ready(Progress::Again),
            State::Done(..) => match self.slots.free(id) {
                Some((_, State::Done(outcome, at))) => Poll::Ready(Progress::Done(outcome, at)),
                _ => Poll::Ready(Progress::Done(Outcome::closed(), self.now)),
            },
            State::Free { .. } | State::Waiting | State::InFlight { .. } | State::Delayed { .. } => {
                slot.watch(waker);
                Poll::Pending
            }
        }
    }

    /// The command of an operation that stands at [`Progress::Again`]; the same as before. Ignored otherwise.
    pub fn resubmit(&mut self, id: OpId, command: &Command<'_>) {
        let Some(slot) = self.slots.get(id) else { return };
        if matches!(slot.state(), State::Again) {
            self.release(slot.op.len);
            self.send(id, command);
            self.settle(); // It may have failed at once, and left its room to the next.
            self.note(|redaction| LaneInput::resubmit(redaction, id, command), |_, _| {});
        }
    }

    /// Withdraws an operation. What is not handed over yet is never sent; otherwise its reply will be given to
    /// nobody. Whether a write that was sent took place, nobody learns.
    pub fn cancel(&mut self, id: OpId) {
        self.leave(id, Duration::ZERO);
        self.slots.free(id);
        self.settle();
        self.news |= self.link.is_closing(); // It may have been the last that was waited for.
        self.note(|_| LaneInput::Cancel { id: id.into_parts() }, |_, _| {});
    }

    /// Takes nothing more, and closes the connection when all in flight is answered, or at `until`.
    pub fn close(&mut self, now: Instant, until: Instant) {
        self.at(now);
        self.news = true;
        while let Some(id) = self.waiting.pop_front() {
            if is_waiting(&self.slots, id) {
                self.fail(id, Cause::Closed, Duration::ZERO);
            }
        }
        while let Some(Reverse((until, id))) = self.delayed.pop() {
            if is_delayed(&self.slots, id, until) {
                self.fail(id, Cause::Closed, Duration::ZERO); // Its driver may be gone before it is due.
            }
        }
        self.drive(|link, ended| link.close(now, until, ended));
        self.note(|_| LaneInput::Close { now: now.as_nanos(), until: until.as_nanos() }, |_, _| {});
    }

    /// Asks the server for a sign of life on behalf of the breaker: dials at once where a backoff is being waited
    /// for. The verdict comes as a [`Signal`].
    pub fn probe(&mut self, now: Instant, permit: Permit) {
        self.ask(now, permit);
        self.note(|_| LaneInput::Probe { now: now.as_nanos(), permit: permit.into_parts() }, |_, _| {});
    }

    fn ask(&mut self, now: Instant, permit: Permit) {
        self.at(now);
        if self.link.is_closing() {
            self.signals.push(Signal::Verdict(permit, Verdict::Abandoned, Duration::ZERO));
            return;
        }
        self.news = true;
        // The PING of a probe that the breaker gave up on is still under way: its answer will do, and on a silent
        // connection another one would only wait behind it.
        let is_asked = self.probe.replace(permit).is_some();
        if self.link.is_ready() && !is_asked {
            self.link.ping();
        }
        self.link.hurry(now);
    }

    /// A reply made no sense to its caller: makes sure, with a PING, that the server's replies are those to the commands whose
    /// turn it is. If they are not, the connection is closed.
    pub(crate) fn doubt(&mut self) {
        self.news = true;
        self.link.doubt();
        self.note(|_| LaneInput::Doubt {}, |_, _| {});
    }

    // ---- the driver ----

    /// The socket is connected.
    pub fn handle_connected(&mut self, now: Instant) {
        self.at(now);
        self.link.handle_connected(now);
        self.note(|_| LaneInput::Connected { now: now.as_nanos() }, |_, _| {});
    }

    /// The attempt to connect failed.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        self.at(now);
        self.drive(|link, ended| link.handle_dial_failed(now, ended));
        self.note(|_| LaneInput::DialFailed { now: now.as_nanos() }, |_, _| {});
    }

    /// Bytes have arrived, and with them these replies: maybe none yet. Empties `replies`.
    ///
    /// # Errors
    /// The connection must be closed; the lane has drawn its conclusions already.
    pub fn handle_replies(&mut self, now: Instant, replies: &mut Vec<Reply>) -> Result<(), Fatal> {
        self.at(now);
        let serves = self.link.is_ready();
        let told =
            self.recorder.as_ref().map(|recorder| recorder.replies(replies, serves)).unwrap_or_default();
        let result = self.drive(|link, ended| link.handle_replies(now, replies, ended));
        replies.clear();
        self.note(
            |_| LaneInput::Replies { now: now.as_nanos(), replies: told },
            |_, digest| digest.number(result.is_ok().into()),
        );
        result
    }

    /// The socket took `n` bytes of what [`Lane::poll_transmit`] gave.
    pub fn handle_written(&mut self, now: Instant, n: usize) {
        self.at(now);
        self.link.handle_written(now, n);
        self.note(|_| LaneInput::Written { now: now.as_nanos(), bytes: n as u64 }, |_, _| {});
    }

    /// The connection is gone, or was closed because its bytes made no sense.
    pub fn handle_disconnected(&mut self, now: Instant, why: Disconnect) {
        self.at(now);
        self.drive(|link, ended| link.handle_disconnected(now, why, ended));
        self.note(|_| LaneInput::disconnected(now, why), |_, _| {});
    }

    /// Time has passed. Early and late calls are both fine.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.at(now);
        self.drive(|link, ended| link.handle_timeout(now, ended));
        while let Some((id, deadline)) = self.slots.next_deadline() {
            if deadline > self.now {
                break;
            }
            self.time_out(id);
        }
        while let Some(&Reverse((until, id))) = self.delayed.peek() {
            if until > self.now {
                break;
            }
            self.delayed.pop();
            if is_delayed(&self.slots, id, until) {
                self.wait(id);
            }
        }
        self.settle();
        // The last command on its way may have been one of those: an idle link has a timer of its own.
        self.drive(|link, ended| link.handle_timeout(now, ended));
        self.note(|_| LaneInput::TimedOut { now: now.as_nanos() }, |_, _| {});
    }

    /// What to do with the socket; ask until `None`. May change after every input.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.link.poll_action()?;
        self.note(|_| LaneInput::Action {}, |_, digest| digest.action(action));
        Some(action)
    }

    /// Appends what is to be written to `out`, which should be empty: then it is swapped, not copied. May change
    /// after every input.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Transmit {
        let (slots, before) = (&self.slots, out.len());
        let transmit = self.link.poll_transmit(out, |&ticket| slots.redeem(ticket).is_some());
        self.note(
            |_| LaneInput::Transmit {},
            |_, digest| digest.transmit(transmit, out.get(before..).unwrap_or_default()),
        );
        transmit
    }

    /// When to call [`Lane::handle_timeout`] next; flat, and in the future once it was called. May change after
    /// every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.slots.next_deadline().map(|(_, deadline)| deadline);
        let delayed = self.delayed.peek().map(|Reverse((until, ..))| *until);
        earlier(earlier(self.link.due(), deadline.filter(|at| !at.is_never())), delayed)
    }

    /// Moves what the breaker must be told to `signals`.
    pub fn drain_signals(&mut self) -> impl Iterator<Item = Signal> + '_ {
        if self.has_signals() {
            self.note(|_| LaneInput::Signals {}, |lane, digest| digest.signals(&lane.signals));
        }
        self.signals.drain(..)
    }

    /// Whether [`Lane::drain_signals`] has anything.
    #[must_use]
    pub fn has_signals(&self) -> bool {
        !self.signals.is_empty()
    }

    /// Takes the keys of writes whose fate is not only unknown but open: they were sent on a connection that is gone, not
    /// answered, cancelled ones included, and the server would not promise to forget them. It may execute them after
    /// anything that is sent now, so what it says of these keys is not to be trusted for a while.
    ///
    /// Something to take comes with [`Signal::Ready`], and is dropped when the next connection is ready: ask then. A
    /// key may be there more than once, and is as it is on the wire.
    #[must_use]
    pub fn take_strays(&mut self) -> Vec<Bytes> {
        core::mem::take(&mut self.strays)
    }

    /// Until when nothing should be replayed to this lane: a connection before this one was not fenced, and the server may
    /// still execute what it has received of it. A server that has served this one for the stall timeout is taken to have
    /// read what lay in the other's socket.
    #[must_use]
    pub const fn quiet_until(&self) -> Instant {
        self.quiet_until
    }

    /// Whether callers have left something to do since this was asked last: wake the driver, after unlocking. A driver
    /// that has just polled everything need not be woken.
    #[must_use]
    pub const fn take_news(&mut self) -> bool {
        core::mem::replace(&mut self.news, false)
    }

    /// Moves the wakers of callers whose operation moved on to `wakers`: wake them after unlocking.
    pub fn take_wakers(&mut self, wakers: &mut Vec<Waker>) {
        wakers.append(&mut self.wakers);
    }

    // ---- views ----

    /// The latest time the lane was told.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Whether the connection serves.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.link.is_ready()
    }

    /// Whether the lane is closed and its socket no more needed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Operations that are not over.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.slots.live()
    }

    /// Commands staged or unanswered, and their bytes on the wire.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        self.link.in_flight()
    }

    /// Counters since the lane was built.
    #[must_use]
    pub const fn stats(&self) -> LaneStats {
        self.stats
    }

    /// Why the latest dial failed; `None` while connected, or when no dial has ended yet.
    #[must_use]
    pub const fn last_error(&self) -> Option<&DialError> {
        self.last_error.as_ref()
    }

    // ---- inside ----

    /// Clamps a clock that went backwards.
    fn at(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Lets the link work, and draws the conclusions for the operations that ended and for the breaker.
    fn drive<R>(&mut self, work: impl FnOnce(&mut Link<Ticket>, Sink<'_, Ticket>) -> R) -> R {
        let Self { link, slots, signals, wakers, budget, ready_at, now, .. } = self;
        let mut failed: Vec<(Ticket, Ended)> = Vec::new();
        let result = work(link, &mut |ticket, ended| match ended {
            // The usual case is concluded on the spot.
            Ended::Reply(reply) if !matches!(reply, Reply::Error(_)) => {
                let Some(id) = slots.redeem(ticket) else { return };
                let Some(op) = slots.get(id).map(|slot| &slot.op) else { return };
                budget.record_success();
                signal_verdict(signals, op.permit, Verdict::Success, op.since(*ready_at, *now));
                wakers.extend(slots.advance(id, State::Done(Outcome::Reply(reply), *now)));
            }
            ended => failed.push((ticket, ended)),
        });
        self.handle_events();
        for (ticket, ended) in failed {
            if let Some(id) = self.slots.redeem(ticket) {
                self.conclude(id, ended);
            }
        }
        self.settle();
        result
    }

    fn handle_events(&mut self) {
        for event in self.link.take_events() {
            match event {
                Event::Ready { at_large } => {
                    if let Some(keys) = at_large {
                        self.strays = keys;
                        self.quiet_until = self.now.saturating_add(self.link.config().stall_timeout);
                    }
                    self.stats.connects += 1;
                    self.ready_at = self.now;
                    self.last_error = None;
                    self.signals.push(Signal::Ready);
                    if self.probe.is_some() {
                        self.link.ping();
                    }
                }
                Event::DialFailed(error) => self.dial_failed(error),
                Event::DialRefused(error) => {
                    self.stats.dial_failures += 1;
                    self.last_error = Some(DialError::Handshake(error));
                    self.probe = None;
                    self.signals.push(Signal::Trip);
                }
                Event::Lost => {
                    self.stats.losses += 1;
                    self.budget.record_failure();
                    self.answer_probe(Verdict::Failure);
                    self.signals.push(Signal::Failure);
                }
                Event::Pong(true) => self.answer_probe(Verdict::Success),
                Event::Pong(false) => self.answer_probe(Verdict::Failure),
            }
        }
    }

    fn dial_failed(&mut self, error: DialError) {
        self.stats.dial_failures += 1;
        self.last_error = Some(error);
        self.probe = None; // The failure says it all.
        self.signals.push(Signal::Failure);
    }

    fn answer_probe(&mut self, verdict: Verdict) {
        if let Some(permit) = self.probe.take() {
            self.signals.push(Signal::Verdict(permit, verdict, Duration::ZERO));
        }
    }

    /// Gives back what an unfinished operation holds: its place in a queue, its room, its permit.
    fn leave(&mut self, id: OpId, took: Duration) {
        let Some(slot) = self.slots.get(id) else { return };
        let op = slot.op;
        match *slot.state() {
            State::Waiting => self.waiters -= 1,
            State::Again => self.release(op.len),
            State::InFlight { staged } if self.link.is_staged(staged) => self.link.withdraw(op.len),
            State::InFlight { .. } | State::Delayed { .. } => {}
            State::Done(..) | State::Free { .. } => return,
        }
        if !mistake!(PlaceKept) {
            signal_verdict(&mut self.signals, op.permit, Verdict::Abandoned, took);
        }
    }

    fn has_room(&self, len: usize) -> bool {
        let config = self.link.config();
        let (operations, bytes) = self.link.in_flight();
        let reserved = if mistake!(RoomGivenTwice) { (0, 0) } else { self.reserved };
        operations + reserved.0 < config.max_in_flight
            && bytes.saturating_add(reserved.1).saturating_add(len) <= config.max_in_flight_bytes
    }

    fn release(&mut self, len: usize) {
        self.reserved = (self.reserved.0.saturating_sub(1), self.reserved.1.saturating_sub(len));
    }

    /// Puts an operation at the end of the queue for room.
    fn wait(&mut self, id: OpId) {
        if self.waiting.len() > 2 * self.waiters + 64 {
            let slots = &self.slots;
            self.waiting.retain(|&id| is_waiting(slots, id));
        }
        self.slots.put(id, State::Waiting);
        self.waiting.push_back(id);
        self.waiters += 1;
    }

    /// Gives the room of those who have left to those who wait.
    fn settle(&mut self) {
        let slots = &self.slots;
        self.link.tidy(|&ticket| slots.redeem(ticket).is_some());
        self.admit_waiters();
    }

    /// Asks as many of those who wait for room as there is room for to hand their command in.
    fn admit_waiters(&mut self) {
        while let Some(&id) = self.waiting.front() {
            if is_waiting(&self.slots, id) {
                let len = self.slots.get(id).map_or(0, |slot| slot.op.len);
                if !self.has_room(len) || (mistake!(PassedOver) && self.link.in_flight().0 > 0) {
                    break;
                }
                self.waiters -= 1;
                self.reserved = (self.reserved.0 + 1, self.reserved.1.saturating_add(len));
                self.wakers.extend(self.slots.advance(id, State::Again));
            }
            self.waiting.pop_front();
        }
    }
}

fn is_waiting(slots: &Slots, id: OpId) -> bool {
    slots.get(id).is_some_and(|slot| matches!(slot.state(), State::Waiting))
}

fn is_delayed(slots: &Slots, id: OpId, until: Instant) -> bool {
    slots.get(id).is_some_and(|slot| matches!(slot.state(), State::Delayed { until: u } if *u == until))
}

/// Adds what the breaker could learn from; a thousand successes in a row are one piece of news, unless it counts them.
fn signal_verdict(signals: &mut Vec<Signal>, permit: Permit, verdict: Verdict, took: Duration) {
    let took = if permit.is_counted() { took } else { Duration::ZERO };
    let signal = Signal::Verdict(permit, verdict, took);
    let each_matters = permit.is_trial() || permit.is_counted();
    let nothing_new = match verdict {
        Verdict::Abandoned => !permit.is_trial() && took.is_zero(),
        Verdict::Success => !each_matters && signals.last() == Some(&signal),
        Verdict::Failure => false,
    };
    if !nothing_new {
        signals.push(signal);
    }
}
