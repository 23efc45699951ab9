//! The one loop: moves bytes between a socket and a lane. All decisions are the lane's.
//!
//! ```text
//!         ┌───────────────────────────────────────────────────────────────────────────────┐
//!         ▼                                                                               │ something
//!   dial / read all there is ─► decode ─► lock: tell the lane, ask it ─► wake ─► write ───┤ was done
//!                                              │            │                             │
//!                                              │ Linger     │ nothing to do:              │ 32 rounds
//!                                              ▼            ▼ leave the waker, set timer  ▼
//!                                          yield once     wait                     yield to others
//! ```
//!
//! A round always tries to read before it writes, with both wakers registered, so that two full TCP buffers cannot
//! block each other. The task owns its socket: nobody else writes to it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use larder_engine::Instant;
use larder_engine::machine::{Action, DialError, Disconnect, Transmit};
use larder_engine::resp::{Decoder, Limits, Reply};

use super::shared::Shared;
use super::transport::{Security, Transport};
use super::trouble::DialTrouble;
use crate::runtime::{Runtime, Stream, Timer};

/// Rounds after which other tasks get their turn.
const ROUNDS: usize = 32;

/// What is read in one round, so that callers are not kept waiting for the end of a flood.
const READ_BUDGET: usize = 256 * 1024;

/// The buffer that is read into: large enough for hundreds of small replies, so that one allocation serves them all.
const READ_CHUNK: usize = 64 * 1024;

/// Below this much spare room the read buffer is made larger.
const READ_AT_LEAST: usize = 8 * 1024;

/// A write buffer that has grown beyond this is given back when it is empty.
const KEEP_OUTPUT: usize = 1024 * 1024;

pub(crate) struct LaneTask<R: Runtime> {
    shared: Arc<Shared>,
    runtime: Arc<R>,
    index: usize,
    security: Security,
    socket: Socket<R::Stream>,
    /// What the socket has to say in this round about why it cannot be used.
    trouble: Option<DialTrouble>,
    decoder: Decoder,
    input: BytesMut,
    replies: Vec<Reply>,
    /// Bytes to write, and how many of them the socket has taken.
    output: Vec<u8>,
    taken: usize,
    timer: R::Timer,
    /// When the timer fires, if it is set. It may fire early, when the deadline has moved since: that is cheaper than
    /// setting it again for every operation.
    timer_at: Option<Instant>,
    wakers: Vec<Waker>,
    /// What watchers were told last.
    told: (bool, bool, u64),
}

enum Socket<S: Stream> {
    Closed,
    Dialing(Pin<Box<dyn Future<Output = io::Result<S>> + Send>>),
    /// Connected, and not yet fit to be used.
    Securing(Transport<S>),
    Open(Transport<S>),
}

/// What the socket had to say in one round.
#[derive(Default)]
struct News {
    connected: bool,
    dial_failed: bool,
    /// Bytes were read; the replies are in the task.
    received: bool,
    written: usize,
    disconnected: Option<Disconnect>,
}

enum Round {
    Again,
    Yield,
    Wait,
    Finished,
}

impl<R: Runtime> LaneTask<R> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        runtime: Arc<R>,
        index: usize,
        limits: Limits,
        security: Security,
    ) -> Self {
        Self {
            timer: runtime.timer(),
            shared,
            runtime,
            index,
            security,
            socket: Socket::Closed,
            trouble: None,
            decoder: Decoder::new(limits),
            input: BytesMut::new(),
            replies: Vec::new(),
            output: Vec::new(),
            taken: 0,
            timer_at: None,
            wakers: Vec::new(),
            told: (false, false, 0),
        }
    }

    fn round(&mut self, cx: &mut Context<'_>) -> Round {
        let mut news = News::default();
        self.dial(cx, &mut news);
        self.read(cx, &mut news);
        self.write(cx, &mut news);
        let round = self.exchange(cx, &news);
        if matches!(round, Round::Wait) && self.timer_fired(cx) { Round::Again } else { round }
    }

    fn dial(&mut self, cx: &mut Context<'_>, news: &mut News) {
        match self.poll_dial(cx) {
            Poll::Ready(Ok(())) => {
                if let Socket::Securing(transport) = std::mem::replace(&mut self.socket, Socket::Closed) {
                    self.socket = Socket::Open(transport);
                }
                news.connected = true;
            }
            Poll::Ready(Err(error)) => {
                self.trouble = Some((&error).into());
                self.socket = Socket::Closed;
                news.dial_failed = true;
            }
            Poll::Pending => {}
        }
    }

    fn poll_dial(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Socket::Dialing(dial) = &mut self.socket {
            let stream = ready!(dial.as_mut().poll(cx))?;
            self.socket = Socket::Securing(self.security.wrap(stream)?);
        }
        let Socket::Securing(transport) = &mut self.socket else { return Poll::Pending };
        transport.poll_secured(cx)
    }

    fn read(&mut self, cx: &mut Context<'_>, news: &mut News) {
        let mut budget = READ_BUDGET;
        while let Socket::Open(stream) = &mut self.socket {
            let spare = self.input.capacity() - self.input.len();
            if spare < READ_AT_LEAST {
                // A large value is made room for in steps that double: what a server announces is not yet there.
                let missing = self.decoder.missing().min(self.input.len());
                self.input.reserve(missing.max(READ_CHUNK));
            }
            match stream.poll_read(cx, &mut self.input) {
                Poll::Pending => return,
                Poll::Ready(Ok(n)) if n > 0 => {
                    news.received = true;
                    if let Err(error) = self.decoder.decode(&mut self.input, &mut self.replies) {
                        news.disconnected = Some(Disconnect::Protocol(error));
                        return;
                    }
                    budget = budget.saturating_sub(n);
                    if budget == 0 {
                        cx.waker().wake_by_ref();
                        return;
                    }
                }
                Poll::Ready(end) => {
                    self.trouble = end.err().as_ref().and_then(DialTrouble::carried_by);
                    news.disconnected = Some(Disconnect::Lost);
                    return;
                }
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, news: &mut News) {
        while let (Socket::Open(stream), Some(rest @ [_, ..])) =
            (&mut self.socket, self.output.get(self.taken..))
        {
            match stream.poll_write(cx, rest) {
                Poll::Pending => return,
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.taken += n;
                    news.written += n;
                }
                Poll::Ready(end) => {
                    let trouble = end.err().as_ref().and_then(DialTrouble::carried_by);
                    self.trouble = self.trouble.take().or(trouble);
                    news.disconnected = news.disconnected.or(Some(Disconnect::Lost));
                    break;
                }
            }
        }
        if self.taken >= self.output.len() {
            self.output.clear();
            self.output.shrink_to(KEEP_OUTPUT);
            self.taken = 0;
        }
    }

    /// Tells the lane the news and asks what to do, under its lock.
    fn exchange(&mut self, cx: &mut Context<'_>, news: &News) -> Round {
        let shared = Arc::clone(&self.shared);
        let Some(mut cell) = shared.lock_lane(self.index) else { return Round::Finished };
        let now = shared.clock.now();
        let lane = &mut cell.lane;
        if news.connected {
            lane.handle_connected(now);
        }
        if news.dial_failed {
            lane.handle_dial_failed(now);
        }
        if news.written > 0 {
            lane.handle_written(now, news.written);
        }
        let broken = news.received && lane.handle_replies(now, &mut self.replies).is_err();
        if let Some(why) = news.disconnected {
            lane.handle_disconnected(now, why);
        }
        if lane.poll_timeout().is_some_and(|due| due <= now) {
            lane.handle_timeout(now);
        }
        let mut aftermath = shared.pass_signals(lane);
        let mut due = None;
        if self.index == 0 {
            let (circuit_due, probe, more) = shared.drive_circuit(now);
            (due, aftermath) = (circuit_due, aftermath.and(more));
            if let Some(permit) = probe {
                lane.probe(now, permit);
            }
        }
        if news.disconnected.is_some() || broken {
            self.hang_up();
        }
        let mut acted = false;
        while let Some(action) = lane.poll_action() {
            acted = true;
            self.act(action);
        }
        let transmit =
            if self.output.is_empty() { lane.poll_transmit(&mut self.output) } else { Transmit::Nothing };
        due = [due, lane.poll_timeout()].into_iter().flatten().min();
        lane.take_wakers(&mut self.wakers);
        let _ = lane.take_news(); // All of it has just been looked at.
        let state = (lane.is_ready(), lane.is_closed(), lane.stats().dial_failures);
        let failed = if state.2 == self.told.2 { None } else { lane.last_error() };
        self.tell_trouble(failed, state.0);
        let round = match transmit {
            Transmit::Ready => Round::Again,
            Transmit::Linger => Round::Yield,
            Transmit::Nothing if acted => Round::Again,
            Transmit::Nothing if state.1 => Round::Finished,
            Transmit::Nothing => {
                cell.task = Some(cx.waker().clone());
                Round::Wait
            }
        };
        drop(cell);
        self.wakers.drain(..).for_each(Waker::wake);
        shared.follow_up(self.index, aftermath);
        self.tell_watchers(state);
        self.set_timer(due);
        round
    }

    fn act(&mut self, action: Action) {
        if let Socket::Securing(_) = self.socket {
            self.trouble = Some(DialTrouble::unsecured());
        }
        match action {
            Action::Dial => {
                self.hang_up();
                self.socket = Socket::Dialing(Box::pin(self.runtime.connect(&self.shared.endpoint)));
            }
            Action::HangUp => self.hang_up(),
        }
    }

    fn hang_up(&mut self) {
        self.socket = Socket::Closed;
        self.decoder.reset();
        self.input.clear();
        self.replies.clear();
        self.output.clear();
        self.taken = 0;
    }

    /// Keeps the shared account of the latest dial. Where the socket has something to say, it knows more than the lane.
    fn tell_trouble(&mut self, failed: Option<&DialError>, ready: bool) {
        let trouble = self.trouble.take();
        match failed {
            Some(error) => self.shared.set_dial_trouble(trouble.or_else(|| Some(error.into()))),
            None if ready && !self.told.0 => self.shared.set_dial_trouble(None),
            None => {}
        }
    }

    fn tell_watchers(&mut self, state: (bool, bool, u64)) {
        if state != self.told {
            self.told = state;
            self.shared.wake_watchers();
        }
    }

    /// Sets the timer where it would fire too late. The lane compares with the clock itself, so early is fine.
    fn set_timer(&mut self, due: Option<Instant>) {
        let Some(due) = due else { return };
        if self.timer_at.is_none_or(|at| due < at) {
            if let Some(at) = self.shared.clock.to_std(due) {
                self.timer.set(at);
                self.timer_at = Some(due);
            }
        }
    }

    fn timer_fired(&mut self, cx: &mut Context<'_>) -> bool {
        let fired = self.timer_at.is_some() && self.timer.poll(cx).is_ready();
        if fired {
            self.timer_at = None;
        }
        fired
    }
}

impl<R: Runtime> Future for LaneTask<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            match this.round(cx) {
                Round::Again => {}
                Round::Yield => break,
                Round::Wait => return Poll::Pending,
                Round::Finished => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
