//! What has left a store, and why.

use alloc::vec::{self, Vec};
use core::iter::Chain;
use core::option;

/// Why an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemovalCause {
    /// Its time was over, whoever noticed.
    Expired,
    /// Its place, or its bytes, were needed for another.
    Evicted,
    /// Its key got another value.
    Replaced,
    /// It was removed or cleared, or its key's new value was refused as too large.
    Removed,
}

/// An entry that has ended, one of [`Removals`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal<K, V> {
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// Why it ended.
    pub cause: RemovalCause,
}

/// What has ended. [`Store::take_removals`](super::Store::take_removals) hands it out.
///
/// Allocates nothing for one, which is what nearly all calls have that have any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removals<K, V> {
    first: Option<Removal<K, V>>,
    more: Vec<Removal<K, V>>,
}

impl<K, V> Removals<K, V> {
    pub(super) const fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    /// Whether nothing has ended.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, removal: Removal<K, V>) {
        if self.first.is_none() {
            self.first = Some(removal);
        } else {
            self.more.push(removal);
        }
    }
}

impl<K, V> IntoIterator for Removals<K, V> {
    type Item = Removal<K, V>;
    type IntoIter = Chain<option::IntoIter<Removal<K, V>>, vec::IntoIter<Removal<K, V>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}
