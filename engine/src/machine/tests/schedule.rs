//! When a lost server is dialled again, by one engine and by ten thousand.

use std::vec::Vec;

use proptest::prelude::*;

use super::kit::{Output, World};
use super::{millis, secs};
use crate::Instant;
use crate::config::LaneConfig;
use crate::link::Action;
use crate::machine::{Lane, Request};
use crate::policy::{Backoff, Jitter};

/// Ways in which a server is away.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// For a moment: the connections are lost, and the first dial succeeds.
    Moment,
    /// Its host says that nobody listens.
    Refused,
    /// Its host says nothing.
    Swallowed,
}

/// When one of many engines dials again that have lost their server at the same time.
fn redials(seed: u64, away: Away) -> Vec<Instant> {
    let mut world = World::with_seed(seed, |_| {});
    world.ask("k", Request::Get).expect("the server is well");
    world.run_until(Instant::from_millis(2_000));
    world.outputs.clear();
    world.net.refuse = matches!(away, Away::Refused);
    world.net.swallow = matches!(away, Away::Swallowed);
    world.reset();
    world.run_for(secs(180)); // The breaker's probes are dials too.
    let dials = world.outputs.iter().filter(|(.., output)| *output == Output::Action(Action::Dial));
    dials.map(|(at, ..)| *at).collect()
}

/// `CLIENT KILL`, a restart or a failover ends all connections at once; what follows must not be a flood of new ones.
#[test]
fn ten_thousand_engines_do_not_come_back_at_once() {
    const ENGINES: u64 = 10_000;
    for away in [Away::Moment, Away::Refused, Away::Swallowed] {
        let mut dials: Vec<Instant> = (0..ENGINES).flat_map(|seed| redials(seed, away)).collect();
        dials.sort_unstable();
        assert!(dials.len() as u64 >= ENGINES, "{away:?}: all of them come back");
        let window = |first: usize, at: Instant| {
            dials.iter().skip(first).take_while(|dial| dial.saturating_since(at) < millis(10)).count()
        };
        let busiest =
            dials.iter().enumerate().map(|(first, &at)| window(first, at)).max().unwrap_or_default();
        assert!(busiest as u64 * 100 <= ENGINES * 5, "{away:?}: {busiest} redials within 10 ms");
    }
}

fn schedules() -> impl Strategy<Value = Backoff> {
    let millis = prop_oneof![1u64..100_000, 1..=u64::MAX / 1_000_000];
    let jitter = prop::sample::select(&[Jitter::Equal, Jitter::Full, Jitter::Decorrelated, Jitter::None][..]);
    (millis.clone(), millis, jitter).prop_map(|(base, cap, jitter)| {
        let (base, cap) = (base.min(cap), base.max(cap));
        Backoff { base: super::millis(base), cap: super::millis(cap), jitter }
    })
}

proptest! {
    /// Each delay is the schedule's for that number of failed dials, and lies in the future.
    #[test]
    fn dials_keep_to_the_schedule(reconnect in schedules(), seed: u64, dials in 1usize..200) {
        let tick = core::time::Duration::from_nanos(1);
        let mut now = Instant::from_millis(1);
        let mut lane = Lane::new(LaneConfig { reconnect, ..LaneConfig::default() }, seed, now);
        let (mut step, mut previous) = (reconnect.base, core::time::Duration::ZERO);
        for _ in 0..dials {
            prop_assert_eq!(lane.poll_action(), Some(Action::Dial));
            lane.handle_dial_failed(now);
            prop_assert_eq!(lane.poll_action(), Some(Action::HangUp));
            let Some(due) = lane.poll_timeout() else { break }; // Past the end of time.
            let delay = due.saturating_since(now);
            let bounds = match reconnect.jitter {
                Jitter::Equal => step / 2..=step,
                Jitter::Full => tick..=step,
                Jitter::Decorrelated => reconnect.base..=previous.saturating_mul(3).clamp(reconnect.base, reconnect.cap),
                Jitter::None => step..=step,
            };
            // Whole nanoseconds, and no later than the end of time.
            let end = Instant::NEVER.saturating_since(now);
            let bounds = (*bounds.start()).min(end).saturating_sub(tick)..=(*bounds.end()).max(tick);
            prop_assert!(bounds.contains(&delay) && delay >= tick, "{:?} not in {:?}", delay, bounds);
            (step, previous) = (step.saturating_mul(2).min(reconnect.cap), delay);
            now = due;
            lane.handle_timeout(now);
        }
    }
}
