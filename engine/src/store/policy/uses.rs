//! How often each id that is held was used lately.

use super::super::slab::make_space;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The most that is counted, as in the sketch.
pub(super) const MOST: u8 = 15;

/// What a byte says: whether the id was used since it was last passed, how often the count had been halved, modulo 8, and
/// the count.
const MARK: u8 = 0x80;
const AGE: u8 = 0x70;
const COUNT: u8 = 0x0F;

/// A byte for each id, so that 64 of them share a line of the processor's cache: a search for a victim passes many.
///
/// A count is halved with those of the [`Sketch`](super::sketch::Sketch), when it is next looked at. Its three bits of age
/// say how often that is, as long as somebody looks before it should have been halved eight times:
/// [`refresh`](Self::refresh) does.
pub(super) struct Uses {
    bytes: Vec<AtomicU8>,
    /// Whom to refresh next.
    next: usize,
    limit: usize,
}

impl Uses {
    /// For the ids `0..ids`. Allocates nothing yet.
    pub(super) const fn new(ids: usize) -> Self {
        Self { bytes: Vec::new(), next: 0, limit: ids }
    }

    /// The id was used, says somebody who may share this with others: if two set a mark at once, it is set.
    #[inline]
    pub(super) fn mark(&self, id: u32) {
        if let Some(byte) = self.bytes.get(id as usize) {
            let before = byte.load(Relaxed);
            // A line that nobody writes to is in every processor's cache.
            if before & MARK == 0 {
                byte.store(before | MARK, Relaxed);
            }
        }
    }

    pub(super) fn is_marked(&self, id: u32) -> bool {
        self.bytes.get(id as usize).is_some_and(|byte| byte.load(Relaxed) & MARK != 0)
    }

    /// How often the id was counted lately, at most [`MOST`], where everything should have been halved so often.
    pub(super) fn count(&self, id: u32, halvings: u8) -> u8 {
        self.bytes.get(id as usize).map_or(0, |byte| count(byte.load(Relaxed), halvings))
    }

    /// Takes the mark, if there is one, and counts it. Whether there was.
    #[inline]
    pub(super) fn pass(&mut self, id: u32, halvings: u8) -> bool {
        match self.bytes.get_mut(id as usize).map(AtomicU8::get_mut) {
            Some(byte) if *byte & MARK != 0 => {
                *byte = unmarked((count(*byte, halvings) + 1).min(MOST), halvings);
                true
            }
            _ => false,
        }
    }

    /// Sets the count of an id, and takes its mark.
    #[inline]
    pub(super) fn set(&mut self, id: u32, count: u8, halvings: u8) {
        if self.bytes.len() <= id as usize {
            self.grow(id);
        }
        if let Some(byte) = self.bytes.get_mut(id as usize).map(AtomicU8::get_mut) {
            *byte = unmarked(count.min(MOST), halvings);
        }
    }

    /// Halves the count of one id, the next each time, as often as it is due. Called once for each id that comes in, it
    /// looks at every id before everything should have been halved four times more, though each search counts all that
    /// it may: 16 ids passed and 2 for the newcomer, in samples of 10 for each entry.
    #[inline]
    pub(super) fn refresh(&mut self, halvings: u8) {
        self.next = if self.next < self.bytes.len() { self.next } else { 0 };
        if let Some(byte) = self.bytes.get_mut(self.next).map(AtomicU8::get_mut) {
            if *byte >> 4 & 7 != halvings & 7 {
                *byte = *byte & MARK | unmarked(count(*byte, halvings), halvings);
            }
        }
        self.next += 1;
    }

    /// Forgets all. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// For an id that is greater than all before.
    #[cold]
    fn grow(&mut self, id: u32) {
        while self.bytes.len() <= id as usize {
            make_space(&mut self.bytes, self.limit);
            self.bytes.push(AtomicU8::new(0));
        }
    }
}

fn count(byte: u8, halvings: u8) -> u8 {
    (byte & COUNT) >> (halvings.wrapping_sub(byte >> 4) & 7)
}

fn unmarked(count: u8, halvings: u8) -> u8 {
    halvings << 4 & AGE | count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses() -> Uses {
        let mut uses = Uses::new(100);
        (0..10).for_each(|id| uses.set(id, 0, 0));
        uses
    }

    #[test]
    fn a_mark_is_counted_when_its_id_is_passed_and_is_gone_then() {
        let mut uses = uses();
        assert!(!uses.pass(1, 0), "there is no mark");
        uses.mark(1);
        uses.mark(1);
        assert!(uses.is_marked(1) && !uses.is_marked(2));
        assert_eq!((uses.pass(1, 0), uses.pass(1, 0), uses.count(1, 0)), (true, false, 1));
        uses.mark(1);
        uses.set(1, 7, 0);
        assert_eq!((uses.is_marked(1), uses.count(1, 0)), (false, 7));
        for _ in 0..20 {
            uses.mark(1);
            uses.pass(1, 0);
        }
        assert_eq!(uses.count(1, 0), MOST);
        uses.set(1, 200, 0);
        assert_eq!((uses.is_marked(1), uses.count(1, 0)), (false, MOST));
    }

    #[test]
    fn an_id_that_was_never_set_is_not_used() {
        let mut uses = uses();
        uses.mark(50);
        assert_eq!((uses.is_marked(50), uses.count(50, 0), uses.pass(50, 0)), (false, 0, false));
        uses.set(50, 3, 0);
        assert_eq!((uses.count(50, 0), uses.count(49, 0)), (3, 0));
        uses.clear();
        assert_eq!(uses.count(50, 0), 0);
    }

    #[test]
    fn a_count_is_halved_each_time_that_it_is_due() {
        // Also across the end of the halvings' numbers.
        for begin in [0, 5, 251] {
            for (late, expected) in [(0, 13), (1, 6), (2, 3), (3, 1), (4, 0), (7, 0)] {
                let halvings = u8::wrapping_add(begin, late);
                let mut uses = uses();
                uses.set(1, 13, begin);
                assert_eq!(uses.count(1, halvings), expected, "{begin} {late}");
                uses.mark(1);
                assert!(uses.pass(1, halvings));
                assert_eq!(uses.count(1, halvings), expected + 1, "{begin} {late}");
            }
        }
    }

    #[test]
    fn who_is_refreshed_in_time_does_not_become_young_again() {
        let mut uses = uses();
        uses.set(3, 15, 0);
        uses.mark(3);
        for halvings in 0..=8 {
            (0..10).for_each(|_| uses.refresh(halvings));
        }
        assert_eq!((uses.count(3, 8), uses.is_marked(3)), (0, true), "the mark stays");
        let mut late = self::uses();
        late.set(3, 15, 0);
        assert_eq!(late.count(3, 8), 15, "eight halvings are not told from none");
    }
}
