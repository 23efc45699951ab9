//! Who goes when room is needed.

mod adaptive;
mod age;
mod ghosts;
mod lru;
mod sketch;
#[cfg(test)]
mod tests;
mod uses;

use super::fingerprint::Fingerprint;
use super::links;
use adaptive::Adaptive;
use lru::Lru;
use uses::Uses;

/// Which live entry goes when room is needed. Whatever it says, expired entries go first.
///
/// | | [`Lru`](Self::Lru) | [`Adaptive`](Self::Adaptive) |
/// |---|---|---|
/// | goes first | what was not used for longest, exactly | what is asked for rarely |
/// | a scan or a loop over more than fits | pushes everything out | passes through a small window |
/// | bytes per entry | 12 | 24 to 32 |
/// | misses, relative to LRU's | 1 | 0.91 |
/// | a hit | moves the entry | sets a mark, if it is not set: [`Store::get_shared`](super::Store::get_shared) |
///
/// The misses are the geometric mean over five traces (a database, a web site, a ledger, a loop, and a mixture of scans and
/// loops) and caches of 1, 5, 10 and 25 % of the distinct keys. Where quick_cache and foyer have 0.95 and moka has 1.06, a chart
/// in the repository (`docs/hit-ratios.svg`) shows the single ratios, and `larder-bench -- traces` measures them again.
///
/// Take `Adaptive` for large caches, and where LFU is asked for; take `Lru` where it must be possible to tell what is
/// in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The least recently used goes. Exact.
    #[default]
    Lru,
    /// What is asked for often stays, what is new has to prove itself, and how much room that gets adapts to what is
    /// asked for: a window in front of a main part that TinyLFU admits to, both in the manner of CLOCK.
    #[doc(alias = "lfu")]
    Adaptive,
}

/// Bytes per id of an [`Lru`](Policy::Lru) order.
pub(super) const OVERHEAD: usize = links::OVERHEAD + size_of::<Fingerprint>();

/// An order of ids, kept by what it is told of them. It knows ids only, and the fingerprints of their keys, and may keep a byte of
/// uses for each id: uses of ids that have one are marked there.
trait Order {
    /// A new id, whose key has this fingerprint.
    fn insert(&mut self, id: u32, fingerprint: Fingerprint, uses: &mut Uses);

    /// The fingerprint that the id came with, also when it has gone, and until it comes in again.
    fn fingerprint(&self, id: u32) -> Fingerprint;

    /// The id, which has no byte, was used.
    fn touch(&mut self, id: u32);

    /// The id, which is in the order, is gone.
    fn remove(&mut self, id: u32, uses: &mut Uses);

    /// Takes out the id that should go next.
    fn evict(&mut self, uses: &mut Uses) -> Option<u32>;

    /// The first id of a walk over all.
    fn first(&self) -> Option<u32>;

    /// The id after `id` in that walk.
    fn after(&self, id: u32) -> Option<u32>;

    /// Forgets all ids. Keeps the memory.
    fn clear(&mut self);

    /// Panics where something is damaged.
    fn validate(&self);
}

/// The order that a [`Policy`] names.
#[repr(C)] // first what a read looks at
pub(super) struct Ordering {
    uses: Uses,
    of: Kind,
}

enum Kind {
    Lru(Lru),
    Adaptive(Adaptive),
}

macro_rules! delegate {
    ($of:expr, $order:ident => $call:expr) => {
        match $of {
            Kind::Lru($order) => $call,
            Kind::Adaptive($order) => $call,
        }
    };
}

impl Ordering {
    /// An empty order of the ids `0..ids`. Allocates nothing until the first is inserted.
    pub(super) fn new(policy: Policy, ids: usize) -> Self {
        let of = match policy {
            Policy::Lru => Kind::Lru(Lru::new(ids)),
            Policy::Adaptive => Kind::Adaptive(Adaptive::new(ids)),
        };
        Self { uses: Uses::default(), of }
    }

    /// A new id, whose key has this fingerprint.
    pub(super) fn insert(&mut self, id: u32, fingerprint: Fingerprint) {
        delegate!(&mut self.of, order => order.insert(id, fingerprint, &mut self.uses));
    }

    /// The fingerprint that the id came with, also when it has gone, and until it comes in again.
    #[inline]
    pub(super) fn fingerprint(&self, id: u32) -> Fingerprint {
        delegate!(&self.of, order => order.fingerprint(id))
    }

    /// The id was used.
    #[inline]
    pub(super) fn touch(&mut self, id: u32) {
        if !self.uses.mark(id) {
            delegate!(&mut self.of, order => order.touch(id));
        }
    }

    /// The id was used, says somebody who shares the order with others. An order that has to move it ignores that.
    pub(super) fn touch_shared(&self, id: u32) {
        self.uses.mark(id);
    }

    /// The id, which is in the order, is gone.
    pub(super) fn remove(&mut self, id: u32) {
        delegate!(&mut self.of, order => order.remove(id, &mut self.uses));
    }

    /// Takes out the id that should go next.
    pub(super) fn evict(&mut self) -> Option<u32> {
        delegate!(&mut self.of, order => order.evict(&mut self.uses))
    }

    /// Every id.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        core::iter::successors(self.first(), |&id| self.after(id))
    }

    /// The first id of a walk over all.
    pub(super) fn first(&self) -> Option<u32> {
        delegate!(&self.of, order => order.first())
    }

    /// The id after `id` in that walk.
    pub(super) fn after(&self, id: u32) -> Option<u32> {
        delegate!(&self.of, order => order.after(id))
    }

    /// Forgets all ids. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.uses.clear();
        delegate!(&mut self.of, order => order.clear());
    }

    /// Panics where something is damaged.
    pub(super) fn validate(&self) {
        delegate!(&self.of, order => order.validate());
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        delegate!(&self.of, order => order.capacity())
    }

    /// How often an id of the main part was counted lately.
    #[cfg(test)]
    fn counted(&self, id: u32) -> u8 {
        match &self.of {
            Kind::Lru(_) => 0,
            Kind::Adaptive(order) => order.counted(id, &self.uses),
        }
    }
}
