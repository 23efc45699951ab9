//! How large a store may become, how long what is in it lives, and what it cannot hold.

use super::Policy;
use core::time::Duration;

/// How large a [`Store`](super::Store) may become, and which entries it lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The most entries held at once. Default 1000. Zero stores nothing.
    pub max_entries: usize,
    /// The largest sum of the entries' bytes, as given to [`Store::insert`](super::Store::insert). Default `u64::MAX`:
    /// no bound.
    pub max_bytes: u64,
    /// The largest single entry in bytes; larger ones are refused. Default `u64::MAX`: `max_bytes` alone decides.
    pub max_entry_bytes: u64,
    /// Which live entry goes when room is needed. Default [`Policy::Lru`].
    pub policy: Policy,
    /// How long an entry may go unused, whatever its deadline. Default `None`: for ever. An insert, a renewal and a
    /// read by [`get`](super::Store::get) or [`get_mut`](super::Store::get_mut) are uses; looks that leave recency
    /// alone are not, nor is a [shared](super::Store::get_shared) read. Zero lets nothing live.
    pub time_to_idle: Option<Duration>,
}

impl StoreConfig {
    /// The largest entry that can be held.
    pub(super) fn entry_limit(&self) -> u64 {
        self.max_entry_bytes.min(self.max_bytes)
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            max_entries: 1000,
            max_bytes: u64::MAX,
            max_entry_bytes: u64::MAX,
            policy: Policy::Lru,
            time_to_idle: None,
        }
    }
}

/// A value was refused because it could never fit. The key has no value now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an entry of {bytes} bytes is over the store's limit of {limit} bytes for one entry; \
     store less under one key, or raise max_entry_bytes and max_bytes"
)]
pub struct TooLarge {
    /// The bytes of the refused entry.
    pub bytes: u64,
    /// The lesser of `max_entry_bytes` and `max_bytes`.
    pub limit: u64,
}
