//! How what is kept for each id grows: with the greatest id so far, and not beyond the last.

use alloc::vec::Vec;

/// Grows a full vector as `push` would, by doubling, but not beyond `limit`: a bounded store then ends with no slack.
pub(super) fn make_space<T>(vec: &mut Vec<T>, limit: usize) {
    if vec.len() == vec.capacity() {
        let doubled = vec.len().max(4);
        vec.reserve_exact(doubled.min(limit.saturating_sub(vec.len())).max(1));
    }
}

/// Grows a vector until `id`, of the ids `0..limit`, has a place: what `empty` says for each place that comes in.
#[inline]
pub(super) fn reach<T>(vec: &mut Vec<T>, id: u32, limit: usize, empty: impl Fn(usize) -> T) {
    while vec.len() <= id as usize {
        make_space(vec, limit);
        vec.push(empty(vec.len()));
    }
}
