//! What is decoded and encoded.

use bytes::BytesMut;

/// So many frames of one kind.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) frames: usize,
    pub(crate) work: Work,
}

#[derive(Clone)]
pub(crate) enum Work {
    Decode {
        wire: Vec<u8>,
        /// How many bytes arrive at a time.
        piece: usize,
        is_resp3: bool,
    },
    Encode(Order),
}

/// What is to be encoded, `frames` times.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Get { key: &'static [u8] },
    Set { key: &'static [u8], value: &'static [u8] },
}

const KEY: &[u8] = b"bench:key:000042";

pub(crate) fn all() -> Vec<Row> {
    let decode = |name, frames, frame: Vec<u8>| Row {
        name,
        frames,
        work: Work::Decode { wire: frame.repeat(frames), piece: usize::MAX, is_resp3: false },
    };
    let resp3 = |name, frames, frame: Vec<u8>| Row {
        name,
        frames,
        work: Work::Decode { wire: frame.repeat(frames), piece: usize::MAX, is_resp3: true },
    };
    let encode = |name, order| Row { name, frames: 1_000, work: Work::Encode(order) };
    vec![
        decode("+OK, 1 000 of them", 1_000, b"+OK\r\n".to_vec()),
        decode("bulk string of 100 B, 1 000 of them", 1_000, bulk(&[b'v'; 100])),
        decode("bulk string of 4 KiB, 100 of them", 100, bulk(&[b'v'; 4096])),
        decode("MGET of 100 x 100 B", 1, array("*", 100, &bulk(&[b'v'; 100]))),
        Row {
            name: "array of 10 000 x 100 B, in pieces of 16 KiB",
            frames: 1,
            work: Work::Decode {
                wire: array("*", 10_000, &bulk(&[b'v'; 100])),
                piece: 16 << 10,
                is_resp3: false,
            },
        },
        resp3("RESP3 map of 10 fields, 100 of them", 100, map()),
        resp3("RESP3 push of an invalidated key, 100 of them", 100, push()),
        encode("encode GET, key of 16 B", Order::Get { key: KEY }),
        encode("encode SET, 100 B", Order::Set { key: KEY, value: &[b'v'; 100] }),
        encode("encode SET, 4 KiB", Order::Set { key: KEY, value: &[b'v'; 4096] }),
    ]
}

impl Row {
    /// The bytes in pieces, as a connection appends them to its buffer.
    pub(crate) fn buffer(&self) -> BytesMut {
        match &self.work {
            Work::Decode { wire, piece, .. } => BytesMut::with_capacity(wire.len().min(*piece)),
            Work::Encode(_) => BytesMut::new(),
        }
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn array(kind: &str, count: usize, element: &[u8]) -> Vec<u8> {
    [format!("{kind}{count}\r\n").as_bytes(), &element.repeat(count)].concat()
}

/// As HGETALL answers it: all fields differ, for the sake of decoders that make a hash map of it.
fn map() -> Vec<u8> {
    let fields = (0..10).map(|n| [bulk(format!("field:{n:02}").as_bytes()), bulk(&[b'v'; 16])].concat());
    [b"%10\r\n".to_vec(), fields.collect::<Vec<_>>().concat()].concat()
}

fn push() -> Vec<u8> {
    [b">2\r\n".to_vec(), bulk(b"invalidate"), array("*", 1, &bulk(KEY))].concat()
}
