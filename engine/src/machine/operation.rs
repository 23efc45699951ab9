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

use core::hash::BuildHasher;
use core::task::{Poll, Waker};
use core::time::Duration;

use bytes::Bytes;
use foldhash::quality::FixedState;

use super::lane::Lane;
use super::outcome::{Outcome, Progress, Refused};
use super::request::{Answer, KeyBuf, OperationError, Request, Source, falls_back};
use super::slots::OpId;
use super::tier::{Fence, Tier};
use crate::link::Cause;
use crate::policy::{Executed, Permit, Verdict};
use crate::resp::{Command, Reply};
use crate::time::Instant;

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
        let command = request.command(key);
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
            Request::Get if mistake!(JournalBypassed) => Ok(Some(tier.fence(self.hash))),
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
        let command = self.request.command(&self.key);
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
        let answer = self.request.answer(reply);
        match (&answer, fence) {
            (Ok(answer), Some(fence)) => self.mirror(parts, now, fence, answer),
            (Ok(_), None) => {}
            (Err(_), _) => {
                parts.with_lane(self.hash, Lane::doubt);
                self.lose_copy(parts, now);
            }
        }
        answer
    }

    /// A write may have been executed or not: the copy of its key cannot be trusted any more.
    fn lose_copy(&self, parts: &mut impl Parts, now: Instant) {
        if self.request.is_write() {
            parts.with_tier(self.hash, |tier| tier.write_lost(now, self.hash, &self.key));
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
