//! What a journal and its items are made of, for recordings.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{Change, Clear, Entry, Item, Journal, Seen, UNBOUNDED};
use crate::archive::Archive;
use crate::time::Instant;

/// What makes up an item: its key, the value and the deadline of a set, what was seen, and its number.
pub(in crate::machine) type ItemParts = (Vec<u8>, Option<(Value, u64)>, (u8, Value), u64);
/// The length of a value, and its hash.
type Value = (u32, u64);

impl Item {
    pub(crate) fn to_parts(
        &self,
        of_key: impl Fn(&[u8]) -> Vec<u8>,
        of_value: impl Fn(&[u8]) -> Value,
    ) -> ItemParts {
        let set = match &self.change {
            Change::Set(value, deadline) => Some((of_value(value), deadline.as_nanos())),
            Change::Delete => None,
        };
        let seen = match &self.seen {
            Seen::Never => (0, (0, 0)),
            Seen::Absent => (1, (0, 0)),
            Seen::Value(value) => (2, of_value(value)),
        };
        (of_key(&self.key), set, seen, self.serial)
    }

    pub(crate) fn from_parts(parts: &ItemParts, value_of: impl Fn(&Value) -> Option<Bytes>) -> Option<Self> {
        let (key, set, (kind, seen), serial) = parts;
        let change = match set {
            Some((value, deadline)) => Change::Set(value_of(value)?, Instant::from_nanos(*deadline)),
            None => Change::Delete,
        };
        let seen = match kind {
            0 => Seen::Never,
            1 => Seen::Absent,
            2 => Seen::Value(value_of(seen)?),
            _ => return None,
        };
        Some(Self { key: Bytes::copy_from_slice(key), change, seen, serial: *serial })
    }
}

impl Journal {
    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { entries, queue, clears, serial, now } = self;
        archive.time(now);
        archive.value(serial);
        archive.list(queue, Bytes::new, |key, archive| archive.key(key));
        let since = *now;
        let blank = || Clear { prefix: Bytes::new(), since, sweeping: false };
        archive.list(clears, blank, |Clear { prefix, since, sweeping }, archive| {
            archive.key(prefix);
            archive.time(since);
            archive.value(sweeping);
        });
        let blank =
            || Entry { change: Change::Delete, seen: Seen::Never, since, serial: 0, replaying: false };
        entries.archive(UNBOUNDED, archive, blank, Entry::archive);
    }
}

impl Entry {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { change, seen, since, serial, replaying } = self;
        let mut set = match change {
            Change::Set(value, deadline) => Some((value.clone(), *deadline)),
            Change::Delete => None,
        };
        archive.option(
            &mut set,
            || (Bytes::new(), Instant::NEVER),
            |(value, deadline), archive| {
                archive.text(value);
                archive.time(deadline);
            },
        );
        let mut was = match seen {
            Seen::Never => None,
            Seen::Absent => Some(None),
            Seen::Value(value) => Some(Some(value.clone())),
        };
        archive.option(
            &mut was,
            || None,
            |was, archive| {
                archive.option(was, Bytes::new, |value, archive| archive.text(value));
            },
        );
        if archive.is_reading() {
            *change = set.map_or(Change::Delete, |(value, deadline)| Change::Set(value, deadline));
            *seen = was.map_or(Seen::Never, |was| was.map_or(Seen::Absent, Seen::Value));
        }
        archive.time(since);
        archive.value(serial);
        archive.value(replaying);
    }
}
