//! The least that the rows could cost: code written for exactly their shapes, with no other grammar, no limits, no
//! second protocol version and no way to go on in the middle of a frame (but for the array that comes in pieces).

use bytes::{Buf, Bytes};

use super::Pass;
use super::codecs::{decode_pass, encode_pass};
use super::rows::{Order, Row, Work};

/// Texts as slices of the input, in whatever vectors the shape needs.
pub(super) fn hand_written(row: &Row) -> Option<Pass> {
    let Work::Decode { wire, .. } = &row.work else { return Some(encoder(row)) };
    Some(match wire.first() {
        Some(b'+') => {
            let mut replies: Vec<Bytes> = Vec::new();
            decode_pass(row, move |input| {
                let mut at = 0;
                while input.get(at..at + 5) == Some(b"+OK\r\n") {
                    at += 5;
                    replies.push(Bytes::from_static(b"OK"));
                }
                input.advance(at);
                drain(&mut replies)
            })
        }
        Some(b'$') => {
            let mut replies: Vec<Bytes> = Vec::new();
            decode_pass(row, move |input| {
                let buffer = input.split().freeze();
                let mut at = 0;
                while let Some(text) = bulk(&buffer, &mut at) {
                    replies.push(text);
                }
                drain(&mut replies)
            })
        }
        Some(b'*') => array_in_pieces(row),
        Some(b'%') => {
            let mut replies: Vec<Vec<(Bytes, Bytes)>> = Vec::new();
            decode_pass(row, move |input| {
                let buffer = input.split().freeze();
                let mut at = 0;
                while let Some(count) = header(&buffer, &mut at) {
                    let mut pairs = Vec::with_capacity(count);
                    for _ in 0..count {
                        let (Some(field), Some(value)) = (bulk(&buffer, &mut at), bulk(&buffer, &mut at))
                        else {
                            break;
                        };
                        pairs.push((field, value));
                    }
                    replies.push(pairs);
                }
                drain(&mut replies)
            })
        }
        _ => {
            let mut replies: Vec<(Bytes, Vec<Bytes>)> = Vec::new();
            decode_pass(row, move |input| {
                let buffer = input.split().freeze();
                let mut at = 0;
                while header(&buffer, &mut at).is_some() {
                    let Some(kind) = bulk(&buffer, &mut at) else { break };
                    let count = header(&buffer, &mut at).unwrap_or(0);
                    let keys = (0..count).map_while(|_| bulk(&buffer, &mut at)).collect();
                    replies.push((kind, keys));
                }
                drain(&mut replies)
            })
        }
    })
}

/// Remembers where the elements are until the last one is there.
fn array_in_pieces(row: &Row) -> Pass {
    let (mut at, mut count, mut spans) = (0, 0, Vec::new());
    decode_pass(row, move |input| {
        if at == 0 {
            let Some(elements) = header(input, &mut at) else { return 0 };
            count = elements;
            spans.reserve(count);
        }
        while let Some(span) = bulk_span(input, &mut at) {
            spans.push(span);
        }
        if spans.len() < count {
            return 0;
        }
        let buffer = input.split_to(at).freeze();
        let elements: Vec<Bytes> = spans.drain(..).map(|(start, end)| buffer.slice(start..end)).collect();
        at = 0;
        usize::from(elements.len() == count)
    })
}

fn encoder(row: &Row) -> Pass {
    let Work::Encode(order) = row.work else { unreachable!("only for rows that encode") };
    let mut out: Vec<u8> = Vec::new();
    encode_pass(row, move |frames| {
        out.clear();
        for _ in 0..frames {
            match order {
                Order::Get { key } => {
                    out.reserve(HEAD + key.len());
                    out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                    put(&mut out, key);
                }
                Order::Set { key, value } => {
                    out.reserve(HEAD + key.len() + value.len());
                    out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                    put(&mut out, key);
                    put(&mut out, value);
                }
            }
        }
        out.len()
    })
}

/// More than the framing of two texts.
const HEAD: usize = 64;

fn put(out: &mut Vec<u8>, text: &[u8]) {
    let length = text.len();
    let digit = |power: usize| b'0' + (length / power % 10) as u8;
    match length {
        0..10 => out.extend_from_slice(&[b'$', digit(1), b'\r', b'\n']),
        10..100 => out.extend_from_slice(&[b'$', digit(10), digit(1), b'\r', b'\n']),
        100..1_000 => out.extend_from_slice(&[b'$', digit(100), digit(10), digit(1), b'\r', b'\n']),
        _ => out.extend_from_slice(&[b'$', digit(1_000), digit(100), digit(10), digit(1), b'\r', b'\n']),
    }
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// The number in the line at `at`, behind its type byte.
fn header(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut number = 0;
    let mut end = *at + 1;
    loop {
        match bytes.get(end)? {
            b'\r' => break,
            digit => number = number * 10 + usize::from(digit - b'0'),
        }
        end += 1;
    }
    *at = end + 2;
    Some(number)
}

fn bulk_span(bytes: &[u8], at: &mut usize) -> Option<(usize, usize)> {
    let mut start = *at;
    let length = header(bytes, &mut start)?;
    let end = start + length;
    if bytes.get(end..end + 2)? != b"\r\n" {
        return None;
    }
    *at = end + 2;
    Some((start, end))
}

fn bulk(buffer: &Bytes, at: &mut usize) -> Option<Bytes> {
    bulk_span(buffer, at).map(|(start, end)| buffer.slice(start..end))
}

fn drain<T>(replies: &mut Vec<T>) -> usize {
    let count = replies.len();
    replies.clear();
    count
}

/// Finds every line end in the same bytes, and does nothing with it.
pub(super) fn memchr(row: &Row) -> Option<Pass> {
    let Work::Decode { .. } = &row.work else { return None };
    let frames = row.frames;
    let (mut seen, total) = (0, total_len(row));
    Some(decode_pass(row, move |input| {
        let new = input.get(seen..).unwrap_or_default();
        std::hint::black_box(memchr::memchr_iter(b'\n', new).count());
        seen = input.len();
        if seen < total {
            return 0;
        }
        seen = 0;
        frames
    }))
}

fn total_len(row: &Row) -> usize {
    match &row.work {
        Work::Decode { wire, .. } => wire.len(),
        Work::Encode(_) => 0,
    }
}
