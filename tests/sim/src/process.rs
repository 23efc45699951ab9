//! A process: an engine and the sockets of its lanes, driven in rounds as the driver's task for a lane drives it.
//!
//! ```text
//!   dial, read all there is ─► decode ─► write ─► tell the engine, ask it ─► again, while anything was done
//! ```

use std::time::Duration;

use bytes::BytesMut;
use larder_engine::Instant;
use larder_engine::machine::{Action, Disconnect, Engine, Parts, Recorder, Transmit};
use larder_engine::resp::{Decoder, Limits, Reply};

use crate::canary::Canary;
use crate::choices::Choices;
use crate::net::{End, Net};
use crate::oracle::Oracle;
use crate::server::{CommandParser, Server};
use crate::setup::{Setup, millis};
use crate::tape::Tape;

/// A made-up secret's.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0x5ec2_e7c0_ffee_0001, |hash: u64, &byte| {
        (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

/// All that processes share.
pub(crate) struct Outside {
    pub(crate) now: Instant,
    pub(crate) setup: Setup,
    pub(crate) noise: Choices,
    pub(crate) net: Net,
    pub(crate) server: Server,
    /// Attempts to connect are not answered until then.
    pub(crate) swallow_until: Instant,
    pub(crate) oracle: Oracle,
    pub(crate) tape: Tape,
    pub(crate) canary: Option<Canary>,
}

impl Outside {
    /// Time goes on.
    pub(crate) fn go_to(&mut self, now: Instant) {
        self.now = now;
        self.noise = self.setup.noise_at(now);
    }

    /// The time as an engine is told it.
    pub(crate) fn clock(&mut self) -> Instant {
        if !self.noise.chance(self.setup.wrong_clocks) {
            return self.now;
        }
        let back = self.noise.duration(millis(self.setup.clock_back)).as_nanos() as u64;
        Instant::from_nanos(self.now.as_nanos().saturating_sub(back))
    }

    /// How much of this is moved at once.
    fn piece(&mut self, all: usize) -> usize {
        if all > 1 && self.noise.chance(self.setup.pieces) {
            1 + self.noise.below(all.min(64) as u32) as usize
        } else {
            all
        }
    }

    pub(crate) fn has(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }
}

enum State {
    Closed,
    /// The answer comes at this time; `NEVER` is none.
    Dialing(Instant),
    Open(usize),
}

struct Socket {
    state: State,
    decoder: Decoder,
    input: BytesMut,
    replies: Vec<Reply>,
    output: Vec<u8>,
    taken: usize,
    dials: u32,
    /// Commands that the engine has handed over on this connection; the parser counts them.
    handed: (usize, CommandParser),
    /// When a byte last moved.
    active_at: Instant,
    /// A canary: what the connection before has lost.
    late: BytesMut,
}

/// What the socket had to say in one round.
#[derive(Default)]
struct News {
    connected: bool,
    dial_failed: bool,
    received: bool,
    written: usize,
    disconnected: Option<Disconnect>,
}

pub(crate) struct Process {
    pub(crate) engine: Engine,
    id: usize,
    sockets: Vec<Socket>,
}

impl Process {
    pub(crate) fn new(
        id: usize,
        setup: &Setup,
        seed: u64,
        (now, canary, record): (Instant, Option<Canary>, Option<usize>),
    ) -> Self {
        let mut config = setup.engine();
        canary.into_iter().for_each(|canary| canary.misconfigure(&mut config));
        let socket = || Socket {
            state: State::Closed,
            decoder: Decoder::new(Limits::default()),
            input: BytesMut::new(),
            replies: Vec::new(),
            output: Vec::new(),
            taken: 0,
            dials: 0,
            handed: (0, CommandParser::default()),
            active_at: now,
            late: BytesMut::new(),
        };
        let sockets = (0..setup.lanes).map(|_| socket()).collect();
        let engine = match record {
            Some(bytes) => Engine::recorded(&config, seed, now, || Recorder::new(bytes, hash)),
            None => Engine::new(&config, seed, now),
        };
        Self { engine, id, sockets }
    }

    /// When the process goes on by itself.
    pub(crate) fn next(&self, outside: &Outside) -> Option<Instant> {
        let dials = self.sockets.iter().filter_map(|socket| match socket.state {
            State::Dialing(at) if !at.is_never() => Some(at),
            _ => None,
        });
        dials.chain(self.timer(outside)).min()
    }

    /// One round of each lane; the answer is whether anything was done.
    pub(crate) fn rounds(&mut self, outside: &mut Outside) -> bool {
        (0..self.sockets.len()).fold(false, |progress, lane| self.round(outside, lane) | progress)
    }

    /// Looks at each lane when all is done that is to be done at an instant.
    pub(crate) fn check(&mut self, outside: &mut Outside) {
        let Outside { now, net, oracle, .. } = outside;
        let now = *now;
        for (lane, socket) in self.sockets.iter().enumerate() {
            // The least hash that leads to this lane.
            let hash = ((lane as u128) << 64).div_ceil(self.sockets.len() as u128) as u64;
            let in_flight = self.engine.with_lane(hash, |lane| lane.in_flight());
            let (operations, bytes) = in_flight.unwrap_or_default();
            oracle.in_flight(now, self.id, operations, bytes);
            let State::Open(conn) = socket.state else { continue };
            if !self.engine.is_ready(lane) {
                continue;
            }
            let (answered, end) = net.conn(conn).answered();
            let bytes = socket.handed.1.consumed.saturating_sub(end) as usize;
            oracle.on_wire(now, self.id, socket.handed.0.saturating_sub(answered), bytes);
            if operations > 0 {
                oracle.silent(now, (self.id, lane), socket.active_at);
            }
        }
    }

    /// Commands in flight on a lane that serves, and their bytes.
    pub(crate) fn in_flight(&self, lane: usize) -> Option<(usize, usize)> {
        self.engine.is_ready(lane).then(|| self.engine.in_flight(lane))
    }

    fn timer(&self, outside: &Outside) -> Option<Instant> {
        if outside.has(Canary::NoTimers) {
            return None;
        }
        let due = self.engine.poll_timeout()?;
        let due = if outside.has(Canary::TimerIsAlwaysNow) { outside.now } else { due };
        Some(due.saturating_add(millis(outside.setup.timer_lateness)))
    }

    fn round(&mut self, outside: &mut Outside, lane: usize) -> bool {
        let mut news = News::default();
        self.dial(outside, lane, &mut news);
        self.read(outside, lane, &mut news);
        self.write(outside, lane, &mut news);
        self.exchange(outside, lane, &news)
    }

    fn dial(&mut self, outside: &mut Outside, lane: usize, news: &mut News) {
        let socket = &mut self.sockets[lane];
        let now = outside.now;
        let State::Dialing(at) = socket.state else { return };
        if at > now {
            return;
        }
        if outside.server.listens(now) {
            let conn = outside.net.connect((self.id, lane));
            outside.server.accept(now, conn, &mut outside.net);
            socket.state = State::Open(conn);
            news.connected = true;
        } else {
            socket.state = State::Closed;
            news.dial_failed = true;
        }
    }

    fn read(&mut self, outside: &mut Outside, lane: usize, news: &mut News) {
        let socket = &mut self.sockets[lane];
        let State::Open(conn) = socket.state else { return };
        let readable = outside.net.get(conn).down.readable(outside.now);
        if readable > 0 {
            let piece = outside.piece(readable);
            let mut bytes = Vec::new();
            outside.net.conn(conn).down.read(outside.now, piece, &mut bytes);
            socket.input.extend_from_slice(&bytes);
            news.received = true;
            socket.active_at = outside.now;
            if let Err(error) = socket.decoder.decode(&mut socket.input, &mut socket.replies) {
                news.disconnected = Some(Disconnect::Protocol(error));
            }
            if let (true, [first, second, ..]) =
                (outside.has(Canary::RepliesSwapped), &mut socket.replies[..])
            {
                std::mem::swap(first, second);
            }
        } else if outside.net.get(conn).down.ended(outside.now).is_some() {
            news.disconnected = Some(Disconnect::Lost);
        }
    }

    fn write(&mut self, outside: &mut Outside, lane: usize, news: &mut News) {
        let socket = &mut self.sockets[lane];
        let State::Open(id) = socket.state else { return };
        let rest = socket.output.get(socket.taken..).unwrap_or_default();
        let room = outside.net.get(id).up.room().min(rest.len());
        if room > 0 {
            let n = outside.piece(room);
            let arrival = outside.now.saturating_add(outside.setup.latency());
            let conn = outside.net.conn(id);
            conn.up.write(arrival, &rest[..n]);
            // No more than this may be sent before the reply to HELLO was read.
            if conn.hello_end.is_none_or(|end| conn.down.read < end) {
                conn.before_hello = conn.up.written;
            }
            socket.taken += n;
            socket.active_at = outside.now;
            news.written = n;
        }
        if socket.taken >= socket.output.len() {
            socket.output.clear();
            socket.taken = 0;
        }
    }

    /// Tells the engine the news, and does what it asks for.
    fn exchange(&mut self, outside: &mut Outside, lane: usize, news: &News) -> bool {
        let (now, told) = (outside.now, outside.clock());
        let mut progress = news.connected || news.dial_failed || news.received || news.written > 0;
        if news.connected {
            self.engine.handle_connected(told, lane);
        }
        if news.dial_failed {
            self.engine.handle_dial_failed(told, lane);
        }
        if news.written > 0 {
            self.engine.handle_written(told, lane, news.written);
        }
        if outside.has(Canary::HelloMadeUp) && news.written > 0 {
            self.make_replies_up(outside, lane, news.written);
        }
        if let (true, State::Open(conn)) = (news.received, &self.sockets[lane].state) {
            outside.oracle.received(*conn, outside.net.get(*conn).down.read);
        }
        self.late_replies_come(lane);
        let replies = &mut self.sockets[lane].replies;
        let received = news.received || !replies.is_empty();
        let broken = received && self.engine.handle_replies(told, lane, replies).is_err();
        if let Some(why) = news.disconnected {
            self.engine.handle_disconnected(told, lane, why);
        }
        if self.timer(outside).is_some_and(|due| due <= now) {
            progress = true;
            self.engine.handle_timeout(told);
            let due = self.engine.poll_timeout();
            let due = if outside.has(Canary::TimerIsAlwaysNow) { Some(told) } else { due };
            outside.oracle.timer_was_handled(told, due);
        }
        if news.disconnected.is_some() || broken {
            progress = true;
            self.hang_up(outside, lane);
        }
        while let Some((lane, action)) = self.engine.poll_action() {
            progress = true;
            self.act(outside, lane, action);
        }
        progress |= self.transmit(outside, lane);
        self.engine.wake();
        outside.oracle.engine_was_driven(now, self.id, &self.engine);
        progress
    }

    /// A canary: these bytes of a connection that is lost are received on the next.
    pub(crate) fn comes_later(&mut self, lane: usize, bytes: &[u8]) {
        self.sockets[lane].late.extend_from_slice(bytes);
    }

    fn late_replies_come(&mut self, lane: usize) {
        let is_there = !self.sockets[lane].late.is_empty();
        if is_there && self.in_flight(lane).is_some_and(|(operations, _)| operations > 0) {
            let Socket { late, replies, .. } = &mut self.sockets[lane];
            let mut come = Vec::new();
            // What the reset has torn in two is of no use to anybody.
            let _ = Decoder::new(Limits::default()).decode(late, &mut come);
            late.clear();
            replies.splice(0..0, come);
        }
    }

    /// A canary: the handshake is answered before the server has.
    fn make_replies_up(&mut self, outside: &Outside, lane: usize, written: usize) {
        let Socket { state: State::Open(conn), replies, .. } = &mut self.sockets[lane] else { return };
        let conn = outside.net.get(*conn);
        if conn.before_hello == conn.up.written {
            let is_hello = conn.up.written == written as u64;
            let ok = Reply::Simple("OK".into());
            replies.extend(if is_hello { vec![Reply::Map(Vec::new())] } else { vec![ok; 3] });
        }
    }

    fn transmit(&mut self, outside: &mut Outside, lane: usize) -> bool {
        let socket = &mut self.sockets[lane];
        if !socket.output.is_empty() {
            return false;
        }
        match self.engine.poll_transmit(lane, &mut socket.output) {
            Transmit::Nothing => outside.has(Canary::Busy),
            Transmit::Linger => true,
            Transmit::Ready => {
                outside.tape.bytes(outside.now, (self.id, lane), &socket.output);
                outside.oracle.wants_to_write(self.id, &socket.output);
                let (handed, parser) = &mut socket.handed;
                parser.buffer().extend_from_slice(&socket.output);
                while let Ok(Some(_)) = parser.next() {
                    *handed += 1;
                }
                socket.active_at = outside.now;
                true
            }
        }
    }

    fn act(&mut self, outside: &mut Outside, lane: usize, action: Action) {
        outside.tape.line(outside.now, || format!("process {} lane {lane}: {action:?}", self.id));
        self.hang_up(outside, lane);
        if action == Action::Dial {
            let dials = &mut self.sockets[lane].dials;
            *dials += 1;
            let swallowed =
                outside.swallow_until > outside.now || (outside.has(Canary::NoRedial) && *dials > 1);
            let round_trip: Duration = 2 * outside.setup.latency();
            let at = if swallowed { Instant::NEVER } else { outside.now.saturating_add(round_trip) };
            self.sockets[lane].state = State::Dialing(at);
        }
    }

    fn hang_up(&mut self, outside: &mut Outside, lane: usize) {
        let socket = &mut self.sockets[lane];
        if let State::Open(conn) = socket.state {
            outside.net.client_close(conn, outside.now.saturating_add(outside.setup.latency()), End::Fin);
        }
        socket.state = State::Closed;
        socket.decoder.reset();
        socket.input.clear();
        socket.replies.clear();
        socket.output.clear();
        socket.taken = 0;
        socket.handed = (0, CommandParser::default());
    }
}
