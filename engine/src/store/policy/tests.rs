//! The adaptive order: against a textbook version of itself in vectors, every way of an entry, and what it is for.

use super::age::Age;
use super::ghosts::Ghosts;
use super::sketch::Sketch;
use super::*;
use crate::store::tests::properties;
use core::hash::BuildHasher;
use foldhash::quality::FixedState;
use proptest::prelude::*;
use std::collections::HashMap;
use std::vec::Vec;

const IDS: u32 = 90;

/// Each generation of an id is another key.
fn fingerprint(id: u32, generation: u32) -> Fingerprint {
    Fingerprint::of(FixedState::with_seed(9).hash_one((id % 60, generation % 3)))
}

/// An id of the main part, how often it was counted, and how often everything had been halved then.
struct Resident {
    id: u32,
    used: bool,
    count: u32,
    halvings: u32,
}

/// Ids from new to old, each with its mark, as the module's picture has them.
struct Textbook {
    window: Vec<(u32, bool)>,
    main: Vec<Resident>,
    age: Age,
    /// In full, where the age knows it modulo 256.
    halvings: u32,
    sketch: Sketch,
    ghosts: Option<Ghosts>,
    share: f64,
    room: usize,
    random: fastrand::Rng,
}

impl Default for Textbook {
    fn default() -> Self {
        Self {
            window: Vec::new(),
            main: Vec::new(),
            age: Age::default(),
            halvings: 0,
            sketch: Sketch::default(),
            ghosts: None,
            share: 0.0,
            room: 0,
            random: fastrand::Rng::with_seed(0),
        }
    }
}

const WHOLE: f64 = 65_536.0;

impl Textbook {
    fn len(&self) -> usize {
        self.window.len() + self.main.len()
    }

    fn limit(&self) -> usize {
        ((self.len() as f64 * self.share / WHOLE) as usize).max(1)
    }

    fn insert(&mut self, id: u32, fingerprint_of: &dyn Fn(u32) -> Fingerprint) {
        if self.len() >= self.room {
            if self.room == 0 {
                self.share = 6553.0;
            }
            self.room = (2 * self.room).max(64);
            self.sketch.resize(self.room);
            let mut ghosts = Ghosts::new();
            ghosts.resize(4);
            self.ghosts = Some(ghosts);
        }
        let step = (WHOLE / self.len().max(1) as f64).floor().max(64.0);
        let ghosts = self.ghosts.as_mut().expect("made above");
        if ghosts.take(0, fingerprint_of(id)) {
            self.share = (self.share + step).min(61_440.0);
        }
        if ghosts.take(1, fingerprint_of(id)) {
            self.share = (self.share - 2.0 * step).max(655.0);
        }
        self.window.insert(0, (id, false));
        if self.window.len() > self.limit() {
            let (oldest, used) = *self.window.last().expect("just filled");
            let asked = self.leave_window(oldest, used, fingerprint_of);
            self.promote(asked);
        }
    }

    fn age(&mut self, counts: usize) {
        let before = self.age.halvings();
        self.age.count(counts, self.len());
        self.halvings += u32::from(self.age.halvings() != before);
    }

    /// How often a key was asked for that leaves the window now.
    fn leave_window(&mut self, id: u32, used: bool, fingerprint_of: &dyn Fn(u32) -> Fingerprint) -> u8 {
        self.age(1 + usize::from(used));
        let before = self.sketch.count(fingerprint_of(id), 1 + u8::from(used), self.age.halvings());
        before + u8::from(used)
    }

    fn promote(&mut self, asked: u8) {
        let (id, _) = self.window.pop().expect("not empty");
        let count = u32::from(asked + 1).min(15);
        self.main.insert(0, Resident { id, used: false, count, halvings: self.halvings });
    }

    /// What a resident's count is by now.
    fn count(&self, resident: &Resident) -> u32 {
        resident.count.checked_shr(self.halvings - resident.halvings).unwrap_or(0)
    }

    fn touch(&mut self, id: u32) {
        self.window.iter_mut().filter(|seat| seat.0 == id).for_each(|seat| seat.1 = true);
        self.main.iter_mut().filter(|seat| seat.id == id).for_each(|seat| seat.used = true);
    }

    fn remove(&mut self, id: u32, fingerprint_of: &dyn Fn(u32) -> Fingerprint) {
        self.window.retain(|seat| seat.0 != id);
        if let Some(at) = self.main.iter().position(|seat| seat.id == id) {
            let resident = self.main.remove(at);
            self.sketch.lift(fingerprint_of(id), self.count(&resident) as u8, self.age.halvings());
        }
    }

    /// The oldest of the main part that was not used, if it is among the first.
    fn unused(&mut self) -> Option<u32> {
        let mut passed = 0;
        while passed < 16 && self.main.last().is_some_and(|last| last.used) {
            let last = self.main.pop().expect("just seen");
            let count = (self.count(&last) + 1).min(15);
            self.main.insert(0, Resident { id: last.id, used: false, count, halvings: self.halvings });
            passed += 1;
            if passed == self.main.len() {
                self.age(passed);
                return None;
            }
        }
        self.age(passed);
        self.main.last().filter(|_| passed < 16).map(|last| last.id)
    }

    fn victim(&mut self, fingerprint_of: &dyn Fn(u32) -> Fingerprint) -> Option<u32> {
        let victim = self.unused();
        let candidate = self.window.last().copied().filter(|_| self.window.len() >= self.limit());
        let Some((candidate, used)) = candidate else {
            let victim = victim.or_else(|| self.main.last().map(|seat| seat.id))?;
            self.ghosts.as_mut()?.push(1, fingerprint_of(victim));
            return Some(victim);
        };
        let asked = self.leave_window(candidate, used, fingerprint_of);
        if let Some(victim) = victim {
            let count = self.main.last().map_or(0, |last| self.count(last));
            let estimate = self.sketch.estimate(fingerprint_of(victim), self.age.halvings());
            let is_lucky = |random: &mut fastrand::Rng| asked > 5 && random.u32(..128) == 0;
            if u32::from(asked) > count.max(estimate.into()) || is_lucky(&mut self.random) {
                self.promote(asked);
                self.ghosts.as_mut()?.push(1, fingerprint_of(victim));
                return Some(victim);
            }
        }
        self.ghosts.as_mut()?.push(0, fingerprint_of(candidate));
        Some(candidate)
    }

    /// Of the residents.
    fn counts(&self) -> Vec<u32> {
        self.main.iter().map(|resident| self.count(resident)).collect()
    }

    fn walk(&self) -> Vec<u32> {
        self.window.iter().map(|seat| seat.0).chain(self.main.iter().map(|seat| seat.id)).collect()
    }
}

/// The order and the textbook side by side, over ids that come back as other keys.
struct Both {
    order: Ordering,
    textbook: Textbook,
    generations: HashMap<u32, u32>,
}

impl Both {
    fn insert(&mut self, id: u32) {
        *self.generations.entry(id).or_default() += 1;
        let fingerprint_of = |id| fingerprint(id, self.generations[&id]);
        self.order.insert(id, fingerprint_of(id));
        self.textbook.insert(id, &fingerprint_of);
    }

    fn evict(&mut self) -> Option<u32> {
        let fingerprint_of = |id| fingerprint(id, self.generations[&id]);
        let victim = self.order.evict();
        assert_eq!(victim, self.textbook.victim(&fingerprint_of));
        if let Some(victim) = victim {
            assert_eq!(self.order.fingerprint(victim), fingerprint_of(victim), "it is known of who has gone");
            self.textbook.remove(victim, &fingerprint_of);
        }
        victim
    }

    fn validate_fingerprints(&self) {
        for id in self.order.iter() {
            assert_eq!(self.order.fingerprint(id), fingerprint(id, self.generations[&id]), "of {id}");
        }
    }

    /// Of the textbook's residents, as the order has them.
    fn counts(&self) -> Vec<u32> {
        self.textbook.main.iter().map(|resident| self.order.counted(resident.id).into()).collect()
    }

    fn remove(&mut self, id: u32) {
        self.order.remove(id);
        self.textbook.remove(id, &|id| fingerprint(id, self.generations[&id]));
    }
}

const CALLS: usize = if cfg!(miri) { 50 } else { 400 };

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn adaptive_is_its_textbook(
        capacity in 1..=40_usize,
        ops in prop::collection::vec((0..8_u8, 0..IDS), 1..CALLS),
    ) {
        let order = Ordering::new(Policy::Adaptive, IDS as usize);
        let mut both = Both { order, textbook: Textbook::default(), generations: HashMap::new() };
        for (op, id) in ops {
            let held = both.textbook.walk().contains(&id);
            match op {
                0..=2 if held => {
                    both.order.touch(id);
                    both.textbook.touch(id);
                }
                3 if held => both.remove(id),
                _ if held => {}
                4 => drop(both.evict()),
                _ => {
                    if both.textbook.len() >= capacity {
                        both.evict();
                    }
                    both.insert(id);
                }
            }
            both.order.validate();
            both.validate_fingerprints();
            prop_assert_eq!(both.order.iter().collect::<Vec<_>>(), both.textbook.walk());
            prop_assert_eq!(both.counts(), both.textbook.counts());
        }
    }
}

/// Entries of the caches that follow, requests to them, and misses that are pardoned where so few requests teach little.
const CAPACITY: u64 = if cfg!(miri) { 20 } else { 100 };
const REQUESTS: u64 = if cfg!(miri) { 400 } else { 40_000 };
const PARDONED: u64 = if cfg!(miri) { 20 } else { 0 };

/// A cache of keys that are their own hashes' seeds. The hits among the requests.
fn hits(policy: Policy, requests: impl Iterator<Item = u64>) -> u64 {
    let capacity = CAPACITY as usize;
    let fingerprint = |key: u64| Fingerprint::of(FixedState::with_seed(2).hash_one(key));
    let mut order = Ordering::new(policy, capacity);
    let (mut ids, mut keys) = (HashMap::new(), Vec::<u64>::new());
    let mut hits = 0;
    for key in requests {
        if let Some(id) = ids.get(&key) {
            order.touch(*id);
            hits += 1;
            continue;
        }
        let id = if keys.len() < capacity {
            keys.push(key);
            keys.len() as u32 - 1
        } else {
            let id = order.evict().expect("it is full");
            ids.remove(&keys[id as usize]);
            keys[id as usize] = key;
            id
        };
        ids.insert(key, id);
        order.insert(id, fingerprint(key));
    }
    order.validate();
    hits
}

#[test]
fn a_loop_over_more_than_fits_leaves_the_main_part_in_peace() {
    let requests = || (0..REQUESTS).map(|turn| turn % (4 * CAPACITY));
    assert_eq!(hits(Policy::Lru, requests()), 0);
    let (hits, possible) = (hits(Policy::Adaptive, requests()), REQUESTS / 4);
    assert!(hits + PARDONED > possible * 9 / 10, "{hits} of the {possible} that are possible");
}

#[test]
fn a_scan_does_not_push_out_what_is_asked_for_often() {
    // Four fifths of what fits in turn, and every second request one that never comes again.
    let often = CAPACITY * 4 / 5;
    let requests = || (0..REQUESTS).map(|turn| if turn % 2 == 0 { turn / 2 % often } else { 1_000 + turn });
    assert_eq!(hits(Policy::Lru, requests()), 0);
    let (hits, possible) = (hits(Policy::Adaptive, requests()), REQUESTS / 2);
    assert!(hits + PARDONED > possible * 37 / 40, "{hits} of the {possible} that are possible");
}

#[test]
fn the_window_grows_where_only_what_is_new_is_asked_for_again() {
    // Half of the requests are for a key of the last half of what fits, and for none that is older.
    let requests = || (CAPACITY..REQUESTS / 2).flat_map(|turn| [turn, turn - 1 - turn * 7 % (CAPACITY / 2)]);
    let (lru, adaptive) = (hits(Policy::Lru, requests()), hits(Policy::Adaptive, requests()));
    assert!(adaptive + PARDONED > lru * 19 / 20, "{adaptive} where LRU has {lru}");
}

#[test]
fn a_search_for_a_victim_passes_few_and_ends_with_the_newcomer() {
    let mut order = Ordering::new(Policy::Adaptive, 1000);
    for id in 0..1000 {
        order.insert(id, fingerprint(id, 0));
    }
    for id in 0..1000 {
        order.touch(id);
    }
    let oldest = order.first().map(|first| core::iter::successors(Some(first), |id| order.after(*id)));
    let walk: Vec<u32> = oldest.expect("it is full").collect();
    let victim = order.evict().expect("it is full");
    assert_eq!(
        walk.iter().position(|id| *id == victim),
        Some(98),
        "the oldest of the window, a tenth less one for rounding"
    );
}

#[test]
fn what_was_asked_for_often_is_forgotten_during_a_scan_for_good() {
    const IDS: u32 = if cfg!(miri) { 20 } else { 100 };
    let mut order = Ordering::new(Policy::Adaptive, IDS as usize);
    (0..IDS).for_each(|id| order.insert(id, fingerprint(id, 0)));
    // Ten turns in which all of the main part is asked for and passed.
    for _ in 0..10 {
        (0..IDS).for_each(|id| order.touch(id));
        for _ in 0..IDS / 16 {
            let id = order.evict().expect("it is full");
            order.insert(id, fingerprint(id, 0));
        }
    }
    let often = |order: &Ordering| (0..IDS).filter(|id| order.counted(*id) >= 4).count();
    assert!(often(&order) > IDS as usize * 2 / 5, "{}", often(&order));
    let mut forgotten = None;
    for turn in 0..IDS * 10 * 20 {
        let id = order.evict().expect("it is full");
        order.insert(id, Fingerprint::of(FixedState::with_seed(3).hash_one(turn)));
        let is_forgotten = often(&order) == 0;
        assert!(is_forgotten || forgotten.is_none(), "forgotten in turn {forgotten:?}, known in {turn}");
        forgotten = forgotten.or_else(|| is_forgotten.then_some(turn));
    }
    assert!(forgotten.is_some());
}

#[test]
fn an_order_of_one_and_one_of_none_work() {
    let mut order = Ordering::new(Policy::Adaptive, 1);
    assert_eq!(order.evict(), None);
    for turn in 0..10 {
        order.insert(0, Fingerprint::of(turn));
        order.touch(0);
        assert_eq!((order.first(), order.after(0), order.evict()), (Some(0), None, Some(0)));
        order.validate();
    }
    order.insert(0, Fingerprint::of(0));
    order.clear();
    assert_eq!((order.first(), order.evict()), (None, None));
    order.validate();
}
