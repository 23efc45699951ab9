//! Who goes when room is needed.

mod adaptive;
mod age;
mod ghosts;
mod lru;
mod sketch;
#[cfg(test)]
mod tests;
mod uses;

use adaptive::Adaptive;
use lru::Lru;

/// Which live entry goes when room is needed. Whatever it says, expired entries go first.
///
/// | | [`Lru`](Self::Lru) | [`Adaptive`](Self::Adaptive) |
/// |---|---|---|
/// | goes first | what was not used for longest, exactly | what is asked for rarely |
/// | a scan or a loop over more than fits | pushes everything out | passes through a small window |
/// | bytes per entry | 8 | 24 to 32 |
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

/// An order of ids, kept by what it is told of them. It knows ids only, and the hashes of their keys.
pub(super) trait Order {
    /// A new id, whose key has this hash.
    fn insert(&mut self, id: u32, hash: u64);

    /// The id was used.
    fn touch(&mut self, id: u32);

    /// The id was used, says somebody who shares the order with others. An order that has to move it ignores that.
    fn touch_shared(&self, id: u32);

    /// The id, which is in the order, is gone.
    fn remove(&mut self, id: u32);

    /// Takes out the id that should go next.
    fn evict(&mut self) -> Option<u32>;

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
pub(super) enum Ordering {
    Lru(Lru),
    Adaptive(Adaptive),
}

impl Ordering {
    /// An empty order of the ids `0..ids`. Allocates nothing until the first is inserted.
    pub(super) fn new(policy: Policy, ids: usize) -> Self {
        match policy {
            Policy::Lru => Self::Lru(Lru::new(ids)),
            Policy::Adaptive => Self::Adaptive(Adaptive::new(ids)),
        }
    }

    /// Every id.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        core::iter::successors(self.first(), |&id| self.after(id))
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Lru(order) => order.capacity(),
            Self::Adaptive(order) => order.capacity(),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $order:ident => $call:expr) => {
        match $self {
            Self::Lru($order) => $call,
            Self::Adaptive($order) => $call,
        }
    };
}

impl Order for Ordering {
    fn insert(&mut self, id: u32, hash: u64) {
        delegate!(self, order => order.insert(id, hash));
    }

    fn touch(&mut self, id: u32) {
        delegate!(self, order => order.touch(id));
    }

    fn touch_shared(&self, id: u32) {
        delegate!(self, order => order.touch_shared(id));
    }

    fn remove(&mut self, id: u32) {
        delegate!(self, order => order.remove(id));
    }

    fn evict(&mut self) -> Option<u32> {
        delegate!(self, order => order.evict())
    }

    fn first(&self) -> Option<u32> {
        delegate!(self, order => order.first())
    }

    fn after(&self, id: u32) -> Option<u32> {
        delegate!(self, order => order.after(id))
    }

    fn clear(&mut self) {
        delegate!(self, order => order.clear());
    }

    fn validate(&self) {
        delegate!(self, order => order.validate());
    }
}
