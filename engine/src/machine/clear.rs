//! Clearing a namespace: of Redis by a sweep, and of the fallback tier.
//!
//! ```text
//!   New ---> Begun: the tier forgets, Redis is swept ---> Over: the tier forgets again
//!                              |
//!                              | Redis could not
//!                              v
//!                      the journal takes it: Redis is swept when it is back
//! ```

use core::task::{Poll, Waker};
use core::time::Duration;

use alloc::vec::Vec;

use super::operation::{Parts, Tally};
use super::request::{OperationError, Source};
use super::sweep::{Sweep, is_refusal};

/// What a clear has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Keys that were removed: on the server, or from the fallback tier where that is the source.
    pub removed: u64,
    /// Whether Redis was cleared too. Otherwise it is when it is back, and until then the fallback tier answers for the
    /// whole namespace.
    pub source: Source,
}

/// A clear of one namespace on its way. Each step has the deadline of an operation of its own.
#[derive(Debug)]
pub struct Clear {
    prefix: Vec<u8>,
    sweep: Sweep,
    stage: Stage,
    /// How many keys only the fallback tier knew.
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
        let mut prefix = namespace.to_vec();
        if !prefix.is_empty() {
            prefix.push(b':');
        }
        Self { sweep: Sweep::new(&prefix), prefix, stage: Stage::New, forgotten: 0 }
    }

    /// Goes as far as it can.
    pub fn poll(&mut self, parts: &mut impl Parts, waker: &Waker) -> Poll<Result<Cleared, OperationError>> {
        match self.stage {
            Stage::New => _ = self.forget(parts),
            Stage::Begun => {}
            Stage::Over => return Poll::Ready(Err(OperationError::Closed)),
        }
        self.stage = Stage::Begun;
        let Poll::Ready(swept) = self.sweep.poll(parts, waker, |_, _| true) else { return Poll::Pending };
        // Again: a read that was under way may have brought a copy back.
        self.stage = Stage::Over;
        let has_fallback = self.forget(parts);
        if swept.as_ref().is_err_and(OperationError::is_outage) {
            parts.tally(Tally::Unserved);
        }
        let result = match swept {
            Ok(()) => Ok(Cleared { removed: self.sweep.removed(), source: Source::Primary }),
            // A server that will not do it now will not do it later.
            Err(error) if has_fallback && error.is_outage() && !is_refusal(&error) => self.put_off(parts),
            Err(error) => Err(error),
        };
        if result.is_err() {
            parts.tally(Tally::Error);
        }
        parts.tally(Tally::Operation);
        Poll::Ready(result)
    }

    /// Stops where it is; what is removed stays removed.
    pub fn cancel(&mut self, parts: &mut impl Parts) {
        self.stage = Stage::Over;
        self.sweep.cancel(parts);
    }

    /// Redis cannot be swept now: it is when it is back.
    fn put_off(&self, parts: &mut impl Parts) -> Result<Cleared, OperationError> {
        let (now, mut noted) = (parts.now(), Ok(()));
        parts.each_tier(|tier| noted = noted.and_then(|()| tier.clear_later(now, &self.prefix)));
        noted?;
        parts.journalled();
        parts.tally(Tally::FallbackWrite);
        let removed = self.sweep.removed().max(self.forgotten);
        Ok(Cleared { removed, source: Source::Fallback { age: Duration::ZERO } })
    }

    /// Clears the fallback tier; `false` where there is none.
    fn forget(&mut self, parts: &mut impl Parts) -> bool {
        let now = parts.now();
        let (prefix, forgotten) = (&self.prefix, &mut self.forgotten);
        parts.each_tier(|tier| *forgotten += tier.clear(now, prefix) as u64)
    }
}
