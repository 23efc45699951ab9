//! Removes what lies under a prefix from Redis, in steps that hold nobody up.
//!
//! ```text
//!             keys              removed, more to come
//!   Scan ------------> Unlink -----------------------> Scan ...
//!     | none, more       |
//!     +-> Scan           | removed, and the scan had ended
//!     | none, end        v
//!     +---------------> done
//! ```
//!
//! `SCAN` gives every key that is there from beginning to end of the scan at least once, and `UNLINK` frees memory in
//! the background; both are asked for some hundred keys at a time. A key that is set meanwhile may or may not survive.

use core::task::{Poll, Waker};

use bytes::Bytes;

use super::operation::{Operation, Parts};
use super::request::{Answer, KeyBuf, OperationError, Request};
use crate::key;
use crate::resp::Reply;

/// A sweep on its way. Each step has the deadline of an operation of its own.
#[derive(Debug)]
pub(crate) struct Sweep {
    pattern: KeyBuf,
    /// The step that is on its way.
    step: Operation,
    /// Where the scan goes on after this step; `None` when it has ended.
    next: Option<u64>,
    removed: u64,
}

impl Sweep {
    /// Sweeps the keys that begin with `prefix`.
    pub(crate) fn new(prefix: &[u8]) -> Self {
        let pattern = KeyBuf::from_vec(key::prefix_pattern(prefix));
        let step = Self::scan(&pattern, 0);
        Self { pattern, step, next: None, removed: 0 }
    }

    /// Keys that were removed so far.
    pub(crate) const fn removed(&self) -> u64 {
        self.removed
    }

    /// Goes as far as it can. Of the keys that it finds it removes those that are `doomed`.
    pub(crate) fn poll<P: Parts>(
        &mut self,
        parts: &mut P,
        waker: &Waker,
        mut doomed: impl FnMut(&mut P, &[u8]) -> bool,
    ) -> Poll<Result<(), OperationError>> {
        loop {
            let reply = match self.step.poll(parts, waker) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Answer::Reply(reply))) => reply,
                Poll::Ready(Ok(_)) => {
                    return Poll::Ready(Err(OperationError::Unexpected { command: "SCAN" }));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            };
            match self.take(reply, |key| doomed(parts, key)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Stops where it is; what is removed stays removed.
    pub(crate) fn cancel(&mut self, parts: &mut impl Parts) {
        self.step.cancel(parts);
    }

    /// Takes the reply to a step, and prepares the next; `false` when there is none.
    fn take(&mut self, reply: Reply, mut doomed: impl FnMut(&[u8]) -> bool) -> Result<bool, OperationError> {
        if self.step.request().is_scan() {
            let (cursor, mut keys) =
                reply.into_scan().map_err(|_| OperationError::Unexpected { command: "SCAN" })?;
            self.next = (cursor != 0).then_some(cursor);
            keys.retain(|key: &Bytes| doomed(key));
            if !keys.is_empty() {
                self.step = Operation::new(KeyBuf::new(), 0, Request::Unlink(keys));
                return Ok(true);
            }
        } else {
            let removed =
                reply.as_integer().ok_or(OperationError::Unexpected { command: "UNLINK" })?.unsigned_abs();
            self.removed = self.removed.saturating_add(removed);
        }
        let Some(cursor) = self.next else { return Ok(false) };
        self.step = Self::scan(&self.pattern, cursor);
        Ok(true)
    }

    fn scan(pattern: &KeyBuf, cursor: u64) -> Operation {
        Operation::new(pattern.clone(), 0, Request::Scan { cursor })
    }
}

/// Whether the server is well, and will not sweep for us: it has no `SCAN` or `UNLINK`, or this user may not say it.
pub(crate) fn is_refusal(error: &OperationError) -> bool {
    use crate::resp::ErrorClass::{Caller, Unsupported};

    let OperationError::Server(error) = error else { return false };
    matches!(error.class(), Caller | Unsupported) || error.code() == b"NOPERM"
}
