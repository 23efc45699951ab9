//! The protocol layer.

use bytes::{Bytes, BytesMut};
use larder_engine::resp::{Command, DecodeError, Decoder, Key, Limits, Reply, ServerError};

use crate::Choices;

const SMALL: Limits = Limits { depth: 3, line: 24, bulk: 40, elements: 12, frame: 160 };

fn decode<'a>(
    limits: Limits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Reply>, Option<DecodeError>, u64) {
    let mut decoder = Decoder::new(limits);
    let (mut input, mut replies) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        if let Err(error) = decoder.decode(&mut input, &mut replies) {
            return (replies, Some(error), decoder.steps());
        }
    }
    (replies, None, decoder.steps())
}

/// Arbitrary bytes: no panic, each byte looked at once, and no more replies than bytes could make.
pub fn resp_scan(data: &[u8]) {
    for limits in [Limits::default(), SMALL] {
        let (replies, error, steps) = decode(limits, std::iter::once(data));
        assert!(steps <= data.len() as u64, "{steps} steps for {} bytes", data.len());
        assert!(replies.len() * 3 <= data.len());
        for reply in &replies {
            assert!(depth(reply) <= limits.depth, "deeper than the limit");
        }
        if let Some(error) = error {
            assert!(error.offset <= data.len() as u64);
            let _ = error.to_string();
        }
        let _ = format!("{replies:?}");
    }
}

fn depth(reply: &Reply) -> u32 {
    match reply {
        Reply::Array(all) | Reply::Set(all) | Reply::Push(all) if !all.is_empty() => {
            1 + all.iter().map(depth).max().unwrap_or(0)
        }
        Reply::Map(all) if !all.is_empty() => {
            1 + all.iter().map(|(a, b)| depth(a).max(depth(b))).max().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Any split of the same bytes gives the same replies, the same error and the same work.
pub fn resp_split(data: &[u8]) {
    let mut choices = Choices(data);
    let lengths: Vec<usize> =
        choices.bytes().iter().take(8).map(|&length| usize::from(length).max(1)).collect();
    let stream = choices.0;
    for limits in [Limits::default(), SMALL] {
        let whole = format!("{:?}", decode(limits, std::iter::once(stream)));
        assert_eq!(format!("{:?}", decode(limits, stream.chunks(1))), whole);
        let mut rest = stream;
        let mut lengths = lengths.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let (piece, more) = rest.split_at((*lengths.next()?).min(rest.len()));
            rest = more;
            (!piece.is_empty()).then_some(piece)
        });
        let pieces: Vec<_> = pieces.collect();
        if !pieces.is_empty() {
            assert_eq!(format!("{:?}", decode(limits, pieces.into_iter())), whole);
        }
    }
}

/// What was decoded, written in the plainest way, decodes to the same.
pub fn resp_round_trip(data: &[u8]) {
    let (replies, ..) = decode(Limits::default(), std::iter::once(data));
    let mut wire = Vec::new();
    replies.iter().for_each(|reply| put(&mut wire, reply));
    let (again, error, _) = decode(Limits::default(), std::iter::once(&wire[..]));
    assert_eq!((format!("{again:?}"), error), (format!("{replies:?}"), None));
}

fn put(out: &mut Vec<u8>, reply: &Reply) {
    let mut line =
        |kind: &str, text: &[u8]| out.extend_from_slice(&[kind.as_bytes(), text, b"\r\n"].concat());
    let mut blob = |kind: &str, text: &[u8]| {
        line(kind, text.len().to_string().as_bytes());
        line("", text);
    };
    match reply {
        Reply::Simple(text) => line("+", text),
        Reply::Error(error) => blob("!", &error_line(error)),
        Reply::Integer(number) => line(":", number.to_string().as_bytes()),
        Reply::Bulk(text) => blob("$", text),
        Reply::Null => line("_", b""),
        Reply::Boolean(is_true) => line("#", if *is_true { b"t" } else { b"f" }),
        Reply::Double(number) if number.is_nan() => line(",", b"nan"),
        Reply::Double(number) => line(",", number.to_string().as_bytes()),
        Reply::BigNumber(digits) => line("(", digits),
        Reply::Verbatim { format, text } => blob("=", &[format, &b":"[..], text].concat()),
        Reply::Array(all) | Reply::Set(all) | Reply::Push(all) => {
            let kind = match reply {
                Reply::Set(_) => "~",
                Reply::Push(_) => ">",
                _ => "*",
            };
            line(kind, all.len().to_string().as_bytes());
            all.iter().for_each(|element| put(out, element));
        }
        Reply::Map(all) => {
            line("%", all.len().to_string().as_bytes());
            all.iter().for_each(|(field, value)| {
                put(out, field);
                put(out, value);
            });
        }
        other => panic!("a kind of reply that this does not know: {other:?}"),
    }
}

fn error_line(error: &ServerError) -> Vec<u8> {
    let (code, message) = (error.code(), error.message());
    let candidates = [message.to_vec(), [code, b" ", message].concat(), code.to_vec()];
    let is_it = |line: &Vec<u8>| ServerError::new(Bytes::copy_from_slice(line)) == *error;
    candidates.into_iter().find(is_it).expect("one of the ways to split a line")
}

/// Ours against redis-rs and redis-protocol, on what all three should agree on: simple strings, integers, bulk strings,
/// nulls and arrays of these, in RESP2.
///
/// Known to differ, and therefore left out:
///
/// - **Errors.** Both refuse a line that is not UTF-8, although Redis quotes what it was sent, and redis-rs takes the line
///   apart into a code and a text, so that there are no bytes to compare.
/// - **Simple strings that are not UTF-8.** redis-rs refuses them.
/// - **RESP3.** redis-protocol's decoder for RESP2 knows none of its types. The one for RESP3 waits for ever after `$-1`
///   and `*-1`, refuses them within an array and behind an attribute, and overflows its stack on deep nesting; the engine's
///   own tests ask it where it can be asked.
/// - **Attributes.** We drop them, redis-rs wraps them around the reply, RESP2 has none.
/// - **What we refuse and one of them takes.** Any two bytes behind a bulk string instead of CR LF (redis-protocol); a CR
///   or LF within a line, a length with a plus or a leading zero, and `$-0` (both); negative lengths other than -1
///   (redis-rs, as null). A length that no server sends makes both wait for ever.
pub fn resp_differential(data: &[u8]) {
    let mut decoder = Decoder::new(Limits::default());
    let (mut input, mut replies) = (BytesMut::new(), Vec::new());
    let mut start = 0;
    for (at, byte) in data.iter().enumerate() {
        input.extend_from_slice(&[*byte]);
        if decoder.decode(&mut input, &mut replies).is_err() {
            return;
        }
        if let Some(reply) = replies.pop() {
            let frame = &data[start..=at];
            start = at + 1;
            if is_common(&reply) && is_resp2(frame) {
                let ours = format!("{reply:?}");
                let theirs = redis::parse_redis_value(frame).map(from_redis_rs).expect("redis-rs reads it");
                assert_eq!(format!("{theirs:?}"), ours, "redis-rs, of {}", frame.escape_ascii());
                let frame_read =
                    redis_protocol::resp2::decode::decode(frame).expect("redis-protocol reads it");
                let (theirs, length) = frame_read.expect("the frame is complete");
                assert_eq!(length, frame.len(), "redis-protocol, of {}", frame.escape_ascii());
                assert_eq!(format!("{:?}", from_redis_protocol(theirs)), ours, "redis-protocol");
            }
        }
    }
}

/// Only kinds of replies that the three agree on.
fn is_common(reply: &Reply) -> bool {
    match reply {
        Reply::Simple(text) => std::str::from_utf8(text).is_ok(),
        Reply::Integer(_) | Reply::Bulk(_) | Reply::Null => true,
        Reply::Array(all) => all.iter().all(is_common),
        _ => false,
    }
}

/// Nothing that could be an attribute or the null of RESP3, of which the reply shows nothing.
fn is_resp2(frame: &[u8]) -> bool {
    !frame.split(|&byte| byte == b'\n').any(|line| matches!(line, [b'|' | b'_', ..]))
}

fn from_redis_rs(value: redis::Value) -> Reply {
    match value {
        redis::Value::Okay => Reply::Simple("OK".into()),
        redis::Value::SimpleString(text) => Reply::Simple(text.into()),
        redis::Value::Nil => Reply::Null,
        redis::Value::Int(number) => Reply::Integer(number),
        redis::Value::BulkString(text) => Reply::Bulk(text.into()),
        redis::Value::Array(all) => Reply::Array(all.into_iter().map(from_redis_rs).collect()),
        other => panic!("not in common: {other:?}"),
    }
}

fn from_redis_protocol(frame: redis_protocol::resp2::types::OwnedFrame) -> Reply {
    use redis_protocol::resp2::types::OwnedFrame;
    match frame {
        OwnedFrame::SimpleString(text) => Reply::Simple(text.into()),
        OwnedFrame::Null => Reply::Null,
        OwnedFrame::Integer(number) => Reply::Integer(number),
        OwnedFrame::BulkString(text) => Reply::Bulk(text.into()),
        OwnedFrame::Array(all) => Reply::Array(all.into_iter().map(from_redis_protocol).collect()),
        other @ OwnedFrame::Error(_) => panic!("not in common: {other:?}"),
    }
}

/// Keys and values with CR, LF, NUL or anything else cannot move the framing, and lengths are announced exactly.
pub fn command_encode(data: &[u8]) {
    let mut choices = Choices(data);
    let (namespace, key) = (choices.bytes(), choices.bytes());
    let value = choices.0;
    let key = Key { namespace, key };
    let keys = [Bytes::copy_from_slice(value), Bytes::copy_from_slice(key.key)];
    for command in [
        Command::Get(key),
        Command::Set { key, value, ttl: None },
        Command::Del(key),
        Command::Unlink(&keys),
        Command::Scan { cursor: value.len() as u64, pattern: value, count: 10 },
        Command::Hello { version: 3, auth: Some((namespace, value)), client_name: Some(key.key) },
        Command::Auth { username: None, password: value },
    ] {
        let mut out = b"+before\r\n".to_vec();
        let before = out.len();
        command.encode(&mut out);
        assert_eq!(out.len() - before, command.encoded_len());
        out.extend_from_slice(b"+after\r\n");
        let (replies, error, _) = decode(Limits::default(), std::iter::once(&out[..]));
        assert_eq!((replies.len(), error), (3, None), "{}", out.escape_ascii());
        let Some(Reply::Array(words)) = replies.get(1) else { panic!("not an array of bulk strings") };
        assert!(words.iter().all(|word| matches!(word, Reply::Bulk(_))));
    }
}
