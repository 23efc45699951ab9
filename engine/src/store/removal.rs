//! What has left a store, and why.

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

/// An entry that has ended. [`Store::take_removals`](super::Store::take_removals) hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal<K, V> {
    /// Its key.
    pub key: K,
    /// Its value.
    pub value: V,
    /// Why it ended.
    pub cause: RemovalCause,
}
