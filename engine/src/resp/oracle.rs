//! The crate redis-protocol as a second opinion.
//!
//! Where the two must not agree, and why we are right, is a test of its own each: what a known divergence touches is
//! kept out of the comparison. When an update of the crate makes one of those fail, the divergence is gone.

use alloc::vec::Vec;
use std::string::{String, ToString};
use std::vec;

use bytes::Bytes;
use fastrand::Rng;
use proptest::prelude::*;
use redis_protocol::resp2::types::{BytesFrame as Frame2, Resp2Frame};
use redis_protocol::resp3::types::{BytesFrame as Frame3, VerbatimStringFormat};
use redis_protocol::{resp2, resp3};

use super::testing::{any_reply, error_of, reply_of, wire};
use super::{Command, Key, Limits, Reply, ServerError};

/// The first frame as the crate sees it, and its length; `None` where it says error or incomplete.
fn theirs2(stream: &[u8]) -> Option<(Reply, usize)> {
    let (frame, length) = resp2::decode::decode_bytes(&Bytes::copy_from_slice(stream)).ok()??;
    Some((from2(frame), length))
}

fn theirs3(stream: &[u8]) -> Option<(Reply, usize)> {
    let (frame, length) = resp3::decode::complete::decode_bytes(&Bytes::copy_from_slice(stream)).ok()??;
    Some((from3(frame)?, length))
}

fn from2(frame: Frame2) -> Reply {
    match frame {
        Frame2::SimpleString(text) => Reply::Simple(text),
        Frame2::Error(line) => error(line.as_bytes()),
        Frame2::Integer(number) => Reply::Integer(number),
        Frame2::BulkString(text) => Reply::Bulk(text),
        Frame2::Array(elements) => Reply::Array(elements.into_iter().map(from2).collect()),
        Frame2::Null => Reply::Null,
    }
}

fn from3(frame: Frame3) -> Option<Reply> {
    let all = |frames: Vec<Frame3>| frames.into_iter().map(from3).collect::<Option<Vec<_>>>();
    Some(match frame {
        Frame3::BlobString { data, .. } => Reply::Bulk(data),
        Frame3::SimpleString { data, .. } => Reply::Simple(data),
        Frame3::BlobError { data, .. } => error(&data),
        Frame3::SimpleError { data, .. } => error(data.as_bytes()),
        Frame3::Boolean { data, .. } => Reply::Boolean(data),
        Frame3::Null => Reply::Null,
        Frame3::Number { data, .. } => Reply::Integer(data),
        Frame3::Double { data, .. } => Reply::Double(data),
        Frame3::BigNumber { data, .. } => Reply::BigNumber(data),
        Frame3::VerbatimString { data, format, .. } => {
            let format = match format {
                VerbatimStringFormat::Text => *b"txt",
                VerbatimStringFormat::Markdown => *b"mkd",
            };
            Reply::Verbatim { format, text: data }
        }
        Frame3::Array { data, .. } => Reply::Array(all(data)?),
        Frame3::Push { data, .. } => Reply::Push(all(data)?),
        // Hash tables: `sorted` makes them comparable.
        Frame3::Set { data, .. } => Reply::Set(all(data.into_iter().collect())?),
        Frame3::Map { data, .. } => {
            let pairs = data.into_iter().map(|(field, value)| Some((from3(field)?, from3(value)?)));
            Reply::Map(pairs.collect::<Option<_>>()?)
        }
        Frame3::Hello { .. } | Frame3::ChunkedString(_) => return None,
    })
}

fn error(line: &[u8]) -> Reply {
    Reply::Error(ServerError::new(Bytes::copy_from_slice(line)))
}

/// The reply with its sets and maps in the order of their bytes.
fn sorted(reply: &Reply) -> Reply {
    match reply {
        Reply::Array(elements) => Reply::Array(elements.iter().map(sorted).collect()),
        Reply::Push(elements) => Reply::Push(elements.iter().map(sorted).collect()),
        Reply::Set(elements) => {
            let mut elements: Vec<_> = elements.iter().map(sorted).collect();
            elements.sort_by_key(bytes_of);
            Reply::Set(elements)
        }
        Reply::Map(pairs) => {
            let mut pairs: Vec<_> =
                pairs.iter().map(|(field, value)| (sorted(field), sorted(value))).collect();
            pairs.sort_by_key(|(field, _)| bytes_of(field));
            Reply::Map(pairs)
        }
        scalar => scalar.clone(),
    }
}

fn bytes_of(reply: &Reply) -> Vec<u8> {
    wire(reply, &mut None)
}

fn is_line(text: &[u8]) -> bool {
    !text.iter().any(|byte| b"\r\n".contains(byte))
}

/// Any reply that exists in RESP2 and that the crate can represent.
fn any_resp2_reply() -> impl Strategy<Value = Reply> {
    any_reply().prop_map(|reply| as_resp2(&reply))
}

fn as_resp2(reply: &Reply) -> Reply {
    match reply {
        Reply::Simple(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Null => reply.clone(),
        Reply::Error(error) => {
            let line = String::from_utf8_lossy(&error.0).replace(['\r', '\n'], " ");
            Reply::Error(ServerError::new(line.into()))
        }
        Reply::Array(elements) | Reply::Set(elements) | Reply::Push(elements) => {
            Reply::Array(elements.iter().map(as_resp2).collect())
        }
        Reply::Map(pairs) => {
            Reply::Array(pairs.iter().flat_map(|(field, value)| [as_resp2(field), as_resp2(value)]).collect())
        }
        other => Reply::Bulk(bytes_of(other).into()),
    }
}

/// Any reply of RESP3 that the crate can represent.
fn any_resp3_reply() -> impl Strategy<Value = Reply> {
    any_reply().prop_map(|reply| as_resp3(&reply))
}

fn as_resp3(reply: &Reply) -> Reply {
    let unique = |fields: &[Reply]| {
        let mut fields: Vec<_> = fields.iter().map(as_field).collect();
        fields.sort_by_key(bytes_of);
        fields.dedup();
        fields
    };
    match reply {
        Reply::Error(error) if is_line(&error.0) => {
            Reply::Error(ServerError::new(String::from_utf8_lossy(&error.0).into_owned().into()))
        }
        Reply::Verbatim { text, .. } => Reply::Verbatim { format: *b"mkd", text: text.clone() },
        Reply::Array(elements) => Reply::Array(elements.iter().map(as_resp3).collect()),
        Reply::Push(elements) => Reply::Push(elements.iter().map(as_resp3).collect()),
        Reply::Set(elements) => Reply::Set(unique(elements)),
        Reply::Map(pairs) => {
            let mut pairs: Vec<_> =
                pairs.iter().map(|(field, value)| (as_field(field), as_resp3(value))).collect();
            pairs.sort_by_key(|(field, _)| bytes_of(field));
            pairs.dedup_by(|(a, _), (b, _)| a == b);
            Reply::Map(pairs)
        }
        scalar => scalar.clone(),
    }
}

/// Fields and members of sets are hashed there, which not everything can be.
fn as_field(reply: &Reply) -> Reply {
    match reply {
        Reply::Simple(_) | Reply::Bulk(_) | Reply::Integer(_) | Reply::Boolean(_) => reply.clone(),
        other => Reply::Bulk(bytes_of(other).into()),
    }
}

/// Streams of RESP2's `$-1` instead of RESP3's `_`.
fn wire2(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Null => b"$-1\r\n".to_vec(),
        Reply::Array(elements) => {
            let head = ["*", &elements.len().to_string(), "\r\n"].concat().into_bytes();
            core::iter::once(head).chain(elements.iter().map(wire2)).collect::<Vec<_>>().concat()
        }
        scalar => bytes_of(scalar),
    }
}

proptest! {
    #[test]
    fn resp2_replies_agree(reply in any_resp2_reply()) {
        let stream = wire2(&reply);
        prop_assert_eq!(theirs2(&stream), Some((reply_of(&stream), stream.len())));
    }

    #[test]
    fn resp3_replies_agree(reply in any_resp3_reply()) {
        let stream = bytes_of(&reply);
        let (theirs, length) = theirs3(&stream).expect("accepted");
        prop_assert_eq!(sorted(&theirs), sorted(&reply_of(&stream)));
        prop_assert_eq!(length, stream.len());
    }

    /// Where both accept a damaged frame they see the same in it. (What they accept and we do not is listed below.)
    #[test]
    fn what_both_accept_of_damaged_replies_agrees(reply in any_resp2_reply(), seed: u64) {
        let mut stream = wire2(&reply);
        let mut rng = Rng::with_seed(seed);
        let at = rng.usize(0..stream.len());
        stream[at] = if rng.bool() { rng.u8(..) } else { b"+-:$*0123456789\r\n"[rng.usize(0..17)] };
        let (ours, error) = super::testing::decode(Limits::default(), [&stream]);
        if let (Some(ours), Some((theirs, _)), None) = (ours.first(), theirs2(&stream), error) {
            prop_assert_eq!(ours, &theirs);
        }
    }

    #[test]
    fn commands_agree_byte_for_byte(key: Vec<u8>, value: Vec<u8>) {
        let texts = [&b"SET"[..], &key, &value].map(|text| Frame2::BulkString(Bytes::copy_from_slice(text)));
        let frame = Frame2::Array(texts.to_vec());
        let mut theirs = vec![0; frame.encode_len(false)];
        let length = resp2::encode::encode_bytes(&mut theirs, &frame, false).expect("enough room");
        let mut ours = Vec::new();
        Command::Set { key: Key { namespace: b"", key: &key }, value: &value, ttl: None }.encode(&mut ours);
        prop_assert_eq!(ours, &theirs[..length]);
    }
}

/// RESP2's nulls are what RESP3 connections get from old scripts and modules.
#[test]
fn they_refuse_resp2_nulls_in_resp3() {
    for stream in ["$-1\r\n", "*-1\r\n", "*1\r\n$-1\r\n"] {
        assert_eq!(theirs3(stream.as_bytes()), None, "{stream:?}");
        reply_of(stream);
    }
}

/// A server quotes what it was sent.
#[test]
fn they_refuse_error_lines_that_are_not_utf8() {
    let stream = b"-ERR unknown command '\xff'\r\n";
    assert_eq!((theirs2(stream), theirs3(stream)), (None, None));
    reply_of(stream);
}

/// The format is for whoever shows the text.
#[test]
fn they_refuse_unknown_verbatim_formats() {
    let stream = "=8\r\nabc:abcd\r\n";
    assert_eq!(theirs3(stream.as_bytes()), None);
    reply_of(stream);
}

/// RESP3 allows any type as a field, and leaves duplicates and order to the reader.
#[test]
fn they_lose_elements_of_maps_and_sets() {
    let by_array = "%1\r\n*0\r\n:1\r\n";
    assert_eq!(theirs3(by_array.as_bytes()), None);
    assert_eq!(reply_of(by_array), Reply::Map(vec![(Reply::Array(vec![]), Reply::Integer(1))]));
    let twice = "~2\r\n:1\r\n:1\r\n";
    assert_eq!(theirs3(twice.as_bytes()), Some((Reply::Set(vec![Reply::Integer(1)]), twice.len())));
    assert_eq!(reply_of(twice), Reply::Set(vec![Reply::Integer(1); 2]));
}

/// Framing that is lost has to be noticed.
#[test]
fn they_accept_what_is_malformed() {
    for stream in
        ["$3\r\nfooXY", "=7\r\ntxtXabc\r\n", "_x\r\n", "(123abc\r\n", "$+3\r\nfoo\r\n", "$03\r\nfoo\r\n"]
    {
        assert!(theirs3(stream.as_bytes()).is_some(), "{stream:?}");
        error_of(Limits::default(), stream);
    }
}

/// No reply, but a command in its inline form.
#[test]
fn they_take_hello_for_a_reply() {
    let stream = Bytes::from_static(b"HELLO 3\r\n");
    assert!(matches!(resp3::decode::complete::decode_bytes(&stream), Ok(Some((Frame3::Hello { .. }, 9)))));
    error_of(Limits::default(), stream);
}

/// A buffer that waits for 2⁶³ bytes grows until there is no memory. (Where pointers have 32 bits, they refuse it.)
#[cfg(target_pointer_width = "64")]
#[test]
fn they_wait_for_impossible_lengths() {
    let stream = Bytes::from_static(b"$9223372036854775807\r\n");
    assert!(matches!(resp2::decode::decode_bytes(&stream), Ok(None)));
    error_of(Limits::default(), stream);
}

/// An attribute describes whatever follows it.
#[test]
fn they_refuse_an_attribute_before_null() {
    let stream = "|1\r\n+ttl\r\n:1\r\n_\r\n";
    assert_eq!(theirs3(stream.as_bytes()), None);
    assert_eq!(reply_of(stream), Reply::Null);
}
