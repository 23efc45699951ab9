use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

mod model;

const START: Instant = Instant::from_millis(1_000_000);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn config() -> BreakerConfig {
    BreakerConfig { failure_threshold: 2, jitter_percent: 0, ..BreakerConfig::default() }
}

fn after(now: Instant, duration: Duration) -> Instant {
    now.saturating_add(duration)
}

/// Ends the current phase by letting its time pass.
fn expire(breaker: &mut Breaker) -> Instant {
    let due = breaker.poll_timeout().expect("this phase has a deadline");
    breaker.handle_timeout(due);
    assert!(breaker.poll_timeout().is_none_or(|until| until > due));
    due
}

fn closed() -> (Breaker, Instant) {
    (Breaker::new(config(), 1), START)
}

fn open() -> (Breaker, Instant) {
    let (mut breaker, now) = closed();
    breaker.trip(now);
    (breaker, now)
}

fn probing() -> (Breaker, Instant) {
    let (mut breaker, _) = open();
    let now = expire(&mut breaker);
    (breaker, now)
}

fn trial() -> (Breaker, Instant) {
    let (mut breaker, now) = probing();
    answer_probe(&mut breaker, now, Verdict::Success);
    (breaker, now)
}

fn answer_probe(breaker: &mut Breaker, now: Instant, verdict: Verdict) {
    let probe = breaker.poll_probe().expect("a probe is due");
    breaker.record(now, probe, verdict, Duration::ZERO);
}

fn operate(breaker: &mut Breaker, now: Instant, verdict: Verdict) {
    operate_for(breaker, now, verdict, Duration::ZERO);
}

fn operate_for(breaker: &mut Breaker, now: Instant, verdict: Verdict, took: Duration) {
    let permit = breaker.admit(now).expect("admitted");
    breaker.record(now, permit, verdict, took);
}

/// A failure some seconds later.
fn fail_at(breaker: &mut Breaker, now: Instant, secs: u64) {
    breaker.record_failure(after(now, self::secs(secs)));
}

/// Looks at shares of half, and not at failures in a row.
fn counting() -> (Breaker, Instant) {
    let config = BreakerConfig {
        failure_threshold: u32::MAX,
        failure_rate_percent: Some(50),
        slow_call_after: Some(SLOW),
        minimum_calls: 4,
        window: secs(10),
        ..config()
    };
    (Breaker::new(config, 1), START)
}

const SLOW: Duration = Duration::from_millis(100);

fn counting_trial() -> (Breaker, Instant) {
    let (mut breaker, now) = counting();
    breaker.trip(now);
    let now = expire(&mut breaker);
    answer_probe(&mut breaker, now, Verdict::Success);
    (breaker, now)
}

fn phase(breaker: &Breaker) -> &'static str {
    match breaker.phase {
        Phase::Closed { .. } => "closed",
        Phase::Open { .. } => "open",
        Phase::Probing { .. } => "probing",
        Phase::Trial { .. } => "trial",
    }
}

#[test]
fn every_transition() {
    use Verdict::{Abandoned, Failure, Success};
    type Event = fn(&mut Breaker, Instant);
    type Start = fn() -> (Breaker, Instant);
    let succeed: Event = |breaker, now| operate(breaker, now, Success);
    let miss: Event = |breaker, now| operate(breaker, now, Failure);
    let abandon: Event = |breaker, now| operate(breaker, now, Abandoned);
    let lose: Event = |breaker, now| assert!(breaker.admit(now).is_some());
    let crawl: Event = |breaker, now| operate_for(breaker, now, Success, SLOW);
    let give_up: Event = |breaker, now| operate_for(breaker, now, Abandoned, SLOW);
    let late: Event = |breaker: &mut Breaker, now| breaker.handle_timeout(after(now, secs(100_000)));
    let fail: Event = |breaker: &mut Breaker, now| breaker.record_failure(now);
    let table: &[(&str, Start, &[Event], &str)] = &[
        ("one failure of two", closed, &[miss], "closed"),
        ("two in a row", closed, &[fail, miss], "open"),
        ("two without an operation", closed, &[fail, fail], "open"),
        ("a success between", closed, &[fail, succeed, fail], "closed"),
        ("nothing between", closed, &[fail, abandon, fail], "open"),
        ("trip", closed, &[|b, now| b.trip(now)], "open"),
        ("half of too few", counting, &[succeed, fail, succeed], "closed"),
        ("half of enough", counting, &[succeed, fail, succeed, fail], "open"),
        ("half when the last succeeds", counting, &[succeed, fail, fail, succeed], "open"),
        ("a quarter", counting, &[succeed, fail, succeed, succeed], "closed"),
        (
            "half, one of them long ago",
            counting,
            &[fail, succeed, succeed, |b, now| fail_at(b, now, 10)],
            "closed",
        ),
        (
            "half, one of them a while ago",
            counting,
            &[fail, succeed, succeed, |b, now| fail_at(b, now, 8)],
            "open",
        ),
        ("half of them slow", counting, &[succeed, crawl, succeed, crawl], "open"),
        ("half of them given up when slow", counting, &[succeed, give_up, succeed, give_up], "open"),
        ("given up at once", counting, &[succeed, abandon, succeed, abandon, abandon], "closed"),
        ("a quarter of them slow, a quarter failed", counting, &[succeed, fail, succeed, crawl], "closed"),
        ("slow, but nobody looks", closed, &[crawl; 9], "closed"),
        ("time", closed, &[late], "closed"),
        ("failure while open", open, &[fail], "open"),
        ("trip while open", open, &[|b, now| b.trip(now)], "open"),
        ("not yet", open, &[|b, now| b.handle_timeout(after(now, Duration::from_millis(59_999)))], "open"),
        ("open_for", open, &[|b, now| b.handle_timeout(after(now, secs(60)))], "probing"),
        ("open_for, long past", open, &[late], "probing"),
        ("probe succeeds", probing, &[|b, now| answer_probe(b, now, Success)], "trial"),
        ("probe fails", probing, &[|b, now| answer_probe(b, now, Failure)], "open"),
        ("probe abandoned", probing, &[|b, now| answer_probe(b, now, Abandoned)], "probing"),
        ("lane lost while probing", probing, &[fail], "open"),
        ("trip while probing", probing, &[|b, now| b.trip(now)], "open"),
        (
            "probe slow",
            probing,
            &[|b, now| b.handle_timeout(after(now, Duration::from_millis(9_999)))],
            "probing",
        ),
        ("probe lost", probing, &[|b, now| b.handle_timeout(after(now, secs(10)))], "open"),
        ("two of three", trial, &[succeed; 2], "trial"),
        ("three of three", trial, &[succeed; 3], "closed"),
        ("abandoned ones do not count", trial, &[abandon; 9], "trial"),
        ("the last one fails", trial, &[succeed, succeed, miss], "open"),
        ("lane lost in trial", trial, &[fail], "open"),
        ("trip in trial", trial, &[|b, now| b.trip(now)], "open"),
        (
            "trial not over",
            trial,
            &[|b, now| b.handle_timeout(after(now, Duration::from_millis(9_999)))],
            "trial",
        ),
        ("three of three, one slow", counting_trial, &[crawl, succeed, succeed], "closed"),
        ("three of three, two slow", counting_trial, &[crawl, succeed, crawl], "open"),
        ("little traffic, slow", counting_trial, &[crawl, late], "open"),
        ("no traffic", trial, &[|b, now| b.handle_timeout(after(now, secs(10)))], "closed"),
        ("little traffic", trial, &[succeed, late], "closed"),
        ("a permit lost", trial, &[lose, late], "probing"),
    ];
    for &(name, start, events, expected) in table {
        let (mut breaker, now) = start();
        let (before, generation, until) = (phase(&breaker), breaker.generation, breaker.poll_timeout());
        for event in events {
            event(&mut breaker, now);
        }
        assert_eq!(phase(&breaker), expected, "{name}");
        assert_eq!(
            breaker.generation != generation,
            before != expected,
            "{name}: a transition is a generation"
        );
        if before == "open" && expected == "open" {
            assert_eq!(breaker.poll_timeout(), until, "{name}: an open breaker keeps its deadline");
        }
    }
}

#[test]
fn half_open_admits_exactly_n() {
    for (configured, n) in [(1, 1), (3, 3), (32, 32), (0, 1), (1000, 32)] {
        let mut breaker = Breaker::new(BreakerConfig { half_open_permits: configured, ..config() }, 1);
        breaker.trip(START);
        let herd =
            |breaker: &mut Breaker, now| (0..1000).filter_map(|_| breaker.admit(now)).collect::<Vec<_>>();
        assert_eq!(herd(&mut breaker, after(START, secs(1_000_000))), [], "open, however late");
        let now = expire(&mut breaker);
        assert_eq!(herd(&mut breaker, now), [], "the probe goes alone");
        answer_probe(&mut breaker, now, Verdict::Success);

        let permits = herd(&mut breaker, now);
        assert_eq!(permits.len(), n);
        assert!(permits.iter().all(Permit::is_trial));
        let (first, others) = permits.split_first().expect("n is at least 1");

        breaker.record(now, *first, Verdict::Abandoned, Duration::ZERO);
        let returned = herd(&mut breaker, now);
        assert_eq!(returned.len(), 1, "an abandoned permit goes back to the pool");
        for permit in others {
            breaker.record(now, *permit, Verdict::Success, Duration::ZERO);
            assert_eq!(herd(&mut breaker, now), [], "a success uses its place up");
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.record(now, returned[0], Verdict::Success, Duration::ZERO);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(herd(&mut breaker, now).len(), 1000);
    }
}

#[test]
fn a_probe_is_handed_out_once_per_half_open() {
    let (mut breaker, now) = probing();
    let probe = breaker.poll_probe().expect("half-open begins with a probe");
    assert_eq!(breaker.poll_probe(), None);
    assert!(!probe.is_trial());
    breaker.record(now, probe, Verdict::Abandoned, Duration::ZERO);
    let probe = breaker.poll_probe().expect("an abandoned probe is handed out again");
    breaker.record(now, probe, Verdict::Success, Duration::ZERO);
    assert_eq!(breaker.poll_probe(), None, "no probe in a trial");

    let _lost = breaker.admit(now);
    expire(&mut breaker);
    assert_ne!(breaker.poll_probe(), None, "a trial with a lost permit begins again with a probe");
    for (mut breaker, _) in [closed(), open()] {
        assert_eq!(breaker.poll_probe(), None);
    }
}

#[test]
fn results_of_another_generation_are_ignored() {
    let (mut breaker, now) = closed();
    let before = breaker.admit(now).expect("closed");
    breaker.trip(now);
    breaker.record(now, before, Verdict::Success, Duration::ZERO);
    let now = expire(&mut breaker);
    let lost_probe = breaker.poll_probe().expect("probing");
    breaker.record(now, before, Verdict::Success, Duration::ZERO);
    breaker.record(now, before, Verdict::Failure, Duration::ZERO);
    assert_eq!(phase(&breaker), "probing");

    expire(&mut breaker);
    let now = expire(&mut breaker);
    breaker.record(now, lost_probe, Verdict::Success, Duration::ZERO);
    assert_eq!(phase(&breaker), "probing", "the probe of an earlier half-open");
    answer_probe(&mut breaker, now, Verdict::Success);
    for stale in [before, lost_probe] {
        breaker.record(now, stale, Verdict::Failure, Duration::ZERO);
    }
    assert_eq!(phase(&breaker), "trial");
    (0..3).for_each(|_| operate(&mut breaker, now, Verdict::Success));
    (0..9).for_each(|_| breaker.record(now, before, Verdict::Failure, Duration::ZERO));
    assert_eq!(phase(&breaker), "closed", "failures from before the outage");
}

#[test]
fn a_success_recorded_twice_counts_once() {
    let (mut breaker, now) = trial();
    let permit = breaker.admit(now).expect("trial");
    (0..9).for_each(|_| breaker.record(now, permit, Verdict::Success, Duration::ZERO));
    assert_eq!(phase(&breaker), "trial");
}

#[test]
fn an_operation_that_begins_late_in_a_quiet_trial_has_its_time() {
    let (mut breaker, now) = trial();
    let late = after(now, secs(9));
    let permit = breaker.admit(late).expect("trial");
    breaker.handle_timeout(after(now, secs(10)));
    breaker.record(after(now, secs(12)), permit, Verdict::Success, Duration::ZERO);
    assert_eq!(phase(&breaker), "trial");
    assert_eq!(breaker.poll_timeout(), Some(after(late, secs(10))));

    // A permit that is out keeps the clock running, or one lost permit among others would never be noticed.
    let _lost = breaker.admit(after(now, secs(13)));
    operate(&mut breaker, after(now, secs(20)), Verdict::Abandoned);
    breaker.handle_timeout(after(now, secs(23)));
    assert_eq!(phase(&breaker), "probing");
}

#[test]
fn open_time_doubles_to_its_cap_and_closing_resets_it() {
    let (mut breaker, mut now) = open();
    for expected in [60, 120, 240, 480, 600, 600] {
        let due = breaker.poll_timeout().expect("open");
        assert_eq!(due.saturating_since(now), secs(expected));
        expire(&mut breaker);
        now = after(due, secs(1));
        answer_probe(&mut breaker, now, Verdict::Failure);
    }
    assert_eq!(breaker.trips(), 7);
    now = expire(&mut breaker);
    answer_probe(&mut breaker, now, Verdict::Success);
    now = expire(&mut breaker);
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker.trip(now);
    assert_eq!(breaker.poll_timeout(), Some(after(now, secs(60))));
    assert_eq!(breaker.trips(), 8);
}

#[test]
fn open_time_is_spread_evenly_and_also_at_the_cap() {
    let open_for = |open_for, cap, seed| {
        let config =
            BreakerConfig { open_for: secs(open_for), open_for_cap: secs(cap), ..BreakerConfig::default() };
        let mut breaker = Breaker::new(config, seed);
        breaker.trip(START);
        breaker.poll_timeout().expect("open").saturating_since(START)
    };
    for (base, cap) in [(100, 1000), (100, 100), (100, 1)] {
        let times: Vec<_> = (0..1000).map(|seed| open_for(base, cap, seed)).collect();
        assert!(times.iter().all(|time| (secs(85)..=secs(115)).contains(time)), "{base} {cap}");
        assert!(times.iter().filter(|&&time| time < secs(90)).count() > 100);
        assert!(times.iter().filter(|&&time| time > secs(110)).count() > 100);
        assert_eq!(times[7], open_for(base, cap, 7), "equal seeds, equal times");
    }
}

#[test]
fn extreme_configurations_neither_panic_nor_spin() {
    let (zero, max) = (Duration::ZERO, Duration::MAX);
    for (open_for, half_open_timeout) in [(zero, zero), (max, zero), (zero, max), (max, max)] {
        for jitter_percent in [0, 15, 100, u32::MAX] {
            let config = BreakerConfig {
                failure_threshold: 0,
                failure_rate_percent: Some(jitter_percent),
                slow_call_after: Some(half_open_timeout),
                slow_call_rate_percent: jitter_percent,
                minimum_calls: 0,
                window: open_for,
                open_for,
                open_for_cap: open_for,
                jitter_percent,
                half_open_permits: 0,
                half_open_timeout,
            };
            let mut breaker = Breaker::new(config, 3);
            breaker.record_failure(START);
            assert_eq!(breaker.state(), BreakerState::Open, "a threshold of 0 counts as 1");
            for _ in 0..200 {
                let Some(due) = breaker.poll_timeout() else { break };
                breaker.handle_timeout(due);
                assert!(breaker.poll_timeout().is_none_or(|until| until > due));
            }
        }
    }
    let (mut breaker, _) = closed();
    breaker.trip(Instant::NEVER);
    breaker.handle_timeout(Instant::NEVER);
    assert_eq!(breaker.poll_timeout(), None, "never is not a time to wake up at");
}

#[test]
fn a_view_says_what_the_breaker_would() {
    let views = [(closed(), "closed"), (open(), "open"), (probing(), "half-open"), (trial(), "half-open")];
    for ((mut breaker, now), name) in views {
        let view = BreakerView::from_bits(breaker.view().to_bits());
        assert_eq!(view, breaker.view());
        assert_eq!(view.state(), breaker.state());
        assert_eq!(view.state().to_string(), name);
        let closed = breaker.state() == BreakerState::Closed;
        assert_eq!(view.permit_if_closed(), if closed { breaker.admit(now) } else { None });
    }
    assert_eq!(BreakerView::default(), closed().0.view());
    for bits in [3, u32::MAX] {
        assert_eq!(BreakerView::from_bits(bits).permit_if_closed(), None, "bits of nobody admit nobody");
    }
}

#[test]
fn a_success_that_changes_nothing_needs_no_lock() {
    let (mut breaker, now) = closed();
    let permit = breaker.view().permit_if_closed().expect("closed");
    assert!(!breaker.view().success_matters(permit));
    breaker.record_failure(now);
    assert!(breaker.view().success_matters(permit), "it resets the count");
    breaker.record(now, permit, Verdict::Success, Duration::ZERO);
    assert!(!breaker.view().success_matters(permit));
    breaker.trip(now);
    assert!(!breaker.view().success_matters(permit), "of another generation");

    let (mut breaker, now) = trial();
    let permit = breaker.admit(now).expect("trial");
    assert!(breaker.view().success_matters(permit));
}

#[test]
fn generations_wrap_within_the_view() {
    let (mut breaker, now) = closed();
    breaker.generation = Generation(Generation::MASK);
    let permit = breaker.admit(now).expect("closed");
    assert_eq!(breaker.view().permit_if_closed(), Some(permit));
    breaker.trip(now);
    assert_eq!(breaker.generation, Generation(0));
    assert_eq!(breaker.view().generation(), Generation(0));
}

#[test]
fn a_breaker_that_counts_needs_every_success_and_forgets_when_it_closes() {
    let (mut breaker, now) = counting();
    // Longer than it stays open.
    let config = BreakerConfig { window: secs(1_000), ..breaker.config };
    breaker = Breaker::new(config, 1);
    assert_ne!(breaker.view(), BreakerView::default());
    let view = BreakerView::from_bits(breaker.view().to_bits());
    let permit = view.permit_if_closed().expect("closed");
    assert!(permit.is_counted() && Some(permit) == breaker.admit(now) && view.success_matters(permit));
    (0..2).for_each(|_| operate(&mut breaker, now, Verdict::Success));
    operate(&mut breaker, now, Verdict::Failure);
    breaker.trip(now);
    let now = expire(&mut breaker);
    answer_probe(&mut breaker, now, Verdict::Success);
    (0..3).for_each(|_| operate(&mut breaker, now, Verdict::Success));
    // Of this failure and the three above half would have failed, were those from before the outage still there.
    operate(&mut breaker, now, Verdict::Failure);
    assert_eq!(phase(&breaker), "closed", "three of the trial are not in the window either");
    (0..9).for_each(|_| breaker.record(now, permit, Verdict::Failure, SLOW));
    operate(&mut breaker, now, Verdict::Success);
    assert_eq!(phase(&breaker), "closed", "late results of another generation are not counted");
}

proptest! {
    /// Whatever is younger than nine tenths of the window is in it, and nothing that is older than all of it.
    #[test]
    fn the_window_slides(length in 10u64..100_000, gaps in prop::collection::vec(0u64..20_000, 1..200)) {
        let length = Duration::from_millis(length);
        let mut window = Window::new(length);
        let (mut now, mut times) = (START, Vec::new());
        for gap in gaps {
            now = after(now, Duration::from_millis(gap));
            times.push(now);
            let (failed, slow) = (times.len() % 2 == 0, times.len() % 3 == 0);
            let seen = window.record(now, failed, slow).calls;
            let younger = |than: Duration| times.iter().filter(|&&at| now.saturating_since(at) < than).count() as u64;
            let (least, most) = (younger(length / 10 * 9), younger(length));
            prop_assert!((least..=most).contains(&seen), "{} not in {}..={}", seen, least, most);
        }
    }
}

#[test]
fn a_window_survives_any_time() {
    for length in [Duration::ZERO, Duration::from_nanos(10), secs(30), Duration::MAX] {
        let mut window = Window::new(length);
        for now in [Instant::EPOCH, START, Instant::NEVER, START, Instant::NEVER] {
            assert!(window.record(now, true, false).calls > 0);
        }
    }
}
