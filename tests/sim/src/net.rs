//! The network: connections as two streams of bytes, and all that can happen to them.
//!
//! ```text
//!   client ──write──► up:   [at 3 ms: "*2\r\n$3"] [at 4 ms: "\r\nGET…"] ──read──► server
//!          ◄──read─── down: [at 9 ms: "$1\r\nv\r\n"] then FIN at 9 ms   ◄──write──
//! ```
//!
//! Bytes of one direction stay in order. A direction can be *held*: nothing of it arrives until then, or ever, and the
//! sender learns nothing of it, but for a buffer that fills.

use std::collections::VecDeque;
use std::time::Duration;

use larder_engine::Instant;

/// How many bytes one direction takes before the sender has to wait.
const CAPACITY: usize = 4096;

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, behind all bytes.
    Fin,
    /// At once; what had not been read is lost.
    Rst,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    segments: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes of the first segment that were read.
    offset: usize,
    buffered: usize,
    latest: Option<Instant>,
    end: Option<(Instant, End)>,
    held_until: Option<Instant>,
    /// After so many more bytes written, the stream ends.
    cut_after: Option<usize>,
    pub(crate) written: u64,
    pub(crate) read: u64,
}

impl Pipe {
    /// How many bytes can be written now.
    pub(crate) fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.buffered)
    }

    pub(crate) fn write(&mut self, at: Instant, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        if self.end.is_some() {
            return;
        }
        let at = self.latest.map_or(at, |latest| latest.max(at));
        self.latest = Some(at);
        let kept = self.cut_after.map_or(bytes.len(), |left| left.min(bytes.len()));
        if kept > 0 {
            self.buffered += kept;
            self.segments.push_back((at, bytes[..kept].to_vec()));
        }
        if let Some(left) = &mut self.cut_after {
            *left -= kept;
            if *left == 0 {
                self.end = Some((at, End::Fin));
            }
        }
    }

    /// Reads what has arrived, at most `most` bytes.
    pub(crate) fn read(&mut self, now: Instant, most: usize, into: &mut Vec<u8>) -> usize {
        let mut left = most.min(self.readable(now));
        let read = left;
        while left > 0 {
            let Some((_, bytes)) = self.segments.front() else { break };
            let n = left.min(bytes.len() - self.offset);
            into.extend_from_slice(&bytes[self.offset..self.offset + n]);
            self.offset += n;
            left -= n;
            if self.offset == bytes.len() {
                self.segments.pop_front();
                self.offset = 0;
            }
        }
        self.buffered -= read;
        self.read += read as u64;
        read
    }

    /// How many bytes have arrived and were not read.
    pub(crate) fn readable(&self, now: Instant) -> usize {
        if self.is_held(now) {
            return 0;
        }
        let arrived = self.segments.iter().take_while(|(at, _)| *at <= now).map(|(_, bytes)| bytes.len());
        arrived.sum::<usize>().saturating_sub(self.offset)
    }

    /// How the stream has ended, once all bytes were read.
    pub(crate) fn ended(&self, now: Instant) -> Option<End> {
        let (at, end) = self.end?;
        (at <= now && !self.is_held(now) && self.segments.is_empty()).then_some(end)
    }

    pub(crate) fn finish(&mut self, at: Instant, end: End) {
        if self.end.is_some() && end == End::Fin {
            return;
        }
        if end == End::Rst {
            self.discard();
            self.end = Some((at, end));
        } else {
            self.end = Some((self.latest.map_or(at, |latest| latest.max(at)), end));
        }
    }

    /// All that is under way.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (_, segment) in self.segments.drain(..) {
            bytes.extend_from_slice(&segment[std::mem::take(&mut self.offset)..]);
        }
        self.buffered = 0;
        bytes
    }

    /// Loses what is under way.
    pub(crate) fn discard(&mut self) {
        self.segments.clear();
        self.offset = 0;
        self.buffered = 0;
    }

    pub(crate) fn cut_after(&mut self, bytes: usize) {
        self.cut_after = Some(bytes.max(1));
    }

    pub(crate) fn hold(&mut self, until: Instant) {
        self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
    }

    /// What is held arrives, unless it never does; nothing is cut any more.
    fn heal(&mut self) {
        self.held_until = self.held_until.filter(|until| until.is_never());
        self.cut_after = None;
    }

    /// When something arrives next that has not yet.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let first = self.segments.front().map(|(at, _)| *at).or_else(|| self.end.map(|(at, _)| at))?;
        let at = self.held_until.map_or(first, |held| held.max(first));
        (at > now && !at.is_never()).then_some(at)
    }

    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }
}

/// Two directions, and who still holds an end.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Process and lane of the client.
    pub(crate) owner: (usize, usize),
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    pub(crate) client_open: bool,
    pub(crate) server_open: bool,
    /// Where in `up` each command ends that was answered, and its answer in `down`, where that was not read yet.
    pub(crate) answers: VecDeque<(u64, u64)>,
    /// Of those read: how many, and where the last of their commands ended.
    pub(crate) answered: (usize, u64),
    /// What was written before the answer to HELLO was read.
    pub(crate) before_hello: u64,
    /// Where in `down` the answer to HELLO ends.
    pub(crate) hello_end: Option<u64>,
}

impl Conn {
    /// The commands that arrived and were answered, all answers read, and where the last of them ended.
    pub(crate) fn answered(&mut self) -> (usize, u64) {
        while let Some(&(end, answer)) = self.answers.front() {
            if answer > self.down.read {
                break;
            }
            self.answers.pop_front();
            self.answered = (self.answered.0 + 1, end);
        }
        self.answered
    }
}

/// All connections there ever were; the dead ones are skipped.
#[derive(Debug, Default)]
pub(crate) struct Net {
    conns: Vec<Conn>,
    live: Vec<usize>,
}

impl Net {
    pub(crate) fn connect(&mut self, owner: (usize, usize)) -> usize {
        let conn = Conn {
            owner,
            up: Pipe::default(),
            down: Pipe::default(),
            client_open: true,
            server_open: true,
            answers: VecDeque::new(),
            answered: (0, 0),
            before_hello: 0,
            hello_end: None,
        };
        self.conns.push(conn);
        self.live.push(self.conns.len() - 1);
        self.conns.len() - 1
    }

    pub(crate) fn conn(&mut self, id: usize) -> &mut Conn {
        &mut self.conns[id]
    }

    pub(crate) fn get(&self, id: usize) -> &Conn {
        &self.conns[id]
    }

    /// Connections with an open end, oldest first.
    pub(crate) fn live(&self) -> &[usize] {
        &self.live
    }

    /// Trouble ends, but for the connections on which everything is lost.
    pub(crate) fn heal(&mut self) {
        for &id in &self.live {
            self.conns[id].up.heal();
            self.conns[id].down.heal();
        }
    }

    /// Forgets the connections that nobody holds any more.
    pub(crate) fn prune(&mut self) {
        let conns = &self.conns;
        self.live.retain(|&id| conns[id].client_open || conns[id].server_open);
    }

    pub(crate) fn client_close(&mut self, id: usize, at: Instant, end: End) {
        let conn = &mut self.conns[id];
        conn.client_open = false;
        conn.down.discard();
        conn.up.finish(at, end);
    }

    pub(crate) fn server_close(&mut self, id: usize, at: Instant, end: End) {
        let conn = &mut self.conns[id];
        conn.server_open = false;
        conn.up.discard();
        conn.down.finish(at, end);
    }

    /// When something arrives next at either end.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let ends = |&id: &usize| {
            let conn = &self.conns[id];
            let up = conn.up.next(now).filter(|_| conn.server_open);
            [up, conn.down.next(now).filter(|_| conn.client_open)]
        };
        self.live.iter().flat_map(ends).flatten().min()
    }
}

/// The way a segment takes: its latency, for the run at hand.
pub(crate) fn arrival(now: Instant, latency: Duration) -> Instant {
    now.saturating_add(latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn read(pipe: &mut Pipe, now: u64) -> String {
        let mut bytes = Vec::new();
        pipe.read(at(now), usize::MAX, &mut bytes);
        String::from_utf8(bytes).expect("what was written")
    }

    #[test]
    fn bytes_arrive_in_order_and_the_end_behind_them() {
        let mut pipe = Pipe::default();
        pipe.write(at(5), b"later");
        pipe.write(at(3), b" and then");
        pipe.finish(at(1), End::Fin);
        assert_eq!((pipe.readable(at(4)), pipe.next(at(4))), (0, Some(at(5))));
        let mut piece = Vec::new();
        assert_eq!(pipe.read(at(5), 3, &mut piece), 3);
        assert_eq!((&piece[..], pipe.ended(at(5))), (&b"lat"[..], None));
        assert_eq!(read(&mut pipe, 5), "er and then");
        assert_eq!(pipe.ended(at(5)), Some(End::Fin));
    }

    #[test]
    fn a_reset_overtakes_what_was_not_read() {
        let mut pipe = Pipe::default();
        pipe.write(at(1), b"lost");
        pipe.finish(at(2), End::Rst);
        assert_eq!((pipe.readable(at(1)), pipe.ended(at(1)), pipe.ended(at(2))), (0, None, Some(End::Rst)));
    }

    #[test]
    fn a_held_direction_bursts_or_stays_silent() {
        let mut pipe = Pipe::default();
        pipe.write(at(1), b"a");
        pipe.hold(at(9));
        pipe.write(at(2), b"b");
        assert_eq!((pipe.readable(at(8)), pipe.next(at(8))), (0, Some(at(9))));
        assert_eq!(read(&mut pipe, 9), "ab");
        pipe.hold(Instant::NEVER);
        pipe.write(at(10), &[0; CAPACITY]);
        assert_eq!((pipe.next(at(10)), pipe.readable(at(1_000_000)), pipe.room()), (None, 0, 0));
        pipe.heal();
        assert_eq!(pipe.readable(at(1_000_000)), 0, "what is lost stays lost");
    }

    #[test]
    fn a_stream_can_be_cut_at_any_byte() {
        let mut pipe = Pipe::default();
        pipe.cut_after(5);
        pipe.write(at(1), b"abc");
        pipe.write(at(2), b"defg");
        pipe.write(at(3), b"h");
        assert_eq!(read(&mut pipe, 3), "abcde");
        assert_eq!(pipe.ended(at(3)), Some(End::Fin));
    }
}
