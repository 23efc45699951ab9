//! How often each id that is held was used lately.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The most that is counted, as in the sketch.
const MOST: u8 = 15;

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
#[derive(Default)]
pub(super) struct Uses {
    bytes: Box<[AtomicU8]>,
}

impl Uses {
    /// The id was used, says somebody who may share this with others: if two set a mark at once, it is set. Whether the id has
    /// a byte for that.
    #[inline]
    pub(super) fn mark(&self, id: u32) -> bool {
        let Some(byte) = self.bytes.get(id as usize) else { return false };
        let before = byte.load(Relaxed);
        // A line that nobody writes to is in every processor's cache.
        if before & MARK == 0 {
            byte.store(before | MARK, Relaxed);
        }
        true
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
        if let Some(byte) = self.bytes.get_mut(id as usize).map(AtomicU8::get_mut) {
            *byte = unmarked(count.min(MOST), halvings);
        }
    }

    /// Makes a byte for an id, and for all before it, of `ids` that there can be.
    #[inline]
    pub(super) fn reach(&mut self, id: u32, ids: usize) {
        if self.bytes.len() <= id as usize {
            self.grow(id, ids);
        }
    }

    /// Halves the count of an id as often as it is due. The answer is the next id.
    ///
    /// Who does that each time that an id comes in comes by each in time. Between two looks at an entry of the main part every
    /// other is passed once at most: if it has a mark, it gets its age anew when it is passed itself, and if it has none, it
    /// ends each search until it goes. Besides, 4 are counted for each that comes in. With at most twice as many bytes as
    /// entries that is 9 for each entry, and everything is halved after each 5. In a cache that has lost most of its entries
    /// it may take longer, and some count then seem younger than it is.
    #[inline]
    pub(super) fn refresh(&mut self, id: u32, halvings: u8) -> u32 {
        let Some(byte) = self.bytes.get_mut(id as usize).map(AtomicU8::get_mut) else { return 0 };
        if (*byte ^ halvings << 4) & AGE != 0 {
            *byte = *byte & MARK | unmarked(count(*byte, halvings), halvings);
        }
        id + 1
    }

    /// Forgets all. Keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.iter_mut().for_each(|byte| *byte.get_mut() = 0);
    }

    #[cold]
    fn grow(&mut self, id: u32, ids: usize) {
        let mut bytes = core::mem::take(&mut self.bytes).into_vec();
        let length = bytes.len().saturating_mul(2).clamp(4, ids.max(4)).max(id as usize + 1);
        bytes.reserve_exact(length - bytes.len());
        bytes.resize_with(length, AtomicU8::default);
        self.bytes = bytes.into_boxed_slice();
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
        let mut uses = Uses::default();
        uses.reach(9, 10);
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
    fn an_id_without_a_byte_is_not_used() {
        let mut uses = uses();
        assert!(!uses.mark(50));
        uses.set(50, 3, 0);
        assert_eq!((uses.is_marked(50), uses.count(50, 0), uses.pass(50, 0)), (false, 0, false));
        uses.reach(50, 60);
        assert!(uses.mark(50));
        uses.set(50, 3, 0);
        assert_eq!((uses.count(50, 0), uses.count(49, 0)), (3, 0));
        uses.clear();
        assert_eq!(uses.count(50, 0), 0);
    }

    #[test]
    fn bytes_are_made_for_twice_as_many_ids_but_not_for_more_than_there_can_be() {
        let mut uses = Uses::default();
        for (id, ids, expected) in
            [(0, 100, 4), (3, 100, 4), (4, 100, 8), (30, 100, 31), (31, 100, 62), (99, 100, 100)]
        {
            uses.reach(id, ids);
            assert_eq!(uses.bytes.len(), expected, "{id}");
        }
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
            assert_eq!((0..10).fold(0, |id, _| uses.refresh(id, halvings)), 10);
            assert_eq!(uses.refresh(10, halvings), 0, "and begin anew");
        }
        assert_eq!((uses.count(3, 8), uses.is_marked(3)), (0, true), "the mark stays");
        let mut late = self::uses();
        late.set(3, 15, 0);
        assert_eq!(late.count(3, 8), 15, "eight halvings are not told from none");
    }
}
