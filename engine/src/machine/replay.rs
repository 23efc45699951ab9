//! Brings the journal to Redis: whenever there is something in it and the breaker admits.
//!
//! ```text
//!                   something is journalled, and due                 Redis has it: the next after a pause
//!   Idle -----------------------------------------> Asked ------------------------------------------> Idle
//!    ^                                              |   ^
//!    |  Redis could not: later, and ever later      |   | scripts refused, or no room for values:
//!    +----------------------------------------------+   | asked to delete instead
//!    |                                                  +---+
//!    |        a clear comes first
//!    +-----------------------------> Sweeping: until Redis has it, could not, or will not
//! ```
//!
//! One command is under way at a time, for a chunk of keys of one lane. It may be sent twice, and the server may die before,
//! in the middle of or after it: what is not known to be taken stays in the journal and comes again. A success lets the next
//! chunk go after a short pause, so that a recovery does not bury a server that has just come back; failures wait from 100 ms up
//! to 10 s, unless [`Replay::kick`] says that Redis may be back: the breaker is on trial or has closed, or a connection serves.
//!
//! A lane whose connection before could not be fenced is left alone for a while ([`Lane::quiet_until`](super::Lane::quiet_until)): what
//! it takes may be overtaken by what the server still has of the other. What it took meanwhile comes again, too.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::task::{Poll, Waker};
use core::time::Duration;

use bytes::Bytes;

use super::journal::{Change, Item, Seen};
use super::operation::{Parts, advance, key_hash};
use super::outcome::{Outcome, Refused};
use super::request::OperationError;
use super::slots::OpId;
use super::sweep::{Sweep, is_refusal};
use super::tier::Reconcile;
use crate::policy::{Backoff, Jitter, Permit, Verdict};
use crate::resp::{Command, ErrorClass, Reply, millis};
use crate::time::Instant;

/// The most entries that travel together, and the most bytes.
const CHUNK: usize = 64;
const CHUNK_BYTES: u64 = 1 << 20;

/// Between a success and the next chunk.
const PAUSE: Duration = Duration::from_millis(2);

/// The waits after failures: jittered, since other processes have lost the same server.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10), jitter: Jitter::Equal };

/// For each key: set it if the server holds what was seen (`=`), nothing (`-`), or whatever it holds (`!`), and delete it
/// otherwise. A value that is there already may be our own, set by a script whose answer was lost.
const SCRIPT: &[u8] = b"\
local done = {}
for i, key in ipairs(KEYS) do
  local mode, seen, value, ttl = ARGV[4*i-3], ARGV[4*i-2], ARGV[4*i-1], ARGV[4*i]
  local take = mode == '!'
  if mode == '=' or mode == '-' then
    local held = redis.pcall('GET', key)
    take = held == value or (mode == '=' and held == seen) or (mode == '-' and held == false)
  end
  if not take then redis.call('DEL', key)
  elseif ttl == '' then redis.call('SET', key, value)
  else redis.call('SET', key, value, 'PX', ttl) end
  done[i] = take and 1 or 0
end
return done";

/// Replays the journal of all shards; one for each cache. Poll it when something was journalled, when the breaker has
/// changed, when its waker was woken and when [`Replay::poll_timeout`] says.
#[derive(Debug)]
pub struct Replay {
    reconcile: Reconcile,
    lanes: usize,
    stage: Stage,
    not_before: Instant,
    failures: u32,
    rng: fastrand::Rng,
    /// The most entries of the next chunk.
    most: usize,
    /// Until when nothing goes to a lane, each by its number; see [`Lane::quiet_until`](super::Lane::quiet_until).
    quiet: Vec<Instant>,
    /// The server runs scripts for us, as far as is known.
    scripts: bool,
    /// Whether there was something left to do.
    has_work: bool,
    /// The lanes are closed: what is left is left.
    closed: bool,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Asked(OpId, Chunk),
    Sweeping(Bytes, Box<Sweep>),
}

/// What travels together.
#[derive(Debug)]
struct Chunk {
    /// The hash of its first key: all are of the same lane.
    hash: u64,
    items: Vec<Item>,
    keys: Vec<Bytes>,
    /// Of the script; `None` where the keys are to be deleted.
    args: Option<Vec<Bytes>>,
}

impl Chunk {
    fn command(&self) -> Command<'_> {
        match &self.args {
            Some(args) => Command::Eval { script: SCRIPT, keys: &self.keys, args },
            None => Command::DelAll(&self.keys),
        }
    }
}

impl Replay {
    /// With nothing to do. `seed` is for jitter only.
    #[must_use]
    pub fn new(reconcile: Reconcile, lanes: usize, seed: u64) -> Self {
        Self {
            reconcile,
            lanes,
            stage: Stage::Idle,
            not_before: Instant::EPOCH,
            failures: 0,
            rng: fastrand::Rng::with_seed(seed),
            most: CHUNK,
            quiet: vec![Instant::EPOCH; lanes],
            scripts: true,
            has_work: false,
            closed: false,
        }
    }

    /// Redis may be back: what failed before is tried at once, scripts too.
    pub const fn kick(&mut self) {
        self.not_before = Instant::EPOCH;
        self.failures = 0;
        self.most = CHUNK;
        self.scripts = true;
    }

    /// Goes as far as it can.
    pub fn poll(&mut self, parts: &mut impl Parts, waker: &Waker) {
        loop {
            match &mut self.stage {
                Stage::Idle => {
                    if !self.begin(parts) {
                        return;
                    }
                }
                Stage::Asked(id, chunk) => {
                    let (id, command) = (*id, chunk.command());
                    match parts.with_lane(chunk.hash, |lane| advance(lane, id, &command, waker)) {
                        Some(Poll::Pending) => return,
                        Some(Poll::Ready((outcome, at))) => self.conclude(parts, &outcome, at),
                        None => return self.stage = Stage::Idle,
                    }
                }
                Stage::Sweeping(_, sweep) => {
                    let doomed = |parts: &mut _, key: &[u8]| {
                        Parts::with_tier(parts, key_hash(key), |tier| tier.is_cleared(key))
                            .unwrap_or_default()
                    };
                    match sweep.poll(parts, waker, doomed) {
                        Poll::Pending => return,
                        Poll::Ready(result) => self.swept(parts, result),
                    }
                }
            }
        }
    }

    /// When to poll again at the latest; `None` while there is nothing to wait for but wakers.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_idle = matches!(self.stage, Stage::Idle);
        (self.has_work && is_idle && !self.closed).then_some(self.not_before)
    }

    fn begin(&mut self, parts: &mut impl Parts) -> bool {
        let now = parts.now();
        let (mut has_work, mut clear) = (false, None);
        parts.each_tier(|tier| {
            if tier.has_work() {
                has_work = true;
                clear = clear.take().or_else(|| tier.next_clear().cloned());
            }
        });
        self.has_work = has_work;
        if !has_work || self.closed || now < self.not_before {
            return false;
        }
        if let Some(prefix) = clear {
            parts.each_tier(|tier| tier.begin_sweep(&prefix));
            self.stage = Stage::Sweeping(prefix.clone(), Box::new(Sweep::new(&prefix)));
            return true;
        }
        let Some(permit) = parts.admit(now) else {
            self.wait(now);
            return false;
        };
        let items = self.take(parts, now);
        if items.is_empty() {
            parts.record(now, permit, Verdict::Abandoned);
            let quiet = self.quiet.iter().filter(|until| **until > now).min();
            self.has_work = quiet.is_some();
            self.not_before = quiet.copied().unwrap_or(now);
            return false;
        }
        let args = self.wants_script().then(|| self.args(&items, now));
        self.ask(parts, now, permit, items, args)
    }

    fn swept(&mut self, parts: &mut impl Parts, result: Result<(), OperationError>) {
        let Stage::Sweeping(prefix, _) = core::mem::replace(&mut self.stage, Stage::Idle) else { return };
        let now = parts.now();
        match result {
            Ok(()) => {
                parts.each_tier(|tier| tier.end_sweep(&prefix, true));
                self.go_on(now);
            }
            // It will not do it later either, and the namespace cannot wait for ever.
            Err(error) if is_refusal(&error) => {
                parts.each_tier(|tier| tier.end_sweep(&prefix, false));
                self.go_on(now);
            }
            Err(OperationError::Closed) => self.closed = true,
            Err(_) => self.wait(now),
        }
    }

    fn take(&self, parts: &mut impl Parts, now: Instant) -> Vec<Item> {
        let (mut items, mut lane) = (Vec::new(), None);
        let is_quiet = |index: usize| self.quiet.get(index).is_some_and(|until| *until > now);
        let (lanes, most) = (self.lanes, self.most);
        parts.each_tier(|tier| {
            if items.is_empty() {
                items = tier.take(most, CHUNK_BYTES, |key| {
                    let index = super::lane_index(key_hash(key), lanes);
                    !is_quiet(index) && *lane.get_or_insert(index) == index
                });
            }
        });
        items
    }

    /// Submits the command for a chunk; `false` where it was not taken.
    fn ask(
        &mut self,
        parts: &mut impl Parts,
        now: Instant,
        permit: Permit,
        items: Vec<Item>,
        args: Option<Vec<Bytes>>,
    ) -> bool {
        let keys: Vec<Bytes> = items.iter().map(|item| item.key.clone()).collect();
        let hash = keys.first().map_or(0, |key| key_hash(key));
        let mut chunk = Chunk { hash, items, keys, args };
        let deadline = now.saturating_add(parts.operation_timeout());
        if self.is_quiet(parts, hash, now) {
            parts.record(now, permit, Verdict::Abandoned);
            self.give_back(parts, &chunk.items);
            return true; // Other lanes need not wait.
        }
        let mut submit = |chunk: &Chunk| {
            let submitted =
                parts.with_lane(hash, |lane| lane.submit(now, &chunk.command(), permit, deadline));
            submitted.unwrap_or(Err(Refused::Closed))
        };
        let mut submitted = submit(&chunk);
        let is_alone = chunk.items.len() == 1;
        if matches!(submitted, Err(Refused::TooLarge { .. })) && is_alone && chunk.args.take().is_some() {
            submitted = submit(&chunk); // Value and old value together are too much: so it is deleted.
        }
        let why = match submitted {
            Ok(id) => {
                self.stage = Stage::Asked(id, chunk);
                return true;
            }
            Err(why) => why,
        };
        parts.record(now, permit, Verdict::Abandoned);
        self.give_back(parts, &chunk.items);
        match (why, &chunk.items[..]) {
            // Its key alone is too much, so it can never have been sent.
            (Refused::TooLarge { .. }, [item]) => {
                parts.with_tier(hash, |tier| tier.forget(&item.key));
            }
            (Refused::TooLarge { .. }, items) => self.most = items.len() / 2,
            (Refused::Overloaded, _) => self.wait(now),
            (Refused::Closed, _) => self.closed = true,
        }
        matches!(why, Refused::TooLarge { .. })
    }

    fn conclude(&mut self, parts: &mut impl Parts, outcome: &Outcome, at: Instant) {
        let stage = core::mem::replace(&mut self.stage, Stage::Idle);
        let Stage::Asked(_, Chunk { hash, items, args, .. }) = stage else { return };
        let was_script = args.is_some();
        if let Outcome::Reply(reply) = outcome {
            if let Some(set) = taken(reply, was_script, items.len()) {
                if self.is_quiet(parts, hash, at) {
                    // It, or a write of these keys, may be executed once more, after what is written from now on.
                    return self.give_back(parts, &items);
                }
                for (item, set) in items.iter().zip(set) {
                    parts.with_tier(key_hash(&item.key), |tier| tier.settle(at, item, set));
                }
                return self.go_on(parts.now());
            }
        }
        // A server that is there, and refuses to do it in this way, is asked to delete instead.
        let refused = was_script
            && match outcome {
                Outcome::Reply(Reply::Error(error)) => {
                    !matches!(error.class(), ErrorClass::Transient | ErrorClass::Topology)
                }
                Outcome::Reply(_) => true,
                Outcome::Failed(_) => false,
            };
        let now = parts.now();
        match refused.then(|| parts.admit(now)).flatten() {
            Some(permit) => {
                self.scripts &= is_full(outcome);
                self.ask(parts, now, permit, items, None);
            }
            None => {
                self.give_back(parts, &items);
                self.wait(now);
            }
        }
    }

    /// Whether the lane of a key is to be left alone for a while; that is remembered.
    fn is_quiet(&mut self, parts: &mut impl Parts, hash: u64, now: Instant) -> bool {
        let until = parts.with_lane(hash, |lane| lane.quiet_until()).unwrap_or(Instant::EPOCH);
        let index = super::lane_index(hash, self.lanes);
        self.quiet.iter_mut().skip(index).take(1).for_each(|known| *known = until);
        until > now
    }

    fn give_back(&self, parts: &mut impl Parts, items: &[Item]) {
        for item in items {
            parts.with_tier(key_hash(&item.key), |tier| match mistake!(LossIsSuccess) {
                true => tier.forget(&item.key),
                false => tier.put_back(item),
            });
        }
    }

    fn go_on(&mut self, now: Instant) {
        self.failures = 0;
        self.not_before = now.saturating_add(PAUSE);
    }

    fn wait(&mut self, now: Instant) {
        let delay = RETRY.delay(self.failures, Duration::ZERO, &mut self.rng);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(delay);
    }

    const fn wants_script(&self) -> bool {
        self.scripts && matches!(self.reconcile, Reconcile::Conditional | Reconcile::Overwrite)
    }

    fn args(&self, items: &[Item], now: Instant) -> Vec<Bytes> {
        let mut args = Vec::with_capacity(4 * items.len());
        for item in items {
            let (value, deadline) = match (&item.change, item.change.value(now)) {
                (Change::Set(_, deadline), Some(value)) => (value.clone(), *deadline),
                _ => {
                    args.extend([Bytes::from_static(b"x"), Bytes::new(), Bytes::new(), Bytes::new()]);
                    continue;
                }
            };
            let (mode, seen) = match (self.reconcile, &item.seen) {
                _ if mistake!(ForeignOverwritten) => (&b"!"[..], Bytes::new()),
                (Reconcile::Overwrite, _) => (&b"!"[..], Bytes::new()),
                (_, Seen::Value(seen)) => (&b"="[..], seen.clone()),
                (_, Seen::Absent) => (&b"-"[..], Bytes::new()),
                (_, Seen::Never) => (&b"?"[..], Bytes::new()),
            };
            let ttl = if deadline.is_never() {
                Bytes::new()
            } else {
                millis(deadline.saturating_since(now)).to_string().into()
            };
            args.extend([Bytes::from_static(mode), seen, value, ttl]);
        }
        args
    }
}

/// What became of each key, where the reply says so: whether it has its value.
fn taken(reply: &Reply, was_script: bool, count: usize) -> Option<Vec<bool>> {
    match reply {
        Reply::Integer(_) if !was_script => Some(alloc::vec![false; count]),
        Reply::Array(each) if was_script && each.len() == count => {
            each.iter().map(|one| one.as_integer().map(|one| one == 1)).collect()
        }
        _ => None,
    }
}

/// Whether scripts are fine, and only the room for values is missing.
fn is_full(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reply(Reply::Error(error)) if error.class() == ErrorClass::Capacity)
}
