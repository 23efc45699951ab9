//! Tables: where a request goes for each way in which the server can answer or fail, and how the slot of an operation
//! moves.

use core::task::{Poll, Waker};
use core::time::Duration;
use std::vec;
use std::vec::Vec;

use bytes::Bytes;

use super::kit::{Answered, World};
use super::{millis, secs};
use crate::config::LaneConfig;
use crate::link::{Action, Cause, Disconnect, Transmit};
use crate::machine::{Answer, Lane, OperationError, Outcome, Progress, Request, Signal, Source};
use crate::policy::{Breaker, BreakerConfig, BreakerState, Executed, Permit, Verdict};
use crate::resp::{Command, Key, Reply, ServerError};
use crate::time::Instant;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Primary,
    Fallback,
    /// The caller gets an error.
    Nobody,
}

fn who(answered: &Answered) -> Who {
    match answered {
        Ok(
            Answer::Value(_, source)
            | Answer::Stored(source)
            | Answer::Deleted(_, source)
            | Answer::Exists(_, source),
        ) => match source {
            Source::Primary => Who::Primary,
            Source::Fallback { .. } => Who::Fallback,
        },
        Ok(Answer::Reply(_)) => Who::Primary,
        Err(_) => Who::Nobody,
    }
}

fn requests() -> [Request; 7] {
    [
        Request::Get,
        Request::Set { value: Bytes::from_static(b"v"), ttl: None },
        Request::Delete,
        Request::Exists,
        Request::Scan { cursor: 0 },
        Request::Unlink(vec![Bytes::from_static(b"k")]),
        Request::Info,
    ]
}

/// A connected world whose server is silent, and in which nothing is tried twice.
fn silent_world() -> World {
    let mut world = World::connected(|config| {
        config.lane.retry.attempts = 1;
        config.lane.max_in_flight = 2;
        config.operation_timeout = secs(1);
    });
    world.ask("warm", Request::Get).expect("the server is well");
    world.net.frozen = true;
    world
}

fn answer_with(request: Request, reply: Reply) -> (World, Answered) {
    let mut world = silent_world();
    let id = world.submit("k", request);
    world.settle();
    world.engine.handle_replies(world.now, 0, &mut vec![reply]).expect("it was asked for");
    world.engine.wake();
    world.settle();
    let answered = world.answer(id).expect("answered").clone();
    (world, answered)
}

#[test]
fn error_classes_decide_who_answers() {
    use Who::{Fallback, Nobody};
    for (line, expected, tripped) in [
        ("LOADING Redis is loading the dataset in memory", Fallback, false),
        ("BUSY Redis is busy running a script", Fallback, false),
        ("ERR max number of clients reached", Fallback, false),
        ("MOVED 3999 127.0.0.1:6381", Fallback, false),
        ("READONLY You can't write against a read only replica.", Fallback, false),
        ("NOAUTH Authentication required.", Fallback, true),
        ("NOPERM no permissions", Fallback, true),
        ("ERR unknown command 'UNLINK'", Fallback, true),
        ("OOM command not allowed", Nobody, false),
        ("MISCONF Redis is configured to save RDB snapshots", Nobody, false),
        ("WRONGTYPE Operation against a key", Nobody, false),
        ("ERR value is not an integer or out of range", Nobody, false),
    ] {
        for request in requests() {
            // The steps of a clear, and INFO, have no fallback of their own.
            let is_clear = matches!(request, Request::Scan { .. } | Request::Unlink(_));
            let has_fallback = !is_clear && request != Request::Info;
            // Who may not clear may do all the rest, but not without having logged in.
            let tripped = tripped && (!is_clear || line.starts_with("NOAUTH"));
            let expected = if has_fallback { expected } else { Nobody };
            let name = std::format!("{request:?} answered by {line:?}");
            let error = ServerError::new(Bytes::from_static(line.as_bytes()));
            let (world, answered) = answer_with(request, Reply::Error(error.clone()));
            assert_eq!(who(&answered), expected, "{name}");
            assert!(answered.is_ok() || answered == Err(OperationError::Server(error)), "{name}");
            assert_eq!(world.engine.breaker().0 == BreakerState::Open, tripped, "{name}");
            assert_eq!(world.engine.counts().unserved, u64::from(expected == Fallback), "{name}");
        }
    }
}

#[test]
fn replies_of_the_wrong_kind_are_errors() {
    let replies = [
        Reply::Simple(Bytes::from_static(b"OK")),
        Reply::Integer(1),
        Reply::Bulk(Bytes::from_static(b"v")),
        Reply::Null,
        Reply::Boolean(true),
        Reply::Array(Vec::new()),
        Reply::Simple(Bytes::from_static(b"QUEUED")), // Not even a SET has been done then.
    ];
    for (nth, request) in requests().into_iter().enumerate().take(4) {
        let fits: &[usize] = [&[2, 3][..], &[0], &[1], &[1]][nth];
        for (kind, reply) in replies.iter().enumerate() {
            let (world, answered) = answer_with(request.clone(), reply.clone());
            let expected = if fits.contains(&kind) { Who::Primary } else { Who::Nobody };
            assert_eq!(who(&answered), expected, "{request:?} answered by {}", reply.kind());
            let unexpected = matches!(answered, Err(OperationError::Unexpected { .. }));
            assert_eq!(unexpected, expected == Who::Nobody);
            assert_eq!(world.engine.breaker(), (BreakerState::Closed, 0));
        }
    }
}

#[test]
fn causes_decide_who_answers() {
    use Who::{Fallback, Nobody};
    for (cause, expected) in [
        (Cause::Unreachable, Fallback),
        (Cause::ConnectionLost, Fallback),
        (Cause::Stalled, Fallback),
        (Cause::Protocol, Fallback),
        (Cause::TimedOut, Fallback),
        (Cause::Overloaded, Nobody),
        (Cause::Closed, Nobody),
    ] {
        for request in requests().into_iter().take(4) {
            let mut world = silent_world();
            if cause == Cause::Unreachable {
                world.net.refuse = true;
                world.reset();
            }
            if cause == Cause::Overloaded {
                for key in ["a", "b"] {
                    world.get(key);
                }
            }
            world.settle();
            let id = world.submit("k", request.clone());
            world.settle();
            match cause {
                Cause::ConnectionLost => world.reset(),
                Cause::Stalled => {
                    // Not before the operation's own deadline, so the silence must have begun earlier.
                    world = stalling_world();
                    let id = world.submit("k", request.clone());
                    world.run_for(millis(600));
                    check(&world, id, expected, cause);
                    continue;
                }
                Cause::Protocol => world.say(b"?"),
                Cause::Closed => world.engine.close(world.now, world.now),
                _ => {}
            }
            world.engine.wake();
            world.run_for(secs(1) + millis(1));
            check(&world, id, expected, cause);
        }
    }
}

fn check(world: &World, id: super::kit::Id, expected: Who, cause: Cause) {
    let answered = world.answer(id).expect("ended");
    assert_eq!(who(answered), expected, "{cause:?}: {answered:?}");
    if cause == Cause::Closed {
        assert_eq!(answered, &Err(OperationError::Closed));
    }
}

/// A world that has been silent with a command in flight for three quarters of the stall timeout.
fn stalling_world() -> World {
    let mut world = silent_world();
    world.get("k");
    world.run_for(millis(1_500));
    world
}

// ---- a lane alone ----

fn permit() -> Permit {
    Breaker::new(BreakerConfig::default(), 0).admit(Instant::EPOCH).expect("a new breaker is closed")
}

const GET: Command<'_> = Command::Get(Key { namespace: b"", key: b"k" });
const DEADLINE: Instant = Instant::from_millis(5_000);

fn ready_lane(config: LaneConfig) -> Lane {
    let now = Instant::from_millis(1);
    let mut lane = Lane::new(config, 0, now);
    welcome(&mut lane, now, None);
    lane
}

/// Lets a lane in that wants to dial, and answers its `CLIENT KILL` if it says one.
fn welcome(lane: &mut Lane, now: Instant, killed: Option<Reply>) {
    assert_eq!(lane.poll_action(), Some(Action::Dial));
    lane.handle_connected(now);
    assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Ready);
    let hello = Reply::Map(Vec::new());
    lane.handle_replies(now, &mut vec![hello]).expect("welcome");
    assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Ready);
    let ok = Reply::Simple(Bytes::from_static(b"OK"));
    let who = Reply::Bulk(Bytes::from_static(b"id=3 addr=192.0.2.1:49152"));
    lane.handle_replies(now, &mut vec![ok.clone(), ok, who]).expect("welcome");
    if let Some(killed) = killed {
        assert!(!lane.is_ready(), "the connection before comes first");
        lane.handle_replies(now, &mut vec![killed]).expect("nothing that matters");
    }
    assert!(lane.is_ready());
}

/// Writes that may still be executed are offered with the next connection, cancelled ones too, unless that has fenced them.
#[test]
fn a_lane_offers_the_writes_that_are_at_large() {
    let refused = || Reply::Error(ServerError::new(Bytes::from_static(b"NOPERM no")));
    for (killed, expected) in [(refused(), &[&b"n:k"[..], b"n:k"][..]), (Reply::Integer(1), &[])] {
        let mut now = Instant::from_millis(2);
        let mut lane = ready_lane(LaneConfig::default());
        let key = Key { namespace: b"n", key: b"k" };
        let cancelled = lane.submit(now, &Command::Del(key), permit(), DEADLINE).expect("room");
        let commands = [Command::Set { key, value: b"v", ttl: None }, GET];
        for command in &commands {
            lane.submit(now, command, permit(), DEADLINE).expect("room");
        }
        let mut out = Vec::new();
        while lane.poll_transmit(&mut out) == Transmit::Linger {}
        lane.handle_written(now, out.len());
        lane.cancel(cancelled);
        lane.handle_disconnected(now, Disconnect::Lost);
        assert_eq!(lane.take_strays().len(), 0, "nothing is known before the next connection");
        now = lane.poll_timeout().expect("a backoff");
        lane.handle_timeout(now);
        welcome(&mut lane, now, Some(killed));
        let strays = lane.take_strays();
        assert_eq!(strays.iter().map(|key| &key[..]).collect::<Vec<_>>(), expected);
        assert_eq!(lane.take_strays().len(), 0, "told once");
    }
}

/// Each arrow of the diagram in `slots`.
#[test]
fn slots_follow_the_diagram() {
    let waker = Waker::noop();
    let config = || LaneConfig { max_in_flight: 1, ..LaneConfig::default() };
    let loading = || Reply::Error(ServerError::new(Bytes::from_static(b"LOADING")));
    let mut now = Instant::from_millis(2);
    let mut lane = ready_lane(config());

    let first = lane.submit(now, &GET, permit(), DEADLINE).expect("room");
    assert_eq!((lane.poll(first, waker), lane.in_flight().0), (Poll::Pending, 1), "new -> in flight");
    let second = lane.submit(now, &GET, permit(), DEADLINE).expect("it may wait");
    assert_eq!((lane.poll(second, waker), lane.in_flight().0), (Poll::Pending, 1), "new -> waiting");
    let third = lane.submit(now, &GET, permit(), DEADLINE).expect("it may wait");

    assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Ready);
    lane.handle_replies(now, &mut vec![loading()]).expect("matched");
    assert_eq!(lane.poll(first, waker), Poll::Pending, "in flight -> delayed");
    assert_eq!(lane.poll(second, waker), Poll::Ready(Progress::Again), "waiting -> again");
    lane.resubmit(second, &GET);
    assert_eq!((lane.poll(second, waker), lane.in_flight().0), (Poll::Pending, 1), "again -> in flight");
    lane.resubmit(second, &GET);
    assert_eq!(lane.in_flight().0, 1, "handing in twice changes nothing");

    now = now.saturating_add(millis(200));
    lane.handle_timeout(now);
    assert_eq!(lane.poll(first, waker), Poll::Pending, "delayed -> waiting: there is no room");
    assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Ready);
    lane.handle_replies(now, &mut vec![Reply::Null]).expect("matched");
    let answered = now;
    lane.handle_timeout(now.saturating_add(millis(1))); // Done is when the answer came, not when it is looked at.
    let done = Progress::Done(Outcome::Reply(Reply::Null), answered);
    assert_eq!(lane.poll(second, waker), Poll::Ready(done), "in flight -> done -> free");
    let closed = Progress::Done(Outcome::closed(), lane.now());
    assert_eq!(lane.poll(second, waker), Poll::Ready(closed), "told once");

    assert_eq!(lane.poll(third, waker), Poll::Ready(Progress::Again), "it came before the retry");
    assert_eq!(lane.poll(first, waker), Poll::Pending, "whose turn it is next");
    lane.cancel(third);
    assert_eq!(lane.poll(first, waker), Poll::Ready(Progress::Again), "again -> free, and its room is free");
    lane.handle_timeout(DEADLINE);
    let Poll::Ready(Progress::Done(Outcome::Failed(failure), _)) = lane.poll(first, waker) else {
        panic!("again -> done, out of time")
    };
    assert_eq!((failure.cause, failure.executed), (Cause::TimedOut, Executed::No));
    assert_eq!((lane.live(), lane.in_flight()), (0, (0, 0)));
}

/// From any state an operation can be cancelled, and out of time.
#[test]
fn every_state_ends_by_cancel_deadline_and_close() {
    let waker = Waker::noop();
    for state in ["staged", "sent", "waiting", "again", "delayed", "done"] {
        for end in ["cancel", "deadline", "close"] {
            let now = Instant::from_millis(2);
            let config = LaneConfig { max_in_flight: 1, stall_timeout: secs(60), ..LaneConfig::default() };
            let mut lane = ready_lane(config);
            let other = matches!(state, "waiting" | "again")
                .then(|| lane.submit(now, &GET, permit(), DEADLINE).expect("room"));
            let id = lane.submit(now, &GET, permit(), DEADLINE).expect("room");
            if state != "staged" {
                assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Ready);
                lane.handle_written(now, 1_000);
            }
            let loading = Reply::Error(ServerError::new(Bytes::from_static(b"LOADING")));
            match state {
                "again" | "done" => lane.handle_replies(now, &mut vec![Reply::Null]).expect("matched"),
                "delayed" => lane.handle_replies(now, &mut vec![loading]).expect("matched"),
                _ => {}
            }
            match end {
                "cancel" => lane.cancel(id),
                "deadline" => lane.handle_timeout(DEADLINE),
                _ => lane.close(now, now),
            }
            let mut ended = lane.poll(id, waker);
            if ended == Poll::Ready(Progress::Again) {
                lane.resubmit(id, &GET); // Its caller learns at the next attempt that the lane is closed.
                ended = lane.poll(id, waker);
            }
            let Poll::Ready(Progress::Done(outcome, _)) = ended else { panic!("{state}, {end}: {ended:?}") };
            let cause = match (end, state) {
                (_, "done") if end != "cancel" => None,
                ("deadline", "waiting" | "again") => Some(Cause::Overloaded),
                ("deadline", _) => Some(Cause::TimedOut),
                _ => Some(Cause::Closed),
            };
            let executed = if state == "sent" && end != "cancel" { Executed::Unknown } else { Executed::No };
            match outcome {
                Outcome::Failed(failure) => {
                    assert_eq!((Some(failure.cause), failure.executed), (cause, executed), "{state}, {end}");
                }
                Outcome::Reply(reply) => assert_eq!((reply, cause), (Reply::Null, None), "{state}, {end}"),
            }
            other.into_iter().for_each(|other| lane.cancel(other));
            assert_eq!(lane.live(), 0, "{state}, {end}");
        }
    }
}

/// A thousand successes are one piece of news to the breaker; failures and trial permits are each of their own.
#[test]
fn signals_are_few() {
    let now = Instant::from_millis(2);
    let mut lane = ready_lane(LaneConfig::default());
    assert_eq!(lane.drain_signals().collect::<Vec<_>>(), [Signal::Ready]);
    let ids: Vec<_> =
        (0..1_000).map(|_| lane.submit(now, &GET, permit(), DEADLINE).expect("there is room")).collect();
    assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Linger);
    assert_eq!(lane.poll_transmit(&mut Vec::new()), Transmit::Ready);
    lane.handle_replies(now, &mut vec![Reply::Null; 999]).expect("matched");
    assert!(lane.has_signals());
    assert_eq!(
        lane.drain_signals().collect::<Vec<_>>(),
        [Signal::Verdict(permit(), Verdict::Success, Duration::ZERO)]
    );
    lane.handle_disconnected(now, Disconnect::Lost);
    assert_eq!(lane.drain_signals().collect::<Vec<_>>(), [Signal::Failure]);
    let mut wakers = Vec::new();
    lane.take_wakers(&mut wakers);
    assert!(wakers.is_empty(), "nobody had polled");
    assert_eq!(lane.poll(ids[999], Waker::noop()), Poll::Pending, "tried again");
}
