//! Whether and when a failed attempt is made again.

use core::time::Duration;

use super::{Backoff, Jitter};
use crate::Instant;

/// How often, and how fast, an operation is tried again inside its deadline.
///
/// Only infrastructure failures come here. A reply that says the command is wrong, or that the server is full, would
/// be the same the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first one included (default 3). 1 turns retrying off; 0 counts as 1.
    pub attempts: u32,
    /// The delays between them (default 100 ms doubling up to 60 s, [`Jitter::Equal`]).
    pub backoff: Backoff,
    /// What all operations of one endpoint share, so that an outage does not multiply the load.
    pub budget: RetryBudgetConfig,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff {
                base: Duration::from_millis(100),
                cap: Duration::from_secs(60),
                jitter: Jitter::Equal,
            },
            budget: RetryBudgetConfig::default(),
        }
    }
}

/// What is known about the execution of a command whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// It was not executed: it was never sent whole, or the server said that it refused it.
    No,
    /// It was sent and no answer came; it may have been executed, or may yet be.
    Unknown,
}

/// One failed attempt, as [`RetryPolicy::next`] needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Attempts made so far, this one included.
    pub made: u32,
    /// Whether this one was executed.
    pub executed: Executed,
    /// Whether executing the command twice is the same as executing it once.
    pub idempotent: bool,
    /// The delay before this attempt; zero before the first.
    pub previous: Duration,
    /// When the whole operation ends.
    pub deadline: Instant,
}

impl RetryPolicy {
    /// When to try again, or `None`: the failure is the operation's outcome.
    ///
    /// The budget is only asked: charge it with [`RetryBudget::record_failure`] once for each failure of the server,
    /// however many operations that failure ends. A retry is refused when
    ///
    /// - all attempts are used up,
    /// - the command may have been executed and is not idempotent,
    /// - the budget is at or below half, or
    /// - it would be due at or after the deadline, where no answer could arrive in time.
    ///
    /// The delay to hand in as `previous` the next time is the answer minus `now`.
    #[must_use]
    pub fn next(
        &self,
        now: Instant,
        failed: &FailedAttempt,
        budget: &RetryBudget,
        rng: &mut fastrand::Rng,
    ) -> Option<Instant> {
        let repeatable = failed.executed == Executed::No || failed.idempotent;
        if failed.made >= self.attempts || !repeatable || !budget.allows_retry() {
            return None;
        }
        let delay = self.backoff.delay(failed.made.saturating_sub(1), failed.previous, rng);
        let due = now.saturating_add(delay);
        (due < failed.deadline).then_some(due)
    }
}

/// The size of a [`RetryBudget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudgetConfig {
    /// Tokens in a full bucket (default 100, at most 4 294 967). A failure takes one; retries stop at half. Below 3
    /// nothing is ever retried, because the first failure already leaves no more than half.
    pub max_tokens: u32,
    /// Thousandths of a token that a success gives back (default 100: ten successes pay for one failure).
    pub success_refill_milli: u32,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self { max_tokens: 100, success_refill_milli: 100 }
    }
}

/// Retry throttling for one endpoint: a bucket that failures empty and successes fill.
///
/// The algorithm is that of [gRFC A6] ("Throttling Retry Attempts and Hedged RPCs"): a failed attempt takes one
/// token, a success gives back a fraction, and retries are allowed while **more than half** of the tokens are left.
/// It needs no clock, and what bounds the extra load is the ratio: with the defaults, at most 50 retries of a full
/// bucket, then one for every ten successes.
///
/// Kept in whole thousandths of a token, so equal histories give equal answers on every target.
///
/// [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    milli_tokens: u32,
    max_milli: u32,
    refill_milli: u32,
}

impl RetryBudget {
    /// A full bucket.
    #[must_use]
    pub const fn new(config: RetryBudgetConfig) -> Self {
        let max_milli = config.max_tokens.saturating_mul(1000);
        Self { milli_tokens: max_milli, max_milli, refill_milli: config.success_refill_milli }
    }

    /// Whether a retry may be made now.
    #[must_use]
    pub const fn allows_retry(&self) -> bool {
        self.milli_tokens > self.max_milli / 2
    }

    /// An attempt succeeded: gives back a fraction of a token.
    pub fn record_success(&mut self) {
        self.milli_tokens = self.milli_tokens.saturating_add(self.refill_milli).min(self.max_milli);
    }

    /// An attempt failed, or all those of a lost connection together: takes a token.
    pub fn record_failure(&mut self) {
        self.milli_tokens = self.milli_tokens.saturating_sub(1000);
    }
}
