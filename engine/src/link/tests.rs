//! Each transition of the diagram, and what must not be one.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::policy::{Backoff, Jitter};
use crate::resp::{DecodeError, Key, ServerError, Violation};

const GET: Command<'_> = Command::Get(Key { namespace: b"", key: b"k" });
const START: Instant = Instant::from_millis(1_000);

fn later(millis: u64) -> Instant {
    START.saturating_add(Duration::from_millis(millis))
}

fn ok() -> Reply {
    Reply::Simple(Bytes::from_static(b"OK"))
}

fn error(line: &'static str) -> Reply {
    Reply::Error(ServerError::new(Bytes::from_static(line.as_bytes())))
}

/// A link and the fate of the commands on it.
struct Rig {
    link: Link<u32>,
    ended: Vec<String>,
}

impl Rig {
    fn new() -> Self {
        let jitterless =
            Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1), jitter: Jitter::None };
        let config = LaneConfig { reconnect: jitterless, ..LaneConfig::default() };
        Self { link: Link::new(config, 0, START), ended: Vec::new() }
    }

    /// A link in a state of the diagram, with the actions of the way there done.
    fn in_state(state: &str) -> Self {
        let mut rig = Self::new();
        let way: &[&str] = match state {
            "Dialing" => &[],
            "Handshaking" => &["connected"],
            "Waiting" => &["refused"],
            "Waiting, trusted" => &["connected", "welcome", "command", "reply", "lost"],
            "Ready" => &["connected", "welcome"],
            "Ready, busy" => &["connected", "welcome", "command"],
            "Ready, retiring" => &["connected", "welcome", "command", "retire"],
            "Draining" => &["connected", "welcome", "command", "close"],
            "Closed" => &["close"],
            other => panic!("no state {other}"),
        };
        rig.settle();
        for input in way {
            rig.input(input);
            rig.settle();
        }
        rig.link.take_events();
        rig.ended.clear();
        rig
    }

    /// Does what the link asks for; answers with the actions.
    fn settle(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        let _ = self.link.poll_transmit(&mut out, |_| true);
        self.link.handle_written(self.link.now, out.len());
        core::iter::from_fn(|| self.link.poll_action()).collect()
    }

    fn input(&mut self, input: &str) {
        let Self { link, ended } = self;
        let now = link.now;
        let sink: Sink<'_, u32> = &mut |owner, end| ended.push(format!("{owner} {}", short(&end)));
        let mut reply = |link: &mut Link<u32>, reply| drop(link.handle_replies(now, &mut vec![reply], sink));
        match input {
            "connected" => link.handle_connected(now),
            "refused" => link.handle_dial_failed(now, sink),
            "lost" => link.handle_disconnected(now, Disconnect::Lost, sink),
            "garbage" => {
                let error = DecodeError { offset: 0, violation: Violation::UnknownType(b'H') };
                link.handle_disconnected(now, Disconnect::Protocol(error), sink);
            }
            "welcome" => {
                let who = Reply::Bulk(Bytes::from_static(b"id=18 addr=10.0.0.1:4711"));
                for answer in [Reply::Map(Vec::new()), ok(), ok(), who] {
                    let _ = link.poll_transmit(&mut Vec::new(), |_| true);
                    reply(link, answer);
                }
            }
            "reply" => reply(link, ok()),
            "pong" => reply(link, Reply::Simple(Bytes::from_static(b"PONG"))),
            "command" => _ = link.stage(&GET, 7),
            "early" => link.handle_timeout(now, sink),
            "due" => {
                let due = link.due().unwrap_or(now);
                link.handle_timeout(due, sink);
            }
            "hurry" => link.hurry(now),
            "retire" => link.retire(now, sink),
            "close" => link.close(now, later(1_500), sink),
            "close now" => link.close(now, now, sink),
            other => panic!("no input {other}"),
        }
    }

    fn state(&self) -> &'static str {
        match self.link.state {
            State::Waiting { trusted: true, .. } => "Waiting, trusted",
            State::Waiting { .. } => "Waiting",
            State::Dialing { .. } => "Dialing",
            State::Handshaking { .. } => "Handshaking",
            State::Ready if self.link.retiring => "Ready, retiring",
            State::Ready if !self.link.pipeline.is_quiet() => "Ready, busy",
            State::Ready => "Ready",
            State::Draining { .. } => "Draining",
            State::Closed => "Closed",
        }
    }
}

fn short(ended: &Ended) -> String {
    match ended {
        Ended::Reply(_) => "answered".into(),
        Ended::NotSent(cause) => format!("not sent: {cause:?}"),
        Ended::Unknown(cause) => format!("unknown: {cause:?}"),
    }
}

const INPUTS: [&str; 12] = [
    "connected",
    "refused",
    "lost",
    "garbage",
    "reply",
    "pong",
    "early",
    "due",
    "hurry",
    "retire",
    "close",
    "close now",
];

/// For each state what an input leads to: the new state, and what the link says and asks for. An input that is not named
/// changes nothing.
const TABLE: [(&str, &[(&str, &str)]); 9] = [
    (
        "Dialing",
        &[
            ("connected", "Handshaking"),
            ("refused", "Waiting | DialFailed(Unreachable) | HangUp"),
            ("lost", "Waiting | DialFailed(Unreachable)"),
            ("garbage", "Waiting | DialFailed(Unreachable)"),
            ("due", "Waiting | DialFailed(TimedOut) | HangUp"),
            ("close", "Closed | HangUp"),
            ("close now", "Closed | HangUp"),
        ],
    ),
    (
        "Handshaking",
        &[
            ("lost", r#"Waiting | DialFailed(HungUp { during: "HELLO" })"#),
            (
                "garbage",
                "Waiting | DialFailed(Protocol(DecodeError { offset: 0, violation: UnknownType(72) }))",
            ),
            // Not one to HELLO.
            ("reply", r#"Waiting | DialFailed(Handshake(Unexpected { during: "HELLO" })) | HangUp"#),
            ("pong", r#"Waiting | DialFailed(Handshake(Unexpected { during: "HELLO" })) | HangUp"#),
            ("due", r#"Waiting | DialFailed(Silent { during: "HELLO" }) | HangUp"#),
            ("close", "Closed | HangUp"),
            ("close now", "Closed | HangUp"),
        ],
    ),
    (
        "Waiting",
        &[
            ("due", "Dialing | Dial"),
            ("hurry", "Dialing | Dial"),
            ("close", "Closed | HangUp"),
            ("close now", "Closed | HangUp"),
        ],
    ),
    (
        "Waiting, trusted",
        &[
            ("due", "Dialing | Dial"),
            ("hurry", "Dialing | Dial"),
            ("close", "Closed | HangUp"),
            ("close now", "Closed | HangUp"),
        ],
    ),
    (
        "Ready",
        &[
            ("lost", "Waiting | Lost"),
            ("garbage", "Waiting | Lost"),
            ("reply", "Waiting | Lost | HangUp"),
            ("pong", "Waiting | Lost | HangUp"),
            ("due", "Ready, busy"), // With a PING.
            ("retire", "Waiting, trusted | HangUp"),
            ("close", "Closed | HangUp"),
            ("close now", "Closed | HangUp"),
        ],
    ),
    (
        "Ready, busy",
        &[
            ("lost", "Waiting | Lost | 7 unknown: ConnectionLost"),
            ("garbage", "Waiting | Lost | 7 unknown: Protocol"),
            ("reply", "Ready | 7 answered"),
            ("pong", "Waiting | Lost | HangUp | 7 unknown: Protocol"),
            ("due", "Waiting | Lost | HangUp | 7 unknown: Stalled"),
            ("retire", "Ready, retiring"),
            ("close", "Draining"),
            ("close now", "Closed | HangUp | 7 unknown: Closed"),
        ],
    ),
    (
        "Ready, retiring",
        &[
            ("lost", "Waiting | Lost | 7 unknown: ConnectionLost"),
            ("garbage", "Waiting | Lost | 7 unknown: Protocol"),
            ("reply", "Waiting, trusted | HangUp | 7 answered"),
            ("pong", "Waiting | Lost | HangUp | 7 unknown: Protocol"),
            ("due", "Waiting | Lost | HangUp | 7 unknown: Stalled"),
            ("close", "Draining"),
            ("close now", "Closed | HangUp | 7 unknown: Closed"),
        ],
    ),
    (
        "Draining",
        &[
            ("lost", "Closed | 7 unknown: ConnectionLost"),
            ("garbage", "Closed | 7 unknown: Protocol"),
            ("reply", "Closed | HangUp | 7 answered"),
            ("pong", "Closed | HangUp | 7 unknown: Protocol"),
            ("due", "Closed | HangUp | 7 unknown: Closed"),
            ("close now", "Closed | HangUp | 7 unknown: Closed"),
        ],
    ),
    ("Closed", &[]),
];

#[test]
fn transitions_are_those_of_the_diagram() {
    for (state, transitions) in TABLE {
        for input in INPUTS {
            let mut rig = Rig::in_state(state);
            assert_eq!(rig.state(), state);
            rig.input(input);
            let mut said: Vec<String> =
                rig.link.take_events().iter().map(|event| format!("{event:?}")).collect();
            said.extend(rig.settle().iter().map(|action| format!("{action:?}")));
            said.insert(0, rig.state().into());
            said.append(&mut rig.ended);
            let expected = transitions.iter().find(|(named, _)| *named == input).map_or(state, |(_, to)| to);
            assert_eq!(said.join(" | "), expected, "{input:?} in {state:?}");
        }
    }
}

/// The benefit of the doubt: commands wait for the first dial, and after a connection that served.
#[test]
fn commands_wait_for_a_link_that_is_trusted() {
    for (state, accepts) in [
        ("Dialing", true),
        ("Handshaking", true),
        ("Waiting", false),
        ("Waiting, trusted", true),
        ("Ready", true),
        ("Ready, retiring", true),
        ("Draining", false),
        ("Closed", false),
    ] {
        let mut rig = Rig::in_state(state);
        assert_eq!(rig.link.accepts(), accepts, "{state}");
        if state == "Waiting, trusted" {
            rig.input("command");
            rig.input("due");
            assert!(rig.link.accepts() && rig.ended.is_empty(), "still, while it is dialled");
            rig.settle();
            rig.input("refused");
            assert!(!rig.link.accepts(), "no more");
            assert_eq!(rig.ended, ["7 not sent: Unreachable"]);
        }
    }
    let mut rig = Rig::in_state("Ready");
    for input in ["command", "reply", "command", "due"] {
        rig.input(input);
        rig.settle();
    }
    assert_eq!((rig.state(), rig.link.accepts()), ("Waiting", false), "it served, but then it stalled");
}

#[test]
fn the_schedule_grows_until_the_link_has_served() {
    let mut rig = Rig::new();
    let mut delays = Vec::new();
    for _ in 0..6 {
        rig.settle();
        rig.input("refused");
        delays.push(rig.link.due().expect("a redial").saturating_since(rig.link.now).as_millis());
        rig.input("due");
    }
    assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
    rig.settle();
    for input in ["connected", "welcome"] {
        rig.input(input);
        rig.settle();
    }
    rig.input("lost"); // It was ready, but answered nothing.
    assert_eq!(rig.link.due().expect("a redial").saturating_since(rig.link.now).as_millis(), 1_000);
    rig.input("due");
    rig.settle();
    for input in ["connected", "welcome", "command", "reply"] {
        rig.input(input);
        rig.settle();
    }
    assert_eq!(rig.link.delay, Duration::ZERO, "decorrelated jitter grows from this");
    rig.input("lost");
    assert_eq!(rig.link.due().expect("a redial").saturating_since(rig.link.now).as_millis(), 100);
}

/// News of a socket that we have already given up says nothing about the one that is wanted now.
#[test]
fn late_news_of_the_socket_before_is_ignored() {
    for input in ["connected", "refused", "lost"] {
        let mut rig = Rig::in_state("Ready, busy");
        rig.input("due");
        rig.input("due"); // Dialled again, before the driver has even hung up.
        assert_eq!(rig.state(), "Dialing");
        rig.link.take_events();
        rig.input(input);
        assert_eq!((rig.state(), rig.link.take_events().as_slice()), ("Dialing", &[][..]), "{input}");
        let expected = [Action::HangUp, Action::Dial];
        let expected = if input == "lost" { &expected[1..] } else { &expected }; // The driver knows.
        assert_eq!(rig.settle(), expected, "{input}");
        rig.input("connected");
        assert_eq!(rig.state(), "Handshaking", "{input}");
    }
}

#[test]
fn closing_sends_what_was_held_back_for_the_next_connection() {
    let mut rig = Rig::in_state("Ready, retiring");
    rig.input("command");
    let mut out = Vec::new();
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Nothing);
    rig.input("close");
    rig.input("reply");
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Ready);
    rig.input("reply");
    assert_eq!((rig.state(), rig.ended), ("Closed", vec!["7 answered".into(), "7 answered".into()]));
}

/// `close` may be called again, to wait for a shorter time, but not for a longer one.
#[test]
fn closing_again_only_shortens_the_wait() {
    let mut rig = Rig::in_state("Draining");
    let sink: Sink<'_, u32> = &mut |_, _| {};
    rig.link.close(START, Instant::NEVER, sink);
    assert_eq!(rig.link.due(), Some(later(1_500)));
    rig.link.close(START, later(100), sink);
    assert_eq!(rig.link.due(), Some(later(100)));
    rig.link.close(START, START, sink);
    assert!(rig.link.is_closed());
}

#[test]
fn a_refused_handshake_says_whether_dialling_again_can_help() {
    for (line, is_refused) in [
        ("WRONGPASS invalid username-password pair", true),
        ("NOAUTH HELLO must be called with the client already authenticated", true),
        ("LOADING Redis is loading the dataset in memory", false),
        ("ERR max number of clients reached", false),
    ] {
        for asked in [false, true] {
            let mut rig = Rig::in_state("Dialing");
            rig.input("connected");
            if asked {
                rig.settle();
            }
            let mut replies = vec![error(line)];
            let fatal = rig.link.handle_replies(START, &mut replies, &mut |_, _| {}).expect_err("refused");
            assert!(format!("{fatal}").contains(line), "{fatal}");
            let Fatal::Handshake(error) = fatal else { panic!("{fatal}") };
            let expected = if is_refused {
                Event::DialRefused(error)
            } else {
                Event::DialFailed(DialError::Handshake(error))
            };
            assert_eq!(rig.link.take_events(), [expected], "{line}, asked: {asked}");
            assert!(!rig.link.accepts());
        }
    }
}

#[test]
fn a_pong_says_whether_the_server_can_serve() {
    for (reply, serves) in [
        (Reply::Simple(Bytes::from_static(b"PONG")), true),
        (error("LOADING"), false),
        (error("MASTERDOWN"), false),
        (error("NOAUTH Authentication required."), false),
        (error("NOPERM this user has no permissions to run the 'ping' command"), true),
        (error("ERR unknown command 'PING'"), true),
    ] {
        let mut rig = Rig::in_state("Ready");
        rig.link.ping();
        rig.settle();
        rig.link.handle_replies(START, &mut vec![reply.clone()], &mut |_, _| {}).expect("asked for");
        assert_eq!(rig.link.take_events(), [Event::Pong(serves)], "{reply:?}");
    }
}

/// One write for what is submitted together, and none is held back twice.
#[test]
fn a_few_commands_wait_one_turn_for_more() {
    let mut rig = Rig::in_state("Ready");
    let mut out = Vec::new();
    rig.input("command");
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Ready, "nobody to wait for");
    rig.input("command");
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Linger);
    rig.input("command");
    let before = out.len();
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Ready);
    assert_eq!(out.len(), before + 2 * GET.encoded_len());
    let large = [0; LINGER_BELOW];
    rig.link.stage(&Command::Set { key: Key { namespace: b"", key: b"k" }, value: &large, ttl: None }, 8);
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Ready, "worth a write of its own");
    assert_eq!(rig.link.poll_transmit(&mut out, |_| true), Transmit::Nothing);
}

#[test]
fn a_clock_that_goes_backwards_is_clamped() {
    let mut rig = Rig::in_state("Ready, busy");
    rig.link.handle_written(later(500), 0);
    rig.link.handle_timeout(Instant::EPOCH, &mut |_, _| {});
    assert_eq!((rig.state(), rig.link.now), ("Ready, busy", later(500)));
}

/// A connection of a table of zombies: what the server says to INFO, what is sent, what of that it answers, how it is lost.
struct Life {
    info: &'static str,
    commands: Vec<Command<'static>>,
    answered: usize,
    input: &'static str,
}

const K: Key<'_> = Key { namespace: b"n", key: b"k" };
const SET: Command<'_> = Command::Set { key: K, value: b"v", ttl: None };
static UNLINKED: [Bytes; 1] = [Bytes::from_static(b"u")];
const WHO: &str = "id=18 addr=10.0.0.1:4711 laddr=10.0.0.2:6379 name=";

impl Rig {
    /// Lives through a connection: what was said in its setup beyond the usual, and the keys at large that it began with.
    fn live(&mut self, life: &Life, killed: Reply) -> (String, Vec<Bytes>) {
        let now = self.link.now;
        self.settle();
        self.input("connected");
        let (said, strays) = self.shake_hands(Reply::Bulk(life.info.into()), killed);
        for command in &life.commands {
            self.link.stage(command, 7);
        }
        self.settle();
        self.settle(); // It may have lingered.
        for _ in 0..life.answered {
            self.input("reply");
        }
        self.input(life.input);
        self.input("due");
        assert_eq!(self.state(), "Dialing");
        assert!(self.link.now >= now);
        (said, strays)
    }

    /// Answers a handshake; what of it is the KILL, and the strays.
    fn shake_hands(&mut self, info: Reply, killed: Reply) -> (String, Vec<Bytes>) {
        let now = self.link.now;
        let mut out = Vec::new();
        for mut answers in [vec![Reply::Map(Vec::new())], vec![ok(), ok(), info]] {
            out.clear();
            assert_eq!(self.link.poll_transmit(&mut out, |_| true), Transmit::Ready);
            let result = self.link.handle_replies(now, &mut answers, &mut |_, _| {});
            assert_eq!(result, Ok(()), "what no Redis refuses");
        }
        let setup = String::from_utf8_lossy(&out).into_owned();
        let kill = setup.split_once("KILL\r\n").map(|(_, rest)| rest.replace("\r\n", " "));
        if kill.is_some() {
            assert!(!self.link.is_ready(), "first the old one ends");
            let _ = self.link.handle_replies(now, &mut vec![killed], &mut |_, _| {});
        }
        let strays = self.link.take_events().into_iter().find_map(|event| match event {
            Event::Ready { at_large } => Some(at_large.unwrap_or_default()),
            _ => None,
        });
        (kill.unwrap_or_default(), strays.expect("it is ready"))
    }
}

const KILLS: &str = "$2 ID $2 18 $4 ADDR $13 10.0.0.1:4711 ";

/// What the next connection says and begins with, by how the one before has lived.
#[test]
fn a_connection_that_left_writes_unanswered_is_fenced_by_the_next() {
    let life = |info, commands: &[Command<'static>], answered, input| Life {
        info,
        commands: commands.to_vec(),
        answered,
        input,
    };
    let dead = |kind| Life { info: WHO, commands: vec![SET, GET], answered: 0, input: kind };
    let refused = || error("NOPERM this user has no permissions to run the 'client|kill' command");
    let at_large: &[&str] = &["n:k"];
    let (one, none) = (|| Reply::Integer(1), || Reply::Integer(0));
    for (life, killed, kills, strays) in [
        (dead("lost"), one(), KILLS, &[][..]),
        (dead("garbage"), one(), KILLS, &[]),
        (dead("due"), one(), KILLS, &[]),   // It stalled.
        (dead("lost"), none(), KILLS, &[]), // Gone already.
        (dead("lost"), refused(), KILLS, at_large),
        (dead("lost"), error("ERR unknown command 'CLIENT'"), KILLS, at_large),
        (dead("lost"), error("READONLY You can't write against a read only replica."), KILLS, at_large),
        (dead("lost"), ok(), KILLS, at_large),
        (life("/run/redis.sock:0", &[SET], 0, "lost"), one(), "", at_large),
        (life("id=18 addr=/run/redis.sock:0", &[SET], 0, "lost"), one(), "", at_large),
        (life("id=18 addr=?:0", &[SET], 0, "lost"), one(), "", at_large),
        (life("id=18 addr=/run/redis.sock:0", &[GET], 0, "lost"), one(), "", &[]),
        (life(WHO, &[], 0, "lost"), one(), "", &[]),
        (life(WHO, &[GET, GET], 1, "lost"), one(), "", &[]),
        (life(WHO, &[SET, GET], 1, "lost"), one(), "", &[]),
        (life(WHO, &[SET, SET, GET], 1, "lost"), refused(), KILLS, at_large),
        (life(WHO, &[Command::Del(K)], 0, "lost"), refused(), KILLS, at_large),
        (life(WHO, &[Command::Unlink(&UNLINKED)], 0, "lost"), refused(), KILLS, &[]),
        (life(WHO, &[SET], 1, "retire"), one(), "", &[]),
    ] {
        let mut rig = Rig::new();
        let case = format!("{:?} answered {}, {:?}, {killed:?}", life.commands, life.answered, life.input);
        assert_eq!(rig.live(&life, one()), (String::new(), Vec::new()), "the first has nobody before it");
        rig.settle();
        rig.input("connected");
        let (said, left) = rig.shake_hands(Reply::Null, killed);
        assert_eq!(
            (said.as_str(), left),
            (kills, strays.iter().map(|key| Bytes::from(*key)).collect()),
            "{case}"
        );
        assert!(rig.link.is_ready(), "{case}");
        rig.input("lost");
        rig.input("due");
        rig.settle();
        rig.input("connected");
        let (said, left) = rig.shake_hands(Reply::Null, one());
        assert_eq!((said.as_str(), left), ("", Vec::new()), "it is asked once, and tells once: {case}");
    }
}

/// Until a handshake gets through, each one says so; and commands that wait meanwhile are nothing to fence.
#[test]
fn a_fence_outlives_handshakes_that_fail() {
    let mut rig = Rig::new();
    let dead = Life { info: WHO, commands: vec![GET, SET], answered: 1, input: "lost" };
    rig.live(&dead, ok());
    rig.link.stage(&Command::Del(Key { namespace: b"", key: b"waits" }), 8);
    for failure in ["lost", "due", "refused"] {
        rig.settle();
        if failure != "refused" {
            rig.input("connected");
            rig.settle();
        }
        rig.input(failure);
        rig.input("due");
        assert_eq!(rig.state(), "Dialing", "after {failure}");
    }
    rig.settle();
    rig.input("connected");
    rig.link.take_events();
    assert_eq!(rig.shake_hands(Reply::Null, error("NOPERM")), (KILLS.into(), vec!["n:k".into()]));
}

/// Nobody waits for it any more, but the server may.
#[test]
fn a_cancelled_write_is_fenced_too() {
    let mut rig = Rig::in_state("Ready");
    rig.link.stage(&SET, 7);
    let mut out = Vec::new();
    let _ = rig.link.poll_transmit(&mut out, |_| true);
    rig.link.handle_written(START, out.len());
    rig.link.tidy(|_| false); // Its caller left: too late to take it back.
    rig.input("lost");
    rig.input("due");
    rig.settle();
    rig.input("connected");
    rig.link.take_events();
    assert_eq!(rig.shake_hands(Reply::Null, error("NOPERM")), (KILLS.into(), vec!["n:k".into()]));
}
