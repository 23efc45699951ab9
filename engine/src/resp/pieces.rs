//! What commands look like on the wire, piece by piece, for whoever writes, counts or marks them.

use alloc::vec::Vec;
use core::ops::Range;

use super::command::{Command, Key, millis};
use super::encode::{array_len, bulk_len, decimal_len, put_array, put_bulk, put_joined, put_number};

/// Somebody who is told the pieces of a command in their order.
pub(super) trait Pieces {
    /// Bytes as they go out.
    fn framed(&mut self, bytes: &[u8]);

    /// The head of an array of so many bulk strings.
    fn array(&mut self, count: usize);

    /// A bulk string.
    fn text(&mut self, text: &[u8]);

    /// The bulk string of a key.
    fn key(&mut self, key: Key<'_>);

    /// The bulk string of a decimal number.
    fn number(&mut self, number: u64);
}

impl Command<'_> {
    /// Tells what the command looks like: the one place that knows.
    #[allow(
        clippy::inline_always,
        reason = "for a command that is known where this is called, it is a few stores"
    )]
    #[inline(always)]
    pub(super) fn pieces(&self, to: &mut impl Pieces) {
        match *self {
            Command::Get(key) => {
                to.framed(b"*2\r\n$3\r\nGET\r\n");
                to.key(key);
            }
            Command::Set { key, value, ttl: None } => {
                to.framed(b"*3\r\n$3\r\nSET\r\n");
                to.key(key);
                to.text(value);
            }
            Command::Set { key, value, ttl: Some(ttl) } => {
                to.framed(b"*5\r\n$3\r\nSET\r\n");
                to.key(key);
                to.text(value);
                to.framed(b"$2\r\nPX\r\n");
                to.number(millis(ttl));
            }
            Command::Del(key) => {
                to.framed(b"*2\r\n$3\r\nDEL\r\n");
                to.key(key);
            }
            Command::Exists(key) => {
                to.framed(b"*2\r\n$6\r\nEXISTS\r\n");
                to.key(key);
            }
            Command::Unlink(keys) => {
                to.array(1 + keys.len());
                to.framed(b"$6\r\nUNLINK\r\n");
                keys.iter().for_each(|key| to.text(key));
            }
            Command::DelAll(keys) => {
                to.array(1 + keys.len());
                to.framed(b"$3\r\nDEL\r\n");
                keys.iter().for_each(|key| to.text(key));
            }
            Command::Eval { script, keys, args } => {
                to.array(3 + keys.len() + args.len());
                to.framed(b"$4\r\nEVAL\r\n");
                to.text(script);
                to.number(keys.len() as u64);
                keys.iter().chain(args).for_each(|text| to.text(text));
            }
            Command::Scan { cursor, pattern, count } => {
                to.framed(b"*6\r\n$4\r\nSCAN\r\n");
                to.number(cursor);
                to.framed(b"$5\r\nMATCH\r\n");
                to.text(pattern);
                to.framed(b"$5\r\nCOUNT\r\n");
                to.number(u64::from(count));
            }
            Command::Info([]) => to.framed(b"*1\r\n$4\r\nINFO\r\n"),
            Command::Info(section) => {
                to.framed(b"*2\r\n$4\r\nINFO\r\n");
                to.text(section);
            }
            Command::Ping => to.framed(b"*1\r\n$4\r\nPING\r\n"),
            Command::Hello { version, auth, client_name } => {
                let count =
                    2 + if auth.is_some() { 3 } else { 0 } + if client_name.is_some() { 2 } else { 0 };
                to.array(count);
                to.framed(b"$5\r\nHELLO\r\n");
                to.number(u64::from(version));
                if let Some((username, password)) = auth {
                    to.framed(b"$4\r\nAUTH\r\n");
                    to.text(username);
                    to.text(password);
                }
                if let Some(name) = client_name {
                    to.framed(b"$7\r\nSETNAME\r\n");
                    to.text(name);
                }
            }
            Command::Auth { username: None, password } => {
                to.framed(b"*2\r\n$4\r\nAUTH\r\n");
                to.text(password);
            }
            Command::Auth { username: Some(username), password } => {
                to.framed(b"*3\r\n$4\r\nAUTH\r\n");
                to.text(username);
                to.text(password);
            }
            Command::Select(database) => {
                to.framed(b"*2\r\n$6\r\nSELECT\r\n");
                to.number(u64::from(database));
            }
            Command::ClientSetName(name) => {
                to.framed(b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n");
                to.text(name);
            }
            Command::ClientSetInfo { attribute, value } => {
                to.framed(b"*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n");
                to.text(attribute);
                to.text(value);
            }
            Command::ClientInfo => to.framed(b"*2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n"),
            Command::ClientKill { id, addr } => {
                to.framed(b"*6\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n$2\r\nID\r\n");
                to.number(id);
                to.framed(b"$4\r\nADDR\r\n");
                to.text(addr);
            }
            Command::Encoded { wire, .. } => to.framed(wire),
        }
    }
}

/// What the pieces are appended to.
pub(super) struct Wire<'a>(pub(super) &'a mut Vec<u8>);

impl Pieces for Wire<'_> {
    #[inline]
    fn framed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    #[inline]
    fn array(&mut self, count: usize) {
        put_array(self.0, count);
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        put_bulk(self.0, text);
    }

    #[inline]
    fn key(&mut self, key: Key<'_>) {
        match key.namespace {
            [] => put_bulk(self.0, key.key),
            namespace => put_joined(self.0, namespace, key.key),
        }
    }

    #[inline]
    fn number(&mut self, number: u64) {
        put_number(self.0, number);
    }
}

/// How long they are together.
#[derive(Default)]
pub(super) struct Length(pub(super) usize);

impl Pieces for Length {
    fn framed(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn array(&mut self, count: usize) {
        self.0 += array_len(count);
    }

    fn text(&mut self, text: &[u8]) {
        self.0 += bulk_len(text.len());
    }

    fn key(&mut self, key: Key<'_>) {
        self.0 += bulk_len(key.len());
    }

    fn number(&mut self, number: u64) {
        self.0 += bulk_len(decimal_len(number));
    }
}

/// The pieces, and where among them keys, values and other words of callers are.
#[derive(Default)]
pub(super) struct Marked {
    pub(super) wire: Vec<u8>,
    pub(super) marks: Vec<Range<usize>>,
}

impl Marked {
    /// The last so many bytes, but for the line end behind them.
    fn mark(&mut self, length: usize) {
        let end = self.wire.len().saturating_sub(2);
        self.marks.push(end.saturating_sub(length)..end);
    }
}

impl Pieces for Marked {
    fn framed(&mut self, bytes: &[u8]) {
        Wire(&mut self.wire).framed(bytes);
    }

    fn array(&mut self, count: usize) {
        Wire(&mut self.wire).array(count);
    }

    fn text(&mut self, text: &[u8]) {
        Wire(&mut self.wire).text(text);
        self.mark(text.len());
    }

    fn key(&mut self, key: Key<'_>) {
        Wire(&mut self.wire).key(key);
        self.mark(key.len());
    }

    fn number(&mut self, number: u64) {
        Wire(&mut self.wire).number(number);
    }
}
