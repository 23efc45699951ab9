//! A world on virtual time: an engine, its callers, a network and a [`Server`].
//!
//! Nothing happens unless the engine asked for it: callers are polled when their waker was woken, and time jumps to
//! the engine's `poll_timeout` or to the next arrival, never to anything between. So a missed wake-up or a timer that
//! was not set shows as an operation that does not end (rule `sim_only_wakes_when_told`), and an engine that spins at
//! one instant as a panic.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Wake;
use std::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::server::{Server, Session};
use crate::machine::{
    Action, Answer, Clear, Cleared, Disconnect, Engine, EngineConfig, Operation, OperationError, Parts,
    Request, Tier, Transmit, key_hash,
};
use crate::resp::{Decoder, Limits, Reply};
use crate::time::Instant;

pub(super) type Answered = Result<Answer, OperationError>;

/// How the network and the server's host behave.
pub(super) struct Net {
    pub(super) latency: Duration,
    /// Connection attempts are refused.
    pub(super) refuse: bool,
    /// Connection attempts are never answered.
    pub(super) swallow: bool,
    /// The server reads nothing, and so answers nothing.
    pub(super) frozen: bool,
    /// The most bytes that one read or write moves; random below that.
    pub(super) piece: usize,
    /// Every byte of a reply arrives so much later than the one before.
    pub(super) trickle: Duration,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100),
            refuse: false,
            swallow: false,
            frozen: false,
            piece: usize::MAX,
            trickle: Duration::ZERO,
        }
    }
}

enum Arrival {
    Connected,
    Refused,
    Bytes(Vec<u8>),
    Fin,
}

/// One lane's socket, and what is under way on it.
struct Wire {
    open: bool,
    unwritten: Vec<u8>,
    to_server: VecDeque<(Instant, Vec<u8>)>,
    session: Session,
    to_client: VecDeque<(Instant, Arrival)>,
    decoder: Decoder,
    input: BytesMut,
}

impl Wire {
    fn new() -> Self {
        Self {
            open: false,
            unwritten: Vec::new(),
            to_server: VecDeque::new(),
            session: Session::default(),
            to_client: VecDeque::new(),
            decoder: Decoder::new(Limits::default()),
            input: BytesMut::new(),
        }
    }
}

#[derive(Default)]
struct Flag {
    woken: AtomicBool,
    wakes: AtomicUsize,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

enum Work {
    Operation(Operation, Option<Answered>),
    Clear(Clear, Option<Result<Cleared, OperationError>>),
    Cancelled,
}

struct Caller {
    flag: Arc<Flag>,
    begun: Instant,
    work: Work,
}

impl Caller {
    fn is_pending(&self) -> bool {
        matches!(self.work, Work::Operation(_, None) | Work::Clear(_, None))
    }
}

/// A caller of the world; stays valid for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) engine: Engine,
    pub(super) server: Server,
    pub(super) net: Net,
    wires: Vec<Wire>,
    callers: Vec<Caller>,
    /// The driver's choices: sizes of pieces, and the order of its calls where that is to be random.
    rng: fastrand::Rng,
    pub(super) shuffled: bool,
    /// The only caller that is polled when woken, if not all are.
    only: Option<Id>,
    /// Of the keys; 0 is none.
    pub(super) namespace_len: usize,
    /// How often `handle_timeout` was called.
    pub(super) timeouts: usize,
    /// All that the engine asked for, in order.
    pub(super) outputs: Vec<(Instant, usize, Output)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Action(Action),
    Bytes(Vec<u8>),
}

/// More rounds at one instant than any honest work takes.
const LIVELOCK: usize = 20_000;

impl World {
    pub(super) fn new(configure: impl FnOnce(&mut EngineConfig)) -> Self {
        Self::with_seed(7, configure)
    }

    pub(super) fn with_seed(seed: u64, configure: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut config = EngineConfig::default();
        configure(&mut config);
        let now = Instant::from_millis(1_000);
        Self {
            now,
            engine: Engine::new(&config, seed, now),
            server: Server::default(),
            net: Net::default(),
            wires: (0..config.lanes.max(1)).map(|_| Wire::new()).collect(),
            callers: Vec::new(),
            rng: fastrand::Rng::with_seed(seed ^ 1),
            shuffled: false,
            only: None,
            namespace_len: 0,
            timeouts: 0,
            outputs: Vec::new(),
        }
    }

    /// A world whose lanes are connected.
    pub(super) fn connected(configure: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut world = Self::new(configure);
        world.run_for(Duration::from_millis(10));
        assert!(world.engine.is_ready(0), "nothing is in the way");
        world
    }

    // ---- callers ----

    /// Submits and polls once, as a future would be.
    pub(super) fn submit(&mut self, key: &str, request: Request) -> Id {
        let operation = self.engine.submit(key.as_bytes(), request).in_namespace(self.namespace_len);
        self.add(Work::Operation(operation, None))
    }

    pub(super) fn get(&mut self, key: &str) -> Id {
        self.submit(key, Request::Get)
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Id {
        self.submit(key, Request::Set { value: Bytes::copy_from_slice(value.as_bytes()), ttl: None })
    }

    pub(super) fn begin_clear(&mut self, namespace: &str) -> Id {
        self.add(Work::Clear(Clear::new(namespace.as_bytes()), None))
    }

    fn add(&mut self, work: Work) -> Id {
        let id = Id(self.callers.len());
        self.callers.push(Caller { flag: Arc::default(), begun: self.now, work });
        self.poll(id);
        id
    }

    fn poll(&mut self, Id(at): Id) {
        let Caller { flag, work, .. } = &mut self.callers[at];
        flag.woken.store(false, Ordering::Relaxed);
        let waker = Waker::from(flag.clone());
        match work {
            Work::Operation(operation, answered @ None) => {
                if let Poll::Ready(answer) = self.engine.poll(self.now, operation, &waker) {
                    *answered = Some(answer);
                }
            }
            Work::Clear(clear, cleared @ None) => {
                if let Poll::Ready(result) = self.engine.poll_clear(self.now, clear, &waker) {
                    *cleared = Some(result);
                }
            }
            Work::Operation(..) | Work::Clear(..) | Work::Cancelled => {}
        }
        self.engine.wake();
    }

    /// Cancels, and asserts that this wakes nobody who has just left.
    pub(super) fn cancel(&mut self, Id(at): Id) {
        let before = self.wakes(Id(at));
        match core::mem::replace(&mut self.callers[at].work, Work::Cancelled) {
            Work::Operation(operation, _) => self.engine.cancel(self.now, operation),
            Work::Clear(clear, _) => self.engine.cancel_clear(self.now, clear),
            Work::Cancelled => {}
        }
        self.engine.wake();
        assert_eq!(self.wakes(Id(at)), before, "who cancels is not woken");
    }

    /// How often a caller was woken so far.
    pub(super) fn wakes(&self, Id(at): Id) -> usize {
        self.callers[at].flag.wakes.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self, Id(at): Id) -> Option<&Answered> {
        match &self.callers[at].work {
            Work::Operation(_, answered) => answered.as_ref(),
            Work::Clear(..) | Work::Cancelled => None,
        }
    }

    /// Runs until an operation has ended, and says how.
    pub(super) fn finish(&mut self, id: Id) -> Answered {
        self.run_while(|world| world.answer(id).is_none());
        self.answer(id).expect("it has ended").clone()
    }

    /// Submits an operation and runs until it has ended.
    pub(super) fn ask(&mut self, key: &str, request: Request) -> Answered {
        let id = self.submit(key, request);
        self.finish(id)
    }

    pub(super) fn clear(&mut self, namespace: &str) -> Result<Cleared, OperationError> {
        let Id(at) = self.begin_clear(namespace);
        self.run_while(|world| world.callers[at].is_pending());
        match &self.callers[at].work {
            Work::Clear(_, Some(result)) => result.clone(),
            _ => unreachable!("a clear that is not pending has ended"),
        }
    }

    /// When the callers that wait for an answer began to.
    pub(super) fn pending(&self) -> impl Iterator<Item = (Id, Instant)> {
        let pending = self.callers.iter().enumerate().filter(|(_, caller)| caller.is_pending());
        pending.map(|(at, caller)| (Id(at), caller.begun))
    }

    pub(super) fn is_clear(&self, Id(at): Id) -> bool {
        matches!(self.callers[at].work, Work::Clear(..))
    }

    pub(super) fn tier<R>(&mut self, work: impl FnOnce(&mut Tier) -> R) -> R {
        self.engine.with_tier(0, work).expect("there is a fallback tier")
    }

    /// Commands in flight on the lane of a key, and their bytes.
    pub(super) fn in_flight(&mut self, key: &str) -> (usize, usize) {
        self.engine.with_lane(key_hash(key.as_bytes()), |lane| lane.in_flight()).expect("there is a lane")
    }

    // ---- trouble ----

    /// The server's end of every connection is closed; what it sent before still arrives.
    pub(super) fn fin(&mut self) {
        let at = self.now.saturating_add(self.net.latency);
        for wire in self.wires.iter_mut().filter(|wire| wire.open) {
            wire.to_server.clear();
            wire.to_client.push_back((at, Arrival::Fin));
        }
    }

    /// Every connection breaks now, and all that is under way is lost.
    pub(super) fn reset(&mut self) {
        for wire in self.wires.iter_mut().filter(|wire| wire.open) {
            wire.to_server.clear();
            wire.to_client.clear();
            wire.to_client.push_back((self.now, Arrival::Fin));
        }
    }

    /// The server sends bytes that nobody asked for.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        let at = self.now.saturating_add(self.net.latency);
        for wire in self.wires.iter_mut().filter(|wire| wire.open) {
            wire.to_client.push_back((at, Arrival::Bytes(bytes.to_vec())));
        }
    }

    // ---- time ----

    pub(super) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now.saturating_add(duration));
    }

    pub(super) fn run_until(&mut self, end: Instant) {
        self.settle();
        while let Some(next) = self.next_event().filter(|&next| next <= end) {
            self.now = next;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Lets enough time pass for a reply to everything, while one caller looks at what it got and the others are busy
    /// elsewhere.
    pub(super) fn look_only_at(&mut self, id: Id) {
        self.only = Some(id);
        self.run_for(Duration::from_millis(1));
        self.only = None;
    }

    fn run_while(&mut self, unfinished: impl Fn(&Self) -> bool) {
        let patience = self.now.saturating_add(Duration::from_secs(3_600));
        self.settle();
        while unfinished(self) {
            let next = self.next_event().filter(|&next| next < patience);
            self.now = next.expect("somebody waits, but nothing will ever happen for them");
            self.settle();
        }
    }

    /// When something is going to happen by itself.
    fn next_event(&self) -> Option<Instant> {
        let mut next = self.engine.poll_timeout();
        for wire in &self.wires {
            let to_client = wire.to_client.front().map(|(at, _)| *at);
            let to_server = wire.to_server.front().map(|(at, _)| *at).filter(|_| !self.net.frozen);
            next = [next, to_client, to_server].into_iter().flatten().min();
        }
        next.map(|next| next.max(self.now))
    }

    /// Does all that there is to do at this instant.
    pub(super) fn settle(&mut self) {
        let mut steps: [fn(&mut Self) -> bool; 5] =
            [Self::poll_callers, Self::act, Self::transmit, Self::arrive, Self::time_out];
        for _ in 0..LIVELOCK {
            if self.shuffled {
                self.rng.shuffle(&mut steps);
            }
            if !steps.iter().fold(false, |progress, step| step(self) | progress) {
                return;
            }
        }
        panic!("livelock at {:?}", self.now);
    }

    fn poll_callers(&mut self) -> bool {
        let mut progress = false;
        for at in 0..self.callers.len() {
            let attends = self.only.is_none_or(|only| only == Id(at));
            if attends && self.callers[at].flag.woken.load(Ordering::Relaxed) {
                self.poll(Id(at));
                progress = true;
            }
        }
        progress
    }

    fn act(&mut self) -> bool {
        let Some((lane, action)) = self.engine.poll_action() else { return false };
        self.outputs.push((self.now, lane, Output::Action(action)));
        self.wires[lane] = Wire::new();
        if action == Action::Dial && !self.net.swallow {
            let result = if self.net.refuse { Arrival::Refused } else { Arrival::Connected };
            self.wires[lane].to_client.push_back((self.now.saturating_add(self.net.latency), result));
        }
        true
    }

    fn transmit(&mut self) -> bool {
        let mut progress = false;
        for lane in 0..self.wires.len() {
            let mut bytes = Vec::new();
            match self.engine.poll_transmit(lane, &mut bytes) {
                Transmit::Nothing => assert!(bytes.is_empty(), "bytes, but nothing to write"),
                Transmit::Linger => progress = true,
                Transmit::Ready => {
                    progress = true;
                    self.wires[lane].unwritten.extend_from_slice(&bytes);
                    self.outputs.push((self.now, lane, Output::Bytes(bytes)));
                }
            }
            progress |= self.write(lane);
        }
        progress
    }

    /// The socket takes a piece.
    fn write(&mut self, lane: usize) -> bool {
        let wire = &mut self.wires[lane];
        if !wire.open || wire.unwritten.is_empty() {
            return false;
        }
        let most = wire.unwritten.len().min(self.net.piece);
        let n = if self.net.piece == usize::MAX { most } else { self.rng.usize(1..=most) };
        let piece: Vec<u8> = wire.unwritten.drain(..n).collect();
        wire.to_server.push_back((self.now.saturating_add(self.net.latency), piece));
        self.engine.handle_written(self.now, lane, n);
        true
    }

    fn arrive(&mut self) -> bool {
        let mut progress = false;
        for lane in 0..self.wires.len() {
            progress |= self.arrive_at_server(lane) | self.arrive_at_client(lane);
        }
        self.engine.wake();
        progress
    }

    fn arrive_at_server(&mut self, lane: usize) -> bool {
        let wire = &mut self.wires[lane];
        let due = wire.to_server.front().is_some_and(|(at, _)| *at <= self.now);
        if !due || self.net.frozen {
            return false;
        }
        let Some((_, bytes)) = wire.to_server.pop_front() else { return false };
        let replies = self.server.receive(self.now, &mut wire.session, &bytes);
        let mut at = self.now.saturating_add(self.net.latency);
        let pieces = if self.net.trickle.is_zero() { replies.len() } else { 1 };
        for piece in replies.chunks(pieces.max(1)) {
            wire.to_client.push_back((at, Arrival::Bytes(piece.to_vec())));
            at = at.saturating_add(self.net.trickle);
        }
        true
    }

    fn arrive_at_client(&mut self, lane: usize) -> bool {
        let wire = &mut self.wires[lane];
        if wire.to_client.front().is_none_or(|(at, _)| *at > self.now) {
            return false;
        }
        match wire.to_client.pop_front() {
            Some((_, Arrival::Connected)) => {
                wire.open = true;
                self.engine.handle_connected(self.now, lane);
            }
            Some((_, Arrival::Refused)) => self.engine.handle_dial_failed(self.now, lane),
            Some((_, Arrival::Bytes(bytes))) => self.read(lane, &bytes),
            Some((_, Arrival::Fin)) => self.lose(lane, Disconnect::Lost),
            None => return false,
        }
        true
    }

    /// Reads what has arrived, in pieces.
    fn read(&mut self, lane: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.wires[lane].open {
            let most = bytes.len().min(self.net.piece);
            let n = if self.net.piece == usize::MAX { most } else { self.rng.usize(1..=most) };
            let (piece, rest) = bytes.split_at(n);
            bytes = rest;
            let wire = &mut self.wires[lane];
            wire.input.extend_from_slice(piece);
            let mut replies: Vec<Reply> = Vec::new();
            let decoded = wire.decoder.decode(&mut wire.input, &mut replies);
            if self.engine.handle_replies(self.now, lane, &mut replies).is_err() {
                self.wires[lane] = Wire::new();
            } else if let Err(error) = decoded {
                self.lose(lane, Disconnect::Protocol(error));
            }
        }
    }

    fn lose(&mut self, lane: usize, why: Disconnect) {
        self.wires[lane] = Wire::new();
        self.engine.handle_disconnected(self.now, lane, why);
    }

    /// Calls `handle_timeout` when it is due, and holds the engine to what it says about that.
    fn time_out(&mut self) -> bool {
        if self.engine.poll_timeout().is_none_or(|due| due > self.now) {
            return false;
        }
        self.engine.handle_timeout(self.now);
        self.engine.wake();
        self.timeouts += 1;
        let next = self.engine.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "timer stuck: {next:?} at {:?}", self.now);
        true
    }
}
