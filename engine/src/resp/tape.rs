//! What the scan finds and the decoder makes replies of.

use alloc::vec::Vec;

/// The smallest part of a frame with a meaning of its own. Spans are positions in the input.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token {
    /// The simple string `OK`.
    Ok,
    Simple(Span),
    Error(Span),
    Integer(i64),
    Bulk(Span),
    Null,
    Boolean(bool),
    Double(f64),
    BigNumber(Span),
    Verbatim {
        format: [u8; 3],
        text: Span,
    },
    /// The start of an aggregate of so many elements (a map's pair being two).
    Open(Aggregate, usize),
}

impl Token {
    fn move_front(&mut self, by: usize) {
        match self {
            Self::Simple(span)
            | Self::Error(span)
            | Self::Bulk(span)
            | Self::BigNumber(span)
            | Self::Verbatim { text: span, .. } => *span = span.moved(by),
            Self::Ok
            | Self::Integer(_)
            | Self::Null
            | Self::Boolean(_)
            | Self::Double(_)
            | Self::Open(..) => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Array,
    Set,
    Map,
    Push,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) const fn moved(self, by: usize) -> Self {
        Self { start: self.start.saturating_sub(by), end: self.end.saturating_sub(by) }
    }
}

/// What has been scanned and not been made replies of.
#[derive(Debug, Default)]
pub(super) struct Tape {
    tokens: Vec<Token>,
    /// How many of the tokens belong to complete frames.
    complete: usize,
}

impl Tape {
    /// Tokens of complete frames that are made replies of before the scan goes on: a buffer full of small replies must
    /// not become a long list of tokens first.
    const FULL: usize = 64;
    /// Tokens kept allocated.
    pub(super) const KEPT: usize = 1024;

    #[inline]
    pub(super) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// All tokens so far belong to complete frames.
    #[inline]
    pub(super) fn end_frame(&mut self) {
        self.complete = self.tokens.len();
    }

    /// Whether it is time to make replies.
    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        self.complete >= Self::FULL
    }

    /// The tokens of the complete frames.
    pub(super) fn complete(&self) -> &[Token] {
        self.tokens.get(..self.complete).unwrap_or_default()
    }

    /// Forgets them, the `taken` first bytes of the input.
    pub(super) fn take_complete(&mut self, taken: usize) {
        self.tokens.drain(..core::mem::take(&mut self.complete));
        for token in &mut self.tokens {
            token.move_front(taken);
        }
        self.tokens.shrink_to(Self::KEPT);
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.tokens.capacity()
    }
}
