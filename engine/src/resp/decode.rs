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
        loop {
            match self.scan.next(input) {
                Ok(Some((token, false))) => self.tape.push(token),
                Ok(Some((token, true))) => replies.push(self.take(token, input)),
                Ok(None) => {
                    self.missing = self.scan.missing(input.len());
                    return Ok(());
                }
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
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
        self.tape = Vec::new();
        self.missing = 0;
        self.failed = None;
    }

    /// How many bytes have been looked at so far: a measure of work that does not depend on the machine.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.scan.steps()
    }

    /// The frame at the front of `input`, whose last token is `last`.
    fn take(&mut self, last: Token, input: &mut BytesMut) -> Reply {
        let length = self.scan.take_frame();
        if self.tape.is_empty() {
            return single(last, length, input);
        }
        self.tape.push(last);
        let frame = input.split_to(length).freeze();
        let reply = assemble(&self.tape, &frame);
        self.tape.clear();
        self.tape.shrink_to(KEPT_TOKENS);
        reply
    }
}

/// Tokens kept allocated between aggregates.
const KEPT_TOKENS: usize = 1024;

/// The reply of a frame of one token. Taking just its text out of the input costs one reference count; a scalar without
/// text costs none.
fn single(token: Token, length: usize, input: &mut BytesMut) -> Reply {
    let mut taken = 0;
    let reply = element(token, |span| {
        input.advance(span.start);
        taken = span.end;
        input.split_to(span.len()).freeze()
    });
    input.advance(length - taken);
    reply
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
