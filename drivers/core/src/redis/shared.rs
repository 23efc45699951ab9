//! What the handles and the lanes' tasks of one Redis cache share, and how it is locked.
//!
//! ```text
//!   handles, futures ──► Lane (a mutex each) ──► Circuit (a mutex, mirrored in an atomic) ──► Tier (a mutex per shard)
//!   lane tasks       ──►   ▲ one waker of the task, one of each future
//! ```
//!
//! Locks are taken from left to right, held for a few hundred nanoseconds, and nobody is woken under one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use larder_engine::Instant;
use larder_engine::machine::{
    Circuit, EngineConfig, Lane, LaneStats, Parts, Recorder, Recording, Tally, Tier, key_hash, lane_index,
};
use larder_engine::policy::{BreakerState, BreakerView, Permit, Verdict};
use larder_engine::stats::Counts;

use super::trouble::DialTrouble;
use crate::clock::Clock;
use crate::runtime::Endpoint;
use crate::stats::Counters;

/// Shards of the fallback tier; a power of two.
const TIER_SHARDS: usize = 8;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) clock: Clock,
    lanes: Box<[Mutex<LaneCell>]>,
    circuit: Mutex<Circuit>,
    /// The circuit at a glance: an open breaker costs callers no lock, a closed one neither.
    view: AtomicU32,
    tiers: Option<Box<[Mutex<Tier>]>>,
    journal: Mutex<JournalWatch>,
    operation_timeout: Duration,
    counters: Counters,
    /// Why the latest dial failed.
    dial_trouble: Mutex<Option<DialTrouble>>,
    /// Who waits for a connection to be made or closed.
    watchers: Mutex<Vec<Waker>>,
}

/// What the task that replays the journal waits for.
#[derive(Debug, Default)]
struct JournalWatch {
    task: Option<Waker>,
    news: JournalNews,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JournalNews {
    /// Redis may be back since this was asked last.
    pub(crate) may_be_back: bool,
    /// The cache is closed.
    pub(crate) closed: bool,
}

/// A lane with the waker of its task, while that waits for something to do.
#[derive(Debug)]
pub(crate) struct LaneCell {
    pub(crate) lane: Lane,
    pub(crate) task: Option<Waker>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing of ours panics under a lock; if it did, the state is still worth more than another panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Recorders of the parts of a cache, whose hash of keys and values nobody knows, the same for all: SipHash with a random key.
struct Recorders {
    hasher: RandomState,
    max_bytes: usize,
}

impl Recorders {
    fn new(max_bytes: usize) -> Self {
        Self { hasher: RandomState::new(), max_bytes }
    }

    /// One of `parts` that have a share of the bytes together.
    fn one_of(&self, parts: usize, share: usize) -> Recorder {
        let hasher = self.hasher.clone();
        Recorder::new(self.max_bytes / share / parts, move |bytes| hasher.hash_one(bytes))
    }

    /// Half for the lanes, which are told the most.
    fn lane(&self, lanes: usize) -> Recorder {
        self.one_of(lanes, 2)
    }

    fn tier(&self) -> Recorder {
        self.one_of(TIER_SHARDS, 4)
    }

    fn circuit(&self) -> Recorder {
        self.one_of(1, 4)
    }
}

impl Shared {
    pub(crate) fn new(
        config: &EngineConfig,
        endpoint: Endpoint,
        clock: Clock,
        mut seed: impl FnMut() -> u64,
        record: Option<usize>,
    ) -> Self {
        let now = clock.now();
        let mut lane = config.lane.clone();
        lane.fail_fast = config.tier.is_some();
        let recorders = record.map(Recorders::new);
        let lanes = config.lanes.max(1);
        let new_lane = |_| {
            let (lane, seed) = (lane.clone(), seed());
            let lane = match &recorders {
                Some(recorders) => Lane::recorded(lane, seed, now, recorders.lane(lanes)),
                None => Lane::new(lane, seed, now),
            };
            Mutex::new(LaneCell { lane, task: None })
        };
        let lanes = (0..lanes).map(new_lane).collect();
        let circuit = match &recorders {
            Some(recorders) => Circuit::recorded(config.breaker, seed(), recorders.circuit()),
            None => Circuit::new(config.breaker, seed()),
        };
        let tier = config.tier.map(|tier| tier.divided(TIER_SHARDS as u32));
        let new_tier = |tier| {
            Mutex::new(match &recorders {
                Some(recorders) => Tier::recorded(tier, seed(), now, recorders.tier()),
                None => Tier::new(tier, seed(), now),
            })
        };
        let tiers = tier.map(|tier| core::iter::repeat_n(tier, TIER_SHARDS).map(new_tier).collect());
        Self {
            endpoint,
            lanes,
            view: AtomicU32::new(circuit.view().to_bits()),
            circuit: Mutex::new(circuit),
            tiers,
            journal: Mutex::new(JournalWatch::default()),
            operation_timeout: config.operation_timeout,
            counters: Counters::default(),
            dial_trouble: Mutex::new(None),
            watchers: Mutex::new(Vec::new()),
            clock,
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub(crate) fn has_fallback(&self) -> bool {
        self.tiers.is_some()
    }

    /// Works on a lane, and passes on what came of it.
    pub(crate) fn on_lane<R>(&self, index: usize, work: impl FnOnce(&mut LaneCell) -> R) -> Option<R> {
        let cell = self.lanes.get(index)?;
        let mut wakers = Vec::new();
        let mut cell = lock(cell);
        let result = work(&mut cell);
        cell.lane.take_wakers(&mut wakers);
        let aftermath = self.pass_signals(&mut cell.lane);
        let must_drive = cell.lane.take_news() || (index == 0 && aftermath.changed);
        wakers.extend(must_drive.then(|| cell.task.take()).flatten());
        drop(cell);
        wakers.into_iter().for_each(Waker::wake);
        self.follow_up(index, aftermath);
        Some(result)
    }

    pub(crate) fn lock_lane(&self, index: usize) -> Option<MutexGuard<'_, LaneCell>> {
        self.lanes.get(index).map(lock)
    }

    /// Tells the circuit what a lane has to say; the lane is locked.
    pub(crate) fn pass_signals(&self, lane: &mut Lane) -> Aftermath {
        if !lane.has_signals() {
            return Aftermath::default();
        }
        // Before anybody can use the new connection.
        for key in lane.take_strays() {
            let (now, hash) = (lane.now(), key_hash(&key));
            (&mut &*self).with_tier(hash, |tier| tier.write_at_large(now, hash, &key));
        }
        let view = self.view();
        let (now, mut circuit) = (lane.now(), None);
        for signal in lane.drain_signals() {
            if circuit.is_none() && !signal.matters(view) {
                continue; // A thousand successes of a healthy server are no news.
            }
            circuit.get_or_insert_with(|| lock(&self.circuit)).handle_signal(now, signal);
        }
        circuit.map_or_else(Aftermath::default, |mut circuit| self.publish(&mut circuit))
    }

    /// Lets the circuit's time pass. The answer is when to come again, and a probe to be made.
    pub(crate) fn drive_circuit(&self, now: Instant) -> (Option<Instant>, Option<Permit>, Aftermath) {
        if self.view().state() == BreakerState::Closed {
            return (None, None, Aftermath::default());
        }
        let mut circuit = lock(&self.circuit);
        circuit.handle_timeout(now);
        let probe = circuit.poll_probe();
        let aftermath = self.publish(&mut circuit);
        (circuit.poll_timeout(), probe, aftermath)
    }

    fn publish(&self, circuit: &mut Circuit) -> Aftermath {
        let view = circuit.view();
        let old = BreakerView::from_bits(self.view.swap(view.to_bits(), Ordering::AcqRel));
        Aftermath {
            changed: old.state() != view.state(),
            recovered: circuit.poll_recovered(),
            on_trial: circuit.poll_trial(),
        }
    }

    /// What is done when no lock is held any more.
    pub(crate) fn follow_up(&self, index: usize, aftermath: Aftermath) {
        if aftermath.recovered {
            self.tiers.iter().flatten().for_each(|tier| lock(tier).recovered());
        }
        if aftermath.recovered || aftermath.on_trial {
            self.tell_journal(|news| news.may_be_back = true);
        }
        if aftermath.changed && index != 0 {
            // The first lane's task keeps the circuit's time.
            let task = self.lock_lane(0).and_then(|mut cell| cell.task.take());
            task.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn view(&self) -> BreakerView {
        BreakerView::from_bits(self.view.load(Ordering::Acquire))
    }

    pub(crate) fn trips(&self) -> u64 {
        lock(&self.circuit).trips()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counters.counts()
    }

    pub(crate) fn lane_stats(&self) -> LaneStats {
        self.lanes.iter().map(|cell| lock(cell).lane.stats()).sum()
    }

    /// Operations that are not over, in flight or waiting.
    pub(crate) fn live(&self) -> usize {
        self.lanes.iter().map(|cell| lock(cell).lane.live()).sum()
    }

    /// What lanes, breaker and tiers were told of late, as a file.
    pub(crate) fn recording(&self) -> Option<Vec<u8>> {
        let lanes = self.lanes.iter().map(|cell| lock(cell).lane.recording()).collect::<Option<_>>()?;
        let breaker = lock(&self.circuit).recording();
        let tiers = self.tiers.iter().flatten().map(|tier| lock(tier).recording()).collect::<Option<_>>()?;
        Some(Recording { lanes, breaker, tiers }.to_bytes())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lanes.iter().any(|cell| lock(cell).lane.is_ready())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lanes.iter().all(|cell| lock(cell).lane.is_closed())
    }

    /// Entries and bytes of the fallback tier.
    pub(crate) fn tier_size(&self) -> (usize, u64) {
        let sizes = self.tiers.iter().flatten().map(|tier| lock(tier).size());
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }

    /// Leaves the waker of the task that replays the journal, and says what is new to it.
    pub(crate) fn watch_journal(&self, waker: &Waker) -> JournalNews {
        let mut journal = lock(&self.journal);
        journal.task = Some(waker.clone());
        let news = journal.news;
        journal.news.may_be_back = false;
        news
    }

    fn tell_journal(&self, tell: impl FnOnce(&mut JournalNews)) {
        let mut journal = lock(&self.journal);
        tell(&mut journal.news);
        let task = journal.task.take();
        drop(journal);
        task.into_iter().for_each(Waker::wake);
    }

    /// Entries of the journal, and clears: each of those concerns several shards.
    pub(crate) fn journalled(&self) -> usize {
        let (mut entries, mut clears) = (0, 0);
        for tier in self.tiers.iter().flatten() {
            let tier = lock(tier);
            entries += tier.journalled();
            clears = clears.max(tier.clears());
        }
        entries + clears
    }

    /// Takes nothing more, and lets the lanes close when all is answered, or at `until`.
    pub(crate) fn close(&self, until: Instant) {
        let now = self.clock.now();
        self.tell_journal(|news| news.closed = true);
        for index in 0..self.lanes() {
            self.on_lane(index, |cell| cell.lane.close(now, until));
        }
    }

    pub(crate) fn set_dial_trouble(&self, trouble: Option<DialTrouble>) {
        *lock(&self.dial_trouble) = trouble;
    }

    pub(crate) fn dial_trouble(&self) -> Option<DialTrouble> {
        lock(&self.dial_trouble).clone()
    }

    /// Wakes `waker` when a lane's connection was made, refused or closed.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut watchers = lock(&self.watchers);
        if !watchers.iter().any(|known| known.will_wake(waker)) {
            watchers.push(waker.clone());
        }
    }

    pub(crate) fn wake_watchers(&self) {
        let watchers = std::mem::take(&mut *lock(&self.watchers));
        watchers.into_iter().for_each(Waker::wake);
    }
}

/// What a change of the circuit brings with it.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub(crate) struct Aftermath {
    changed: bool,
    recovered: bool,
    on_trial: bool,
}

impl Aftermath {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            changed: self.changed || other.changed,
            recovered: self.recovered || other.recovered,
            on_trial: self.on_trial || other.on_trial,
        }
    }
}

impl Parts for &Shared {
    fn now(&mut self) -> Instant {
        self.clock.now()
    }

    fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }

    fn admit(&mut self, now: Instant) -> Option<Permit> {
        let view = self.view();
        match view.state() {
            BreakerState::Closed => view.permit_if_closed(),
            BreakerState::Open => None,
            BreakerState::HalfOpen => lock(&self.circuit).admit(now),
        }
    }

    fn record(&mut self, now: Instant, permit: Permit, verdict: Verdict) {
        let aftermath = {
            let mut circuit = lock(&self.circuit);
            circuit.record(now, permit, verdict);
            self.publish(&mut circuit)
        };
        self.follow_up(usize::MAX, aftermath);
    }

    fn with_lane<R>(&mut self, hash: u64, work: impl FnOnce(&mut Lane) -> R) -> Option<R> {
        self.on_lane(lane_index(hash, self.lanes()), |cell| work(&mut cell.lane))
    }

    fn with_tier<R>(&mut self, hash: u64, work: impl FnOnce(&mut Tier) -> R) -> Option<R> {
        // Other bits than those that choose the fence within a shard, or the lane.
        let shard = (hash >> 16) as usize % TIER_SHARDS;
        let tier = self.tiers.as_deref()?.get(shard)?;
        Some(work(&mut lock(tier)))
    }

    fn each_tier(&mut self, mut work: impl FnMut(&mut Tier)) -> bool {
        self.tiers.iter().flatten().for_each(|tier| work(&mut lock(tier)));
        self.has_fallback()
    }

    fn journalled(&mut self) {
        self.tell_journal(|_| {});
    }

    fn tally(&mut self, tally: Tally) {
        self.counters.add(tally);
    }
}
