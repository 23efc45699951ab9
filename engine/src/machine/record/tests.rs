use std::format;
use std::string::String;
use std::task::{Poll, Waker};
use std::vec;

use super::redact::spelled as spell;
use super::*;
use crate::archive::disguised;
use crate::config::{Credentials, LaneConfig, Secret};
use crate::machine::{Action, Lane, OpId, Progress, Transmit};
use crate::policy::{Breaker, BreakerConfig};
use crate::resp::{Command, Key, ServerError};
use crate::time::Instant;

fn secret_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(99, |hash: u64, &byte| hash.wrapping_mul(1_000_003) ^ u64::from(byte))
}

fn hashed() -> Redaction {
    Redaction::hashed(Box::new(secret_hash))
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// One of each command that callers send.
fn commands() -> Vec<Command<'static>> {
    let key = Key { namespace: b"secret-space", key: b"secret-key" };
    static KEYS: [bytes::Bytes; 2] =
        [bytes::Bytes::from_static(b"secret-a"), bytes::Bytes::from_static(b"secret-b")];
    vec![
        Command::Get(key),
        Command::Get(Key { namespace: b"", key: b"secret-key" }),
        Command::Set { key, value: b"secret-value", ttl: None },
        Command::Set { key, value: b"", ttl: Some(core::time::Duration::from_secs(7)) },
        Command::Del(key),
        Command::Exists(key),
        Command::Unlink(&KEYS),
        Command::DelAll(&KEYS),
        Command::Eval { script: b"secret-script", keys: &KEYS, args: &KEYS },
        Command::Scan { cursor: 7, pattern: b"secret-*", count: 3 },
        Command::Info(b"secret-section"),
        Command::Info(b""),
        Command::Ping,
    ]
}

fn spelled(texts: &[step::Text]) -> Vec<u8> {
    texts.iter().map(|text| spell(text).expect("short")).collect::<Vec<_>>().concat()
}

#[test]
fn commands_keep_their_sizes_and_nothing_else() {
    for command in commands() {
        let mut wire = Vec::new();
        command.encode(&mut wire);
        let replaced = spelled(&hashed().command(&command));
        assert_eq!(replaced.len(), wire.len(), "{command:?}");
        assert!(!contains(&replaced, b"secret"), "{command:?}: {}", replaced.escape_ascii());
        assert_eq!(command.encode_marked().0, wire);
        let framing = |wire: &[u8]| wire.iter().filter(|&&byte| byte == b'\r').count();
        assert_eq!(framing(&replaced), framing(&wire), "{command:?}");
    }
}

/// What a lane puts out has the same hash before words were replaced and after.
#[test]
fn the_hash_of_a_command_is_that_of_its_replacement() {
    let hash = |redaction: &Redaction, wire: &[u8]| {
        let mut digest = Digest::new(redaction);
        digest.transmit(Transmit::Ready, wire);
        digest.finish()
    };
    let mut hashes = Vec::new();
    for command in commands() {
        let mut wire = Vec::new();
        command.encode(&mut wire);
        let replaced = spelled(&hashed().command(&command));
        assert_eq!(hash(&hashed(), &wire), hash(&Redaction::Verbatim, &replaced), "{command:?}");
        hashes.push(hash(&hashed(), &wire));
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), commands().len(), "others have others");
}

#[test]
fn replies_keep_their_shape_and_errors_what_the_engine_understands() {
    let error = |line: &'static str| Reply::Error(ServerError::new(line.into()));
    let replies = vec![
        Reply::Simple("OK".into()),
        Reply::Simple("secret".into()),
        Reply::Bulk("secret".into()),
        Reply::Bulk("".into()),
        Reply::Array(vec![Reply::Integer(-3), Reply::Set(vec![Reply::Null]), Reply::Boolean(true)]),
        Reply::Map(vec![(Reply::Bulk("secret".into()), Reply::Double(1.5))]),
        Reply::Push(vec![Reply::BigNumber("123456".into())]),
        Reply::Verbatim { format: *b"txt", text: "secret".into() },
        error("READONLY You can't write against a secret"),
        error("ERR unknown command 'secret', with args beginning with: 'secret'"),
        error("ERR max number of clients reached"),
        error("ERR Protocol secret"),
        error("secret"),
        error("WRONGTYPE"),
    ];
    let nodes = hashed().replies(&replies, true);
    let again = redact::replies_of(&nodes).expect("as written");
    assert!(!format!("{again:?}").contains("secret"), "{again:?}");
    assert_eq!(again.len(), replies.len());
    for (before, after) in replies.iter().zip(&again) {
        assert_eq!((before.kind(), before.is_ok()), (after.kind(), after.is_ok()));
        assert_eq!(before.as_bytes().map(<[u8]>::len), after.as_bytes().map(<[u8]>::len));
        if let (Reply::Error(before), Reply::Error(after)) = (before, after) {
            assert_eq!((before.class(), before.code()), (after.class(), after.code()));
            assert_eq!(before.line().len(), after.line().len());
        }
        let hash = |redaction: &Redaction, reply: &Reply| {
            let mut digest = Digest::new(redaction);
            digest.progress(&Progress::Done(crate::machine::Outcome::Reply(reply.clone()), at(1)));
            digest.finish()
        };
        assert_eq!(hash(&hashed(), before), hash(&Redaction::Verbatim, after), "{before:?}");
    }
}

/// The handshake reads who it is: the number of the connection, and an address of the same length.
#[test]
fn client_info_keeps_its_number_and_hides_the_address() {
    let info = b"id=27 addr=192.168.0.7:43210 laddr=secret:6379 name=secret user=secret\n";
    let nodes = hashed().replies(&[Reply::Verbatim { format: *b"txt", text: info[..].into() }], false);
    let [Reply::Verbatim { format, text }] = &redact::replies_of(&nodes).expect("as written")[..] else {
        panic!("{nodes:?}");
    };
    assert_eq!((format, text.len()), (b"txt", info.len()));
    assert!(text.starts_with(b"id=27 addr=111.111.0.1:11110 ") && !contains(text, b"secret"), "{text:?}");
    let nodes = hashed().replies(&[Reply::Bulk(info[..].into())], true);
    let text = format!("{:?}", redact::replies_of(&nodes));
    assert!(!text.contains("id=27"), "somebody's value: {text}");
}

/// A lane with a password that connects, is asked so many things and answers them, is asked three, answers two, and is lost.
fn lived(seed: u64, max_bytes: usize, before: usize) -> Lane {
    let mut config = LaneConfig::default();
    config.handshake.credentials =
        Some(Credentials { username: Some("secret-user".into()), password: Secret::from("secret-password") });
    config.handshake.client_name = Some("secret-client".into());
    config.handshake.database = 3;
    let mut lane = Lane::recorded(config, seed, at(0), Recorder::new(max_bytes, secret_hash));
    let permit = || Breaker::new(BreakerConfig::default(), 1).admit(at(0)).expect("closed");
    let pass = |lane: &mut Lane, now| {
        while lane.poll_action().is_some() {}
        let mut out = Vec::new();
        while lane.poll_transmit(&mut out) != Transmit::Nothing {}
        lane.handle_written(now, out.len());
        lane.drain_signals().for_each(drop);
    };
    let ask = |lane: &mut Lane, now, command: &Command<'_>| -> OpId {
        lane.submit(now, command, permit(), at(5_000)).expect("room")
    };
    pass(&mut lane, at(1));
    lane.handle_connected(at(2));
    pass(&mut lane, at(2));
    lane.handle_replies(at(3), &mut vec![Reply::Map(Vec::new())]).expect("let in");
    pass(&mut lane, at(3));
    let mut setup = vec![Reply::Simple("OK".into()); 3];
    setup.push(Reply::Bulk("id=27 addr=192.168.0.7:43210 name=secret".into()));
    lane.handle_replies(at(4), &mut setup).expect("set up");
    assert!(lane.is_ready());
    for _ in 0..before {
        let id = ask(&mut lane, at(4), &commands()[0]);
        pass(&mut lane, at(4));
        lane.handle_replies(at(4), &mut vec![Reply::Null]).expect("asked for");
        assert!(matches!(lane.poll(id, Waker::noop()), Poll::Ready(Progress::Done(..))));
    }
    let ids: Vec<OpId> = commands().iter().take(3).map(|command| ask(&mut lane, at(5), command)).collect();
    pass(&mut lane, at(5));
    let mut replies = vec![Reply::Bulk("secret-reply".into()), Reply::Null];
    lane.handle_replies(at(6), &mut replies).expect("asked for");
    for id in &ids[..2] {
        assert!(matches!(lane.poll(*id, Waker::noop()), Poll::Ready(Progress::Done(..))));
    }
    lane.handle_disconnected(at(7), crate::machine::Disconnect::Lost);
    pass(&mut lane, at(7));
    lane.handle_timeout(at(1_000));
    lane.cancel(ids[2]);
    lane.close(at(1_001), at(1_001));
    assert_eq!(lane.poll_action(), Some(Action::HangUp));
    lane
}

fn recording(max_bytes: usize) -> Recording {
    recording_of(max_bytes, 0)
}

fn recording_of(max_bytes: usize, before: usize) -> Recording {
    Recording {
        lanes: vec![lived(7, max_bytes, before).recording().expect("recorded")],
        ..Recording::default()
    }
}

#[test]
fn a_recording_replays_and_shows_each_step() {
    let recording = recording(1 << 20);
    let read = Recording::from_bytes(&recording.to_bytes());
    assert_eq!(read.as_ref(), Ok(&recording));
    let mut lines = Vec::new();
    let replayed = recording.replay(|part, line| lines.push(format!("{part} {line}"))).expect("whole");
    assert_eq!(replayed.difference, None, "{lines:#?}");
    assert_eq!((replayed.steps, replayed.left_out), (lines.len() as u64, 0));
    let text = lines.join("\n");
    for part in
        ["5ms Submit 43 bytes: *2\\r\\n$3\\r\\nGET", "6ms Replies [Bulk(", "7ms Disconnected", "Signals"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn no_secret_is_in_a_recording() {
    let bytes = recording(1 << 20).to_bytes();
    assert!(!contains(&bytes, b"secret"), "{}", bytes.escape_ascii());
}

#[test]
fn another_result_is_told_with_its_step() {
    let whole = recording(1 << 20);
    let steps = whole.lanes[0].count;
    // The hash of the latest step is the end of the file.
    let mut other = whole.clone();
    *other.lanes[0].steps.last_mut().expect("steps") ^= 1;
    let difference = other.replay(|_, _| {}).expect("whole").difference.expect("found");
    assert_eq!((difference.part, difference.step), (Part::Lane(0), steps - 1));
    let text: String = format!("{difference}");
    assert!(text.contains("had another result") && text.ends_with("Action"), "{text}");
    // Another seed is another redial.
    let mut other = whole;
    other.lanes[0].state = lived(8, 1 << 20, 0).recording().expect("recorded").state;
    let difference = other.replay(|_, _| {}).expect("whole").difference.expect("found");
    assert!(difference.input.contains("Disconnected"), "{difference}");
}

#[test]
fn no_changed_byte_panics_and_most_are_noticed() {
    let whole = recording(1 << 20);
    let (mut unnoticed, all) = (0, whole.lanes[0].steps.len());
    for at in 0..all {
        let mut other = whole.clone();
        other.lanes[0].steps[at] ^= 1;
        unnoticed += usize::from(matches!(other.replay(|_, _| {}), Ok(Replayed { difference: None, .. })));
    }
    // Among these the answer to `CLIENT INFO`, which nothing comes of before a write is left unanswered.
    assert!(unnoticed * 2 < all, "{unnoticed} of {all}: what no output depends on");
    let mut bytes = whole.to_bytes();
    for at in 0..bytes.len() {
        assert!(Recording::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        bytes[at] ^= 1;
        assert!(Recording::from_bytes(&bytes).is_err(), "changed at {at}");
        bytes[at] ^= 1;
    }
    assert_eq!(Recording::from_bytes(b"*1\r\n"), Err(BadRecording::NotOne));
}

/// A lane that is told so much more than its recording may hold that it keeps the end of it, wherever that begins.
#[test]
fn a_full_recording_is_its_end() {
    /// More than twice the largest state of this lane.
    const TWO_STATES: usize = 800;

    let whole = recording_of(1 << 20, 50);
    let all = &whole.lanes[0];
    for max_bytes in [0, 1, 500, 1000, all.steps.len() - 1] {
        let part = recording_of(max_bytes, 50);
        let lane = &part.lanes[0];
        assert!(lane.steps.len() <= max_bytes.max(TWO_STATES) && all.steps.ends_with(&lane.steps));
        assert_eq!(lane.count() + lane.left_out(), all.count());
        let replayed = part.replay(|_, _| {}).expect("whole as far as it goes");
        let expected = Replayed { steps: lane.count(), left_out: lane.left_out(), difference: None };
        assert!(replayed == expected && lane.left_out() > 0, "{replayed:?}");
    }
}

/// Of keys it stays what is equal and what begins alike up to a colon; nothing of their words, however short.
#[test]
fn keys_are_exchanged_one_for_one() {
    let words =
        ["", "1", "2", "id", "ids", "user", "a-word-that-is-long-enough", "a-word-that-is-long-enougj"];
    let mut keys: Vec<String> = Vec::new();
    for one in words {
        keys.push(one.into());
        keys.extend(words.iter().map(|other| format!("{one}:{other}")));
    }
    let instead: Vec<Vec<u8>> = keys.iter().map(|key| disguised(key.as_bytes(), &secret_hash)).collect();
    for (key, text) in keys.iter().zip(&instead) {
        assert_eq!(text.len(), key.len());
        let differ =
            text.iter().zip(key.as_bytes()).filter(|(text, key)| text != key && **key != b':').count();
        assert!(differ * 4 >= key.len().saturating_sub(3), "{key} {}", text.escape_ascii());
        for (other_key, other) in keys.iter().zip(&instead) {
            assert_eq!(key == other_key, text == other, "{key} {other_key}");
            let (prefix, begin) = (format!("{key}:"), [&text[..], b":"].concat());
            assert_eq!(other_key.starts_with(&prefix), other.starts_with(&begin), "{key} {other_key}");
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
