//! The order of use.

use super::super::fingerprint::Fingerprint;
use super::super::growth::reach;
use super::super::links::Links;
use super::Order;
use super::uses::Uses;
use alloc::vec::Vec;

/// Exact least-recently-used order of ids. Every operation is constant time, a walk goes from the newest to the oldest.
pub(crate) struct Lru {
    links: Links<1>,
    /// By their ids. Apart, for a use has nothing to do with them.
    fingerprints: Vec<Fingerprint>,
}

const HEAD: u32 = 0;

impl Lru {
    /// An empty order of the ids `0..ids`.
    pub(super) const fn new(ids: usize) -> Self {
        Self { links: Links::new(ids), fingerprints: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.links.capacity() + self.fingerprints.capacity()
    }
}

impl Order for Lru {
    fn insert(&mut self, id: u32, fingerprint: Fingerprint, _: &mut Uses) {
        self.links.push_front(HEAD, id);
        reach(&mut self.fingerprints, id, self.links.ids(), |_| Fingerprint::default());
        if let Some(place) = self.fingerprints.get_mut(id as usize) {
            *place = fingerprint;
        }
    }

    fn fingerprint(&self, id: u32) -> Fingerprint {
        self.fingerprints.get(id as usize).copied().unwrap_or_default()
    }

    fn touch(&mut self, id: u32) {
        self.links.move_front(HEAD, id);
    }

    fn remove(&mut self, id: u32, _: &mut Uses) {
        self.links.unlink(id);
    }

    fn evict(&mut self, _: &mut Uses) -> Option<u32> {
        let oldest = self.links.back(HEAD)?;
        self.links.unlink(oldest);
        Some(oldest)
    }

    fn first(&self) -> Option<u32> {
        self.links.front(HEAD)
    }

    fn after(&self, id: u32) -> Option<u32> {
        self.links.after(id)
    }

    fn clear(&mut self) {
        self.links.clear();
    }

    fn validate(&self) {
        self.links.validate(HEAD);
    }
}
