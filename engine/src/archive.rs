//! The state of a machine as bytes, for [recordings](crate::machine::Recording) that begin in the middle of its life.
//!
//! A machine says once what it is made of, and that serves both ways: [`Archive`] writes each part down, or sets it to what was
//! written. It takes itself apart by a pattern without `..`, so that the compiler names a field that is forgotten.
//!
//! ```text
//!   machine ──► state(writing) ──► bytes ──► state(reading) ──► another machine, which goes on in the same way
//! ```
//!
//! Texts of callers are not written. Their length and a hash are, and letters made from these stand for them, as everywhere in a
//! recording.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::time::Instant;

/// More bytes than any text has that a file may ask for.
const LONGEST: u32 = 512 << 20;

/// What stands for texts of callers: a hash whose key nobody knows.
pub(crate) type Hash<'a> = &'a dyn Fn(&[u8]) -> u64;

/// What goes through a machine's parts.
pub(crate) struct Archive<'a>(Mode<'a>);

enum Mode<'a> {
    Writing { out: Vec<u8>, hash: Hash<'a> },
    Reading { rest: &'a [u8], intact: bool },
}

impl<'a> Archive<'a> {
    /// One that writes. `hash` stands for texts of callers.
    pub(crate) fn writing(hash: Hash<'a>) -> Self {
        Self(Mode::Writing { out: Vec::new(), hash })
    }

    /// One that reads what another has written.
    pub(crate) const fn reading(bytes: &'a [u8]) -> Self {
        Self(Mode::Reading { rest: bytes, intact: true })
    }

    pub(crate) const fn is_reading(&self) -> bool {
        matches!(self.0, Mode::Reading { .. })
    }

    /// What stands for texts of callers; `None` when reading.
    pub(crate) const fn hash(&self) -> Option<Hash<'a>> {
        match self.0 {
            Mode::Writing { hash, .. } => Some(hash),
            Mode::Reading { .. } => None,
        }
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Mode::Writing { out, .. } => out,
            Mode::Reading { .. } => Vec::new(),
        }
    }

    /// Whether all was as it is written, and nothing was left.
    pub(crate) const fn was_read(&self) -> bool {
        matches!(self.0, Mode::Reading { rest: [], intact: true })
    }

    /// A part that is plain data.
    pub(crate) fn value<T: Serialize + DeserializeOwned>(&mut self, value: &mut T) {
        match &mut self.0 {
            Mode::Writing { out, .. } => put(out, value),
            Mode::Reading { rest, intact } => match take(rest) {
                Some(read) if *intact => *value = read,
                _ => *intact = false,
            },
        }
    }

    pub(crate) fn values<T: Serialize + DeserializeOwned, const N: usize>(&mut self, values: [&mut T; N]) {
        values.into_iter().for_each(|value| self.value(value));
    }

    /// A part as plain data that makes it up. Where `from` says `None` the bytes are no machine.
    pub(crate) fn by<T, P: Serialize + DeserializeOwned>(
        &mut self,
        value: &mut T,
        to: impl FnOnce(&T) -> P,
        from: impl FnOnce(P) -> Option<T>,
    ) {
        match &mut self.0 {
            Mode::Writing { out, .. } => put(out, &to(value)),
            Mode::Reading { rest, intact } => match take(rest).and_then(from) {
                Some(read) if *intact => *value = read,
                _ => *intact = false,
            },
        }
    }

    pub(crate) fn time(&mut self, time: &mut Instant) {
        self.by(time, |time| time.as_nanos(), |nanos| Some(Instant::from_nanos(nanos)));
    }

    pub(crate) fn times<const N: usize>(&mut self, times: [&mut Instant; N]) {
        times.into_iter().for_each(|time| self.time(time));
    }

    pub(crate) fn maybe_time(&mut self, time: &mut Option<Instant>) {
        self.by(time, |time| time.map(Instant::as_nanos), |nanos| Some(nanos.map(Instant::from_nanos)));
    }

    pub(crate) fn random(&mut self, rng: &mut fastrand::Rng) {
        self.by(rng, fastrand::Rng::get_seed, |seed| Some(fastrand::Rng::with_seed(seed)));
    }

    /// A text of callers.
    pub(crate) fn text(&mut self, text: &mut Bytes) {
        let parts = match &self.0 {
            Mode::Writing { hash, .. } => hidden(text, hash),
            Mode::Reading { .. } => (0, 0),
        };
        self.by(text, |_| parts, |(len, hash)| Some(spell(b"", len, hash)?.into()));
    }

    /// A key of callers, whose place among others matters: see [`disguised`].
    pub(crate) fn key(&mut self, key: &mut Bytes) {
        let hash = self.hash();
        let to = |key: &Bytes| hash.map_or_else(Vec::new, |hash| disguised(key, hash));
        self.by(key, to, |key| Some(key.into()));
    }

    /// A text that nobody needs more of than its length.
    pub(crate) fn secret(&mut self, text: &mut Bytes) {
        let len = |text: &Bytes| u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.by(text, len, |len| Some(spell(b"", len, 0)?.into()));
    }

    /// What may be there or not.
    pub(crate) fn option<T>(
        &mut self,
        option: &mut Option<T>,
        blank: impl FnOnce() -> T,
        each: impl FnOnce(&mut T, &mut Self),
    ) {
        let mut is_there = option.is_some();
        self.value(&mut is_there);
        if is_there {
            each(option.get_or_insert_with(blank), self);
        } else {
            *option = None;
        }
    }

    /// Parts of one kind in their order. Read, they are added to an empty list.
    pub(crate) fn list<T, L: Extend<T>>(
        &mut self,
        list: &mut L,
        blank: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &mut Self),
    ) where
        for<'l> &'l mut L: IntoIterator<Item = &'l mut T>,
    {
        let mut count = list.into_iter().count() as u64;
        self.value(&mut count);
        if let Mode::Writing { .. } = self.0 {
            return list.into_iter().for_each(|part| each(part, self));
        }
        for _ in 0..count {
            let mut part = blank();
            each(&mut part, self);
            // A count that lies runs out of bytes, not of memory.
            if matches!(self.0, Mode::Reading { intact: false, .. }) {
                break;
            }
            list.extend([part]);
        }
    }
}

/// What an archive can take apart, where the one who holds it does not know what it is.
pub(crate) trait Archived {
    /// One to read into.
    fn blank() -> Self;
    fn archive(&mut self, archive: &mut Archive<'_>);
}

/// Appends a value as postcard.
pub(crate) fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Into memory nothing can fail but a sequence of unknown length, and there is none here.
    if let Ok(more) = postcard::to_allocvec(value) {
        out.extend_from_slice(&more);
    }
}

/// Takes a value off the front.
pub(crate) fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

/// Length and hash of a text, which say what stands for it.
pub(crate) fn hidden(text: &[u8], hash: Hash<'_>) -> (u32, u64) {
    match u32::try_from(text.len()) {
        Ok(0) => (0, 0),
        // What is longer has no place in memory at its end either.
        len => (len.unwrap_or(u32::MAX), hash(text)),
    }
}

/// A text that begins with `prefix`, and goes on with letters in the place of what was hidden.
pub(crate) fn spell(prefix: &[u8], len: u32, hash: u64) -> Option<Vec<u8>> {
    if len > LONGEST {
        return None;
    }
    let mut text = prefix.to_vec();
    text.extend(letters(hash).take(len as usize));
    Some(text)
}

/// What stands for a key where it matters which keys are equal, and which begin alike: as many bytes, the colons among them, and
/// others for each word between them.
///
/// Of a long word a hash remains. There are too few words of a few letters for that, and two might get the same: these are
/// exchanged one for one, by a Feistel network of four rounds (Luby and Rackoff, 1988).
pub(crate) fn disguised(key: &[u8], hash: Hash<'_>) -> Vec<u8> {
    let mut text = key.to_vec();
    for word in text.split_mut(|&byte| byte == b':') {
        if word.len() >= LONG {
            let hash = hash(word);
            word.iter_mut().zip(letters(hash)).for_each(|(byte, letter)| *byte = letter);
        } else {
            exchange(word, hash);
        }
    }
    text
}

/// As many letters as tell all hashes apart.
const LONG: usize = 16;

/// Of fewer than [`LONG`] bytes.
fn exchange(word: &mut [u8], hash: Hash<'_>) {
    let (left, right) = word.split_at_mut(word.len() / 2);
    for round in [0, 2] {
        mask(left, right, round, hash);
        mask(right, left, round + 1, hash);
    }
}

fn mask(half: &mut [u8], other: &[u8], round: u8, hash: Hash<'_>) {
    let mut said = [round; LONG / 2 + 1];
    said.iter_mut().zip(other).for_each(|(said, byte)| *said = *byte);
    let said = said.get(..=other.len()).unwrap_or(&said);
    half.iter_mut().zip(hash(said).to_le_bytes()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Letters without end. SplitMix64 (Steele, Lea and Flood, 2014), eight letters a step.
pub(crate) fn letters(hash: u64) -> impl Iterator<Item = u8> {
    let steps = (1_u64..).map(move |step| {
        let mixed = hash.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    steps.flat_map(u64::to_le_bytes).map(|byte| b'a' + byte % 26)
}
