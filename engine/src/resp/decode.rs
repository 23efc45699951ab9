//! From tokens to replies.

use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};

use super::scan::{Aggregate, Scan, Span, Token};
use super::{DecodeError, Limits, Reply, ServerError};

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
    /// What the scan has found of an aggregate.
    tape: Vec<Token>,
    missing: usize,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { scan: Scan::new(limits), tape: Vec::new(), missing: 0, failed: None }
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
        // Frames without text are passed over here and leave the input together, once.
        let mut passed = 0;
        let result = self.frames(input, &mut passed, replies);
        input.advance(passed);
        self.missing = self.scan.missing(input.len());
        self.failed = result.err();
        result
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
        self.tape = Vec::new();
        self.missing = 0;
        self.failed = None;
    }

    /// How many bytes have been looked at so far: a measure of work that does not depend on the machine.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.scan.steps()
    }

    fn frames(
        &mut self,
        input: &mut BytesMut,
        passed: &mut usize,
        replies: &mut Vec<Reply>,
    ) -> Result<(), DecodeError> {
        while let Some((token, is_last)) = self.scan.next(input.get(*passed..).unwrap_or_default())? {
            if !is_last {
                self.tape.push(token);
                continue;
            }
            let length = self.scan.take_frame();
            replies.push(if self.tape.is_empty() {
                single(token, length, input, passed)
            } else {
                self.tape.push(token);
                input.advance(core::mem::take(passed));
                let frame = input.split_to(length).freeze();
                let reply = assemble(&self.tape, &frame);
                self.tape.clear();
                self.tape.shrink_to(KEPT_TOKENS);
                reply
            });
        }
        Ok(())
    }
}

/// Tokens kept allocated between aggregates.
const KEPT_TOKENS: usize = 1024;

/// The reply of a frame of one token, `passed` bytes into the input. Only its text is taken out, for one reference
/// count; without a text there is nothing to take.
fn single(token: Token, length: usize, input: &mut BytesMut, passed: &mut usize) -> Reply {
    let frame = *passed;
    *passed += length;
    if let Token::Simple(span) = token {
        if input.get(frame + span.start..frame + span.end) == Some(b"OK") {
            return Reply::Simple(Bytes::from_static(b"OK"));
        }
    }
    element(token, |span| {
        input.advance(frame + span.start);
        *passed = length - span.end;
        input.split_to(span.len()).freeze()
    })
}

/// The reply of a frame of several tokens: iterative, with a list of the aggregates still open.
fn assemble(tape: &[Token], frame: &Bytes) -> Reply {
    let mut open: Vec<Open> = Vec::new();
    for &token in tape {
        if let Token::Open(kind, count @ 1..) = token {
            open.push(Open { kind, count, elements: Vec::with_capacity(count) });
            continue;
        }
        let mut reply = element(token, |span| frame.slice(span.start..span.end));
        loop {
            let Some(mut parent) = open.pop() else { return reply };
            parent.elements.push(reply);
            if parent.elements.len() < parent.count {
                open.push(parent);
                break;
            }
            reply = aggregate(parent.kind, parent.elements);
        }
    }
    // The scan ends a frame with the element that closes every aggregate.
    Reply::Null
}

struct Open {
    kind: Aggregate,
    count: usize,
    elements: Vec<Reply>,
}

/// A scalar or an empty aggregate.
fn element(token: Token, text: impl FnOnce(Span) -> Bytes) -> Reply {
    match token {
        Token::Simple(span) => Reply::Simple(text(span)),
        Token::Error(span) => Reply::Error(ServerError::new(text(span))),
        Token::Integer(number) => Reply::Integer(number),
        Token::Bulk(span) => Reply::Bulk(text(span)),
        Token::Null => Reply::Null,
        Token::Boolean(is_true) => Reply::Boolean(is_true),
        Token::Double(number) => Reply::Double(number),
        Token::BigNumber(span) => Reply::BigNumber(text(span)),
        Token::Verbatim { format, text: span } => Reply::Verbatim { format, text: text(span) },
        Token::Open(kind, _) => aggregate(kind, Vec::new()),
    }
}

fn aggregate(kind: Aggregate, elements: Vec<Reply>) -> Reply {
    match kind {
        Aggregate::Array => Reply::Array(elements),
        Aggregate::Set => Reply::Set(elements),
        Aggregate::Push => Reply::Push(elements),
        Aggregate::Map => {
            let mut pairs = Vec::with_capacity(elements.len() / 2);
            let mut elements = elements.into_iter();
            while let (Some(field), Some(value)) = (elements.next(), elements.next()) {
                pairs.push((field, value));
            }
            Reply::Map(pairs)
        }
    }
}
