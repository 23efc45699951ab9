//! The wire format of commands: arrays of bulk strings, nothing else.

use alloc::vec::Vec;

/// Appends `$<length>\r\n<parts>\r\n`.
pub(super) fn put_bulk(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b'$');
    put_decimal(out, parts.iter().map(|part| part.len() as u64).sum());
    out.extend_from_slice(CRLF);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(CRLF);
}

/// Appends the head of an array of `count` elements.
pub(super) fn put_array(out: &mut Vec<u8>, count: usize) {
    out.push(b'*');
    put_decimal(out, count as u64);
    out.extend_from_slice(CRLF);
}

/// Appends `number` as a bulk string.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    out.push(b'$');
    put_decimal(out, decimal_len(number) as u64);
    out.extend_from_slice(CRLF);
    put_decimal(out, number);
    out.extend_from_slice(CRLF);
}

/// What [`put_bulk`] appends for a text of `length` bytes.
pub(super) const fn bulk_len(length: usize) -> usize {
    array_len(length) + length + CRLF.len()
}

/// What [`put_array`] appends.
pub(super) const fn array_len(count: usize) -> usize {
    1 + decimal_len(count as u64) + CRLF.len()
}

/// How many digits `number` has.
pub(super) const fn decimal_len(number: u64) -> usize {
    match number.checked_ilog10() {
        Some(log) => log as usize + 1,
        None => 1,
    }
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

const CRLF: &[u8] = b"\r\n";
/// The digits of `u64::MAX`.
const DIGITS: usize = 20;
