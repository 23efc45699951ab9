//! The circuit breaker: stops asking a server that does not answer, and finds out gently when it does again.
//!
//! ```text
//!              failure_threshold failures in a row, or trip
//!   ┌────────┐ ───────────────────────────────────────────────▶ ┌────────────────────┐
//!   │ closed │                                                  │        open        │◀──────┐
//!   └────────┘ ◀──┐                                             └────────────────────┘       │
//!                 │                                               │ open_for elapsed ▲       │
//!                 │                                               ▼                  │       │
//!                 │        ┌───────────────────────────────────────────┐  failure,   │       │
//!                 │        │ half-open / probing                       │  probe lost │       │
//!                 │        │ one synthetic probe, admits nobody        │ ────────────┘       │
//!                 │        └───────────────────────────────────────────┘  (growth)           │
//!                 │          │ probe succeeded                       ▲                       │
//!                 │          ▼                                       │ half_open_timeout,    │
//!                 │        ┌──────────────────────────────────┐      │ permits still out     │
//!                 └─────── │ half-open / trial                │ ─────┘                       │
//!     N successes, or      │ N = half_open_permits out at once│ ─────────────────────────────┘
//!     half_open_timeout    └──────────────────────────────────┘   any failure (growth)
//!     and none out
//! ```
//!
//! Every arrow begins a new *generation*. A [`Permit`] carries the generation it was given in, and a result that
//! arrives under another one is ignored: an operation that began before the outage says nothing about the server
//! now. In the trial, a permit whose result says nothing ([`Verdict::Abandoned`]) goes back to the pool; one that is
//! never recorded is written off by `half_open_timeout`. So no lost permit can wedge the breaker.
//!
//! The states are those of Nygard, *Release It!*; the numbered permits and the probe are there because a half-open
//! breaker that lets everyone through sends the herd to a server that has just come back.

use core::fmt;
use core::time::Duration;

use super::nanos;
use crate::Instant;

/// When a [`Breaker`] opens, for how long, and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it (default 5; 0 counts as 1).
    pub failure_threshold: u32,
    /// How long it stays open the first time (default 60 s; at least 1 ms).
    pub open_for: Duration,
    /// The open time doubles each time a half-open breaker fails, up to this (default 10 min; at least `open_for`).
    pub open_for_cap: Duration,
    /// The open time is spread by ± this many percent (default 15, at most 100), after the cap was applied.
    pub jitter_percent: u32,
    /// Operations that may be out at once in a trial, and successes that end it (default 3; 1 to 32).
    pub half_open_permits: u32,
    /// How long a probe, or a trial, may take (default 10 s; at least 1 ms). Longer than the deadline of an operation,
    /// or slow operations are taken for lost ones.
    pub half_open_timeout: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            open_for: Duration::from_secs(60),
            open_for_cap: Duration::from_secs(600),
            jitter_percent: 15,
            half_open_permits: 3,
            half_open_timeout: Duration::from_secs(10),
        }
    }
}

/// What a breaker does with callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Everyone is admitted.
    Closed,
    /// Nobody is.
    Open,
    /// A probe, then a few.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// The leave to send one operation; hand it back through [`Breaker::record`], once.
///
/// One that is never recorded costs nothing in the closed state, and a place of the trial until
/// `half_open_timeout` in the half-open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a permit of a half-open breaker holds one of few places until it is recorded"]
pub struct Permit {
    generation: Generation,
    /// The bit of this permit among those of its trial; zero outside a trial.
    place: u32,
}

impl Permit {
    /// Whether this is one of the numbered permits of a trial.
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.place != 0
    }
}

/// What an operation's end says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered. An error that is the caller's own mistake is an answer too.
    Success,
    /// It did not, or said that it cannot.
    Failure,
    /// Nothing: the operation was cancelled, or never got as far as the server.
    Abandoned,
}

/// A circuit breaker for one endpoint. No clock, no lock, no allocation; every call is O(1).
///
/// After [`handle_timeout`](Self::handle_timeout), or whatever else may have moved it, ask
/// [`poll_probe`](Self::poll_probe) and [`poll_timeout`](Self::poll_timeout).
///
/// ```
/// use core::time::Duration;
/// use larder_engine::Instant;
/// use larder_engine::policy::{Breaker, BreakerConfig, BreakerState, Verdict};
///
/// let mut breaker = Breaker::new(BreakerConfig { failure_threshold: 1, ..BreakerConfig::default() }, 42);
/// let now = Instant::EPOCH;
/// let permit = breaker.admit(now).expect("closed");
/// breaker.record(now, permit, Verdict::Failure);
/// assert_eq!(breaker.state(), BreakerState::Open);
/// assert_eq!(breaker.admit(now), None);
///
/// let now = breaker.poll_timeout().expect("open has a deadline");
/// breaker.handle_timeout(now);
/// let probe = breaker.poll_probe().expect("half-open begins with a probe");
/// breaker.record(now, probe, Verdict::Success);
/// for _ in 0..3 {
///     let permit = breaker.admit(now).expect("the trial has three places");
///     breaker.record(now, permit, Verdict::Success);
/// }
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    rng: fastrand::Rng,
    phase: Phase,
    generation: Generation,
    /// Times it re-opened from half-open since it last opened from closed.
    reopened: u32,
    trips: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    Probing {
        until: Instant,
        handed_out: bool,
    },
    /// `out` has a bit for each permit that was given and not recorded.
    Trial {
        until: Instant,
        out: u32,
        succeeded: u32,
    },
}

impl Breaker {
    /// A closed breaker. `seed` decides the jitter of the open time, and nothing else.
    #[must_use]
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        let shortest = Duration::from_millis(1);
        let open_for = config.open_for.max(shortest);
        let config = BreakerConfig {
            failure_threshold: config.failure_threshold.max(1),
            open_for,
            open_for_cap: config.open_for_cap.max(open_for),
            jitter_percent: config.jitter_percent.min(100),
            half_open_permits: config.half_open_permits.clamp(1, u32::BITS),
            half_open_timeout: config.half_open_timeout.max(shortest),
        };
        Self {
            config,
            rng: fastrand::Rng::with_seed(seed),
            phase: Phase::Closed { failures: 0 },
            generation: Generation::default(),
            reopened: 0,
            trips: 0,
        }
    }

    /// Leave to send one operation, or `None`.
    ///
    /// Closed: always. Open: never, however late it is; only [`handle_timeout`](Self::handle_timeout) ends that state.
    /// Half-open: while the trial has a place, and at most `half_open_permits` at once.
    ///
    /// `half_open_timeout` runs anew from here when no other permit is out, so that an operation which begins late in
    /// a quiet trial is not taken for a lost one.
    #[must_use]
    pub fn admit(&mut self, now: Instant) -> Option<Permit> {
        let BreakerConfig { half_open_permits: permits, half_open_timeout: timeout, .. } = self.config;
        let place = match &mut self.phase {
            Phase::Closed { .. } => 0,
            Phase::Open { .. } | Phase::Probing { .. } => return None,
            Phase::Trial { until, out, succeeded } => {
                // Each success uses its place up, so a trial lets `permits` operations through and not one more.
                if out.count_ones().saturating_add(*succeeded) >= permits {
                    return None;
                }
                if *out == 0 {
                    *until = now.saturating_add(timeout);
                }
                let place = lowest_zero(*out);
                *out |= place;
                place
            }
        };
        Some(Permit { generation: self.generation, place })
    }

    /// What came of the operation, or the probe, that `permit` was given for.
    ///
    /// Ignored when the breaker has moved on since: the result belongs to another generation. In the closed state a
    /// success sets the count of failures back to zero.
    pub fn record(&mut self, now: Instant, permit: Permit, verdict: Verdict) {
        if permit.generation != self.generation {
            return;
        }
        let permits = self.config.half_open_permits;
        match (&mut self.phase, verdict) {
            (Phase::Closed { failures }, Verdict::Success) => *failures = 0,
            (Phase::Closed { .. }, Verdict::Abandoned) | (Phase::Open { .. }, _) => {}
            (Phase::Probing { .. }, Verdict::Success) => self.begin_trial(now),
            (Phase::Probing { handed_out, .. }, Verdict::Abandoned) => *handed_out = false,
            (Phase::Trial { out, succeeded, .. }, Verdict::Success | Verdict::Abandoned) => {
                let was_out = *out & permit.place != 0;
                *out &= !permit.place;
                if was_out && verdict == Verdict::Success {
                    *succeeded = succeeded.saturating_add(1);
                    if *succeeded >= permits {
                        self.close();
                    }
                }
            }
            (_, Verdict::Failure) => self.record_failure(now),
        }
    }

    /// A failure that belongs to no operation: a lane was lost, a dial failed, the lane fell silent.
    ///
    /// Counts one in the closed state, re-opens a half-open breaker, and changes nothing in an open one.
    pub fn record_failure(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if *failures >= self.config.failure_threshold {
                    self.open(now);
                }
            }
            Phase::Open { .. } => {}
            Phase::Probing { .. } | Phase::Trial { .. } => self.open(now),
        }
    }

    /// Opens at once, for a failure that will not pass by itself, such as a refused password. An open breaker keeps
    /// its deadline.
    pub fn trip(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open { .. }) {
            self.open(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` while closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let until = match self.phase {
            Phase::Closed { .. } => return None,
            Phase::Open { until } | Phase::Probing { until, .. } | Phase::Trial { until, .. } => until,
        };
        (!until.is_never()).then_some(until)
    }

    /// Time has passed. Afterwards [`poll_timeout`](Self::poll_timeout) is `None` or later than `now`; calling it
    /// early is harmless, and calling it late makes the next phase begin late and last as long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|until| now < until) {
            return;
        }
        match self.phase {
            Phase::Closed { .. } => {}
            Phase::Open { .. } => self.begin_probing(now),
            Phase::Probing { .. } => self.open(now),
            Phase::Trial { out: 0, .. } => self.close(),
            Phase::Trial { .. } => self.begin_probing(now),
        }
    }

    /// The permit for the synthetic probe with which a half-open breaker begins, handed out once; again only if it was
    /// recorded as [`Verdict::Abandoned`]. Answer it with the result of a PING or the like.
    #[must_use]
    pub fn poll_probe(&mut self) -> Option<Permit> {
        match &mut self.phase {
            Phase::Probing { handed_out, .. } if !*handed_out => {
                *handed_out = true;
                Some(Permit { generation: self.generation, place: 0 })
            }
            _ => None,
        }
    }

    /// The state, as statistics show it.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Probing { .. } | Phase::Trial { .. } => BreakerState::HalfOpen,
        }
    }

    /// The state and generation in 32 bits. Mirror it into an atomic after every call that may change the breaker.
    #[must_use]
    pub fn view(&self) -> BreakerView {
        let failing = matches!(self.phase, Phase::Closed { failures } if failures > 0);
        BreakerView::new(self.state(), failing, self.generation)
    }

    /// Times it went from closed or half-open to open.
    #[must_use]
    pub const fn trips(&self) -> u64 {
        self.trips
    }

    fn open(&mut self, now: Instant) {
        self.reopened = match self.phase {
            Phase::Closed { .. } => 0,
            _ => self.reopened.saturating_add(1),
        };
        let until = now.saturating_add(self.open_time());
        self.enter(Phase::Open { until });
        self.trips = self.trips.saturating_add(1);
    }

    fn begin_probing(&mut self, now: Instant) {
        let until = now.saturating_add(self.config.half_open_timeout);
        self.enter(Phase::Probing { until, handed_out: false });
    }

    fn begin_trial(&mut self, now: Instant) {
        let until = now.saturating_add(self.config.half_open_timeout);
        self.enter(Phase::Trial { until, out: 0, succeeded: 0 });
    }

    fn close(&mut self) {
        self.enter(Phase::Closed { failures: 0 });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation = self.generation.next();
    }

    /// `open_for·2^reopened`, clamped to the cap, then spread. Never zero, so that an open phase always ends later
    /// than it began.
    fn open_time(&mut self) -> Duration {
        let factor = 1u64.checked_shl(self.reopened).unwrap_or(u64::MAX);
        let step = nanos(self.config.open_for).saturating_mul(factor).min(nanos(self.config.open_for_cap));
        let spread = step / 100 * u64::from(self.config.jitter_percent);
        let jittered = self.rng.u64(step.saturating_sub(spread)..=step.saturating_add(spread));
        Duration::from_nanos(jittered.max(1))
    }
}

/// The lowest bit that is not set in `bits`; zero when all are.
const fn lowest_zero(bits: u32) -> u32 {
    !bits & bits.wrapping_add(1)
}

/// Counts transitions, so that a late result can be told from a current one. Wraps at 2^29: a permit would have to
/// stay out for half a billion transitions to be mistaken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Generation(u32);

impl Generation {
    const MASK: u32 = u32::MAX >> BreakerView::GENERATION_SHIFT;

    const fn next(self) -> Self {
        Self(self.0.wrapping_add(1) & Self::MASK)
    }
}

/// A [`Breaker`] at a glance, small enough for an `AtomicU32`, so that callers need not take the breaker's lock to
/// be admitted or refused.
///
/// A view may be stale by the time it is used. That is harmless: a permit from it carries the generation it saw, so a
/// breaker that has moved on ignores the result. Zero is the view of a new breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerView(u32);

impl BreakerView {
    /// Bits 0 and 1: the state (0 closed, 1 open, 2 half-open).
    const STATE: u32 = 0b011;
    /// Bit 2: closed, and failures have been counted.
    const FAILING: u32 = 0b100;
    const GENERATION_SHIFT: u32 = 3;

    const fn new(state: BreakerState, failing: bool, generation: Generation) -> Self {
        let state = match state {
            BreakerState::Closed => 0,
            BreakerState::Open => 1,
            BreakerState::HalfOpen => 2,
        };
        let failing = if failing { Self::FAILING } else { 0 };
        Self(generation.0 << Self::GENERATION_SHIFT | failing | state)
    }

    /// The view that [`to_bits`](Self::to_bits) made these bits of. Any other bits are some view too.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// For an `AtomicU32`.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The state that was seen.
    #[must_use]
    pub const fn state(self) -> BreakerState {
        match self.0 & Self::STATE {
            0 => BreakerState::Closed,
            2 => BreakerState::HalfOpen,
            _ => BreakerState::Open,
        }
    }

    /// A permit if the breaker was closed, without asking it. When it was half-open, ask [`Breaker::admit`].
    #[must_use]
    pub const fn permit_if_closed(self) -> Option<Permit> {
        match self.state() {
            BreakerState::Closed => Some(Permit { generation: self.generation(), place: 0 }),
            BreakerState::Open | BreakerState::HalfOpen => None,
        }
    }

    /// Whether recording a success of `permit` would change the breaker; when not, the caller need not take its lock.
    /// That is the usual case: closed, and no failure since the last success.
    #[must_use]
    pub fn success_matters(self, permit: Permit) -> bool {
        permit.generation == self.generation() && (self.state() != BreakerState::Closed || self.is_failing())
    }

    const fn is_failing(self) -> bool {
        self.0 & Self::FAILING != 0
    }

    const fn generation(self) -> Generation {
        Generation(self.0 >> Self::GENERATION_SHIFT)
    }
}

#[cfg(test)]
mod tests;
