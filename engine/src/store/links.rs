//! Circular doubly linked lists whose links are `u32`s in one array.

use super::growth::reach;
use alloc::vec::Vec;

/// Many lists over one set of ids, each id in at most one list at a time. With each id goes what its list's owner wants
/// to know of it when it passes by.
///
/// The array begins with a cell per list, its *head*; the cell of id `i` follows at `HEADS + i`. Heads take part in
/// their circles, so linking and unlinking know no ends and need no branch. The array grows only up to the greatest
/// id that was ever linked: a cell beyond it, like one that points at itself, is in no list.
pub(super) struct Links<const HEADS: u32, T = ()> {
    cells: Vec<Cell<T>>,
    /// The array ends here: a cell per head, and one per id that there can be.
    limit: usize,
}

/// Bytes per id, where nothing else is known of it.
pub(super) const OVERHEAD: usize = size_of::<Cell<()>>();

struct Cell<T> {
    prev: u32,
    next: u32,
    known: T,
}

impl<const HEADS: u32, T: Copy + Default> Links<HEADS, T> {
    /// Empty lists over the ids `0..ids`. Allocates nothing until the first id is linked.
    pub(super) const fn new(ids: usize) -> Self {
        Self { cells: Vec::new(), limit: ids.saturating_add(HEADS as usize) }
    }

    /// How many ids there can be.
    pub(super) fn ids(&self) -> usize {
        self.limit.saturating_sub(HEADS as usize)
    }

    /// The first id of the list, unless it is empty.
    pub(super) fn front(&self, head: u32) -> Option<u32> {
        self.next(head).checked_sub(HEADS)
    }

    /// The last id of the list, unless it is empty.
    pub(super) fn back(&self, head: u32) -> Option<u32> {
        self.prev(head).checked_sub(HEADS)
    }

    /// What is known of `id`: the default until it is [set](Self::set).
    #[inline]
    pub(super) fn get(&self, id: u32) -> T {
        self.cells.get((HEADS + id) as usize).map(|cell| cell.known).unwrap_or_default()
    }

    /// Sets what is known of `id`, which has been in a list.
    #[inline]
    pub(super) fn set(&mut self, id: u32, known: T) {
        if let Some(cell) = self.cells.get_mut((HEADS + id) as usize) {
            cell.known = known;
        }
    }

    /// The id after `id` in its list, unless `id` is the last (or in no list).
    pub(super) fn after(&self, id: u32) -> Option<u32> {
        let cell = HEADS + id;
        let next = self.next(cell);
        if next == cell {
            return None;
        }
        next.checked_sub(HEADS)
    }

    /// The id before `id` in its list, unless `id` is the first (or in no list).
    pub(super) fn before(&self, id: u32) -> Option<u32> {
        let cell = HEADS + id;
        let prev = self.prev(cell);
        if prev == cell {
            return None;
        }
        prev.checked_sub(HEADS)
    }

    /// The ids of the list from front to back.
    pub(super) fn iter(&self, head: u32) -> impl Iterator<Item = u32> {
        core::iter::successors(self.front(head), |&id| self.after(id))
    }

    /// Panics where a link of the list is not matched by its neighbour's.
    pub(super) fn validate(&self, head: u32) {
        let mut cell = head;
        loop {
            let next = self.next(cell);
            assert_eq!(self.prev(next), cell, "the links between cells {cell} and {next} disagree");
            cell = next;
            if cell == head {
                return;
            }
        }
    }

    /// Links `id`, which must be in no list, before the first of `head`'s list.
    #[inline]
    pub(super) fn push_front(&mut self, head: u32, id: u32) {
        let cell = HEADS + id;
        if self.cells.len() <= cell as usize {
            self.grow(cell);
        }
        link_front(&mut self.cells, head, cell);
    }

    /// Takes `id` out of its list. Where that was the last id of the list, returns the list's head.
    #[inline]
    pub(super) fn unlink(&mut self, id: u32) -> Option<u32> {
        let cell = HEADS + id;
        let cells = self.cells.as_mut_slice();
        let place = cells.get_mut(cell as usize)?;
        let prev = core::mem::replace(&mut place.prev, cell);
        let next = core::mem::replace(&mut place.next, cell);
        if prev == cell {
            return None;
        }
        join(cells, prev, next);
        (prev == next && prev < HEADS).then_some(prev)
    }

    /// Makes `id`, which is in a list, the first of `head`'s. Where it was the last of another, returns that list's head.
    #[inline]
    pub(super) fn move_front(&mut self, head: u32, id: u32) -> Option<u32> {
        let cell = HEADS + id;
        let cells = self.cells.as_mut_slice();
        let &Cell { prev, next, .. } = cells.get(cell as usize)?;
        if prev == head {
            return None;
        }
        join(cells, prev, next);
        link_front(cells, head, cell);
        (prev == next && prev < HEADS).then_some(prev)
    }

    /// Makes all that follows `id` in `head`'s list go before the rest of it, in the same order: `id` is the last then.
    #[inline]
    pub(super) fn rotate_to_back(&mut self, head: u32, id: u32) {
        let cell = HEADS + id;
        let (last, first, after) = (self.prev(head), self.next(head), self.next(cell));
        if last == cell {
            return;
        }
        // The head moves from between last and first to behind the cell.
        let cells = self.cells.as_mut_slice();
        join(cells, last, first);
        join(cells, cell, head);
        join(cells, head, after);
    }

    /// Moves the whole of `from`'s list to `to`'s, which must be empty. Constant time.
    pub(super) fn move_all(&mut self, from: u32, to: u32) {
        let (prev, next) = (self.prev(from), self.next(from));
        if next == from {
            return;
        }
        let cells = self.cells.as_mut_slice();
        join(cells, to, next);
        join(cells, prev, to);
        join(cells, from, from);
    }

    /// Empties every list. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.cells.clear();
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.cells.capacity()
    }

    fn prev(&self, cell: u32) -> u32 {
        self.cells.get(cell as usize).map_or(cell, |of| of.prev)
    }

    fn next(&self, cell: u32) -> u32 {
        self.cells.get(cell as usize).map_or(cell, |of| of.next)
    }

    #[cold]
    fn grow(&mut self, cell: u32) {
        let empty = |cell: usize| Cell { prev: cell as u32, next: cell as u32, known: T::default() };
        reach(&mut self.cells, cell, self.limit, empty);
    }
}

// These take a slice, which a store into it cannot change the length of: that stays in a register.

/// Makes two cells neighbours.
#[inline]
fn join<T>(cells: &mut [Cell<T>], prev: u32, next: u32) {
    if let Some(cell) = cells.get_mut(prev as usize) {
        cell.next = next;
    }
    if let Some(cell) = cells.get_mut(next as usize) {
        cell.prev = prev;
    }
}

/// Puts a cell between the head and its first.
#[inline]
fn link_front<T>(cells: &mut [Cell<T>], head: u32, cell: u32) {
    let Some(place) = cells.get_mut(head as usize) else { return };
    let first = core::mem::replace(&mut place.next, cell);
    if let Some(place) = cells.get_mut(cell as usize) {
        (place.prev, place.next) = (head, first);
    }
    if let Some(place) = cells.get_mut(first as usize) {
        place.prev = cell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const IDS: usize = 100;

    fn ids<const HEADS: u32>(links: &Links<HEADS>, head: u32) -> Vec<u32> {
        links.validate(head);
        let ids: Vec<u32> = links.iter(head).collect();
        assert_eq!(links.back(head), ids.last().copied());
        ids
    }

    #[test]
    fn lists_of_one_array_are_independent() {
        let mut links = Links::<2>::new(IDS);
        assert_eq!((ids(&links, 0), ids(&links, 1)), (vec![], vec![]));
        for id in [5, 0, 3] {
            links.push_front(0, id);
        }
        links.push_front(1, 1);
        assert_eq!((ids(&links, 0), ids(&links, 1)), (vec![3, 0, 5], vec![1]));
        assert_eq!(links.unlink(0), None);
        assert_eq!(links.unlink(1), Some(1), "the list of head 1 is empty now");
        assert_eq!((ids(&links, 0), ids(&links, 1)), (vec![3, 5], vec![]));
    }

    #[test]
    fn unlinking_what_is_in_no_list_changes_nothing() {
        let mut links = Links::<1>::new(IDS);
        assert_eq!(links.unlink(7), None, "beyond the array");
        links.push_front(0, 2);
        assert_eq!(links.unlink(1), None, "within the array, never linked");
        assert_eq!(links.after(1), None);
        assert_eq!(ids(&links, 0), [2]);
    }

    #[test]
    fn moves_within_a_list_are_those_of_a_vector() {
        for count in 1..6_u32 {
            for id in 0..count {
                let list = || {
                    let mut links = Links::<2>::new(IDS);
                    (0..count).for_each(|id| links.push_front(1, id));
                    links
                };
                let all = ids(&list(), 1);
                let at = all.iter().position(|other| *other == id).expect("linked");

                let mut links = list();
                links.move_front(1, id);
                let rest = all.iter().copied().filter(|other| *other != id);
                assert_eq!(ids(&links, 1), core::iter::once(id).chain(rest).collect::<Vec<_>>());

                let mut links = list();
                links.rotate_to_back(1, id);
                let (front, behind) = all.split_at(at + 1);
                assert_eq!(ids(&links, 1), [behind, front].concat());
                assert_eq!(links.before(id), all.get(at.wrapping_sub(1)).or_else(|| behind.last()).copied());
            }
        }
    }

    #[test]
    fn an_id_moves_from_one_list_to_another() {
        let mut links = Links::<3>::new(IDS);
        for id in 0..3 {
            links.push_front(1, id);
        }
        assert_eq!((links.move_front(2, 1), links.move_front(2, 2)), (None, None));
        assert_eq!((ids(&links, 1), ids(&links, 2)), (vec![0], vec![2, 1]));
        assert_eq!(links.move_front(2, 0), Some(1), "the list of head 1 is empty now");
        assert_eq!(links.move_front(2, 0), None, "it is the first already");
        assert_eq!(links.move_front(2, 9), None, "never linked");
        assert_eq!((ids(&links, 1), ids(&links, 2)), (vec![], vec![0, 2, 1]));
    }

    #[test]
    fn a_list_moves_as_a_whole() {
        let mut links = Links::<3>::new(IDS);
        for id in 0..4 {
            links.push_front(1, id);
        }
        links.move_all(1, 2);
        assert_eq!((ids(&links, 1), ids(&links, 2)), (vec![], vec![3, 2, 1, 0]));
        links.move_all(0, 1);
        assert!(ids(&links, 1).is_empty(), "an empty list stays empty");
        links.clear();
        assert!(ids(&links, 2).is_empty());
    }
}
