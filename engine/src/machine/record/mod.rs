//! Recordings: what a lane was told, so that what it did can be seen again elsewhere, step by step.
//!
//! A [`Lane`](super::Lane) is a pure machine: the same configuration, seed and inputs give the same outputs, byte for byte. One
//! that was built with [`Lane::recorded`](super::Lane::recorded) writes its inputs down, and beside each a hash of what came of it.
//! [`Recording::replay`] feeds them to a new lane and says where the two part.
//!
//! ```text
//!   driver ──► Lane ──► wire, outcomes, signals, timeouts ──► hash ─┐
//!                │ inputs                                           ▼
//!                └────────────────► Recorder: config, seed, (input, hash), (input, hash) … ──► postcard
//!                                                                             │
//!                             Recording::replay: a new Lane ──► hash  = ? ◄───┘
//! ```
//!
//! # What is in it
//!
//! **No key, value, password or user name**, of callers or of the server. Each is replaced by its length and a hash under a key that
//! is not in the recording, and becomes made-up letters of that length when it is replayed. So frames have the sizes that they had,
//! what was equal stays equal, and a guess cannot be tried. The server's errors keep the words that the engine understands, and its
//! answer to `CLIENT INFO` the number of the connection, and of our address the punctuation and the zeros. What stays as it was:
//! names of commands, numbers (times to live, cursors, counts), the number of the database, times and sizes. The hashes of outputs
//! are of the replaced text.
//!
//! # From the beginning, up to a bound
//!
//! A machine can only be replayed from a state that is known, and that is how it was built. So a recording begins with the lane, and
//! ends when it has taken up the bytes that it may; what is [left out](LaneRecording::left_out) is its end, not its beginning. What an
//! operation takes does not depend on the size of its value.
//!
//! Breaker, fallback tier and journal are machines of their own, whose inputs are not recorded; what a lane tells the breaker is
//! among its outputs.

mod redact;
mod replay;
mod step;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use super::Lane;
use crate::config::{HandshakeConfig, LaneConfig};
use crate::policy::{Backoff, Jitter, RetryPolicy};
use crate::resp::{Command, Reply};
use crate::time::Instant;

use redact::{Digest, Redaction};
pub use replay::{BadRecording, Difference, LaneRecording, Recording, Replayed};
pub(crate) use step::Input;

/// How a recording begins; the last byte counts the versions of the format.
const MAGIC: [u8; 8] = *b"larder\x00\x01";

/// Writes down what a lane is told. Hand it to [`Lane::recorded`](super::Lane::recorded).
pub struct Recorder {
    redaction: Redaction,
    /// How the lane was built, and the steps.
    header: Vec<u8>,
    steps: Vec<u8>,
    max_bytes: usize,
    count: u64,
    left_out: u64,
    /// What came of the latest step, until somebody asks.
    latest: Option<u32>,
}

impl Recorder {
    /// Keeps at most `max_bytes` of steps. `hash` stands for keys and values: a hash with a secret key, so that nobody can find them
    /// by trying. It is asked once for each, in the path of the operation.
    pub fn new(max_bytes: usize, hash: impl Fn(&[u8]) -> u64 + Send + Sync + 'static) -> Self {
        Self::with(Redaction::Hashed(Box::new(hash)), max_bytes)
    }

    /// One for a replay: everything is as it is, and only the hashes of outputs are of interest.
    fn verbatim() -> Self {
        Self::with(Redaction::Verbatim, 0)
    }

    fn with(redaction: Redaction, max_bytes: usize) -> Self {
        let (header, steps) = (Vec::new(), Vec::new());
        Self { redaction, header, steps, max_bytes, count: 0, left_out: 0, latest: None }
    }

    /// How the lane is built.
    fn begin(&mut self, config: &LaneConfig, seed: u64, now: Instant) {
        if let Redaction::Hashed(_) = self.redaction {
            put(&mut self.header, &(seed, now.as_nanos()));
            put_config(&mut self.header, config);
        }
    }

    pub(crate) fn command(&self, command: &Command<'_>) -> step::Command {
        step::Command {
            wire: self.redaction.command(command),
            idempotent: command.is_idempotent(),
            may_be_denied: command.may_be_denied(),
            writes: command.is_write(),
            keyed: command.write_key().is_some(),
        }
    }

    /// Replies; before the lane serves, those of the handshake.
    pub(crate) fn replies(&self, replies: &[Reply], serves: bool) -> Vec<step::Node> {
        self.redaction.replies(replies, serves)
    }

    /// A step was made: `outputs` says what came of it, besides how the lane looks now.
    fn step(&mut self, lane: &Lane, input: &Input, outputs: impl FnOnce(&mut Digest<'_>)) {
        let mut digest = Digest::new(&self.redaction);
        outputs(&mut digest);
        digest.lane(lane);
        let hash = digest.finish();
        self.latest = Some(hash);
        if let Redaction::Verbatim = self.redaction {
            return;
        }
        let before = self.steps.len();
        if self.left_out == 0 {
            input.encode(&mut self.steps);
            put(&mut self.steps, &hash);
        }
        if self.left_out > 0 || self.steps.len() > self.max_bytes {
            self.steps.truncate(before);
            self.left_out += 1; // And all that follow: a gap could not be replayed.
        } else {
            self.count += 1;
        }
    }

    fn recording(&self) -> LaneRecording {
        LaneRecording {
            header: self.header.clone(),
            steps: self.steps.clone(),
            count: self.count,
            left_out: self.left_out,
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, left_out, max_bytes, .. } = self;
        f.debug_struct("Recorder")
            .field("count", count)
            .field("left_out", left_out)
            .field("max_bytes", max_bytes)
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// Like [`Lane::new`], and writes down what it is told.
    #[must_use]
    pub fn recorded(config: LaneConfig, seed: u64, now: Instant, mut recorder: Recorder) -> Self {
        recorder.begin(&config, seed, now);
        let mut lane = Self::new(config, seed, now);
        lane.recorder = Some(Box::new(recorder));
        lane
    }

    /// What was written down so far.
    #[must_use]
    pub fn recording(&self) -> Option<LaneRecording> {
        self.recorder.as_ref().map(|recorder| recorder.recording())
    }

    /// Writes down a step that was made.
    pub(super) fn note(
        &mut self,
        input: impl FnOnce(&Recorder) -> Input,
        outputs: impl FnOnce(&Self, &mut Digest<'_>),
    ) {
        if let Some(mut recorder) = self.recorder.take() {
            let input = input(&recorder);
            recorder.step(self, &input, |digest| outputs(self, digest));
            self.recorder = Some(recorder);
        }
    }

    fn take_latest_hash(&mut self) -> Option<u32> {
        self.recorder.as_mut()?.latest.take()
    }
}

/// Appends a value as postcard.
fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    // Into memory nothing can fail but a sequence of unknown length, and there is none here.
    if let Ok(more) = postcard::to_allocvec(value) {
        out.extend_from_slice(&more);
    }
}

/// The configuration without its secrets, whose lengths matter.
fn put_config(out: &mut Vec<u8>, config: &LaneConfig) {
    let LaneConfig {
        connect_timeout,
        stall_timeout,
        health_check_interval,
        reconnect,
        retry: RetryPolicy { attempts, backoff, budget },
        fail_fast,
        max_in_flight,
        max_in_flight_bytes,
        max_waiting,
        handshake: HandshakeConfig { credentials, database, client_name },
    } = config;
    put(out, &(connect_timeout, stall_timeout, health_check_interval));
    put(out, &(*fail_fast, *max_in_flight as u64, *max_in_flight_bytes as u64, *max_waiting as u64));
    put(out, &(*attempts, budget.max_tokens, budget.success_refill_milli));
    for backoff in [reconnect, backoff] {
        put(out, &(backoff.base, backoff.cap, jitter_number(backoff.jitter)));
    }
    let user = credentials.as_ref().map(|credentials| {
        let username = credentials.username.as_ref().map(|name| name.len() as u64);
        (username, credentials.password.expose().len() as u64)
    });
    put(out, &(user, *database, client_name.as_ref().map(|name| name.len() as u64)));
}

const JITTERS: [Jitter; 4] = [Jitter::Equal, Jitter::Full, Jitter::Decorrelated, Jitter::None];

fn jitter_number(jitter: Jitter) -> u8 {
    match jitter {
        Jitter::Equal => 0,
        Jitter::Full => 1,
        Jitter::Decorrelated => 2,
        Jitter::None => 3,
    }
}

fn backoff_of((base, cap, jitter): (core::time::Duration, core::time::Duration, u8)) -> Option<Backoff> {
    Some(Backoff { base, cap, jitter: *JITTERS.get(usize::from(jitter))? })
}
