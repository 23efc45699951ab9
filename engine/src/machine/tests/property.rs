//! Random histories of callers, server and network.

use std::format;
use std::vec;
use std::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::kit::{Id, World};
use super::{millis, secs, value};
use crate::machine::Request;
use crate::policy::BreakerState;

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Set(u8),
    Delete(u8),
    Clear,
    Cancel(usize),
    Wait(u64),
    Fin,
    Reset,
    Say(&'static [u8]),
    Refuse(bool),
    Swallow(bool),
    Freeze(bool),
    Fail(&'static str, &'static str, usize),
    Piece(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let errors = prop::sample::select(vec![
        "LOADING",
        "READONLY",
        "OOM",
        "WRONGTYPE",
        "NOAUTH",
        "MOVED 1 a:1",
        "ERR unknown command",
    ]);
    prop_oneof![
        8 => (0u8..4).prop_map(Step::Get),
        6 => (0u8..4).prop_map(Step::Set),
        2 => (0u8..4).prop_map(Step::Delete),
        1 => Just(Step::Clear),
        4 => (0usize..30).prop_map(Step::Cancel),
        10 => prop_oneof![Just(0), 0u64..2, 0u64..300, 0u64..20_000].prop_map(Step::Wait),
        1 => Just(Step::Fin),
        2 => Just(Step::Reset),
        // Not a reply that nobody asked for: with a command in flight nothing tells it from that command's own.
        1 => prop::sample::select(vec![&b"?"[..], b">1\r\n+x\r\n"]).prop_map(Step::Say),
        2 => any::<bool>().prop_map(Step::Refuse),
        2 => any::<bool>().prop_map(Step::Swallow),
        2 => any::<bool>().prop_map(Step::Freeze),
        2 => (prop::sample::select(vec!["GET", "SET", "PING", "SCAN", "HELLO"]), errors, 1usize..5)
            .prop_map(|(name, line, times)| Step::Fail(name, line, times)),
        1 => prop_oneof![1usize..9, Just(usize::MAX)].prop_map(Step::Piece),
    ]
}

/// The bounds of a history.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    lanes: usize,
    in_flight: usize,
    waiting: usize,
    tier: bool,
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let in_flight = prop_oneof![0usize..4, Just(1_000)];
    (1usize..4, in_flight, 0usize..6, any::<bool>()).prop_map(|(lanes, in_flight, waiting, tier)| Bounds {
        lanes,
        in_flight,
        waiting,
        tier,
    })
}

const KEYS: [&str; 4] = ["k:0", "k:1", "k:2", "k:3"];
const TIMEOUT: core::time::Duration = secs(5);

impl World {
    fn take(&mut self, step: &Step, gets: &mut Vec<(u8, Id)>, serial: usize) {
        match *step {
            Step::Get(key) => gets.push((key, self.get(KEYS[usize::from(key)]))),
            // A value says whose it is.
            Step::Set(key) => drop(self.set(KEYS[usize::from(key)], &format!("{key} {serial}"))),
            Step::Delete(key) => drop(self.submit(KEYS[usize::from(key)], Request::Delete)),
            Step::Clear => drop(self.begin_clear("k")),
            Step::Cancel(nth) => {
                let id = self.pending().nth(nth).map(|(id, _)| id);
                id.into_iter().for_each(|id| self.cancel(id));
            }
            Step::Wait(time) => self.run_for(millis(time)),
            Step::Fin => self.fin(),
            Step::Reset => self.reset(),
            Step::Say(bytes) => self.say(bytes),
            Step::Refuse(refuse) => self.net.refuse = refuse,
            Step::Swallow(swallow) => self.net.swallow = swallow,
            Step::Freeze(frozen) => self.net.frozen = frozen,
            Step::Fail(name, line, times) => self.server.fail(name, line, times),
            Step::Piece(piece) => self.net.piece = piece,
        }
    }

    /// What must hold at any time.
    fn check(&mut self, bounds: Bounds, gets: &[(u8, Id)]) {
        for key in KEYS {
            let (in_flight, _) = self.in_flight(key);
            assert!(in_flight <= bounds.in_flight + 1, "{in_flight} in flight, a PING included");
        }
        for (key, id) in gets {
            let Some((text, _)) = self.answer(*id).and_then(value) else { continue };
            assert!(text == "(none)" || text.starts_with(&format!("{key} ")), "key {key} has {text:?}");
        }
        for (id, begun) in self.pending() {
            // A clear has the time of an operation for each of its few steps.
            let limit = if self.is_clear(id) { 12 * TIMEOUT } else { TIMEOUT };
            assert!(self.now.saturating_since(begun) <= limit, "{id:?} has waited since {begun:?}");
        }
    }
}

proptest! {
    /// Every operation ends exactly once (the kit polls until then, and never after), within its deadline, with no
    /// value of another key; timers move on, bounds hold, and in the end nothing is left in flight.
    #[test]
    fn any_history_keeps_the_contract(
        seed in any::<u64>(),
        shuffled in any::<bool>(),
        bounds in bounds(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::with_seed(seed, |config| {
            config.operation_timeout = TIMEOUT;
            config.lanes = bounds.lanes;
            config.lane.max_in_flight = bounds.in_flight;
            config.lane.max_waiting = bounds.waiting;
            config.breaker.open_for = secs(3);
            if !bounds.tier {
                config.tier = None;
            }
        });
        world.shuffled = shuffled;
        let mut gets = Vec::new();
        for (serial, step) in steps.iter().enumerate() {
            world.take(step, &mut gets, serial);
            world.check(bounds, &gets);
        }

        // All trouble ends.
        (world.net.refuse, world.net.swallow, world.net.frozen) = (false, false, false);
        world.server.recover();
        world.run_for(12 * TIMEOUT);
        prop_assert_eq!(world.pending().count(), 0, "everything has ended");
        world.run_for(secs(200)); // The breaker's next try, and the reconnect's.
        if bounds.in_flight > 0 {
            prop_assert_eq!(world.engine.live(), 0);
            prop_assert!(!bounds.tier || world.tier(|tier| tier.journalled()) == 0, "Redis has it all");
        }
        world.check(bounds, &gets);
        prop_assert!((0..bounds.lanes).all(|lane| world.engine.is_ready(lane)));
        KEYS.iter().for_each(|key| assert_eq!(world.in_flight(key), (0, 0)));
        if bounds.in_flight > 0 {
            let set = Request::Set { value: Bytes::from_static(b"0 last"), ttl: None };
            for _ in 0..3 {
                prop_assert_eq!(world.ask("k:0", set.clone()), super::STORED);
            }
            let last = world.ask("k:0", Request::Get);
            prop_assert_eq!(value(&last), Some(("0 last", false)));
        }
        let until = world.now.saturating_add(secs(1));
        world.engine.close(world.now, until);
        world.run_for(secs(1));
        prop_assert!(world.engine.is_closed());
        let breaker_waits = world.engine.breaker().0 != BreakerState::Closed;
        prop_assert_eq!(world.engine.poll_timeout().filter(|_| !breaker_waits), None);
    }
}
