//! The wire format of commands: arrays of bulk strings, nothing else.

use alloc::vec::Vec;

/// Appends `text` as a bulk string.
pub(super) fn put_bulk(out: &mut Vec<u8>, text: &[u8]) {
    put_line(out, b'$', text.len() as u64);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Appends `left:right` as a bulk string.
pub(super) fn put_joined(out: &mut Vec<u8>, left: &[u8], right: &[u8]) {
    put_line(out, b'$', (left.len() + 1 + right.len()) as u64);
    out.extend_from_slice(left);
    out.push(b':');
    out.extend_from_slice(right);
    out.extend_from_slice(b"\r\n");
}

/// Appends `number` as a bulk string.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    put_line(out, b'$', decimal_len(number) as u64);
    put_decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an array of `count` elements.
pub(super) fn put_array(out: &mut Vec<u8>, count: usize) {
    put_line(out, b'*', count as u64);
}

/// What [`put_bulk`] appends for a text of `length` bytes.
pub(super) const fn bulk_len(length: usize) -> usize {
    array_len(length) + length + 2
}

/// What [`put_array`] appends.
pub(super) const fn array_len(count: usize) -> usize {
    1 + decimal_len(count as u64) + 2
}

/// How many digits `number` has.
pub(super) const fn decimal_len(number: u64) -> usize {
    match number {
        0..10 => 1,
        10..100 => 2,
        _ => number.ilog10() as usize + 1,
    }
}

/// Appends a line of a type byte and a number.
#[inline]
fn put_line(out: &mut Vec<u8>, kind: u8, number: u64) {
    // Nearly all: stores of a fixed size are many times as fast as copies of a variable one.
    match number {
        0..10 => out.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']),
        10..100 => {
            let number = number as u8;
            out.extend_from_slice(&[kind, b'0' + number / 10, b'0' + number % 10, b'\r', b'\n']);
        }
        100..1000 => {
            let number = number as u16;
            let [hundreds, tens, ones] =
                [number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8);
            out.extend_from_slice(&[kind, hundreds, tens, ones, b'\r', b'\n']);
        }
        1000..10_000 => {
            let number = number as u16;
            let [thousands, hundreds, tens, ones] =
                [number / 1000, number / 100 % 10, number / 10 % 10, number % 10]
                    .map(|digit| b'0' + digit as u8);
            out.extend_from_slice(&[kind, thousands, hundreds, tens, ones, b'\r', b'\n']);
        }
        _ => put_long_line(out, kind, number),
    }
}

/// Out of the way, or every short line would pay for the registers that this needs.
#[cold]
fn put_long_line(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    put_decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; DIGITS];
    let mut start = DIGITS;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// The digits of `u64::MAX`.
const DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    /// All numbers around the powers of ten and two, where the number of digits and the branches change.
    fn numbers() -> impl Iterator<Item = u64> {
        let powers_of_ten = (0..DIGITS as u32).map(|exponent| 10_u64.pow(exponent));
        let powers_of_two = (0..64).map(|exponent| 1_u64 << exponent);
        let near = |center: u64| center.saturating_sub(1_000)..=center.saturating_add(1_000);
        powers_of_ten.chain(powers_of_two).chain([u64::MAX]).flat_map(near)
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        let mut out = Vec::new();
        for number in numbers() {
            let expected = number.to_string();
            out.clear();
            put_decimal(&mut out, number);
            assert_eq!(out, expected.as_bytes());
            assert_eq!(decimal_len(number), expected.len(), "{number}");

            out.clear();
            put_line(&mut out, b'*', number);
            assert_eq!(out, ["*", &expected, "\r\n"].concat().as_bytes());

            out.clear();
            put_number(&mut out, number);
            let length = expected.len().to_string();
            assert_eq!(out, ["$", &length, "\r\n", &expected, "\r\n"].concat().as_bytes());
        }
    }

    #[test]
    fn lengths_are_exact() {
        let mut out = Vec::new();
        for length in [0, 1, 9, 10, 11, 99, 100, 101, 999, 1_000, 1_001, 9_999, 10_000, 100_000] {
            let text = std::vec![b'\r'; length];
            out.clear();
            put_bulk(&mut out, &text);
            assert_eq!(out.len(), bulk_len(length));

            out.clear();
            put_joined(&mut out, &text, &text);
            assert_eq!(out.len(), bulk_len(2 * length + 1));

            out.clear();
            put_array(&mut out, length);
            assert_eq!(out.len(), array_len(length));
        }
    }
}
