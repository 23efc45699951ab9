//! The promises of the crate's first page.

use core::time::Duration;
use std::format;
use std::vec;
use std::vec::Vec;

use super::kit::{Output, World};
use super::{STORED, millis, secs, value};
use crate::link::{Action, Cause, Transmit};
use crate::machine::{Answer, Failure, OperationError, Request, Source};
use crate::policy::Executed;
use crate::time::Instant;

#[test]
fn every_request_is_answered() {
    let mut world = World::connected(|_| {});
    assert_eq!(world.ask("k", Request::Get), Ok(Answer::Value(None, Source::Primary)));
    assert_eq!(world.ask("k", Request::Exists), Ok(Answer::Exists(false, Source::Primary)));
    assert_eq!(world.ask("k", Request::Delete), Ok(Answer::Deleted(false, Source::Primary)));
    let ttl = Some(millis(50));
    assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl }), STORED);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", false)));
    assert_eq!(world.ask("k", Request::Exists), Ok(Answer::Exists(true, Source::Primary)));
    world.run_for(millis(50));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", false)));
    assert_eq!(world.ask("k", Request::Set { value: "w".into(), ttl: None }), STORED);
    assert_eq!(world.ask("k", Request::Delete), Ok(Answer::Deleted(true, Source::Primary)));
    assert!(matches!(world.ask("server", Request::Info), Ok(Answer::Reply(_))));

    let counts = *world.engine.counts();
    assert_eq!((counts.operations, counts.hits, counts.misses), (9, 1, 2), "INFO is not counted");
    assert_eq!((counts.sets, counts.deletes, counts.errors, counts.unserved), (2, 2, 0, 0));
}

#[test]
fn timeout_always_moves_past_now() {
    // Each state with a timer: dialling, handshaking, waiting, ready with and without commands, draining, delayed,
    // waiting for room, and each state of the breaker. The kit checks after every call; here the calls also come early,
    // late, and with a clock that goes backwards.
    for trouble in 0..6 {
        let mut world = World::new(|config| config.lane.max_in_flight = 2);
        match trouble {
            0 => world.net.swallow = true,
            1 => world.net.refuse = true,
            2 => world.net.frozen = true,
            3 => world.server.fail("GET", "LOADING", usize::MAX),
            4 => world.server.password = Some("secret".into()),
            _ => {}
        }
        for _ in 0..5 {
            world.get("k");
        }
        for step in 0..200_u64 {
            world.run_for(millis(step * 37 % 1_000));
            for now in [Instant::EPOCH, world.now, world.now.saturating_add(Duration::from_nanos(step))] {
                world.engine.handle_timeout(now);
                assert!(world.engine.poll_timeout().is_none_or(|next| next > now));
            }
            if step == 150 {
                let until = world.now.saturating_add(secs(1));
                world.engine.close(world.now, until);
            }
            if step % 10 == 0 {
                world.get("k");
            }
        }
    }
}

#[test]
fn the_end_of_time_is_survived() {
    let mut world = World::connected(|_| {});
    world.get("k");
    world.net.frozen = true;
    world.get("k");
    for now in [Instant::from_nanos(u64::MAX - 3), Instant::from_nanos(u64::MAX - 2), Instant::NEVER] {
        world.engine.handle_timeout(now);
        assert!(
            world.engine.poll_timeout().is_none_or(|next| next > now),
            "{:?} at {now:?}",
            world.engine.poll_timeout()
        );
        let operation = world.engine.submit(b"k", Request::Get);
        world.engine.cancel(now, operation);
    }
    assert_eq!(world.engine.poll_timeout(), None);
}

#[test]
fn random_call_order() {
    for seed in 0..50 {
        let mut world = World::with_seed(seed, |config| config.lanes = 3);
        world.shuffled = true;
        world.net.piece = 5;
        let ids: Vec<_> = (0..20).map(|n| (n, world.set(&format!("k{n}"), &format!("v{n}")))).collect();
        for (n, id) in ids {
            assert_eq!(world.finish(id), STORED);
            assert_eq!(value(&world.ask(&format!("k{n}"), Request::Get)), Some((&*format!("v{n}"), false)));
        }
    }
}

#[test]
fn same_seed_same_outputs() {
    let run = |seed| {
        let mut world = World::with_seed(seed, |_| {});
        world.net.piece = 7;
        for n in 0..30 {
            world.set(&format!("k{n}"), "v");
            world.run_for(millis(n * 40));
            if n % 7 == 3 {
                world.reset();
                world.net.refuse = n > 20;
            }
        }
        world.run_for(secs(100));
        (world.outputs, *world.engine.counts())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0, "or the comparison says nothing");
}

#[test]
fn idle_poll_is_flat() {
    let mut world = World::connected(|_| {});
    let timeouts = world.timeouts;
    world.run_for(secs(3_600));
    assert_eq!(
        world.server.executed.len(),
        3_600 / 30 - 1,
        "pings, and nothing else: {:?}",
        world.server.executed
    );
    assert_eq!(world.server.count("PING"), world.server.executed.len());
    assert_eq!(world.timeouts - timeouts, world.server.executed.len(), "one timeout each");
}

#[test]
fn idle_lane_is_pinged() {
    let mut world = World::connected(|config| config.lane.health_check_interval = secs(3));
    world.run_for(secs(10));
    assert_eq!(world.server.count("PING"), 3);
    world.net.frozen = true;
    world.run_for(secs(5) + millis(100));
    assert_eq!(world.engine.lane_stats().losses, 1, "an unanswered ping is a stall");
}

#[test]
fn busy_lane_is_never_pinged() {
    let mut world = World::connected(|config| config.lane.health_check_interval = secs(3));
    for _ in 0..100 {
        world.ask("k", Request::Get).expect("the server is well");
        world.run_for(secs(2));
    }
    assert_eq!(world.server.count("PING"), 0);
}

/// A command that is sent after a quiet time has the whole stall timeout, not what is left of one.
#[test]
fn silence_before_a_command_is_no_stall() {
    let mut world = World::connected(|_| {});
    world.run_for(secs(20));
    let operation = &mut world.engine.submit(b"k", Request::Get);
    let waker = core::task::Waker::noop();
    assert!(world.engine.poll(world.now, operation, waker).is_pending());
    assert_eq!(world.engine.poll_transmit(0, &mut vec![]), Transmit::Ready);
    world.engine.handle_timeout(world.now);
    assert!(world.engine.is_ready(0));
}

/// A caller is woken when there is something for it to do, and at no other time.
#[test]
fn sim_only_wakes_when_told() {
    let mut world = World::connected(|config| config.lane.max_in_flight = 2);
    let ids = [world.get("a"), world.get("b"), world.get("c")];
    world.settle();
    assert_eq!(ids.map(|id| world.wakes(id)), [0, 0, 0], "being sent is no news");
    ids.into_iter().for_each(|id| assert!(world.finish(id).is_ok()));
    assert_eq!(ids.map(|id| world.wakes(id)), [1, 1, 2], "an answer each, and a turn for who had to wait");
    world.run_for(secs(100));
    assert_eq!(ids.map(|id| world.wakes(id)), [1, 1, 2]);
}

/// A driver that does not write leaves commands staged; when they run out of time, the link is idle, and long since.
#[test]
fn a_link_left_idle_by_timeouts_has_no_timer_in_the_past() {
    let mut world = World::connected(|config| config.operation_timeout = secs(100));
    let operation = &mut world.engine.submit(b"k", Request::Get);
    assert!(world.engine.poll(world.now, operation, core::task::Waker::noop()).is_pending());
    let deadline = world.engine.poll_timeout().expect("its deadline");
    world.engine.handle_timeout(deadline);
    assert!(world.engine.poll_timeout().is_none_or(|next| next > deadline));
}

#[test]
fn late_reply_is_not_given_to_the_next_caller() {
    let reply = b"$7\r\nvalue-a\r\n".len() as u64;
    for byte in 0..=reply + 1 {
        let mut world = World::connected(|config| config.tier = None);
        world.server.put("a", "value-a");
        world.server.put("b", "value-b");
        world.net.trickle = Duration::from_micros(1);
        let late = world.get("a");
        // Both ways through the network, and `byte` bytes of the reply.
        world.run_for(2 * world.net.latency + Duration::from_micros(byte) - Duration::from_nanos(500));
        assert_eq!(world.answer(late).is_some(), byte >= reply, "{byte} bytes have arrived");
        world.cancel(late);
        let next = world.get("b");
        assert_eq!(value(&world.finish(next)), Some(("value-b", false)), "cancelled at byte {byte}");
        assert_eq!(world.in_flight("a"), (0, 0));
    }
}

#[test]
fn late_reply_after_a_timeout_is_given_to_nobody() {
    let mut world = World::connected(|config| {
        config.tier = None;
        config.operation_timeout = millis(100);
    });
    world.server.put("a", "value-a");
    world.server.put("b", "value-b");
    world.net.frozen = true;
    let timed_out = Failure { cause: Cause::TimedOut, executed: Executed::Unknown };
    assert_eq!(world.ask("a", Request::Get), Err(OperationError::Failed(timed_out)));
    assert_eq!(world.in_flight("a").0, 2, "a tombstone, and the PING that asks whether it will be filled");
    world.net.frozen = false;
    assert_eq!(value(&world.ask("b", Request::Get)), Some(("value-b", false)));
    assert_eq!(world.engine.lane_stats().losses, 0);
}

#[test]
fn reconnect_starts_with_an_empty_pipeline() {
    let mut world = World::connected(|config| config.tier = None);
    world.server.put("a", "value-a");
    world.server.put("b", "value-b");
    world.ask("a", Request::Get).expect("the server is well");
    world.net.frozen = true;
    let lost = world.get("a");
    world.run_for(millis(1));
    world.cancel(lost); // Its tombstone must not outlive the connection.
    world.reset();
    world.settle();
    assert_eq!(world.in_flight("a"), (0, 0));
    world.net.frozen = false;
    assert_eq!(value(&world.ask("b", Request::Get)), Some(("value-b", false)));
}

/// What the server announces between replies, and before them, is nobody's reply.
#[test]
fn pushes_are_given_to_nobody() {
    let mut world = World::new(|_| {});
    for announced in [true, false, true] {
        if announced {
            world.server.announce = b">2\r\n+invalidate\r\n+k\r\n".to_vec();
        }
        world.set("k", "v");
        assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", false)));
        world.say(b">1\r\n+hello\r\n");
        world.run_for(millis(1));
    }
    assert_eq!((world.engine.lane_stats().losses, world.engine.lane_stats().connects), (0, 1));
}

#[test]
fn an_unmatched_or_malformed_reply_closes_that_connection_and_no_other() {
    for nonsense in [&b"+OK\r\n"[..], b"?what\r\n", b"$-7\r\n"] {
        let mut world = World::connected(|config| config.lanes = 2);
        world.say(nonsense); // On both lanes.
        world.run_for(millis(1));
        assert_eq!(world.engine.lane_stats().losses, 2);
        world.run_for(secs(2));
        assert_eq!(world.engine.lane_stats().connects, 4);
        let mut replies = vec![crate::resp::Reply::Null];
        assert!(world.engine.handle_replies(world.now, 1, &mut replies).is_err());
        assert!(replies.is_empty());
        assert_eq!((world.engine.is_ready(0), world.engine.is_ready(1)), (true, false));
    }
}

#[test]
fn close_drains_then_hangs_up() {
    let mut world = World::connected(|config| config.lane.max_in_flight = 2);
    let (first, second, waits) = (world.set("a", "1"), world.set("b", "2"), world.set("c", "3"));
    world.run_for(Duration::from_micros(50));
    world.engine.close(world.now, Instant::NEVER);
    world.engine.wake();
    assert_eq!(world.finish(waits), Err(OperationError::Closed), "it was not even sent");
    assert_eq!(world.ask("d", Request::Get), Err(OperationError::Closed), "nothing new is taken");
    assert!(!world.engine.is_closed());
    assert_eq!((world.finish(first), world.finish(second)), (STORED, STORED));
    assert!(world.engine.is_closed());
    assert_eq!(world.outputs.last().map(|(.., output)| output), Some(&Output::Action(Action::HangUp)));
    assert_eq!((world.engine.live(), world.engine.poll_timeout()), (0, None));
}

/// Closing in each state ends everything, at the latest when it is told to.
#[test]
fn close_ends_in_every_state() {
    for state in
        ["dialling", "handshaking", "waiting", "ready", "in flight", "delayed", "cancelled", "demoted"]
    {
        let mut world = World::new(|config| config.tier = None);
        match state {
            "dialling" => world.net.swallow = true,
            "handshaking" => (world.net.swallow, world.net.frozen) = (false, true),
            "waiting" => world.net.refuse = true,
            "delayed" => world.server.fail("SET", "LOADING", usize::MAX),
            "demoted" => world.server.fail("SET", "READONLY", usize::MAX),
            _ => {}
        }
        world.run_for(millis(10));
        let id = world.set("k", "v");
        match state {
            "in flight" => world.net.frozen = true,
            "delayed" | "demoted" => world.run_for(millis(5)),
            "cancelled" => {
                world.set("l", "v");
                world.cancel(id);
            }
            _ => {}
        }
        if state == "ready" {
            world.run_for(millis(5));
        }
        world.engine.close(world.now, Instant::NEVER);
        world.engine.wake();
        world.run_for(secs(5));
        assert!(world.engine.is_closed(), "{state}");
        assert_eq!(world.engine.live(), world.pending().count(), "{state}");
        assert_eq!(world.pending().count(), 0, "{state}");
        assert_eq!(world.engine.poll_timeout(), None, "{state}");
    }
}

#[test]
fn cancelling_the_last_commands_of_a_closing_lane_closes_it() {
    let mut world = World::connected(|_| {});
    let id = world.get("k"); // Staged, and not written yet.
    world.engine.close(world.now, Instant::NEVER);
    world.cancel(id);
    assert!(world.engine.is_closed());
}

#[test]
fn the_deadline_of_a_cancelled_operation_is_forgotten() {
    let mut world = World::connected(|config| config.lane.max_in_flight = 1);
    world.net.frozen = true;
    let sent = world.get("a");
    let waits = world.get("b");
    world.settle();
    let stall = world.engine.poll_timeout();
    world.cancel(waits);
    world.cancel(sent);
    assert_eq!(world.engine.poll_timeout(), stall, "the silence is still watched");
    world.net.frozen = false;
    world.run_for(millis(10));
    let interval = world.engine.poll_timeout().expect("a health check").saturating_since(world.now);
    assert!(interval > secs(29), "{interval:?}");
}

#[test]
fn a_cancelled_command_that_was_not_written_is_never_sent() {
    let mut world = World::new(|_| {});
    let ids = ["a", "b", "c"].map(|key| world.set(key, "v"));
    world.cancel(ids[1]); // The connection is not even made.
    assert_eq!((world.finish(ids[0]), world.finish(ids[2])), (STORED, STORED));
    assert_eq!((world.server.value("b"), world.server.count("SET")), (None, 2));
}
