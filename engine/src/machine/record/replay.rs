//! Recordings as files, and what comes of them when they are replayed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::task::Waker;
use core::time::Duration;

use bytes::Bytes;

use super::redact::{replies_of, spell};
use super::step::{self, Input, Text, take};
use super::{MAGIC, Recorder, backoff_of, put};
use crate::config::{Credentials, LaneConfig, Secret};
use crate::machine::{Disconnect, Lane, OpId};
use crate::policy::Permit;
use crate::resp::{Command, DecodeError, Key, Violation};
use crate::time::Instant;

/// What the lanes of a cache were told; each is replayed by itself.
///
/// It is a file: a magic number, then postcard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// In the order of their numbers.
    pub lanes: Vec<LaneRecording>,
}

/// What one lane was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneRecording {
    pub(super) header: Vec<u8>,
    pub(super) steps: Vec<u8>,
    pub(super) count: u64,
    pub(super) left_out: u64,
}

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Steps that were replayed.
    pub steps: u64,
    /// Steps that came after the recording was full.
    pub left_out: u64,
    /// The first step that went otherwise.
    pub difference: Option<Difference>,
}

/// A step of which not the same came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The lane, from 0.
    pub lane: usize,
    /// The step of the lane, from 0.
    pub step: u64,
    /// What the lane was told.
    pub input: String,
    /// The hash of what came of it then, and now.
    pub hashes: (u32, u32),
}

/// A recording that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecording {
    /// It is something else, or of another version.
    #[error("this is no recording of this version of Larder")]
    NotOne,
    /// Its end is missing, or bytes have changed.
    #[error("the recording is damaged at step {step} of lane {lane}")]
    Damaged {
        /// The lane, from 0.
        lane: usize,
        /// The step of the lane, from 0.
        step: u64,
    },
}

impl LaneRecording {
    /// Steps that were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Steps that came after the recording was full.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Recording {
    /// Whether these bytes begin as a recording does.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// The recording as a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, &(self.lanes.len() as u64));
        for lane in &self.lanes {
            put(&mut out, &(lane.count, lane.left_out, &lane.header, &lane.steps));
        }
        out
    }

    /// A recording from its file.
    ///
    /// # Errors
    /// It is none, or its end is missing. What is wrong with its steps is found when it is replayed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadRecording> {
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(BadRecording::NotOne)?;
        let lanes: u64 = take(&mut rest).ok_or(BadRecording::NotOne)?;
        let lane = |index: u64| {
            let lane = usize::try_from(index).unwrap_or(usize::MAX);
            let parts = take(&mut rest).ok_or(BadRecording::Damaged { lane, step: 0 })?;
            let (count, left_out, header, steps) = parts;
            Ok(LaneRecording { header, steps, count, left_out })
        };
        Ok(Self { lanes: (0..lanes).map(lane).collect::<Result<_, _>>()? })
    }

    /// Feeds new lanes what the recorded ones were told, and compares what comes of each step: the bytes on the wire, how
    /// operations end, what the breaker is told, when to come back, counters. `see` is shown each step, with its lane.
    ///
    /// # Errors
    /// The recording is damaged.
    pub fn replay(&self, mut see: impl FnMut(usize, &dyn fmt::Display)) -> Result<Replayed, BadRecording> {
        let mut replayed = Replayed { steps: 0, left_out: 0, difference: None };
        for (index, lane) in self.lanes.iter().enumerate() {
            replayed.left_out += lane.left_out;
            let (steps, difference) = replay_lane(index, lane, &mut see)?;
            replayed.steps += steps;
            replayed.difference = replayed.difference.or(difference);
        }
        Ok(replayed)
    }
}

fn replay_lane(
    index: usize,
    recording: &LaneRecording,
    see: &mut impl FnMut(usize, &dyn fmt::Display),
) -> Result<(u64, Option<Difference>), BadRecording> {
    let damaged = |step| BadRecording::Damaged { lane: index, step };
    let mut header = &recording.header[..];
    let (mut lane, mut steps) = (build(&mut header).ok_or_else(|| damaged(0))?, &recording.steps[..]);
    for step in 0..recording.count {
        let input = Input::decode(&mut steps).ok_or_else(|| damaged(step))?;
        let expected: u32 = take(&mut steps).ok_or_else(|| damaged(step))?;
        feed(&mut lane, &input).ok_or_else(|| damaged(step))?;
        let got = lane.take_latest_hash();
        see(index, &input);
        if got != Some(expected) {
            let hashes = (expected, got.unwrap_or_default());
            return Ok((step, Some(Difference { lane: index, step, input: input.to_string(), hashes })));
        }
    }
    if steps.is_empty() { Ok((recording.count, None)) } else { Err(damaged(recording.count)) }
}

/// The lane as it was when the recording began.
fn build(header: &mut &[u8]) -> Option<Lane> {
    let (seed, now): (u64, u64) = take(header)?;
    let mut config = LaneConfig::default();
    (config.connect_timeout, config.stall_timeout, config.health_check_interval) = take(header)?;
    let (fail_fast, in_flight, bytes, waiting): (bool, u64, u64, u64) = take(header)?;
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    config.fail_fast = fail_fast;
    (config.max_in_flight, config.max_in_flight_bytes, config.max_waiting) =
        (size(in_flight), size(bytes), size(waiting));
    let budget = &mut config.retry.budget;
    (config.retry.attempts, budget.max_tokens, budget.success_refill_milli) = take(header)?;
    config.reconnect = backoff_of(take(header)?)?;
    config.retry.backoff = backoff_of(take(header)?)?;
    let user: Option<(Option<u64>, u64)> = take(header)?;
    let (database, name): (u32, Option<u64>) = take(header)?;
    if let Some((username, password)) = user {
        let username = match username {
            Some(len) => Some(stand_in(len)?),
            None => None,
        };
        config.handshake.credentials =
            Some(Credentials { username, password: Secret::from(&stand_in(password)?) });
    }
    config.handshake.database = database;
    if let Some(len) = name {
        config.handshake.client_name = Some(stand_in(len)?);
    }
    let now = Instant::from_nanos(now);
    Some(Lane::recorded(config, seed, now, Recorder::verbatim()))
}

fn stand_in(len: u64) -> Option<Bytes> {
    spell(&(Vec::new(), u32::try_from(len).ok()?, 0))
}

/// Makes a step; `None` is one that no lane can have made.
fn feed(lane: &mut Lane, input: &Input) -> Option<()> {
    let at = |nanos: &u64| Instant::from_nanos(*nanos);
    match input {
        Input::Submit { now, deadline, permit, command } => {
            let (wire, key) = (wire_of(&command.wire)?, key_of(command)?);
            let command = encoded(command, &wire, &key);
            let _ = lane.submit(at(now), &command, Permit::from_parts(*permit), at(deadline));
        }
        Input::Poll { id } => drop(lane.poll(OpId::from_parts(*id), Waker::noop())),
        Input::Resubmit { id, command } => {
            let (wire, key) = (wire_of(&command.wire)?, key_of(command)?);
            lane.resubmit(OpId::from_parts(*id), &encoded(command, &wire, &key));
        }
        Input::Cancel { id } => lane.cancel(OpId::from_parts(*id)),
        Input::Close { now, until } => lane.close(at(now), at(until)),
        Input::Probe { now, permit } => lane.probe(at(now), Permit::from_parts(*permit)),
        Input::Connected { now } => lane.handle_connected(at(now)),
        Input::DialFailed { now } => lane.handle_dial_failed(at(now)),
        Input::Replies { now, replies } => {
            let _ = lane.handle_replies(at(now), &mut replies_of(replies)?);
        }
        Input::Written { now, bytes } => lane.handle_written(at(now), usize::try_from(*bytes).ok()?),
        Input::Disconnected { now, bad_byte_at } => {
            // What was wrong with the byte only the message of the error says.
            let violation = Violation::UnknownType(b'?');
            let why = bad_byte_at
                .map_or(Disconnect::Lost, |offset| Disconnect::Protocol(DecodeError { offset, violation }));
            lane.handle_disconnected(at(now), why);
        }
        Input::TimedOut { now } => lane.handle_timeout(at(now)),
        Input::Action {} => drop(lane.poll_action()),
        Input::Transmit {} => {
            let _ = lane.poll_transmit(&mut Vec::new());
        }
        Input::Signals {} => lane.drain_signals().for_each(drop),
        Input::Doubt {} => lane.doubt(),
    }
    Some(())
}

fn wire_of(texts: &[Text]) -> Option<Vec<u8>> {
    let texts: Option<Vec<Bytes>> = texts.iter().map(spell).collect();
    Some(texts?.concat())
}

/// The key of a write, empty for other commands.
fn key_of(command: &step::Command) -> Option<Bytes> {
    match command.wire.first() {
        Some((_, len, hash)) if command.keyed => spell(&(Vec::new(), *len, *hash)),
        _ => Some(Bytes::new()),
    }
}

fn encoded<'a>(command: &step::Command, wire: &'a [u8], key: &'a [u8]) -> Command<'a> {
    let step::Command { idempotent, may_be_denied, writes, keyed, .. } = *command;
    Command::Encoded {
        wire,
        idempotent,
        may_be_denied,
        writes,
        key: keyed.then_some(Key { namespace: b"", key }),
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |nanos: &u64| Duration::from_nanos(*nanos);
        let name = self.name();
        match self {
            Self::Submit { now, command, .. } => write!(f, "{:?} {name} {command}", at(now)),
            Self::Resubmit { id, command } => write!(f, "{name} {id:?} {command}"),
            Self::Poll { id } | Self::Cancel { id } => write!(f, "{name} {id:?}"),
            Self::Close { now, until } => write!(f, "{:?} {name} until {:?}", at(now), at(until)),
            Self::Replies { now, replies } => {
                write!(f, "{:?} {name} {:?}", at(now), replies_of(replies).unwrap_or_default())
            }
            Self::Written { now, bytes } => write!(f, "{:?} {name} {bytes} bytes", at(now)),
            Self::Disconnected { now, bad_byte_at: None } => write!(f, "{:?} {name}", at(now)),
            Self::Disconnected { now, bad_byte_at: Some(offset) } => {
                write!(f, "{:?} {name} because of byte {offset}", at(now))
            }
            Self::Probe { now, .. }
            | Self::Connected { now }
            | Self::DialFailed { now }
            | Self::TimedOut { now } => write!(f, "{:?} {name}", at(now)),
            Self::Action {} | Self::Transmit {} | Self::Signals {} | Self::Doubt {} => f.write_str(name),
        }
    }
}

impl fmt::Display for step::Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = wire_of(&self.wire).unwrap_or_default();
        let shown = wire.get(..80).unwrap_or(&wire);
        write!(f, "{} bytes: {}", wire.len(), shown.escape_ascii())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lane, step, input, hashes: (then, now) } = self;
        write!(f, "step {step} of lane {lane} had another result ({then:08x} then, {now:08x} now): {input}")
    }
}
