//! The machines that make up a cache on Redis, and [`Engine`], which is all of them in one.
//!
//! ```text
//!   caller ──► Operation / Clear ──┬──► Circuit   may it go to Redis?
//!                                  ├──► Lane      one connection: link, slots, retries, deadlines
//!                                  └──► Tier      what can be said without Redis: mirrors and journal
//!                          Replay ────► Circuit, Lane, Tier: brings the journal to Redis
//! ```
//!
//! A driver that wants a lock for each keeps them apart and implements [`Parts`]; tests and the simulator use
//! [`Engine`].

mod circuit;
mod clear;
mod engine;
mod journal;
mod lane;
mod operation;
mod outcome;
mod record;
mod replay;
mod request;
mod slots;
mod sweep;
mod tier;

#[cfg(test)]
mod tests;

pub use crate::link::{Action, Cause, DialError, Disconnect, Fatal, HandshakeError, Transmit};
pub use circuit::Circuit;
pub use clear::{Clear, Cleared};
pub use engine::{Engine, EngineConfig};
pub use lane::Lane;
pub use operation::{Operation, Parts, Tally, key_hash, lane_index};
pub use outcome::{Failure, LaneStats, Outcome, Progress, Refused, Signal};
pub use record::{BadRecording, Difference, Part, PartRecording, Recorder, Recording, Replayed};
pub use replay::Replay;
pub use request::{Answer, KeyBuf, OperationError, Request, Source};
pub use slots::OpId;
pub use tier::{Fence, Found, Reconcile, Tier, TierConfig, TierFull};
