//! The circuit breaker: stops asking a server that does not answer, and finds out gently when it does again.
//!
//! ```text
//!              failure_threshold failures in a row, trip,
//!              or a share of the window is reached
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
//!     half_open_timeout    └──────────────────────────────────┘   any failure, or as it ends
//!     and none out                                                too many slow (growth)
//! ```
//!
//! Every arrow begins a new *generation*. A [`Permit`] carries the generation it was given in, and a result that
//! arrives under another one is ignored: an operation that began before the outage says nothing about the server
//! now. In the trial, a permit whose result says nothing ([`Verdict::Abandoned`]) goes back to the pool; one that is
//! never recorded is written off by `half_open_timeout`. So no lost permit can wedge the breaker.
//!
//! # What opens it
//!
//! Always: failures in a row. They find an outage at once, at any load, and say nothing about a server that fails
//! every other call. For that there are two shares, both off by default, over a sliding [window](BreakerConfig::window)
//! of time: of calls that failed ([`failure_rate_percent`](BreakerConfig::failure_rate_percent)), and of calls that
//! took long ([`slow_call_after`](BreakerConfig::slow_call_after)), whether they failed or not. The terms and the rule
//! ("at least `minimum_calls`, and the share is reached") are those of resilience4j and Polly. The window is a ring of
//! ten buckets: fixed memory, O(1) for a result, nothing allocated. It begins empty each time the breaker closes.
//!
//! What counts as one call is what counts as one failure: a lost connection is a single one, however many operations
//! were on it. A call that was given up ([`Verdict::Abandoned`]) counts only if it was slow by then.
//!
//! The states are those of Nygard, *Release It!*; the numbered permits and the probe are there because a half-open
//! breaker that lets everyone through sends the herd to a server that has just come back.

use core::fmt;
use core::time::Duration;

use super::nanos;
use crate::Instant;

mod state;
mod window;

use window::{Tally, Window};

/// When a [`Breaker`] opens, for how long, and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it (default 5; 0 counts as 1).
    pub failure_threshold: u32,
    /// The share of failed calls in the window that opens it, in percent (default `None`: not looked at; 1 to 100).
    pub failure_rate_percent: Option<u32>,
    /// A call is slow that takes this long (default `None`: none is; at least 1 ms).
    pub slow_call_after: Option<Duration>,
    /// The share of slow calls in the window, or in a trial, that opens it, in percent (default 50; 1 to 100). Without
    /// `slow_call_after` it is never reached.
    pub slow_call_rate_percent: u32,
    /// Calls that must be in the window before a share of them says anything (default 100; 0 counts as 1).
    pub minimum_calls: u32,
    /// How far back the shares look (default 30 s; at least 10 ms). In fact a little less, by up to a tenth.
    pub window: Duration,
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
            failure_rate_percent: None,
            slow_call_after: None,
            slow_call_rate_percent: 50,
            minimum_calls: 100,
            window: Duration::from_secs(30),
            open_for: Duration::from_secs(60),
            open_for_cap: Duration::from_secs(600),
            jitter_percent: 15,
            half_open_permits: 3,
            half_open_timeout: Duration::from_secs(10),
        }
    }
}

impl BreakerConfig {
    /// The nearest configuration that makes sense.
    fn clamped(self) -> Self {
        let shortest = Duration::from_millis(1);
        let open_for = self.open_for.max(shortest);
        Self {
            failure_threshold: self.failure_threshold.max(1),
            failure_rate_percent: self.failure_rate_percent.map(|percent| percent.clamp(1, 100)),
            slow_call_after: self.slow_call_after.map(|after| after.max(shortest)),
            slow_call_rate_percent: self.slow_call_rate_percent.clamp(1, 100),
            minimum_calls: self.minimum_calls.max(1),
            window: self.window.max(10 * shortest),
            open_for,
            open_for_cap: self.open_for_cap.max(open_for),
            jitter_percent: self.jitter_percent.min(100),
            half_open_permits: self.half_open_permits.clamp(1, u32::BITS),
            half_open_timeout: self.half_open_timeout.max(shortest),
        }
    }

    const fn keeps_window(&self) -> bool {
        self.failure_rate_percent.is_some() || self.slow_call_after.is_some()
    }

    fn is_slow(&self, took: Duration) -> bool {
        self.slow_call_after.is_some_and(|after| took >= after)
    }

    /// Whether what is in the window opens the breaker.
    fn is_reached_by(&self, seen: Tally) -> bool {
        let failing = |percent| is_share(seen.failed, seen.calls, percent);
        seen.calls >= u64::from(self.minimum_calls)
            && (self.failure_rate_percent.is_some_and(failing) || self.is_slow_share(seen.slow, seen.calls))
    }

    fn is_slow_share(&self, slow: u64, calls: u64) -> bool {
        is_share(slow, calls, self.slow_call_rate_percent)
    }
}

/// Whether `part` is `percent` of `whole`, or more; there is no share of nothing.
const fn is_share(part: u64, whole: u64, percent: u32) -> bool {
    part > 0 && part.saturating_mul(100) >= whole.saturating_mul(percent as u64)
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
    counted: bool,
}

impl Permit {
    /// Whether this is one of the numbered permits of a trial.
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.place != 0
    }

    /// Whether the breaker keeps a window, so that each result matters, a success too, and how long it took.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.counted
    }

    /// For a recording: what makes it up.
    pub(crate) const fn into_parts(self) -> (u32, u32, bool) {
        (self.generation.0, self.place, self.counted)
    }

    pub(crate) const fn from_parts((generation, place, counted): (u32, u32, bool)) -> Self {
        Self { generation: Generation(generation), place, counted }
    }
}

/// What an operation's end says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered. An error that is the caller's own mistake is an answer too.
    Success,
    /// It did not, or said that it cannot.
    Failure,
    /// Nothing: the operation was cancelled, or never got as far as the server; or only that it has taken too long.
    Abandoned,
}

impl Verdict {
    /// For a recording: the one of this number.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Success,
            1 => Self::Failure,
            2 => Self::Abandoned,
            _ => return None,
        })
    }
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
/// breaker.record(now, permit, Verdict::Failure, Duration::ZERO);
/// assert_eq!(breaker.state(), BreakerState::Open);
/// assert_eq!(breaker.admit(now), None);
///
/// let now = breaker.poll_timeout().expect("open has a deadline");
/// breaker.handle_timeout(now);
/// let probe = breaker.poll_probe().expect("half-open begins with a probe");
/// breaker.record(now, probe, Verdict::Success, Duration::ZERO);
/// for _ in 0..3 {
///     let permit = breaker.admit(now).expect("the trial has three places");
///     breaker.record(now, permit, Verdict::Success, Duration::ZERO);
/// }
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    rng: fastrand::Rng,
    phase: Phase,
    /// Only where a share opens it.
    window: Option<Window>,
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
        /// Of those that succeeded.
        slow: u32,
    },
}

impl Breaker {
    /// A closed breaker. `seed` decides the jitter of the open time, and nothing else.
    #[must_use]
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        let config = config.clamped();
        Self {
            config,
            rng: fastrand::Rng::with_seed(seed),
            phase: Phase::Closed { failures: 0 },
            window: config.keeps_window().then(|| Window::new(config.window)),
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
            Phase::Trial { until, out, succeeded, .. } => {
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
        Some(Permit { generation: self.generation, place, counted: self.window.is_some() })
    }

    /// What came of the operation, or the probe, that `permit` was given for, and how long the server took for it; zero
    /// where nobody knows. The time that it spent in queues of our own must not be in that: overload of a healthy server
    /// is not the server's slowness.
    ///
    /// Ignored when the breaker has moved on since: the result belongs to another generation. In the closed state a
    /// success sets the count of failures in a row back to zero.
    pub fn record(&mut self, now: Instant, permit: Permit, verdict: Verdict, took: Duration) {
        if permit.generation != self.generation {
            return;
        }
        let is_slow = self.config.is_slow(took);
        let permits = self.config.half_open_permits;
        match (&mut self.phase, verdict) {
            (Phase::Closed { .. }, _) => self.count(now, verdict, is_slow),
            (Phase::Open { .. }, _) => {}
            (Phase::Probing { .. }, Verdict::Success) => self.begin_trial(now),
            (Phase::Probing { handed_out, .. }, Verdict::Abandoned) => *handed_out = false,
            (Phase::Trial { out, succeeded, slow, .. }, Verdict::Success | Verdict::Abandoned) => {
                let was_out = *out & permit.place != 0;
                *out &= !permit.place;
                if was_out && verdict == Verdict::Success {
                    *succeeded = succeeded.saturating_add(1);
                    *slow = slow.saturating_add(u32::from(is_slow));
                    if *succeeded >= permits {
                        self.end_trial(now);
                    }
                }
            }
            (Phase::Probing { .. } | Phase::Trial { .. }, Verdict::Failure) => self.open(now),
        }
    }

    /// A failure that belongs to no operation: a lane was lost, a dial failed, the lane fell silent.
    ///
    /// Counts as one failed call in the closed state, re-opens a half-open breaker, and changes nothing in an open one.
    pub fn record_failure(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Closed { .. } => self.count(now, Verdict::Failure, false),
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
            Phase::Open { .. } if mistake!(OpenForEver) => self.open(now),
            Phase::Open { .. } => self.begin_probing(now),
            Phase::Probing { .. } => self.open(now),
            Phase::Trial { out: 0, .. } => self.end_trial(now),
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
                Some(Permit { generation: self.generation, place: 0, counted: false })
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
        BreakerView::new(self.state(), failing, self.window.is_some(), self.generation)
    }

    /// Times it went from closed or half-open to open.
    #[must_use]
    pub const fn trips(&self) -> u64 {
        self.trips
    }

    /// A result in the closed state.
    fn count(&mut self, now: Instant, verdict: Verdict, is_slow: bool) {
        let Phase::Closed { failures } = &mut self.phase else { return };
        match verdict {
            Verdict::Success => *failures = 0,
            Verdict::Failure => *failures = failures.saturating_add(1),
            Verdict::Abandoned if is_slow => {}
            Verdict::Abandoned => return,
        }
        let in_a_row = *failures >= self.config.failure_threshold;
        let seen =
            self.window.as_mut().map(|window| window.record(now, verdict == Verdict::Failure, is_slow));
        if in_a_row || seen.is_some_and(|seen| self.config.is_reached_by(seen)) {
            self.open(now);
        }
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
        self.enter(Phase::Trial { until, out: 0, succeeded: 0, slow: 0 });
    }

    /// Closes, unless the server answers but still takes too long for it.
    fn end_trial(&mut self, now: Instant) {
        let Phase::Trial { succeeded, slow, .. } = self.phase else { return };
        if self.config.is_slow_share(u64::from(slow), u64::from(succeeded)) {
            self.open(now);
        } else {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(window) = &mut self.window {
            window.clear();
        }
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

/// Counts transitions, so that a late result can be told from a current one. Wraps at 2^28: a permit would have to
/// stay out for a quarter of a billion transitions to be mistaken.
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
/// breaker that has moved on ignores the result. Zero is the view of a new breaker without a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerView(u32);

impl BreakerView {
    /// Bits 0 and 1: the state (0 closed, 1 open, 2 half-open).
    const STATE: u32 = 0b011;
    /// Bit 2: closed, and failures have been counted.
    const FAILING: u32 = 0b100;
    /// Bit 3: every result is counted.
    const COUNTING: u32 = 0b1000;
    const GENERATION_SHIFT: u32 = 4;

    const fn new(state: BreakerState, failing: bool, counting: bool, generation: Generation) -> Self {
        let state = match state {
            BreakerState::Closed => 0,
            BreakerState::Open => 1,
            BreakerState::HalfOpen => 2,
        };
        let failing = if failing { Self::FAILING } else { 0 };
        let counting = if counting { Self::COUNTING } else { 0 };
        Self(generation.0 << Self::GENERATION_SHIFT | counting | failing | state)
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
            BreakerState::Closed => {
                Some(Permit { generation: self.generation(), place: 0, counted: self.is_counting() })
            }
            BreakerState::Open | BreakerState::HalfOpen => None,
        }
    }

    /// Whether recording a success of `permit` would change the breaker; when not, the caller need not take its lock.
    /// That is the usual case: closed, no window, and no failure since the last success.
    #[must_use]
    pub fn success_matters(self, permit: Permit) -> bool {
        let changes = self.state() != BreakerState::Closed || self.is_failing() || self.is_counting();
        permit.generation == self.generation() && changes
    }

    const fn is_counting(self) -> bool {
        self.0 & Self::COUNTING != 0
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
