//! The Redis protocol, RESP2 and RESP3: bytes to replies, commands to bytes.
//!
//! ```text
//!              ┌───────────────────────── Decoder ─────────────────────────┐
//!  BytesMut ──►│ scan: finds tokens, checks grammar and limits, once per   │──► Vec<Reply>
//!              │ byte ──► tape of tokens ──► assemble: makes the replies   │
//!              └───────────────────────────────────────────────────────────┘
//!  Command  ──► encode ──► Vec<u8>
//! ```
//!
//! Nothing is built before the whole frame is there and has passed every check, and what is built are slices of the
//! input. Replies of both protocol versions are accepted at any time, so a connection that fell back to RESP2, or a
//! server that answers `$-1` after `HELLO 3`, needs no mode.
//!
//! An `OK` or a bulk string that is there as a whole is a reply at once, without the tape. It is the same reply, for the
//! same work, as by the long way.
//!
//! Aggregates are assembled here too, in one loop over the tape. The crate redis-protocol was to do that, but even of
//! a complete and checked frame it gets too much wrong: in RESP3 it refuses `$-1`, `*-1`, error lines that are not
//! UTF-8, unknown verbatim formats and aggregates as map keys, loses duplicates and the order of maps and sets, and
//! stumbles over an attribute before a null. In the tests it is the second opinion on all the rest.
mod assemble;
mod command;
mod decode;
mod encode;
mod error;
mod pieces;
mod reply;
mod scan;
mod shortcut;
mod tape;

#[cfg(test)]
mod hazards;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod testing;

pub(crate) use command::millis;
pub use command::{Command, Key};
pub use decode::Decoder;
pub use error::{DecodeError, ErrorClass, ReplyError, ServerError, Violation};
pub use reply::Reply;

/// How much a server may send in one frame (one reply, with everything nested in it). What is beyond ends the
/// connection, with a [`DecodeError`] that says which limit it was.
///
/// A partial frame occupies its own bytes plus 24 to 48 bytes per element, in a list that doubles; the finished
/// [`Reply`] another 40 per element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Aggregates within one another; 32 by default, at most [`Limits::MAX_DEPTH`] (more is taken as that). Replies
    /// that a cache asks for are at most three deep.
    pub depth: u32,
    /// Bytes of one line (simple strings, errors, numbers) without its type byte and line end; 64 KiB by default.
    pub line: usize,
    /// Bytes of one bulk string; 64 MiB by default.
    pub bulk: usize,
    /// Elements of all aggregates of a frame together, a map's pair being two; 1 Mi by default.
    pub elements: usize,
    /// Bytes of a frame; 128 MiB by default.
    pub frame: usize,
}

impl Limits {
    /// The deepest nesting that [`Limits::depth`] can allow: dropping or comparing a [`Reply`] recurses.
    pub const MAX_DEPTH: u32 = 128;
    /// The most that the other limits can allow (more is taken as that): a quarter of the address space.
    pub const MAX_SIZE: usize = usize::MAX / 4;
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 32, line: 64 << 10, bulk: 64 << 20, elements: 1 << 20, frame: 128 << 20 }
    }
}
