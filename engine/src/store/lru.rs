//! The order of use.

use super::links::Links;

/// Exact least-recently-used order of ids. Every operation is constant time.
///
/// It knows ids only. A second policy would keep its own state per id and offer these same operations: an id came,
/// was used, went; which one should go.
pub(super) struct Lru {
    links: Links,
}

const HEAD: u32 = 0;

impl Lru {
    /// An empty order of the ids `0..ids`.
    pub(super) const fn new(ids: usize) -> Self {
        Self { links: Links::new(1, ids) }
    }

    /// A new id, the most recently used from now on.
    pub(super) fn insert(&mut self, id: u32) {
        self.links.push_front(HEAD, id);
    }

    /// The id was used.
    pub(super) fn touch(&mut self, id: u32) {
        if self.newest() != Some(id) {
            self.links.unlink(id);
            self.links.push_front(HEAD, id);
        }
    }

    /// The id is gone.
    pub(super) fn remove(&mut self, id: u32) {
        self.links.unlink(id);
    }

    /// The next victim.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.links.back(HEAD)
    }

    /// The id used last.
    pub(super) fn newest(&self) -> Option<u32> {
        self.links.front(HEAD)
    }

    /// The id used just before `id` was.
    pub(super) fn older_than(&self, id: u32) -> Option<u32> {
        self.links.after(id)
    }

    /// Every id, the one used last first.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.links.iter(HEAD)
    }

    pub(super) fn clear(&mut self) {
        self.links.clear();
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.links.capacity()
    }

    /// Panics where the list is damaged.
    pub(super) fn validate(&self) {
        self.links.validate(HEAD);
    }
}
