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

use super::super::links::Links;
use super::super::slab::make_space;
use super::Order;
use super::ghosts::Ghosts;
use super::sketch::Sketch;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

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
/// What a ghost moves the border by, if that is an entry at least.
const STEP: u64 = WHOLE / 256;

/// A newcomer of more than so many counts gets in against one of more with a chance of 1 : [`CHANCES`], so that nobody
/// can fill the cache with keys that he has once asked for often (as Caffeine does, `BoundedLocalCache.admit`).
const SUSPICIOUS: u8 = 5;
const CHANCES: u32 = 128;

/// The parts, as lists and as those of ghosts.
const WINDOW: u32 = 0;
const MAIN: u32 = 1;

/// Bits of an id's seat.
const USED: u8 = 1;
const IN_MAIN: u8 = 2;

/// The order; a walk goes through the window and then the main part, each from new to old.
pub(crate) struct Adaptive {
    links: Links<2>,
    /// Where each id is, and whether it was used.
    seats: Vec<AtomicU8>,
    ids: usize,
    in_window: usize,
    in_main: usize,
    /// The share of all entries that the window may have.
    share: u64,
    /// As many entries as the sketch and the ghosts are made for.
    room: usize,
    sketch: Sketch,
    lost: Ghosts,
    random: fastrand::Rng,
}

impl Adaptive {
    /// An empty order of the ids `0..ids`.
    pub(super) fn new(ids: usize) -> Self {
        Self {
            links: Links::new(ids),
            seats: Vec::new(),
            ids,
            in_window: 0,
            in_main: 0,
            share: FIRST_SHARE,
            room: 0,
            sketch: Sketch::default(),
            lost: Ghosts::new(),
            random: fastrand::Rng::with_seed(0),
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.links.capacity()
    }

    fn len(&self) -> usize {
        self.in_window + self.in_main
    }

    /// How many ids the window may hold.
    fn window_limit(&self) -> usize {
        ((self.len() as u64 * self.share / WHOLE) as usize).max(1)
    }

    fn seat(&self, id: u32) -> u8 {
        self.seats.get(id as usize).map_or(0, |seat| seat.load(Relaxed))
    }

    fn set_seat(&mut self, id: u32, to: u8) {
        if let Some(seat) = self.seats.get_mut(id as usize) {
            *seat.get_mut() = to;
        }
    }

    /// Makes a seat for an id that is greater than all before.
    #[cold]
    fn add_seat(&mut self, id: u32) {
        while self.seats.len() <= id as usize {
            make_space(&mut self.seats, self.ids);
            self.seats.push(AtomicU8::new(0));
        }
    }

    /// Makes the sketch and the ghosts as large as the cache has become. What they knew is lost, but while a cache
    /// grows nobody has to go.
    #[cold]
    fn grow(&mut self) {
        self.room = self.room.saturating_mul(2).max(64);
        self.sketch.resize(self.room);
        self.lost.resize((self.room.min(self.ids) / GHOSTS_OF).max(MIN_GHOSTS) as u32);
    }

    /// Moves the border if the key of this hash was lost just now.
    fn steer(&mut self, hash: u64) {
        if self.lost.take(WINDOW, hash) {
            self.share = (self.share + self.step()).min(MAX_SHARE);
        }
        if self.lost.take(MAIN, hash) {
            self.share = self.share.saturating_sub(2 * self.step()).max(MIN_SHARE);
        }
    }

    /// By how much a ghost moves the border.
    fn step(&self) -> u64 {
        STEP.max(WHOLE / self.len().max(1) as u64)
    }

    /// The window's oldest goes to the main part.
    fn promote(&mut self, id: u32, hash: u64) {
        self.leave_window(id, hash);
        self.in_window -= 1;
        self.in_main += 1;
        self.links.move_front(MAIN, id);
        self.set_seat(id, IN_MAIN);
    }

    /// Counts the request that brought the id here, and the mark if it has one.
    fn leave_window(&mut self, id: u32, hash: u64) {
        self.sketch.count(hash, 1 + (self.seat(id) & USED), self.len());
    }

    /// The oldest id of the main part that was not used since it was last passed; `None` where that takes too long.
    fn unused_in_main(&mut self, hash_of: &impl Fn(u32) -> u64) -> Option<u32> {
        let entries = self.len();
        let mut next = self.links.back(MAIN)?;
        for _ in 0..PASSES {
            if self.seat(next) & USED == 0 {
                self.links.rotate_to_back(MAIN, next);
                return Some(next);
            }
            self.set_seat(next, IN_MAIN);
            self.sketch.count(hash_of(next), 1, entries);
            // Where there is none, all were passed, and are in their old order.
            next = self.links.before(next)?;
        }
        self.links.rotate_to_back(MAIN, next);
        None
    }

    /// Whether the window's oldest is worth more than the main part's victim, of these hashes.
    fn is_admitted(&mut self, candidate: u32, hash: u64, victim: u64) -> bool {
        let asked = self.sketch.estimate(hash) + (self.seat(candidate) & USED);
        asked > self.sketch.estimate(victim) || asked > SUSPICIOUS && self.random.u32(..CHANCES) == 0
    }
}

impl Order for Adaptive {
    fn insert(&mut self, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.len() >= self.room {
            self.grow();
        }
        self.steer(hash_of(id));
        if self.seats.len() <= id as usize {
            self.add_seat(id);
        }
        self.set_seat(id, 0);
        self.links.push_front(WINDOW, id);
        self.in_window += 1;
        if self.in_window > self.window_limit() {
            if let Some(oldest) = self.links.back(WINDOW) {
                self.promote(oldest, hash_of(oldest));
            }
        }
    }

    fn touch(&mut self, id: u32) {
        self.touch_shared(id);
    }

    /// Two who do this at once both set the mark.
    fn touch_shared(&self, id: u32) {
        if let Some(seat) = self.seats.get(id as usize) {
            let now = seat.load(Relaxed);
            if now & USED == 0 {
                seat.store(now | USED, Relaxed);
            }
        }
    }

    fn remove(&mut self, id: u32) {
        let part = if self.seat(id) & IN_MAIN == 0 { &mut self.in_window } else { &mut self.in_main };
        *part = part.saturating_sub(1);
        self.links.unlink(id);
    }

    fn victim(&mut self, hash_of: impl Fn(u32) -> u64) -> Option<u32> {
        let with_hash = |id| (id, hash_of(id));
        let candidate =
            self.links.back(WINDOW).filter(|_| self.in_window >= self.window_limit()).map(with_hash);
        let victim = self.unused_in_main(&hash_of).map(with_hash);
        match (candidate, victim) {
            (Some((candidate, hash)), Some((victim, other))) if self.is_admitted(candidate, hash, other) => {
                self.promote(candidate, hash);
                self.lost.push(MAIN, other);
                Some(victim)
            }
            (Some((candidate, hash)), _) => {
                self.leave_window(candidate, hash);
                self.lost.push(WINDOW, hash);
                Some(candidate)
            }
            (None, victim) => {
                let (victim, hash) = victim.or_else(|| self.links.back(MAIN).map(with_hash))?;
                self.lost.push(MAIN, hash);
                Some(victim)
            }
        }
    }

    fn first(&self) -> Option<u32> {
        self.links.front(WINDOW).or_else(|| self.links.front(MAIN))
    }

    fn after(&self, id: u32) -> Option<u32> {
        let turns = || if self.seat(id) & IN_MAIN == 0 { self.links.front(MAIN) } else { None };
        self.links.after(id).or_else(turns)
    }

    fn clear(&mut self) {
        let Self { links, seats, in_window, in_main, share, sketch, lost, .. } = self;
        links.clear();
        seats.clear();
        (*in_window, *in_main, *share) = (0, 0, FIRST_SHARE);
        sketch.clear();
        lost.clear();
    }

    fn validate(&self) {
        for (list, seat, count) in [(WINDOW, 0, self.in_window), (MAIN, IN_MAIN, self.in_main)] {
            self.links.validate(list);
            let ids = self
                .links
                .iter(list)
                .inspect(|id| assert_eq!(self.seat(*id) & IN_MAIN, seat, "seat of {id}"));
            assert_eq!(ids.count(), count, "length of list {list}");
        }
    }
}
