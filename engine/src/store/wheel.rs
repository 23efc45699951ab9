//! A hierarchical timer wheel: which deadlines have passed, without ever sorting or scanning.
//!
//! G. Varghese and T. Lauck, *Hashed and Hierarchical Timing Wheels: Data Structures for the Efficient Implementation
//! of a Timer Facility*, SOSP 1987, scheme 7.
//!
//! Time is cut into ticks of 2^20 ns (1.05 ms), and a tick's number into digits of six bits. A deadline is filed
//! under the most significant digit in which it differs from the wheel's current tick:
//!
//! ```text
//!              digit 7 … 2    digit 1   digit 0
//!   current        0             3         9
//!   tick a         0             3        17      differs first in digit 0:  level 0, bucket 17
//!   tick b         0             5         2      differs first in digit 1:  level 1, bucket  5
//!
//!   level 0   [ ][ ] … [17: a] … [63]     one tick a bucket         1.05 ms
//!   level 1   [ ] … [5: b] … … … [63]     64 ticks a bucket         67 ms
//!   level 2   [ ] … … … … … … … … [63]    64^2 ticks a bucket       4.3 s
//!     ⋮                                     ⋮    (4.6 min, 4.9 h, 13 days, 2.3 years, 146 years)
//!   level 7   [ ] … … … … … … … … [63]    the rest of 64-bit time
//!   due       [ … ]                       taken from the bucket that time has reached, to be looked at one by one
//! ```
//!
//! Everything on a lower level is earlier than anything above it, so the earliest bucket is the lowest level's first
//! occupied one, found in a bitmap per level. Time therefore *jumps* from occupied bucket to occupied bucket; an idle
//! year costs what an idle tick costs. Eight levels cover all of time, so there is no list for what is too far off.
//!
//! A bucket that time reaches becomes the due list, in one step however long it is. [`Wheel::pop`] hands out its ids
//! one at a time, and the caller, who knows the id's true deadline, removes what is over and schedules the rest
//! again: one level lower at least, so an id is looked at once a level at most.
//!
//! A deadline that moves leaves its id where it is, as long as the bucket there begins no later than that. The id then comes
//! out too early, and is looked at once more for however often the deadline has moved. Renewals move one to later, for which
//! that is always so; an id whose deadline goes to and fro has soon found the bucket of its earliest.

use super::growth::reach;
use super::links::{self, Links};
use crate::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;

const TICK_BITS: u32 = 20;
const DIGIT_BITS: u32 = 6;
const SLOTS: u32 = 1 << DIGIT_BITS;
/// Enough digits for the 45 bits that a tick's number can have.
pub(super) const LEVELS: u32 = 8;
/// What is due, whatever its time: as a bucket, it began when time did.
const DUE: u32 = LEVELS * SLOTS;
/// Lists of the wheel: a bucket per level and digit, and the due list.
pub(super) const HEADS: u32 = DUE + 1;
/// Bytes per id.
pub(super) const OVERHEAD: usize = links::OVERHEAD + size_of::<u16>();

#[repr(C)] // last what is looked at while nothing has a deadline, or nothing is due
pub(super) struct Wheel {
    /// Of the ids `0..ids`; made when the first has a deadline.
    buckets: Option<Box<Buckets>>,
    ids: usize,
    /// The tick that time has reached, as far as the due list is worked off.
    current: u64,
    /// Nothing is due before this tick: the start of the earliest bucket, or earlier where that was emptied by others.
    idle_until: u64,
}

impl Wheel {
    /// An empty wheel for the ids `0..ids`. Allocates nothing until the first deadline is scheduled.
    pub(super) const fn new(now: Instant, ids: usize) -> Self {
        Self { buckets: None, ids, current: tick_of(now), idle_until: u64::MAX }
    }

    /// Files `id`, which must not be in, under `deadline`; not at all where that is `Instant::NEVER`. Constant time.
    #[inline]
    pub(super) fn schedule(&mut self, id: u32, deadline: Instant) {
        if !deadline.is_never() {
            self.file(id, deadline);
        }
    }

    /// Moves `id`, scheduled for `from` before, to the deadline `to`. Constant time, and next to nothing where `id` comes out
    /// in time from where it is: whoever looks at it then schedules it again.
    #[inline]
    pub(super) fn reschedule(&mut self, id: u32, from: Instant, to: Instant) {
        match (from.is_never(), to.is_never()) {
            (true, true) => {}
            (true, false) => self.file(id, to),
            (false, true) => self.cancel(id),
            (false, false) => self.refile(id, to),
        }
    }

    fn file(&mut self, id: u32, deadline: Instant) {
        let due = due_tick(deadline);
        let (bucket, start) = bucket_of(due, self.current);
        self.idle_until = self.idle_until.min(start);
        self.buckets.get_or_insert_with(|| Box::new(Buckets::new(self.ids))).push(bucket, id);
    }

    /// Does not ask whether the deadline has become earlier or later: a processor that has to guess that is often wrong, and
    /// hardly ever about whether the bucket begins in time.
    #[inline]
    fn refile(&mut self, id: u32, deadline: Instant) {
        let Some(buckets) = &self.buckets else { return };
        let due = due_tick(deadline);
        if buckets.list_start(id, self.current) > due {
            self.bring_forward(id, due);
        }
    }

    #[inline(never)]
    fn bring_forward(&mut self, id: u32, due: u64) {
        let Some(buckets) = &mut self.buckets else { return };
        let (bucket, start) = bucket_of(due, self.current);
        self.idle_until = self.idle_until.min(start);
        buckets.transfer(bucket, id);
    }

    /// Takes `id` out, if it is in. Constant time.
    #[inline]
    pub(super) fn cancel(&mut self, id: u32) {
        if let Some(buckets) = &mut self.buckets {
            buckets.unlink(id);
        }
    }

    /// The next id whose bucket `now` has reached; it is out of the wheel then. Its deadline is over, or within the
    /// bucket, or has become a later one: the caller looks, and schedules it again if it is not over. Constant time.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        if self.is_idle(now) {
            return None;
        }
        let id = match self.buckets.as_ref()?.links.back(DUE) {
            Some(id) => id,
            None => self.open_bucket(tick_of(now))?,
        };
        self.cancel(id);
        Some(id)
    }

    /// Moves time to `now` if nothing is due before that, and says whether it did: nearly always, for next to nothing.
    #[inline]
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let now = tick_of(now);
        let is_idle = now < self.idle_until;
        if is_idle && self.current < now {
            self.current = now;
        }
        is_idle
    }

    /// When [`pop`](Self::pop) has something to hand out: when the earliest bucket begins, less than a tick after the earliest
    /// deadline at the latest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.buckets.as_ref()?.first(self.current).map(instant_of)
    }

    /// Whether no id is in, as far as is known: it may take a [`pop`](Self::pop) to notice that the last has gone.
    pub(super) fn is_empty(&self) -> bool {
        self.idle_until == u64::MAX
    }

    /// Forgets every id. Keeps the memory.
    pub(super) fn clear(&mut self) {
        if let Some(buckets) = &mut self.buckets {
            buckets.clear();
        }
        self.idle_until = u64::MAX;
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> [usize; 2] {
        self.buckets.as_ref().map_or([0; 2], |buckets| [buckets.links.capacity(), buckets.filed.capacity()])
    }

    /// Panics where a bucket's mark is wrong or an id is in a bucket beyond its deadline. Returns the number of ids.
    pub(super) fn validate(&self, deadline_of: impl Fn(u32) -> Instant) -> usize {
        let Some(buckets) = &self.buckets else { return 0 };
        let first = buckets.first(self.current);
        assert!(first.is_none_or(|first| self.idle_until <= first), "idle beyond {first:?}");
        buckets.validate(self.current, |id| due_tick(deadline_of(id)))
    }

    /// Moves time to the earliest bucket if `now` has reached it, else to `now`, which then changes no id's place.
    /// Returns the first id of the due list.
    fn open_bucket(&mut self, now: u64) -> Option<u32> {
        let buckets = self.buckets.as_mut()?;
        match buckets.first_bucket(self.current) {
            Some((bucket, start)) if start <= now => {
                self.current = start;
                buckets.fall_due(bucket)
            }
            bucket => {
                self.idle_until = bucket.map_or(u64::MAX, |(_, start)| start);
                self.current = self.current.max(now);
                None
            }
        }
    }
}

/// The wheel's lists.
struct Buckets {
    links: Links<HEADS>,
    /// Which list each id was put into last. Where that is a bucket that has become the due list since, it says the bucket still,
    /// which has begun as well.
    filed: Vec<u16>,
    /// Which buckets of each level hold something.
    occupied: [u64; LEVELS as usize],
}

impl Buckets {
    const fn new(ids: usize) -> Self {
        Self { links: Links::new(ids), filed: Vec::new(), occupied: [0; LEVELS as usize] }
    }

    /// The tick at which the list begins that `id` is in.
    fn list_start(&self, id: u32, current: u64) -> u64 {
        self.filed.get(id as usize).map_or(u64::MAX, |&list| start_of(list.into(), current))
    }

    /// Puts `id`, which is in no list, into one.
    fn push(&mut self, bucket: u32, id: u32) {
        reach(&mut self.filed, id, self.links.ids(), |_| 0);
        self.mark(bucket, id);
        self.links.push_front(bucket, id);
    }

    /// Puts `id`, which is in a list, into another.
    fn transfer(&mut self, bucket: u32, id: u32) {
        self.mark(bucket, id);
        if let Some(emptied) = self.links.move_front(bucket, id) {
            self.unmark(emptied);
        }
    }

    #[inline]
    fn unlink(&mut self, id: u32) {
        if let Some(emptied) = self.links.unlink(id) {
            self.unmark(emptied);
        }
    }

    /// Makes a bucket the due list, which is empty, and returns the first id of that.
    fn fall_due(&mut self, bucket: u32) -> Option<u32> {
        self.unmark(bucket);
        self.links.move_all(bucket, DUE);
        self.links.back(DUE)
    }

    /// The tick from which there is something to look at.
    fn first(&self, current: u64) -> Option<u64> {
        if self.links.back(DUE).is_some() {
            return Some(current);
        }
        self.first_bucket(current).map(|(_, start)| start)
    }

    /// The earliest bucket that holds something, and the tick at which it begins.
    fn first_bucket(&self, current: u64) -> Option<(u32, u64)> {
        let (level, slots) = (0..LEVELS).zip(self.occupied).find(|&(_, slots)| slots != 0)?;
        let bucket = level * SLOTS + slots.trailing_zeros();
        Some((bucket, start_of(bucket, current)))
    }

    fn clear(&mut self) {
        self.links.clear();
        self.occupied = [0; LEVELS as usize];
    }

    /// `id` is going to be in this list. The due list itself has no mark: it lies behind the last level.
    fn mark(&mut self, bucket: u32, id: u32) {
        if let Some(filed) = self.filed.get_mut(id as usize) {
            *filed = bucket as u16;
        }
        if let Some(slots) = self.occupied.get_mut((bucket / SLOTS) as usize) {
            *slots |= 1 << (bucket % SLOTS);
        }
    }

    /// The list is empty.
    fn unmark(&mut self, bucket: u32) {
        if let Some(slots) = self.occupied.get_mut((bucket / SLOTS) as usize) {
            *slots &= !(1 << (bucket % SLOTS));
        }
    }

    fn validate(&self, current: u64, due_of: impl Fn(u32) -> u64) -> usize {
        let mut count = 0;
        for list in 0..HEADS {
            self.links.validate(list);
            let marked = self.occupied.get((list / SLOTS) as usize).map(|slots| slots >> (list % SLOTS) & 1);
            assert!(
                marked.is_none_or(|mark| (mark == 1) == self.links.front(list).is_some()),
                "mark of {list}"
            );
            for id in self.links.iter(list) {
                let (due, start) = (due_of(id), self.list_start(id, current));
                if list == DUE {
                    assert!(start <= current, "id {id} is due, and its bucket begins at {start}");
                } else {
                    assert_eq!(start, start_of(list, current), "id {id}");
                    assert!(start <= due, "id {id}, due at {due}, is in bucket {list}");
                }
                count += 1;
            }
        }
        count
    }
}

/// The tick at which a list that holds something begins.
fn start_of(bucket: u32, current: u64) -> u64 {
    let shift = bucket / SLOTS * DIGIT_BITS;
    let above = current >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
    above | u64::from(bucket % SLOTS) << shift
}

/// Where a deadline is filed, and the tick at which that begins.
fn bucket_of(due: u64, current: u64) -> (u32, u64) {
    if due <= current {
        return (DUE, start_of(DUE, current));
    }
    let level = (due ^ current).ilog2() / DIGIT_BITS;
    let shift = level * DIGIT_BITS;
    (level * SLOTS + (due >> shift) as u32 % SLOTS, due >> shift << shift)
}

/// The tick in which `now` lies.
const fn tick_of(now: Instant) -> u64 {
    now.as_nanos() >> TICK_BITS
}

/// The first tick at whose beginning `deadline` is over.
const fn due_tick(deadline: Instant) -> u64 {
    deadline.as_nanos().div_ceil(1 << TICK_BITS)
}

/// The beginning of `tick`.
const fn instant_of(tick: u64) -> Instant {
    Instant::from_nanos(tick.saturating_mul(1 << TICK_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::properties;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const TICK: u64 = 1 << TICK_BITS;

    fn at(tick: u64) -> Instant {
        instant_of(tick)
    }

    /// Everything that is over by `now`, as a caller of [`Wheel::pop`] finds it.
    fn drain(
        wheel: &mut Wheel,
        deadlines: &mut BTreeMap<u32, Instant>,
        now: Instant,
        budget: usize,
    ) -> Vec<u32> {
        let mut over = Vec::new();
        for _ in 0..budget {
            let Some(id) = wheel.pop(now) else { break };
            let deadline = *deadlines.get(&id).expect("only what is scheduled comes out");
            if deadline <= now {
                deadlines.remove(&id);
                over.push(id);
            } else {
                wheel.schedule(id, deadline);
            }
        }
        over
    }

    #[test]
    fn a_deadline_is_filed_by_its_first_differing_digit() {
        // The example of the module's picture: the current tick is (…, 3, 9).
        let current = 3 * 64 + 9;
        let cases = [
            ((3 * 64 + 17), (0, 17)),
            ((5 * 64 + 2), (1, 5)),
            ((3 * 64 + 10), (0, 10)),
            ((4 * 64), (1, 4)),
            (64 * 64, (2, 1)),
            (7 << 42, (7, 7)),
            (1 << 44, (7, 4)),
        ];
        for (due, (level, slot)) in cases {
            let (bucket, start) = bucket_of(due, current);
            assert_eq!((bucket, start), (level * SLOTS + slot, start_of(bucket, current)), "tick {due}");
        }
        assert_eq!((bucket_of(current, current), bucket_of(0, current)), ((DUE, 0), (DUE, 0)));
    }

    #[test]
    fn the_last_deadline_of_all_fits() {
        let last = Instant::from_nanos(u64::MAX - 2);
        let mut wheel = Wheel::new(Instant::EPOCH, 1);
        wheel.schedule(0, last);
        assert_eq!(wheel.validate(|_| last), 1);
        assert_eq!(wheel.pop(at(1)), None);
        assert_eq!(wheel.next(), Some(Instant::NEVER), "no tick begins after it");
    }

    #[test]
    fn never_is_not_filed_and_takes_out() {
        let mut wheel = Wheel::new(Instant::EPOCH, 2);
        wheel.schedule(1, Instant::NEVER);
        assert_eq!((wheel.next(), wheel.capacity()), (None, [0; 2]));
        wheel.reschedule(1, Instant::NEVER, at(9));
        wheel.reschedule(1, at(9), Instant::NEVER);
        assert_eq!((wheel.next(), wheel.pop(at(100))), (None, None));
    }

    #[test]
    fn a_deadline_that_moves_leaves_its_id_where_that_comes_out_in_time() {
        let (bucket, before, filed, late) = (at(5 * 64), at(4 * 64), at(5 * 64 + 2), at(1 << 30));
        let mut wheel = Wheel::new(at(3 * 64 + 9), 1);
        wheel.schedule(0, filed);
        // The deadline moves to, and from then on the id comes out at:
        for (from, to, next) in [
            (filed, late, bucket),
            (late, at(5 * 64 + 1), bucket),
            (at(5 * 64 + 1), bucket, bucket),
            (bucket, at(5 * 64 - 1), before),
            (at(5 * 64 - 1), late, before),
            (late, filed, before),
        ] {
            wheel.reschedule(0, from, to);
            assert_eq!((wheel.validate(|_| to), wheel.next()), (1, Some(next)), "to {to:?}");
        }
    }

    #[test]
    fn a_deadline_that_has_become_later_is_looked_at_too_early() {
        let (early, late) = (at(5 * 64 + 2), at(1 << 30));
        let mut wheel = Wheel::new(at(3 * 64 + 9), 1);
        wheel.schedule(0, early);
        wheel.reschedule(0, early, late);
        assert_eq!(wheel.pop(early), Some(0));
        wheel.schedule(0, late);
        assert_eq!((wheel.pop(early), wheel.next()), (None, Some(late)));
        wheel.reschedule(0, late, early);
        assert_eq!(wheel.next(), Some(early), "an earlier one counts at once");
    }

    #[test]
    fn a_bucket_that_falls_due_keeps_its_ids_until_they_are_looked_at() {
        let bucket = at(5 * 64);
        let mut wheel = Wheel::new(at(3), 3);
        (0..3).for_each(|id| wheel.schedule(id, at(5 * 64 + 7)));
        assert_eq!(wheel.pop(bucket), Some(0));
        // Two are due; one of them moves to a time that is over, one to later.
        wheel.reschedule(1, at(5 * 64 + 7), at(4));
        wheel.reschedule(2, at(5 * 64 + 7), at(900));
        let deadlines = [at(0), at(4), at(900)];
        assert_eq!(wheel.validate(|id| deadlines.get(id as usize).copied().expect("one of three")), 2);
        assert_eq!((wheel.pop(bucket), wheel.pop(bucket), wheel.pop(bucket)), (Some(2), Some(1), None));
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn an_idle_wheel_keeps_up_with_time() {
        let mut wheel = Wheel::new(Instant::EPOCH, 2);
        wheel.schedule(0, at(1 << 40));
        assert_eq!(wheel.pop(at(1 << 35)), None);
        wheel.schedule(1, at((1 << 35) + 5));
        assert_eq!(
            wheel.next(),
            Some(at((1 << 35) + 5)),
            "filed by the tick, not by a far bucket that holds it"
        );
    }

    #[test]
    fn ids_that_fall_due_together_come_out_in_the_order_they_went_in() {
        let mut wheel = Wheel::new(Instant::EPOCH, 100);
        for id in 0..100 {
            wheel.schedule(id, at(5_000));
        }
        let mut out = Vec::new();
        while let Some(id) = wheel.pop(at(5_000)) {
            out.push(id);
        }
        assert_eq!(out, (0..100).collect::<Vec<_>>());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Schedule(u32, Duration),
        Cancel(u32),
        Drain { time: Duration, budget: usize },
    }

    /// Durations of every magnitude, from nothing to decades.
    fn duration() -> impl Strategy<Value = Duration> {
        (0..60_u32, any::<u64>()).prop_map(|(bits, nanos)| Duration::from_nanos(nanos % (1 << bits)))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..40_u32, duration()).prop_map(|(id, delay)| Op::Schedule(id, delay)),
            1 => (0..40_u32).prop_map(Op::Cancel),
            3 => (duration(), prop_oneof![Just(usize::MAX), 0..20_usize])
                .prop_map(|(time, budget)| Op::Drain { time, budget }),
        ]
    }

    proptest! {
        #![proptest_config(properties())]

        /// Against a map of deadlines that is scanned: nothing comes out early, all comes out within a tick, and
        /// `next` tells when.
        #[test]
        fn wheel_is_a_sorted_map(ops in prop::collection::vec(op(), 1..150)) {
            let mut now = Instant::from_millis(77);
            let mut wheel = Wheel::new(now, 40);
            let mut deadlines = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Schedule(id, delay) => {
                        let deadline = now.saturating_add(delay).min(Instant::from_nanos(u64::MAX - 2));
                        let before = deadlines.insert(id, deadline).unwrap_or(Instant::NEVER);
                        wheel.reschedule(id, before, deadline);
                    }
                    Op::Cancel(id) => {
                        wheel.cancel(id);
                        deadlines.remove(&id);
                    }
                    Op::Drain { time, budget } => {
                        now = now.saturating_add(time).min(Instant::from_nanos(u64::MAX - TICK));
                        drain(&mut wheel, &mut deadlines, now, budget);
                        if budget == usize::MAX {
                            let left = deadlines.values().min().copied();
                            prop_assert!(left.is_none_or(|left| left.as_nanos() + TICK > now.as_nanos()), "late");
                            prop_assert!(wheel.next().is_none_or(|next| next > now), "time does not move on");
                        }
                    }
                }
                // An interpreter would spend its time on walks over empty buckets.
                if !cfg!(miri) {
                    let filed = wheel.validate(|id| *deadlines.get(&id).expect("only what is scheduled is filed"));
                    prop_assert_eq!(filed, deadlines.len());
                }
                let first = deadlines.values().min().map(|first| first.as_nanos().saturating_add(TICK));
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                let next = wheel.next().map(Instant::as_nanos);
                prop_assert!(next < first || first.is_none(), "{next:?} is late for {first:?}");
            }
        }

        /// However far apart deadlines lie, an id is looked at once a level at most, and once more where its deadline has moved.
        #[test]
        fn an_id_is_looked_at_once_a_level_at_most(
            delays in prop::collection::vec(prop::collection::vec(duration(), 1..4), 1..40),
        ) {
            let now = Instant::from_millis(77);
            let mut wheel = Wheel::new(now, 40);
            let mut looks = BTreeMap::new();
            let mut deadlines = Vec::new();
            for (id, delays) in (0..).zip(&delays) {
                let mut deadline = Instant::NEVER;
                for &delay in delays {
                    let before = core::mem::replace(&mut deadline, now.saturating_add(delay));
                    wheel.reschedule(id, before, deadline);
                }
                deadlines.push(deadline);
            }
            while let Some(next) = wheel.next() {
                while let Some(id) = wheel.pop(next) {
                    *looks.entry(id).or_insert(0) += 1;
                    let deadline = deadlines.get(id as usize).copied().expect("scheduled");
                    if deadline > next {
                        wheel.schedule(id, deadline);
                    }
                }
            }
            prop_assert_eq!(looks.len(), delays.len());
            for (looks, delays) in looks.into_values().zip(&delays) {
                prop_assert!(looks <= LEVELS + u32::from(delays.len() > 1), "{looks} for {delays:?}");
            }
        }
    }
}
