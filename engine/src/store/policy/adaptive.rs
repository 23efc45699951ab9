//! A window in front of a main part, both without moves on hits, and a border between them that finds its place.
//!
//! ```text
//!              admitted, or there is room
//!            ┌───────────────────────────────▶┌────────┐ ──┐ used since it was passed:
//!   insert   │                                │  main  │   │ passed again
//!  ───────▶ ┌────────┐                        └────────┘ ◀─┘
//!           │ window │  oldest                     │ oldest, not used
//!           └────────┘                             │
//!                │ not admitted                    │ the window's oldest is admitted, or the window may grow
//!                ▼                                 ▼
//!       ghosts of the window                 ghosts of the main part
//!           asked for again:                    asked for again:
//!           the window grows                    the window shrinks
//! ```
//!
//! What is new enters the window, a queue. When room is needed, the oldest of the window stands against the victim of
//! the main part: the one that was asked for more often stays, and of two equals the one that is in. So a scan passes
//! through the window, and a loop over more than fits leaves the main part in peace: what is there gets its hits.
//! The comparison is TinyLFU's (Einziger, Friedman and Manes, ACM ToS 13, 2017), on a [`Sketch`].
//!
//! Both parts forgive in the manner of CLOCK (Corbató 1968): a hit sets the entry's mark and moves nothing, which those
//! who share the store can do. The victim of the main part is the first unmarked entry from its old end; marked ones
//! lose the mark and go to its new end. A search passes [`PASSES`] of them at most: where so many have been used, the
//! newcomer is the one to go.
//!
//! # When to count
//!
//! A key is counted when its entry leaves the window, and when its mark is taken: never for a request that is still
//! represented by the entry's place or mark. So a newcomer that was asked for once stands with nothing against a victim
//! that was left with nothing, and loses. Counted on arrival, as usual, it would be one ahead of what is asked for as
//! often as itself, and in a loop every newcomer would win just before its victim is asked for again.
//!
//! # Where the counts are
//!
//! In the sketch are those of keys that are not in the main part. Of an entry there they are in a byte of its own
//! ([`Uses`]), beside its mark, so that a search looks at a few lines of the processor's cache, however many entries it
//! passes; the sketch gets them when the entry goes. A victim has the greater of the two, for what the sketch says
//! too much of all keys: a newcomer is not to win by that.
//!
//! # Where the border is
//!
//! The window should have the room that brings more hits there than in the main part, at the margin. That is measured:
//! the last few that either lost are remembered as ghosts, and one that is asked for again is a hit that a slightly
//! larger window, or main part, would have had. Each moves the border by a little (Cidon et al., *Cliffhanger: Scaling
//! Performance Cliffs in Web Memory Caches*, NSDI 2016). A ghost of the main part counts double: what the window
//! lost may get in by the sketch when it comes back, what the main part lost is known to have been good.
//!
//! Steering by the hits that each part *has*, per entry, was measured as well. It is as good on stable popularity,
//! and gets stuck where recency rules (a working set that drifts): the few hits per entry that the window's tail adds
//! do not show in its average.

use super::super::fingerprint::Fingerprint;
use super::super::links::Links;
use super::Order;
use super::age::Age;
use super::ghosts::Ghosts;
use super::sketch::Sketch;
use super::uses::Uses;

/// Marked entries of the main part that one search for a victim passes at most.
const PASSES: usize = 16;

/// One of so many of the ids held is remembered by each kind of ghost: few enough to be a margin.
const GHOSTS_OF: usize = 32;
const MIN_GHOSTS: usize = 4;

/// The window's share is in units of 1 / WHOLE.
const WHOLE: u64 = 1 << 16;
const FIRST_SHARE: u64 = WHOLE / 10;
const MIN_SHARE: u64 = WHOLE / 100;
const MAX_SHARE: u64 = WHOLE * 15 / 16;
/// What a ghost moves the border by, if that is about an entry at least. By more, it would be ever on the move, and
/// entries would go by that alone; by less, it would be late where what is asked for changes.
const STEP: u64 = WHOLE / 1024;

/// A newcomer of more than so many counts gets in against one of more with a chance of 1 : [`CHANCES`], so that nobody
/// can fill the cache with keys that he has once asked for often (as Caffeine does, `BoundedLocalCache.admit`).
const SUSPICIOUS: u8 = 5;
const CHANCES: u32 = 128;

/// The parts, as lists and as those of ghosts.
const WINDOW: u32 = 0;
const MAIN: u32 = 1;

/// Which part an id is in, in the highest bit, and the fingerprint of its key: enough for the sketch and the ghosts, and
/// next to the links, so that whoever passes by need not look at the entry.
#[derive(Clone, Copy, Default)]
struct Seat(u32);

impl Seat {
    const IN_MAIN: u32 = !Fingerprint::MASK;

    fn in_window(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.get())
    }

    fn in_main(self) -> Self {
        Self(self.0 | Self::IN_MAIN)
    }

    fn is_in_main(self) -> bool {
        self.0 & Self::IN_MAIN != 0
    }

    /// The key's.
    fn fingerprint(self) -> Fingerprint {
        Fingerprint::from_word(self.0)
    }
}

/// The order; a walk goes through the window and then the main part, each from new to old.
#[repr(C)] // first what changes whenever an id comes or goes
pub(crate) struct Adaptive {
    /// Ids in both parts.
    len: usize,
    age: Age,
    /// The share of all entries that the window may have.
    share: u64,
    /// Of another width than `len`: two alike are changed by one instruction, which reads both at once and waits where one
    /// has just been written alone.
    in_window: u32,
    /// Whose uses to refresh next.
    stale: u32,
    lost: Ghosts,
    links: Links<2, Seat>,
    /// How often keys were counted that are not in the main part.
    sketch: Sketch,
    random: fastrand::Rng,
}

impl Adaptive {
    /// An empty order of the ids `0..ids`.
    pub(super) fn new(ids: usize) -> Self {
        Self {
            len: 0,
            age: Age::default(),
            share: FIRST_SHARE,
            in_window: 0,
            stale: 0,
            lost: Ghosts::new(),
            links: Links::new(ids),
            sketch: Sketch::default(),
            random: fastrand::Rng::with_seed(0),
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.links.capacity()
    }

    /// How often an id of the main part was counted lately.
    #[cfg(test)]
    pub(super) fn counted(&self, id: u32, uses: &Uses) -> u8 {
        uses.count(id, self.age.halvings())
    }

    /// How many ids the window may hold.
    fn window_limit(&self) -> u32 {
        ((self.len as u64 * self.share / WHOLE) as u32).max(1)
    }

    /// Makes the sketch and the ghosts as large as the cache has become. What they knew is lost, but while a cache
    /// grows nobody has to go.
    #[cold]
    fn grow(&mut self) {
        let room = self.sketch.room().saturating_mul(2).max(64);
        self.sketch.resize(room);
        self.lost.resize((room.min(self.links.ids()) / GHOSTS_OF).max(MIN_GHOSTS) as u32);
    }

    /// Moves the border if this key was lost just now.
    fn steer(&mut self, fingerprint: Fingerprint) {
        if self.lost.take(WINDOW, fingerprint) {
            self.share = (self.share + self.step()).min(MAX_SHARE);
        }
        if self.lost.take(MAIN, fingerprint) {
            self.share = self.share.saturating_sub(2 * self.step()).max(MIN_SHARE);
        }
    }

    /// By how much a ghost moves the border.
    fn step(&self) -> u64 {
        STEP.max(WHOLE / self.len.max(1) as u64)
    }

    /// Counts the request that brought the window's oldest here, and its mark if it has one. The answer is how often it was
    /// asked for besides that request.
    fn leave_window(&mut self, id: u32, uses: &Uses) -> u8 {
        let marks = u8::from(uses.is_marked(id));
        self.age.count((1 + marks).into(), self.len);
        marks + self.sketch.count(self.fingerprint(id), 1 + marks, self.age.halvings())
    }

    /// The window's oldest, which was asked for so often besides the request that brought it here, goes to the main part.
    fn promote(&mut self, id: u32, asked: u8, uses: &mut Uses) {
        self.in_window -= 1;
        self.links.move_front(MAIN, id);
        self.links.set(id, self.links.get(id).in_main());
        uses.set(id, asked + 1, self.age.halvings());
    }

    /// The oldest id of the main part that was not used since it was last passed; `None` where that takes too long.
    fn unused_in_main(&mut self, uses: &mut Uses) -> Option<u32> {
        let mut passed = 0;
        let victim = self.search(&mut passed, uses);
        self.age.count(passed, self.len);
        victim
    }

    fn search(&mut self, passed: &mut usize, uses: &mut Uses) -> Option<u32> {
        let halvings = self.age.halvings();
        let mut next = self.links.back(MAIN)?;
        let mut victim = None;
        while *passed < PASSES {
            if !uses.pass(next, halvings) {
                victim = Some(next);
                break;
            }
            *passed += 1;
            // Where there is none, all were passed, and are in their old order.
            next = self.links.before(next)?;
        }
        self.links.rotate_to_back(MAIN, next);
        victim
    }

    /// Whether a newcomer that was asked for so often may have the place of this id of the main part. The sketch is only looked
    /// at where the id's own count does not say so already.
    fn is_admitted(&mut self, newcomer: u8, victim: u32, uses: &Uses) -> bool {
        let halvings = self.age.halvings();
        let is_more = newcomer > uses.count(victim, halvings)
            && newcomer > self.sketch.estimate(self.fingerprint(victim), halvings);
        is_more || newcomer > SUSPICIOUS && self.random.u32(..CHANCES) == 0
    }

    /// Takes an id out of its part, and remembers that it was lost.
    fn lose(&mut self, part: u32, id: u32, uses: &Uses) -> u32 {
        self.lost.push(part, self.fingerprint(id));
        self.leave(part, id, uses);
        id
    }

    /// Takes an id out of its part. What was counted of it there is kept in the sketch.
    fn leave(&mut self, part: u32, id: u32, uses: &Uses) {
        if part == MAIN {
            let halvings = self.age.halvings();
            self.sketch.lift(self.fingerprint(id), uses.count(id, halvings), halvings);
        }
        if part == WINDOW {
            self.in_window = self.in_window.saturating_sub(1);
        }
        self.len = self.len.saturating_sub(1);
        self.links.unlink(id);
    }
}

impl Order for Adaptive {
    fn insert(&mut self, id: u32, fingerprint: Fingerprint, uses: &mut Uses) {
        if self.len >= self.sketch.room() {
            self.grow();
        }
        self.steer(fingerprint);
        uses.reach(id, self.links.ids());
        uses.set(id, 0, self.age.halvings());
        self.stale = uses.refresh(self.stale, self.age.halvings());
        self.links.push_front(WINDOW, id);
        self.links.set(id, Seat::in_window(fingerprint));
        self.len += 1;
        self.in_window += 1;
        if self.in_window > self.window_limit() {
            if let Some(oldest) = self.links.back(WINDOW) {
                let asked = self.leave_window(oldest, uses);
                self.promote(oldest, asked, uses);
            }
        }
    }

    fn fingerprint(&self, id: u32) -> Fingerprint {
        self.links.get(id).fingerprint()
    }

    /// Only ids that are not in it have no byte.
    fn touch(&mut self, _: u32) {}

    fn remove(&mut self, id: u32, uses: &mut Uses) {
        self.leave(if self.links.get(id).is_in_main() { MAIN } else { WINDOW }, id, uses);
    }

    fn evict(&mut self, uses: &mut Uses) -> Option<u32> {
        let candidate = self.links.back(WINDOW).filter(|_| self.in_window >= self.window_limit());
        let victim = self.unused_in_main(uses);
        let Some(candidate) = candidate else {
            let victim = victim.or_else(|| self.links.back(MAIN))?;
            return Some(self.lose(MAIN, victim, uses));
        };
        let asked = self.leave_window(candidate, uses);
        // Who was not asked for before beats nobody.
        match victim.filter(|_| asked > 0) {
            Some(victim) if self.is_admitted(asked, victim, uses) => {
                self.promote(candidate, asked, uses);
                Some(self.lose(MAIN, victim, uses))
            }
            _ => Some(self.lose(WINDOW, candidate, uses)),
        }
    }

    fn first(&self) -> Option<u32> {
        self.links.front(WINDOW).or_else(|| self.links.front(MAIN))
    }

    fn after(&self, id: u32) -> Option<u32> {
        let turns = || if self.links.get(id).is_in_main() { None } else { self.links.front(MAIN) };
        self.links.after(id).or_else(turns)
    }

    fn clear(&mut self) {
        let Self { links, len, in_window, share, age, lost, sketch, .. } = self;
        links.clear();
        (*len, *in_window, *share) = (0, 0, FIRST_SHARE);
        *age = Age::default();
        lost.clear();
        sketch.clear();
    }

    fn validate(&self) {
        for (list, count) in [(WINDOW, self.in_window as usize), (MAIN, self.len - self.in_window as usize)] {
            self.links.validate(list);
            let is_here = |id: &u32| self.links.get(*id).is_in_main() == (list == MAIN);
            let ids = self.links.iter(list).inspect(|id| assert!(is_here(id), "seat of {id}"));
            assert_eq!(ids.count(), count, "length of list {list}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn what_changes_with_an_entry_fits_a_cache_line() {
        let changed = core::mem::offset_of!(Adaptive, lost) + 2 * size_of::<u32>();
        assert_eq!(changed, 48);
        // It begins where the uses end, with a line: there is no tag before it.
        let order = size_of::<super::super::Ordering>();
        assert_eq!((size_of::<Uses>(), order), (16, 16 + size_of::<Adaptive>()));
    }

    #[test]
    fn a_ghost_moves_the_border_by_a_thousandth_and_by_about_an_entry_at_least() {
        for (len, step) in [(0, WHOLE), (1, WHOLE), (100, 655), (1_000, 65), (1_024, 64), (1_000_000, 64)] {
            let order = Adaptive { len, ..Adaptive::new(1) };
            assert_eq!(order.step(), step, "of {len}");
        }
    }
}
