//! Recordings as files, and what comes of them when they are replayed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::step::Step;
use super::{Machine, Recorder};
use crate::archive::{Archive, put, take};
use crate::machine::{Circuit, Lane, Tier};

/// How a recording begins; the last byte counts the versions of the format.
const MAGIC: [u8; 8] = *b"larder\x00\x02";

/// What the machines of a cache were told; each is replayed by itself.
///
/// It is a file: a magic number, then postcard, then a checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// In the order of their numbers.
    pub lanes: Vec<PartRecording>,
    /// Of the one breaker, if it is there.
    pub breaker: Option<PartRecording>,
    /// The shards of the fallback tier, if there is one, in the order of their numbers.
    pub tiers: Vec<PartRecording>,
}

/// What one machine was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartRecording {
    pub(super) state: Option<Vec<u8>>,
    pub(super) steps: Vec<u8>,
    pub(super) count: u64,
    pub(super) left_out: u64,
}

/// A machine of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The lane of this number, from 0.
    Lane(usize),
    /// The breaker.
    Breaker,
    /// The shard of the fallback tier of this number, from 0.
    Tier(usize),
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Steps that were replayed.
    pub steps: u64,
    /// Steps before those, which the recording had let go of.
    pub left_out: u64,
    /// The first step that went otherwise.
    pub difference: Option<Difference>,
}

/// A step of which not the same came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose step it is.
    pub part: Part,
    /// Which of its steps in the recording, from 0.
    pub step: u64,
    /// What the machine was told.
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
    #[error("the recording is damaged: bytes are missing, or have changed on the way")]
    Changed,
    /// What it says is none of what a machine can have been told.
    #[error("the recording is damaged at step {step} of {part}")]
    Damaged {
        /// Whose step it is.
        part: Part,
        /// Which of its steps in the recording, from 0.
        step: u64,
    },
}

impl PartRecording {
    /// Steps that were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Steps before those, which were let go of.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn put(&self, out: &mut Vec<u8>) {
        put(out, &(self.count, self.left_out, &self.state, &self.steps));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (count, left_out, state, steps) = take(bytes)?;
        Some(Self { state, steps, count, left_out })
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
        let Self { lanes, breaker, tiers } = self;
        put(&mut out, &(lanes.len() as u64, breaker.is_some(), tiers.len() as u64));
        lanes.iter().chain(breaker).chain(tiers).for_each(|part| part.put(&mut out));
        let sum = checksum(&out);
        out.extend(sum);
        out
    }

    /// A recording from its file.
    ///
    /// # Errors
    /// It is none, or not as it was written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadRecording> {
        if !Self::is_one(bytes) {
            return Err(BadRecording::NotOne);
        }
        let (all, sum) = bytes.split_last_chunk::<8>().ok_or(BadRecording::Changed)?;
        let body = all.strip_prefix(&MAGIC).filter(|_| *sum == checksum(all));
        body.and_then(Self::read).ok_or(BadRecording::Changed)
    }

    fn read(mut rest: &[u8]) -> Option<Self> {
        let (lanes, has_breaker, tiers): (u64, bool, u64) = take(&mut rest)?;
        let mut parts =
            |count: u64| (0..count).map(|_| PartRecording::take(&mut rest)).collect::<Option<Vec<_>>>();
        let (lanes, breaker, tiers) = (parts(lanes)?, parts(has_breaker.into())?.pop(), parts(tiers)?);
        rest.is_empty().then_some(Self { lanes, breaker, tiers })
    }

    /// Feeds machines of the same states what the recorded ones were told, and compares what comes of each step: the bytes on the
    /// wire, how operations end, what the tier answers, when to come back, counters. `see` is shown each step, with whose
    /// it is.
    ///
    /// # Errors
    /// The recording says what no machine can have been told.
    pub fn replay(&self, mut see: impl FnMut(Part, &dyn fmt::Display)) -> Result<Replayed, BadRecording> {
        let mut all = Replayed::default();
        for (index, recording) in self.lanes.iter().enumerate() {
            replay::<Lane>(Part::Lane(index), recording, &mut see, &mut all)?;
        }
        if let Some(recording) = &self.breaker {
            replay::<Circuit>(Part::Breaker, recording, &mut see, &mut all)?;
        }
        for (index, recording) in self.tiers.iter().enumerate() {
            replay::<Tier>(Part::Tier(index), recording, &mut see, &mut all)?;
        }
        Ok(all)
    }
}

/// FNV-1a of 64 bits: a file that was cut or changed is told from one that was not.
fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix).to_le_bytes()
}

fn replay<M: Machine>(
    part: Part,
    recording: &PartRecording,
    see: &mut impl FnMut(Part, &dyn fmt::Display),
    all: &mut Replayed,
) -> Result<(), BadRecording> {
    all.left_out += recording.left_out;
    let Some(state) = &recording.state else { return Ok(()) };
    let mut machine = restored::<M>(state).ok_or(BadRecording::Damaged { part, step: 0 })?;
    let mut steps = recording.steps.as_slice();
    for step in 0..recording.count {
        let damaged = || BadRecording::Damaged { part, step };
        let input = M::Input::decode(&mut steps).ok_or_else(damaged)?;
        let expected: u32 = take(&mut steps).ok_or_else(damaged)?;
        machine.feed(&input).ok_or_else(damaged)?;
        let got = machine.recorder().as_mut().and_then(|recorder| recorder.latest.take());
        see(part, &input);
        all.steps += 1;
        if got != Some(expected) {
            let hashes = (expected, got.unwrap_or_default());
            let difference = || Difference { part, step, input: input.to_string(), hashes };
            all.difference.get_or_insert_with(difference);
            return Ok(());
        }
    }
    if steps.is_empty() { Ok(()) } else { Err(BadRecording::Damaged { part, step: recording.count }) }
}

/// The machine as it was when the recording began.
fn restored<M: Machine>(state: &[u8]) -> Option<M> {
    let mut machine = M::blank();
    let mut archive = Archive::reading(state);
    machine.archive(&mut archive);
    archive.was_read().then(|| machine.recorded_by(Recorder::verbatim()))
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(index) => write!(f, "lane {index}"),
            Self::Breaker => f.write_str("the breaker"),
            Self::Tier(index) => write!(f, "tier shard {index}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, step, input, hashes: (then, now) } = self;
        write!(f, "step {step} of {part} had another result ({then:08x} then, {now:08x} now): {input}")
    }
}
