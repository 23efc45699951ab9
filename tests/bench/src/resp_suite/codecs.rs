//! The codecs under test, each the way its own client uses it.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use larder_engine::resp::{Command, Decoder, Key, Limits};
use redis::ValueCodec;
use redis_protocol::{resp2, resp3};
use tokio_util::codec::Decoder as _;

use super::Pass;
use super::rows::{Order, Row, Work};

pub(super) fn larder(row: &Row) -> Option<Pass> {
    let (mut decoder, mut replies) = (Decoder::new(Limits::default()), Vec::new());
    let mut out = Vec::new();
    Some(match row.work {
        Work::Decode { .. } => decode_pass(row, move |input| {
            decoder.decode(input, &mut replies).expect("well-formed");
            let frames = replies.len();
            replies.clear();
            frames
        }),
        Work::Encode(order) => encode_pass(row, move |frames| {
            out.clear();
            for _ in 0..frames {
                match order {
                    Order::Get { key } => Command::Get(Key { namespace: b"", key }).encode(&mut out),
                    Order::Set { key, value } => {
                        Command::Set { key: Key { namespace: b"", key }, value, ttl: None }.encode(&mut out);
                    }
                }
            }
            out.len()
        }),
    })
}

/// With its decoder for RESP2, which knows nothing of RESP3.
pub(super) fn redis_protocol(row: &Row) -> Option<Pass> {
    let mut out = BytesMut::new();
    match row.work {
        Work::Decode { is_resp3: true, .. } => None,
        Work::Decode { .. } => Some(decode_pass(row, |input| {
            std::iter::from_fn(|| resp2::decode::decode_bytes_mut(input).expect("well-formed")).count()
        })),
        Work::Encode(order) => Some(encode_pass(row, move |frames| {
            use resp2::types::BorrowedFrame;
            out.clear();
            for _ in 0..frames {
                let text = BorrowedFrame::BulkString;
                let encoded = match order {
                    Order::Get { key } => resp2::encode::extend_encode_borrowed(
                        &mut out,
                        &BorrowedFrame::Array(&[text(b"GET"), text(key)]),
                        false,
                    ),
                    Order::Set { key, value } => resp2::encode::extend_encode_borrowed(
                        &mut out,
                        &BorrowedFrame::Array(&[text(b"SET"), text(key), text(value)]),
                        false,
                    ),
                };
                encoded.expect("room");
            }
            out.len()
        })),
    }
}

/// The decoder for RESP3, which RESP2 replies need too on a connection that speaks RESP3.
pub(super) fn redis_protocol_3(row: &Row) -> Option<Pass> {
    match row.work {
        Work::Decode { .. } => Some(decode_pass(row, |input| {
            std::iter::from_fn(|| resp3::decode::complete::decode_bytes_mut(input).expect("well-formed"))
                .count()
        })),
        Work::Encode(_) => None,
    }
}

pub(super) fn redis_rs(row: &Row) -> Option<Pass> {
    let mut codec = ValueCodec::default();
    let mut out = Vec::new();
    Some(match row.work {
        Work::Decode { .. } => decode_pass(row, move |input| {
            std::iter::from_fn(|| codec.decode(input).expect("well-formed")).count()
        }),
        Work::Encode(order) => encode_pass(row, move |frames| {
            out.clear();
            for _ in 0..frames {
                let command = match order {
                    Order::Get { key } => redis::Cmd::get(key),
                    Order::Set { key, value } => redis::Cmd::set(key, value),
                };
                command.write_packed_command(&mut out);
            }
            out.len()
        }),
    })
}

/// All that is done around a contender: what the instructions of this are, are not its own.
pub(super) fn nobody(row: &Row) -> Pass {
    let (frames, mut is_last) = (row.frames, last_piece(row));
    match row.work {
        Work::Decode { .. } => decode_pass(row, move |_| if is_last() { frames } else { 0 }),
        Work::Encode(_) => encode_pass(row, |_| 0),
    }
}

/// Whether this call is for the last of the pieces that a pass hands over.
fn last_piece(row: &Row) -> impl FnMut() -> bool + use<> {
    let pieces = match &row.work {
        Work::Decode { wire, piece, .. } => wire.chunks(*piece).len(),
        Work::Encode(_) => 1,
    };
    let mut calls = 0;
    move || {
        calls += 1;
        calls % pieces == 0
    }
}

/// A pass that hands over the wire piece by piece to something that takes all complete frames off its front. Replies
/// are dropped within the time measured; filling the buffer, which a read does, is not part of it.
pub(super) fn decode_pass(row: &Row, mut frames_of: impl FnMut(&mut BytesMut) -> usize + 'static) -> Pass {
    let row = row.clone();
    Box::new(move || {
        let Work::Decode { wire, piece, .. } = &row.work else { return Duration::ZERO };
        let (mut input, mut frames, mut elapsed) = (row.buffer(), 0, Duration::ZERO);
        for piece in wire.chunks(*piece) {
            input.extend_from_slice(piece);
            let started = Instant::now();
            frames += frames_of(&mut input);
            elapsed += started.elapsed();
        }
        assert_eq!(frames, row.frames, "{}", row.name);
        elapsed
    })
}

/// A pass that has so many commands encoded, and is told how many bytes that made.
pub(super) fn encode_pass(row: &Row, mut encode: impl FnMut(usize) -> usize + 'static) -> Pass {
    let frames = row.frames;
    Box::new(move || {
        let started = Instant::now();
        std::hint::black_box(encode(frames));
        started.elapsed()
    })
}
