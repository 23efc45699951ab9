//! What the tests of this module share: replies at random, their bytes, and a naive decoder to compare with.

use alloc::vec::Vec;
use std::format;
use std::string::String;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use proptest::prelude::*;

use super::{DecodeError, Decoder, Limits, Reply, ServerError};

/// Decodes the pieces one after the other: all replies, and the error if there was one.
pub(super) fn decode(
    limits: Limits,
    pieces: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> (Vec<Reply>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    let (mut input, mut replies) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece.as_ref());
        if let Err(error) = decoder.decode(&mut input, &mut replies) {
            return (replies, Some(error));
        }
    }
    (replies, None)
}

/// The replies of a stream that must be well-formed and complete.
pub(super) fn replies_of(stream: impl AsRef<[u8]>) -> Vec<Reply> {
    let mut input = BytesMut::from(stream.as_ref());
    let mut replies = Vec::new();
    let result = Decoder::new(Limits::default()).decode(&mut input, &mut replies);
    assert_eq!((result, input.len()), (Ok(()), 0), "of {}", stream.as_ref().escape_ascii());
    replies
}

/// The one reply of a stream that must be well-formed and complete.
pub(super) fn reply_of(stream: impl AsRef<[u8]>) -> Reply {
    let mut replies = replies_of(stream);
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

/// The error that a stream must end in.
pub(super) fn error_of(limits: Limits, stream: impl AsRef<[u8]>) -> DecodeError {
    let (replies, error) = decode(limits, [stream.as_ref()]);
    error.unwrap_or_else(|| panic!("{} decodes to {replies:?}", stream.as_ref().escape_ascii()))
}

/// Any reply but NaN, which equals nothing.
pub(super) fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        9 => any_element(),
        1 => prop::collection::vec(any_element(), 0..4).prop_map(Reply::Push),
    ]
}

fn any_element() -> impl Strategy<Value = Reply> {
    let line = || "[ -~\u{e9}\u{0}]{0,20}".prop_map(|text| Bytes::from(text.into_bytes()));
    let blob = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let scalar = prop_oneof![
        line().prop_map(Reply::Simple),
        line().prop_map(|line| Reply::Error(ServerError::new(line))),
        // With a line end inside it has to travel as a blob.
        blob().prop_map(|line| Reply::Error(ServerError::new(line))),
        any::<i64>().prop_map(Reply::Integer),
        blob().prop_map(Reply::Bulk),
        Just(Reply::Null),
        any::<bool>().prop_map(Reply::Boolean),
        any::<f64>().prop_filter("NaN", |number| !number.is_nan()).prop_map(Reply::Double),
        "-?[0-9]{1,40}".prop_map(|digits| Reply::BigNumber(digits.into_bytes().into())),
        ("[a-z]{3}", blob()).prop_map(|(format, text)| Reply::Verbatim {
            format: format.as_bytes().try_into().expect("three letters"),
            text
        }),
    ];
    scalar.prop_recursive(4, 40, 6, |element| {
        let elements = || prop::collection::vec(element.clone(), 0..6);
        prop_oneof![
            elements().prop_map(Reply::Array),
            elements().prop_map(Reply::Set),
            prop::collection::vec((element.clone(), element.clone()), 0..4).prop_map(Reply::Map),
        ]
    })
}

/// The bytes of a reply; with `rng` in one of the many ways there are, attributes included, without it in the plainest.
pub(super) fn wire(reply: &Reply, rng: &mut Option<Rng>) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, reply, rng);
    out
}

fn put(out: &mut Vec<u8>, reply: &Reply, rng: &mut Option<Rng>) {
    let mut choose = |among: u8| rng.as_mut().map_or(0, |rng| rng.u8(0..among));
    if choose(16) == 15 {
        out.extend_from_slice(
            b"|2\r\n+ttl\r\n:5\r\n*1\r\n$0\r\n\r\n|0\r\n%1\r\n_\r\n|1\r\n*0\r\n~0\r\n#f\r\n",
        );
    }
    let choice = choose(3);
    match reply {
        Reply::Simple(text) => put_line(out, "+", text),
        Reply::Error(error) => {
            let line = &error.0;
            if choice == 2 || line.iter().any(|byte| b"\r\n".contains(byte)) {
                put_blob(out, "!", line);
            } else {
                put_line(out, "-", line);
            }
        }
        Reply::Integer(number) => put_line(out, ":", format!("{number}").as_bytes()),
        Reply::Bulk(text) => put_blob(out, "$", text),
        Reply::Null => {
            out.extend_from_slice([&b"_\r\n"[..], b"$-1\r\n", b"*-1\r\n"][usize::from(choice)]);
        }
        Reply::Boolean(is_true) => put_line(out, "#", if *is_true { b"t" } else { b"f" }),
        Reply::Double(number) => put_line(out, ",", format!("{number:?}").as_bytes()),
        Reply::BigNumber(digits) => put_line(out, "(", digits),
        Reply::Verbatim { format, text } => put_blob(out, "=", &[format, &b":"[..], text].concat()),
        Reply::Array(elements) => put_all(out, "*", elements, rng),
        Reply::Set(elements) => put_all(out, "~", elements, rng),
        Reply::Push(elements) => put_all(out, ">", elements, rng),
        Reply::Map(pairs) => {
            put_line(out, "%", format!("{}", pairs.len()).as_bytes());
            for (field, value) in pairs {
                put(out, field, rng);
                put(out, value, rng);
            }
        }
    }
}

fn put_line(out: &mut Vec<u8>, kind: &str, text: &[u8]) {
    out.extend_from_slice(&[kind.as_bytes(), text, b"\r\n"].concat());
}

fn put_blob(out: &mut Vec<u8>, kind: &str, text: &[u8]) {
    out.extend_from_slice(&[format!("{kind}{}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat());
}

fn put_all(out: &mut Vec<u8>, kind: &str, elements: &[Reply], rng: &mut Option<Rng>) {
    put_line(out, kind, format!("{}", elements.len()).as_bytes());
    for element in elements {
        put(out, element, rng);
    }
}

/// Replies as something that a NaN can be compared in.
pub(super) fn plain(replies: &[Reply]) -> Vec<Vec<u8>> {
    replies.iter().map(|reply| wire(reply, &mut None)).collect()
}

/// Bytes that are nearly RESP: well-formed frames and scraps, with a few bytes overwritten.
pub(super) fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let scrap = prop::sample::select(std::vec![
        "*",
        "$",
        "%",
        "~",
        "|",
        ">",
        "+",
        "-",
        ":",
        ",",
        "(",
        "#",
        "_",
        "!",
        "=",
        "\r\n",
        "\r",
        "\n",
        "0",
        "1",
        "2",
        "-1",
        "?",
        "3\r\nabc\r\n",
        "1\r\n",
        "2\r\n",
        "0\r\n",
        "t\r\n",
        "_\r\n",
        "$-1\r\n",
        "nan\r\n",
        "=5\r\ntxt:x\r\n",
        "9223372036854775807\r\n",
        "18446744073709551616\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n",
        ";",
    ]);
    let part = prop_oneof![
        (any_reply(), any::<u64>()).prop_map(|(reply, seed)| wire(&reply, &mut Some(Rng::with_seed(seed)))),
        prop::collection::vec(scrap, 0..12).prop_map(|scraps| scraps.concat().into_bytes()),
    ];
    let overwrite = (any::<prop::sample::Index>(), any::<u8>());
    (prop::collection::vec(part, 0..6), prop::collection::vec(overwrite, 0..3)).prop_map(
        |(parts, overwrites)| {
            let mut stream = parts.concat();
            for (at, byte) in overwrites {
                if !stream.is_empty() {
                    let at = at.index(stream.len());
                    stream[at] = byte;
                }
            }
            stream
        },
    )
}

/// Cuts a stream into pieces, by a list of piece lengths that is used over and over.
pub(super) fn cut<'a>(stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, more) = rest.split_at((*length).clamp(1, rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces
}

/// The decoder as one would write it first: recursive, from the start of a frame each time. What it decodes of a
/// stream, and whether it stumbled.
pub(super) fn naive_decode(limits: Limits, stream: &[u8]) -> (Vec<Reply>, bool) {
    let limits = Limits {
        depth: limits.depth.min(Limits::MAX_DEPTH),
        line: limits.line.min(Limits::MAX_SIZE),
        bulk: limits.bulk.min(Limits::MAX_SIZE),
        elements: limits.elements.min(Limits::MAX_SIZE),
        frame: limits.frame.min(Limits::MAX_SIZE),
    };
    let (mut replies, mut rest) = (Vec::new(), stream);
    loop {
        let mut frame = Naive { bytes: rest, pos: 0, elements: 0, limits };
        match frame.reply(0) {
            Ok(reply) => replies.push(reply),
            Err(Stop::Incomplete) => return (replies, false),
            Err(Stop::Wrong) => return (replies, true),
        }
        rest = &rest[frame.pos..];
    }
}

struct Naive<'a> {
    bytes: &'a [u8],
    pos: usize,
    elements: u128,
    limits: Limits,
}

enum Stop {
    Incomplete,
    Wrong,
}

impl Naive<'_> {
    fn reply(&mut self, depth: u32) -> Result<Reply, Stop> {
        let kind = *self.bytes.get(self.pos).ok_or(Stop::Incomplete)?;
        ensure(b"+-:$*_#,(!=%~|>".contains(&kind) && (kind != b'>' || depth == 0))?;
        self.pos += 1;
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let reply = match kind {
            b'+' => Reply::Simple(line),
            b'-' => Reply::Error(ServerError::new(line)),
            b':' => Reply::Integer(text.parse().map_err(|_| Stop::Wrong)?),
            b',' => {
                // Rust would also take `infinity` and capitals.
                ensure(!text.contains("infinity") && text != "+nan")?;
                ensure(!text.bytes().any(|byte| byte.is_ascii_uppercase() && byte != b'E'))?;
                Reply::Double(text.parse().map_err(|_| Stop::Wrong)?)
            }
            b'(' => {
                let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
                ensure(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))?;
                Reply::BigNumber(line)
            }
            b'#' => {
                ensure(text == "t" || text == "f")?;
                Reply::Boolean(text == "t")
            }
            b'_' => {
                ensure(text.is_empty())?;
                Reply::Null
            }
            b'$' | b'*' if text == "-1" => Reply::Null,
            _ => {
                ensure(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))?;
                ensure(text == "0" || !text.starts_with('0'))?;
                let length = text.parse().unwrap_or(u128::MAX / 4);
                return if b"$!=".contains(&kind) {
                    self.blob(kind, length)
                } else {
                    self.aggregate(kind, length, depth)
                };
            }
        };
        ensure(self.pos <= self.limits.frame)?;
        Ok(reply)
    }

    fn line(&mut self) -> Result<Bytes, Stop> {
        let rest = &self.bytes[self.pos..];
        let end = rest.iter().position(|byte| b"\r\n".contains(byte));
        let longest = self.limits.line.min(self.limits.frame.saturating_sub(self.pos + 2));
        ensure(end.unwrap_or(rest.len()) <= longest)?;
        let end = end.ok_or(Stop::Incomplete)?;
        ensure(rest[end] == b'\r')?;
        ensure(*rest.get(end + 1).ok_or(Stop::Incomplete)? == b'\n')?;
        self.pos += end + 2;
        Ok(Bytes::copy_from_slice(&rest[..end]))
    }

    fn blob(&mut self, kind: u8, length: u128) -> Result<Reply, Stop> {
        ensure(length <= self.limits.bulk as u128)?;
        let end = self.pos + length as usize;
        ensure(end + 2 <= self.limits.frame && (kind != b'=' || length >= 4))?;
        let tail = self.bytes.get(end..end + 2).ok_or(Stop::Incomplete)?;
        ensure(tail == b"\r\n")?;
        let payload = Bytes::copy_from_slice(&self.bytes[self.pos..end]);
        self.pos = end + 2;
        match kind {
            b'!' => Ok(Reply::Error(ServerError::new(payload))),
            b'=' => {
                ensure(payload[3] == b':')?;
                Ok(Reply::Verbatim { format: [payload[0], payload[1], payload[2]], text: payload.slice(4..) })
            }
            _ => Ok(Reply::Bulk(payload)),
        }
    }

    fn aggregate(&mut self, kind: u8, count: u128, depth: u32) -> Result<Reply, Stop> {
        let count = if b"%|".contains(&kind) { count * 2 } else { count };
        self.elements += count + u128::from(kind == b'|');
        ensure(self.elements <= self.limits.elements as u128 && depth < self.limits.depth)?;
        ensure(self.pos <= self.limits.frame)?;
        let elements = (0..count).map(|_| self.reply(depth + 1)).collect::<Result<Vec<_>, _>>()?;
        match kind {
            b'|' => self.reply(depth),
            b'~' => Ok(Reply::Set(elements)),
            b'>' => Ok(Reply::Push(elements)),
            b'%' => {
                Ok(Reply::Map(elements.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()))
            }
            _ => Ok(Reply::Array(elements)),
        }
    }
}

fn ensure(holds: bool) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Wrong) }
}
