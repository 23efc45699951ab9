//! What a lane says: how operations ended, why they were not taken, what the breaker must be told, and its counters.

use core::time::Duration;

use crate::archive::Archive;
use crate::link::Cause;
use crate::policy::{BreakerView, Executed, Permit, Verdict};
use crate::resp::Reply;
use crate::time::Instant;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The server answered; its errors are replies too.
    Reply(Reply),
    /// It did not.
    Failed(Failure),
}

impl Outcome {
    /// For a recording: what it is made of.
    pub(super) fn archive(&mut self, archive: &mut Archive<'_>) {
        let failure = |outcome: &Self| match outcome {
            Self::Reply(_) => None,
            Self::Failed(Failure { cause, executed }) => Some((*cause as u8, *executed == Executed::Unknown)),
        };
        archive.by(self, failure, |failure| {
            let Some((cause, is_unknown)) = failure else { return Some(Self::Reply(Reply::Null)) };
            let executed = if is_unknown { Executed::Unknown } else { Executed::No };
            Some(Self::Failed(Failure { cause: Cause::from_number(cause)?, executed }))
        });
        if let Self::Reply(reply) = self {
            super::record::archive_reply(reply, archive);
        }
    }

    /// The outcome of an operation that a closed lane did not take or not finish.
    #[must_use]
    pub const fn closed() -> Self {
        Self::Failed(Failure { cause: Cause::Closed, executed: Executed::No })
    }
}

/// An operation that the server did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why there is no reply.
    pub cause: Cause,
    /// Whether the server may have executed it.
    pub executed: Executed,
}

/// Where an operation stands that is not over.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Hand the command in (again) with [`Lane::resubmit`](super::Lane::resubmit): there is room for it, or an attempt is due.
    Again,
    /// It was over at that time, which may be long before its caller looks, and is forgotten by the lane.
    Done(Outcome, Instant),
}

/// Why an operation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Too many operations wait already.
    Overloaded,
    /// The command alone is larger than all that may be in flight.
    TooLarge {
        /// Its size on the wire, in bytes.
        len: usize,
        /// The most that may be in flight, in bytes.
        max: usize,
    },
    /// The lane was closed.
    Closed,
}

/// What the breaker must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An operation, or the breaker's probe, ended so.
    ///
    /// The time is what the server took for the answer, or was given in vain before the operation ran out of time. It
    /// counts from when the last attempt joined the commands in flight on a connection that serves: the wait for a turn,
    /// for a connection and between attempts is not the server's. It is only told to a breaker that
    /// [counts](Permit::is_counted), and otherwise zero.
    Verdict(Permit, Verdict, Duration),
    /// The server failed us in a way that belongs to no single operation: a dial failed, a connection was lost,
    /// operations timed out.
    Failure,
    /// The server refused us for a reason that only a changed configuration cures.
    Trip,
    /// A connection serves.
    Ready,
}

/// What makes up a signal.
pub(super) type SignalParts = (u8, (u32, u32, bool), u8, Duration);

impl Signal {
    /// For a recording: what makes it up.
    pub(super) const fn into_parts(self) -> SignalParts {
        let nothing = (0, 0, false);
        match self {
            Self::Verdict(permit, verdict, took) => (0, permit.into_parts(), verdict as u8, took),
            Self::Failure => (1, nothing, 0, Duration::ZERO),
            Self::Trip => (2, nothing, 0, Duration::ZERO),
            Self::Ready => (3, nothing, 0, Duration::ZERO),
        }
    }

    pub(super) const fn from_parts((kind, permit, verdict, took): SignalParts) -> Option<Self> {
        Some(match (kind, Verdict::from_number(verdict)) {
            (0, Some(verdict)) => Self::Verdict(Permit::from_parts(permit), verdict, took),
            (1, _) => Self::Failure,
            (2, _) => Self::Trip,
            (3, _) => Self::Ready,
            _ => return None,
        })
    }

    /// Whether a breaker that looks like this would change; most news is that a healthy server is healthy.
    #[must_use]
    pub fn matters(self, view: BreakerView) -> bool {
        match self {
            Self::Verdict(permit, Verdict::Success, _) => view.success_matters(permit),
            Self::Verdict(..) | Self::Failure | Self::Trip | Self::Ready => true,
        }
    }
}

/// Counters of one lane since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Connections that became ready.
    pub connects: u64,
    /// Dials that failed: refused, timed out, or not let in.
    pub dial_failures: u64,
    /// Ready connections that were lost.
    pub losses: u64,
    /// Attempts that were made again.
    pub retries: u64,
    /// Operations whose deadline passed.
    pub timeouts: u64,
    /// Operations that ended because the lane was closed.
    pub aborted: u64,
}

impl core::iter::Sum for LaneStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            connects: sum.connects + one.connects,
            dial_failures: sum.dial_failures + one.dial_failures,
            losses: sum.losses + one.losses,
            retries: sum.retries + one.retries,
            timeouts: sum.timeouts + one.timeouts,
            aborted: sum.aborted.saturating_add(one.aborted),
        })
    }
}
