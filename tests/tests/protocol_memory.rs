//! What a hostile server can make us keep: bytes that are alive, counted by the allocator, the same on every machine.

use std::alloc::System;

use bytes::BytesMut;
use larder_engine::resp::{Decoder, Limits, Reply, Violation};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a driver makes room for at a time.
const READ_BUFFER: usize = 64 << 10;

/// What is there besides a frame: the buffer that is read into, the one before it, of which replies are slices, and what the
/// decoder knows about where it is.
const BUFFERS: usize = 2 * READ_BUFFER + 2048;

const MILLION: usize = 1_000_000;

/// A stream of `head`, `count` times `unit`, and `tail`, which comes in pieces of `piece` bytes.
struct Case {
    name: &'static str,
    head: &'static str,
    unit: &'static str,
    count: usize,
    tail: &'static str,
    piece: usize,
    /// How many replies there are, or why it is refused.
    expected: Result<usize, Violation>,
    /// The most bytes that may be alive at any time.
    bound: usize,
}

impl Default for Case {
    fn default() -> Self {
        let (name, head, unit, tail) = Default::default();
        Self { name, head, unit, count: 0, tail, piece: 16 << 10, expected: Ok(0), bound: BUFFERS }
    }
}

#[derive(Debug)]
struct Found {
    replies: Result<usize, Violation>,
    sent: usize,
    /// Never less than were alive.
    peak: usize,
}

impl Case {
    /// Decodes as a driver does, and drops each reply at once.
    fn run(&self) -> Found {
        let unit = self.unit.bytes().cycle().take(self.unit.len() * self.count);
        let mut stream = self.head.bytes().chain(unit).chain(self.tail.bytes());
        let mut piece = vec![0; self.piece];
        let mut replies: Vec<Reply> = Vec::with_capacity(READ_BUFFER);
        let mut found = Found { replies: Ok(0), sent: 0, peak: 0 };

        let region = Region::new(ALLOCATOR);
        let mut decoder = Decoder::new(Limits::default());
        let mut input = BytesMut::new();
        loop {
            let mut length = 0;
            for (place, byte) in piece.iter_mut().zip(&mut stream) {
                *place = byte;
                length += 1;
            }
            if length == 0 {
                return found;
            }
            found.sent += length;
            let before = region.change();
            if input.capacity() - input.len() < length {
                input.reserve(READ_BUFFER.max(decoder.missing().min(input.len())));
            }
            input.extend_from_slice(&piece[..length]);
            let result = decoder.decode(&mut input, &mut replies);
            // As if nothing had been freed before all of this step was allocated.
            let alive = before.bytes_allocated - before.bytes_deallocated;
            let after = region.change();
            found.peak = found.peak.max(alive + (after.bytes_allocated - before.bytes_allocated));
            found.replies = found.replies.map(|count| count + replies.len());
            replies.clear();
            if let Err(error) = result {
                found.replies = Err(error.violation);
                return found;
            }
        }
    }
}

/// One test, so that no other allocates meanwhile.
#[test]
fn no_stream_makes_a_decoder_keep_more_than_its_limits() {
    let limits = Limits::default();
    for case in refused(limits).into_iter().chain(served(limits)) {
        let found = case.run();
        println!(
            "{:45} {:>10} bytes sent, {:>10} alive at most, {:>10} allowed",
            case.name, found.sent, found.peak, case.bound
        );
        assert_eq!(found.replies, case.expected, "{}", case.name);
        assert!(found.peak <= case.bound, "{}: {found:?}, more than {}", case.name, case.bound);
    }
}

fn refused(limits: Limits) -> Vec<Case> {
    let depth = Err(Violation::Depth { limit: limits.depth });
    let elements = Err(Violation::Elements { limit: limits.elements });
    let bulk = Err(Violation::Bulk { limit: limits.bulk });
    let line = Err(Violation::Line { limit: limits.line });
    let huge = |name, head, expected| Case { name, head, expected, ..Case::default() };
    let nested = |name, unit| Case { name, unit, count: MILLION, expected: depth, ..Case::default() };
    let endless = |name, head| {
        let bound = limits.line + BUFFERS;
        Case { name, head, unit: "x", count: 1 << 30, expected: line, bound, ..Case::default() }
    };
    vec![
        nested("a million arrays in one another", "*1\r\n"),
        nested("a million sets in one another", "~1\r\n"),
        nested("a million maps in one another", "%1\r\n+k\r\n"),
        nested("a million attributes in one another", "|1\r\n+k\r\n"),
        huge("a bulk string of 2^63 - 1 bytes", "$9223372036854775807\r\n", bulk),
        huge("a blob error of 2^63 - 1 bytes", "!9223372036854775807\r\n", bulk),
        huge("a verbatim string of 2^63 - 1 bytes", "=9223372036854775807\r\n", bulk),
        huge("an array of 2^63 - 1 elements", "*9223372036854775807\r\n", elements),
        huge("a set of 2^63 - 1 elements", "~9223372036854775807\r\n", elements),
        huge("a map of 2^63 - 1 pairs", "%9223372036854775807\r\n", elements),
        huge("a push of 2^63 - 1 elements", ">9223372036854775807\r\n", elements),
        huge("an attribute of 2^63 - 1 pairs", "|9223372036854775807\r\n", elements),
        endless("a simple string of 1 GiB", "+"),
        endless("an error of 1 GiB", "-"),
        endless("a big number of 1 GiB", "("),
        endless("a length of 1 GiB", "$"),
        endless("a simple string of 1 GiB in an array", "*2\r\n:1\r\n+"),
        Case {
            name: "a million attributes with a pair each before one",
            unit: "|1\r\n+k\r\n+v\r\n",
            count: MILLION,
            expected: elements,
            // Refused at the limit of elements: three for each attribute, itself and its pair.
            bound: 2 * (limits.elements / 3) * "|1\r\n+k\r\n+v\r\n".len() + BUFFERS,
            ..Case::default()
        },
    ]
}

/// What is legal costs what [`Limits`] says, and nothing when it is over.
fn served(limits: Limits) -> Vec<Case> {
    const TOKEN: usize = 24;
    const REPLY: usize = 40;
    let flat = |name, unit, piece| Case {
        name,
        unit,
        count: MILLION,
        piece,
        expected: Ok(MILLION),
        ..Case::default()
    };
    vec![
        flat("a million replies, an attribute before each", "|1\r\n+k\r\n+v\r\n+OK\r\n", 16 << 10),
        flat("a million replies that come in two pieces", "$6\r\nabcdef\r\n", 6),
        flat("a million replies, byte by byte", "*1\r\n:1\r\n", 1),
        // Few at a time: those of a whole buffer are alive together, and cost what the limits say.
        flat("a million pushes", ">2\r\n+a\r\n*1\r\n+b\r\n", 1 << 10),
        Case {
            name: "an announcement of 64 MiB and a bit of it",
            head: "$67108864\r\n",
            unit: "x",
            count: 100_000,
            bound: 4 * READ_BUFFER,
            ..Case::default()
        },
        Case {
            name: "announcements of a million elements",
            head: "*1\r\n*1048575\r\n",
            unit: ":1\r\n",
            count: 10,
            ..Case::default()
        },
        Case {
            name: "a million empty attributes before one reply",
            unit: "|0\r\n",
            count: MILLION,
            tail: "+OK\r\n",
            expected: Ok(1),
            // The bytes of the frame, in a buffer that doubles.
            bound: 2 * MILLION * "|0\r\n".len() + BUFFERS,
            ..Case::default()
        },
        Case {
            name: "as many elements as there may be, in bits",
            head: "*1048576\r\n",
            unit: ":1\r\n",
            count: limits.elements,
            piece: 7,
            expected: Ok(1),
            // Bytes and tokens are in buffers that double, the elements of the reply in one of the right size.
            bound: limits.elements * (2 * TOKEN + REPLY + 2 * ":1\r\n".len()) + BUFFERS,
            ..Case::default()
        },
    ]
}
