//! Time to idle: deadlines that each use moves.

use super::growth::reach;
use crate::Instant;
use alloc::vec::Vec;
use core::time::Duration;

/// Remembers how far the uses of each id may move its deadline.
pub(super) struct Idle {
    after: Duration,
    /// When each id ends however much it is used.
    ends: Vec<Instant>,
    limit: usize,
}

impl Idle {
    /// For the ids `0..ids`. Allocates nothing yet.
    pub(super) const fn new(after: Duration, ids: usize) -> Self {
        Self { after, ends: Vec::new(), limit: ids }
    }

    /// When an entry is over that is used `now` and ends at `end` at the latest.
    pub(super) fn deadline(&self, end: Instant, now: Instant) -> Instant {
        now.saturating_add(self.after).min(end)
    }

    /// When `id` ends at the latest.
    pub(super) fn end_of(&self, id: u32) -> Instant {
        self.ends.get(id as usize).copied().unwrap_or(Instant::NEVER)
    }

    /// From now on `id` ends at `end` at the latest.
    pub(super) fn set_end(&mut self, id: u32, end: Instant) {
        reach(&mut self.ends, id, self.limit, |_| Instant::NEVER);
        if let Some(place) = self.ends.get_mut(id as usize) {
            *place = end;
        }
    }
}
