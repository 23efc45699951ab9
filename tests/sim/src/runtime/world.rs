//! What surrounds the tasks of a [`SimRuntime`](super::SimRuntime): the clock, timers, the network and the server.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::{Duration, Instant as StdInstant};

use larder_engine::Instant;

use crate::choices::Choices;
use crate::net::{Net, Pipe, arrival};
use crate::server::{Done, Server, ServerConfig};
use crate::tape::Tape;

/// How long a segment is under way, unless somebody says otherwise: two machines of one data centre.
const LATENCY: Duration = Duration::from_micros(100);

/// Of a thousand reads and writes, how many move less than they could.
const PIECES: u32 = 100;

pub(super) struct World {
    pub(super) now: Instant,
    /// What the runtime's clock showed when time began. Only differences to it are ever looked at.
    epoch: StdInstant,
    pub(super) choices: Choices,
    pub(super) net: Net,
    pub(super) server: Server,
    /// Nothing comes through until then.
    pub(super) cut_until: Instant,
    pub(super) latency: Duration,
    pub(super) tape: Tape,
    timers: BTreeMap<(Instant, u64), Waker>,
    timers_made: u64,
    sockets: BTreeMap<usize, Waiting>,
}

/// Who waits for a connection.
#[derive(Default)]
struct Waiting {
    to_read: Option<Waker>,
    to_write: Option<Waker>,
}

impl World {
    pub(super) fn new(choices: Choices) -> Self {
        let config = ServerConfig { scan_page: 10, latency: LATENCY, ..ServerConfig::default() };
        Self {
            now: Instant::EPOCH,
            epoch: StdInstant::now(),
            choices,
            net: Net::default(),
            server: Server::new(config),
            cut_until: Instant::EPOCH,
            latency: LATENCY,
            tape: Tape::new(false),
            timers: BTreeMap::new(),
            timers_made: 0,
            sockets: BTreeMap::new(),
        }
    }

    // ---- time ----

    pub(super) fn elapsed(&self) -> Duration {
        self.now.saturating_since(Instant::EPOCH)
    }

    pub(super) fn std_now(&self) -> StdInstant {
        self.epoch + self.elapsed()
    }

    pub(super) fn virtual_time(&self, at: StdInstant) -> Instant {
        Instant::EPOCH.saturating_add(at.saturating_duration_since(self.epoch))
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let others = [timer, self.net.next(self.now), self.server.next(self.now)];
        others.into_iter().flatten().filter(|at| !at.is_never()).min().map(|at| at.max(self.now))
    }

    pub(super) fn new_timer(&mut self) -> u64 {
        self.timers_made += 1;
        self.timers_made
    }

    /// Wakes `waker` then, or never.
    pub(super) fn set_timer(&mut self, at: Instant, id: u64, waker: Option<Waker>) {
        match waker {
            Some(waker) => self.timers.insert((at, id), waker),
            None => self.timers.remove(&(at, id)),
        };
    }

    /// Who goes first of so many.
    pub(super) fn choose(&mut self, among: u32) -> u32 {
        let chosen = self.choices.below(among);
        if among > 0 {
            self.tape.number(self.now.as_nanos());
            self.tape.number(chosen.into());
        }
        chosen
    }

    // ---- network ----

    /// How long a segment, or the answer to a dial, is under way: at most twice the latency.
    fn travels(&mut self) -> Duration {
        let latency = self.latency;
        latency + self.choices.duration(latency)
    }

    pub(super) fn dialled(&mut self) -> Instant {
        let round_trip = self.travels() + self.travels();
        self.now.max(self.cut_until).saturating_add(round_trip)
    }

    /// A dial has arrived; `None` is refused.
    pub(super) fn accept(&mut self) -> Option<usize> {
        let listens = self.server.listens(self.now);
        let conn = listens.then(|| self.net.connect((0, 0)));
        if let Some(conn) = conn {
            self.server.accept(self.now, conn, &mut self.net);
            self.sockets.insert(conn, Waiting::default());
        }
        self.tape.number(self.now.as_nanos());
        self.tape.line(self.now, || format!("dial: {}", if listens { "connected" } else { "refused" }));
        conn
    }

    pub(super) fn piece(&mut self, all: usize) -> usize {
        if all > 1 && self.choices.chance(PIECES) {
            1 + self.choices.below(all.min(64) as u32) as usize
        } else {
            all
        }
    }

    pub(super) fn send(&mut self, conn: usize, bytes: &[u8]) {
        let at = arrival(self.now, self.travels());
        self.net.conn(conn).up.write(at, bytes);
        self.tape.bytes(self.now, (0, conn), bytes);
    }

    pub(super) fn wait_to_read(&mut self, conn: usize, waker: &Waker) {
        self.sockets.entry(conn).or_default().to_read = Some(waker.clone());
    }

    pub(super) fn wait_to_write(&mut self, conn: usize, waker: &Waker) {
        self.sockets.entry(conn).or_default().to_write = Some(waker.clone());
    }

    pub(super) fn forget(&mut self, conn: usize) {
        self.sockets.remove(&conn);
    }

    /// Holds back all that is under way or will be, in both directions.
    pub(super) fn cut_off(&mut self, until: Instant) {
        self.cut_until = self.cut_until.max(until);
        for id in self.net.live().to_vec() {
            let conn = self.net.conn(id);
            conn.up.hold(until);
            conn.down.hold(until);
        }
    }

    // ---- work ----

    /// Lets the server do what it can now, and collects whoever has something to do after that.
    pub(super) fn work(&mut self, wakers: &mut Vec<Waker>) -> bool {
        let progress = self.serve();
        let now = self.now;
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            wakers.push(timer.remove());
        }
        for (&id, waiting) in &mut self.sockets {
            let conn = self.net.get(id);
            let ended = conn.down.ended(now).is_some();
            if ended || conn.down.readable(now) > 0 {
                wakers.extend(waiting.to_read.take());
            }
            if ended || conn.up.room() > 0 {
                wakers.extend(waiting.to_write.take());
            }
        }
        progress || !wakers.is_empty()
    }

    fn serve(&mut self) -> bool {
        let (mut progress, mut done) = (false, Vec::new());
        self.net.prune();
        for id in self.net.live().to_vec() {
            self.server.config.latency = self.travels_if_busy(id);
            progress |= self.server.serve(self.now, id, &mut self.net, &mut self.choices, &mut done);
            for Done { did, .. } in done.drain(..) {
                self.tape.line(self.now, || format!("redis: {did}"));
            }
        }
        progress
    }

    /// Only what is sent costs a choice.
    fn travels_if_busy(&mut self, id: usize) -> Duration {
        let up: &Pipe = &self.net.get(id).up;
        if up.readable(self.now) > 0 { self.travels() } else { self.latency }
    }
}
