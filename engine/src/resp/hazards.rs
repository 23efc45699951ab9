//! Streams that other clients and parsers stumbled over, by name, and the edges of every limit.

use alloc::vec::Vec;
use std::{format, vec};

use super::testing::{decode, error_of, replies_of, reply_of};
use super::{Limits, Reply, ServerError, Violation};

/// What is wrong with a stream, at the default limits.
fn violation_of(stream: impl AsRef<[u8]>) -> Violation {
    error_of(Limits::default(), stream).violation
}

/// The violation and its offset.
fn found(limits: Limits, stream: impl AsRef<[u8]>) -> (Violation, u64) {
    let error = error_of(limits, stream);
    (error.violation, error.offset)
}

#[test]
fn multi_bulk_count_overflow_cve_2021_32765() {
    let limit = Limits::default().elements;
    for count in [
        "1048577",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999999999999999",
    ] {
        for kind in ["*", "~", ">", "%", "|"] {
            assert_eq!(violation_of(format!("{kind}{count}\r\n")), Violation::Elements { limit });
        }
    }
}

#[test]
fn map_element_overflow_hiredis_1341() {
    let limit = Limits::default().elements;
    // Twice the number wraps around to 2.
    for kind in ["%", "|"] {
        assert_eq!(violation_of(format!("{kind}9223372036854775809\r\n")), Violation::Elements { limit });
        assert_eq!(violation_of(format!("{kind}4611686018427387905\r\n")), Violation::Elements { limit });
        assert_eq!(violation_of(format!("{kind}524289\r\n")), Violation::Elements { limit });
    }
}

#[test]
fn nesting_overflows_no_stack_hiredis_1335_ioredis_2108() {
    let limits = Limits::default();
    for (kind, filler) in [("*1\r\n", ""), ("~1\r\n", ""), ("%1\r\n", "+key\r\n"), ("|1\r\n", "+key\r\n")] {
        let nested = |depth: usize| [kind, filler].concat().repeat(depth);
        let head = nested(1).len() as u64;
        assert_eq!(found(limits, nested(33)), (Violation::Depth { limit: 32 }, 32 * head));
        assert_eq!(found(limits, nested(100_000)), (Violation::Depth { limit: 32 }, 32 * head));
        assert_eq!(decode(limits, [nested(32)]), (vec![], None));
    }
    let closed = |depth: usize| ["*1\r\n".repeat(depth).as_str(), ":1\r\n"].concat();
    assert_eq!(replies_of(closed(32)).len(), 1);
    // Empty aggregates nest as well.
    assert_eq!(found(limits, "*1\r\n".repeat(32) + "*0\r\n"), (Violation::Depth { limit: 32 }, 128));
    // Siblings do not.
    assert_eq!(replies_of(["*100\r\n", &"*1\r\n*0\r\n".repeat(100)].concat()).len(), 1);
}

#[test]
fn the_deepest_nesting_that_can_be_allowed_is_harmless() {
    let limits = Limits { depth: u32::MAX, ..Limits::default() };
    let most = Limits::MAX_DEPTH as usize;
    let too_deep = Violation::Depth { limit: Limits::MAX_DEPTH };
    assert_eq!(found(limits, "*1\r\n".repeat(most + 1)), (too_deep, 4 * most as u64));
    // On a stack a quarter of the size that threads usually have: build, compare, show, clone, drop.
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        let (replies, error) = decode(limits, ["%1\r\n_\r\n".repeat(most) + "_\r\n"]);
        assert_eq!((replies.len(), error), (1, None));
        assert_eq!(replies.clone(), replies);
        assert!(!format!("{replies:?}").is_empty());
    });
    thread.expect("a thread").join().expect("no overflow");
}

#[test]
fn null_in_its_three_spellings_swallows_nothing() {
    for null in ["$-1\r\n", "*-1\r\n", "_\r\n"] {
        let replies = replies_of([null, "+OK\r\n", null, "*2\r\n", null, ":1\r\n", ":2\r\n"].concat());
        let array = Reply::Array(vec![Reply::Null, Reply::Integer(1)]);
        let expected = [Reply::Null, Reply::Simple("OK".into()), Reply::Null, array, Reply::Integer(2)];
        assert_eq!(replies, expected, "{null:?}");
    }
}

#[test]
fn the_line_end_behind_a_bulk_is_checked() {
    for (stream, offset) in [
        ("$3\r\nfooXY", 7),
        ("$3\r\nfoo\n\r", 7),
        ("$3\r\nfoo\r\r", 7),
        ("$3\r\nfoobar\r\n", 7),
        ("$0\r\nxx", 4),
        ("!3\r\nERRXY", 7),
        ("=7\r\ntxt:fooXY", 11),
        ("*2\r\n$3\r\nfooXY", 11),
    ] {
        assert_eq!(found(Limits::default(), stream), (Violation::BulkEnd, offset), "{stream:?}");
    }
}

#[test]
fn an_attribute_before_null_is_no_frame_of_its_own() {
    let replies = replies_of("|1\r\n+ttl\r\n:1\r\n_\r\n|1\r\n+ttl\r\n:1\r\n$-1\r\n+OK\r\n");
    assert_eq!(replies, [Reply::Null, Reply::Null, Reply::Simple("OK".into())]);
}

#[test]
fn errors_need_not_be_utf8() {
    // As a real server answers `f\xffoo`, and as blobs with anything in them.
    let line = b"ERR unknown command 'f\xffoo', with args beginning with: '\xfe' ";
    let expected = Reply::Error(ServerError::new(line[..].into()));
    assert_eq!(reply_of([b"-", &line[..], b"\r\n"].concat()), expected);
    assert_eq!(reply_of([format!("!{}\r\n", line.len()).as_bytes(), &line[..], b"\r\n"].concat()), expected);
    assert_eq!(reply_of(b"-\xff\0\r\n"), Reply::Error(ServerError::new(b"\xff\0"[..].into())));
    assert_eq!(reply_of(b"+\xff\xfe\r\n"), Reply::Simple(b"\xff\xfe"[..].into()));
}

#[test]
fn streamed_replies_are_refused() {
    for stream in
        ["$?\r\n", "*?\r\n", "~?\r\n", "%?\r\n", ">?\r\n", "|?\r\n", "!?\r\n", "=?\r\n", ".\r\n", ";4\r\n"]
    {
        assert_eq!(found(Limits::default(), stream), (Violation::Streamed, 0), "{stream:?}");
        let nested = if stream.starts_with('>') { continue } else { ["*1\r\n", stream].concat() };
        assert_eq!(found(Limits::default(), nested), (Violation::Streamed, 4), "{stream:?}");
    }
}

#[test]
fn a_push_inside_a_reply_closes_redis_8935() {
    let stream = "*2\r\n$1\r\na\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n$1\r\nb\r\n";
    assert_eq!(found(Limits::default(), stream), (Violation::NestedPush, 11));
    assert_eq!(violation_of("|1\r\n+a\r\n>0\r\n"), Violation::NestedPush);
    assert_eq!(violation_of(">1\r\n>0\r\n"), Violation::NestedPush);
}

#[test]
fn lengths_are_plain_decimals() {
    for kind in ["$", "*", "!", "=", "%", "~", "|", ">"] {
        for length in
            ["", "-", "+1", "01", "00", "-0", "-01", "-2", " 1", "1 ", "1x", "0x1", "1.0", "\u{661}"]
        {
            let stream = format!("{kind}{length}\r\n");
            assert_eq!(violation_of(&stream), Violation::Malformed("length"), "{stream:?}");
        }
    }
    // Only these have a null.
    for kind in ["!", "=", "%", "~", "|", ">"] {
        assert_eq!(violation_of(format!("{kind}-1\r\n")), Violation::Malformed("length"));
    }
}

#[test]
fn malformed_scalars() {
    let table: [(&str, &[&str], &str); 6] = [
        (
            ":",
            &[
                "",
                "+",
                "-",
                "x",
                " 5",
                "5 ",
                "1.0",
                "--1",
                "+-1",
                "9223372036854775808",
                "-9223372036854775809",
            ],
            "integer",
        ),
        (
            ",",
            &["", ".", "e", "-", "1e", "1,5", " 1", "0x1", "INF", "infinity", "NaN", "+nan", "inff", "1e5.0"],
            "double",
        ),
        ("(", &["", "+", "-", "1.0", "123abc", "1 ", "--1"], "big number"),
        ("#", &["", "T", "true", "tt", "1"], "boolean"),
        ("_", &["x", " ", "-1"], "null"),
        ("=", &["0", "3"], "verbatim string"),
    ];
    for (kind, texts, name) in table {
        for text in texts {
            let stream = ["+OK\r\n", kind, text, "\r\n"].concat();
            assert_eq!(found(Limits::default(), &stream), (Violation::Malformed(name), 5), "{stream:?}");
        }
    }
    assert_eq!(found(Limits::default(), "=7\r\ntxtXabc\r\n"), (Violation::Malformed("verbatim string"), 4));
}

#[test]
fn lines_end_in_cr_lf() {
    for stream in ["+a\rb\r\n", "+a\n", "+\n", "+a\r\r\n", "$3\n", "_\r\r", ":1\rx", "-E\nE\r\n"] {
        assert_eq!(
            found(Limits::default(), ["+OK\r\n", stream].concat()),
            (Violation::LineEnd, 5),
            "{stream:?}"
        );
    }
}

#[test]
fn other_protocols_are_recognised_at_their_first_byte() {
    for stream in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"\x15\x03\x03\0\x02\x02\x28",
        b"SSH-2.0-x\r\n",
        b"HELLO 3\r\n",
    ] {
        assert_eq!(found(Limits::default(), stream), (Violation::UnknownType(stream[0]), 0));
        assert_eq!(found(Limits::default(), &stream[..1]), (Violation::UnknownType(stream[0]), 0));
    }
    let known = b"+-:$*_#,(!=%~|>.;";
    for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
        assert_eq!(found(Limits::default(), [b'_', b'\r', b'\n', kind]), (Violation::UnknownType(kind), 3));
    }
}

#[test]
fn huge_announcements_are_refused_at_their_header() {
    let limit = Limits::default().bulk;
    for kind in ["$", "!", "="] {
        for length in ["67108865", "9223372036854775807", "18446744073709551615", "18446744073709551616"] {
            assert_eq!(violation_of(format!("{kind}{length}\r\n")), Violation::Bulk { limit });
        }
        assert_eq!(decode(Limits::default(), [format!("{kind}67108864\r\n")]), (vec![], None));
    }
}

#[test]
fn a_line_without_end_is_refused_at_the_limit() {
    let limits = Limits { line: 4, ..Limits::default() };
    for kind in ["+", "-", ":", "$", "*", "_", "#", ",", "(", "!", "=", "%", "~", "|", ">"] {
        let stream = [kind, "11111"].concat();
        assert_eq!(found(limits, &stream), (Violation::Line { limit: 4 }, 0), "{stream:?}");
        assert_eq!(decode(limits, [&stream[..5]]), (vec![], None), "{stream:?}");
    }
    assert_eq!(decode(limits, ["+1234\r\n"]).0.len(), 1);
    assert_eq!(found(limits, "+12345\r\n"), (Violation::Line { limit: 4 }, 0));
    // Payloads are not lines.
    assert_eq!(decode(limits, ["$5\r\n12345\r\n"]).0.len(), 1);
}

#[test]
fn elements_are_counted_over_the_whole_frame() {
    let limits = Limits { elements: 4, ..Limits::default() };
    let over = |offset| (Violation::Elements { limit: 4 }, offset);
    assert_eq!(decode(limits, ["*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n"]).0.len(), 1);
    assert_eq!(found(limits, "*5\r\n"), over(0));
    assert_eq!(decode(limits, ["%2\r\n:1\r\n:2\r\n:3\r\n:4\r\n"]).0.len(), 1);
    assert_eq!(found(limits, "%3\r\n"), over(0));
    // Nested ones together, not each by itself.
    assert_eq!(decode(limits, ["*2\r\n*1\r\n:1\r\n*1\r\n:2\r\n"]).0.len(), 1);
    assert_eq!(found(limits, "*2\r\n*1\r\n:1\r\n*2\r\n"), over(12));
    // Attributes have a price too, even empty ones: or else a frame of nothing but those would not end.
    assert_eq!(decode(limits, ["|0\r\n|0\r\n|0\r\n|0\r\n:1\r\n"]).0.len(), 1);
    assert_eq!(found(limits, "|0\r\n".repeat(5)), over(16));
    assert_eq!(found(limits, "|2\r\n"), over(0));
    // The next frame starts from nothing.
    assert_eq!(decode(limits, ["*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n".repeat(3)]).0.len(), 3);
}

#[test]
fn the_frame_limit_holds_for_every_part_of_a_frame() {
    let over = |limit, offset| (Violation::Frame { limit }, offset);
    for stream in
        ["+12345\r\n", "$5\r\n12345\r\n", "*2\r\n:1\r\n:2\r\n", "|1\r\n+a\r\n+b\r\n_\r\n", "*1\r\n*0\r\n"]
    {
        let fits = Limits { frame: stream.len(), ..Limits::default() };
        assert_eq!(decode(fits, [stream.repeat(3)]).0.len(), 3, "{stream:?}");
        let too_small = Limits { frame: stream.len() - 1, ..Limits::default() };
        assert!(matches!(violation(too_small, stream), Violation::Frame { .. }), "{stream:?}");
    }
    // A bulk is refused at its header, a line before it has ended.
    assert_eq!(found(Limits { frame: 10, ..Limits::default() }, "$5\r\n"), over(10, 0));
    assert_eq!(found(Limits { frame: 10, ..Limits::default() }, "*2\r\n+12345"), over(10, 4));
    assert_eq!(decode(Limits { frame: 10, ..Limits::default() }, ["*2\r\n+123"]), (vec![], None));
}

/// What is there as a whole takes a short cut through the scan: no limit is cut short by that.
#[test]
fn a_frame_that_came_at_once_meets_the_same_limits_as_byte_by_byte() {
    let all = Limits::default();
    let elements = "*2\r\n$1\r\na\r\n*2\r\n+OK\r\n+OK\r\n";
    for (limits, stream, expected) in [
        (Limits { bulk: 3, ..all }, "$4\r\nabcd\r\n", (Violation::Bulk { limit: 3 }, 0)),
        (Limits { bulk: 3, ..all }, "+OK\r\n*1\r\n$4\r\nabcd\r\n", (Violation::Bulk { limit: 3 }, 9)),
        (Limits { elements: 3, ..all }, elements, (Violation::Elements { limit: 3 }, 11)),
        (Limits { depth: 1, ..all }, elements, (Violation::Depth { limit: 1 }, 11)),
        (Limits { frame: 24, ..all }, "*1\r\n$14\r\n12345678901234\r\n", (Violation::Frame { limit: 24 }, 4)),
        (Limits { line: 1, ..all }, "*1\r\n+OK\r\n", (Violation::Line { limit: 1 }, 4)),
        (all, "*2\r\n+OK\r\n>0\r\n", (Violation::NestedPush, 9)),
        (all, "$04\r\nabcd\r\n", (Violation::Malformed("length"), 0)),
        (all, "$4\r\nabcde\r\n", (Violation::BulkEnd, 8)),
    ] {
        assert_eq!(found(limits, stream), expected, "{stream:?}");
        let (_, error) = decode(limits, stream.as_bytes().chunks(1));
        assert_eq!(
            error.map(|error| (error.violation, error.offset)),
            Some(expected),
            "{stream:?} byte by byte"
        );
    }
}

fn violation(limits: Limits, stream: &str) -> Violation {
    found(limits, stream).0
}

/// However long a stream without end is, what a decoder leaves in its input stays within the frame limit.
#[test]
fn what_is_buffered_stays_within_the_frame_limit() {
    let limits = Limits { frame: 1 << 10, line: 1 << 20, ..Limits::default() };
    let endless = [
        b"+".iter().chain([b'x'].iter().cycle()).copied().take(1 << 16).collect::<Vec<u8>>(),
        ["*1000\r\n", &"$1\r\nx\r\n".repeat(999)].concat().into_bytes(),
        "|0\r\n".repeat(10_000).into_bytes(),
        b"$1000000\r\n".to_vec(),
    ];
    for stream in endless {
        let mut decoder = super::Decoder::new(limits);
        let mut input = bytes::BytesMut::new();
        let failed = stream.chunks(1).any(|piece| {
            input.extend_from_slice(piece);
            decoder.decode(&mut input, &mut Vec::new()).is_err()
        });
        // A type byte and one more show that the next line has no room.
        assert!(failed && input.len() <= limits.frame + 2, "{} bytes", input.len());
    }
}

#[test]
fn offsets_count_from_the_first_byte_of_the_connection() {
    let stream = "+OK\r\n$3\r\nfoo\r\n*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n";
    let pieces = [stream, stream, "*1\r\n", ":x\r\n"];
    let error = decode(Limits::default(), pieces).1.expect("no integer");
    assert_eq!(error.offset, 2 * stream.len() as u64 + 4);
}

#[test]
fn limits_that_allow_anything_still_refuse_what_has_no_end() {
    const ANY: usize = usize::MAX;
    let limits = Limits { depth: u32::MAX, line: ANY, bulk: ANY, elements: ANY, frame: ANY };
    let limit = Limits::MAX_SIZE;
    for length in [limit as u128 + 1, ANY as u128, ANY as u128 + 1, u128::MAX] {
        assert_eq!(violation(limits, &format!("${length}\r\n")), Violation::Bulk { limit });
        for kind in ["*", "%", "|"] {
            assert_eq!(violation(limits, &format!("{kind}{length}\r\n")), Violation::Elements { limit });
        }
    }
    assert_eq!(violation(limits, &format!("${limit}\r\n")), Violation::Frame { limit });
    assert_eq!(decode(limits, [format!("*{limit}\r\n:1\r\n")]), (vec![], None));
}
