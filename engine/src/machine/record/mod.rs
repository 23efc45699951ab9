//! Recordings: what the machines of a cache were told, so that what they did can be seen again elsewhere, step by step.
//!
//! Lanes, breaker and tier shards are pure machines: the same state and inputs give the same outputs, byte for byte. One that was
//! built to be recorded writes its inputs down, and beside each a hash of what came of it. [`Recording::replay`] feeds them to
//! another machine of the same state and says where the two part.
//!
//! ```text
//!   driver ──► machine ──► wire, outcomes, signals, timeouts ──► hash ─┐
//!                 │ inputs                                             ▼
//!                 └───────────────► Recorder: state, (input, hash), (input, hash) … ──► postcard
//!                                                                             │
//!                          Recording::replay: another machine ──► hash  = ? ◄─┘
//! ```
//!
//! Each machine is recorded and replayed by itself: what they say to each other is input of the one and output of the other.
//! Operations, clears and the replay of the journal are machines too, but keep nothing that does not show in these.
//!
//! # What is in it
//!
//! **No key, value, password or user name**, of callers or of the server. Each is replaced by its length and a hash under a key that
//! is not in the recording, and becomes made-up letters of that length when it is replayed. So frames have the sizes that they had,
//! what was equal stays equal, and a guess cannot be tried. The server's errors keep the words that the engine understands, and its
//! answer to `CLIENT INFO` the number of the connection, and of our address the punctuation and the zeros. Keys of the fallback
//! tier keep their colons, since a namespace is cleared by how its keys begin. What stays as it was: names of commands, numbers
//! (times to live, cursors, counts), the number of the database, times and sizes. The hashes of outputs are of the replaced text.
//!
//! # The latest of it
//!
//! A machine can only be replayed from a state that is known. So from time to time the state is written down as well, and the steps
//! before it are let go of when there are more than enough behind it: a recording holds the latest steps, up to the bytes that it
//! may, or twice those of the state where they are more, and at least half as many. They may be fewer where a lane has not come to
//! rest for so long (nothing encoded that is not handed over, no handshake). States come on top: about 100 bytes for a breaker, 300
//! and 50 for each operation for a lane, 300 and the key and 30 for each copy and each entry of the journal for a tier shard. What
//! an operation takes does not depend on the size of its value.
//!
//! Where a tier's state is written down, its tables are rebuilt from that, so that it and one that is replayed from there begin
//! alike. That takes its lock for two or three microseconds for each entry.

mod circuit;
mod lane;
mod redact;
mod replay;
mod ring;
mod step;
mod tier;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::archive::{Archive, put};
use crate::resp::Reply;

pub(super) use circuit::CircuitInput;
pub(super) use lane::LaneInput;
use redact::{Digest, Redaction};
pub(super) use redact::{archive_reply, fence_places};
pub use replay::{BadRecording, Difference, Part, PartRecording, Recording, Replayed};
use ring::Ring;
use step::{Node, Step};
pub(super) use tier::TierInput;

/// Writes down what a machine is told. Hand it to [`Lane::recorded`](super::Lane::recorded),
/// [`Circuit::recorded`](super::Circuit::recorded) or [`Tier::recorded`](super::Tier::recorded).
pub struct Recorder {
    redaction: Redaction,
    ring: Ring,
    /// What came of the latest step, until somebody asks.
    latest: Option<u32>,
}

impl Recorder {
    /// Keeps at most `max_bytes` of steps. `hash` stands for keys and values: a hash with a secret key, so that nobody can find them
    /// by trying. It is asked in the path of the operation: once for each value, and four times for a short word of a key.
    pub fn new(max_bytes: usize, hash: impl Fn(&[u8]) -> u64 + Send + Sync + 'static) -> Self {
        Self { redaction: Redaction::hashed(Box::new(hash)), ring: Ring::new(max_bytes), latest: None }
    }

    /// One for a replay: everything is as it is, and only the hashes of outputs are of interest.
    fn verbatim() -> Self {
        Self { redaction: Redaction::Verbatim, ring: Ring::new(0), latest: None }
    }

    /// Replies as they are written down; before a lane serves, those of the handshake.
    pub(super) fn replies(&self, replies: &[Reply], serves: bool) -> Vec<Node> {
        self.redaction.replies(replies, serves)
    }

    /// A step was made: `outputs` says what came of it, besides how the machine looks now.
    fn step<M: Machine>(
        &mut self,
        machine: &mut M,
        input: &M::Input,
        outputs: impl FnOnce(&M, &mut Digest<'_>),
    ) {
        self.write(machine, input, outputs);
        if self.ring.is_due() && machine.is_at_rest() {
            if let Some(state) = self.state_of(machine) {
                M::REBUILT.iter().for_each(|rebuilt| self.write(machine, rebuilt, |_, _| {}));
                self.ring.turn(state);
            }
        }
    }

    fn write<M: Machine>(
        &mut self,
        machine: &M,
        input: &M::Input,
        outputs: impl FnOnce(&M, &mut Digest<'_>),
    ) {
        let mut digest = Digest::new(&self.redaction);
        outputs(machine, &mut digest);
        machine.look(&mut digest);
        let hash = digest.finish();
        self.latest = Some(hash);
        if let Redaction::Hashed { .. } = self.redaction {
            self.ring.push(|out| {
                input.encode(out);
                put(out, &hash);
            });
        }
    }

    /// `None` in a replay, which begins only once.
    fn state_of(&self, machine: &mut impl Machine) -> Option<Vec<u8>> {
        let Redaction::Hashed { hash, .. } = &self.redaction else { return None };
        let mut archive = Archive::writing(hash);
        machine.archive(&mut archive);
        Some(archive.into_bytes())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// A machine whose inputs can be written down.
pub(super) trait Machine: Sized {
    type Input: Step;
    /// What is noted where a state is written down that the machine is rebuilt from.
    const REBUILT: Option<Self::Input> = None;

    /// One to read a state into.
    fn blank() -> Self;

    /// What it is made of.
    fn archive(&mut self, archive: &mut Archive<'_>);

    /// Whether that is all there is of it now.
    fn is_at_rest(&self) -> bool {
        true
    }

    /// How it looks from outside.
    fn look(&self, digest: &mut Digest<'_>);

    /// Makes a step; `None` is one that no machine can have made.
    fn feed(&mut self, input: &Self::Input) -> Option<()>;

    fn recorder(&mut self) -> &mut Option<Box<Recorder>>;

    /// Writes down a step that was made. Costs a look where nobody records.
    #[inline]
    fn note(
        &mut self,
        input: impl FnOnce(&Redaction) -> Self::Input,
        outputs: impl FnOnce(&Self, &mut Digest<'_>),
    ) {
        if self.recorder().is_some() {
            self.write_down(input, outputs);
        }
    }

    #[cold]
    fn write_down(
        &mut self,
        input: impl FnOnce(&Redaction) -> Self::Input,
        outputs: impl FnOnce(&Self, &mut Digest<'_>),
    ) {
        if let Some(mut recorder) = self.recorder().take() {
            let input = input(&recorder.redaction);
            recorder.step(self, &input, outputs);
            *self.recorder() = Some(recorder);
        }
    }

    /// From now on writes down what it is told.
    fn recorded_by(mut self, mut recorder: Recorder) -> Self {
        recorder.state_of(&mut self).into_iter().for_each(|state| recorder.ring.turn(state));
        *self.recorder() = Some(Box::new(recorder));
        self
    }
}

/// What was written down of a machine.
fn recording(recorder: Option<&Recorder>) -> Option<PartRecording> {
    recorder.map(|recorder| {
        let (whole, left_out) = recorder.ring.whole();
        PartRecording { state: whole.state, steps: whole.steps, count: whole.count, left_out }
    })
}
