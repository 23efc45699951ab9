//! From tokens to replies.

use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};

use super::tape::{Aggregate, Span, Token};
use super::{Reply, ServerError};

/// The complete frames at the front of the input, as what texts are slices of.
pub(super) struct Texts<'a> {
    /// Their length, as long as they are in the input.
    frames: usize,
    input: &'a mut BytesMut,
    /// Taken out of the input for the first text; without one there is nothing to share.
    buffer: Bytes,
}

impl<'a> Texts<'a> {
    pub(super) fn new(input: &'a mut BytesMut, frames: usize) -> Self {
        Self { frames, input, buffer: Bytes::new() }
    }

    /// For one reference count, and none where it is empty: an empty slice would keep all of the buffer alive.
    #[inline]
    fn slice(&mut self, span: Span) -> Bytes {
        if self.frames > 0 {
            self.buffer = self.input.split_to(core::mem::take(&mut self.frames)).freeze();
        }
        self.buffer.slice(span.start..span.end)
    }

    /// Takes the frames out of the input if no text has done so.
    pub(super) fn finish(self) {
        self.input.advance(self.frames);
    }
}

/// The replies of complete frames.
pub(super) fn assemble(
    mut tape: &[Token],
    texts: &mut Texts<'_>,
    outer: &mut Vec<Open>,
    replies: &mut Vec<Reply>,
) {
    while let [token, rest @ ..] = tape {
        tape = rest;
        replies.push(match *token {
            Token::Open(kind, count @ 1..) => aggregate(Open::new(kind, count), &mut tape, texts, outer),
            token => element(token, texts),
        });
    }
}

/// An aggregate and all that is in it: iterative, with a list of the aggregates around the one at hand.
fn aggregate(mut current: Open, tape: &mut &[Token], texts: &mut Texts<'_>, outer: &mut Vec<Open>) -> Reply {
    loop {
        current.take_leaves(tape, texts);
        match tape {
            [Token::Open(kind, count), rest @ ..] if current.left > 0 => {
                outer.push(core::mem::replace(&mut current, Open::new(*kind, *count)));
                *tape = rest;
            }
            // Complete, as the frame is.
            _ => {
                let Some(parent) = outer.pop() else { return current.reply };
                let child = core::mem::replace(&mut current, parent);
                current.push(child.reply);
            }
        }
    }
}

/// An aggregate that is not complete yet.
#[derive(Debug)]
pub(super) struct Open {
    reply: Reply,
    /// The field whose value comes next, in a map.
    field: Option<Reply>,
    left: usize,
}

impl Open {
    fn new(kind: Aggregate, count: usize) -> Self {
        Self { reply: empty(kind, count), field: None, left: count }
    }

    /// Takes the next elements as far as they are scalars or empty aggregates.
    fn take_leaves(&mut self, tape: &mut &[Token], texts: &mut Texts<'_>) {
        let left = self.left.min(tape.len());
        let run =
            tape.iter().take(left).position(|token| matches!(token, Token::Open(_, 1..))).unwrap_or(left);
        let (leaves, rest) = tape.split_at(run);
        *tape = rest;
        self.left -= run;
        // By `extend` into their place, see `Decoder::take_scalars`.
        match &mut self.reply {
            Reply::Array(elements) | Reply::Set(elements) | Reply::Push(elements) => {
                elements.extend(leaves.iter().map(|&token| leaf(token, texts)));
            }
            Reply::Map(pairs) => extend_pairs(pairs, &mut self.field, leaves, texts),
            _ => {}
        }
    }

    #[inline]
    fn push(&mut self, element: Reply) {
        self.left -= 1;
        match &mut self.reply {
            Reply::Map(pairs) => match self.field.take() {
                None => self.field = Some(element),
                Some(field) => pairs.push((field, element)),
            },
            Reply::Array(elements) | Reply::Set(elements) | Reply::Push(elements) => elements.push(element),
            _ => {}
        }
    }
}

/// Adds fields and values by turns; `field` is the one whose value comes next.
fn extend_pairs(
    pairs: &mut Vec<(Reply, Reply)>,
    field: &mut Option<Reply>,
    mut leaves: &[Token],
    texts: &mut Texts<'_>,
) {
    if let [value, rest @ ..] = leaves {
        if let Some(field) = field.take() {
            pairs.push((field, leaf(*value, texts)));
            leaves = rest;
        }
    }
    let couples = leaves.chunks_exact(2);
    let last = couples.remainder().first();
    pairs.extend(couples.map(|couple| match *couple {
        [field, value] => (leaf(field, texts), leaf(value, texts)),
        _ => (Reply::Null, Reply::Null), // Chunks of two are of two.
    }));
    if let Some(&last) = last {
        *field = Some(leaf(last, texts));
    }
}

/// An aggregate with room for so many elements, a map's pair being two.
fn empty(kind: Aggregate, count: usize) -> Reply {
    match kind {
        Aggregate::Array => Reply::Array(Vec::with_capacity(count)),
        Aggregate::Set => Reply::Set(Vec::with_capacity(count)),
        Aggregate::Push => Reply::Push(Vec::with_capacity(count)),
        Aggregate::Map => Reply::Map(Vec::with_capacity(count / 2)),
    }
}

/// A scalar or an empty aggregate, most often a bulk string.
#[inline]
fn leaf(token: Token, texts: &mut Texts<'_>) -> Reply {
    match token {
        Token::Bulk(span) => Reply::Bulk(texts.slice(span)),
        _ => element(token, texts),
    }
}

/// A scalar or an empty aggregate.
fn element(token: Token, texts: &mut Texts<'_>) -> Reply {
    match token {
        Token::Ok => Reply::Simple(Bytes::from_static(b"OK")),
        Token::Simple(span) => Reply::Simple(texts.slice(span)),
        Token::Error(span) => Reply::Error(ServerError::new(texts.slice(span))),
        Token::Integer(number) => Reply::Integer(number),
        Token::Bulk(span) => Reply::Bulk(texts.slice(span)),
        Token::Null => Reply::Null,
        Token::Boolean(is_true) => Reply::Boolean(is_true),
        Token::Double(number) => Reply::Double(number),
        Token::BigNumber(span) => Reply::BigNumber(texts.slice(span)),
        Token::Verbatim { format, text } => Reply::Verbatim { format, text: texts.slice(text) },
        Token::Open(kind, _) => empty(kind, 0),
    }
}
