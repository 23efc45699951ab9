//! One connection to a server, over its many lives.
//!
//! ```text
//!               handle_connected        handshake done
//!   Dialing ----------------------> Handshaking --------> Ready --close()--> Draining
//!    ^  |                              |                    |                  |
//!    |  | refused, timed out           | refused,           | lost, stalled,   | all answered,
//!    |  v                              v timed out          v or retired       v lost, or out of time
//!    | Waiting <-----------------------+--------------------+                Closed
//!    |  |  (backoff)
//!    +--+
//!      due, or hurry()
//! ```
//!
//! `close()` in any other state leads to `Closed` at once.
//!
//! A link that was `Lost` reports it as an event; one that retires, when all in flight is answered, does not: nobody
//! lost anything.
//!
//! While a link is dialled for the first time, or again after it has served, commands wait for it (it has the
//! *benefit of the doubt*): a restart or a killed connection is over in milliseconds. Once a dial has failed,
//! or the server was silent for the stall timeout, the link is *down*: commands are refused at once until it
//! is ready again.
//!
//! # Zombies
//!
//! A write whose answer never came may still be executed: a server that was stopped goes on, and reads what lies in the
//! old socket when it has already served newer commands on ours. Commands of one key keep to one link, so it is enough
//! that the next connection has the server end the one before, with all it has received and not executed, before it
//! carries a command:
//!
//! ```text
//!   ready ── SET k old ── lost ·············▶ the server may still execute it
//!   next: HELLO, setup, CLIENT KILL ID … ADDR … ── ready ── SET k new
//!                             └ an integer: fenced, nothing of the old one can come any more
//!                             └ anything else, or nobody to name: not fenced, its keys come with `Event::Ready`
//! ```
//!
//! A handshake that fails leaves the task to the next. A link that retires waits until all is answered, cancelled commands
//! included, and so leaves nothing behind; one that is closed may, but has no next connection, and nobody who would
//! take the old value for a new one.
//!
//! # Out of step
//!
//! Replies carry no name: the first belongs to the first command. If a server, or a proxy before it, swallows one, each command
//! gets the answer of the next, and its own goes to the one before. Where something hints at that (a command was sent and has
//! run out of time, or its reply is of a kind that it cannot have), a PING follows: no other command is answered by `PONG`, so that
//! one in another's place, or another reply in its place, tells, and the connection is closed. The answer to a health check
//! or a probe does as well.
//!
//! What cannot be told: as long as commands of one kind follow each other so fast that none runs out of time, each takes the
//! answer of the next for its own. The last of them finds out. Nor can it be told which of the answers before belonged to
//! somebody else. No Redis is known that does this; what is known of it are proxies, and `AUTH` in a pipeline.

mod handshake;
mod outcome;
mod pipeline;
mod state;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::config::LaneConfig;
use crate::resp::{Command, ErrorClass, Reply};
use crate::time::Instant;

pub use handshake::HandshakeError;
use handshake::{Handshake, Identity, Progress};
pub use outcome::{Action, Cause, DialError, Disconnect, Fatal, Transmit};
pub(crate) use outcome::{Ended, Event, Sink};
use pipeline::Pipeline;
pub(crate) use state::hide_address;

/// The shortest time a timer is set for.
pub(crate) const TICK: Duration = Duration::from_nanos(1);

/// Below this many staged bytes it is worth yielding once before writing, so that other callers can add theirs.
const LINGER_BELOW: usize = 32 * 1024;

#[derive(Debug)]
enum Owner<T> {
    Caller(T),
    /// A health check, or the breaker's probe.
    Ping,
}

#[derive(Debug)]
enum State {
    Waiting { until: Instant, trusted: bool },
    Dialing { deadline: Instant, trusted: bool },
    Handshaking { deadline: Instant, trusted: bool, handshake: Handshake },
    Ready,
    Draining { until: Instant },
    Closed,
}

/// A connection that ended with writes unanswered.
#[derive(Debug)]
struct Zombie {
    identity: Option<Identity>,
    /// What those writes are about, as far as they name it.
    keys: Vec<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Link<T> {
    config: LaneConfig,
    rng: fastrand::Rng,
    state: State,
    /// Who this connection is to the server, once it is ready and if the server tells.
    identity: Option<Identity>,
    /// To be fenced by the next one.
    zombie: Option<Zombie>,
    pipeline: Pipeline<Owner<T>>,
    /// Bytes of the handshake.
    control: Vec<u8>,
    hang_up: bool,
    dial: bool,
    events: Vec<Event>,
    /// Dials that failed since the link last served, and the delay before the latest.
    attempt: u32,
    delay: Duration,
    /// Whether this connection has answered a command.
    served: bool,
    /// A PING was sent because the replies may be out of step.
    doubting: bool,
    /// No more commands on this connection; dial again when all are answered.
    retiring: bool,
    lingered: bool,
    /// When a byte was last received, or a byte of the oldest command in flight was written, or that was handed over.
    alive_at: Instant,
    /// Whether commands were handed over since the time was last told: the next call that tells it dates that.
    undated: bool,
    now: Instant,
}

impl<T> Link<T> {
    pub(crate) fn new(mut config: LaneConfig, seed: u64, now: Instant) -> Self {
        // A timer always lies in the future, whatever was configured.
        for timeout in
            [&mut config.connect_timeout, &mut config.stall_timeout, &mut config.health_check_interval]
        {
            *timeout = (*timeout).max(TICK);
        }
        let mut link = Self {
            config,
            rng: fastrand::Rng::with_seed(seed),
            state: State::Closed,
            identity: None,
            zombie: None,
            pipeline: Pipeline::new(),
            control: Vec::new(),
            hang_up: false,
            dial: false,
            events: Vec::new(),
            attempt: 0,
            delay: Duration::ZERO,
            served: false,
            doubting: false,
            retiring: false,
            lingered: false,
            alive_at: now,
            undated: false,
            now,
        };
        link.start_dial(true);
        link
    }

    pub(crate) const fn config(&self) -> &LaneConfig {
        &self.config
    }

    /// Whether a command may be staged: the link is ready, or has the benefit of the doubt.
    pub(crate) const fn accepts(&self) -> bool {
        match self.state {
            State::Waiting { trusted, .. }
            | State::Dialing { trusted, .. }
            | State::Handshaking { trusted, .. } => trusted,
            State::Ready => true,
            State::Draining { .. } | State::Closed => false,
        }
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.state, State::Draining { .. } | State::Closed)
    }

    /// Commands staged or awaiting their reply, and their bytes.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.pipeline.len(), self.pipeline.bytes())
    }

    pub(crate) fn stage(&mut self, command: &Command<'_>, owner: T) -> u64 {
        self.pipeline.stage(command, Owner::Caller(owner))
    }

    pub(crate) const fn is_staged(&self, ticket: u64) -> bool {
        self.pipeline.is_staged(ticket)
    }

    /// Asks a ready server for a sign of life: answered by [`Event::Pong`], or by [`Event::Lost`].
    pub(crate) fn ping(&mut self) {
        self.pipeline.stage(&Command::Ping, Owner::Ping);
    }

    /// Asks a ready server for a sign that nobody can mistake, unless it is asked already: replies may be out of step.
    pub(crate) fn doubt(&mut self) {
        if self.is_ready() && !core::mem::replace(&mut self.doubting, true) {
            self.ping();
        }
    }

    /// Says that a staged command of `len` bytes is wanted no more; [`Link::tidy`] follows.
    pub(crate) const fn withdraw(&mut self, len: usize) {
        self.pipeline.withdraw(len);
    }

    /// Draws the conclusions from what was withdrawn (`wanted` says no).
    pub(crate) fn tidy(&mut self, wanted: impl Fn(&T) -> bool) {
        self.pipeline.tidy(is_wanted(wanted));
        self.finish_if_drained(&mut |_, _| {});
    }

    /// Dials now where a backoff is being waited for.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.at(now);
        if let State::Waiting { trusted, .. } = self.state {
            self.start_dial(trusted);
        }
    }

    /// Replaces the connection by a new one as soon as all in flight is answered: this server is the wrong one.
    pub(crate) fn retire(&mut self, now: Instant, ended: Sink<'_, T>) {
        self.at(now);
        if self.is_ready() {
            self.retiring = true;
            self.retire_if_quiet(ended);
        }
    }

    pub(crate) fn close(&mut self, now: Instant, until: Instant, ended: Sink<'_, T>) {
        self.at(now);
        let until = match self.state {
            State::Ready if self.pipeline.len() > 0 => until,
            State::Draining { until: before } => until.min(before),
            State::Closed => return,
            _ => self.now,
        };
        self.state = State::Draining { until };
        self.retiring = false; // What is staged goes to this server now, be it the wrong one.
        if until <= self.now {
            self.finish(ended);
        }
    }

    pub(crate) fn handle_connected(&mut self, now: Instant) {
        self.at(now);
        match self.state {
            State::Dialing { deadline, trusted } if !self.dial => {
                self.alive_at = self.now;
                self.control.clear();
                let predecessor = self.zombie.as_ref().and_then(|zombie| zombie.identity.clone());
                let handshake = Handshake::start(&self.config.handshake, predecessor, &mut self.control);
                self.state = State::Handshaking { deadline, trusted, handshake };
            }
            _ => {} // News of an attempt that was given up; the one wanted now was not even asked for.
        }
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Instant, ended: Sink<'_, T>) {
        self.at(now);
        if matches!(self.state, State::Dialing { .. }) && !self.dial {
            self.fail_dial(Event::DialFailed(DialError::Unreachable), ended);
        }
    }

    /// Bytes have arrived, and these replies with them (maybe none yet).
    pub(crate) fn handle_replies(
        &mut self,
        now: Instant,
        replies: &mut Vec<Reply>,
        ended: Sink<'_, T>,
    ) -> Result<(), Fatal> {
        self.at(now);
        self.alive_at = self.now;
        for reply in replies.drain(..) {
            if matches!(reply, Reply::Push(_)) {
                continue; // Nobody subscribes to anything on a lane, but a server may announce what it likes.
            }
            if let Err(fatal) = self.handle_reply(reply, ended) {
                match &fatal {
                    Fatal::Handshake(error) if error.is_configuration() => {
                        self.fail_dial(Event::DialRefused(error.clone()), ended);
                    }
                    Fatal::Handshake(error) => {
                        let error = DialError::Handshake(error.clone());
                        self.fail_dial(Event::DialFailed(error), ended);
                    }
                    Fatal::UnmatchedReply | Fatal::OutOfStep => self.break_off(Cause::Protocol, ended),
                }
                return Err(fatal);
            }
        }
        if self.retiring {
            self.retire_if_quiet(ended);
        }
        self.finish_if_drained(ended);
        Ok(())
    }

    fn handle_reply(&mut self, reply: Reply, ended: Sink<'_, T>) -> Result<(), Fatal> {
        match &mut self.state {
            State::Handshaking { .. } if !self.control.is_empty() => {
                return Err(HandshakeError::unasked(&self.config.handshake, &reply).into());
            }
            State::Handshaking { handshake, .. } => {
                let progress = handshake.handle_reply(&self.config.handshake, &reply, &mut self.control)?;
                if let Progress::Done { identity, fenced } = progress {
                    self.state = State::Ready;
                    self.identity = identity;
                    self.served = false;
                    let at_large = self.zombie.take().filter(|_| !fenced).map(|zombie| zombie.keys);
                    self.events.push(Event::Ready { at_large });
                }
            }
            State::Ready | State::Draining { .. } => {
                let owner = self.pipeline.oldest().ok_or(Fatal::UnmatchedReply)?;
                if is_out_of_step(owner, &reply) {
                    return Err(Fatal::OutOfStep);
                }
                let owner = self.pipeline.answered().ok_or(Fatal::UnmatchedReply)?;
                self.served = true;
                (self.attempt, self.delay) = (0, Duration::ZERO);
                match owner {
                    Owner::Caller(owner) => ended(owner, Ended::Reply(reply)),
                    Owner::Ping => {
                        self.doubting = false;
                        self.events.push(Event::Pong(can_serve(&reply)));
                    }
                }
            }
            // Bytes of a connection that has already been given up.
            State::Waiting { .. } | State::Dialing { .. } | State::Closed => {}
        }
        Ok(())
    }

    /// The socket took `n` bytes.
    pub(crate) fn handle_written(&mut self, now: Instant, n: usize) {
        self.at(now);
        if matches!(self.state, State::Ready | State::Draining { .. }) {
            // A large command on a slow network is no stall. But a server that hangs has a system below it that still
            // takes bytes for a while: when the oldest command is out, only what is received counts.
            if self.pipeline.wrote(n) {
                self.alive_at = self.now;
            }
        }
    }

    pub(crate) fn handle_disconnected(&mut self, now: Instant, why: Disconnect, ended: Sink<'_, T>) {
        self.at(now);
        let cause = match why {
            Disconnect::Lost => Cause::ConnectionLost,
            Disconnect::Protocol(_) => Cause::Protocol,
        };
        match &self.state {
            State::Dialing { .. } if self.dial => {} // The one before, which was given up.
            State::Dialing { .. } => self.fail_dial(Event::DialFailed(DialError::Unreachable), ended),
            State::Handshaking { handshake, .. } => {
                let error = match why {
                    Disconnect::Lost => DialError::HungUp { during: handshake.awaits() },
                    Disconnect::Protocol(error) => DialError::Protocol(error),
                };
                self.fail_dial(Event::DialFailed(error), ended);
            }
            State::Ready | State::Draining { .. } => self.break_off(cause, ended),
            State::Waiting { .. } | State::Closed => {}
        }
        // The driver has told us: it needs no telling.
        self.hang_up = false;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, ended: Sink<'_, T>) {
        self.at(now);
        if self.due().is_none_or(|due| due > self.now) {
            return;
        }
        match &self.state {
            State::Waiting { trusted, .. } => self.start_dial(*trusted),
            State::Dialing { .. } => self.fail_dial(Event::DialFailed(DialError::TimedOut), ended),
            State::Handshaking { handshake, .. } => {
                let error = DialError::Silent { during: handshake.awaits() };
                self.fail_dial(Event::DialFailed(error), ended);
            }
            State::Ready if self.pipeline.is_quiet() => {
                self.ping();
                self.alive_at = self.now; // The stall timeout runs from here.
            }
            State::Ready => self.lose(Cause::Stalled, ended),
            State::Draining { until } if *until > self.now => self.finish_because(Cause::Stalled, ended),
            State::Draining { .. } => self.finish(ended),
            State::Closed => {}
        }
    }

    /// When [`Link::handle_timeout`] has something to do. Flat: no more than a few comparisons.
    pub(crate) fn due(&self) -> Option<Instant> {
        let silence = |limit| self.alive_at.saturating_add(limit);
        match self.state {
            State::Waiting { until, .. } => Some(until),
            State::Draining { until } if self.pipeline.is_quiet() => Some(until),
            State::Draining { until } => Some(until.min(silence(self.config.stall_timeout))),
            State::Dialing { deadline, .. } | State::Handshaking { deadline, .. } => Some(deadline),
            State::Ready if !self.pipeline.is_quiet() => Some(silence(self.config.stall_timeout)),
            State::Ready if self.pipeline.has_staged() => None, // About to be handed over.
            State::Ready => Some(silence(self.config.health_check_interval)),
            State::Closed => None,
        }
        .filter(|due| !due.is_never())
    }

    pub(crate) const fn poll_action(&mut self) -> Option<Action> {
        if core::mem::replace(&mut self.hang_up, false) {
            Some(Action::HangUp)
        } else if core::mem::replace(&mut self.dial, false) {
            Some(Action::Dial)
        } else {
            None
        }
    }

    pub(crate) fn poll_transmit(&mut self, out: &mut Vec<u8>, wanted: impl Fn(&T) -> bool) -> Transmit {
        if !self.control.is_empty() {
            out.append(&mut self.control);
            return Transmit::Ready;
        }
        let open = matches!(self.state, State::Ready | State::Draining { .. })
            || (mistake!(EagerWriter) && matches!(self.state, State::Handshaking { .. }));
        if !open || self.retiring || !self.pipeline.has_staged() {
            return Transmit::Nothing;
        }
        let alone = self.pipeline.len() == 1;
        if !alone && !self.lingered && self.pipeline.staged_bytes() < LINGER_BELOW {
            self.lingered = true;
            return Transmit::Linger;
        }
        self.lingered = false;
        if self.pipeline.is_quiet() {
            self.alive_at = self.now; // Or later: nobody has told the time since the command came.
            self.undated = true;
        }
        self.pipeline.hand_over(out, is_wanted(wanted));
        if out.is_empty() { Transmit::Nothing } else { Transmit::Ready }
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }

    /// Clamps a clock that went backwards.
    fn at(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if core::mem::take(&mut self.undated) {
            self.alive_at = self.now;
        }
    }

    fn start_dial(&mut self, trusted: bool) {
        self.dial = true;
        self.state =
            State::Dialing { deadline: self.now.saturating_add(self.config.connect_timeout), trusted };
    }

    /// The dial, or the handshake behind it, failed: nobody waits for the next one.
    fn fail_dial(&mut self, event: Event, ended: Sink<'_, T>) {
        self.events.push(event);
        self.hang_up = true;
        self.dial = false;
        self.control.clear();
        self.end_all(false, Cause::Unreachable, ended);
        self.wait(false);
    }

    /// A connection that had been ready is no more, and was perhaps the last.
    fn break_off(&mut self, cause: Cause, ended: Sink<'_, T>) {
        match self.state {
            State::Draining { .. } => self.finish_because(cause, ended),
            _ => self.lose(cause, ended),
        }
    }

    /// A connection that had been ready is no more.
    fn lose(&mut self, cause: Cause, ended: Sink<'_, T>) {
        self.events.push(Event::Lost);
        self.hang_up = true;
        let trusted = self.served && cause != Cause::Stalled;
        self.end_all(trusted, cause, ended);
        self.wait(trusted);
    }

    fn wait(&mut self, trusted: bool) {
        self.delay = self.config.reconnect.delay(self.attempt, self.delay, &mut self.rng);
        self.attempt = self.attempt.saturating_add(1);
        self.state = State::Waiting { until: self.now.saturating_add(self.delay.max(TICK)), trusted };
    }

    fn retire_if_quiet(&mut self, ended: Sink<'_, T>) {
        if self.is_ready() && self.pipeline.is_quiet() {
            self.hang_up = true;
            self.end_all(true, Cause::ConnectionLost, ended);
            self.wait(true);
        }
    }

    fn finish_if_drained(&mut self, ended: Sink<'_, T>) {
        if matches!(self.state, State::Draining { .. }) && self.pipeline.len() == 0 {
            self.finish(ended);
        }
    }

    fn finish(&mut self, ended: Sink<'_, T>) {
        self.finish_because(Cause::Closed, ended);
    }

    fn finish_because(&mut self, cause: Cause, ended: Sink<'_, T>) {
        self.hang_up = true;
        self.dial = false;
        self.control.clear();
        self.end_all(false, cause, ended);
        self.state = State::Closed;
    }

    fn end_all(&mut self, keep_staged: bool, cause: Cause, ended: Sink<'_, T>) {
        self.retiring = false;
        self.lingered = false;
        self.doubting = false;
        let unanswered = self.pipeline.disconnected(keep_staged, |orphan| {
            if let Owner::Caller(owner) = orphan.owner {
                ended(owner, if orphan.sent { Ended::Unknown(cause) } else { Ended::NotSent(cause) });
            }
        });
        let identity = self.identity.take();
        if let Some(keys) = unanswered.filter(|_| !mistake!(NoFence)) {
            self.zombie = Some(Zombie { identity, keys });
        }
    }
}

/// Whether a staged command still has somebody who wants it.
fn is_wanted<T>(wanted: impl Fn(&T) -> bool) -> impl Fn(&Owner<T>) -> bool {
    move |owner| match owner {
        Owner::Caller(owner) => wanted(owner),
        Owner::Ping => true,
    }
}

/// Whether a reply cannot be that to the command whose turn it is. Any command may be refused.
fn is_out_of_step<T>(owner: &Owner<T>, reply: &Reply) -> bool {
    match (owner, reply) {
        (_, Reply::Error(_)) => false,
        (Owner::Ping, reply) => !is_pong(reply),
        (Owner::Caller(_), reply) => is_pong(reply),
    }
}

fn is_pong(reply: &Reply) -> bool {
    matches!(reply, Reply::Simple(status) if status.as_ref() == b"PONG")
}

/// Whether a server that answers a PING so is worth asking. One that only refuses the PING itself is.
fn can_serve(pong: &Reply) -> bool {
    let Reply::Error(error) = pong else { return true };
    match error.class() {
        ErrorClass::Transient | ErrorClass::Topology => false,
        ErrorClass::Auth => error.code() == b"NOPERM",
        ErrorClass::Capacity | ErrorClass::Unsupported | ErrorClass::Caller => true,
    }
}
