//! The breaker against a naive model of it, under random events.

use proptest::prelude::*;

use super::*;

/// The breaker as one would write it without thinking about size: permits are kept in a list, each with the number
/// of the phase that gave it, and results in another, each with its time; what is in the window is counted anew
/// each time.
#[derive(Default)]
struct Model {
    phase: ModelPhase,
    /// Transitions so far.
    number: u32,
    failures: u32,
    /// When each result came, whether it failed, and how long it took.
    results: Vec<(Instant, bool, Duration)>,
    reopened: u32,
    trips: u64,
    out: Vec<Permit>,
    succeeded: usize,
    slow: usize,
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
        self.results.clear();
        self.out.clear();
        (self.succeeded, self.slow) = (0, 0);
        self.probe_waits = phase == ModelPhase::Probing;
        self.until = Some(after(now, config.half_open_timeout));
    }

    fn count(&mut self, config: &BreakerConfig, now: Instant, failed: bool, took: Duration) {
        self.results.push((now, failed, took));
        let tenth = u64::try_from(config.window.as_nanos() / 10).expect("not that long");
        let number = |at: Instant| at.as_nanos() / tenth;
        let seen = self.results.iter().filter(|(at, ..)| number(*at) + 10 > number(now));
        let calls = seen.clone().count();
        let failed = seen.clone().filter(|(_, failed, _)| *failed).count();
        let slow =
            seen.filter(|(.., took)| config.slow_call_after.is_some_and(|after| *took >= after)).count();
        let reached = |part: usize, percent: u32| part > 0 && part * 100 >= calls * percent as usize;
        let share = config.failure_rate_percent.is_some_and(|percent| reached(failed, percent))
            || reached(slow, config.slow_call_rate_percent);
        if self.failures >= config.failure_threshold || calls >= config.minimum_calls as usize && share {
            self.enter(ModelPhase::Open, config, now);
        }
    }

    fn fail(&mut self, config: &BreakerConfig, now: Instant, took: Duration) {
        match self.phase {
            ModelPhase::Closed => {
                self.failures += 1;
                self.count(config, now, true, took);
            }
            ModelPhase::Open => {}
            ModelPhase::Probing | ModelPhase::Trial => self.enter(ModelPhase::Open, config, now),
        }
    }

    fn record(
        &mut self,
        config: &BreakerConfig,
        now: Instant,
        permit: Permit,
        verdict: Verdict,
        took: Duration,
    ) {
        let slow = config.slow_call_after.is_some_and(|after| took >= after);
        match (self.phase, verdict) {
            (_, Verdict::Failure) => self.fail(config, now, took),
            (ModelPhase::Closed, Verdict::Success) => {
                self.failures = 0;
                self.count(config, now, false, took);
            }
            (ModelPhase::Closed, Verdict::Abandoned) if slow => self.count(config, now, false, took),
            (ModelPhase::Probing, Verdict::Success) => self.enter(ModelPhase::Trial, config, now),
            (ModelPhase::Probing, Verdict::Abandoned) => self.probe_waits = true,
            (ModelPhase::Trial, _) => {
                self.out.retain(|out| *out != permit);
                self.succeeded += usize::from(verdict == Verdict::Success);
                self.slow += usize::from(verdict == Verdict::Success && slow);
                if self.succeeded == config.half_open_permits as usize {
                    self.enter(self.after_trial(config), config, now);
                }
            }
            (ModelPhase::Closed | ModelPhase::Open, _) => {}
        }
    }

    fn after_trial(&self, config: &BreakerConfig) -> ModelPhase {
        let too_slow = self.slow * 100 >= self.succeeded * config.slow_call_rate_percent as usize;
        if self.slow > 0 && too_slow { ModelPhase::Open } else { ModelPhase::Closed }
    }

    fn expire(&mut self, config: &BreakerConfig, now: Instant) {
        let next = match self.phase {
            ModelPhase::Open => ModelPhase::Probing,
            ModelPhase::Probing => ModelPhase::Open,
            ModelPhase::Trial if self.out.is_empty() => self.after_trial(config),
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
    /// It took so many milliseconds.
    Record(usize, Verdict, u64),
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
    let took = prop_oneof![2 => Just(0), 1 => 0u64..200];
    let event = prop_oneof![
        6 => Just(Event::Admit),
        6 => (any::<usize>(), mostly, took).prop_map(|(which, verdict, took)| Event::Record(which, verdict, took)),
        1 => Just(Event::Failure),
        1 => prop_oneof![9 => Just(Event::Failure), 1 => Just(Event::Trip)],
        3 => Just(Event::Probe),
        2 => (0u64..20_000).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
        2 => Just(Event::Expire),
    ];
    prop::collection::vec(event, 0..200)
}

fn configs() -> impl Strategy<Value = BreakerConfig> {
    let threshold = prop_oneof![1u32..4, Just(u32::MAX)];
    let shares = (
        prop::option::of(1u32..=100),
        prop::option::of((50u64..200).prop_map(Duration::from_millis)),
        1u32..=100,
        1u32..8,
        10u64..60_000,
    );
    (threshold, shares, 1u64..100, 0u32..=30, 1u32..5, 1u64..20).prop_map(
        |(threshold, (failing, slow_after, slow, calls, window), open, jitter, permits, timeout)| {
            BreakerConfig {
                failure_threshold: threshold,
                failure_rate_percent: failing,
                slow_call_after: slow_after,
                slow_call_rate_percent: slow,
                minimum_calls: calls,
                window: Duration::from_millis(window),
                open_for: secs(open),
                open_for_cap: secs(100),
                jitter_percent: jitter,
                half_open_permits: permits,
                half_open_timeout: secs(timeout),
            }
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
            Event::Record(..) if unanswered.is_empty() => {}
            Event::Record(which, verdict, took) => {
                let took = Duration::from_millis(took);
                let (of, permit) = unanswered.swap_remove(which % unanswered.len());
                breaker.record(now, permit, verdict, took);
                if of == model.number {
                    model.record(&config, now, permit, verdict, took);
                }
            }
            Event::Failure => {
                breaker.record_failure(now);
                model.fail(&config, now, Duration::ZERO);
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
    prop_assert_eq!(breaker.view().is_counting(), breaker.config.keeps_window());
    if let Phase::Trial { out, succeeded, .. } = breaker.phase {
        prop_assert_eq!(out.count_ones() as usize, model.out.len());
        prop_assert_eq!(succeeded as usize, model.succeeded);
    }
    Ok(())
}

/// Has the server answer at once from now on, until the breaker closes: a probe that was lost, the open time, a trial.
fn recover(breaker: &mut Breaker, start: Instant, traffic: bool) -> Instant {
    let mut now = start;
    for _ in 0..4 {
        // Once closed, another slow call of before may open it: when there are enough calls to judge by.
        if breaker.state() == BreakerState::Closed {
            break;
        }
        now = breaker.poll_timeout().map_or(now, |due| due.max(now));
        breaker.handle_timeout(now);
        if let Some(probe) = breaker.poll_probe() {
            breaker.record(now, probe, Verdict::Success, Duration::ZERO);
        }
        for _ in 0..if traffic { breaker.config.half_open_permits } else { 0 } {
            if let Some(permit) = breaker.admit(now) {
                breaker.record(now, permit, Verdict::Success, Duration::ZERO);
            }
        }
    }
    now
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
        let now = recover(&mut breaker, start, traffic);
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
        let bound = config.open_for_cap * (100 + config.jitter_percent) / 100 + config.half_open_timeout * 3;
        prop_assert!(now.saturating_since(start) <= bound, "{:?}", breaker);
        // What was counted before may open it once more, when there are enough calls to judge by, and that is all.
        let trips = breaker.trips();
        for _ in 0..16 {
            if let Some(permit) = breaker.admit(now) {
                breaker.record(now, permit, Verdict::Success, Duration::ZERO);
            }
        }
        recover(&mut breaker, now, traffic);
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
        prop_assert!(breaker.trips() <= trips + 1, "{:?}", breaker);
    }

    #[test]
    fn equal_seeds_give_equal_breakers(config in configs(), seed: u64, events in events()) {
        let (a, _) = run(config, seed, &events)?;
        let (b, _) = run(config, seed, &events)?;
        prop_assert_eq!(a.view(), b.view());
        prop_assert_eq!(a.poll_timeout(), b.poll_timeout());
    }
}

/// Closed all along, and one good answer short of as many calls as it takes to judge the slow one by.
#[test]
fn regression_a_slow_call_of_before_may_open_a_closed_breaker() {
    let config = BreakerConfig {
        failure_threshold: 3,
        slow_call_after: Some(Duration::from_millis(50)),
        slow_call_rate_percent: 1,
        minimum_calls: 3,
        ..BreakerConfig::default()
    };
    let slow = [Event::Admit, Event::Record(0, Verdict::Success, 50), Event::Failure];
    let (mut breaker, now) = run(config, 0, &slow).expect("as the model");
    assert_eq!((breaker.state(), recover(&mut breaker, now, true)), (BreakerState::Closed, now));
    let permit = breaker.admit(now).expect("closed");
    breaker.record(now, permit, Verdict::Success, Duration::ZERO);
    assert_eq!(breaker.state(), BreakerState::Open);
    recover(&mut breaker, now, true);
    assert_eq!(breaker.state(), BreakerState::Closed);
}
