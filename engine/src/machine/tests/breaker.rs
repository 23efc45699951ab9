//! When the server is not asked any more, and how it comes back.

use std::format;

use super::kit::{Output, World};
use super::{STORED, STORED_IN_FALLBACK, millis, secs, value};
use crate::config::Credentials;
use crate::link::Action;
use crate::machine::{Answer, EngineConfig, OperationError, Request, Source};
use crate::policy::{BreakerState, Jitter};

#[test]
fn breaker_opens_answers_from_memory_probes_and_closes() {
    let mut world = World::connected(|config| config.breaker.open_for = secs(10));
    assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED);
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(20));
    assert_eq!(world.engine.breaker().0, BreakerState::Open);

    // Open: answered at once, by memory, and without a command.
    let (begun, outputs) = (world.now, world.outputs.len());
    let age = match world.ask("k", Request::Get) {
        Ok(Answer::Value(Some(value), Source::Fallback { age })) if value == "v" => age,
        other => panic!("not from memory: {other:?}"),
    };
    assert!(age >= secs(20) && age < secs(21), "{age:?}");
    assert_eq!(world.ask("k", Request::Set { value: "w".into(), ttl: None }), STORED_IN_FALLBACK);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("w", true)));
    let deleted = Ok(Answer::Deleted(true, Source::Fallback { age: core::time::Duration::ZERO }));
    assert_eq!(world.ask("k", Request::Delete), deleted);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
    assert_eq!((world.now, world.outputs.len()), (begun, outputs));
    let counts = *world.engine.counts();
    assert_eq!((counts.unserved, counts.fallback_hits), (5, 2));
    assert_eq!((counts.fallback_misses, counts.fallback_writes, counts.errors), (1, 2, 0));

    // The server is back: a PING first, then a few, then all.
    world.net.refuse = false;
    let executed = world.server.executed.len();
    while world.engine.breaker().0 == BreakerState::Open {
        world.run_for(millis(1));
    }
    world.run_for(millis(100));
    assert_eq!(
        world.server.executed[executed..],
        ["PING", "EVAL"],
        "the delete of k is the first of the trial"
    );
    assert_eq!(world.engine.breaker().0, BreakerState::HalfOpen);
    for n in 0..2 {
        assert_eq!(world.engine.breaker().0, BreakerState::HalfOpen);
        assert_eq!(world.ask(&format!("trial {n}"), Request::Set { value: "v".into(), ttl: None }), STORED);
    }
    assert_eq!(world.engine.breaker().0, BreakerState::Closed);
    world.run_for(secs(1));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", false)), "the delete was carried out");
    assert_eq!(world.server.value("k"), None);
}

/// A server that was away long enough for the breaker to open, and has answered its probe.
fn on_trial() -> World {
    let mut world = World::connected(|_| {});
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(20));
    world.net.refuse = false;
    while world.engine.breaker().0 != BreakerState::HalfOpen {
        world.run_for(millis(100));
    }
    world.run_for(millis(1));
    world
}

#[test]
fn half_open_admits_exactly_n() {
    let mut world = on_trial();
    let executed = world.server.executed.len();
    let ids: std::vec::Vec<_> = (0..10).map(|n| world.set(&format!("k{n}"), "v")).collect();
    let from_memory = ids.iter().filter(|&&id| world.answer(id).is_some()).count();
    assert_eq!(from_memory, 7, "the others are answered from memory, at once");
    world.run_for(millis(10));
    assert_eq!(world.server.executed[executed..], ["SET", "SET", "SET", "EVAL"], "then the journal");
    assert_eq!(world.engine.breaker().0, BreakerState::Closed);
}

/// A permit that comes back without a verdict is given to the next: cancelling cannot wedge the breaker.
#[test]
fn cancelled_trials_do_not_wedge_the_breaker() {
    let mut world = on_trial();
    for _ in 0..20 {
        let id = world.set("k", "v");
        assert_eq!(world.answer(id), None, "it has a permit");
        world.cancel(id);
    }
    for n in 0..3 {
        assert_eq!(world.ask(&format!("k{n}"), Request::Set { value: "v".into(), ttl: None }), STORED);
    }
    assert_eq!(world.engine.breaker().0, BreakerState::Closed);
}

#[test]
fn a_failed_probe_keeps_the_breaker_open() {
    let mut world = World::connected(|config| config.breaker.open_for = secs(5));
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(300));
    let (state, trips) = world.engine.breaker();
    assert_eq!(state, BreakerState::Open);
    assert!((3..=8).contains(&trips), "the open time doubles: {trips}");
    (world.net.refuse, world.net.frozen) = (false, true); // It accepts, and is silent.
    world.run_for(secs(600));
    assert!(world.engine.breaker().1 > trips);
    assert!(!world.engine.is_ready(0));
    world.net.frozen = false;
    world.run_for(secs(700));
    assert_ne!(world.engine.breaker().0, BreakerState::Open);
}

#[test]
fn the_probe_does_not_wait_for_the_backoff() {
    let mut world = World::connected(|config| {
        config.breaker.failure_threshold = 1;
        config.breaker.open_for = secs(10);
        config.lane.reconnect.base = secs(3_600);
        config.lane.reconnect.cap = secs(3_600);
        config.lane.reconnect.jitter = Jitter::None;
    });
    world.reset();
    world.run_for(secs(8));
    assert_eq!((world.engine.breaker().0, world.engine.is_ready(0)), (BreakerState::Open, false));
    world.run_for(secs(4));
    assert_eq!((world.engine.breaker().0, world.engine.is_ready(0)), (BreakerState::HalfOpen, true));
    assert_eq!(world.server.executed, ["PING"]);
    assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED, "the trial has begun");
}

#[test]
fn a_server_that_is_still_loading_fails_the_probe() {
    let mut world = World::connected(|config| config.breaker.failure_threshold = 1);
    world.server.fail("PING", "LOADING Redis is loading the dataset in memory", usize::MAX);
    world.reset();
    world.run_for(secs(100));
    assert_eq!(world.engine.breaker(), (BreakerState::Open, 2));
    world.server.recover();
    world.run_for(secs(300));
    assert_ne!(world.engine.breaker().0, BreakerState::Open);
}

#[test]
fn a_bad_password_trips_at_once() {
    for known in [true, false] {
        let mut world = World::new(|config| {
            let credentials = Credentials { username: None, password: "wrong".into() };
            config.lane.handshake.credentials = known.then_some(credentials);
        });
        world.server.password = Some(b"right".to_vec());
        let id = world.set("k", "v");
        world.run_for(millis(1));
        assert_eq!(world.engine.breaker(), (BreakerState::Open, 1));
        assert_eq!(world.answer(id), Some(&STORED_IN_FALLBACK));
        assert_eq!(world.engine.lane_stats().dial_failures, 1);
    }
}

#[test]
fn a_password_is_accepted_by_new_and_old_servers() {
    for old in [false, true] {
        let mut world = World::new(|config| {
            config.lane.handshake.credentials =
                Some(Credentials { username: None, password: "right".into() });
            config.lane.handshake.database = 3;
        });
        world.net.piece = 1;
        (world.server.password, world.server.old) = (Some(b"right".to_vec()), old);
        assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED);
    }
}

/// A full server says so before it is asked anything, and hangs up.
#[test]
fn a_server_that_speaks_first_is_a_failed_dial() {
    for (said, state) in [
        ("-ERR max number of clients reached\r\n", BreakerState::Closed),
        ("-DENIED Redis is running in protected mode\r\n", BreakerState::Open),
        ("+hello\r\n", BreakerState::Closed),
        ("%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n", BreakerState::Closed),
    ] {
        for asked in [false, true] {
            let mut world = World::new(|_| {});
            assert_eq!(world.engine.poll_action(), Some((0, Action::Dial)));
            world.engine.handle_connected(world.now, 0);
            if asked {
                let _ = world.engine.poll_transmit(0, &mut std::vec![]);
            }
            let mut replies = std::vec::Vec::new();
            let mut decoder = crate::resp::Decoder::new(crate::resp::Limits::default());
            decoder.decode(&mut bytes::BytesMut::from(said), &mut replies).expect("replies");
            assert!(world.engine.handle_replies(world.now, 0, &mut replies).is_err(), "{said:?}");
            assert_eq!(world.engine.breaker().0, state, "{said:?}");
            assert_eq!(world.engine.poll_action(), Some((0, Action::HangUp)));
            assert_eq!(world.engine.lane_stats().dial_failures, 1);
        }
    }
}

#[test]
fn a_wrongtype_is_the_callers_and_counts_as_success() {
    let mut world = World::connected(|config| config.breaker.failure_threshold = 2);
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    for _ in 0..10 {
        // A failure before each: the breaker would open if the caller's mistakes did not count as success.
        world.server.fail("EXISTS", "LOADING", 3);
        world.ask("k", Request::Exists).expect("the tier answers");
        world.server.fail("GET", wrong, 1);
        let answered = world.ask("k", Request::Get);
        assert!(matches!(&answered, Err(OperationError::Server(error)) if format!("{error}") == wrong));
    }
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
    assert_eq!((world.engine.counts().errors, world.engine.counts().unserved), (10, 10));
    assert_eq!(world.engine.lane_stats().losses, 0);
}

#[test]
fn a_missing_right_to_ping_does_not_keep_the_breaker_open() {
    let mut world = World::connected(|_| {});
    world.server.fail("PING", "NOPERM this user has no permissions to run the 'ping' command", usize::MAX);
    world.server.fail("GET", "NOPERM this user has no permissions to run the 'get' command", 1);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
    assert_eq!(world.engine.breaker(), (BreakerState::Open, 1));
    world.run_for(secs(80));
    assert_ne!(world.engine.breaker().0, BreakerState::Open);
}

#[test]
fn an_outage_that_outlasts_the_backoff_is_dialled_less_and_less() {
    let mut world = World::new(|config| config.breaker.failure_threshold = u32::MAX);
    world.net.refuse = true;
    world.run_for(secs(3_600));
    let dials = world.outputs.iter().filter(|(.., output)| *output == Output::Action(Action::Dial)).count();
    assert!((60..=250).contains(&dials), "full jitter up to a minute: {dials}");
}

/// Looks at shares, and not at failures in a row.
fn counting(config: &mut EngineConfig) {
    config.breaker.failure_threshold = u32::MAX;
    config.breaker.failure_rate_percent = Some(50);
    config.breaker.slow_call_after = Some(millis(50));
    config.breaker.minimum_calls = 20;
    config.lane.retry.attempts = 1;
}

#[test]
fn every_other_failure_opens_a_breaker_that_looks_at_shares() {
    for counts in [true, false] {
        let mut world = World::connected(|config| {
            if counts {
                counting(config);
            }
        });
        world.server.fail("EXISTS", "LOADING", usize::MAX);
        for n in 0..10 {
            assert_eq!(world.engine.breaker().0, BreakerState::Closed, "{n}: too few calls");
            world.ask("k", Request::Exists).expect("the tier answers");
            world.ask("k", Request::Get).expect("the server answers");
        }
        assert_eq!(world.engine.breaker().0 == BreakerState::Open, counts);
    }
}

#[test]
fn a_slow_server_opens_a_breaker_that_looks_at_shares() {
    for (latency, state) in [(24, BreakerState::Closed), (25, BreakerState::Open)] {
        let mut world = World::connected(counting);
        world.net.latency = millis(latency); // Both ways.
        for n in 0..20 {
            assert_eq!(world.engine.breaker().0, BreakerState::Closed, "{n}: too few calls");
            assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", false)));
        }
        assert_eq!(world.engine.breaker().0, state);
    }
}

/// Who has waited for an answer until its deadline knows that the server is slow; who was cancelled does not.
#[test]
fn what_runs_out_of_time_on_the_wire_is_slow() {
    for (timeout, cancel, state) in [
        (40, false, BreakerState::Closed),
        (60, false, BreakerState::Open),
        (1_000, true, BreakerState::Closed),
    ] {
        let mut world = World::connected(|config| {
            counting(config);
            config.breaker.failure_rate_percent = None;
            config.operation_timeout = millis(timeout);
        });
        world.net.latency = millis(300);
        let ids: std::vec::Vec<_> = (0..20).map(|n| world.get(&format!("k{n}"))).collect();
        world.run_for(millis(60));
        if cancel {
            ids.into_iter().for_each(|id| world.cancel(id));
        }
        assert_eq!(world.engine.breaker().0, state, "{timeout} ms, cancelled: {cancel}");
    }
}

/// What waits for its turn or for a connection has not been waiting for the server.
#[test]
fn overload_of_a_healthy_server_is_not_slowness() {
    for lost in [false, true] {
        let mut world = World::connected(|config| {
            counting(config);
            config.lane.max_in_flight = if lost { 1_000 } else { 1 };
        });
        world.net.latency = millis(1);
        world.ask("warm", Request::Get).expect("the server is well");
        if lost {
            world.reset();
            world.settle();
        }
        let begun = world.now;
        let ids: std::vec::Vec<_> = (0..100).map(|n| world.set(&format!("k{n}"), "v")).collect();
        ids.into_iter().for_each(|id| assert_eq!(world.finish(id), STORED));
        assert!(world.now.saturating_since(begun) > millis(55), "or it was not put to the test");
        assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0), "lost: {lost}");
    }
}

#[test]
fn the_delay_before_another_attempt_is_not_slowness() {
    let mut world = World::connected(|config| {
        counting(config);
        config.lane.retry.attempts = 2;
    });
    for _ in 0..30 {
        world.server.fail("GET", "LOADING", 1);
        let begun = world.now;
        world.ask("k", Request::Get).expect("the second attempt succeeds");
        assert!(world.now.saturating_since(begun) > millis(50), "or nothing was tried again");
    }
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
}

/// One `CLIENT KILL` under load opens no breaker, whatever it looks at.
#[test]
fn one_lost_lane_is_one_call_of_the_window() {
    let mut world = World::connected(counting);
    (0..20).for_each(|_| assert!(world.ask("k", Request::Get).is_ok()));
    world.net.latency = millis(300);
    for n in 0..500 {
        world.get(&format!("k{n}"));
    }
    world.run_for(millis(100));
    world.reset();
    world.run_for(secs(2));
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
    assert_eq!((world.engine.lane_stats().losses, world.pending().count()), (1, 0));
}
