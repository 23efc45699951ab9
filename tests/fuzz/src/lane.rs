//! A connection: what the server says in the handshake, and what callers, time and the network do after it.

use std::collections::BTreeSet;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use larder_engine::Instant;
use larder_engine::config::{Credentials, LaneConfig, Secret};
use larder_engine::machine::{Action, Disconnect, Lane, OpId, Outcome, Progress, Refused, Signal, Transmit};
use larder_engine::policy::{Breaker, BreakerConfig, Permit};
use larder_engine::resp::{Command, Decoder, Key, Limits, Reply};

use crate::Choices;

/// A lane with its socket: what a driver would keep.
struct World {
    lane: Lane,
    decoder: Decoder,
    input: BytesMut,
    now: Instant,
    connected: bool,
    /// Commands that the server has received and not answered.
    asked: Vec<Asked>,
    /// Whether the server has said what no Redis says: then values prove nothing any more.
    insane: bool,
    /// Whether a connection has ended with writes unanswered, and no other has ended it for sure since.
    left_writes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Hello,
    /// `CLIENT INFO`
    Who,
    /// `CLIENT KILL`
    Kill,
    Ping,
    Get(u8),
    Set,
    Other,
}

impl World {
    fn new(config: LaneConfig) -> Self {
        let now = Instant::EPOCH;
        let decoder = Decoder::new(Limits::default());
        let lane = Lane::new(config, 1, now);
        Self {
            lane,
            decoder,
            input: BytesMut::new(),
            now,
            connected: false,
            asked: Vec::new(),
            insane: false,
            left_writes: false,
        }
    }

    /// What a driver does after every input.
    fn drive(&mut self) {
        let strays = self.lane.take_strays();
        assert!(self.insane || strays.is_empty(), "each connection was fenced");
        while let Some(action) = self.lane.poll_action() {
            self.end();
            self.input.clear();
            self.decoder.reset();
            if action == Action::Dial {
                self.lane.handle_connected(self.now);
                self.connected = true;
            }
        }
        let mut out = Vec::new();
        while self.lane.poll_transmit(&mut out) == Transmit::Linger {}
        if self.connected && !out.is_empty() {
            self.lane.handle_written(self.now, out.len());
            self.receive(&out);
        }
        let mut wakers = Vec::new();
        self.lane.take_wakers(&mut wakers);
        let signals: Vec<Signal> = self.lane.drain_signals().collect();
        assert!(signals.len() < 10_000, "signals pile up");
    }

    /// The connection is no more.
    fn end(&mut self) {
        self.connected = false;
        self.left_writes |= self.asked.contains(&Asked::Set);
        self.asked.clear();
    }

    fn receive(&mut self, commands: &[u8]) {
        let mut words = Vec::new();
        Decoder::new(Limits::default())
            .decode(&mut BytesMut::from(commands), &mut words)
            .expect("whole commands");
        for command in words {
            let Reply::Array(words) = command else { panic!("not a command") };
            let word = |at: usize| words.get(at).and_then(Reply::as_bytes).unwrap_or_default();
            let asked = match (word(0), word(1)) {
                (b"GET", [key, ..]) => Asked::Get(*key),
                (b"SET", _) => Asked::Set,
                (b"HELLO", _) => Asked::Hello,
                (b"CLIENT", b"INFO") => Asked::Who,
                (b"CLIENT", b"KILL") => Asked::Kill,
                (b"PING", _) => Asked::Ping,
                _ => Asked::Other,
            };
            let fences = asked == Asked::Kill;
            assert!(!fences || self.left_writes || self.insane, "there is nobody to be ended");
            self.asked.push(asked);
        }
    }

    /// The server says something.
    fn say(&mut self, bytes: &[u8]) {
        if !self.connected {
            return;
        }
        self.input.extend_from_slice(bytes);
        let mut replies = Vec::new();
        let decoded = self.decoder.decode(&mut self.input, &mut replies);
        let fatal = self.lane.handle_replies(self.now, &mut replies).is_err();
        if decoded.is_err() || fatal {
            let why = decoded.map_or_else(Disconnect::Protocol, |()| Disconnect::Lost);
            self.lane.handle_disconnected(self.now, why);
            self.end();
        }
    }

    /// The server answers the oldest command as a Redis would.
    fn answer(&mut self) {
        if self.asked.is_empty() || !self.connected {
            return;
        }
        match self.asked.remove(0) {
            Asked::Get(key) => self.say(&[b'$', b'1', b'\r', b'\n', key, b'\r', b'\n']),
            Asked::Hello => self.say(b"%1\r\n+proto\r\n:3\r\n"),
            Asked::Who => self.say(b"$21\r\nid=3 addr=[::1]:49152\r\n"),
            Asked::Kill => {
                self.left_writes = false;
                self.say(b":1\r\n");
            }
            Asked::Ping => self.say(b"+PONG\r\n"),
            Asked::Set | Asked::Other => self.say(b"+OK\r\n"),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.lane.handle_timeout(self.now);
        let next = self.lane.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a timer in the past: {next:?} at {:?}", self.now);
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.end();
            self.lane.handle_disconnected(self.now, Disconnect::Lost);
        }
    }
}

fn permit() -> Permit {
    Breaker::new(BreakerConfig::default(), 0).admit(Instant::EPOCH).expect("closed")
}

/// A server that answers anything to what is said on a new connection.
pub fn handshake(data: &[u8]) {
    let mut choices = Choices(data);
    let flags = choices.byte();
    let mut config = LaneConfig::default();
    config.handshake.database = u32::from(flags & 1);
    config.handshake.client_name = (flags & 2 != 0).then(|| "name".into());
    config.handshake.credentials = (flags & 4 != 0).then(|| Credentials {
        username: (flags & 8 != 0).then(|| "user".into()),
        password: Secret::from("secret"),
    });
    let mut world = World::new(config);
    world.insane = true;
    world.drive();
    while !choices.is_empty() {
        world.say(choices.bytes());
        world.drive();
        if world.lane.is_ready() {
            // What the next one has to fence.
            let deadline = world.now.saturating_add(Duration::from_secs(5));
            let _ = world.lane.submit(world.now, &command(b"b"), permit(), deadline);
            world.drive();
        }
        if let Some(error) = world.lane.last_error() {
            assert!(flags & 4 == 0 || !format!("{error} {error:?}").contains("secret"));
        }
        if !world.connected {
            world.pass(Duration::from_secs(120));
            world.drive();
        }
    }
}

/// Submit, cancel, bytes, time, disconnect, in any order: every operation ends once and with its own value, timers lie in
/// the future, bounds hold.
pub fn link(data: &[u8]) {
    let mut choices = Choices(data);
    let mut config = LaneConfig::default();
    config.max_in_flight = 4;
    config.max_waiting = 4;
    config.fail_fast = choices.byte() & 1 == 0;
    let mut world = World::new(config);
    let mut live: Vec<(OpId, u8)> = Vec::new();
    let mut ended: BTreeSet<OpId> = BTreeSet::new();
    world.drive();
    while !choices.is_empty() {
        let choice = choices.byte();
        match choice % 10 {
            0..=2 => submit(&mut world, b'a' + choice % 26, &mut live),
            3 if !live.is_empty() => {
                let (id, _) = live.remove(usize::from(choices.byte()) % live.len());
                world.lane.cancel(id);
                assert!(ended.insert(id), "a cancelled operation had ended before");
            }
            4 | 5 | 9 => world.answer(),
            6 => world.pass(Duration::from_millis(u64::from(choices.byte()) * 20)),
            7 => world.disconnect(),
            8 => {
                world.insane = true;
                world.say(choices.bytes());
            }
            _ => {}
        }
        world.drive();
        collect(&mut world, &mut live, &mut ended);
        let (operations, _) = world.lane.in_flight();
        assert!(operations <= 4 + 1, "{operations} in flight, a PING included");
    }
    world.lane.close(world.now, world.now);
    world.drive();
    collect(&mut world, &mut live, &mut ended);
    assert!(live.is_empty(), "a closed lane has forgotten {live:?}");
    assert!(world.lane.is_closed() && world.lane.live() == 0);
}

/// Of a key always the same: of every other one its value is read, of the others it is written.
fn command(key: &[u8; 1]) -> Command<'_> {
    let whole = Key { namespace: b"", key };
    match is_read(key[0]) {
        true => Command::Get(whole),
        false => Command::Set { key: whole, value: key, ttl: None },
    }
}

const fn is_read(key: u8) -> bool {
    key % 2 == 1
}

fn submit(world: &mut World, key: u8, live: &mut Vec<(OpId, u8)>) {
    let deadline = world.now.saturating_add(Duration::from_secs(5));
    match world.lane.submit(world.now, &command(&[key]), permit(), deadline) {
        Ok(id) => live.push((id, key)),
        Err(refused) => assert!(matches!(refused, Refused::Overloaded), "{refused:?}"),
    }
}

/// Takes every outcome there is.
fn collect(world: &mut World, live: &mut Vec<(OpId, u8)>, ended: &mut BTreeSet<OpId>) {
    live.retain(|&(id, key)| {
        loop {
            match world.lane.poll(id, Waker::noop()) {
                Poll::Pending => return true,
                Poll::Ready(Progress::Again) => world.lane.resubmit(id, &command(&[key])),
                Poll::Ready(Progress::Done(outcome, _)) => {
                    assert!(ended.insert(id), "an operation ended twice");
                    match outcome {
                        Outcome::Reply(reply) if !world.insane => {
                            let expected: &[u8] = if is_read(key) { &[key] } else { b"OK" };
                            assert_eq!(reply.as_bytes(), Some(expected), "the reply to another command");
                        }
                        Outcome::Reply(_) | Outcome::Failed(_) => {}
                    }
                    return false;
                }
            }
        }
    });
}
