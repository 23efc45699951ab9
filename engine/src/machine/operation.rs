//! One operation from its first poll to its answer, and the decision of who gives it.
//!
//! ```text
//!            breaker closed, or a half-open place        reply               Redis answered
//!   New ------------------------------------> OnLane ------------> judged ------------------> Over (answer)
//!    |                                          | cancelled           |
//!    | breaker open                             v                     | Redis could not
//!    +-------------------> fallback tier <------+---------------------+
//!                             |      | none, or it must not answer
//!                             v      v
//!                          answer   error
//! ```
//!
//! The logic stands here once; where lanes, breaker and tier live, and which locks they need, is up to who
//! implements [`Parts`]: [`Engine`](super::Engine) owns them plainly, a driver keeps them under mutexes.

use core::task::{Poll, Waker};
use core::time::Duration;

use bytes::Bytes;
use core::hash::BuildHasher;
use foldhash::quality::FixedState;
use smallvec::SmallVec;

use super::lane::Lane;
use super::outcome::{Failure, Outcome, Progress, Refused};
use super::slots::OpId;
use super::tier::{Fence, Tier, TierFull};
use crate::link::Cause;
use crate::policy::{Executed, Permit, Verdict};
use crate::resp::{Command, ErrorClass, Key, Reply, ServerError};
use crate::time::Instant;

/// A whole key, namespace included; keys of usual length are kept without an allocation.
pub type KeyBuf = SmallVec<[u8; 64]>;

/// Where the parts of the engine are found.
///
/// Locks are taken in the order lane, then tier shard or breaker, and never two lanes or two shards at once.
pub trait Parts {
    /// The time.
    fn now(&mut self) -> Instant;
    /// How long an operation may take, all attempts together.
    fn operation_timeout(&self) -> Duration;
    /// Asks the breaker.
    fn admit(&mut self, now: Instant) -> Option<Permit>;
    /// Tells the breaker what came of a permit that no lane has taken.
    fn record(&mut self, now: Instant, permit: Permit, verdict: Verdict);
    /// Works on the lane of a key. Afterwards the lane's wakers are woken, its signals are given to the breaker, and
    /// its driver is told. `None` where there is no lane, which is the same as a closed one.
    fn with_lane<R>(&mut self, hash: u64, work: impl FnOnce(&mut Lane) -> R) -> Option<R>;
    /// Works on the tier shard of a key; `None` where there is no fallback.
    fn with_tier<R>(&mut self, hash: u64, work: impl FnOnce(&mut Tier) -> R) -> Option<R>;
    /// Works on every tier shard, one after the other; `false` where there is no fallback.
    fn each_tier(&mut self, work: impl FnMut(&mut Tier)) -> bool;
    /// Something was journalled: the [`Replay`](super::Replay) is to be polled when no lock is held.
    fn journalled(&mut self);
    /// Counts for the statistics.
    fn tally(&mut self, tally: Tally);
}

/// What the statistics count, once for each operation it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// An operation has ended, however.
    Operation,
    /// A read was answered with a value, by whomever.
    Hit,
    /// A read was answered with none.
    Miss,
    /// A write was acknowledged by Redis.
    Set,
    /// A delete was acknowledged by Redis.
    Delete,
    /// Redis could not serve an operation; somebody else may have.
    Unserved,
    /// The fallback tier answered a read with a value.
    FallbackHit,
    /// The fallback tier answered a read with none.
    FallbackMiss,
    /// The fallback tier accepted a write or delete.
    FallbackWrite,
    /// The caller got an error.
    Error,
}

impl Tally {
    /// Every tally, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Operation,
        Self::Hit,
        Self::Miss,
        Self::Set,
        Self::Delete,
        Self::Unserved,
        Self::FallbackHit,
        Self::FallbackMiss,
        Self::FallbackWrite,
        Self::Error,
    ];
}

/// What is asked of the cache.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// The value of a key.
    Get,
    /// Sets a key.
    Set {
        /// The value as it will be stored.
        value: Bytes,
        /// Time to live; `None` is without end.
        ttl: Option<Duration>,
    },
    /// Removes a key.
    Delete,
    /// Whether a key has a value.
    Exists,
    /// A step of a clear: some keys of a pattern, which stands in the place of the key.
    Scan {
        /// Where the previous step ended; 0 begins.
        cursor: u64,
    },
    /// A step of a clear: removes keys as `Scan` told them.
    Unlink(alloc::vec::Vec<Bytes>),
    /// A section of the server's `INFO`, named in the place of the key.
    Info,
}

impl Request {
    /// Whether the reply is a page of keys.
    pub(crate) const fn is_scan(&self) -> bool {
        matches!(self, Self::Scan { .. })
    }

    const fn is_write(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::Delete)
    }

    /// Whether the fallback tier can answer it. The others are steps of something that can.
    const fn has_fallback(&self) -> bool {
        matches!(self, Self::Get | Self::Set { .. } | Self::Delete | Self::Exists)
    }
}

impl core::fmt::Debug for Request {
    /// Without values.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Get => "Get",
            Self::Set { .. } => "Set",
            Self::Delete => "Delete",
            Self::Exists => "Exists",
            Self::Scan { .. } => "Scan",
            Self::Unlink(_) => "Unlink",
            Self::Info => "Info",
        })
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache itself: Redis, or the memory of a memory cache.
    Primary,
    /// The fallback tier, because Redis could not.
    Fallback {
        /// How long ago Redis confirmed the value, or it was written here; zero where it is not about a value.
        age: Duration,
    },
}

/// What came of a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Get`.
    Value(Option<Bytes>, Source),
    /// To `Set`.
    Stored(Source),
    /// To `Delete`: whether there was something to delete. After a retry `false` may stand for a first attempt that
    /// deleted it without our hearing of it.
    Deleted(bool, Source),
    /// To `Exists`.
    Exists(bool, Source),
    /// To a step of a clear and to `Info`, as the server put it.
    Reply(Reply),
}

/// Why a [`Request`] has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The breaker is open, and nobody else could answer.
    #[error("the circuit breaker is open, and there is no fallback")]
    BreakerOpen,
    /// The server did not answer.
    #[error("{}", describe(.0))]
    Failed(Failure),
    /// The server answered with an error.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// The server answered what is no answer to this command.
    #[error("the server's answer to {command} is not one of a Redis server")]
    Unexpected {
        /// The command.
        command: &'static str,
    },
    /// More operations are under way than the configuration allows.
    #[error("too many operations wait already; raise `max_in_flight`, or send less at a time")]
    Overloaded,
    /// The command is larger than all that may be in flight.
    #[error(
        "the command takes {len} bytes, more than the {max} that may be in flight; raise `max_in_flight_bytes`"
    )]
    TooLarge {
        /// Its size.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The server could not be asked, and the fallback tier has no room for the write. It was not accepted.
    #[error(transparent)]
    FallbackFull(#[from] TierFull),
    /// The cache was closed.
    #[error("the cache is closed")]
    Closed,
}

fn describe(failure: &Failure) -> &'static str {
    match failure.cause {
        Cause::Unreachable => "the server could not be reached",
        Cause::ConnectionLost => "the connection was lost before the server answered",
        Cause::Stalled => "the server was silent for longer than the stall timeout",
        Cause::Protocol => "the server broke the protocol",
        Cause::TimedOut => "the server did not answer within the operation's deadline",
        Cause::Overloaded => "the operation's deadline passed while it waited for its turn",
        Cause::Closed => "the cache was closed",
    }
}

impl OperationError {
    /// Whether more was asked than the configuration allows; the server is not to blame.
    #[must_use]
    pub const fn is_overload(&self) -> bool {
        matches!(self, Self::Overloaded | Self::Failed(Failure { cause: Cause::Overloaded, .. }))
    }

    /// Whether the server could not serve the operation; the same one may succeed when it is back.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::BreakerOpen | Self::FallbackFull(_) => true,
            Self::Failed(Failure { cause, .. }) => !matches!(cause, Cause::Overloaded | Cause::Closed),
            Self::Server(error) => falls_back(error.class()),
            Self::Unexpected { .. } | Self::Overloaded | Self::TooLarge { .. } | Self::Closed => false,
        }
    }

    /// Whether the operation ran out of time.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed(Failure { cause: Cause::TimedOut | Cause::Overloaded, .. }))
    }
}

/// The journal answers for the key of a request.
struct Journalled;

/// A request on its way.
#[derive(Debug)]
pub struct Operation {
    key: KeyBuf,
    hash: u64,
    request: Request,
    stage: Stage,
    namespace_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    New,
    OnLane { id: OpId, fence: Option<Fence> },
    Over,
}

impl Operation {
    /// A request for a whole key. Nothing happens before the first poll. `hash` decides lane and shard: the same key
    /// must always come with the same.
    #[must_use]
    pub const fn new(key: KeyBuf, hash: u64, request: Request) -> Self {
        Self { key, hash, request, stage: Stage::New, namespace_len: 0 }
    }

    /// Says how many bytes of the key are its namespace, the colon included. A delete in an outage for which the fallback
    /// tier has no room becomes a clear of that; without a namespace it is refused, so that no shared database is wiped.
    #[must_use]
    pub const fn in_namespace(mut self, len: usize) -> Self {
        self.namespace_len = len;
        self
    }

    /// Changes the time to live of a `Set` that was not polled yet.
    pub const fn set_ttl(&mut self, new: Option<Duration>) {
        if let (Stage::New, Request::Set { ttl, .. }) = (self.stage, &mut self.request) {
            *ttl = new;
        }
    }

    /// What it asks for.
    pub(crate) const fn request(&self) -> &Request {
        &self.request
    }

    /// Goes as far as it can. The deadline counts from the first call.
    pub fn poll(&mut self, parts: &mut impl Parts, waker: &Waker) -> Poll<Result<Answer, OperationError>> {
        let result = match self.stage {
            Stage::New => self.begin(parts, waker),
            Stage::OnLane { id, fence } => self.proceed(parts, waker, id, fence),
            Stage::Over => return Poll::Ready(Err(OperationError::Closed)),
        };
        if let Poll::Ready(result) = &result {
            self.stage = Stage::Over;
            self.count(parts, result);
        }
        result
    }

    /// Withdraws it; a write that was sent may still take place.
    pub fn cancel(&mut self, parts: &mut impl Parts) {
        let Stage::OnLane { id, .. } = core::mem::replace(&mut self.stage, Stage::Over) else { return };
        parts.with_lane(self.hash, |lane| lane.cancel(id));
        let now = parts.now();
        self.lose_copy(parts, now);
    }

    fn begin(&mut self, parts: &mut impl Parts, waker: &Waker) -> Poll<Result<Answer, OperationError>> {
        let now = parts.now();
        let Some(permit) = parts.admit(now) else {
            return Poll::Ready(self.fall_back(parts, now, OperationError::BreakerOpen));
        };
        let deadline = now.saturating_add(parts.operation_timeout());
        let (key, hash, request) = (&self.key, self.hash, &self.request);
        let Ok(fence) = self.enter(parts) else {
            parts.record(now, permit, Verdict::Abandoned);
            return Poll::Ready(self.fall_back(parts, now, OperationError::BreakerOpen));
        };
        let command = command(key, request);
        let submitted = parts.with_lane(hash, |lane| {
            let id = lane.submit(now, &command, permit, deadline)?;
            Ok((id, advance(lane, id, &command, waker)))
        });
        match submitted.unwrap_or(Err(Refused::Closed)) {
            Ok((_, Poll::Ready((outcome, now)))) => Poll::Ready(self.finish(parts, now, fence, outcome)),
            Ok((id, Poll::Pending)) => {
                self.stage = Stage::OnLane { id, fence };
                Poll::Pending
            }
            Err(refused) => {
                parts.record(now, permit, Verdict::Abandoned);
                Poll::Ready(Err(refused.into()))
            }
        }
    }

    /// The fence of the key as the request begins. Or the journal answers for the key: what Redis says of it is out of date, and
    /// what it is told would overtake what the journal brings.
    fn enter(&self, parts: &mut impl Parts) -> Result<Option<Fence>, Journalled> {
        if !self.request.has_fallback() {
            return Ok(None);
        }
        let entered = parts.with_tier(self.hash, |tier| match self.request {
            _ if tier.is_journalled(&self.key) => Err(Journalled),
            Request::Set { .. } | Request::Delete => Ok(Some(tier.begin_write(self.hash))),
            Request::Get => Ok(Some(tier.fence(self.hash))),
            _ => Ok(None),
        });
        entered.unwrap_or(Ok(None))
    }

    fn proceed(
        &self,
        parts: &mut impl Parts,
        waker: &Waker,
        id: OpId,
        fence: Option<Fence>,
    ) -> Poll<Result<Answer, OperationError>> {
        let command = command(&self.key, &self.request);
        match parts.with_lane(self.hash, |lane| advance(lane, id, &command, waker)) {
            Some(Poll::Ready((outcome, now))) => Poll::Ready(self.finish(parts, now, fence, outcome)),
            Some(Poll::Pending) => Poll::Pending,
            None => Poll::Ready(Err(OperationError::Closed)),
        }
    }

    /// The lane has spoken: an answer, an error, or somebody else's turn.
    fn finish(
        &self,
        parts: &mut impl Parts,
        now: Instant,
        fence: Option<Fence>,
        outcome: Outcome,
    ) -> Result<Answer, OperationError> {
        let reply = match outcome {
            Outcome::Reply(Reply::Error(error)) => {
                let fall_back = falls_back(error.class());
                let error = OperationError::Server(error);
                if fall_back {
                    return self.fall_back_late(parts, error);
                }
                // An attempt before this one may have been executed, and its answer lost.
                self.lose_copy(parts, now);
                return Err(error);
            }
            Outcome::Reply(reply) => reply,
            Outcome::Failed(failure) => {
                // Where the fallback takes the write over, it knows what that means for the copy.
                let unknown = failure.executed == Executed::Unknown;
                if unknown && matches!(failure.cause, Cause::Closed | Cause::Overloaded) {
                    self.lose_copy(parts, now);
                }
                return match failure.cause {
                    Cause::Closed => Err(OperationError::Closed),
                    // A healthy server that is asked too much must not be bypassed.
                    Cause::Overloaded => Err(OperationError::Failed(failure)),
                    Cause::Unreachable
                    | Cause::ConnectionLost
                    | Cause::Stalled
                    | Cause::Protocol
                    | Cause::TimedOut => self.fall_back_late(parts, OperationError::Failed(failure)),
                };
            }
        };
        let answer = self.read(reply);
        match (&answer, fence) {
            (Ok(answer), Some(fence)) => self.mirror(parts, now, fence, answer),
            (Ok(_), None) => {}
            (Err(_), _) => self.lose_copy(parts, now),
        }
        answer
    }

    /// A write may have been executed or not: the copy of its key cannot be trusted any more.
    fn lose_copy(&self, parts: &mut impl Parts, now: Instant) {
        if self.request.is_write() {
            parts.with_tier(self.hash, |tier| tier.write_lost(now, self.hash, &self.key));
        }
    }

    /// What a reply that is no error means.
    fn read(&self, reply: Reply) -> Result<Answer, OperationError> {
        match (&self.request, reply) {
            (Request::Get, Reply::Bulk(value)) => Ok(Answer::Value(Some(value), Source::Primary)),
            (Request::Get, Reply::Null) => Ok(Answer::Value(None, Source::Primary)),
            (Request::Set { .. }, reply) if reply.is_ok() => Ok(Answer::Stored(Source::Primary)),
            (Request::Delete, Reply::Integer(n)) => Ok(Answer::Deleted(n > 0, Source::Primary)),
            (Request::Exists, Reply::Integer(n)) => Ok(Answer::Exists(n > 0, Source::Primary)),
            (Request::Scan { .. } | Request::Unlink(_) | Request::Info, reply) => Ok(Answer::Reply(reply)),
            (request, _) => Err(OperationError::Unexpected { command: command(&self.key, request).name() }),
        }
    }

    /// Keeps a copy of what Redis confirmed.
    fn mirror(&self, parts: &mut impl Parts, now: Instant, fence: Fence, answer: &Answer) {
        let (key, hash) = (&self.key[..], self.hash);
        parts.with_tier(hash, |tier| match (answer, &self.request) {
            (Answer::Value(value, _), _) => tier.read_confirmed(now, hash, key, fence, value.as_deref()),
            (_, Request::Set { value, ttl }) => {
                let deadline = ttl.map_or(Instant::NEVER, |ttl| now.saturating_add(ttl));
                tier.write_confirmed(now, hash, key, fence, Some((value, deadline)));
            }
            (_, Request::Delete) => tier.write_confirmed(now, hash, key, fence, None),
            _ => {}
        });
    }

    /// Like [`Self::fall_back`], for what ended on a lane: not at the time of that, since nobody knows for how long the
    /// caller has looked away.
    fn fall_back_late(
        &self,
        parts: &mut impl Parts,
        error: OperationError,
    ) -> Result<Answer, OperationError> {
        let now = parts.now();
        self.fall_back(parts, now, error)
    }

    /// Redis cannot answer because of `error`: the fallback tier does, where there is one.
    fn fall_back(
        &self,
        parts: &mut impl Parts,
        now: Instant,
        error: OperationError,
    ) -> Result<Answer, OperationError> {
        if !self.request.has_fallback() {
            return Err(error);
        }
        parts.tally(Tally::Unserved);
        let (key, hash) = (&self.key[..], self.hash);
        let answer = parts.with_tier(hash, |tier| match &self.request {
            Request::Set { value, ttl } => {
                let deadline = ttl.map_or(Instant::NEVER, |ttl| now.saturating_add(ttl));
                // Copied: the caller's buffer may be a slice of a much larger one.
                let value = Bytes::copy_from_slice(value);
                tier.accept_set(now, hash, key, value, deadline)?;
                Ok(Answer::Stored(Source::Fallback { age: Duration::ZERO }))
            }
            Request::Delete => {
                let existed = tier.accept_delete(now, hash, key, self.namespace_len)?;
                Ok(Answer::Deleted(existed, Source::Fallback { age: Duration::ZERO }))
            }
            request => {
                let found = tier.get(now, key);
                let age = found.as_ref().map_or(Duration::ZERO, |found| found.age);
                let (value, source) = (found.and_then(|found| found.value), Source::Fallback { age });
                Ok(match request {
                    Request::Get => Answer::Value(value, source),
                    _ => Answer::Exists(value.is_some(), source),
                })
            }
        });
        if self.request.is_write() && matches!(answer, Some(Ok(_))) {
            parts.journalled();
        }
        answer.unwrap_or(Err(error))
    }

    fn count(&self, parts: &mut impl Parts, result: &Result<Answer, OperationError>) {
        if !self.request.has_fallback() {
            return; // Whoever takes these steps counts them as a whole.
        }
        let fallback = |source: &Source, tally| matches!(source, Source::Fallback { .. }).then_some(tally);
        let (first, second) = match result {
            Ok(Answer::Value(Some(_), source)) => (Some(Tally::Hit), fallback(source, Tally::FallbackHit)),
            Ok(Answer::Value(None, source)) => (Some(Tally::Miss), fallback(source, Tally::FallbackMiss)),
            Ok(Answer::Stored(source)) => match source {
                Source::Primary => (Some(Tally::Set), None),
                Source::Fallback { .. } => (None, Some(Tally::FallbackWrite)),
            },
            Ok(Answer::Deleted(_, source)) => match source {
                Source::Primary => (Some(Tally::Delete), None),
                Source::Fallback { .. } => (None, Some(Tally::FallbackWrite)),
            },
            Ok(Answer::Exists(..) | Answer::Reply(_)) => (None, None),
            Err(_) => (Some(Tally::Error), None),
        };
        parts.tally(Tally::Operation);
        for tally in [first, second].into_iter().flatten() {
            parts.tally(tally);
        }
    }
}

/// Whether the fallback tier may answer in the place of a server that answered with an error of this class.
const fn falls_back(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Transient | ErrorClass::Topology | ErrorClass::Auth | ErrorClass::Unsupported => true,
        ErrorClass::Capacity | ErrorClass::Caller => false,
    }
}

fn command<'a>(key: &'a KeyBuf, request: &'a Request) -> Command<'a> {
    let whole = Key { namespace: b"", key };
    match request {
        Request::Get => Command::Get(whole),
        Request::Set { value, ttl } => Command::Set { key: whole, value, ttl: *ttl },
        Request::Delete => Command::Del(whole),
        Request::Exists => Command::Exists(whole),
        Request::Scan { cursor } => Command::Scan { cursor: *cursor, pattern: key, count: SCAN_COUNT },
        Request::Unlink(keys) => Command::Unlink(keys),
        Request::Info => Command::Info(key),
    }
}

/// Keys that the server looks at in one step of a clear: small enough not to hold others up, about a millisecond.
const SCAN_COUNT: u32 = 512;

/// Hands the command in as often as the lane asks for it, until it has an outcome or there is something to wait for.
pub(crate) fn advance(
    lane: &mut Lane,
    id: OpId,
    command: &Command<'_>,
    waker: &Waker,
) -> Poll<(Outcome, Instant)> {
    loop {
        match lane.poll(id, waker) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Progress::Again) => lane.resubmit(id, command),
            Poll::Ready(Progress::Done(outcome, at)) => return Poll::Ready((outcome, at)),
        }
    }
}

/// The lane of a key, so that operations of one key keep their order. The high bits: the low ones choose a tier shard
/// and a fence.
#[must_use]
pub fn lane_index(hash: u64, lanes: usize) -> usize {
    ((u128::from(hash) * lanes as u128) >> 64) as usize
}

/// The hash that chooses the lane, shard and fence of a key. Not seeded: crafted keys cost no more than a busy shard.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

impl From<Refused> for OperationError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Overloaded => Self::Overloaded,
            Refused::TooLarge { len, max } => Self::TooLarge { len, max },
            Refused::Closed => Self::Closed,
        }
    }
}
