//! What the fallback tier holds, and what it must not.

use core::task::{Poll, Waker};
use std::format;
use std::vec::Vec;

use super::kit::{Id, World};
use super::{STORED, STORED_IN_FALLBACK, millis, secs, value};
use crate::link::Cause;
use crate::machine::{Answer, Cleared, Failure, OperationError, Reconcile, Request, Source};
use crate::policy::{BreakerState, Executed, Jitter};

/// Takes the server away and waits for the breaker to open.
fn take_away(world: &mut World) {
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(20));
    assert_eq!(world.engine.breaker().0, BreakerState::Open);
}

#[test]
fn capacity_errors_refuse_writes_and_do_not_fall_back() {
    for line in ["OOM command not allowed when used memory > 'maxmemory'.", "MISCONF", "NOREPLICAS"] {
        let mut world = World::connected(|config| config.breaker.failure_threshold = 1);
        assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl: None }), STORED);
        world.server.fail("SET", line, 1);
        let answered = world.ask("k", Request::Set { value: "w".into(), ttl: None });
        assert!(matches!(answered, Err(OperationError::Server(_))), "{answered:?}");
        assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", false)));
        assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
        assert_eq!((world.engine.counts().fallback_writes, world.engine.counts().errors), (0, 1));
        assert_eq!(world.engine.lane_stats().retries, 0);
    }
}

/// A read and a write of one key, begun, answered and looked at in every order: what the tier then holds was never
/// overtaken by the write.
#[test]
fn mirrors_are_fenced_against_own_writes() {
    // Steps of the read (r) and the write (w): each begins, then is looked at when both replies may have come.
    for order in ["rRwW", "rwRW", "rwWR", "wWrR", "wrWR", "wrRW"] {
        for delete in [false, true] {
            let mut world = World::connected(|_| {});
            world.server.put("k", "old");
            let (mut read, mut write): (Option<Id>, Option<Id>) = (None, None);
            for step in order.chars() {
                match step {
                    'r' => read = Some(world.get("k")),
                    'w' if delete => write = Some(world.submit("k", Request::Delete)),
                    'w' => write = Some(world.set("k", "new")),
                    // Replies come for both, but only one caller looks.
                    'R' => world.look_only_at(read.expect("begun")),
                    _ => world.look_only_at(write.expect("begun")),
                }
            }
            assert!(world.pending().next().is_none(), "{order}");
            let now = world.now;
            let held = world.tier(|tier| tier.get(now, b"k"));
            let held = held.and_then(|found| found.value);
            let new = (!delete).then_some(&b"new"[..]);
            assert!(held.is_none() || held.as_deref() == new, "{order}, delete: {delete}: {held:?}");
            if order == "rRwW" {
                assert_eq!(held.as_deref(), new, "a write alone is mirrored");
            }
        }
    }
}

/// Nobody knows what a write did that was cancelled or lost: its key has no mirror afterwards.
#[test]
fn writes_of_unknown_outcome_leave_no_mirror() {
    let mut world = World::connected(|_| {});
    assert_eq!(world.ask("k", Request::Set { value: "old".into(), ttl: None }), STORED);
    world.net.frozen = true;
    let write = world.set("k", "new");
    world.run_for(millis(1));
    let read = world.get("k"); // It may be answered by a server on which the write is executed later.
    world.cancel(write);
    world.net.frozen = false;
    assert!(world.finish(read).is_ok());
    let now = world.now;
    assert_eq!(world.tier(|tier| tier.get(now, b"k")), None);
}

/// The same for a write whose first attempt was lost, and whose second never got its turn.
#[test]
fn a_lost_write_that_is_then_overload_leaves_no_mirror() {
    let mut world = World::connected(|config| {
        config.operation_timeout = secs(1);
        config.lane.max_in_flight = 1;
        config.lane.stall_timeout = secs(60);
        config.lane.reconnect.base = millis(1);
        config.lane.reconnect.cap = millis(1);
        config.lane.retry.backoff.base = millis(400);
        config.lane.retry.backoff.jitter = Jitter::None;
    });
    world.server.put("k", "old");
    world.ask("warm", Request::Get).expect("the server is well");
    let write = world.set("k", "new");
    world.settle();
    world.reset();
    world.run_for(millis(5));
    world.net.frozen = true;
    world.get("in its place");
    world.run_for(millis(600));
    let read = world.get("k");
    let failure = Failure { cause: Cause::Overloaded, executed: Executed::Unknown };
    assert_eq!(world.finish(write), Err(OperationError::Failed(failure)));
    world.net.frozen = false;
    assert_eq!(value(&world.finish(read)), Some(("old", false)));
    let now = world.now;
    assert_eq!(world.tier(|tier| tier.get(now, b"k")), None);
}

/// What was written here in one outage is not what answers in the next.
#[test]
fn discarded_writes_end_with_their_outage() {
    let mut world = World::connected(|config| {
        config.tier.as_mut().expect("on by default").reconcile = Reconcile::Discard;
    });
    take_away(&mut world);
    world.ask("k", Request::Set { value: "local".into(), ttl: None }).expect("the tier accepts it");
    world.net.refuse = false;
    world.run_for(secs(100)); // Half-open, and nobody fails the trial.
    assert_eq!(world.engine.breaker().0, BreakerState::Closed);
    take_away(&mut world);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
}

#[test]
fn a_mirror_is_never_served_beyond_its_age() {
    let mut world = World::connected(|config| {
        config.tier.as_mut().expect("on by default").max_staleness = secs(60);
    });
    world.server.put("k", "v");
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", false)));
    let confirmed = world.now;
    take_away(&mut world);
    world.run_until(confirmed.saturating_add(secs(60) - millis(1)));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", true)));
    world.run_for(millis(1));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
}

/// A caller may be busy elsewhere when its operation fails: the age of the answer counts until it looks.
#[test]
fn a_mirror_grows_old_while_its_caller_looks_away() {
    for (looked_after, expected) in [(secs(60) - millis(1), "v"), (secs(60), "(none)")] {
        let mut world = World::connected(|config| {
            config.tier.as_mut().expect("on by default").max_staleness = secs(60);
        });
        world.server.put("k", "v");
        assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", false)));
        let (mirrored, engine, waker) = (world.now, &mut world.engine, Waker::noop());
        let mut operation = engine.submit(b"k", Request::Get);
        assert!(engine.poll(mirrored, &mut operation, waker).is_pending());
        engine.handle_timeout(mirrored.saturating_add(secs(5)));
        match engine.poll(mirrored.saturating_add(looked_after), &mut operation, waker) {
            Poll::Ready(answered) => assert_eq!(value(&answered), Some((expected, true)), "{looked_after:?}"),
            Poll::Pending => panic!("it has timed out"),
        }
    }
}

/// A caller may be busy elsewhere when Redis answers: the copy is as old as the answer.
#[test]
fn a_mirror_is_as_old_as_the_answer_it_was_made_of() {
    for (age, expected) in [(secs(60) - millis(1), "v"), (secs(60), "(none)")] {
        let mut world = World::connected(|config| {
            config.tier.as_mut().expect("on by default").max_staleness = secs(60);
        });
        world.server.put("k", "v");
        let (engine, waker) = (&mut world.engine, Waker::noop());
        let mut operation = engine.submit(b"k", Request::Get);
        assert!(engine.poll(world.now, &mut operation, waker).is_pending());
        world.settle();
        world.run_for(2 * world.net.latency);
        let answered = world.now;
        world.run_for(secs(20));
        // Something else happens on the lane before the caller looks.
        assert_eq!(value(&world.ask("other", Request::Get)), Some(("(none)", false)));
        match world.engine.poll(world.now, &mut operation, waker) {
            Poll::Ready(answered) => assert_eq!(value(&answered), Some(("v", false))),
            Poll::Pending => panic!("the server has answered"),
        }
        world.net.refuse = true;
        world.reset();
        world.run_until(answered.saturating_add(age));
        assert_eq!(value(&world.ask("k", Request::Get)), Some((expected, true)), "after {age:?}");
    }
}

#[test]
fn a_full_tier_refuses_and_says_so() {
    let mut world = World::connected(|config| {
        config.tier.as_mut().expect("on by default").max_journal_entries = 1;
    });
    take_away(&mut world);
    let set = |value: &'static str| Request::Set { value: value.into(), ttl: None };
    assert!(world.ask("a", set("1")).is_ok());
    assert!(matches!(world.ask("b", set("2")), Err(OperationError::FallbackFull(_))));
    assert!(world.ask("a", set("3")).is_ok());
    assert_eq!(value(&world.ask("a", Request::Get)), Some(("3", true)));
    assert_eq!(value(&world.ask("b", Request::Get)), Some(("(none)", true)));
    assert_eq!((world.engine.counts().fallback_writes, world.engine.counts().errors), (2, 1));
}

#[test]
fn without_a_tier_an_outage_is_an_error() {
    let mut world = World::connected(|config| config.tier = None);
    take_away(&mut world);
    assert_eq!(world.ask("k", Request::Get), Err(OperationError::BreakerOpen));
    assert_eq!(world.clear("n"), Err(OperationError::BreakerOpen));
    let counts = world.engine.counts();
    assert_eq!((counts.operations, counts.errors, counts.unserved), (2, 2, 2));
}

#[test]
fn clear_touches_only_its_namespace() {
    for namespace in ["n", "n*", "a[b]", "?"] {
        let mut world = World::connected(|_| {});
        let others = ["n", "nn:1", "m:n:1", "n?:1", "ab:1", ":1", "a:1"];
        others.iter().for_each(|key| world.server.put(key, "other"));
        for n in 0..7 {
            let key = format!("{namespace}:{n}");
            assert_eq!(world.ask(&key, Request::Set { value: "v".into(), ttl: None }), STORED);
        }
        world.server.put(&format!("{namespace}:by somebody else"), "v");
        assert_eq!(world.clear(namespace), Ok(Cleared { removed: 8, source: Source::Primary }));
        let left: Vec<_> =
            world.server.data.keys().map(|key| core::str::from_utf8(key).expect("text")).collect();
        let mut others = others.to_vec();
        others.sort_unstable();
        assert_eq!(left, others);
        assert_eq!(world.tier(|tier| tier.size()), (0, 0), "mirrors go too");
        assert_eq!(world.engine.counts().operations, 7 + 1, "a clear is one operation");
    }
}

#[test]
fn a_clear_during_an_outage_is_the_tiers() {
    let mut world = World::connected(|_| {});
    for key in ["n:1", "n:2", "m:1"] {
        assert_eq!(world.ask(key, Request::Set { value: "v".into(), ttl: None }), STORED);
    }
    take_away(&mut world);
    world.ask("n:3", Request::Set { value: "v".into(), ttl: None }).expect("the tier accepts it");
    let before = *world.engine.counts();
    let source = Source::Fallback { age: core::time::Duration::ZERO };
    assert_eq!(world.clear("n"), Ok(Cleared { removed: 3, source }));
    let counts = *world.engine.counts();
    assert_eq!(counts.operations - before.operations, 1);
    assert_eq!((counts.fallback_writes - before.fallback_writes, counts.errors), (1, 0));
    assert_eq!(counts.unserved - before.unserved, 1);
    assert_eq!(value(&world.ask("n:1", Request::Get)), Some(("(none)", true)));
    assert_eq!(value(&world.ask("m:1", Request::Get)), Some(("v", true)));
}

#[test]
fn a_clear_ends_with_the_servers_error_where_that_is_the_callers() {
    let mut world = World::connected(|_| {});
    world.server.put("n:1", "v");
    world.server.fail("UNLINK", "WRONGTYPE whatever", 1);
    assert!(matches!(world.clear("n"), Err(OperationError::Server(_))));
    let counts = world.engine.counts();
    assert_eq!((counts.operations, counts.errors, counts.unserved), (1, 1, 0));
}

#[test]
fn a_cancelled_clear_stops() {
    let mut world = World::connected(|_| {});
    (0..100).for_each(|n| world.server.put(&format!("n:{n}"), "v"));
    world.ask("n:0", Request::Get).expect("the server is well");
    let id = world.begin_clear("n");
    world.run_for(millis(1));
    world.cancel(id);
    assert_eq!(world.tier(|tier| tier.size()), (0, 0), "what was removed has no mirror");
    world.run_for(secs(1));
    let left = world.server.data.len();
    assert!((1..100).contains(&left), "{left} keys are left");
    assert_eq!((world.engine.live(), world.in_flight("")), (0, (0, 0)));
    assert_eq!(value(&world.ask("n:1", Request::Get)).map(|(_, fallback)| fallback), Some(false));
}

#[test]
fn a_read_during_a_clear_leaves_no_mirror() {
    let mut world = World::connected(|_| {});
    (0..100).for_each(|n| world.server.put(&format!("n:{n:02}"), "v"));
    let clear = world.begin_clear("n");
    world.run_for(millis(1));
    assert_eq!(value(&world.ask("n:99", Request::Get)), Some(("v", false)), "not removed yet");
    assert_eq!(world.tier(|tier| tier.size().0), 1);
    world.run_for(secs(1));
    assert!(world.pending().all(|(id, _)| id != clear), "it has ended");
    assert_eq!((world.server.data.len(), world.tier(|tier| tier.size())), (0, (0, 0)));
}

#[test]
fn an_expired_value_does_not_come_back_in_an_outage() {
    let mut world = World::connected(|_| {});
    let ttl = Some(secs(30));
    assert_eq!(world.ask("k", Request::Set { value: "v".into(), ttl }), STORED);
    let set_at = world.now;
    take_away(&mut world);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("v", true)));
    world.run_until(set_at.saturating_add(secs(30)));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
    assert_eq!(
        world.ask("k", Request::Exists),
        Ok(Answer::Exists(false, Source::Fallback { age: core::time::Duration::ZERO }))
    );
}

/// The same for a write whose first attempt was executed, and whose second was refused.
#[test]
fn a_lost_write_that_is_then_refused_leaves_no_mirror() {
    for line in ["OOM", "WRONGTYPE"] {
        let mut world = World::connected(|_| {});
        assert_eq!(world.ask("k", Request::Set { value: "old".into(), ttl: None }), STORED);
        let write = world.set("k", "new");
        world.run_for(world.net.latency); // Executed; the answer is under way.
        world.reset();
        world.server.fail("SET", line, 1);
        let answered = world.finish(write);
        assert!(matches!(answered, Err(OperationError::Server(_))), "{answered:?}");
        assert_eq!(value(&world.ask("k", Request::Get)), Some(("new", false)));
        take_away(&mut world);
        assert_eq!(value(&world.ask("k", Request::Get)), Some(("new", true)), "{line}");
    }
}

/// An outage that is over before the breaker opens is one all the same.
#[test]
fn discarded_writes_of_a_short_outage_do_not_outlive_it() {
    let mut world = World::connected(|config| {
        config.breaker.failure_threshold = 1_000;
        config.tier.as_mut().expect("on by default").reconcile = Reconcile::Discard;
    });
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(5));
    assert_eq!(world.ask("k", Request::Set { value: "local".into(), ttl: None }), STORED_IN_FALLBACK);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("local", true)));
    world.net.refuse = false;
    world.run_for(secs(200));
    assert!(world.engine.is_ready(0));
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(5));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
    assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
}
