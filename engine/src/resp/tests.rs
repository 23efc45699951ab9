//! The layer as a whole: against a naive decoder, against redis-protocol, and against what has hurt others.

use alloc::vec::Vec;
use std::format;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use proptest::prelude::*;

use super::testing::{
    any_reply, any_stream, cut, decode, error_of, naive_decode, replies_of, reply_of, wire,
};
use super::{Command, Decoder, ErrorClass, Key, Limits, Reply, ServerError, Violation};

const SMALL: Limits = Limits { depth: 3, line: 24, bulk: 40, elements: 12, frame: 160 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Arbitrary bytes: what the naive decoder makes of them, in whatever pieces they come.
    #[test]
    fn streams_decode_like_the_naive_decoder(stream in any_stream(), lengths in prop::collection::vec(1usize..40, 1..5)) {
        for limits in [Limits::default(), SMALL] {
            let (expected, wrong) = naive_decode(limits, &stream);
            let pieces = cut(&stream, &lengths);
            for (replies, error) in [decode(limits, [&stream]), decode(limits, pieces), decode(limits, cut(&stream, &[1]))] {
                prop_assert_eq!(format!("{replies:?}"), format!("{expected:?}"));
                prop_assert_eq!(error.is_some(), wrong, "{:?} of {}", error, stream.escape_ascii());
            }
        }
    }

    /// The error, too, does not depend on the pieces.
    #[test]
    fn any_split_is_one_piece(stream in any_stream(), lengths in prop::collection::vec(1usize..40, 1..5)) {
        for limits in [Limits::default(), SMALL] {
            let whole = format!("{:?}", decode(limits, [&stream]));
            prop_assert_eq!(&format!("{:?}", decode(limits, cut(&stream, &lengths))), &whole);
            prop_assert_eq!(&format!("{:?}", decode(limits, cut(&stream, &[1]))), &whole);
        }
    }

    #[test]
    fn replies_round_trip(replies in prop::collection::vec(any_reply(), 0..5), seed in any::<u64>()) {
        let mut rng = Some(Rng::with_seed(seed));
        let stream: Vec<u8> = replies.iter().flat_map(|reply| wire(reply, &mut rng)).collect();
        prop_assert_eq!(replies_of(stream), replies);
    }

    /// The second opinion on aggregates. What it is known to get wrong is left out: nulls of RESP2 in RESP3, attributes,
    /// blob errors of non-UTF-8, NaN, maps and sets with equal members, and big numbers.
    #[test]
    fn arrays_decode_like_redis_protocol(texts in prop::collection::vec("[a-z]{0,20}", 0..20), numbers in prop::collection::vec(any::<i64>(), 0..20)) {
        let mut reply: Vec<Reply> = texts.into_iter().map(|text| Reply::Bulk(text.into())).collect();
        reply.extend(numbers.into_iter().map(Reply::Integer));
        let reply = Reply::Array(vec![Reply::Array(reply.clone()), Reply::Array(reply)]);
        let stream = wire(&reply, &mut None);
        let theirs = redis_protocol::resp3::decode::complete::decode(&stream).expect("valid").expect("complete");
        prop_assert_eq!(theirs.1, stream.len());
        prop_assert_eq!(format!("{:?}", from_redis_protocol(theirs.0)), format!("{reply:?}"));
    }

    /// CR, LF and NUL in keys and values are bytes like others.
    #[test]
    fn commands_are_framed_whatever_is_in_them(
        namespace in prop::collection::vec(any::<u8>(), 0..10),
        key in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..40),
        value in prop::collection::vec(any::<u8>(), 0..300),
        millis in prop::option::of(0u64..u64::MAX),
    ) {
        let key = Key { namespace: &namespace, key: &key };
        let ttl = millis.map(Duration::from_millis);
        let keys = [Bytes::copy_from_slice(&value), Bytes::from_static(b"\r\n")];
        for command in [
            Command::Get(key), Command::Del(key), Command::Exists(key), Command::PTtl(key),
            Command::Set { key, value: &value, ttl }, Command::Unlink(&keys),
            Command::Scan { cursor: u64::MAX, pattern: &value, count: u32::MAX },
            Command::Hello { version: 3, auth: Some((&namespace, &value)), client_name: Some(&namespace) },
            Command::Auth { username: Some(&namespace), password: &value },
        ] {
            let mut out = vec![b'x'];
            command.encode(&mut out);
            prop_assert_eq!(out.len(), 1 + command.encoded_len());
            let Reply::Array(words) = reply_of(&out[1..]) else { panic!("not an array") };
            let words: Vec<_> = words.iter().map(|word| word.as_bytes().expect("a bulk").to_vec()).collect();
            let first = command.name().split(' ').next().unwrap_or_default();
            prop_assert_eq!(&words[0], first.as_bytes());
            if let Command::Set { .. } = command {
                let whole = if namespace.is_empty() { key.key.to_vec() } else { [&namespace, &b":"[..], key.key].concat() };
                prop_assert_eq!(&words[1], &whole);
                prop_assert_eq!(&words[2], &value);
            }
        }
    }
}

fn from_redis_protocol(frame: redis_protocol::resp3::types::OwnedFrame) -> Reply {
    use redis_protocol::resp3::types::OwnedFrame;
    match frame {
        OwnedFrame::BlobString { data, .. } => Reply::Bulk(data.into()),
        OwnedFrame::Number { data, .. } => Reply::Integer(data),
        OwnedFrame::Array { data, .. } => Reply::Array(data.into_iter().map(from_redis_protocol).collect()),
        other => panic!("not in the test: {other:?}"),
    }
}

/// Each byte is looked at once: 10 000 values of 1 KiB cost the same in pieces of any size.
#[test]
fn work_is_linear_however_the_bytes_come() {
    let value = Reply::Bulk(vec![b'v'; 1024].into());
    let stream = wire(&Reply::Array(vec![value; 10_000]), &mut None);
    let steps = |length: usize| {
        let mut decoder = Decoder::new(Limits::default());
        let (mut input, mut replies) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(length) {
            input.extend_from_slice(piece);
            decoder.decode(&mut input, &mut replies).expect("valid");
        }
        assert_eq!(replies.len(), 1);
        decoder.steps()
    };
    let whole = steps(stream.len());
    assert!(whole < 10_000 * 20, "{whole} steps: payloads are skipped");
    for length in [1, 7, 4096, 16_384] {
        let pieces = steps(length);
        assert!(pieces * 10 <= whole * 11, "{pieces} steps in pieces of {length}, {whole} in one");
    }
}

/// What has hurt other clients, and what becomes of it here: by name, bytes, and the words of the error.
#[test]
fn hazards_of_framing_are_refused() {
    let nested = "*1\r\n".repeat(33);
    let bomb = "*1\r\n".repeat(100_000);
    let long_line = format!("+{}", "x".repeat((64 << 10) + 1));
    for (name, stream, says) in [
        (
            "hiredis CVE-2021-32765: a count that overflows when multiplied",
            "*9223372036854775807\r\n",
            "elements",
        ),
        ("the same in a map", "%4611686018427387905\r\n", "elements"),
        ("the same beyond 64 bits", "*18446744073709551617\r\n", "elements"),
        ("hiredis 1.4.1 and ioredis#2108: nesting", nested.as_str(), "nested deeper"),
        ("a nesting bomb", bomb.as_str(), "nested deeper"),
        ("no CR LF after a bulk", "$3\r\nabcXY+OK\r\n", "not followed"),
        ("a bulk longer than its length", "$3\r\nabcd\r\n", "not followed"),
        ("a bulk of 512 MiB", "$536870912\r\n", "bulk"),
        ("a bulk of 9e18 that would be waited for", "$9000000000000000000\r\n", "bulk"),
        ("a negative length", "$-2\r\n", "length"),
        ("a negative length of a blob error", "!-1\r\n", "length"),
        ("a negative count", "*-2\r\n", "length"),
        ("a length with a plus", "$+3\r\nabc\r\n", "length"),
        ("a length with a leading zero", "$03\r\nabc\r\n", "length"),
        ("an empty length", "$\r\n", "length"),
        ("a line without end", long_line.as_str(), "line"),
        ("LF alone", "+OK\n", "CR LF"),
        ("CR alone", "+OK\rX", "CR LF"),
        ("an integer beyond 64 bits", ":9223372036854775808\r\n", "integer"),
        ("a streamed string", "$?\r\n;4\r\n", "streamed"),
        ("a streamed array", "*?\r\n", "streamed"),
        ("the end of a stream that never began", ".\r\n", "streamed"),
        ("a chunk of a stream that never began", ";4\r\nabcd\r\n", "streamed"),
        ("a push inside an array", "*2\r\n:1\r\n>1\r\n+x\r\n", "push"),
        ("HTTP", "HTTP/1.1 400 Bad Request\r\n", "begins no RESP reply"),
        ("a TLS alert", "\u{15}\u{3}\u{1}", "begins no RESP reply"),
        ("a boolean that is none", "#x\r\n", "boolean"),
        ("a null that is none", "_x\r\n", "null"),
        ("a double that is none", ",1.2.3\r\n", "double"),
        ("a big number that is none", "(12x\r\n", "big number"),
        ("a verbatim string without its colon", "=5\r\ntxtxx\r\n", "verbatim"),
        ("a verbatim string that is too short", "=3\r\ntxt\r\n", "verbatim"),
    ] {
        let error = error_of(Limits::default(), stream);
        assert!(error.to_string().contains(says), "{name}: {error}");
        // What comes behind is not read, whatever it is.
        let (replies, _) = decode(Limits::default(), [&format!("+before\r\n{stream}+after\r\n")]);
        assert_eq!(replies, [Reply::Simple("before".into())], "{name}");
    }
}

#[test]
fn oddities_that_redis_may_send_are_understood() {
    let bulk = |text: &'static str| Reply::Bulk(text.into());
    for (name, stream, expected) in [
        (
            "a RESP2 null in RESP3 does not swallow what follows",
            "$-1\r\n+OK\r\n",
            vec![Reply::Null, Reply::Simple("OK".into())],
        ),
        ("a null array", "*-1\r\n:1\r\n", vec![Reply::Null, Reply::Integer(1)]),
        (
            "nulls of three spellings in one array",
            "*3\r\n$-1\r\n*-1\r\n_\r\n",
            vec![Reply::Array(vec![Reply::Null; 3])],
        ),
        ("an attribute before a null", "|1\r\n+ttl\r\n:3\r\n_\r\n", vec![Reply::Null]),
        (
            "an attribute inside an array is no element",
            "*2\r\n|1\r\n+a\r\n+b\r\n$1\r\nx\r\n$1\r\ny\r\n",
            vec![Reply::Array(vec![bulk("x"), bulk("y")])],
        ),
        ("nested attributes", "|1\r\n|1\r\n+a\r\n+b\r\n+c\r\n+d\r\n:7\r\n", vec![Reply::Integer(7)]),
        (
            "an attribute before a push",
            "|1\r\n+a\r\n+b\r\n>1\r\n+p\r\n",
            vec![Reply::Push(vec![Reply::Simple("p".into())])],
        ),
        (
            "a push between replies",
            "+a\r\n>2\r\n+invalidate\r\n_\r\n+b\r\n",
            vec![
                Reply::Simple("a".into()),
                Reply::Push(vec![Reply::Simple("invalidate".into()), Reply::Null]),
                Reply::Simple("b".into()),
            ],
        ),
        ("an empty push", ">0\r\n", vec![Reply::Push(vec![])]),
        ("an integer with a plus", ":+5\r\n", vec![Reply::Integer(5)]),
        ("minus zero", ":-0\r\n", vec![Reply::Integer(0)]),
        ("the smallest integer", ":-9223372036854775808\r\n", vec![Reply::Integer(i64::MIN)]),
        (
            "infinity",
            ",inf\r\n,-inf\r\n",
            vec![Reply::Double(f64::INFINITY), Reply::Double(f64::NEG_INFINITY)],
        ),
        ("an empty bulk", "$0\r\n\r\n", vec![bulk("")]),
        (
            "empty aggregates",
            "*0\r\n~0\r\n%0\r\n",
            vec![Reply::Array(vec![]), Reply::Set(vec![]), Reply::Map(vec![])],
        ),
        (
            "equal fields of a map",
            "%2\r\n:1\r\n:2\r\n:1\r\n:3\r\n",
            vec![Reply::Map(vec![
                (Reply::Integer(1), Reply::Integer(2)),
                (Reply::Integer(1), Reply::Integer(3)),
            ])],
        ),
    ] {
        assert_eq!(replies_of(stream), expected, "{name}");
    }
    assert!(matches!(reply_of(",nan\r\n"), Reply::Double(number) if number.is_nan()));
    assert!(matches!(reply_of(",-nan\r\n"), Reply::Double(number) if number.is_nan()));
}

#[test]
fn a_huge_announcement_allocates_nothing() {
    for stream in ["$67108864\r\n", "*1048576\r\n", "%524288\r\n"] {
        let mut decoder = Decoder::new(Limits::default());
        let (mut input, mut replies) = (BytesMut::from(stream), Vec::new());
        decoder.decode(&mut input, &mut replies).expect("within the limits");
        assert!(input.capacity() < 1024 && replies.capacity() < 16, "{stream:?}");
        assert!(decoder.missing() <= Limits::default().bulk + 2);
    }
}

#[test]
fn each_limit_is_exact() {
    for (fits, over, violation) in [
        ("*1\r\n*1\r\n*1\r\n:1\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", Violation::Depth { limit: 3 }),
        ("+123456789012345678901234\r\n", "+1234567890123456789012345\r\n", Violation::Line { limit: 24 }),
        ("*12\r\n", "*13\r\n", Violation::Elements { limit: 12 }),
        ("%6\r\n", "%7\r\n", Violation::Elements { limit: 12 }),
        ("$40\r\n", "$41\r\n", Violation::Bulk { limit: 40 }),
    ] {
        assert_eq!(decode(SMALL, [fits]).1, None, "{fits:?}");
        let error = error_of(SMALL, over);
        assert_eq!(error.violation, violation, "{over:?}");
        assert!(error.violation.is_limit());
    }
    let bulk = "$40\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";
    let error = error_of(SMALL, format!("*4\r\n{bulk}{bulk}{bulk}{bulk}"));
    assert_eq!(error.violation, Violation::Frame { limit: 160 });
    assert_eq!(decode(SMALL, [bulk.repeat(10)]).1, None, "the limit is a frame's, not the stream's");
}

#[test]
fn an_error_says_where_in_the_stream_it_is() {
    let error = error_of(Limits::default(), "+OK\r\n$3\r\nabc\r\n*1\r\n?");
    assert_eq!((error.offset, error.violation), (18, Violation::UnknownType(b'?')));
}

#[test]
fn errors_are_classified_by_their_first_word() {
    use ErrorClass::{Auth, Caller, Capacity, Topology, Transient, Unsupported};
    for (line, code, class) in [
        ("LOADING Redis is loading the dataset in memory", "LOADING", Transient),
        ("BUSY Redis is busy running a script", "BUSY", Transient),
        ("TRYAGAIN Multiple keys request", "TRYAGAIN", Transient),
        ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN", Transient),
        ("MASTERDOWN Link with MASTER is down", "MASTERDOWN", Transient),
        ("ERR max number of clients reached", "ERR", Transient),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", Topology),
        ("ASK 3999 127.0.0.1:6381", "ASK", Topology),
        ("READONLY You can't write against a read only replica.", "READONLY", Topology),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", Capacity),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF", Capacity),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", Capacity),
        ("NOAUTH Authentication required.", "NOAUTH", Auth),
        ("WRONGPASS invalid username-password pair", "WRONGPASS", Auth),
        ("NOPERM this user has no permissions", "NOPERM", Auth),
        ("NOPROTO unsupported protocol version", "NOPROTO", Unsupported),
        ("ERR unknown command 'FOO'", "ERR", Unsupported),
        ("WRONGTYPE Operation against a key", "WRONGTYPE", Caller),
        ("BUSYGROUP Consumer Group name already exists", "BUSYGROUP", Caller),
        ("ERR syntax error", "ERR", Caller),
        ("no code at all", "ERR", Caller),
        ("", "ERR", Caller),
    ] {
        let error = ServerError::new(Bytes::copy_from_slice(line.as_bytes()));
        assert_eq!((error.code(), error.class()), (code.as_bytes(), class), "{line}");
        assert_eq!(error.to_string(), line);
    }
}

#[test]
fn error_text_is_kept_as_it_is_and_shown_escaped_and_short() {
    let error = ServerError::new(Bytes::from_static(b"ERR bad \xff\x00 byte"));
    assert_eq!(error.message(), b"bad \xff\x00 byte");
    assert_eq!(error.to_string(), "ERR bad \\xff\\u{0} byte");
    let long = ServerError::new(vec![b'x'; 1 << 20].into()).to_string();
    assert!(long.chars().count() <= 257 && long.ends_with('…'));
    let quoted = ServerError::new(Bytes::from_static(
        b"ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `secret`",
    ));
    assert!(!quoted.to_string().contains("secret"), "{quoted}");
    assert!(!format!("{:?}", Command::Auth { username: None, password: b"secret" }).contains("secret"));
    let hello = Command::Hello { version: 3, auth: Some((b"me", b"secret")), client_name: None };
    assert!(!format!("{hello:?}").contains("secret"));
}

#[test]
fn integers_are_written_exactly_around_every_power() {
    let around = |power: u128| (-3..=3).filter_map(move |by| u64::try_from(power as i128 + by).ok());
    let powers = (0..=19).map(|n| 10_u128.pow(n)).chain((0..=64).map(|n| 1 << n));
    for cursor in powers.flat_map(around) {
        let command = Command::Scan { cursor, pattern: b"*", count: 1 };
        let mut out = Vec::new();
        command.encode(&mut out);
        assert_eq!(out.len(), command.encoded_len());
        let Reply::Array(words) = reply_of(&out) else { panic!("not an array") };
        assert_eq!(words[1].as_bytes().map(String::from_utf8_lossy), Some(cursor.to_string().into()));
    }
}

#[test]
fn times_to_live_are_whole_milliseconds_rounded_up() {
    for (ttl, millis) in [
        (Duration::ZERO, "1"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_millis(1), "1"),
        (Duration::from_nanos(1_000_001), "2"),
        (Duration::from_secs(60), "60000"),
        (Duration::MAX, "4611686018427387904"),
    ] {
        let key = Key { namespace: b"", key: b"k" };
        let mut out = Vec::new();
        Command::Set { key, value: b"v", ttl: Some(ttl) }.encode(&mut out);
        let Reply::Array(words) = reply_of(&out) else { panic!("not an array") };
        let words: Vec<_> = words.iter().filter_map(Reply::as_bytes).map(String::from_utf8_lossy).collect();
        assert_eq!(words, ["SET", "k", "v", "PX", millis], "{ttl:?}");
    }
}

#[test]
fn a_page_of_a_scan_is_read_or_refused() {
    let page = reply_of("*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n").into_scan().expect("a page");
    assert_eq!(page, (17, vec![Bytes::from("a"), Bytes::from("b")]));
    for wrong in [
        "+OK\r\n",
        "*1\r\n$1\r\n0\r\n",
        "*2\r\n$1\r\nx\r\n*0\r\n",
        "*2\r\n$1\r\n0\r\n:1\r\n",
        "*2\r\n$1\r\n0\r\n*1\r\n_\r\n",
    ] {
        assert!(reply_of(wrong).into_scan().is_err(), "{wrong:?}");
    }
}
