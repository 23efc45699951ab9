//! The inputs of a lane, as they are written down.

use alloc::vec::Vec;

use serde::de::DeserializeOwned;

use super::put;
use crate::machine::{Disconnect, OpId};
use crate::policy::Permit;
use crate::time::Instant;

/// Bytes that are as they were, and then those of which only length and hash are known.
pub(super) type Text = (Vec<u8>, u32, u64);

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

/// A reply, or the head of one with parts, which follow.
pub(crate) type Node = (u8, i64, Text);

/// What makes up an operation's name, and a permit.
pub(crate) type Id = (u32, u32);
pub(crate) type PermitParts = (u32, u32, bool);

/// Each input is postcard's enum: its number, and its fields.
macro_rules! inputs {
    ($($number:literal $name:ident { $($field:ident: $type:ty),* })*) => {
        /// One call of a lane that may change it. Times are nanoseconds.
        #[derive(Debug, PartialEq)]
        pub(crate) enum Input {
            $($name { $($field: $type),* },)*
        }

        impl Input {
            pub(super) fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field),* } => {
                        out.push($number);
                        $(put(out, $field);)*
                    })*
                }
            }

            /// Takes one off the front.
            pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
                let number: u8 = take(bytes)?;
                Some(match number {
                    $($number => Self::$name { $($field: take(bytes)?),* },)*
                    _ => return None,
                })
            }

            pub(super) fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => stringify!($name),)*
                }
            }
        }
    };
}

inputs! {
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

impl Input {
    pub(crate) fn submit(now: Instant, command: Command, permit: Permit, deadline: Instant) -> Self {
        let permit = permit.into_parts();
        Self::Submit { now: now.as_nanos(), deadline: deadline.as_nanos(), permit, command }
    }

    pub(crate) fn resubmit(id: OpId, command: Command) -> Self {
        Self::Resubmit { id: id.into_parts(), command }
    }

    pub(crate) fn disconnected(now: Instant, why: Disconnect) -> Self {
        let bad_byte_at = match why {
            Disconnect::Lost => None,
            Disconnect::Protocol(error) => Some(error.offset),
        };
        Self::Disconnected { now: now.as_nanos(), bad_byte_at }
    }
}

/// Takes a value off the front.
pub(super) fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
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
