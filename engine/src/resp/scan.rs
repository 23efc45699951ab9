//! From bytes to tokens: iterative, resumable at any byte, bounded.
//!
//! Every byte outside of bulk payloads is looked at once however the stream is cut; payloads are skipped. What is most
//! frequent takes a short cut through the states below, as long as it is there as a whole: `+OK`, and lengths of up to
//! nine digits.
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

use super::shortcut::{CRLF, OK, SHORT_DIGITS, SHORT_LINE, ShortLength, Whole};
use super::tape::{Aggregate, Span, Tape, Token};
use super::{DecodeError, Limits, Violation};

/// The scan of one stream: where it stands in the input.
#[derive(Debug)]
pub(super) struct Scan {
    limits: Limits,
    /// A token that begins before this in its frame may take the short cut, and then a bulk string may have as many bytes
    /// as are left to it: no limit is near.
    shortcut: usize,
    /// Bytes of the stream before the input.
    offset: u64,
    /// Where in the input the frame at hand begins.
    frame: usize,
    /// The next byte of the input to look at.
    pos: usize,
    state: State,
    /// The type byte of the token at hand.
    kind: u8,
    /// The text of the token at hand: of its line, then of its payload.
    text: Span,
    /// Open aggregates, the innermost last.
    levels: Vec<Level>,
    /// How many of `levels` are attributes.
    attributes: usize,
    /// Elements announced in this frame.
    elements: usize,
    steps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Type,
    Line,
    LineFeed,
    Bulk,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    left: usize,
    is_attribute: bool,
}

enum Length {
    Null,
    Some(usize),
}

impl Scan {
    pub(super) fn new(limits: Limits) -> Self {
        // No position can overflow then, and a length that saturates is over every limit.
        let bounded = |limit: usize| limit.min(Limits::MAX_SIZE);
        let limits = Limits {
            depth: limits.depth.min(Limits::MAX_DEPTH),
            line: bounded(limits.line),
            bulk: bounded(limits.bulk),
            elements: bounded(limits.elements),
            frame: bounded(limits.frame),
        };
        Self {
            limits,
            shortcut: if limits.line < SHORT_DIGITS {
                0
            } else {
                limits.frame.saturating_sub(SHORT_LINE + CRLF.len())
            },
            offset: 0,
            frame: 0,
            pos: 0,
            state: State::Type,
            kind: 0,
            text: Span { start: 0, end: 0 },
            levels: Vec::new(),
            attributes: 0,
            elements: 0,
            steps: 0,
        }
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// Appends the tokens of what `input` holds to `tape`: of all of it (`false`), or until the tape is to be made
    /// replies of first (`true`).
    ///
    /// # Errors
    /// The input is no RESP, or over a limit. The frames before that are on the tape all the same.
    pub(super) fn run(&mut self, input: &[u8], tape: &mut Tape) -> Result<bool, DecodeError> {
        loop {
            self.take_shortcuts(input, tape);
            if tape.is_full() {
                return Ok(true);
            }
            let token = if self.state == State::Bulk {
                self.bulk(input)?
            } else if self.line(input)? {
                let Some(token) = self.parse(input)? else { continue };
                Some(token)
            } else {
                None
            };
            match token {
                Some(token) => self.put(token, tape),
                None => return Ok(false),
            }
        }
    }

    /// Puts a token on the tape, unless it is in an attribute, and closes the elements that end with it.
    #[inline]
    fn put(&mut self, token: Token, tape: &mut Tape) {
        if self.attributes == 0 {
            tape.push(token);
        }
        let is_last = match token {
            Token::Open(_, count) if count > 0 => false,
            _ => self.close_element(),
        };
        if is_last {
            tape.end_frame();
            self.frame = self.pos;
            self.elements = 0;
        }
    }

    /// The frame at the front of `rest`, if it is an `OK` or a bulk string that is there as a whole. To be asked between
    /// frames; [`Scan::skip_frames`] is told what was taken so.
    #[inline]
    pub(super) fn whole_frame(&self, rest: &[u8]) -> Whole {
        Whole::at_front_of(rest, self.longest_bulk(0))
    }

    /// Whether the next frame may take the short cut: nothing of it has been looked at, and the limits have room.
    pub(super) const fn takes_whole_frames(&self) -> bool {
        self.pos == 0 && self.shortcut > 0
    }

    /// Frames of so many bytes are out of the input, of which so many were payload.
    pub(super) fn skip_frames(&mut self, taken: u64, payload: u64) {
        self.offset = self.offset.saturating_add(taken);
        self.steps += taken - payload;
    }

    /// Takes `OK`s, bulk strings and heads of aggregates as long as they are there as a whole, and no limit is near. At
    /// the first byte of something else it leaves off where the states can go on.
    fn take_shortcuts(&mut self, input: &[u8], tape: &mut Tape) {
        while self.state == State::Type && !tape.is_full() {
            self.take_bulks(input, tape);
            if self.state != State::Type || self.pos - self.frame >= self.shortcut {
                return;
            }
            let rest = input.get(self.pos..).unwrap_or_default();
            match Whole::at_front_of(rest, self.longest_bulk(self.pos - self.frame)) {
                Whole::Ok => {
                    self.pos += OK.len();
                    self.steps += OK.len() as u64;
                    self.put(Token::Ok, tape);
                }
                Whole::Bulk { head, length } => {
                    let span = Span { start: self.pos + head, end: self.pos + head + length };
                    self.pos = span.end + CRLF.len();
                    self.steps += (head + CRLF.len()) as u64;
                    self.put(Token::Bulk(span), tape);
                }
                Whole::Part(short) => {
                    self.leave_shortcut(b'$', &short);
                    return;
                }
                Whole::Other => match self.whole_head(rest) {
                    Some(token) => self.put(token, tape),
                    None => return,
                },
            }
        }
    }

    /// The same for the bulk strings of the innermost aggregate, all but its last: without a look at whether the aggregate
    /// ends, at the cost of half the work.
    #[inline]
    fn take_bulks(&mut self, input: &[u8], tape: &mut Tape) {
        let Some(level) = self.levels.last_mut().filter(|_| self.attributes == 0) else { return };
        let (mut pos, mut payload, mut part) = (self.pos, 0, None);
        while level.left > 1 && pos - self.frame < self.shortcut {
            let longest = self.limits.bulk.min(self.shortcut - (pos - self.frame));
            match Whole::at_front_of(input.get(pos..).unwrap_or_default(), longest) {
                Whole::Bulk { head, length } => {
                    let span = Span { start: pos + head, end: pos + head + length };
                    tape.push(Token::Bulk(span));
                    pos = span.end + CRLF.len();
                    payload += length;
                    level.left -= 1;
                }
                Whole::Part(short) => {
                    part = Some(short);
                    break;
                }
                Whole::Ok | Whole::Other => break,
            }
        }
        self.steps += (pos - self.pos - payload) as u64;
        self.pos = pos;
        if let Some(short) = part {
            self.leave_shortcut(b'$', &short);
        }
    }

    /// Bytes of a bulk string that begins so far into its frame and takes the short cut, at most.
    #[inline]
    fn longest_bulk(&self, begin: usize) -> usize {
        self.limits.bulk.min(self.shortcut - begin)
    }

    /// The next token, if it is the head of an aggregate that is there as a whole.
    #[inline]
    fn whole_head(&mut self, rest: &[u8]) -> Option<Token> {
        let (kind, text) = match rest {
            [b'>', ..] if !self.levels.is_empty() => return None,
            [kind @ (b'*' | b'%' | b'~' | b'>'), text @ ..] => (*kind, text),
            _ => return None,
        };
        let short = ShortLength::at_front_of(text);
        self.kind = kind;
        // An error is the states' to report, when they have come to the end of the line.
        let opened = if short.is_whole(text) { self.open(short.length) } else { Ok(None) };
        let Ok(Some(token)) = opened else {
            self.leave_shortcut(kind, &short);
            return None;
        };
        self.pos += short.line();
        self.steps += short.line() as u64;
        Some(token)
    }

    /// Hands over to the states, behind the digits that have been looked at.
    #[cold]
    pub(super) fn leave_shortcut(&mut self, kind: u8, short: &ShortLength) {
        self.kind = kind;
        self.state = State::Line;
        self.text.start = self.pos + 1;
        self.pos += 1 + short.digits;
        self.steps += 1 + short.digits as u64;
    }

    /// Forgets the stream, but not the work done.
    pub(super) fn reset(&mut self) {
        *self = Self { steps: self.steps, ..Self::new(self.limits) };
    }

    /// How many bytes at the front of the input are complete frames.
    pub(super) const fn complete(&self) -> usize {
        self.frame
    }

    /// The complete frames have been taken out of the input: so many bytes. What was scanned of the frame behind them
    /// moves to the front.
    #[inline]
    pub(super) fn take_frames(&mut self) -> usize {
        let taken = core::mem::take(&mut self.frame);
        self.offset = self.offset.saturating_add(taken as u64);
        self.pos -= taken;
        self.text = self.text.moved(taken);
        taken
    }

    /// How many bytes have to follow the `available` ones before the bulk at hand is complete.
    pub(super) const fn missing(&self, available: usize) -> usize {
        match self.state {
            State::Bulk => (self.text.end + CRLF.len()).saturating_sub(available),
            _ => 0,
        }
    }

    /// Reads on to the end of a line, through the three states that this takes. Whether it is there.
    fn line(&mut self, bytes: &[u8]) -> Result<bool, DecodeError> {
        if self.state == State::Type {
            let Some(&kind) = bytes.get(self.pos) else { return Ok(false) };
            self.steps += 1;
            self.check_type(kind)?;
            self.pos += 1;
            self.kind = kind;
            self.text.start = self.pos;
            self.state = State::Line;
        }
        if self.state == State::Line {
            let (longest, too_long) = self.longest_line();
            // The line end of the longest line allowed stands at `text.start + longest`.
            let stop = bytes.len().min(self.text.start + longest + 1);
            let window = bytes.get(self.pos..stop).unwrap_or_default();
            let found = window.iter().position(|&byte| byte == b'\r' || byte == b'\n');
            let looked_at = found.map_or(window.len(), |at| at + 1);
            self.steps += looked_at as u64;
            self.pos += looked_at;
            match found.and_then(|at| window.get(at)) {
                Some(b'\r') => {}
                Some(_) => return Err(self.error(self.line_start(), Violation::LineEnd)),
                None if self.pos > self.text.start + longest => {
                    return Err(self.error(self.line_start(), too_long));
                }
                None => return Ok(false),
            }
            self.text.end = self.pos - 1;
            self.state = State::LineFeed;
        }
        let Some(&byte) = bytes.get(self.pos) else { return Ok(false) };
        self.steps += 1;
        if byte != b'\n' {
            return Err(self.error(self.line_start(), Violation::LineEnd));
        }
        self.pos += 1;
        self.state = State::Type;
        Ok(true)
    }

    /// How long the line at hand may become, and what it is to go beyond that: known before the line has ended, so
    /// that no more than a frame is ever buffered.
    fn longest_line(&self) -> (usize, Violation) {
        let Limits { line, frame, .. } = self.limits;
        let room = frame.saturating_sub(self.text.start - self.frame + CRLF.len());
        if line <= room {
            (line, Violation::Line { limit: line })
        } else {
            (room, Violation::Frame { limit: frame })
        }
    }

    fn check_type(&self, kind: u8) -> Result<(), DecodeError> {
        let violation = match kind {
            b'+' | b'-' | b':' | b'$' | b'*' | b'_' | b'#' | b',' | b'(' | b'!' | b'=' | b'%' | b'~'
            | b'|' => {
                return Ok(());
            }
            b'>' if self.levels.is_empty() => return Ok(()),
            b'>' => Violation::NestedPush,
            b';' | b'.' => Violation::Streamed,
            _ => Violation::UnknownType(kind),
        };
        Err(self.error(self.pos, violation))
    }

    /// What the line says: a token, or that one is still to come (of a bulk string, or behind an attribute).
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<Token>, DecodeError> {
        let text = bytes.get(self.text.start..self.text.end).unwrap_or_default();
        let parsed = match self.kind {
            b'$' | b'*' | b'!' | b'=' | b'%' | b'~' | b'|' | b'>' => self.parse_length(text),
            kind => scalar(kind, text, self.text).map(Some),
        };
        match parsed {
            Ok(_) if self.pos - self.frame > self.limits.frame => {
                Err(self.error(self.line_start(), Violation::Frame { limit: self.limits.frame }))
            }
            Ok(token) => Ok(token),
            Err(violation) => Err(self.error(self.line_start(), violation)),
        }
    }

    fn parse_length(&mut self, text: &[u8]) -> Result<Option<Token>, Violation> {
        match (self.kind, length(text)?) {
            (b'$' | b'*', Length::Null) => Ok(Some(Token::Null)),
            (_, Length::Null) => Err(Violation::Malformed("length")),
            (b'$' | b'!' | b'=', Length::Some(bytes)) => self.open_bulk(bytes).map(|()| None),
            (_, Length::Some(count)) => self.open(count),
        }
    }

    fn line_start(&self) -> usize {
        self.text.start - 1
    }

    fn open_bulk(&mut self, length: usize) -> Result<(), Violation> {
        let Limits { bulk, frame, .. } = self.limits;
        if length > bulk {
            return Err(Violation::Bulk { limit: bulk });
        }
        if self.kind == b'=' && length < VERBATIM_HEAD {
            return Err(Violation::Malformed("verbatim string"));
        }
        let payload = Span { start: self.pos, end: self.pos.saturating_add(length) };
        if payload.end.saturating_add(CRLF.len()) - self.frame > frame {
            return Err(Violation::Frame { limit: frame });
        }
        self.text = payload;
        self.state = State::Bulk;
        Ok(())
    }

    /// The bulk string at hand, once the line end behind it is there; the payload itself is not looked at.
    fn bulk(&mut self, bytes: &[u8]) -> Result<Option<Token>, DecodeError> {
        let payload = self.text;
        let Some(end) = bytes.get(payload.end..payload.end + CRLF.len()) else { return Ok(None) };
        self.steps += CRLF.len() as u64;
        if end != CRLF {
            return Err(self.error(payload.end, Violation::BulkEnd));
        }
        self.pos = payload.end + CRLF.len();
        self.state = State::Type;
        let token = match self.kind {
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
        Ok(Some(token))
    }

    fn open(&mut self, count: usize) -> Result<Option<Token>, Violation> {
        let kind = self.kind;
        let Limits { depth, elements, .. } = self.limits;
        let is_attribute = kind == b'|';
        let left = if matches!(kind, b'%' | b'|') { count.saturating_mul(2) } else { count };
        // An attribute is not an element of what it stands in, but it has to be bounded too.
        let announced = self.elements.saturating_add(left).saturating_add(usize::from(is_attribute));
        if announced > elements {
            return Err(Violation::Elements { limit: elements });
        }
        if self.levels.len() >= depth as usize {
            return Err(Violation::Depth { limit: depth });
        }
        self.elements = announced;
        if left > 0 {
            self.levels.push(Level { left, is_attribute });
        }
        let aggregate = match kind {
            b'|' => {
                self.attributes += usize::from(left > 0);
                return Ok(None);
            }
            b'~' => Aggregate::Set,
            b'%' => Aggregate::Map,
            b'>' => Aggregate::Push,
            _ => Aggregate::Array,
        };
        Ok(Some(Token::Open(aggregate, left)))
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

/// A verbatim string begins with its format and a colon.
const VERBATIM_HEAD: usize = 4;

/// The token of a line that is one by itself.
fn scalar(kind: u8, text: &[u8], span: Span) -> Result<Token, Violation> {
    match kind {
        b'+' if text == b"OK" => Ok(Token::Ok),
        b'+' => Ok(Token::Simple(span)),
        b'-' => Ok(Token::Error(span)),
        b':' => integer(text).map(Token::Integer).ok_or(Violation::Malformed("integer")),
        b',' => double(text).map(Token::Double).ok_or(Violation::Malformed("double")),
        b'(' if is_big_number(text) => Ok(Token::BigNumber(span)),
        b'(' => Err(Violation::Malformed("big number")),
        b'#' if text == b"t" => Ok(Token::Boolean(true)),
        b'#' if text == b"f" => Ok(Token::Boolean(false)),
        b'#' => Err(Violation::Malformed("boolean")),
        b'_' if text.is_empty() => Ok(Token::Null),
        b'_' => Err(Violation::Malformed("null")),
        _ => Err(Violation::UnknownType(kind)),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The state that a scan is in after all of `bytes`, handed over at once or byte by byte.
    fn state_after(bytes: &[u8], piece: usize) -> Result<State, Violation> {
        let mut scan = Scan::new(Limits::default());
        let (mut tape, mut taken) = (Tape::default(), 0);
        for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
            let _ = scan.run(&bytes[taken..end], &mut tape).map_err(|error| error.violation)?;
            taken += scan.complete();
            tape.take_complete(scan.take_frames());
        }
        Ok(scan.state)
    }

    #[test]
    fn every_transition() {
        let table: [(&[u8], Result<State, Violation>); 29] = [
            (b"", Ok(State::Type)),
            (b"?", Err(Violation::UnknownType(b'?'))),
            (b"$?\r\n", Err(Violation::Streamed)),
            (b".", Err(Violation::Streamed)),
            (b"+", Ok(State::Line)),
            (b"+a", Ok(State::Line)),
            (b"+\n", Err(Violation::LineEnd)),
            (b"+a\r", Ok(State::LineFeed)),
            (b"+a\ra", Err(Violation::LineEnd)),
            (b"+a\r\n", Ok(State::Type)),
            (b":a\r", Ok(State::LineFeed)),
            (b":a\r\n", Err(Violation::Malformed("integer"))),
            (b"*1\r\n", Ok(State::Type)),
            (b"*1\r\n>", Err(Violation::NestedPush)),
            (b"*0\r\n>", Ok(State::Line)),
            (b"|1\r\n", Ok(State::Type)),
            (b"|0\r\n>", Ok(State::Line)),
            (b"$1", Ok(State::Line)),
            (b"$1\r", Ok(State::LineFeed)),
            (b"$-1\r\n", Ok(State::Type)),
            (b"$0\r\n", Ok(State::Bulk)),
            (b"!1\r\n", Ok(State::Bulk)),
            (b"=4\r\n", Ok(State::Bulk)),
            (b"$1\r\n\r", Ok(State::Bulk)),
            (b"$1\r\n\r\r", Ok(State::Bulk)),
            (b"$1\r\n\r\r\r", Err(Violation::BulkEnd)),
            (b"$1\r\n\r\r\n", Ok(State::Type)),
            (b"=4\r\ntxt:\r\n", Ok(State::Type)),
            (b"=4\r\ntxts\r\n", Err(Violation::Malformed("verbatim string"))),
        ];
        for (bytes, expected) in table {
            assert_eq!(state_after(bytes, bytes.len().max(1)), expected, "{}", bytes.escape_ascii());
            assert_eq!(state_after(bytes, 1), expected, "{} byte by byte", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_missing_is_known_in_payloads_only() {
        let mut scan = Scan::new(Limits::default());
        assert_eq!(scan.missing(0), 0);
        let mut tape = Tape::default();
        scan.run(b"$10\r\n01", &mut tape).expect("well-formed");
        assert_eq!((scan.missing(7), scan.missing(16), scan.missing(17)), (10, 1, 0));
        // A driver may have read more than it knew of.
        assert_eq!(scan.missing(usize::MAX), 0);
        scan.run(b"$10\r\n0123456789\r\n", &mut tape).expect("well-formed");
        assert_eq!((tape.complete().len(), scan.complete()), (1, 17));
        tape.take_complete(scan.take_frames());
        assert_eq!(scan.missing(0), 0);
    }
}
