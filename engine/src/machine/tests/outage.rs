//! What is lost, what is tried again, and who waits for what, when the server is away or slow.

use std::format;
use std::string::String;
use std::vec::Vec;

use bytes::Bytes;

use super::kit::{Answered, World};
use super::{STORED, STORED_IN_FALLBACK, millis, secs, value};
use crate::link::Cause;
use crate::machine::{Answer, Failure, OperationError, Request, Source};
use crate::policy::{BreakerState, Executed};
use crate::resp::Reply;

const fn failed(cause: Cause, executed: Executed) -> Result<Answer, OperationError> {
    Err(OperationError::Failed(Failure { cause, executed }))
}

const SET: Request = Request::Set { value: Bytes::from_static(b"v"), ttl: None };

fn source(answered: &Answered) -> Option<Source> {
    match answered {
        Ok(Answer::Value(_, source) | Answer::Stored(source)) => Some(*source),
        Ok(Answer::Deleted(_, source) | Answer::Exists(_, source)) => Some(*source),
        _ => None,
    }
}

#[test]
fn starts_and_serves_with_redis_down() {
    for swallow in [false, true] {
        let mut world = World::new(|config| config.lane.connect_timeout = secs(1));
        (world.net.refuse, world.net.swallow) = (!swallow, swallow);
        let begun = world.now;
        assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED_IN_FALLBACK);
        assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", true)));
        assert!(world.now.saturating_since(begun) <= secs(1), "no longer than one dial");
        (world.net.refuse, world.net.swallow) = (false, false);
        world.run_for(secs(10));
        assert_eq!(world.ask("k", Request::Set { value: "w".into(), ttl: None }), STORED);
    }
}

#[test]
fn one_lost_lane_is_one_failure() {
    let mut world = World::connected(|config| config.breaker.failure_threshold = 2);
    world.ask("warm", Request::Get).expect("the server is well");
    let ids: Vec<_> = (0..64).map(|n| world.get(&format!("k{n}"))).collect();
    for n in 0..64 {
        world.server.put(&format!("k{n}"), "from the server");
    }
    world.run_for(world.net.latency / 2);
    assert_eq!(world.in_flight("k").0, 64);
    world.reset();
    for id in ids {
        assert_eq!(value(&world.finish(id)), Some(("from the server", false)));
    }
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
    let (stats, counts) = (world.engine.lane_stats(), world.engine.counts());
    assert_eq!((stats.losses, stats.retries), (1, 64));
    assert_eq!((counts.unserved, counts.fallback_hits, counts.fallback_misses), (0, 0, 0));
}

/// No command is executed twice unless nobody knows whether it was executed once.
#[test]
fn what_was_not_sent_is_sent_once() {
    let mut world = World::connected(|_| {});
    world.ask("warm", Request::Get).expect("the server is well");
    world.reset();
    world.settle();
    let ids: Vec<_> = (0..9).map(|n| world.set(&format!("k{n}"), "v")).collect();
    ids.into_iter().for_each(|id| assert_eq!(world.finish(id), STORED));
    assert_eq!((world.server.count("SET"), world.engine.lane_stats().retries), (9, 0));
}

/// One reply is swallowed, and operations come so seldom that none finds its answer in time, but often enough that the
/// connection is never silent.
#[test]
fn a_swallowed_reply_is_found_out() {
    for request in [Request::Get, Request::Exists, Request::Delete, SET] {
        let mut world = World::connected(|config| config.operation_timeout = secs(1));
        world.ask("warm", Request::Get).expect("the server is well");
        world.server.swallow = 1;
        let late = world.ask("k", request.clone());
        assert!(matches!(source(&late), Some(Source::Fallback { .. })), "{request:?}: {late:?}");
        for key in ["a", "b", "c"] {
            let answered = world.ask(key, request.clone());
            assert_eq!(source(&answered), Some(Source::Primary), "{request:?}: {answered:?}");
        }
        assert_eq!(world.engine.lane_stats().losses, 1, "{request:?}");
    }
}

/// A server may answer one command as no Redis does, and all others well.
#[test]
fn a_strange_reply_alone_costs_no_connection() {
    let mut world = World::connected(|_| {});
    world.server.swallow = 1;
    let id = world.get("k");
    world.settle();
    world.engine.handle_replies(world.now, 0, &mut Vec::from([Reply::Integer(1)])).expect("it was asked for");
    world.engine.wake();
    world.settle();
    assert_eq!(world.answer(id), Some(&Err(OperationError::Unexpected { command: "GET" })));
    world.run_for(secs(1));
    assert_eq!((world.engine.lane_stats().losses, world.server.count("PING")), (0, 1));
}

#[test]
fn a_silent_server_times_every_operation_out_and_counts_once_per_stall_timeout() {
    let mut world = World::connected(|config| {
        config.tier = None;
        config.operation_timeout = secs(1);
        config.lane.stall_timeout = secs(4);
        config.breaker.failure_threshold = 3;
    });
    world.net.frozen = true;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(world.get(&format!("k{n}")));
        world.run_for(millis(100));
        assert!(world.pending().all(|(_, begun)| world.now.saturating_since(begun) <= secs(1)));
    }
    // The first timed out after a second, the last in the fourth: all within one stall timeout, so one failure.
    world.run_for(millis(900));
    for id in ids {
        assert_eq!(world.answer(id), Some(&failed(Cause::TimedOut, Executed::Unknown)));
    }
    assert_eq!((world.engine.lane_stats().timeouts, world.engine.lane_stats().losses), (30, 0));
    world.run_for(millis(150)); // 4 s of silence: lost, which is the second.
    assert_eq!(world.engine.lane_stats().losses, 1);
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
}

#[test]
fn a_hanging_server_is_found_although_its_socket_takes_bytes() {
    let mut world = World::connected(|_| {});
    world.net.frozen = true;
    for _ in 0..25 {
        world.get("k");
        world.run_for(millis(100));
    }
    assert_eq!(world.engine.lane_stats().losses, 1);
}

#[test]
fn a_large_command_on_a_slow_network_is_no_stall() {
    let mut world = World::connected(|_| {});
    let operation =
        &mut world.engine.submit(b"k", Request::Set { value: Bytes::from(Vec::from([0; 9_000])), ttl: None });
    let mut bytes = Vec::new();
    assert!(world.engine.poll(world.now, operation, core::task::Waker::noop()).is_pending());
    let _ = world.engine.poll_transmit(0, &mut bytes);
    for _ in 0..9 {
        world.engine.handle_timeout(world.now);
        assert!(world.engine.is_ready(0));
        world.engine.handle_written(world.now, 0, 1_000);
        world.now = world.now.saturating_add(millis(1_900));
    }
}

/// Whatever callers do while the server is away, the engine holds no more than its bounds allow.
#[test]
fn outage_memory_is_flat() {
    let mut world = World::new(|config| {
        config.tier = None;
        config.lane.max_in_flight = 10;
        config.lane.max_in_flight_bytes = 2_000;
        config.lane.max_waiting = 20;
        config.lane.connect_timeout = secs(60);
    });
    world.net.swallow = true;
    let value = String::from_utf8(Vec::from([b'v'; 100])).expect("text");
    for n in 0..2_000_u32 {
        let id = world.set(&format!("k{n}"), &value);
        assert!(world.engine.live() <= 30);
        let (commands, bytes) = world.in_flight("k");
        assert!(commands <= 10 && bytes <= 2_000, "{commands} commands, {bytes} bytes");
        if n % 3 == 0 {
            world.cancel(id);
        }
        world.run_for(millis(u64::from(n % 20)));
    }
}

#[test]
fn overload_never_reaches_the_fallback() {
    let mut world = World::connected(|config| {
        config.lane.max_in_flight = 1;
        config.lane.max_waiting = 2;
        config.lane.stall_timeout = secs(60);
        config.operation_timeout = secs(1);
    });
    world.net.frozen = true;
    let sent = world.set("k", "sent");
    world.run_for(millis(500));
    let late = [world.set("k", "late"), world.get("k")];
    assert_eq!(world.ask("k", Request::Delete), Err(OperationError::Overloaded), "two wait already");
    assert_eq!(world.finish(sent), STORED_IN_FALLBACK, "a timeout is an outage");
    for id in late {
        let answered = world.finish(id);
        assert_eq!(answered, failed(Cause::Overloaded, Executed::No), "its tombstone keeps the place");
        assert!(answered.is_err_and(|error| error.is_overload() && error.is_timeout()));
    }
    let counts = world.engine.counts();
    assert_eq!((counts.fallback_writes, counts.unserved, counts.errors), (1, 1, 3));
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
}

#[test]
fn a_command_larger_than_all_that_may_be_in_flight_is_refused() {
    let mut world = World::connected(|config| config.lane.max_in_flight_bytes = 40);
    let answered = world.ask("k", Request::Set { value: Bytes::from_static(&[0; 40]), ttl: None });
    assert!(matches!(answered, Err(OperationError::TooLarge { max: 40, .. })), "{answered:?}");
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", false)));
}

#[test]
fn waiters_are_served_first_come_first_served() {
    for max_in_flight in 1..=3 {
        let mut world = World::connected(|config| config.lane.max_in_flight = max_in_flight);
        let ids: Vec<_> = (0..20).map(|n| world.set("k", &format!("{n}"))).collect();
        world.cancel(ids[10]); // One of those who wait leaves.
        for (n, id) in ids.into_iter().enumerate().filter(|(n, _)| *n != 10) {
            assert_eq!(world.finish(id), STORED);
            assert!(world.server.count("SET") <= n + max_in_flight);
        }
        assert_eq!((world.server.value("k"), world.server.count("SET")), (Some(&b"19"[..]), 19));
    }
}

#[test]
fn a_small_command_does_not_overtake_a_large_one_that_waits() {
    let mut world = World::connected(|config| config.lane.max_in_flight_bytes = 300);
    world.server.put("k", "v");
    let large = String::from_utf8(Vec::from([b'v'; 200])).expect("text");
    let ids = [world.set("k", &large), world.set("k", &large), world.set("k", "small")];
    assert_eq!(world.in_flight("k").0, 1);
    ids.into_iter().for_each(|id| assert_eq!(world.finish(id), STORED));
    assert_eq!(world.server.value("k"), Some(&b"small"[..]));
}

#[test]
fn nobody_waits_for_the_room_of_a_command_that_was_withdrawn() {
    let mut world = World::new(|config| config.lane.max_in_flight = 1);
    let staged = world.get("a"); // The connection is being made.
    let waits = world.get("b");
    world.cancel(staged);
    assert_eq!(value(&world.finish(waits)), Some(("(none)", false)));
}

/// More wait than may be in flight, and the connection is lost: each is told at once, not at its deadline.
#[test]
fn waiters_learn_that_the_server_is_away() {
    let mut world = World::connected(|config| config.lane.max_in_flight = 2);
    world.net.refuse = true;
    let ids: Vec<_> = (0..50).map(|n| world.set(&format!("k{n}"), "v")).collect();
    world.reset();
    world.run_for(secs(1)); // The first dial is given the benefit of the doubt.
    for id in ids {
        assert_eq!(world.answer(id), Some(&STORED_IN_FALLBACK));
    }
}

#[test]
fn nothing_is_ever_sent_where_nothing_may_be_in_flight() {
    let mut world = World::connected(|config| {
        config.lane.max_in_flight = 0;
        config.operation_timeout = millis(10);
    });
    assert_eq!(world.ask("k", Request::Get), failed(Cause::Overloaded, Executed::No));
}

#[test]
fn zero_durations_are_safe() {
    let mut world = World::new(|config| {
        config.operation_timeout = core::time::Duration::ZERO;
        config.lane.connect_timeout = core::time::Duration::ZERO;
        config.lane.stall_timeout = core::time::Duration::ZERO;
        config.lane.health_check_interval = core::time::Duration::ZERO;
        config.lane.retry.backoff.base = core::time::Duration::ZERO;
        config.breaker.open_for = core::time::Duration::ZERO;
        config.breaker.half_open_timeout = core::time::Duration::ZERO;
    });
    assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED_IN_FALLBACK);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", true)));
    world.run_for(secs(60));
}

#[test]
fn a_transient_error_is_retried_within_the_deadline() {
    let mut world = World::connected(|_| {});
    world.server.fail("GET", "LOADING Redis is loading the dataset in memory", 2);
    world.server.put("k", "v");
    let id = world.get("k");
    assert_eq!(value(&world.finish(id)), Some(("v", false)));
    assert_eq!(world.wakes(id), 3, "once for each attempt that is due, and for the answer");
    assert_eq!(world.engine.lane_stats().retries, 2);
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));

    world.server.fail("GET", "LOADING", usize::MAX);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", true)), "three attempts, then the mirror");
    assert_eq!(world.engine.lane_stats().retries, 4);
}

#[test]
fn readonly_redials_and_retries_once() {
    let mut world = World::connected(|_| {});
    world.server.fail("SET", "READONLY You can't write against a read only replica.", 1);
    assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED);
    let stats = world.engine.lane_stats();
    assert_eq!((stats.connects, stats.losses, stats.retries), (2, 0, 1));

    // Those in flight with it are answered before the connection is replaced.
    world.server.fail("SET", "READONLY", 2);
    let (write, read) = (world.set("k", "w"), world.get("k"));
    assert_eq!(value(&world.finish(read)), Some(("v", false)));
    assert_eq!(world.finish(write), STORED_IN_FALLBACK, "the second attempt met a replica too");
    let stats = world.engine.lane_stats();
    assert_eq!((stats.losses, stats.retries), (0, 2));
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
}

/// A server that stays read-only costs no more connections than the backoff allows.
#[test]
fn a_replica_is_not_dialled_for_every_write() {
    let mut world = World::connected(|config| config.breaker.failure_threshold = u32::MAX);
    world.server.fail("SET", "READONLY", usize::MAX);
    for n in 0..200 {
        world.set(&format!("k{n}"), "v");
        world.get(&format!("k{n}"));
        world.run_for(millis(50));
    }
    assert!(world.engine.lane_stats().connects < 60, "{:?}", world.engine.lane_stats());
}

#[test]
fn lost_connection_says_which_commands_were_sent() {
    let mut world = World::connected(|config| {
        config.tier = None;
        config.lane.retry.attempts = 1;
    });
    world.ask("warm", Request::Get).expect("the server is well");
    let len = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n".len();
    for written in 0..=2 * len {
        world.run_for(secs(1));
        let waker = core::task::Waker::noop();
        let set = |value: &'static str| Request::Set { value: value.into(), ttl: None };
        let mut operations = [world.engine.submit(b"a", set("1")), world.engine.submit(b"a", set("2"))];
        for operation in &mut operations {
            assert!(world.engine.poll(world.now, operation, waker).is_pending());
        }
        let mut bytes = Vec::new();
        let _ = world.engine.poll_transmit(0, &mut bytes); // Lingers once.
        let _ = world.engine.poll_transmit(0, &mut bytes);
        assert_eq!(bytes.len(), 2 * len);
        world.engine.handle_written(world.now, 0, written);
        world.reset();
        world.settle();
        for (nth, operation) in operations.iter_mut().enumerate() {
            let executed = if written >= (nth + 1) * len { Executed::Unknown } else { Executed::No };
            let answered = world.engine.poll(world.now, operation, waker);
            assert_eq!(answered, core::task::Poll::Ready(failed(Cause::ConnectionLost, executed)));
        }
        world.run_for(secs(1));
        world.ask("warm", Request::Get).expect("the server is back");
    }
}

#[test]
fn several_lanes_share_the_keys() {
    let mut world = World::connected(|config| config.lanes = 4);
    for n in 0..100 {
        let key = format!("k{n}");
        let (set, get) = (world.set(&key, "v"), world.get(&key));
        assert_eq!((world.finish(set), value(&world.finish(get))), (STORED, Some(("v", false))));
    }
    assert_eq!(world.engine.lane_stats().connects, 4);
    assert_eq!(world.ask("server", Request::Exists), Ok(Answer::Exists(false, Source::Primary)));
}
