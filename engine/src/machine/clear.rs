//! Clearing a namespace, in steps that hold nobody up.
//!
//! ```text
//!             keys              removed, more to come
//!   Scan ------------> Unlink -----------------------> Scan ...
//!     | no keys, more    |
//!     +-> Scan           | removed, and the scan had ended
//!     | no keys, end     v
//!     +---------------> done
//! ```
//!
//! `SCAN` gives every key that is there from beginning to end of the scan at least once, and `UNLINK` frees memory in
//! the background; both are asked for some hundred keys at a time. A key that is set meanwhile may or may not survive.

use alloc::vec::Vec;
use core::task::{Poll, Waker};
use core::time::Duration;

use super::operation::{Answer, KeyBuf, Operation, OperationError, Parts, Request, Source, Tally};
use crate::key;
use crate::resp::Reply;

/// What a clear has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Keys that were removed: on the server, or from the fallback tier where that is the source.
    pub removed: u64,
    /// Whether Redis was cleared too.
    pub source: Source,
}

/// A clear of one namespace on its way. Each step has the deadline of an operation of its own.
#[derive(Debug)]
pub struct Clear {
    pattern: KeyBuf,
    prefix: Vec<u8>,
    /// The step that is on its way.
    step: Operation,
    /// Where the scan goes on after this step; `None` when it has ended.
    next: Option<u64>,
    stage: Stage,
    removed: u64,
    /// Of those, how many only the fallback tier knew.
    forgotten: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Begun,
    Over,
}

impl Clear {
    /// Clears every key that begins with `<namespace>:`; all keys where the namespace is empty.
    #[must_use]
    pub fn new(namespace: &[u8]) -> Self {
        let pattern = KeyBuf::from_vec(key::scan_pattern(namespace));
        let mut prefix = namespace.to_vec();
        if !prefix.is_empty() {
            prefix.push(b':');
        }
        let step = Self::scan(&pattern, 0);
        Self { pattern, prefix, step, next: None, stage: Stage::New, removed: 0, forgotten: 0 }
    }

    /// Goes as far as it can.
    pub fn poll(&mut self, parts: &mut impl Parts, waker: &Waker) -> Poll<Result<Cleared, OperationError>> {
        match self.stage {
            Stage::New => _ = self.forget(parts),
            Stage::Begun => {}
            Stage::Over => return Poll::Ready(Err(OperationError::Closed)),
        }
        self.stage = Stage::Begun;
        let result = loop {
            match self.step.poll(parts, waker) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Answer::Reply(reply))) => match self.take(reply) {
                    Ok(true) => {}
                    Ok(false) => break Ok(Source::Primary),
                    Err(error) => break Err(error),
                },
                Poll::Ready(Ok(_)) => break Err(OperationError::Unexpected { command: "SCAN" }),
                Poll::Ready(Err(error)) => break Err(error),
            }
        };
        // Again: a read that was under way may have brought a copy back.
        self.stage = Stage::Over;
        let has_fallback = self.forget(parts);
        if result.as_ref().is_err_and(OperationError::is_outage) {
            parts.tally(Tally::Unserved);
        }
        let result = match result {
            Ok(source) => Ok(Cleared { removed: self.removed, source }),
            Err(error) if has_fallback && error.is_outage() => {
                parts.tally(Tally::FallbackWrite);
                let removed = self.removed.max(self.forgotten);
                Ok(Cleared { removed, source: Source::Fallback { age: Duration::ZERO } })
            }
            Err(error) => {
                parts.tally(Tally::Error);
                Err(error)
            }
        };
        parts.tally(Tally::Operation);
        Poll::Ready(result)
    }

    /// Stops where it is; what is removed stays removed.
    pub fn cancel(&mut self, parts: &mut impl Parts) {
        self.stage = Stage::Over;
        self.step.cancel(parts);
    }

    /// Takes the reply to a step, and prepares the next; `false` when there is none.
    fn take(&mut self, reply: Reply) -> Result<bool, OperationError> {
        if self.step.request().is_scan() {
            let (cursor, keys) =
                reply.into_scan().map_err(|_| OperationError::Unexpected { command: "SCAN" })?;
            self.next = (cursor != 0).then_some(cursor);
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

    /// Clears the fallback tier; `false` where there is none.
    fn forget(&mut self, parts: &mut impl Parts) -> bool {
        let now = parts.now();
        let (prefix, forgotten) = (&self.prefix, &mut self.forgotten);
        parts.each_tier(|tier| *forgotten += tier.clear(now, prefix) as u64)
    }
}
