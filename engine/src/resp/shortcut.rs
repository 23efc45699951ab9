//! The tokens that nearly everything consists of, recognised at one go where they are there as a whole.

pub(super) const CRLF: &[u8] = b"\r\n";
pub(super) const OK: &[u8] = b"+OK\r\n";
/// Lengths of so many digits take the short cut; no `usize` is too small for them.
pub(super) const SHORT_DIGITS: usize = 9;
/// A line with such a length.
pub(super) const SHORT_LINE: usize = 1 + SHORT_DIGITS + CRLF.len();

/// What is at the front of some input.
pub(super) enum Whole {
    /// All of [`OK`].
    Ok,
    /// A bulk string: of so many bytes before its payload, and in it.
    Bulk { head: usize, length: usize },
    /// A bulk string that is not there as a whole, or too long, or malformed: its digits have been looked at.
    Part(ShortLength),
    /// Anything else.
    Other,
}

impl Whole {
    #[inline]
    pub(super) fn at_front_of(rest: &[u8], longest: usize) -> Self {
        let [b'$', text @ ..] = rest else {
            return if rest.starts_with(OK) { Self::Ok } else { Self::Other };
        };
        let short = ShortLength::at_front_of(text);
        let (head, length) = (short.line(), short.length);
        let is_ended = || rest.get(head + length..).is_some_and(|rest| rest.starts_with(CRLF));
        if short.is_whole(text) && length <= longest && is_ended() {
            Self::Bulk { head, length }
        } else {
            Self::Part(short)
        }
    }
}

/// A length of few digits.
pub(super) struct ShortLength {
    pub(super) length: usize,
    pub(super) digits: usize,
}

impl ShortLength {
    /// Looks at no more than [`SHORT_DIGITS`] and a line end.
    #[inline]
    pub(super) fn at_front_of(text: &[u8]) -> Self {
        let (mut length, mut digits) = (0, 0);
        for byte in text.get(..SHORT_DIGITS).unwrap_or(text) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            length = length * 10 + usize::from(digit);
            digits += 1;
        }
        Self { length, digits }
    }

    /// Whether there are digits, no padding, and a line end behind them.
    #[inline]
    pub(super) fn is_whole(&self, text: &[u8]) -> bool {
        let is_plain = if text.first() == Some(&b'0') { self.digits == 1 } else { self.digits > 0 };
        is_plain && text.get(self.digits..).is_some_and(|rest| rest.starts_with(CRLF))
    }

    /// The length of the whole line.
    pub(super) const fn line(&self) -> usize {
        1 + self.digits + CRLF.len()
    }
}
