//! A whole cache on Redis as one value: for tests, simulators, and drivers that need no locks.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::task::{Poll, Waker};
use core::time::Duration;

use super::circuit::Circuit;
use super::clear::{Clear, Cleared};
use super::lane::Lane;
use super::operation::{Operation, Parts, Tally, key_hash, lane_index};
use super::outcome::LaneStats;
use super::record::{Machine, Recorder, Recording};
use super::replay::Replay;
use super::request::{Answer, KeyBuf, OperationError, Request};
use super::tier::{Tier, TierConfig};
use super::{Action, Disconnect, Fatal, Transmit};
use crate::config::LaneConfig;
use crate::policy::{BreakerConfig, BreakerState, Permit, Verdict};
use crate::resp::Reply;
use crate::stats::Counts;
use crate::time::{Instant, earlier};

/// The parameters of an [`Engine`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Connections; default 1. 0 counts as 1.
    pub lanes: usize,
    /// The parameters of each.
    pub lane: LaneConfig,
    /// The breaker over all of them.
    pub breaker: BreakerConfig,
    /// The fallback tier; `None` is none. Default on.
    pub tier: Option<TierConfig>,
    /// How long an operation may take, all attempts together; default 5 s.
    pub operation_timeout: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            lanes: 1,
            lane: LaneConfig::default(),
            breaker: BreakerConfig::default(),
            tier: Some(TierConfig::default()),
            operation_timeout: Duration::from_secs(5),
        }
    }
}

/// Lanes, breaker and fallback tier in one. The [crate's first page](crate) shows how to drive it.
#[derive(Debug)]
pub struct Engine {
    lanes: Vec<Lane>,
    circuit: Circuit,
    tier: Option<Tier>,
    /// Taken out while it works.
    replay: Option<Box<Replay>>,
    operation_timeout: Duration,
    counts: Counts,
    wakers: Vec<Waker>,
    now: Instant,
}

impl Engine {
    /// An engine that wants to dial at once. Equal seeds and equal inputs give equal outputs.
    #[must_use]
    pub fn new(config: &EngineConfig, seed: u64, now: Instant) -> Self {
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut lane = config.lane.clone();
        lane.fail_fast = config.tier.is_some();
        Self {
            lanes: (0..config.lanes.max(1)).map(|_| Lane::new(lane.clone(), seeds.u64(..), now)).collect(),
            circuit: Circuit::new(config.breaker, seeds.u64(..)),
            tier: config.tier.map(|tier| Tier::new(tier, seeds.u64(..), now)),
            replay: config
                .tier
                .map(|tier| Box::new(Replay::new(tier.reconcile, config.lanes.max(1), seeds.u64(..)))),
            operation_timeout: config.operation_timeout,
            counts: Counts::default(),
            wakers: Vec::new(),
            now,
        }
    }

    /// Like [`Engine::new`], with machines that write down what they are told: see [`Engine::recording`]. Each gets a recorder of
    /// its own.
    #[must_use]
    pub fn recorded(
        config: &EngineConfig,
        seed: u64,
        now: Instant,
        mut recorder: impl FnMut() -> Recorder,
    ) -> Self {
        let mut engine = Self::new(config, seed, now);
        engine.lanes = engine.lanes.into_iter().map(|lane| lane.recorded_by(recorder())).collect();
        engine.circuit = engine.circuit.recorded_by(recorder());
        engine.tier = engine.tier.map(|tier| tier.recorded_by(recorder()));
        engine
    }

    // ---- callers ----

    /// Begins an operation. Ask [`Engine::poll`] for its answer at once, and again whenever its waker was woken.
    #[must_use]
    pub fn submit(&self, key: &[u8], request: Request) -> Operation {
        Operation::new(KeyBuf::from_slice(key), key_hash(key), request)
    }

    /// The answer to an operation, if there is one yet.
    pub fn poll(
        &mut self,
        now: Instant,
        operation: &mut Operation,
        waker: &Waker,
    ) -> Poll<Result<Answer, OperationError>> {
        self.at(now);
        operation.poll(self, waker)
    }

    /// Withdraws an operation.
    pub fn cancel(&mut self, now: Instant, mut operation: Operation) {
        self.at(now);
        operation.cancel(self);
    }

    /// Like [`Engine::poll`], for a [`Clear`].
    pub fn poll_clear(
        &mut self,
        now: Instant,
        clear: &mut Clear,
        waker: &Waker,
    ) -> Poll<Result<Cleared, OperationError>> {
        self.at(now);
        clear.poll(self, waker)
    }

    /// Stops a [`Clear`] where it is.
    pub fn cancel_clear(&mut self, now: Instant, mut clear: Clear) {
        self.at(now);
        clear.cancel(self);
    }

    /// Takes no more operations, and closes the connections when all in flight is answered, or at `until`.
    pub fn close(&mut self, now: Instant, until: Instant) {
        self.at(now);
        self.replay = None;
        for index in 0..self.lanes.len() {
            self.on_lane(index, |lane| lane.close(now, until));
        }
    }

    // ---- the driver ----

    /// The socket of a lane is connected.
    pub fn handle_connected(&mut self, now: Instant, lane: usize) {
        self.at(now);
        self.on_lane(lane, |lane| lane.handle_connected(now));
    }

    /// The attempt to connect a lane failed.
    pub fn handle_dial_failed(&mut self, now: Instant, lane: usize) {
        self.at(now);
        self.on_lane(lane, |lane| lane.handle_dial_failed(now));
    }

    /// Bytes have arrived on a lane, and with them these replies. Empties `replies`.
    ///
    /// # Errors
    /// The socket of this lane must be closed.
    pub fn handle_replies(
        &mut self,
        now: Instant,
        lane: usize,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Fatal> {
        self.at(now);
        self.on_lane(lane, |lane| lane.handle_replies(now, replies)).unwrap_or(Ok(()))
    }

    /// A lane's socket took `n` bytes.
    pub fn handle_written(&mut self, now: Instant, lane: usize, n: usize) {
        self.at(now);
        self.on_lane(lane, |lane| lane.handle_written(now, n));
    }

    /// A lane's connection is gone.
    pub fn handle_disconnected(&mut self, now: Instant, lane: usize, why: Disconnect) {
        self.at(now);
        self.on_lane(lane, |lane| lane.handle_disconnected(now, why));
    }

    /// Time has passed. Afterwards [`Engine::poll_timeout`] is `None` or later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.at(now);
        for index in 0..self.lanes.len() {
            self.on_lane(index, |lane| lane.handle_timeout(now));
        }
        self.circuit.handle_timeout(self.now);
        self.settle();
    }

    /// What to do with a socket, and of which lane; ask until `None`.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<(usize, Action)> {
        self.lanes.iter_mut().enumerate().find_map(|(index, lane)| Some((index, lane.poll_action()?)))
    }

    /// Appends what is to be written on a lane to `out`.
    pub fn poll_transmit(&mut self, lane: usize, out: &mut Vec<u8>) -> Transmit {
        self.lanes.get_mut(lane).map_or(Transmit::Nothing, |lane| lane.poll_transmit(out))
    }

    /// When to call [`Engine::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let replay = self.replay.as_ref().and_then(|replay| replay.poll_timeout());
        let others = earlier(self.circuit.poll_timeout(), replay);
        self.lanes.iter().fold(others, |first, lane| earlier(first, lane.poll_timeout()))
    }

    /// Wakes the callers whose operations moved on: after every input.
    pub fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    // ---- views ----

    /// Whether a lane's connection serves.
    #[must_use]
    pub fn is_ready(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(Lane::is_ready)
    }

    /// A lane's commands staged or unanswered, and their bytes on the wire.
    #[must_use]
    pub fn in_flight(&self, lane: usize) -> (usize, usize) {
        self.lanes.get(lane).map(Lane::in_flight).unwrap_or_default()
    }

    /// Whether all lanes are closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lanes.iter().all(Lane::is_closed)
    }

    /// Operations that are not over.
    #[must_use]
    pub fn live(&self) -> usize {
        self.lanes.iter().map(Lane::live).sum()
    }

    /// The breaker's state, and how often it has opened.
    #[must_use]
    pub fn breaker(&self) -> (BreakerState, u64) {
        (self.circuit.state(), self.circuit.trips())
    }

    /// Writes and clears that the fallback tier accepted and Redis has not got yet.
    #[must_use]
    pub fn journalled(&self) -> usize {
        self.tier.as_ref().map_or(0, |tier| tier.journalled() + tier.clears())
    }

    /// What was counted over all operations.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was counted over all lanes.
    #[must_use]
    pub fn lane_stats(&self) -> LaneStats {
        self.lanes.iter().map(Lane::stats).sum()
    }

    /// What the machines were told of late, where that is written down.
    #[must_use]
    pub fn recording(&self) -> Option<Recording> {
        let lanes = self.lanes.iter().map(Lane::recording).collect::<Option<_>>()?;
        let tiers = self.tier.iter().map(Tier::recording).collect::<Option<_>>()?;
        Some(Recording { lanes, breaker: self.circuit.recording(), tiers })
    }

    // ---- inside ----

    /// Clamps a clock that went backwards.
    fn at(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn on_lane<R>(&mut self, index: usize, work: impl FnOnce(&mut Lane) -> R) -> Option<R> {
        let lane = self.lanes.get_mut(index)?;
        let result = work(lane);
        lane.take_wakers(&mut self.wakers);
        if lane.has_signals() {
            for key in lane.take_strays() {
                self.tier.iter_mut().for_each(|tier| tier.write_at_large(self.now, key_hash(&key), &key));
            }
            for signal in lane.drain_signals() {
                self.circuit.handle_signal(self.now, signal);
            }
        }
        self.settle();
        Some(result)
    }

    /// Does what the circuit asks for.
    fn settle(&mut self) {
        if let Some(permit) = self.circuit.poll_probe() {
            // Preferably one that need not be dialled first.
            let index = self.lanes.iter().position(Lane::is_ready).unwrap_or_default();
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.probe(self.now, permit);
            }
        }
        // Its own steps end here too: then it is out, and what they bring is seen when it comes back.
        let Some(mut replay) = self.replay.take() else { return };
        loop {
            let (recovered, on_trial) = (self.circuit.poll_recovered(), self.circuit.poll_trial());
            if recovered {
                self.tier.iter_mut().for_each(Tier::recovered);
            }
            if recovered || on_trial {
                replay.kick();
            }
            replay.poll(self, Waker::noop());
            if !recovered && !on_trial {
                break;
            }
        }
        self.replay = Some(replay);
    }
}

impl Parts for Engine {
    fn now(&mut self) -> Instant {
        self.now
    }

    fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }

    fn admit(&mut self, now: Instant) -> Option<Permit> {
        self.circuit.admit(now)
    }

    fn record(&mut self, now: Instant, permit: Permit, verdict: Verdict) {
        self.circuit.record(now, permit, verdict);
        self.settle();
    }

    fn with_lane<R>(&mut self, hash: u64, work: impl FnOnce(&mut Lane) -> R) -> Option<R> {
        let index = lane_index(hash, self.lanes.len());
        self.on_lane(index, work)
    }

    fn with_tier<R>(&mut self, _: u64, work: impl FnOnce(&mut Tier) -> R) -> Option<R> {
        self.tier.as_mut().map(work)
    }

    fn each_tier(&mut self, work: impl FnMut(&mut Tier)) -> bool {
        self.tier.iter_mut().for_each(work);
        self.tier.is_some()
    }

    fn journalled(&mut self) {
        self.settle();
    }

    fn tally(&mut self, tally: Tally) {
        self.counts.add(tally);
    }
}
