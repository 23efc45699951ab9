//! From bytes to tokens: iterative, resumable at any byte, bounded.
//!
//! Every byte outside of bulk payloads is looked at once however the stream is cut; payloads are skipped.
//!
//! ```text
//!            type byte            CR                LF
//!  ┌► Type ────────────► Line ──────────► LineFeed ─────┬─ scalar, aggregate ─► token ─┐
//!  │                     └─┘ other byte                 └─ `$` `!` `=`                 │
//!  │                                                        │                          │
//!  │                                             Bulk ◄─────┘                          │
//!  │                                             └─ payload and CR LF ─► token ────────┤
//!  └───────────────────────────────────────────────────────────────────────────────────┘
//! ```

use alloc::vec::Vec;

use super::{DecodeError, Limits, Violation};

/// The smallest part of a frame with a meaning of its own. Spans are relative to the start of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token {
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
    pub(super) const fn len(self) -> usize {
        self.end - self.start
    }
}

/// The scan of one stream: where it stands in the frame at the front of the buffer.
#[derive(Debug)]
pub(super) struct Scan {
    limits: Limits,
    /// Bytes of the stream before the frame at hand.
    offset: u64,
    /// The next byte to look at, relative to the start of the frame.
    pos: usize,
    state: State,
    /// Open aggregates, the innermost last.
    levels: Vec<Level>,
    /// How many of `levels` are attributes.
    attributes: usize,
    /// Elements announced in this frame.
    elements: usize,
    steps: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Type,
    Line { kind: u8, start: usize },
    LineFeed { kind: u8, line: Span },
    Bulk { kind: u8, payload: Span },
}

#[derive(Clone, Copy, Debug)]
struct Level {
    left: usize,
    is_attribute: bool,
}

/// What a line turned out to be.
enum Line {
    Token(Token),
    /// The header of a bulk, or an attribute: the token is still to come.
    Header,
}

enum Length {
    Null,
    Some(usize),
}

impl Scan {
    pub(super) fn new(limits: Limits) -> Self {
        // Half of the address space, so that no position can overflow.
        let frame = limits.frame.min(usize::MAX / 2);
        let line = limits.line.min(usize::MAX / 4);
        let depth = limits.depth.min(Limits::MAX_DEPTH);
        Self {
            limits: Limits { frame, line, depth, ..limits },
            offset: 0,
            pos: 0,
            state: State::Type,
            levels: Vec::new(),
            attributes: 0,
            elements: 0,
            steps: 0,
        }
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// The next token of the frame that `bytes` begins with, and whether it is the frame's last; `None` until more
    /// bytes have been appended.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<(Token, bool)>, DecodeError> {
        loop {
            let Some(token) = self.advance(bytes)? else { return Ok(None) };
            let Line::Token(token) = token else { continue };
            let is_dropped = self.attributes > 0;
            let is_last = match token {
                Token::Open(_, count) if count > 0 => false,
                _ => self.close_element(),
            };
            if !is_dropped {
                return Ok(Some((token, is_last)));
            }
        }
    }

    /// Forgets the stream, but not the work done.
    pub(super) fn reset(&mut self) {
        *self = Self { steps: self.steps, ..Self::new(self.limits) };
    }

    /// The length of the frame that has just ended; the scan goes on with the one behind it.
    pub(super) fn take_frame(&mut self) -> usize {
        let length = core::mem::take(&mut self.pos);
        self.offset = self.offset.saturating_add(length as u64);
        self.elements = 0;
        length
    }

    /// How many bytes have to follow the `available` ones before the bulk at hand is complete.
    pub(super) const fn missing(&self, available: usize) -> usize {
        match self.state {
            State::Bulk { payload, .. } => (payload.end + CRLF.len()).saturating_sub(available),
            _ => 0,
        }
    }

    /// One transition.
    fn advance(&mut self, bytes: &[u8]) -> Result<Option<Line>, DecodeError> {
        match self.state {
            State::Type => self.type_byte(bytes),
            State::Line { kind, start } => self.line(bytes, kind, start),
            State::LineFeed { kind, line } => self.line_feed(bytes, kind, line),
            State::Bulk { kind, payload } => self.bulk_end(bytes, kind, payload),
        }
    }

    fn type_byte(&mut self, bytes: &[u8]) -> Result<Option<Line>, DecodeError> {
        let Some(&kind) = bytes.get(self.pos) else { return Ok(None) };
        self.steps += 1;
        match kind {
            b'+' | b'-' | b':' | b'$' | b'*' | b'_' | b'#' | b',' | b'(' | b'!' | b'=' | b'%' | b'~'
            | b'|' => {}
            b'>' if self.levels.is_empty() => {}
            b'>' => return Err(self.error(self.pos, Violation::NestedPush)),
            b';' | b'.' => return Err(self.error(self.pos, Violation::Streamed)),
            _ => return Err(self.error(self.pos, Violation::UnknownType(kind))),
        }
        self.pos += 1;
        self.state = State::Line { kind, start: self.pos };
        Ok(Some(Line::Header))
    }

    fn line(&mut self, bytes: &[u8], kind: u8, start: usize) -> Result<Option<Line>, DecodeError> {
        let limit = self.limits.line;
        // The CR of the longest line allowed stands at `start + limit`.
        let stop = bytes.len().min(start + limit + 1);
        let window = bytes.get(self.pos..stop).unwrap_or_default();
        let found = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let looked_at = found.map_or(window.len(), |at| at + 1);
        self.steps += looked_at as u64;
        self.pos += looked_at;
        match found.and_then(|at| window.get(at)) {
            Some(b'\r') => {
                self.state = State::LineFeed { kind, line: Span { start, end: self.pos - 1 } };
                Ok(Some(Line::Header))
            }
            Some(_) => Err(self.error(start - 1, Violation::LineEnd)),
            None if self.pos > start + limit => Err(self.error(start - 1, Violation::Line { limit })),
            None => Ok(None),
        }
    }

    fn line_feed(&mut self, bytes: &[u8], kind: u8, line: Span) -> Result<Option<Line>, DecodeError> {
        let Some(&byte) = bytes.get(self.pos) else { return Ok(None) };
        self.steps += 1;
        let at = line.start - 1;
        if byte != b'\n' {
            return Err(self.error(at, Violation::LineEnd));
        }
        self.pos += 1;
        self.state = State::Type;
        let text = bytes.get(line.start..line.end).unwrap_or_default();
        let parsed = self.parse(kind, line, text).map_err(|violation| self.error(at, violation))?;
        if self.pos > self.limits.frame {
            return Err(self.error(at, Violation::Frame { limit: self.limits.frame }));
        }
        Ok(Some(parsed))
    }

    fn bulk_end(&mut self, bytes: &[u8], kind: u8, payload: Span) -> Result<Option<Line>, DecodeError> {
        let Some(end) = bytes.get(payload.end..payload.end + CRLF.len()) else { return Ok(None) };
        self.steps += CRLF.len() as u64;
        if end != CRLF {
            return Err(self.error(payload.end, Violation::BulkEnd));
        }
        self.pos = payload.end + CRLF.len();
        self.state = State::Type;
        let token = match kind {
            b'!' => Token::Error(payload),
            b'=' => match bytes.get(payload.start..payload.start + VERBATIM_HEAD) {
                Some(&[a, b, c, b':']) => Token::Verbatim {
                    format: [a, b, c],
                    text: Span { start: payload.start + VERBATIM_HEAD, ..payload },
                },
                _ => return Err(self.error(payload.start, Violation::Malformed("verbatim string"))),
            },
            _ => Token::Bulk(payload),
        };
        Ok(Some(Line::Token(token)))
    }

    /// What a whole line says.
    fn parse(&mut self, kind: u8, line: Span, text: &[u8]) -> Result<Line, Violation> {
        Ok(Line::Token(match kind {
            b'+' => Token::Simple(line),
            b'-' => Token::Error(line),
            b':' => Token::Integer(integer(text).ok_or(Violation::Malformed("integer"))?),
            b'_' if text.is_empty() => Token::Null,
            b'_' => return Err(Violation::Malformed("null")),
            b'#' if text == b"t" => Token::Boolean(true),
            b'#' if text == b"f" => Token::Boolean(false),
            b'#' => return Err(Violation::Malformed("boolean")),
            b',' => Token::Double(double(text).ok_or(Violation::Malformed("double"))?),
            b'(' if is_big_number(text) => Token::BigNumber(line),
            b'(' => return Err(Violation::Malformed("big number")),
            _ => match length(text)? {
                Length::Null if matches!(kind, b'$' | b'*') => Token::Null,
                Length::Null => return Err(Violation::Malformed("length")),
                Length::Some(bytes) if matches!(kind, b'$' | b'!' | b'=') => {
                    return self.open_bulk(kind, bytes);
                }
                Length::Some(count) => return self.open(kind, count),
            },
        }))
    }

    fn open_bulk(&mut self, kind: u8, length: usize) -> Result<Line, Violation> {
        let Limits { bulk, frame, .. } = self.limits;
        if length > bulk {
            return Err(Violation::Bulk { limit: bulk });
        }
        if kind == b'=' && length < VERBATIM_HEAD {
            return Err(Violation::Malformed("verbatim string"));
        }
        let payload = Span { start: self.pos, end: self.pos.saturating_add(length) };
        if payload.end.saturating_add(CRLF.len()) > frame {
            return Err(Violation::Frame { limit: frame });
        }
        self.state = State::Bulk { kind, payload };
        Ok(Line::Header)
    }

    fn open(&mut self, kind: u8, count: usize) -> Result<Line, Violation> {
        let Limits { depth, elements, .. } = self.limits;
        let is_attribute = kind == b'|';
        let left = if matches!(kind, b'%' | b'|') { count.saturating_mul(2) } else { count };
        // An attribute is not an element of what it stands in, but it has to be bounded too.
        self.elements = self.elements.saturating_add(left).saturating_add(usize::from(is_attribute));
        if self.elements > elements {
            return Err(Violation::Elements { limit: elements });
        }
        if self.levels.len() >= depth as usize {
            return Err(Violation::Depth { limit: depth });
        }
        if left > 0 {
            self.levels.push(Level { left, is_attribute });
        }
        let aggregate = match kind {
            b'|' => {
                self.attributes += usize::from(left > 0);
                return Ok(Line::Header);
            }
            b'~' => Aggregate::Set,
            b'%' => Aggregate::Map,
            b'>' => Aggregate::Push,
            _ => Aggregate::Array,
        };
        Ok(Line::Token(Token::Open(aggregate, left)))
    }

    /// An element has ended, and with it every aggregate whose last one it was. Whether that was the frame.
    fn close_element(&mut self) -> bool {
        loop {
            let Some(level) = self.levels.last_mut() else { return true };
            level.left = level.left.saturating_sub(1);
            if level.left > 0 {
                return false;
            }
            let is_attribute = level.is_attribute;
            self.levels.pop();
            if is_attribute {
                // What it describes comes next.
                self.attributes = self.attributes.saturating_sub(1);
                return false;
            }
        }
    }

    const fn error(&self, at: usize, violation: Violation) -> DecodeError {
        DecodeError { offset: self.offset.saturating_add(at as u64), violation }
    }
}

const CRLF: &[u8] = b"\r\n";
/// A verbatim string begins with its format and a colon.
const VERBATIM_HEAD: usize = 4;

/// Plain digits, or `-1`. A number too big for us saturates: it is over any limit.
fn length(text: &[u8]) -> Result<Length, Violation> {
    match text {
        b"-1" => Ok(Length::Null),
        b"?" => Err(Violation::Streamed),
        [] | [b'0', _, ..] => Err(Violation::Malformed("length")),
        digits => {
            let add = |sum: usize, digit: &u8| match digit {
                b'0'..=b'9' => Ok(sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'))),
                _ => Err(Violation::Malformed("length")),
            };
            digits.iter().try_fold(0, add).map(Length::Some)
        }
    }
}

/// An optional sign and digits, within 64 bits.
fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    // Summed up below zero, where there is room for `i64::MIN`.
    let subtract = |sum: i64, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0')),
        _ => None,
    };
    let negated = digits.iter().try_fold(0, subtract)?;
    if is_negative { Some(negated) } else { negated.checked_neg() }
}

fn double(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" | b"+inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        // Some versions of Redis print the sign that a NaN may have.
        b"nan" | b"-nan" => Some(f64::NAN),
        // Rust would also take `infinity` and capitals.
        _ if text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            core::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
