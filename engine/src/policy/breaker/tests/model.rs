//! The breaker against a naive model of it, under random events.

use proptest::prelude::*;

use super::*;

/// The breaker as one would write it without thinking about size: permits are kept in a list, each with the number
/// of the phase that gave it.
#[derive(Default)]
struct Model {
    phase: ModelPhase,
    /// Transitions so far.
    number: u32,
    failures: u32,
    reopened: u32,
    trips: u64,
    out: Vec<Permit>,
    succeeded: usize,
    probe_waits: bool,
    /// When a half-open phase is over.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ModelPhase {
    #[default]
    Closed,
    Open,
    Probing,
    Trial,
}

impl Model {
    fn enter(&mut self, phase: ModelPhase, config: &BreakerConfig, now: Instant) {
        self.reopened = match (self.phase, phase) {
            (ModelPhase::Closed, _) | (_, ModelPhase::Closed) => 0,
            (_, ModelPhase::Open) => self.reopened + 1,
            _ => self.reopened,
        };
        self.trips += u64::from(phase == ModelPhase::Open);
        self.phase = phase;
        self.number += 1;
        self.failures = 0;
        self.out.clear();
        self.succeeded = 0;
        self.probe_waits = phase == ModelPhase::Probing;
        self.until = Some(after(now, config.half_open_timeout));
    }

    fn fail(&mut self, config: &BreakerConfig, now: Instant) {
        match self.phase {
            ModelPhase::Closed => {
                self.failures += 1;
                if self.failures >= config.failure_threshold {
                    self.enter(ModelPhase::Open, config, now);
                }
            }
            ModelPhase::Open => {}
            ModelPhase::Probing | ModelPhase::Trial => self.enter(ModelPhase::Open, config, now),
        }
    }

    fn record(&mut self, config: &BreakerConfig, now: Instant, permit: Permit, verdict: Verdict) {
        match (self.phase, verdict) {
            (_, Verdict::Failure) => self.fail(config, now),
            (ModelPhase::Closed, Verdict::Success) => self.failures = 0,
            (ModelPhase::Probing, Verdict::Success) => self.enter(ModelPhase::Trial, config, now),
            (ModelPhase::Probing, Verdict::Abandoned) => self.probe_waits = true,
            (ModelPhase::Trial, _) => {
                self.out.retain(|out| *out != permit);
                self.succeeded += usize::from(verdict == Verdict::Success);
                if self.succeeded == config.half_open_permits as usize {
                    self.enter(ModelPhase::Closed, config, now);
                }
            }
            (ModelPhase::Closed | ModelPhase::Open, _) => {}
        }
    }

    fn expire(&mut self, config: &BreakerConfig, now: Instant) {
        let next = match self.phase {
            ModelPhase::Open => ModelPhase::Probing,
            ModelPhase::Probing => ModelPhase::Open,
            ModelPhase::Trial if self.out.is_empty() => ModelPhase::Closed,
            ModelPhase::Trial => ModelPhase::Probing,
            ModelPhase::Closed => unreachable!("closed has no deadline"),
        };
        self.enter(next, config, now);
    }

    fn may_admit(&self, config: &BreakerConfig) -> bool {
        match self.phase {
            ModelPhase::Closed => true,
            ModelPhase::Open | ModelPhase::Probing => false,
            ModelPhase::Trial => self.out.len() + self.succeeded < config.half_open_permits as usize,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Admit,
    /// The result of a permit that is still to be answered, of whatever generation; it is chosen by the number.
    Record(usize, Verdict),
    Failure,
    Trip,
    Probe,
    Pass(Duration),
    /// Time passes until the deadline, if there is one.
    Expire,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let verdict = prop_oneof![Just(Verdict::Success), Just(Verdict::Failure), Just(Verdict::Abandoned)];
    let mostly = prop_oneof![4 => Just(Verdict::Success), 1 => verdict];
    let event = prop_oneof![
        6 => Just(Event::Admit),
        6 => (any::<usize>(), mostly).prop_map(|(which, verdict)| Event::Record(which, verdict)),
        1 => Just(Event::Failure),
        1 => prop_oneof![9 => Just(Event::Failure), 1 => Just(Event::Trip)],
        3 => Just(Event::Probe),
        2 => (0u64..20_000).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
        2 => Just(Event::Expire),
    ];
    prop::collection::vec(event, 0..200)
}

fn configs() -> impl Strategy<Value = BreakerConfig> {
    (1u32..4, 1u64..100, 0u32..=30, 1u32..5, 1u64..20).prop_map(
        |(threshold, open, jitter, permits, timeout)| BreakerConfig {
            failure_threshold: threshold,
            open_for: secs(open),
            open_for_cap: secs(100),
            jitter_percent: jitter,
            half_open_permits: permits,
            half_open_timeout: secs(timeout),
        },
    )
}

/// Lets `events` happen to a breaker and to the model, and compares them after each.
fn run(config: BreakerConfig, seed: u64, events: &[Event]) -> Result<(Breaker, Instant), TestCaseError> {
    let (mut breaker, mut model, mut now) = (Breaker::new(config, seed), Model::default(), START);
    let mut unanswered: Vec<(u32, Permit)> = Vec::new();
    for event in events {
        let (number, opened_at) = (model.number, now);
        match *event {
            Event::Admit => {
                let expected = model.may_admit(&config);
                let admitted = breaker.admit(now);
                prop_assert_eq!(admitted.is_some(), expected);
                if let Some(permit) = admitted {
                    prop_assert!(!model.out.contains(&permit), "two permits with one number");
                    prop_assert_eq!(permit.is_trial(), model.phase == ModelPhase::Trial);
                    unanswered.push((model.number, permit));
                    if permit.is_trial() {
                        if model.out.is_empty() {
                            model.until = Some(after(now, config.half_open_timeout));
                        }
                        model.out.push(permit);
                    }
                }
            }
            Event::Record(_, _) if unanswered.is_empty() => {}
            Event::Record(which, verdict) => {
                let (of, permit) = unanswered.swap_remove(which % unanswered.len());
                breaker.record(now, permit, verdict);
                if of == model.number {
                    model.record(&config, now, permit, verdict);
                }
            }
            Event::Failure => {
                breaker.record_failure(now);
                model.fail(&config, now);
            }
            Event::Trip => {
                breaker.trip(now);
                if model.phase != ModelPhase::Open {
                    model.enter(ModelPhase::Open, &config, now);
                }
            }
            Event::Probe => {
                let probe = breaker.poll_probe();
                prop_assert_eq!(probe.is_some(), model.probe_waits);
                model.probe_waits = false;
                unanswered.extend(probe.map(|permit| (model.number, permit)));
            }
            Event::Pass(_) | Event::Expire => {
                let due = breaker.poll_timeout();
                now = match *event {
                    Event::Pass(time) => after(now, time),
                    _ => due.unwrap_or(now).max(now),
                };
                breaker.handle_timeout(now);
                if due.is_some_and(|due| due <= now) {
                    model.expire(&config, now);
                }
                prop_assert!(breaker.poll_timeout().is_none_or(|until| until > now));
            }
        }
        compare(&breaker, &model)?;
        if model.number != number && model.phase == ModelPhase::Open {
            let step = (config.open_for * 2u32.pow(model.reopened.min(8))).min(config.open_for_cap);
            let open = breaker.poll_timeout().expect("open").saturating_since(now.max(opened_at));
            let spread = step * config.jitter_percent / 100;
            prop_assert!((step - spread..=step + spread).contains(&open), "{:?} for {:?}", open, step);
        }
    }
    Ok((breaker, now))
}

fn compare(breaker: &Breaker, model: &Model) -> Result<(), TestCaseError> {
    let (phase, state) = match model.phase {
        ModelPhase::Closed => ("closed", BreakerState::Closed),
        ModelPhase::Open => ("open", BreakerState::Open),
        ModelPhase::Probing => ("probing", BreakerState::HalfOpen),
        ModelPhase::Trial => ("trial", BreakerState::HalfOpen),
    };
    prop_assert_eq!(self::phase(breaker), phase);
    prop_assert_eq!(breaker.state(), state);
    prop_assert_eq!(breaker.generation.0, model.number);
    prop_assert_eq!(breaker.trips(), model.trips);
    match model.phase {
        ModelPhase::Closed => prop_assert_eq!(breaker.poll_timeout(), None),
        ModelPhase::Open => prop_assert!(breaker.poll_timeout().is_some()),
        ModelPhase::Probing | ModelPhase::Trial => prop_assert_eq!(breaker.poll_timeout(), model.until),
    }
    prop_assert_eq!(breaker.view().state(), state);
    prop_assert_eq!(breaker.view().is_failing(), model.failures > 0);
    if let Phase::Trial { out, succeeded, .. } = breaker.phase {
        prop_assert_eq!(out.count_ones() as usize, model.out.len());
        prop_assert_eq!(succeeded as usize, model.succeeded);
    }
    Ok(())
}

proptest! {
    #[test]
    fn behaves_like_the_naive_model(config in configs(), seed: u64, events in events()) {
        run(config, seed, &events)?;
    }

    /// Whatever happened, and whatever permits were lost: once the server answers, the breaker closes after at most
    /// one open time and three half-open ones, with traffic and without.
    #[test]
    fn no_history_can_wedge_it(config in configs(), seed: u64, events in events(), traffic: bool) {
        let (mut breaker, start) = run(config, seed, &events)?;
        let mut now = start;
        // A probe that was lost, the open time, a trial.
        for _ in 0..4 {
            now = breaker.poll_timeout().map_or(now, |due| due.max(now));
            breaker.handle_timeout(now);
            if let Some(probe) = breaker.poll_probe() {
                breaker.record(now, probe, Verdict::Success);
            }
            for _ in 0..if traffic { config.half_open_permits } else { 0 } {
                if let Some(permit) = breaker.admit(now) {
                    breaker.record(now, permit, Verdict::Success);
                }
            }
        }
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
        let bound = config.open_for_cap * (100 + config.jitter_percent) / 100 + config.half_open_timeout * 3;
        prop_assert!(now.saturating_since(start) <= bound, "{:?}", breaker);
    }

    #[test]
    fn equal_seeds_give_equal_breakers(config in configs(), seed: u64, events in events()) {
        let (a, _) = run(config, seed, &events)?;
        let (b, _) = run(config, seed, &events)?;
        prop_assert_eq!(a.view(), b.view());
        prop_assert_eq!(a.poll_timeout(), b.poll_timeout());
    }
}
