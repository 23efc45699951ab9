//! What was accepted during an outage, and what Redis holds afterwards.

use std::format;
use std::vec::Vec;

use super::kit::World;
use super::{STORED, STORED_IN_FALLBACK, millis, secs, value};
use crate::machine::{EngineConfig, OperationError, Reconcile, Request};
use crate::policy::BreakerState;

fn set(value: &'static str) -> Request {
    Request::Set { value: value.into(), ttl: None }
}

fn reconciling(reconcile: Reconcile) -> impl FnOnce(&mut EngineConfig) {
    move |config| config.tier.as_mut().expect("on by default").reconcile = reconcile
}

/// Redis cannot be reached, and the breaker is open.
fn take_away(world: &mut World) {
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(20));
}

/// Redis can be reached, and all that follows from it has happened.
fn bring_back(world: &mut World) {
    world.net.refuse = false;
    world.run_for(secs(200));
}

/// What this process knew of the key, what others did to it during the outage, what was accepted meanwhile, and what Redis
/// holds in the end.
#[test]
fn each_policy_reconciles_as_it_says() {
    use Reconcile::{Conditional, Discard, Invalidate, Overwrite};
    type Row =
        (Reconcile, Option<&'static str>, Option<&'static str>, Option<&'static str>, Option<&'static str>);
    const SEEN: Option<&str> = Some("seen");
    const OURS: Option<&str> = Some("ours");
    const THEIRS: Option<&str> = Some("theirs");
    let table: [Row; 14] = [
        // policy, seen before, held when Redis is back, accepted, held in the end
        (Conditional, SEEN, SEEN, OURS, OURS),
        (Conditional, SEEN, THEIRS, OURS, None),
        (Conditional, SEEN, None, OURS, None),
        (Conditional, None, None, OURS, OURS),
        (Conditional, None, THEIRS, OURS, None),
        (Conditional, SEEN, THEIRS, None, None),
        (Invalidate, SEEN, SEEN, OURS, None),
        (Invalidate, SEEN, THEIRS, None, None),
        (Overwrite, SEEN, SEEN, OURS, OURS),
        (Overwrite, SEEN, THEIRS, OURS, OURS),
        (Overwrite, SEEN, THEIRS, None, None),
        (Overwrite, None, None, OURS, OURS),
        (Discard, SEEN, THEIRS, OURS, THEIRS),
        (Discard, SEEN, SEEN, None, SEEN),
    ];
    for row in table {
        let (policy, seen, held, accepted, expected) = row;
        let mut world = World::connected(reconciling(policy));
        seen.into_iter().for_each(|value| world.server.put("k", value));
        assert_eq!(value(&world.ask("k", Request::Get)), Some((seen.unwrap_or("(none)"), false)));
        take_away(&mut world);
        let request = accepted.map_or(Request::Delete, set);
        world.ask("k", request).expect("the tier accepts it");
        world.server.data.clear();
        held.into_iter().for_each(|value| world.server.put("k", value));
        assert_eq!(
            value(&world.ask("k", Request::Get)),
            Some((accepted.unwrap_or("(none)"), true)),
            "{row:?}"
        );
        bring_back(&mut world);
        assert_eq!(world.server.value("k"), expected.map(str::as_bytes), "{row:?}");
        let after = Some((expected.unwrap_or("(none)"), false));
        assert_eq!(value(&world.ask("k", Request::Get)), after, "{row:?}");
        assert_eq!(world.tier(|tier| tier.journalled()), 0);
    }
}

/// A key that this process never asked for may hold anything.
#[test]
fn what_was_never_seen_is_deleted() {
    let mut world = World::connected(|_| {});
    world.server.put("k", "theirs");
    take_away(&mut world);
    assert_eq!(world.ask("k", set("ours")), STORED_IN_FALLBACK);
    bring_back(&mut world);
    assert_eq!(world.server.value("k"), None);
}

/// Until Redis has it, the journal answers for a key and takes what is written to it, also when Redis could.
#[test]
fn a_journalled_key_is_the_journals_until_redis_has_it() {
    let mut world = World::connected(|config| config.breaker.failure_threshold = 1_000);
    assert_eq!(world.ask("k", set("old")), STORED);
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(5));
    assert_eq!(world.ask("k", set("new")), STORED_IN_FALLBACK);
    world.server.fail("EVAL", "LOADING", usize::MAX);
    world.net.refuse = false;
    while !world.engine.is_ready(0) {
        world.run_for(millis(10));
    }
    world.run_for(millis(10));
    assert_eq!(world.server.value("k"), Some(&b"old"[..]));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("new", true)));
    assert_eq!(world.ask("k", set("newer")), STORED_IN_FALLBACK);
    assert_eq!(value(&world.ask("other", Request::Get)), Some(("(none)", false)));
    world.server.recover();
    world.run_for(secs(20));
    assert_eq!(world.server.value("k"), Some(&b"newer"[..]));
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("newer", false)));
}

#[test]
fn a_replay_goes_on_where_redis_died_again() {
    let mut world = World::connected(|_| {});
    take_away(&mut world);
    let keys: Vec<_> = (0..300).map(|n| format!("k{n}")).collect();
    for key in &keys {
        assert_eq!(world.ask(key, Request::Delete).map(|_| ()), Ok(()));
    }
    keys.iter().for_each(|key| world.server.put(key, "stale"));
    world.net.refuse = false;
    while world.server.data.len() == keys.len() {
        world.run_for(millis(1));
    }
    world.net.refuse = true;
    world.reset();
    let left = world.server.data.len();
    assert!((1..300).contains(&left), "{left} are left");
    for key in &keys {
        let (answer, _) =
            value(&world.ask(key, Request::Get)).map(|(v, f)| (v == "(none)", f)).expect("a value");
        assert!(answer, "no stale value is ever read: {key}");
    }
    bring_back(&mut world);
    assert_eq!((world.server.data.len(), world.tier(|tier| tier.journalled())), (0, 0));
    assert!(world.server.count("EVAL") <= 300_usize.div_ceil(64) + 2, "in chunks");
}

/// Where scripts are refused, or the server has no room, what would be set is deleted.
#[test]
fn without_scripts_the_journal_deletes() {
    for line in [
        "NOPERM User default has no permissions to run the 'eval' command",
        "ERR unknown command 'EVAL'",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
    ] {
        for policy in [Reconcile::Conditional, Reconcile::Overwrite] {
            let mut world = World::connected(reconciling(policy));
            assert_eq!(world.ask("k", set("old")), STORED);
            take_away(&mut world);
            assert_eq!(world.ask("k", set("new")), STORED_IN_FALLBACK);
            world.server.fail("EVAL", line, usize::MAX);
            let trips = world.engine.breaker().1;
            bring_back(&mut world);
            assert_eq!(world.engine.breaker().1, trips, "the server is well: {line}");
            assert_eq!(world.tier(|tier| tier.journalled()), 0, "{line}");
            assert_eq!(world.server.value("k"), None, "{line}");
        }
    }
}

#[test]
fn what_was_accepted_expires_in_redis_too() {
    for (outage, left) in [(secs(30), None), (secs(400), None)] {
        let mut world = World::connected(|_| {});
        assert_eq!(world.ask("k", set("old")), STORED);
        take_away(&mut world);
        let accepted = world.now;
        world.ask("k", Request::Set { value: "new".into(), ttl: Some(secs(300)) }).expect("accepted");
        world.run_for(outage);
        bring_back(&mut world);
        if outage < secs(300) {
            let (value, deadline) = world.server.data.get(&b"k"[..]).expect("not expired yet");
            let until = accepted.saturating_add(secs(300));
            assert_eq!(value, "new");
            assert!(*deadline >= until && *deadline <= until.saturating_add(secs(1)), "{deadline:?}");
        }
        world.run_for(secs(300));
        world.ask("other", Request::Get).expect("the server is well"); // It looks at deadlines then.
        assert_eq!(world.server.value("k"), left);
    }
}

/// A script whose answer was lost has been run, and is run again.
#[test]
fn a_replay_whose_answer_was_lost_is_no_foreign_write() {
    let mut world = World::connected(|_| {});
    assert_eq!(world.ask("k", set("old")), STORED);
    take_away(&mut world);
    assert_eq!(world.ask("k", set("new")), STORED_IN_FALLBACK);
    world.net.refuse = false;
    while world.server.count("EVAL") == 0 {
        world.run_for(core::time::Duration::from_micros(50));
    }
    assert_eq!(world.server.value("k"), Some(&b"new"[..]));
    world.reset();
    bring_back(&mut world);
    assert!(world.server.count("EVAL") >= 2);
    assert_eq!(world.server.value("k"), Some(&b"new"[..]));
}

/// Where everything that is asked for is journalled, the replay alone can close the breaker, and does so soon.
#[test]
fn a_replay_begins_with_the_trial() {
    let mut world = World::connected(|config| config.breaker.half_open_permits = 1);
    take_away(&mut world);
    world.run_for(secs(30)); // The replay has failed by then, and waits long.
    assert_eq!(world.ask("k", set("v")), STORED_IN_FALLBACK);
    world.net.refuse = false;
    while world.engine.breaker().0 == BreakerState::Open {
        world.run_for(millis(1));
    }
    world.run_for(secs(1)); // Behind the PING, and not at the end of its wait.
    assert_eq!((world.engine.breaker().0, world.engine.journalled()), (BreakerState::Closed, 0));
}

/// Until Redis was swept the tier answers for the whole namespace, also for keys that it never heard of.
#[test]
fn a_clear_in_an_outage_reaches_redis() {
    let mut world = World::connected(|_| {});
    for key in ["n:known", "m:known"] {
        assert_eq!(world.ask(key, set("old")), STORED);
    }
    (0..100).for_each(|n| world.server.put(&format!("n:{n}"), "old"));
    take_away(&mut world);
    world.ask("n:before", set("v")).expect("the tier accepts it");
    world.clear("n").expect("the tier accepts it");
    assert_eq!(world.ask("n:after", set("v")), STORED_IN_FALLBACK);
    assert_eq!(world.engine.journalled(), 3, "the delete, the set, and the clear");
    for (key, expected) in [("n:7", "(none)"), ("n:after", "v"), ("n:before", "(none)"), ("m:known", "old")] {
        assert_eq!(value(&world.ask(key, Request::Get)), Some((expected, true)), "{key}");
    }
    world.net.refuse = false;
    while world.server.count("UNLINK") == 0 {
        world.run_for(core::time::Duration::from_micros(50));
    }
    for n in 0..100 {
        let answer = world.ask(&format!("n:{n}"), Request::Get);
        assert_eq!(value(&answer).map(|(value, _)| value), Some("(none)"), "in the middle of the sweep");
    }
    bring_back(&mut world);
    let left: Vec<_> = world.server.data.keys().map(|key| core::str::from_utf8(key).expect("text")).collect();
    assert_eq!((left, world.engine.journalled()), (std::vec!["m:known", "n:after"], 0));
    assert_eq!(value(&world.ask("n:after", Request::Get)), Some(("v", false)));
}

/// A sweep that Redis did not live to see the end of begins again.
#[test]
fn a_sweep_goes_on_where_redis_died_again() {
    let mut world = World::connected(|_| {});
    take_away(&mut world);
    world.clear("n").expect("the tier accepts it");
    (0..100).for_each(|n| world.server.put(&format!("n:{n}"), "old"));
    world.net.refuse = false;
    while world.server.data.len() == 100 {
        world.run_for(core::time::Duration::from_micros(50));
    }
    assert_ne!(world.server.data.len(), 0, "in the middle of it");
    world.net.refuse = true;
    world.reset();
    world.run_for(secs(20));
    assert_eq!(value(&world.ask("n:99", Request::Get)), Some(("(none)", true)));
    bring_back(&mut world);
    assert_eq!((world.server.data.len(), world.engine.journalled()), (0, 0));
}

/// Cleared again while Redis is swept: the scan may have passed by what was set in between.
#[test]
fn a_clear_during_the_sweep_is_a_sweep_of_its_own() {
    let mut world = World::connected(|_| {});
    take_away(&mut world);
    world.clear("n").expect("the tier accepts it");
    (0..100).for_each(|n| world.server.put(&format!("n:{n:02}"), "old"));
    world.net.refuse = false;
    while world.server.count("UNLINK") == 0 {
        world.run_for(core::time::Duration::from_micros(50));
    }
    world.tier(|tier| tier.clear_later(crate::time::Instant::EPOCH, b"n:")).expect("there is room");
    world.server.put("n:00", "from before the second");
    bring_back(&mut world);
    assert_eq!((world.server.data.len(), world.engine.journalled()), (0, 0));
}

/// Who may not scan cannot clear: no namespace waits for that for ever.
#[test]
fn a_sweep_that_is_refused_is_given_up() {
    for line in [
        "NOPERM User default has no permissions to run the 'scan' command",
        "ERR unknown command 'SCAN'",
        "ERR command not allowed",
    ] {
        let mut world = World::connected(|_| {});
        assert_eq!(world.ask("n:1", set("v")), STORED);
        world.server.fail("SCAN", line, usize::MAX);
        let refused = world.clear("n");
        assert!(matches!(refused, Err(OperationError::Server(_))), "{refused:?}");
        take_away(&mut world);
        world.clear("n").expect("nobody can know yet");
        let trips = world.engine.breaker().1;
        bring_back(&mut world);
        assert_eq!((world.engine.breaker().1, world.engine.journalled()), (trips, 0), "{line}");
        assert_eq!(value(&world.ask("n:1", Request::Get)), Some(("v", false)), "{line}");
    }
}

/// More deletes than the journal has room for are a clear: of the namespace, and of nothing where there is none.
#[test]
fn a_delete_without_room_clears_the_namespace() {
    let small = |config: &mut EngineConfig| {
        config.tier.as_mut().expect("on by default").max_journal_entries = 2;
    };
    let mut world = World::connected(small);
    take_away(&mut world);
    world.ask("n:1", Request::Delete).expect("there is room");
    world.ask("n:2", set("v")).expect("there is room");
    assert!(matches!(world.ask("n:3", Request::Delete), Err(OperationError::FallbackFull(_))));
    assert_eq!(world.engine.journalled(), 2);

    let mut world = World::connected(small);
    world.namespace_len = 2;
    for key in ["n:1", "n:2", "n:3", "n:4", "m:1"] {
        world.server.put(key, "old");
        assert_eq!(value(&world.ask(key, Request::Get)), Some(("old", false)));
    }
    take_away(&mut world);
    world.ask("n:1", Request::Delete).expect("there is room");
    world.ask("n:2", set("v")).expect("there is room");
    assert_eq!(world.ask("n:3", Request::Delete).map(|_| ()), Ok(()), "{:?}", world.engine.journalled());
    assert!(matches!(world.ask("n:5", set("v")), Err(OperationError::FallbackFull(_))));
    assert_eq!(value(&world.ask("n:3", Request::Get)), Some(("(none)", true)));
    assert_eq!(value(&world.ask("n:2", Request::Get)), Some(("v", true)));
    bring_back(&mut world);
    let left: Vec<_> = world.server.data.keys().map(|key| core::str::from_utf8(key).expect("text")).collect();
    assert_eq!((left, world.engine.journalled()), (std::vec!["m:1", "n:2"], 0), "what was set survives");
}

#[test]
fn more_clears_than_can_be_remembered_are_refused() {
    let mut world = World::connected(|_| {});
    take_away(&mut world);
    for n in 0..64 {
        world.clear(&format!("n{n}")).expect("there is room");
    }
    let refused = world.clear("m");
    assert!(matches!(refused, Err(OperationError::FallbackFull(_))), "{refused:?}");
    world.clear("n1").expect("known already");
    world.clear("").expect("wider than all");
    world.clear("m").expect("known already");
    world.server.put("m:1", "old");
    bring_back(&mut world);
    assert_eq!((world.server.data.len(), world.engine.journalled()), (0, 0));
}

/// A write is on its way, its connection is lost, and the server will not end that: it may be executed at any time.
fn leave_a_write_at_large(cancel: bool) -> World {
    let mut world = World::connected(|config| config.lane.retry.attempts = 1);
    world.server.put("k", "before");
    world.server.fail("CLIENT", "NOPERM this user has no permissions", usize::MAX);
    world.net.frozen = true;
    let id = world.set("k", "at large");
    world.settle();
    if cancel {
        world.cancel(id);
    }
    world.reset();
    world.net.frozen = false;
    world.settle();
    while !world.engine.is_ready(0) {
        world.run_for(millis(1));
    }
    world
}

#[test]
fn a_write_at_large_is_unknown_until_it_can_be_deleted() {
    let mut world = leave_a_write_at_large(true);
    assert_eq!(world.engine.journalled(), 1);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("(none)", true)));
    assert_eq!(world.ask("other", set("v")), STORED, "only this key is affected");
    world.run_for(millis(1_900));
    assert_eq!((world.engine.journalled(), world.server.count("EVAL")), (1, 0), "the stall timeout is 2 s");
    world.run_for(millis(200));
    assert_eq!((world.engine.journalled(), world.server.value("k")), (0, None));
    assert_eq!(world.ask("k", set("v")), STORED);
}

/// What was accepted instead waits too: it would be overwritten.
#[test]
fn nothing_is_replayed_to_a_lane_with_a_write_at_large() {
    let mut world = leave_a_write_at_large(false);
    assert_eq!(value(&world.ask("k", Request::Get)), Some(("at large", true)), "it was accepted");
    world.run_for(millis(1_900));
    assert_eq!((world.engine.journalled(), world.server.count("EVAL")), (1, 0));
    assert_eq!(world.ask("k", set("new")), STORED_IN_FALLBACK);
    world.server.put("k", "at large"); // The zombie.
    world.run_for(millis(200));
    assert_eq!((world.engine.journalled(), world.server.value("k")), (0, None), "never seen, so deleted");
}

/// A chunk that was sent on the lost connection, and answered on the next, may be executed once more.
#[test]
fn a_replay_at_large_is_done_again() {
    let mut world = World::connected(reconciling(Reconcile::Overwrite));
    take_away(&mut world);
    assert_eq!(world.ask("k", set("v")), STORED_IN_FALLBACK);
    world.server.fail("CLIENT", "NOPERM this user has no permissions", usize::MAX);
    world.net.refuse = false;
    while world.server.count("EVAL") == 0 {
        world.run_for(core::time::Duration::from_micros(50));
    }
    world.reset();
    while world.server.count("EVAL") < 2 {
        world.run_for(millis(1));
    }
    world.run_for(millis(100));
    assert_eq!((world.engine.journalled(), world.server.count("EVAL")), (1, 2), "taken, but not for good");
    bring_back(&mut world);
    assert_eq!((world.engine.journalled(), world.server.count("EVAL")), (0, 3));
    assert_eq!(world.server.value("k"), Some(&b"v"[..]));
}
