//! A store from what it holds, for recordings.

use alloc::vec::Vec;
use core::hash::BuildHasher;

use bytes::Bytes;

use super::{Store, StoreConfig};
use crate::archive::Archive;

impl<V: Clone, S: BuildHasher + Clone> Store<Bytes, V, S> {
    /// Says which entries are live, the least recently used first, and rebuilds the store from them. Who writes that down does it
    /// as well as who reads it: which slots and buckets entries have, and what has expired and is not swept, then is
    /// the same for both.
    pub(crate) fn archive(
        &mut self,
        config: StoreConfig,
        archive: &mut Archive<'_>,
        blank: impl Fn() -> V,
        mut each: impl FnMut(&mut V, &mut Archive<'_>),
    ) {
        let mut now = self.now;
        archive.time(&mut now);
        let live =
            self.iter().map(|entry| (entry.key.clone(), entry.value.clone(), entry.bytes, entry.deadline));
        let mut entries: Vec<_> = live.collect();
        entries.reverse();
        let blank = || (Bytes::new(), blank(), 0, now);
        archive.list(&mut entries, blank, |(key, value, bytes, deadline), archive| {
            archive.key(key);
            each(value, archive);
            archive.value(bytes);
            archive.time(deadline);
        });
        *self = Self::new(config, self.hasher.clone(), now);
        for (key, value, bytes, deadline) in entries {
            // It was let in before.
            drop(self.insert(now, key, value, bytes, deadline));
        }
    }
}
