//! The store's invariants, checked in full. For tests and the simulator.

use super::Store;
use super::fingerprint::Fingerprint;
use core::hash::{BuildHasher, Hash};

impl<K: Hash + Eq, V, S: BuildHasher> Store<K, V, S> {
    /// Walks every structure and panics where two of them disagree, a bound is passed or a count is off. Linear time.
    #[doc(hidden)]
    pub fn debug_validate(&self) {
        self.order.validate();
        let (mut entries, mut timed, mut bytes) = (0, 0, 0);
        for id in self.order.iter() {
            let entry = self.slab.get(id).expect("the order of use holds occupied slots only");
            let hash = self.hasher.hash_one(&entry.key);
            assert_eq!(self.order.fingerprint(id), Fingerprint::of(hash), "the fingerprint is the key's");
            assert_eq!(self.find(hash, &entry.key), Some(id), "the index finds the entry by its key");
            entries += 1;
            timed += usize::from(!entry.deadline.is_never());
            bytes += self.weights.get(id);
            let latest = self.idle.as_ref().map_or(entry.deadline, |idle| idle.end_of(id));
            assert!(entry.deadline <= latest, "uses move a deadline no further than its end");
        }
        assert_eq!(entries, self.index.len(), "every indexed entry is in the order of use");
        self.slab.validate(entries);
        let deadline_of = |id| self.slab.get(id).expect("the wheel holds occupied slots only").deadline;
        assert_eq!(
            self.wheel.validate(deadline_of),
            timed,
            "the wheel holds every entry that has a deadline"
        );

        assert_eq!(bytes, self.bytes, "the sum of bytes is kept");
        assert!(entries <= self.config.max_entries && bytes <= self.config.max_bytes, "the bounds hold");
        let stats = &self.stats;
        let ended = stats.expired + stats.removals + stats.evictions();
        assert_eq!(stats.inserts, entries as u64 + ended, "every entry ends exactly once: {stats:?}");
    }
}
