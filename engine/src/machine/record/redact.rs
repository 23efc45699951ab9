//! What stands for keys and values in a recording, and the hash of what a lane puts out.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use super::step::{Node, Text};
use crate::archive::{self, Archive, disguised, hidden, letters, spell};
use crate::link::hide_address;
use crate::machine::{Action, OpId, Outcome, Progress, Refused, Signal, Transmit};
use crate::policy::Permit;
use crate::resp::{Command, Reply, ServerError};

/// How deep replies are nested at most that a file may bring.
const DEEPEST: usize = 64;

/// So much of a text goes into the hash of outputs, with its length.
const HASHED: usize = 32;

/// A hash whose key nobody knows.
pub(super) type Hash = Box<dyn Fn(&[u8]) -> u64 + Send + Sync>;

/// What becomes of keys and values.
pub(crate) enum Redaction {
    /// They are replaced by what comes of a hash; and the places of keys among the fences by others.
    Hashed { hash: Hash, places: Box<[u8; 256]> },
    /// They have been already.
    Verbatim,
}

impl Redaction {
    pub(super) fn hashed(hash: Hash) -> Self {
        let places = Box::new(fence_places(&hash));
        Self::Hashed { hash, places }
    }

    /// What stands for a key's place among the fences of a tier.
    pub(crate) fn place(&self, hash: u64) -> u8 {
        match self {
            Self::Hashed { places, .. } => places.get(usize::from(hash as u8)).copied().unwrap_or_default(),
            Self::Verbatim => 0,
        }
    }

    pub(super) fn command(&self, command: &Command<'_>) -> Vec<Text> {
        self.hide().map(|hide| hide.command(command)).unwrap_or_default()
    }

    /// Replies; before a lane serves, those of the handshake.
    pub(super) fn replies(&self, replies: &[Reply], serves: bool) -> Vec<Node> {
        self.hide().map(|hide| hide.replies(replies, serves)).unwrap_or_default()
    }

    /// A key of the fallback tier.
    pub(crate) fn key(&self, key: &[u8]) -> Vec<u8> {
        self.hide().map(|hide| disguised(key, hide.0)).unwrap_or_default()
    }

    /// A value of the fallback tier.
    pub(crate) fn value(&self, value: &[u8]) -> (u32, u64) {
        self.hide().map(|hide| hidden(value, hide.0)).unwrap_or_default()
    }

    fn hide(&self) -> Option<Hide<'_>> {
        match self {
            Self::Hashed { hash, .. } => Some(Hide(&**hash)),
            Self::Verbatim => None,
        }
    }
}

/// Where each fence of a tier is in a recording: its place is some bits of a hash of keys that everybody knows.
pub(in crate::machine) fn fence_places(hash: archive::Hash<'_>) -> [u8; 256] {
    let mut places = core::array::from_fn(|place| place as u8);
    fastrand::Rng::with_seed(hash(b"fences")).shuffle(&mut places);
    places
}

/// What a reply in a machine's state is made of.
pub(in crate::machine) fn archive_reply(reply: &mut Reply, archive: &mut Archive<'_>) {
    let hash = archive.hash();
    let to = |reply: &Reply| {
        let mut nodes = Vec::new();
        hash.iter().for_each(|hash| Hide(*hash).reply(reply, &mut nodes));
        nodes
    };
    archive.by(reply, to, |nodes: Vec<Node>| replies_of(&nodes)?.pop());
}

/// Hides texts behind a hash.
struct Hide<'a>(archive::Hash<'a>);

impl Hide<'_> {
    fn hidden(&self, prefix: &[u8], secret: &[u8]) -> Text {
        let (len, hash) = hidden(secret, self.0);
        (prefix.to_vec(), len, hash)
    }

    fn command(&self, command: &Command<'_>) -> Vec<Text> {
        let (wire, marks) = command.encode_marked();
        let (mut texts, mut done) = (Vec::new(), 0);
        for mark in marks {
            let prefix = wire.get(done..mark.start).unwrap_or_default();
            texts.push(self.hidden(prefix, wire.get(mark.clone()).unwrap_or_default()));
            done = mark.end;
        }
        texts.push((wire.get(done..).unwrap_or_default().to_vec(), 0, 0));
        texts
    }

    fn replies(&self, replies: &[Reply], serves: bool) -> Vec<Node> {
        let mut nodes = Vec::new();
        for reply in replies {
            match reply {
                Reply::Bulk(text) if !serves => nodes.push((3, 0, self.identity(b"", text))),
                Reply::Verbatim { format, text } if !serves => {
                    nodes.push((12, 0, self.identity(format, text)));
                }
                reply => self.reply(reply, &mut nodes),
            }
        }
        nodes
    }

    /// What the handshake reads of an answer to `CLIENT INFO`, `id=7 addr=10.0.0.1:43210 …`: the number, and in the address no more
    /// than where there are zeros.
    fn identity(&self, format: &[u8], text: &[u8]) -> Text {
        let mut kept = format.to_vec();
        for (at, word) in text.split(|&byte| byte == b' ').enumerate() {
            kept.extend((at > 0).then_some(b' '));
            if let Some(addr) = word.strip_prefix(b"addr=") {
                kept.extend_from_slice(b"addr=");
                kept.extend(hide_address(addr));
            } else if word.strip_prefix(b"id=").is_some_and(|id| id.iter().all(u8::is_ascii_digit)) {
                kept.extend_from_slice(word);
            } else {
                kept.extend_from_slice(&spelled(&self.hidden(b"", word)).unwrap_or_default());
            }
        }
        (kept, 0, 0)
    }

    /// A reply and its parts, in the order in which they are read. The limits of the decoder bound the depth.
    fn reply(&self, reply: &Reply, nodes: &mut Vec<Node>) {
        let none = || (Vec::new(), 0, 0);
        match reply {
            Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) => {
                let kind = match reply {
                    Reply::Array(_) => 8,
                    Reply::Set(_) => 9,
                    _ => 10,
                };
                nodes.push((kind, parts.len() as i64, none()));
                parts.iter().for_each(|part| self.reply(part, nodes));
            }
            Reply::Map(pairs) => {
                nodes.push((11, pairs.len() as i64, none()));
                pairs.iter().flat_map(|(key, value)| [key, value]).for_each(|part| self.reply(part, nodes));
            }
            Reply::Simple(text) if is_status(text) => nodes.push((0, 0, (text.to_vec(), 0, 0))),
            Reply::Simple(text) => nodes.push((0, 0, self.hidden(b"", text))),
            Reply::Error(error) => nodes.push((1, 0, self.error(error))),
            Reply::Integer(number) => nodes.push((2, *number, none())),
            Reply::Bulk(bytes) => nodes.push((3, 0, self.hidden(b"", bytes))),
            Reply::Null => nodes.push((4, 0, none())),
            Reply::Boolean(yes) => nodes.push((5, i64::from(*yes), none())),
            Reply::Double(number) => nodes.push((6, number.to_bits() as i64, none())),
            Reply::BigNumber(digits) => nodes.push((7, 0, self.hidden(b"", digits))),
            Reply::Verbatim { format, text } => nodes.push((12, 0, self.hidden(format, text))),
        }
    }

    /// As many of its words as the engine understands it by.
    fn error(&self, error: &ServerError) -> Text {
        let line = error.line();
        let ends = line.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at + 1);
        for end in [0].into_iter().chain(ends) {
            let (prefix, rest) = line.split_at_checked(end).unwrap_or((line, b""));
            let text = self.hidden(prefix, rest);
            let alike = |other: &ServerError| (other.class(), other.code()) == (error.class(), error.code());
            if spelled(&text).is_some_and(|line| alike(&ServerError::new(line))) {
                return text;
            }
        }
        (line.to_vec(), 0, 0)
    }
}

/// A status of Redis's own: not what somebody stored.
fn is_status(text: &[u8]) -> bool {
    matches!(text, b"OK" | b"PONG" | b"QUEUED")
}

/// The text again, with letters in the place of what was hidden.
pub(super) fn spelled((prefix, len, hash): &Text) -> Option<Bytes> {
    spell(prefix, *len, *hash).map(Bytes::from)
}

/// The replies again.
pub(super) fn replies_of(nodes: &[Node]) -> Option<Vec<Reply>> {
    let (mut rest, mut replies) = (nodes, Vec::new());
    while !rest.is_empty() {
        replies.push(reply_of(&mut rest, DEEPEST)?);
    }
    Some(replies)
}

fn reply_of(nodes: &mut &[Node], depth: usize) -> Option<Reply> {
    let ((kind, number, text), rest) = nodes.split_first()?;
    *nodes = rest;
    let depth = depth.checked_sub(1)?;
    // Each part is a node: a count that lies runs out of them.
    let mut parts = || (0..*number).map(|_| reply_of(nodes, depth)).collect::<Option<Vec<_>>>();
    Some(match kind {
        0 => Reply::Simple(spelled(text)?),
        1 => Reply::Error(ServerError::new(spelled(text)?)),
        2 => Reply::Integer(*number),
        3 => Reply::Bulk(spelled(text)?),
        4 => Reply::Null,
        5 => Reply::Boolean(*number != 0),
        6 => Reply::Double(f64::from_bits(*number as u64)),
        7 => Reply::BigNumber(spelled(text)?),
        8 => Reply::Array(parts()?),
        9 => Reply::Set(parts()?),
        10 => Reply::Push(parts()?),
        11 => {
            let pair = |_| Some((reply_of(nodes, depth)?, reply_of(nodes, depth)?));
            Reply::Map((0..*number).map(pair).collect::<Option<_>>()?)
        }
        12 => {
            let text = spelled(text)?;
            Reply::Verbatim { format: text.get(..3)?.try_into().ok()?, text: text.slice(3..) }
        }
        _ => return None,
    })
}

/// A hash of outputs, in which keys and values are what stands for them: FNV-1a, folded.
pub(crate) struct Digest<'a> {
    redaction: &'a Redaction,
    hash: u64,
}

impl<'a> Digest<'a> {
    pub(super) const fn new(redaction: &'a Redaction) -> Self {
        Self { redaction, hash: 0xcbf2_9ce4_8422_2325 }
    }

    pub(super) const fn finish(&self) -> u32 {
        (self.hash ^ (self.hash >> 32)) as u32
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn secret(&mut self, secret: &[u8]) {
        self.number(secret.len() as u64);
        match self.redaction {
            Redaction::Hashed { hash, .. } if !secret.is_empty() => {
                letters(hash(secret)).take(secret.len().min(HASHED)).for_each(|letter| self.bytes(&[letter]));
            }
            Redaction::Hashed { .. } => {}
            Redaction::Verbatim => self.bytes(secret.get(..HASHED).unwrap_or(secret)),
        }
    }

    pub(crate) fn submitted(&mut self, result: &Result<OpId, Refused>) {
        match *result {
            Ok(id) => {
                let (index, generation) = id.into_parts();
                [1, index, generation].into_iter().for_each(|part| self.number(part.into()));
            }
            Err(Refused::Overloaded) => self.number(2),
            Err(Refused::TooLarge { len, max }) => {
                [3, len as u64, max as u64].into_iter().for_each(|part| self.number(part));
            }
            Err(Refused::Closed) => self.number(4),
        }
    }

    pub(crate) fn progress(&mut self, progress: &Progress) {
        match progress {
            Progress::Again => self.number(0),
            Progress::Done(outcome, at) => {
                self.number(at.as_nanos());
                match outcome {
                    Outcome::Reply(reply) => self.reply(reply),
                    Outcome::Failed(failure) => {
                        self.number(failure.cause as u64);
                        self.number(failure.executed as u64);
                    }
                }
            }
        }
    }

    fn reply(&mut self, reply: &Reply) {
        self.bytes(reply.kind().as_bytes());
        match reply {
            Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) => {
                self.number(parts.len() as u64);
                parts.iter().for_each(|part| self.reply(part));
            }
            Reply::Map(pairs) => {
                self.number(pairs.len() as u64);
                pairs.iter().flat_map(|(key, value)| [key, value]).for_each(|part| self.reply(part));
            }
            Reply::Simple(text) if is_status(text) => self.bytes(text),
            Reply::Simple(text) | Reply::Bulk(text) | Reply::BigNumber(text) => self.secret(text),
            Reply::Verbatim { text, .. } => self.secret(text),
            Reply::Error(error) => {
                self.number(error.class() as u64);
                self.bytes(error.code());
                self.number(error.line().len() as u64);
            }
            Reply::Integer(number) => self.number(*number as u64),
            Reply::Boolean(yes) => self.number(u64::from(*yes)),
            Reply::Double(number) => self.number(number.to_bits()),
            Reply::Null => {}
        }
    }

    pub(crate) fn action(&mut self, action: Action) {
        self.number(match action {
            Action::Dial => 1,
            Action::HangUp => 2,
        });
    }

    pub(crate) fn signals(&mut self, signals: &[Signal]) {
        for signal in signals {
            match *signal {
                Signal::Verdict(permit, verdict, took) => {
                    self.permit(permit);
                    self.number(verdict as u64);
                    self.number(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                }
                Signal::Failure => self.number(1),
                Signal::Trip => self.number(2),
                Signal::Ready => self.number(3),
            }
        }
    }

    pub(crate) fn permits(&mut self, permit: Option<Permit>) {
        permit.into_iter().for_each(|permit| self.permit(permit));
    }

    /// A key of the fallback tier.
    pub(crate) fn key(&mut self, key: &[u8]) {
        match self.redaction {
            Redaction::Hashed { hash, .. } => self.bytes(&disguised(key, hash)),
            Redaction::Verbatim => self.bytes(key),
        }
    }

    fn permit(&mut self, permit: Permit) {
        let (generation, place, counted) = permit.into_parts();
        [generation, place, u32::from(counted)].into_iter().for_each(|part| self.number(part.into()));
    }

    pub(crate) fn transmit(&mut self, transmit: Transmit, wire: &[u8]) {
        self.number(match transmit {
            Transmit::Nothing => 0,
            Transmit::Ready => 1,
            Transmit::Linger => 2,
        });
        self.number(wire.len() as u64);
        let mut rest = wire;
        while let Some(words) = take_command(&mut rest) {
            self.command(&words);
        }
    }

    /// The words of a command: those that [`Command::encode_marked`] marks are secret. Of the handshake, which the lane makes up
    /// from its configuration, and of commands that are not known here, only names and lengths count.
    fn command(&mut self, words: &[&[u8]]) {
        let name = words.first().copied().unwrap_or_default();
        self.bytes(name);
        let secret: fn(usize) -> bool = match name {
            b"GET" | b"EXISTS" | b"DEL" | b"UNLINK" | b"INFO" => |_| true,
            b"SET" => |at| at <= 2,
            b"SCAN" => |at| at == 3,
            b"EVAL" => |at| at != 2,
            _ => return words.iter().for_each(|word| self.number(word.len() as u64)),
        };
        for (at, word) in words.iter().enumerate().skip(1) {
            if secret(at) {
                self.secret(word);
            } else {
                self.bytes(word);
            }
        }
    }
}

/// Takes a command off the front of what a lane puts out.
fn take_command<'a>(wire: &mut &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let count = take_number(wire, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let len = take_number(wire, b'$')?;
        let (word, rest) = wire.split_at_checked(len)?;
        words.push(word);
        *wire = rest.get(2..)?;
    }
    Some(words)
}

fn take_number(wire: &mut &[u8], kind: u8) -> Option<usize> {
    let line = wire.strip_prefix(&[kind])?;
    let end = line.iter().position(|&byte| byte == b'\r')?;
    let number = core::str::from_utf8(line.get(..end)?).ok()?.parse().ok()?;
    *wire = line.get(end + 2..)?;
    Some(number)
}
