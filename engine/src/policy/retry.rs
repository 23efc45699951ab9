//! Whether and when a failed attempt is made again.

use core::time::Duration;

use crate::archive::Archive;

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

    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { attempts, backoff, budget: RetryBudgetConfig { max_tokens, success_refill_milli } } = self;
        archive.values([attempts, max_tokens, success_refill_milli]);
        backoff.archive(archive);
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
/// It needs no clock: the extra load is bounded by the ratio. With the defaults that is fewer than 50 retries from a
/// full bucket, and one more for every ten successes.
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

    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { milli_tokens, max_milli, refill_milli } = self;
        archive.values([milli_tokens, max_milli, refill_milli]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Instant = Instant::from_millis(1000);

    const fn policy(attempts: u32) -> RetryPolicy {
        let backoff =
            Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1), jitter: Jitter::None };
        RetryPolicy {
            attempts,
            backoff,
            budget: RetryBudgetConfig { max_tokens: 100, success_refill_milli: 100 },
        }
    }

    /// A first attempt that may be repeated, with time to spare.
    const FAILED: FailedAttempt = FailedAttempt {
        made: 1,
        executed: Executed::No,
        idempotent: false,
        previous: Duration::ZERO,
        deadline: Instant::from_millis(60_000),
    };

    /// One failure of the server that ended one attempt.
    fn next(policy: RetryPolicy, failed: FailedAttempt, budget: &mut RetryBudget) -> Option<Instant> {
        budget.record_failure();
        policy.next(NOW, &failed, budget, &mut fastrand::Rng::with_seed(0))
    }

    fn full_budget() -> RetryBudget {
        RetryBudget::new(RetryBudgetConfig::default())
    }

    #[test]
    fn what_may_be_repeated_and_when() {
        let due = |millis| Some(NOW.saturating_add(Duration::from_millis(millis)));
        let at = Instant::from_millis;
        let unknown = FailedAttempt { executed: Executed::Unknown, ..FAILED };
        let table = [
            ("first retry", 3, FAILED, due(100)),
            ("second retry waits twice as long", 3, FailedAttempt { made: 2, ..FAILED }, due(200)),
            ("attempts are used up", 3, FailedAttempt { made: 3, ..FAILED }, None),
            ("more were made than allowed", 3, FailedAttempt { made: 9, ..FAILED }, None),
            ("one attempt is no retry", 1, FAILED, None),
            ("none counts as one", 0, FAILED, None),
            ("executed perhaps, not idempotent", 3, unknown, None),
            ("executed perhaps, idempotent", 3, FailedAttempt { idempotent: true, ..unknown }, due(100)),
            ("not executed, idempotent", 3, FailedAttempt { idempotent: true, ..FAILED }, due(100)),
            ("due just before the deadline", 3, FailedAttempt { deadline: at(1101), ..FAILED }, due(100)),
            ("due at the deadline", 3, FailedAttempt { deadline: at(1100), ..FAILED }, None),
            ("the deadline is past", 3, FailedAttempt { deadline: at(1), ..FAILED }, None),
            ("no deadline", 3, FailedAttempt { deadline: Instant::NEVER, ..FAILED }, due(100)),
            ("a count that cannot be", 3, FailedAttempt { made: 0, ..FAILED }, due(100)),
        ];
        for (name, attempts, failed, expected) in table {
            assert_eq!(next(policy(attempts), failed, &mut full_budget()), expected, "{name}");
        }
    }

    #[test]
    fn a_delay_past_the_end_of_time_is_no_retry() {
        let mut forever = policy(3);
        forever.backoff = Backoff { base: Duration::MAX, cap: Duration::MAX, jitter: Jitter::None };
        let failed = FailedAttempt { deadline: Instant::NEVER, ..FAILED };
        assert_eq!(next(forever, failed, &mut full_budget()), None);
    }

    #[test]
    fn the_budget_follows_grfc_a6() {
        let mut budget = RetryBudget::new(RetryBudgetConfig { max_tokens: 10, success_refill_milli: 100 });
        let retries = (0..20).filter(|_| next(policy(3), FAILED, &mut budget).is_some()).count();
        assert_eq!(retries, 4, "the fifth failure leaves half");
        assert_eq!(budget.milli_tokens, 0, "failures without a retry are charged too");
        for _ in 0..50 {
            assert!(!budget.allows_retry());
            budget.record_success();
        }
        assert!(!budget.allows_retry(), "half is not more than half");
        budget.record_success();
        assert!(budget.allows_retry());
        for _ in 0..1000 {
            budget.record_success();
        }
        assert_eq!(budget, RetryBudget::new(RetryBudgetConfig { max_tokens: 10, success_refill_milli: 100 }));
    }

    #[test]
    fn small_budgets_refuse_and_huge_ones_do_not_overflow() {
        for (max_tokens, first) in [(0, false), (1, false), (2, false), (3, true), (u32::MAX, true)] {
            let mut budget =
                RetryBudget::new(RetryBudgetConfig { max_tokens, success_refill_milli: u32::MAX });
            assert_eq!(next(policy(3), FAILED, &mut budget).is_some(), first, "{max_tokens}");
            budget.record_success();
            assert_eq!(budget.milli_tokens, budget.max_milli);
        }
    }

    #[test]
    fn an_outage_does_not_triple_the_load() {
        let (mut budget, mut sent) = (full_budget(), 0);
        for _ in 0..10_000 {
            let mut failed = FAILED;
            sent += 1;
            while next(policy(3), failed, &mut budget).is_some() {
                sent += 1;
                failed.made += 1;
            }
        }
        // 49 failures are charged before half is reached; every third of them is an operation's last.
        assert_eq!(sent, 10_033);
    }

    proptest! {
        #[test]
        fn retries_are_bounded_by_the_successes(
            max_tokens in 0u32..50,
            success_refill_milli in 0u32..2000,
            outcomes in prop::collection::vec(any::<bool>(), 0..500),
        ) {
            let mut budget = RetryBudget::new(RetryBudgetConfig { max_tokens, success_refill_milli });
            let (mut retries, mut successes) = (0u64, 0u64);
            for succeeded in outcomes {
                if succeeded {
                    budget.record_success();
                    successes += 1;
                } else if next(policy(3), FAILED, &mut budget).is_some() {
                    retries += 1;
                }
                prop_assert!(budget.milli_tokens <= max_tokens * 1000);
                let bound = u64::from(max_tokens) * 500 + successes * u64::from(success_refill_milli);
                prop_assert!(retries * 1000 <= bound);
            }
        }

        /// Due after what the schedule says for that attempt, whatever the attempt: half the step to all of it, and the
        /// step never above its cap.
        #[test]
        fn a_retry_keeps_to_the_schedule(base in 0u64.., cap in 0u64.., made: u32, seed: u64) {
            let (base, cap) = (base.min(cap), base.max(cap));
            let backoff = Backoff {
                base: Duration::from_nanos(base),
                cap: Duration::from_nanos(cap),
                jitter: Jitter::Equal,
            };
            let policy = RetryPolicy { attempts: u32::MAX, backoff, ..RetryPolicy::default() };
            let failed = FailedAttempt { made, deadline: Instant::NEVER, ..FAILED };
            let mut rng = fastrand::Rng::with_seed(seed);
            let due = policy.next(Instant::EPOCH, &failed, &full_budget(), &mut rng);
            let doublings = made.saturating_sub(1).min(64);
            let step = u64::try_from((u128::from(base) << doublings).min(u128::from(cap))).expect("below the cap");
            match due {
                Some(due) => {
                    let delay = due.as_nanos() - Instant::EPOCH.as_nanos();
                    prop_assert!((step / 2..=step).contains(&delay), "{} for {}", delay, step);
                }
                None => prop_assert!(made == u32::MAX || step >= Instant::NEVER.as_nanos() - 1),
            }
        }

        #[test]
        fn a_retry_lies_between_now_and_the_deadline(
            now: u64, deadline: u64, made in 0u32..6, idempotent: bool, unknown: bool, seed: u64,
        ) {
            let (now, deadline) = (Instant::from_nanos(now), Instant::from_nanos(deadline));
            let executed = if unknown { Executed::Unknown } else { Executed::No };
            let failed = FailedAttempt { made, executed, idempotent, deadline, ..FAILED };
            let mut rng = fastrand::Rng::with_seed(seed);
            if let Some(due) = RetryPolicy::default().next(now, &failed, &full_budget(), &mut rng) {
                prop_assert!(now <= due && due < deadline && made < 3 && (idempotent || !unknown));
            }
        }
    }
}
