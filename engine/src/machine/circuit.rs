//! The breaker of one endpoint among its lanes: what they signal goes in, probes and recoveries come out.

use alloc::boxed::Box;
use core::time::Duration;

use super::outcome::Signal;
use super::record::{CircuitInput, Machine, Recorder};
use crate::archive::Archive;
use crate::policy::{Breaker, BreakerConfig, BreakerState, BreakerView, Permit, Verdict};
use crate::time::Instant;

/// A [`Breaker`] that understands the [`Signal`]s of lanes.
#[derive(Debug)]
pub struct Circuit {
    breaker: Breaker,
    recovered: bool,
    on_trial: bool,
    /// Writes down what it is told, if anybody does.
    pub(super) recorder: Option<Box<Recorder>>,
}

impl Circuit {
    /// A closed circuit. `seed` is for jitter only.
    #[must_use]
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        Self { breaker: Breaker::new(config, seed), recovered: false, on_trial: false, recorder: None }
    }

    /// Asks for a permit; see [`Breaker::admit`].
    pub fn admit(&mut self, now: Instant) -> Option<Permit> {
        let permit = self.breaker.admit(now);
        self.note(|_| CircuitInput::Admit { now: now.as_nanos() }, |_, digest| digest.permits(permit));
        permit
    }

    /// A lane has news.
    pub fn handle_signal(&mut self, now: Instant, signal: Signal) {
        // An outage may be over before the breaker has opened.
        self.recovered |= signal == Signal::Ready && self.breaker.state() == BreakerState::Closed;
        self.change(|breaker| match signal {
            Signal::Ready => {}
            Signal::Verdict(permit, verdict, took) => breaker.record(now, permit, verdict, took),
            Signal::Failure => breaker.record_failure(now),
            Signal::Trip => breaker.trip(now),
        });
        self.note(|_| CircuitInput::Signal { now: now.as_nanos(), signal: signal.into_parts() }, |_, _| {});
    }

    /// A permit comes back that no lane has taken.
    pub fn record(&mut self, now: Instant, permit: Permit, verdict: Verdict) {
        self.handle_signal(now, Signal::Verdict(permit, verdict, Duration::ZERO));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.change(|breaker| breaker.handle_timeout(now));
        self.note(|_| CircuitInput::TimedOut { now: now.as_nanos() }, |_, _| {});
    }

    /// When to call [`Circuit::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.breaker.poll_timeout()
    }

    /// A probe to be made, by any lane: hand it to [`Lane::probe`](super::Lane::probe).
    #[must_use]
    pub fn poll_probe(&mut self) -> Option<Permit> {
        let probe = self.breaker.poll_probe()?;
        self.note(|_| CircuitInput::Probe {}, |_, digest| digest.permits(Some(probe)));
        Some(probe)
    }

    /// Whether the server is back since this was asked last, tell the tiers: the breaker has closed again, or a new
    /// connection serves although it had not opened.
    #[must_use]
    pub fn poll_recovered(&mut self) -> bool {
        let recovered = core::mem::replace(&mut self.recovered, false);
        if recovered {
            self.note(|_| CircuitInput::Recovered {}, |_, _| {});
        }
        recovered
    }

    /// Whether a trial has begun since this was asked last: who waits to reach the server, asks for a permit.
    #[must_use]
    pub fn poll_trial(&mut self) -> bool {
        let on_trial = core::mem::replace(&mut self.on_trial, false);
        if on_trial {
            self.note(|_| CircuitInput::Trial {}, |_, _| {});
        }
        on_trial
    }

    /// The breaker's state.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// The breaker's state in 32 bits.
    #[must_use]
    pub fn view(&self) -> BreakerView {
        self.breaker.view()
    }

    /// How often the breaker has opened.
    #[must_use]
    pub const fn trips(&self) -> u64 {
        self.breaker.trips()
    }

    /// What it is made of, for recordings.
    pub(super) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { breaker, recovered, on_trial, recorder: _ } = self;
        breaker.archive(archive);
        archive.values([recovered, on_trial]);
    }

    fn change(&mut self, work: impl FnOnce(&mut Breaker)) {
        let before = self.breaker.state();
        work(&mut self.breaker);
        match self.breaker.state() {
            now if now == before => {}
            BreakerState::Closed => self.recovered = true,
            BreakerState::HalfOpen => self.on_trial = true,
            BreakerState::Open => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_is_a_recovery_while_closed() {
        let now = Instant::EPOCH;
        let mut circuit = Circuit::new(BreakerConfig::default(), 1);
        circuit.handle_signal(now, Signal::Ready);
        assert_eq!((circuit.poll_recovered(), circuit.poll_recovered()), (true, false));
        circuit.handle_signal(now, Signal::Trip);
        circuit.handle_signal(now, Signal::Ready);
        assert!(!circuit.poll_recovered(), "the breaker decides when it is open");
    }

    #[test]
    fn closing_again_is_told_once() {
        let now = Instant::EPOCH;
        let mut circuit = Circuit::new(BreakerConfig { half_open_permits: 1, ..BreakerConfig::default() }, 1);
        circuit.handle_signal(now, Signal::Trip);
        assert_eq!(
            (circuit.state(), circuit.trips(), circuit.poll_recovered()),
            (BreakerState::Open, 1, false)
        );
        let due = circuit.poll_timeout().expect("open ends");
        circuit.handle_timeout(due);
        let probe = circuit.poll_probe().expect("half-open begins with a probe");
        assert_eq!(circuit.poll_probe(), None);
        circuit.handle_signal(due, Signal::Verdict(probe, Verdict::Success, Duration::ZERO));
        assert_eq!((circuit.poll_trial(), circuit.poll_trial()), (true, false));
        let permit = circuit.admit(due).expect("a place of the trial");
        circuit.record(due, permit, Verdict::Success);
        assert_eq!(circuit.state(), BreakerState::Closed);
        assert!(circuit.poll_recovered());
        assert!(!circuit.poll_recovered() && !circuit.poll_trial());
    }
}
