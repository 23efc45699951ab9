//! From the input to replies.

use alloc::vec::Vec;
use core::iter;

use bytes::{Buf, Bytes, BytesMut};

use super::assemble::{Open, Texts, assemble};
use super::scan::Scan;
use super::shortcut::{CRLF, OK, Whole};
use super::tape::Tape;
use super::{DecodeError, Limits, Reply};

/// Turns what a connection sends into replies, whatever pieces it comes in.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use larder_engine::resp::{Decoder, Limits, Reply};
///
/// let mut decoder = Decoder::new(Limits::default());
/// let mut replies = Vec::new();
/// let mut input = BytesMut::from(&b"+OK\r\n$5\r\nhel"[..]);
/// decoder.decode(&mut input, &mut replies)?;
/// assert_eq!(decoder.missing(), 4); // "lo" and the line end
///
/// input.extend_from_slice(b"lo\r\n");
/// decoder.decode(&mut input, &mut replies)?;
/// assert_eq!(replies, [Reply::Simple("OK".into()), Reply::Bulk("hello".into())]);
/// # Ok::<(), larder_engine::resp::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    scan: Scan,
    tape: Tape,
    /// Aggregates around the one that is being assembled: empty between calls, but kept allocated.
    outer: Vec<Open>,
    missing: usize,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { scan: Scan::new(limits), tape: Tape::default(), outer: Vec::new(), missing: 0, failed: None }
    }

    /// Moves every complete frame out of `input` and appends its reply to `replies`. An incomplete frame stays in
    /// `input`, to be completed by appending to it; its bytes are not looked at again.
    ///
    /// # Errors
    /// The stream is not RESP or goes over a limit. The replies before that are appended all the same. From then on
    /// every call answers the same error: close the connection.
    pub fn decode(&mut self, input: &mut BytesMut, replies: &mut Vec<Reply>) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = loop {
            self.take_scalars(input, replies);
            let scanned = self.scan.run(input, &mut self.tape);
            self.take_frames(input, replies);
            match scanned {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.missing = self.scan.missing(input.len());
        self.failed = result.err();
        result
    }

    /// The short way for `OK`s and bulk strings, most of what a cache is answered: with no tape, as long as they are there
    /// as a whole. At the first byte of something else it leaves off where the scan can go on.
    ///
    /// Replies are put where they belong by `extend`. With `push` they would be put together elsewhere, to be dropped from
    /// there if there were no room, and copied: a fifth of the time.
    fn take_scalars(&mut self, input: &mut BytesMut, replies: &mut Vec<Reply>) {
        if !self.scan.takes_whole_frames() {
            return;
        }
        // What has become replies, and how much of it is in the input still.
        let (before, mut payload, mut done) = (input.len(), 0, 0);
        let part = loop {
            match self.scan.whole_frame(input.get(done..).unwrap_or_default()) {
                Whole::Ok => {
                    replies.extend(iter::once_with(|| Reply::Simple(Bytes::from_static(b"OK"))));
                    done += OK.len();
                }
                Whole::Bulk { head, length } => {
                    input.advance(done + head);
                    let text = split(input, length);
                    replies.extend(iter::once_with(|| Reply::Bulk(text)));
                    payload += length;
                    done = CRLF.len();
                }
                Whole::Part(short) => break Some(short),
                Whole::Other => break None,
            }
        };
        input.advance(done);
        self.scan.skip_frames((before - input.len()) as u64, payload as u64);
        if let Some(short) = part {
            self.scan.leave_shortcut(b'$', &short);
        }
    }

    /// Moves the complete frames that have been scanned out of the input.
    fn take_frames(&mut self, input: &mut BytesMut, replies: &mut Vec<Reply>) {
        let mut texts = Texts::new(input, self.scan.complete());
        assemble(self.tape.complete(), &mut texts, &mut self.outer, replies);
        texts.finish();
        match self.scan.take_frames() {
            0 => {}
            taken => self.tape.take_complete(taken),
        }
    }

    /// How many more bytes the bulk string at the end of `input` needs, as its header announced: worth a reservation
    /// if it is many. Zero where that is not known. Within the limits, but the server's word and no more.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.missing
    }

    /// Forgets everything but the limits and the work counter: for a new connection, with an empty input.
    pub fn reset(&mut self) {
        self.scan.reset();
        self.tape = Tape::default();
        self.missing = 0;
        self.failed = None;
    }

    /// How many bytes have been looked at so far: a measure of work that does not depend on the machine.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.scan.steps()
    }
}

/// So many bytes at the front of the input. An empty slice would keep all of the buffer alive.
#[inline]
fn split(input: &mut BytesMut, length: usize) -> Bytes {
    if length == 0 { Bytes::new() } else { input.split_to(length).freeze() }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use fastrand::Rng;
    use proptest::prelude::*;

    use super::super::tape::Token;
    use super::super::testing::{
        any_reply, any_stream, cut, decode, naive_decode, plain, replies_of, reply_of, wire,
    };
    use super::super::{ServerError, Violation};
    use super::*;

    /// A decoder with its buffers, fed piece by piece.
    struct Feed {
        decoder: Decoder,
        input: BytesMut,
        replies: Vec<Reply>,
    }

    impl Feed {
        fn new() -> Self {
            Self { decoder: Decoder::new(Limits::default()), input: BytesMut::new(), replies: Vec::new() }
        }

        fn take(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
            self.input.extend_from_slice(piece);
            self.decoder.decode(&mut self.input, &mut self.replies)
        }
    }

    #[test]
    fn every_type_of_both_protocol_versions() {
        let bulk = |text: &'static str| Reply::Bulk(text.into());
        for (stream, expected) in [
            ("+OK\r\n", Reply::Simple("OK".into())),
            ("+\r\n", Reply::Simple("".into())),
            ("-ERR no\r\n", Reply::Error(ServerError::new("ERR no".into()))),
            ("!7\r\nERR\r\nno\r\n", Reply::Error(ServerError::new("ERR\r\nno".into()))),
            (":-42\r\n", Reply::Integer(-42)),
            ("$5\r\nhello\r\n", bulk("hello")),
            ("$0\r\n\r\n", bulk("")),
            ("$2\r\n\r\n\r\n", bulk("\r\n")),
            ("$-1\r\n", Reply::Null),
            ("*-1\r\n", Reply::Null),
            ("_\r\n", Reply::Null),
            ("#t\r\n", Reply::Boolean(true)),
            ("#f\r\n", Reply::Boolean(false)),
            (",1.5e3\r\n", Reply::Double(1500.0)),
            (",-inf\r\n", Reply::Double(f64::NEG_INFINITY)),
            ("(-34928903284092385094820938\r\n", Reply::BigNumber("-34928903284092385094820938".into())),
            ("=8\r\nabc:some\r\n", Reply::Verbatim { format: *b"abc", text: "some".into() }),
            ("=4\r\ntxt:\r\n", Reply::Verbatim { format: *b"txt", text: "".into() }),
            ("*0\r\n", Reply::Array(vec![])),
            ("~0\r\n", Reply::Set(vec![])),
            ("%0\r\n", Reply::Map(vec![])),
            (">0\r\n", Reply::Push(vec![])),
            ("*2\r\n$1\r\na\r\n$-1\r\n", Reply::Array(vec![bulk("a"), Reply::Null])),
            ("~2\r\n:1\r\n:1\r\n", Reply::Set(vec![Reply::Integer(1), Reply::Integer(1)])),
            (">2\r\n$1\r\na\r\n_\r\n", Reply::Push(vec![bulk("a"), Reply::Null])),
            (
                "%2\r\n*1\r\n:1\r\n+x\r\n*1\r\n:1\r\n%0\r\n",
                Reply::Map(vec![
                    (Reply::Array(vec![Reply::Integer(1)]), Reply::Simple("x".into())),
                    (Reply::Array(vec![Reply::Integer(1)]), Reply::Map(vec![])),
                ]),
            ),
        ] {
            assert_eq!(reply_of(stream), expected, "{stream:?}");
            // Within something else, and as one of several.
            assert_eq!(replies_of([stream, stream].concat()), [expected.clone(), expected.clone()]);
            if !stream.starts_with('>') {
                let nested = reply_of(["*2\r\n*1\r\n", stream, "%0\r\n"].concat());
                assert_eq!(nested, Reply::Array(vec![Reply::Array(vec![expected]), Reply::Map(vec![])]));
            }
        }
    }

    #[test]
    fn doubles_and_integers() {
        for (text, expected) in [
            ("inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("1e400", f64::INFINITY),
            ("10", 10.0),
            ("-0", -0.0),
            ("1.7976931348623157e308", f64::MAX),
            ("5e-324", 5e-324),
        ] {
            let Reply::Double(number) = reply_of([",", text, "\r\n"].concat()) else { panic!("{text}") };
            assert_eq!(number.to_bits(), expected.to_bits(), "{text}");
        }
        for text in ["nan", "-nan"] {
            let reply = reply_of([",", text, "\r\n"].concat());
            assert!(matches!(reply, Reply::Double(number) if number.is_nan()), "{text}");
        }
        for (text, expected) in [
            ("+5", 5),
            ("-0", 0),
            ("0005", 5),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(reply_of([":", text, "\r\n"].concat()), Reply::Integer(expected));
        }
    }

    #[test]
    fn pushes_arrive_between_any_replies() {
        let push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n";
        let flushed = ">2\r\n$10\r\ninvalidate\r\n_\r\n";
        let stream = [push, "+OK\r\n", flushed, push, "*1\r\n:1\r\n", "$1\r\nx\r\n", ">0\r\n"].concat();
        let kinds: Vec<_> = replies_of(stream).iter().map(Reply::kind).collect();
        let expected =
            ["a push", "a simple string", "a push", "a push", "an array", "a bulk string", "a push"];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn attributes_are_dropped_before_any_reply() {
        let attributes = [
            "|0\r\n",
            "|1\r\n$3\r\nttl\r\n$4\r\n3600\r\n",
            "|1\r\n+ttl\r\n:3600\r\n",
            "|1\r\n*1\r\n+a\r\n|1\r\n_\r\n~0\r\n%1\r\n_\r\n_\r\n",
        ];
        let replies = [
            "+OK\r\n",
            "-ERR\r\n",
            ":1\r\n",
            "$1\r\na\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1\r\n",
            "(1\r\n",
            "!1\r\nE\r\n",
            "=4\r\ntxt:\r\n",
            "*0\r\n",
            "~0\r\n",
            "%0\r\n",
            ">1\r\n+x\r\n",
        ];
        for attribute in attributes {
            for reply in replies {
                let expected = [reply_of(reply)];
                assert_eq!(replies_of([attribute, reply].concat()), expected);
                assert_eq!(replies_of([attribute, attribute, reply].concat()), expected);
                if !reply.starts_with('>') {
                    let nested = ["*2\r\n", attribute, reply, attribute, "+OK\r\n"].concat();
                    let [reply] = expected;
                    assert_eq!(replies_of(nested), [Reply::Array(vec![reply, Reply::Simple("OK".into())])]);
                }
            }
        }
        // An attribute without a reply is a partial frame.
        let (replies, error) = decode(Limits::default(), ["|1\r\n+ttl\r\n:3600\r\n"]);
        assert_eq!((replies, error), (vec![], None));
    }

    #[test]
    fn an_error_is_final_and_the_replies_before_it_are_kept() {
        let mut feed = Feed::new();
        let error = feed.take(b"+OK\r\n*1\r\n:1\r\n:x\r\n+lost\r\n").expect_err("no integer");
        assert_eq!(error, DecodeError { offset: 13, violation: Violation::Malformed("integer") });
        assert_eq!(feed.replies.len(), 2);
        let steps = feed.decoder.steps();
        assert_eq!(feed.take(b"+OK\r\n"), Err(error));
        assert_eq!((feed.replies.len(), feed.decoder.steps(), feed.decoder.missing()), (2, steps, 0));
    }

    #[test]
    fn reset_forgets_the_stream_but_not_the_work() {
        // From the middle of every kind of thing, and from a failure.
        for start in ["+OK\r\n*2\r\n:1\r\n", "|1\r\n+a\r\n", "$5\r\nab", "+O", "*", ":1\r", "?"] {
            let mut feed = Feed::new();
            assert_eq!(feed.take(start.as_bytes()).is_err(), start == "?");
            let steps = feed.decoder.steps();
            feed.decoder.reset();
            feed.input.clear();
            feed.replies.clear();
            assert_eq!((feed.decoder.steps(), feed.decoder.missing()), (steps, 0));

            assert_eq!(feed.take(b"*1\r\n_\r\n+OK\r\n"), Ok(()));
            assert_eq!(feed.replies, [Reply::Array(vec![Reply::Null]), Reply::Simple("OK".into())]);
            let error = feed.take(b"?").expect_err("no type");
            assert_eq!(error.offset, 12, "counted anew after {start:?}");
        }
    }

    #[test]
    fn missing_bytes_of_a_bulk_are_known_from_its_header() {
        let stream = b"+OK\r\n*2\r\n:1\r\n$10\r\n0123456789\r\n";
        let header_end = stream.len() - 12;
        for length in 0..=stream.len() {
            let mut feed = Feed::new();
            feed.take(&stream[..length]).expect("well-formed");
            let expected = if length < header_end { 0 } else { stream.len() - length };
            assert_eq!(feed.decoder.missing(), expected, "after {length} bytes");
        }
    }

    #[test]
    fn replies_are_slices_of_the_input() {
        let mut input = BytesMut::from(&b"$5\r\nhello\r\n*1\r\n$5\r\nworld\r\n"[..]);
        let memory = input.as_ptr_range();
        let mut replies = Vec::new();
        Decoder::new(Limits::default()).decode(&mut input, &mut replies).expect("well-formed");
        let [Reply::Bulk(hello), Reply::Array(elements)] = &replies[..] else { panic!("{replies:?}") };
        let [Reply::Bulk(world)] = &elements[..] else { panic!("{elements:?}") };
        assert!(memory.contains(&hello.as_ptr()) && memory.contains(&world.as_ptr()));
    }

    #[test]
    fn announced_lengths_reserve_nothing() {
        for header in ["*1048576\r\n", "%524288\r\n", "|524287\r\n", "*1\r\n*1048575\r\n", "$67108864\r\n"] {
            let mut feed = Feed::new();
            feed.take(header.as_bytes()).expect("within the limits");
            assert!(feed.decoder.tape.capacity() <= 8, "{header:?}");
            assert!(feed.input.capacity() <= 64, "{header:?}");
        }
    }

    #[test]
    fn the_tape_of_a_big_frame_is_not_kept() {
        let mut feed = Feed::new();
        feed.take(&["*100000\r\n", &":1\r\n".repeat(100_000)].concat().into_bytes()).expect("well-formed");
        assert!(feed.decoder.tape.capacity() <= Tape::KEPT);
    }

    /// [`Limits`] says what a frame costs in memory.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn sizes_are_as_documented() {
        assert_eq!((size_of::<Token>(), size_of::<Reply>()), (24, 40));
    }

    #[test]
    fn work_is_linear_however_the_stream_is_cut() {
        const LENGTH: usize = 1 << 10;
        let element = [&b"$1024\r\n"[..], &[b'x'; LENGTH], b"\r\n"].concat();
        let stream = [&b"*10000\r\n"[..], &element.repeat(10_000)].concat();
        let steps = |piece: usize| {
            let mut feed = Feed::new();
            stream.chunks(piece).for_each(|piece| feed.take(piece).expect("well-formed"));
            assert_eq!((feed.replies.len(), feed.input.len()), (1, 0));
            feed.decoder.steps()
        };
        let at_once = steps(stream.len());
        // Payloads are not looked at.
        assert_eq!(at_once, (stream.len() - 10_000 * LENGTH) as u64);
        for piece in [1, 7, 4096, 16384] {
            assert_eq!(steps(piece), at_once, "in pieces of {piece} bytes");
        }
    }

    #[test]
    fn a_long_line_in_small_pieces_is_looked_at_once() {
        let stream = ["+", &"x".repeat(60_000), "\r\n"].concat();
        let mut feed = Feed::new();
        stream.as_bytes().chunks(1).for_each(|piece| feed.take(piece).expect("well-formed"));
        assert_eq!(feed.decoder.steps(), stream.len() as u64);
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        let small = (0..6_u32, 0..40_usize, 0..60_usize, 0..20_usize, 0..200_usize)
            .prop_map(|(depth, line, bulk, elements, frame)| Limits { depth, line, bulk, elements, frame });
        let huge = Just(Limits {
            depth: u32::MAX,
            line: usize::MAX,
            bulk: usize::MAX,
            elements: usize::MAX,
            frame: usize::MAX,
        });
        prop_oneof![4 => Just(Limits::default()), 4 => small, 1 => huge]
    }

    fn any_cuts() -> impl Strategy<Value = Vec<usize>> {
        prop_oneof![Just(vec![1]), prop::collection::vec(1..40_usize, 1..8)]
    }

    /// What takes short cuts, what nearly does, and what ends them.
    fn frequent() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "+OK\r\n",
            "+OK\r\n",
            "$3\r\nabc\r\n",
            "$12\r\n+OK\r\n$1\r\na\r\n\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "$03\r\nabc\r\n",
            "$00\r\n\r\n",
            "$3\r\nabcd\r\n",
            "$50\r\n",
            "$0000000003\r\n",
            "$",
            "$3",
            "+OK\r",
            "+OKAY\r\n",
            "*2\r\n",
            "%1\r\n",
            ">1\r\n",
            "|1\r\n",
            ":1\r\n",
        ])
    }

    /// All that can be seen of a decoder: replies, error, steps, what it wants, and what it left in the input.
    fn outcome<'a>(
        limits: Limits,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Reply>, Option<DecodeError>, u64, usize, BytesMut) {
        let mut decoder = Decoder::new(limits);
        let (mut input, mut replies) = (BytesMut::new(), Vec::new());
        let mut error = None;
        for piece in pieces {
            input.extend_from_slice(piece);
            error = decoder.decode(&mut input, &mut replies).err();
            if error.is_some() {
                input.clear(); // How much was there with it depends on the pieces.
                break;
            }
        }
        (replies, error, decoder.steps(), decoder.missing(), input)
    }

    proptest! {
        #[test]
        fn round_trip(replies in prop::collection::vec(any_reply(), 0..8), seed: u64, cuts in any_cuts()) {
            let mut rng = Some(Rng::with_seed(seed));
            let stream: Vec<u8> = replies.iter().flat_map(|reply| wire(reply, &mut rng)).collect();
            prop_assert_eq!(decode(Limits::default(), [&stream]), (replies.clone(), None));
            prop_assert_eq!(decode(Limits::default(), cut(&stream, &cuts)), (replies, None));
        }

        #[test]
        fn any_split_equals_one_piece(stream in any_stream(), limits in any_limits(), cuts in any_cuts()) {
            let (whole, error) = decode(limits, [&stream]);
            let (pieces, same_error) = decode(limits, cut(&stream, &cuts));
            prop_assert_eq!(plain(&whole), plain(&pieces));
            prop_assert_eq!(error, same_error);
        }

        /// Byte by byte nothing is there as a whole, so nothing takes a short cut.
        #[test]
        fn short_cuts_equal_the_long_way(
            parts in prop::collection::vec(frequent(), 0..12),
            limits in any_limits(),
            cuts in any_cuts(),
        ) {
            let stream = parts.concat().into_bytes();
            let long = outcome(limits, stream.chunks(1));
            prop_assert_eq!(outcome(limits, [&stream[..]]), long.clone());
            prop_assert_eq!(outcome(limits, cut(&stream, &cuts)), long);
        }

        #[test]
        fn decodes_as_the_naive_decoder_does(stream in any_stream(), limits in any_limits()) {
            let (replies, error) = decode(limits, [&stream]);
            let (expected, is_wrong) = naive_decode(limits, &stream);
            prop_assert_eq!(plain(&replies), plain(&expected));
            prop_assert_eq!(error.is_some(), is_wrong, "{:?}", error);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(stream: Vec<u8>, limits in any_limits()) {
            let mut decoder = Decoder::new(limits);
            let (mut input, mut replies) = (BytesMut::from(&stream[..]), Vec::new());
            let result = decoder.decode(&mut input, &mut replies);
            prop_assert!(decoder.steps() <= stream.len() as u64);
            if let Err(error) = result {
                prop_assert!(error.offset < stream.len() as u64);
            }
        }

        #[test]
        fn no_prefix_is_a_frame(reply in any_reply(), seed: u64, at: prop::sample::Index) {
            let stream = wire(&reply, &mut Some(Rng::with_seed(seed)));
            let prefix = &stream[..at.index(stream.len())];
            let mut feed = Feed::new();
            prop_assert_eq!(feed.take(prefix), Ok(()));
            prop_assert_eq!(&feed.replies, &[]);
            prop_assert_eq!(&feed.input[..], prefix);
            prop_assert!(feed.decoder.missing() <= stream.len() - prefix.len());
            prop_assert_eq!(feed.take(&stream[prefix.len()..]), Ok(()));
            prop_assert_eq!(feed.replies, [reply]);
        }
    }

    #[test]
    fn an_empty_reply_keeps_no_buffer_alive() {
        for (stream, is_slice) in
            [("$0\r\n\r\n", false), ("+\r\n", false), ("+OK\r\n", false), ("+PONG\r\n", true)]
        {
            let (mut input, mut replies) = (BytesMut::from(stream), Vec::new());
            Decoder::new(Limits::default()).decode(&mut input, &mut replies).expect("valid");
            assert!(input.is_empty());
            drop(input);
            let bytes = replies.remove(0).into_bytes().expect("a text");
            assert_eq!(bytes.is_unique(), is_slice, "{stream:?}");
        }
    }
}
