//! What each entry weighs.

use super::growth::reach;
use alloc::vec::Vec;

/// A number for each id, kept once as long as all ids have the same: that is what they have where entries are counted and
/// not weighed.
pub(super) struct Weights {
    common: u64,
    /// Of every id, once two ids differ; empty until then.
    each: Vec<u64>,
}

impl Weights {
    /// Bytes per id, where ids differ.
    pub(super) const OVERHEAD: usize = size_of::<u64>();

    /// Allocates nothing until two ids differ.
    pub(super) const fn new() -> Self {
        Self { common: 0, each: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> u64 {
        self.each.get(id as usize).copied().unwrap_or(self.common)
    }

    /// Gives `id`, of the ids `0..ids`, its weight. Of ids that have none now, the number may be anything: if `others` have
    /// none, no id has.
    ///
    /// Constant time, but for the first id that differs.
    #[inline]
    pub(super) fn set(&mut self, id: u32, weight: u64, others: bool, ids: usize) {
        if self.each.is_empty() {
            if !others {
                self.common = weight;
            }
            if weight == self.common {
                return;
            }
        }
        self.set_each(id, weight, ids);
    }

    fn set_each(&mut self, id: u32, weight: u64, ids: usize) {
        reach(&mut self.each, id, ids, |_| self.common);
        if let Some(place) = self.each.get_mut(id as usize) {
            *place = weight;
        }
    }

    /// Forgets all. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.each.clear();
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.each.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::properties;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn equal_weights_are_kept_once() {
        let mut weights = Weights::new();
        for id in 0..50 {
            weights.set(id, 7, id > 0, 100);
        }
        assert_eq!((weights.get(0), weights.get(49), weights.capacity()), (7, 7, 0));
        weights.set(20, 8, true, 100);
        assert_eq!((weights.get(0), weights.get(20), weights.get(49)), (7, 8, 7));
        weights.clear();
        weights.set(3, 9, false, 100);
        assert_eq!((weights.get(3), weights.each.len()), (9, 0));
    }

    proptest! {
        #![proptest_config(properties())]

        #[test]
        fn weights_are_a_map(ops in prop::collection::vec((0..9_u32, 0..3_u64, any::<bool>()), 1..60)) {
            let mut weights = Weights::new();
            let mut map = BTreeMap::new();
            for (id, weight, is_set) in ops {
                if is_set {
                    weights.set(id, weight, map.keys().any(|other| *other != id), 9);
                    map.insert(id, weight);
                } else {
                    map.remove(&id);
                }
                prop_assert!(map.iter().all(|(id, weight)| weights.get(*id) == *weight));
            }
        }
    }
}
