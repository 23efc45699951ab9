//! What happens when the server misbehaves: one row for each way, and what it means to the operation, its connection,
//! the breaker and the fallback.
//!
//! Whether a command that may have been executed is tried again depends on whether it is idempotent; all that a cache
//! sends is, so that column is tested in [`policy`](crate::policy). A key that is refused never gets here.

use std::vec::Vec;

use super::kit::{Answered, Id, World};
use super::{millis, secs};
use crate::config::Credentials;
use crate::machine::{Answer, EngineConfig, Failure, OperationError, Reconcile, Request, Source};
use crate::policy::{BreakerState, Executed};

struct Row {
    name: &'static str,
    trouble: Trouble,
    executed: Executed,
    /// Attempts after the first, of the three that are allowed, where there is no fallback to answer at once.
    retries: u64,
    connection: Connection,
    breaker: Breaker,
    fallback: Fallback,
}

#[derive(Clone, Copy)]
enum Trouble {
    /// The server answers all commands but the handshake's with this error.
    Answers(&'static str),
    /// What is done with an operation that has just been submitted on a connection that serves.
    Strikes(fn(&mut World)),
    /// The server could not be reached, or did not let us in, when the operation is submitted.
    Before(fn(&mut World)),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Kept,
    /// Lost or hung up, and dialled again.
    Closed,
    /// Replaced, without anything being lost.
    Redialled,
    DialError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaker {
    Failure,
    Nothing,
    Success,
    Trips,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fallback {
    Yes,
    No,
}

/// The whole table, class by class.
fn table() -> Vec<Row> {
    use Breaker::{Nothing, Success, Trips};
    use Connection::{Closed, DialError, Kept, Redialled};
    use Executed::{No, Unknown};
    use Trouble::{Answers, Before, Strikes};
    let row = |name, trouble, executed, retries, connection, breaker, fallback| Row {
        name,
        trouble,
        executed,
        retries,
        connection,
        breaker,
        fallback: if fallback { Fallback::Yes } else { Fallback::No },
    };
    let reply = |line, retries, connection, breaker, fallback| {
        row(line, Answers(line), No, retries, connection, breaker, fallback)
    };
    let fails = Breaker::Failure;
    std::vec![
        // Not sent.
        row("dial failed", Before(|world| world.net.refuse = true), No, 2, DialError, fails, true),
        row("half a command written", Strikes(write_half_and_lose), No, 1, Closed, fails, true),
        row("no connection yet", Before(|world| world.net.latency = secs(8)), No, 0, Kept, Nothing, true),
        // Sent, unknown.
        row("EOF", Strikes(|world| after_it_was_sent(world, World::fin)), Unknown, 1, Closed, fails, true),
        row("RST", Strikes(|world| after_it_was_sent(world, World::reset)), Unknown, 1, Closed, fails, true),
        row("timeout", Strikes(|world| world.net.frozen = true), Unknown, 0, Kept, fails, true),
        // Transient.
        reply("LOADING Redis is loading the dataset in memory", 2, Kept, fails, true),
        reply("BUSY Redis is busy running a script", 2, Kept, fails, true),
        reply("TRYAGAIN Multiple keys request during rehashing of slot", 2, Kept, fails, true),
        reply("CLUSTERDOWN Hash slot not served", 2, Kept, fails, true),
        reply("MASTERDOWN Link with MASTER is down", 2, Kept, fails, true),
        reply("ERR max number of clients reached", 2, Kept, fails, true),
        // Topology. There is no cluster to follow a redirection in.
        reply("MOVED 3999 127.0.0.1:6381", 0, Kept, Nothing, true),
        reply("ASK 3999 127.0.0.1:6381", 0, Kept, Nothing, true),
        reply("READONLY You can't write against a read only replica.", 1, Redialled, fails, true),
        // Capacity.
        reply("OOM command not allowed when used memory > 'maxmemory'.", 0, Kept, Nothing, false),
        reply("MISCONF Redis is configured to save RDB snapshots", 0, Kept, Nothing, false),
        reply("NOREPLICAS Not enough good replicas to write.", 0, Kept, Nothing, false),
        // Credentials and configuration.
        reply("NOAUTH Authentication required.", 0, Redialled, Trips, true),
        reply("WRONGPASS invalid username-password pair", 0, Kept, Trips, true),
        reply("NOPERM this user has no permissions to run the command", 0, Kept, Trips, true),
        reply("ERR unknown command", 0, Kept, Trips, true),
        row("WRONGPASS at the door", Before(change_the_password), No, 0, DialError, Trips, true),
        // The caller's mistake.
        reply("WRONGTYPE Operation against a key holding the wrong kind of value", 0, Kept, Success, false),
        // Protocol violation.
        row(
            "bad frame",
            Strikes(|world| after_it_was_sent(world, nonsense)),
            Unknown,
            1,
            Closed,
            fails,
            true
        ),
        row(
            "over a limit",
            Strikes(|world| after_it_was_sent(world, flood)),
            Unknown,
            1,
            Closed,
            fails,
            true
        ),
    ]
}

fn write_half_and_lose(world: &mut World) {
    let mut bytes = Vec::new();
    let _ = world.engine.poll_transmit(0, &mut bytes);
    assert!(bytes.len() > 5, "the command");
    world.engine.handle_written(world.now, 0, 5);
    world.reset();
}

fn after_it_was_sent(world: &mut World, strike: fn(&mut World)) {
    world.run_for(world.net.latency / 2);
    strike(world);
}

fn nonsense(world: &mut World) {
    world.say(b"?what\r\n");
}

fn flood(world: &mut World) {
    world.say(b"$99999999999\r\n");
}

fn change_the_password(world: &mut World) {
    world.server.password = Some(b"another".to_vec());
}

/// A world before the operation; nothing is tried twice unless `configure` says so.
fn world_before(trouble: Trouble, configure: impl FnOnce(&mut EngineConfig)) -> World {
    let mut world = World::new(|config| {
        config.lane.connect_timeout = secs(20);
        config.lane.stall_timeout = secs(20);
        config.lane.retry.attempts = 1;
        config.breaker.failure_threshold = u32::MAX;
        let credentials = Credentials { username: None, password: "right".into() };
        config.lane.handshake.credentials = Some(credentials);
        configure(config);
    });
    if let Trouble::Before(strike) = trouble {
        strike(&mut world);
    } else {
        world.ask("warm", Request::Get).expect("the server is well");
    }
    world
}

/// Submits an operation and lets the trouble come over it.
fn submit_into(world: &mut World, trouble: Trouble, request: Request) -> Id {
    if let Trouble::Answers(line) = trouble {
        ["GET", "SET"].into_iter().for_each(|name| world.server.fail(name, line, usize::MAX));
    }
    let id = world.submit("k", request);
    if let Trouble::Strikes(strike) = trouble {
        strike(world);
    }
    id
}

fn requests() -> [Request; 2] {
    [Request::Get, Request::Set { value: "v".into(), ttl: None }]
}

#[test]
fn the_table_of_troubles() {
    for row in table() {
        for request in requests() {
            let name = std::format!("{request:?}, {}", row.name);
            assert_eq!(executed(row.trouble, &request), row.executed, "{name}");
            assert_eq!(retries(row.trouble, &request), row.retries, "{name}");
            assert_eq!(connection(row.trouble, &request), row.connection, "{name}");
            assert_eq!(breaker(row.trouble, &request), row.breaker, "{name}");
            assert_eq!(fallback(row.trouble, &request), row.fallback, "{name}");
        }
    }
}

/// What the caller is told; an error reply says that the command was refused.
fn executed(trouble: Trouble, request: &Request) -> Executed {
    let mut world = world_before(trouble, |config| config.tier = None);
    let executed = world.server.executed.len();
    let id = submit_into(&mut world, trouble, request.clone());
    match world.finish(id) {
        Err(OperationError::Failed(Failure { executed, .. })) => executed,
        Err(OperationError::Server(_) | OperationError::BreakerOpen) => {
            assert_eq!(world.server.executed.len(), executed);
            Executed::No
        }
        answered => panic!("not in trouble: {answered:?}"),
    }
}

fn retries(trouble: Trouble, request: &Request) -> u64 {
    let mut world = world_before(trouble, |config| {
        config.tier = None;
        config.lane.retry.attempts = 3;
    });
    let id = submit_into(&mut world, trouble, request.clone());
    let _ = world.finish(id);
    world.engine.lane_stats().retries
}

fn connection(trouble: Trouble, request: &Request) -> Connection {
    let mut world = world_before(trouble, |_| {});
    let id = submit_into(&mut world, trouble, request.clone());
    let _ = world.finish(id);
    world.run_for(secs(1));
    let stats = world.engine.lane_stats();
    match (stats.dial_failures, stats.losses, stats.connects) {
        (0, 0, 0 | 1) => Connection::Kept,
        (0, 0, 2) => Connection::Redialled,
        (0, 1, 2) => Connection::Closed,
        (1.., 0, _) => Connection::DialError,
        other => panic!("{other:?}"),
    }
}

/// Two failures in a row open it, and only what comes between them and whether a third is needed can be told apart.
fn breaker(trouble: Trouble, request: &Request) -> Breaker {
    let mut world = world_before(trouble, |_| {});
    let id = submit_into(&mut world, trouble, request.clone());
    let _ = world.finish(id);
    if world.engine.breaker().0 == BreakerState::Open {
        return Breaker::Trips;
    }
    let after = |failures_before: u32, failures_after: u32| {
        let mut world = world_before(trouble, |config| {
            config.breaker.failure_threshold = 2;
            // The journal's own commands would count too.
            config.tier.as_mut().expect("on by default").reconcile = Reconcile::Discard;
        });
        let fail = |world: &mut World, times| {
            world.server.fail("EXISTS", "LOADING", usize::MAX);
            for _ in 0..times {
                let _ = world.ask("k", Request::Exists);
            }
        };
        fail(&mut world, failures_before);
        let id = submit_into(&mut world, trouble, request.clone());
        let _ = world.finish(id);
        if failures_after > 0 {
            (world.net.refuse, world.net.frozen, world.net.latency) = (false, false, millis(0));
            world.run_for(secs(4)); // It is connected again by then.
            fail(&mut world, failures_after);
        }
        world.engine.breaker().0 == BreakerState::Open
    };
    match trouble {
        // Nothing can be made to fail before the first dial.
        Trouble::Before(_) => match (after(0, 1), after(0, 2)) {
            (true, true) => Breaker::Failure,
            (false, true) => Breaker::Nothing,
            other => panic!("{other:?}"),
        },
        _ => match (after(1, 0), after(1, 1)) {
            (true, true) => Breaker::Failure,
            (false, true) => Breaker::Nothing,
            (false, false) => Breaker::Success,
            (true, false) => panic!("it cannot close again so soon"),
        },
    }
}

fn fallback(trouble: Trouble, request: &Request) -> Fallback {
    let mut world = world_before(trouble, |_| {});
    let id = submit_into(&mut world, trouble, request.clone());
    let answered: Answered = world.finish(id);
    world.run_for(millis(1));
    match answered {
        Ok(Answer::Value(_, Source::Fallback { .. }) | Answer::Stored(Source::Fallback { .. })) => {
            Fallback::Yes
        }
        Err(OperationError::Server(_)) => Fallback::No,
        other => panic!("nobody was in trouble: {other:?}"),
    }
}
