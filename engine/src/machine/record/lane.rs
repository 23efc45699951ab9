//! The inputs of a lane, as they are written down, and made again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::task::Waker;
use core::time::Duration;

use bytes::Bytes;

use super::redact::{Digest, Redaction, replies_of, spelled};
use super::step::{Node, PermitParts, Text, inputs};
use super::{Machine, PartRecording, Recorder, recording};
use crate::archive::Archive;
use crate::config::LaneConfig;
use crate::machine::{Disconnect, Lane, LaneStats, OpId};
use crate::policy::Permit;
use crate::resp::{self, DecodeError, Key, Violation};
use crate::time::Instant;

impl Lane {
    /// Like [`Lane::new`], and writes down what it is told.
    #[must_use]
    pub fn recorded(config: LaneConfig, seed: u64, now: Instant, recorder: Recorder) -> Self {
        Self::new(config, seed, now).recorded_by(recorder)
    }

    /// What was written down of late.
    #[must_use]
    pub fn recording(&self) -> Option<PartRecording> {
        recording(self.recorder.as_deref())
    }
}

impl Machine for Lane {
    type Input = LaneInput;

    fn blank() -> Self {
        Self::new(LaneConfig::default(), 0, Instant::EPOCH)
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        Self::archive(self, archive);
    }

    fn is_at_rest(&self) -> bool {
        Self::is_at_rest(self)
    }

    fn look(&self, digest: &mut Digest<'_>) {
        let LaneStats { connects, dial_failures, losses, retries, timeouts, aborted } = self.stats();
        let (operations, bytes) = self.in_flight();
        let seen = [u64::from(self.is_ready()), u64::from(self.is_closed()), self.live() as u64];
        let flight = [operations as u64, bytes as u64, self.poll_timeout().map_or(0, Instant::as_nanos)];
        let stats = [connects, dial_failures, losses, retries, timeouts, aborted];
        seen.into_iter().chain(flight).chain(stats).for_each(|number| digest.number(number));
    }

    fn feed(&mut self, input: &LaneInput) -> Option<()> {
        let at = |nanos: &u64| Instant::from_nanos(*nanos);
        match input {
            LaneInput::Submit { now, deadline, permit, command } => {
                let (wire, key) = (wire_of(&command.wire)?, key_of(command)?);
                let command = encoded(command, &wire, &key);
                let _ = self.submit(at(now), &command, Permit::from_parts(*permit), at(deadline));
            }
            LaneInput::Poll { id } => drop(self.poll(OpId::from_parts(*id), Waker::noop())),
            LaneInput::Resubmit { id, command } => {
                let (wire, key) = (wire_of(&command.wire)?, key_of(command)?);
                self.resubmit(OpId::from_parts(*id), &encoded(command, &wire, &key));
            }
            LaneInput::Cancel { id } => self.cancel(OpId::from_parts(*id)),
            LaneInput::Close { now, until } => self.close(at(now), at(until)),
            LaneInput::Probe { now, permit } => self.probe(at(now), Permit::from_parts(*permit)),
            LaneInput::Connected { now } => self.handle_connected(at(now)),
            LaneInput::DialFailed { now } => self.handle_dial_failed(at(now)),
            LaneInput::Replies { now, replies } => {
                let _ = self.handle_replies(at(now), &mut replies_of(replies)?);
            }
            LaneInput::Written { now, bytes } => self.handle_written(at(now), usize::try_from(*bytes).ok()?),
            LaneInput::Disconnected { now, bad_byte_at } => {
                // What was wrong with the byte only the message of the error says.
                let violation = Violation::UnknownType(b'?');
                let why = bad_byte_at.map_or(Disconnect::Lost, |offset| {
                    Disconnect::Protocol(DecodeError { offset, violation })
                });
                self.handle_disconnected(at(now), why);
            }
            LaneInput::TimedOut { now } => self.handle_timeout(at(now)),
            LaneInput::Action {} => drop(self.poll_action()),
            LaneInput::Transmit {} => {
                let _ = self.poll_transmit(&mut Vec::new());
            }
            LaneInput::Signals {} => self.drain_signals().for_each(drop),
            LaneInput::Doubt {} => self.doubt(),
        }
        Some(())
    }

    fn recorder(&mut self) -> &mut Option<Box<Recorder>> {
        &mut self.recorder
    }
}

/// A command on the wire; its words of callers are replaced.
#[derive(Debug, PartialEq)]
pub(crate) struct Command {
    pub(super) wire: Vec<Text>,
    pub(super) idempotent: bool,
    pub(super) may_be_denied: bool,
    pub(super) writes: bool,
    /// Whether it is a write that names its key: its first word of a caller.
    pub(super) keyed: bool,
}

impl Command {
    fn new(redaction: &Redaction, command: &resp::Command<'_>) -> Self {
        Self {
            wire: redaction.command(command),
            idempotent: command.is_idempotent(),
            may_be_denied: command.may_be_denied(),
            writes: command.is_write(),
            keyed: command.write_key().is_some(),
        }
    }
}

/// What makes up an operation's name.
type Id = (u32, u32);

inputs! {
    /// One call of a lane that may change it. Times are nanoseconds.
    LaneInput:
    0 Submit { now: u64, deadline: u64, permit: PermitParts, command: Command }
    1 Poll { id: Id }
    2 Resubmit { id: Id, command: Command }
    3 Cancel { id: Id }
    4 Close { now: u64, until: u64 }
    5 Probe { now: u64, permit: PermitParts }
    6 Connected { now: u64 }
    7 DialFailed { now: u64 }
    8 Replies { now: u64, replies: Vec<Node> }
    9 Written { now: u64, bytes: u64 }
    10 Disconnected { now: u64, bad_byte_at: Option<u64> }
    11 TimedOut { now: u64 }
    12 Action {}
    13 Transmit {}
    14 Signals {}
    15 Doubt {}
}

impl LaneInput {
    pub(crate) fn submit(
        redaction: &Redaction,
        now: Instant,
        command: &resp::Command<'_>,
        permit: Permit,
        deadline: Instant,
    ) -> Self {
        let command = Command::new(redaction, command);
        let permit = permit.into_parts();
        Self::Submit { now: now.as_nanos(), deadline: deadline.as_nanos(), permit, command }
    }

    pub(crate) fn resubmit(redaction: &Redaction, id: OpId, command: &resp::Command<'_>) -> Self {
        Self::Resubmit { id: id.into_parts(), command: Command::new(redaction, command) }
    }

    pub(crate) fn disconnected(now: Instant, why: Disconnect) -> Self {
        let bad_byte_at = match why {
            Disconnect::Lost => None,
            Disconnect::Protocol(error) => Some(error.offset),
        };
        Self::Disconnected { now: now.as_nanos(), bad_byte_at }
    }
}

impl serde::Serialize for Command {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.idempotent, self.may_be_denied, self.writes, self.keyed, &self.wire).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Command {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (idempotent, may_be_denied, writes, keyed, wire) = serde::Deserialize::deserialize(deserializer)?;
        Ok(Self { wire, idempotent, may_be_denied, writes, keyed })
    }
}

fn wire_of(texts: &[Text]) -> Option<Vec<u8>> {
    let texts: Option<Vec<Bytes>> = texts.iter().map(spelled).collect();
    Some(texts?.concat())
}

/// The key of a write, empty for other commands.
fn key_of(command: &Command) -> Option<Bytes> {
    match command.wire.first() {
        Some((_, len, hash)) if command.keyed => spelled(&(Vec::new(), *len, *hash)),
        _ => Some(Bytes::new()),
    }
}

fn encoded<'a>(command: &Command, wire: &'a [u8], key: &'a [u8]) -> resp::Command<'a> {
    let Command { idempotent, may_be_denied, writes, keyed, .. } = *command;
    resp::Command::Encoded {
        wire,
        idempotent,
        may_be_denied,
        writes,
        key: keyed.then_some(Key { namespace: b"", key }),
    }
}

impl fmt::Display for LaneInput {
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

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = wire_of(&self.wire).unwrap_or_default();
        let shown = wire.get(..80).unwrap_or(&wire);
        write!(f, "{} bytes: {}", wire.len(), shown.escape_ascii())
    }
}
