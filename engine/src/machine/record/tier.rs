//! The inputs of a tier shard, as they are written down, and made again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::redact::{Digest, Redaction, spelled};
use super::step::inputs;
use super::{Machine, PartRecording, Recorder, recording};
use crate::archive::Archive;
use crate::machine::journal::{Change, Item, ItemParts, Seen};
use crate::machine::tier::{Fence, Found, Tier, TierConfig, TierFull};
use crate::time::Instant;

impl Tier {
    /// Like [`Tier::new`], and writes down what it is told.
    #[must_use]
    pub fn recorded(config: TierConfig, seed: u64, now: Instant, recorder: Recorder) -> Self {
        Self::new(config, seed, now).recorded_by(recorder)
    }

    /// What was written down of late.
    #[must_use]
    pub fn recording(&self) -> Option<PartRecording> {
        recording(self.recorder.as_deref())
    }
}

/// Its place among the fences, and the key itself, with others in their places.
pub(crate) type KeyParts = (u8, Vec<u8>);

/// The length of a value, and its hash.
type Value = (u32, u64);

inputs! {
    /// One call of a tier shard that may change it. Times are nanoseconds.
    TierInput:
    0 BeginWrite { place: u8 }
    1 ReadConfirmed { now: u64, key: KeyParts, fence: u32, value: Option<Value> }
    2 WriteConfirmed { now: u64, key: KeyParts, fence: u32, value: Option<(Value, u64)> }
    3 WriteLost { now: u64, key: KeyParts }
    4 WriteAtLarge { now: u64, key: KeyParts }
    5 Get { now: u64, key: Vec<u8> }
    6 AcceptSet { now: u64, key: KeyParts, value: Value, deadline: u64 }
    7 AcceptDelete { now: u64, key: KeyParts, namespace_len: u64 }
    8 Clear { now: u64, prefix: Vec<u8> }
    9 ClearLater { now: u64, prefix: Vec<u8> }
    10 Recovered {}
    11 BeginSweep { prefix: Vec<u8> }
    12 EndSweep { prefix: Vec<u8>, carried_out: bool }
    13 Take { most: u64, most_bytes: u64, fits: Vec<bool> }
    14 Settle { now: u64, item: ItemParts, set: bool }
    15 PutBack { item: ItemParts }
    16 Forget { key: Vec<u8> }
    17 Rebuilt {}
}

impl TierInput {
    pub(crate) fn read_confirmed(
        redaction: &Redaction,
        now: Instant,
        hash: u64,
        key: &[u8],
        fence: Fence,
        value: Option<&[u8]>,
    ) -> Self {
        let (now, key, fence) = (now.as_nanos(), redaction.keyed(hash, key), fence.into_parts());
        Self::ReadConfirmed { now, key, fence, value: value.map(|value| redaction.value(value)) }
    }

    pub(crate) fn write_confirmed(
        redaction: &Redaction,
        now: Instant,
        hash: u64,
        key: &[u8],
        fence: Fence,
        value: Option<(&[u8], Instant)>,
    ) -> Self {
        let (now, key, fence) = (now.as_nanos(), redaction.keyed(hash, key), fence.into_parts());
        let value = value.map(|(value, deadline)| (redaction.value(value), deadline.as_nanos()));
        Self::WriteConfirmed { now, key, fence, value }
    }

    pub(crate) fn write_lost(redaction: &Redaction, now: Instant, hash: u64, key: &[u8]) -> Self {
        Self::WriteLost { now: now.as_nanos(), key: redaction.keyed(hash, key) }
    }

    pub(crate) fn write_at_large(redaction: &Redaction, now: Instant, hash: u64, key: &[u8]) -> Self {
        Self::WriteAtLarge { now: now.as_nanos(), key: redaction.keyed(hash, key) }
    }

    pub(crate) fn get(redaction: &Redaction, now: Instant, key: &[u8]) -> Self {
        Self::Get { now: now.as_nanos(), key: redaction.key(key) }
    }

    pub(crate) fn accept_set(
        redaction: &Redaction,
        now: Instant,
        hash: u64,
        key: &[u8],
        value: &[u8],
        deadline: Instant,
    ) -> Self {
        let (key, value) = (redaction.keyed(hash, key), redaction.value(value));
        Self::AcceptSet { now: now.as_nanos(), key, value, deadline: deadline.as_nanos() }
    }

    pub(crate) fn accept_delete(
        redaction: &Redaction,
        now: Instant,
        hash: u64,
        key: &[u8],
        namespace_len: usize,
    ) -> Self {
        let namespace_len = namespace_len as u64;
        Self::AcceptDelete { now: now.as_nanos(), key: redaction.keyed(hash, key), namespace_len }
    }
}

impl Redaction {
    pub(crate) fn keyed(&self, hash: u64, key: &[u8]) -> KeyParts {
        (self.place(hash), self.key(key))
    }

    pub(crate) fn item(&self, item: &Item) -> ItemParts {
        item.to_parts(|key| self.key(key), |value| self.value(value))
    }
}

impl Machine for Tier {
    type Input = TierInput;
    const REBUILT: Option<TierInput> = Some(TierInput::Rebuilt {});

    fn blank() -> Self {
        Self::new(TierConfig::default(), 0, Instant::EPOCH)
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        Self::archive(self, archive);
    }

    fn look(&self, digest: &mut Digest<'_>) {
        let (entries, bytes) = self.size();
        let journal = [self.journalled() as u64, self.clears() as u64, self.has_work().into()];
        journal.into_iter().chain([entries as u64, bytes]).for_each(|number| digest.number(number));
    }

    fn feed(&mut self, input: &TierInput) -> Option<()> {
        let at = |nanos: &u64| Instant::from_nanos(*nanos);
        match input {
            TierInput::BeginWrite { place } => drop(self.begin_write((*place).into())),
            TierInput::ReadConfirmed { now, key: (place, key), fence, value } => {
                let value = maybe_spelled(value.as_ref())?;
                let fence = Fence::from_parts(*fence);
                self.read_confirmed(at(now), (*place).into(), key, fence, value.as_deref());
            }
            TierInput::WriteConfirmed { now, key: (place, key), fence, value } => {
                let text = maybe_spelled(value.as_ref().map(|(value, _)| value))?;
                let deadline = value.map(|(_, deadline)| at(&deadline));
                let fence = Fence::from_parts(*fence);
                self.write_confirmed(at(now), (*place).into(), key, fence, text.as_deref().zip(deadline));
            }
            TierInput::WriteLost { now, key: (place, key) } => self.write_lost(at(now), (*place).into(), key),
            TierInput::WriteAtLarge { now, key: (place, key) } => {
                self.write_at_large(at(now), (*place).into(), key);
            }
            TierInput::Get { now, key } => drop(self.get(at(now), key)),
            TierInput::AcceptSet { now, key: (place, key), value, deadline } => {
                _ = self.accept_set(at(now), (*place).into(), key, value_of(value)?, at(deadline));
            }
            TierInput::AcceptDelete { now, key: (place, key), namespace_len } => {
                let len = usize::try_from(*namespace_len).ok()?;
                _ = self.accept_delete(at(now), (*place).into(), key, len);
            }
            TierInput::Clear { now, prefix } => _ = self.clear(at(now), prefix),
            TierInput::ClearLater { now, prefix } => _ = self.clear_later(at(now), prefix),
            TierInput::Recovered {} => self.recovered(),
            TierInput::BeginSweep { prefix } => self.begin_sweep(prefix),
            TierInput::EndSweep { prefix, carried_out } => self.end_sweep(prefix, *carried_out),
            TierInput::Take { most, most_bytes, fits } => {
                let mut fits = fits.iter();
                let fits = |_: &[u8]| fits.next().copied().unwrap_or_default();
                drop(self.take(usize::try_from(*most).ok()?, *most_bytes, fits));
            }
            TierInput::Settle { now, item, set } => self.settle(at(now), &item_of(item)?, *set),
            TierInput::PutBack { item } => self.put_back(&item_of(item)?),
            TierInput::Forget { key } => self.forget(key),
            TierInput::Rebuilt {} => self.rebuild(),
        }
        Some(())
    }

    fn recorder(&mut self) -> &mut Option<Box<Recorder>> {
        &mut self.recorder
    }
}

fn value_of((len, hash): &Value) -> Option<Bytes> {
    spelled(&(Vec::new(), *len, *hash))
}

/// `None` where the value cannot be made.
fn maybe_spelled(value: Option<&Value>) -> Option<Option<Bytes>> {
    value.map_or(Some(None), |value| value_of(value).map(Some))
}

fn item_of(parts: &ItemParts) -> Option<Item> {
    Item::from_parts(parts, value_of)
}

impl Digest<'_> {
    pub(crate) fn found(&mut self, found: Option<&Found>) {
        if let Some(Found { value, age }) = found {
            self.number(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
            self.number(value.is_some().into());
            value.iter().for_each(|value| self.secret(value));
        }
    }

    pub(crate) fn accepted(&mut self, answer: Result<bool, TierFull>) {
        self.number(answer.map_or(2, u64::from));
    }

    pub(crate) fn item(&mut self, item: &Item) {
        self.key(&item.key);
        match &item.change {
            Change::Set(value, deadline) => {
                self.number(deadline.as_nanos());
                self.secret(value);
            }
            Change::Delete => self.number(1),
        }
        match &item.seen {
            Seen::Never => self.number(0),
            Seen::Absent => self.number(1),
            Seen::Value(value) => self.secret(value),
        }
    }
}

impl fmt::Display for TierInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |nanos: &u64| Duration::from_nanos(*nanos);
        let name = self.name();
        match self {
            Self::ReadConfirmed { now, key: (_, key), .. }
            | Self::WriteConfirmed { now, key: (_, key), .. }
            | Self::WriteLost { now, key: (_, key) }
            | Self::WriteAtLarge { now, key: (_, key) }
            | Self::Get { now, key }
            | Self::AcceptSet { now, key: (_, key), .. }
            | Self::AcceptDelete { now, key: (_, key), .. }
            | Self::Clear { now, prefix: key }
            | Self::ClearLater { now, prefix: key } => {
                write!(f, "{:?} {name} {}", at(now), key.escape_ascii())
            }
            Self::BeginSweep { prefix: key } | Self::EndSweep { prefix: key, .. } | Self::Forget { key } => {
                write!(f, "{name} {}", key.escape_ascii())
            }
            Self::Take { most, .. } => write!(f, "{name} {most} at most"),
            Self::Settle { now, item, set } => {
                write!(f, "{:?} {name} {}, set: {set}", at(now), item.0.escape_ascii())
            }
            Self::PutBack { item } => write!(f, "{name} {}", item.0.escape_ascii()),
            Self::BeginWrite { place } => write!(f, "{name} {place}"),
            Self::Recovered {} | Self::Rebuilt {} => f.write_str(name),
        }
    }
}
