//! What a cache on Redis does when Redis does not answer: the parameters of retries, redials and the breaker.

use std::time::Duration;

use larder_engine::policy::{Backoff, BreakerConfig, Jitter};

use super::RedisBuilder;
use crate::error::ConfigError;

/// Below this a redial would be a busy loop, and a slow call none that can be measured.
const SHORTEST: Duration = Duration::from_millis(1);

/// Parameters whose default depends on another one; `None` is that default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Derived {
    reconnect_backoff_max: Option<Duration>,
    breaker_timeout_max: Option<Duration>,
    breaker_half_open_timeout: Option<Duration>,
}

/// # Retries
impl RedisBuilder {
    /// Attempts of one operation within its deadline, the first included. Default 3; at least 1, which is no retry. Only
    /// failures that trying again can cure are tried again, and all together only as often as the
    /// [budget](Self::retry_budget) allows.
    pub fn retry_attempts(mut self, attempts: u32) -> Self {
        self.lane.retry.attempts = attempts;
        self
    }

    /// The delay before the second attempt. Default 100 ms; it doubles with each attempt. From zero to
    /// [`retry_backoff_max`](Self::retry_backoff_max).
    pub fn retry_backoff_base(mut self, base: Duration) -> Self {
        self.lane.retry.backoff.base = base;
        self
    }

    /// The longest delay between attempts, and between dials where
    /// [`reconnect_backoff_max`](Self::reconnect_backoff_max) says nothing else. Default 60 s; at least 1 ms.
    pub fn retry_backoff_max(mut self, max: Duration) -> Self {
        self.lane.retry.backoff.cap = max;
        self
    }

    /// How the delays between attempts are spread. Default [`Jitter::Equal`]: from half the delay to all of it.
    pub fn retry_jitter(mut self, jitter: Jitter) -> Self {
        self.lane.retry.backoff.jitter = jitter;
        self
    }

    /// The tokens of the retry budget of a connection, so that an outage does not multiply the load. Default 100; from
    /// 3 to 4 294 967. A failure takes one, ten successes give one back, and nothing is tried again while no more than
    /// half of them are left.
    pub fn retry_budget(mut self, tokens: u32) -> Self {
        self.lane.retry.budget.max_tokens = tokens;
        self
    }
}

/// # Connections
impl RedisBuilder {
    /// The delay before the first new dial after a lost connection, which doubles with each dial that fails. Default
    /// 500 ms; at least 1 ms. Each delay is drawn from zero to that ([`Jitter::Full`]), so that many processes do not
    /// come back at once.
    pub fn reconnect_backoff_base(mut self, base: Duration) -> Self {
        self.lane.reconnect = Backoff { base, ..self.lane.reconnect };
        self
    }

    /// The longest delay between dials. Default [`retry_backoff_max`](Self::retry_backoff_max), 60 s; at least
    /// [`reconnect_backoff_base`](Self::reconnect_backoff_base).
    pub fn reconnect_backoff_max(mut self, max: Duration) -> Self {
        self.derived.reconnect_backoff_max = Some(max);
        self
    }

    /// How often a connection without traffic is sent a PING. Default 30 s; not zero. One that is in use needs none: any
    /// byte received is a sign of life, and [`stall_timeout`](Self::stall_timeout) watches for silence.
    pub fn health_check_interval(mut self, interval: Duration) -> Self {
        self.lane.health_check_interval = interval;
        self
    }

    /// How long a connection with commands in flight may be silent before it is closed and dialled again. Default 2 s;
    /// not zero.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.lane.stall_timeout = timeout;
        self
    }
}

/// # Circuit breaker
impl RedisBuilder {
    /// Failures in a row after which the breaker opens. Default 5; at least 1. A lost connection is one, however many
    /// operations were on it.
    #[doc(alias = "circuit_breaker_threshold")]
    pub fn breaker_threshold(mut self, failures: u32) -> Self {
        self.breaker.failure_threshold = failures;
        self
    }

    /// The share of failed calls, in percent, at which the breaker opens as well, however the failures are spread.
    /// Default: not looked at; from 1 to 100. It is the share in the last [`breaker_window`](Self::breaker_window), of at
    /// least [`breaker_minimum_calls`](Self::breaker_minimum_calls).
    ///
    /// With it, or with [`breaker_slow_calls`](Self::breaker_slow_calls), each round of replies takes the breaker's lock,
    /// where otherwise only failures do.
    pub fn breaker_failure_rate(mut self, percent: u32) -> Self {
        self.breaker.failure_rate_percent = Some(percent);
        self
    }

    /// The share of calls, in percent, that took `after` or longer and at which the breaker opens as well. Default: no
    /// call is slow. `after` is from 1 ms to [`operation_timeout`](Self::operation_timeout), `percent` from 1 to 100.
    ///
    /// The time of a call is what Redis and the network took for its last attempt, from when its command joined those in
    /// flight. The wait for a turn ([`max_in_flight`](Self::max_in_flight)), for a connection and between attempts is
    /// none of it: too much load of our own does not open the breaker. A call that ran out of time is a slow one.
    pub fn breaker_slow_calls(mut self, after: Duration, percent: u32) -> Self {
        self.breaker.slow_call_after = Some(after);
        self.breaker.slow_call_rate_percent = percent;
        self
    }

    /// How far back [`breaker_failure_rate`](Self::breaker_failure_rate) and
    /// [`breaker_slow_calls`](Self::breaker_slow_calls) look. Default 30 s; at least 10 ms.
    pub fn breaker_window(mut self, window: Duration) -> Self {
        self.breaker.window = window;
        self
    }

    /// Calls in the window before a share of them says anything. Default 100; at least 1.
    pub fn breaker_minimum_calls(mut self, calls: u32) -> Self {
        self.breaker.minimum_calls = calls;
        self
    }

    /// How long an open breaker keeps traffic away before it probes, ±[15 %](Self::breaker_jitter). Default 60 s; at
    /// least 1 ms. It doubles each time the probe fails, up to [`breaker_timeout_max`](Self::breaker_timeout_max).
    #[doc(alias = "circuit_breaker_timeout")]
    pub fn breaker_timeout(mut self, timeout: Duration) -> Self {
        self.breaker.open_for = timeout;
        self
    }

    /// The longest that an open breaker keeps traffic away. Default 10 min, or
    /// [`breaker_timeout`](Self::breaker_timeout) if that is longer; never less.
    pub fn breaker_timeout_max(mut self, max: Duration) -> Self {
        self.derived.breaker_timeout_max = Some(max);
        self
    }

    /// By how many percent the time that the breaker stays open is spread, up and down, so that many processes do not probe
    /// at once. Default 15; at most 100.
    pub fn breaker_jitter(mut self, percent: u32) -> Self {
        self.breaker.jitter_percent = percent;
        self
    }

    /// Operations that a half-open breaker lets through after its probe, before it closes. Default 3; from 1 to 32.
    pub fn breaker_half_open_permits(mut self, permits: u32) -> Self {
        self.breaker.half_open_permits = permits;
        self
    }

    /// How long a half-open breaker waits for its probe, and for these operations. Default 10 s, or twice
    /// [`operation_timeout`](Self::operation_timeout) if that is longer; never less than that timeout.
    pub fn breaker_half_open_timeout(mut self, timeout: Duration) -> Self {
        self.derived.breaker_half_open_timeout = Some(timeout);
        self
    }
}

impl RedisBuilder {
    /// The schedule of redials.
    pub(super) fn reconnect(&self) -> Result<Backoff, ConfigError> {
        let Backoff { base, jitter, .. } = self.lane.reconnect;
        let retries = self.lane.retry.backoff;
        at_least("retry_backoff_max", retries.cap, SHORTEST)?;
        if retries.base > retries.cap {
            return Err(above("retry_backoff_base", "retry_backoff_max"));
        }
        at_least("reconnect_backoff_base", base, SHORTEST)?;
        if self.derived.reconnect_backoff_max.is_some_and(|max| base > max) {
            return Err(above("reconnect_backoff_base", "reconnect_backoff_max"));
        }
        // Where only the retries were given a cap, and one below this base, that cap is the schedule.
        Ok(Backoff { base, cap: self.derived.reconnect_backoff_max.unwrap_or(retries.cap), jitter })
    }

    pub(super) fn check_retries(&self) -> Result<(), ConfigError> {
        within("retry_attempts", self.lane.retry.attempts, 1, u32::MAX)?;
        within("retry_budget", self.lane.retry.budget.max_tokens, 3, 4_294_967)
    }

    /// The parameters of the breaker.
    pub(super) fn breaker(&self) -> Result<BreakerConfig, ConfigError> {
        let breaker = self.breaker;
        within("breaker_threshold", breaker.failure_threshold, 1, u32::MAX)?;
        within("breaker_failure_rate", breaker.failure_rate_percent.unwrap_or(100), 1, 100)?;
        within("breaker_slow_calls", breaker.slow_call_rate_percent, 1, 100)?;
        at_least("breaker_slow_calls", breaker.slow_call_after.unwrap_or(SHORTEST), SHORTEST)?;
        if breaker.slow_call_after.is_some_and(|after| after > self.operation_timeout) {
            return Err(above("breaker_slow_calls", "operation_timeout"));
        }
        at_least("breaker_window", breaker.window, 10 * SHORTEST)?;
        within("breaker_minimum_calls", breaker.minimum_calls, 1, u32::MAX)?;
        at_least("breaker_timeout", breaker.open_for, SHORTEST)?;
        let Derived { breaker_timeout_max, breaker_half_open_timeout, .. } = self.derived;
        if breaker_timeout_max.is_some_and(|max| breaker.open_for > max) {
            return Err(above("breaker_timeout", "breaker_timeout_max"));
        }
        within("breaker_jitter", breaker.jitter_percent, 0, 100)?;
        within("breaker_half_open_permits", breaker.half_open_permits, 1, 32)?;
        if breaker_half_open_timeout.is_some_and(|timeout| timeout < self.operation_timeout) {
            let problem =
                "is below operation_timeout, so that slow operations would be taken for lost; raise it";
            return Err(ConfigError::new("breaker_half_open_timeout", problem));
        }
        let open_for_cap = breaker.open_for_cap.max(breaker.open_for);
        let half_open_timeout = breaker.half_open_timeout.max(self.operation_timeout.saturating_mul(2));
        Ok(BreakerConfig {
            open_for_cap: breaker_timeout_max.unwrap_or(open_for_cap),
            half_open_timeout: breaker_half_open_timeout.unwrap_or(half_open_timeout),
            ..breaker
        })
    }
}

fn within(field: &'static str, number: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    let problem = if number < least {
        format!("is {number}; it must be at least {least}")
    } else if number > most {
        format!("is {number}; it must be at most {most}")
    } else {
        return Ok(());
    };
    Err(ConfigError::new(field, problem))
}

fn at_least(field: &'static str, duration: Duration, least: Duration) -> Result<(), ConfigError> {
    if duration >= least {
        return Ok(());
    }
    let given = if duration.is_zero() { "zero".to_owned() } else { format!("{duration:?}") };
    Err(ConfigError::new(field, format!("is {given}; it must be at least {least:?}")))
}

fn above(field: &'static str, bound: &str) -> ConfigError {
    ConfigError::new(field, format!("is above {bound}; raise that, or lower this"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::error::Error;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn builder() -> RedisBuilder {
        Cache::redis("redis://127.0.0.1")
    }

    #[test]
    fn defaults_are_the_pages() {
        let (_, config) = builder().check().expect("defaults make sense");
        let (lane, breaker) = (config.lane, config.breaker);
        assert_eq!(lane.retry.attempts, 3);
        assert_eq!((lane.retry.backoff.base, lane.retry.backoff.cap), (ms(100), secs(60)));
        assert_eq!(lane.health_check_interval, secs(30));
        assert_eq!(lane.reconnect, Backoff { base: ms(500), cap: secs(60), jitter: Jitter::Full });
        assert_eq!(breaker, BreakerConfig::default());
        assert_eq!((breaker.failure_threshold, breaker.open_for), (5, secs(60)));
        assert_eq!((breaker.failure_rate_percent, breaker.slow_call_after), (None, None));
    }

    #[test]
    fn defaults_follow_what_they_depend_on() {
        let check = |builder: RedisBuilder| builder.check().expect("it makes sense").1;
        let config = check(builder().retry_backoff_max(secs(5)));
        assert_eq!((config.lane.retry.backoff.cap, config.lane.reconnect.cap), (secs(5), secs(5)));
        let config = check(builder().reconnect_backoff_max(secs(5)).retry_backoff_max(secs(9)));
        assert_eq!((config.lane.retry.backoff.cap, config.lane.reconnect.cap), (secs(9), secs(5)));
        let config = check(builder().breaker_timeout(secs(1_200)).operation_timeout(secs(60)));
        assert_eq!(config.breaker.open_for_cap, secs(1_200));
        assert_eq!(config.breaker.half_open_timeout, secs(120));
        let config = check(builder().breaker_timeout_max(secs(90)).breaker_half_open_timeout(secs(7)));
        assert_eq!((config.breaker.open_for_cap, config.breaker.half_open_timeout), (secs(90), secs(7)));
        let config = check(builder().breaker_failure_rate(40).breaker_slow_calls(ms(250), 70));
        let breaker = config.breaker;
        assert_eq!((breaker.failure_rate_percent, breaker.slow_call_rate_percent), (Some(40), 70));
        assert_eq!(
            (breaker.slow_call_after, breaker.minimum_calls, breaker.window),
            (Some(ms(250)), 100, secs(30))
        );
        let config = check(builder().breaker_window(secs(9)).breaker_minimum_calls(7).retry_budget(3));
        assert_eq!((config.breaker.window, config.breaker.minimum_calls), (secs(9), 7));
        assert_eq!(config.lane.retry.budget.max_tokens, 3);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let cases = [
            (builder().retry_attempts(0), "retry_attempts: is 0; it must be at least 1"),
            (builder().retry_budget(2), "retry_budget: is 2; it must be at least 3"),
            (builder().retry_budget(u32::MAX), "retry_budget: is 4294967295; it must be at most 4294967"),
            (
                builder().retry_backoff_base(secs(61)),
                "retry_backoff_base: is above retry_backoff_max; raise that, or lower this",
            ),
            (
                builder().retry_backoff_base(ms(0)).retry_backoff_max(ms(0)),
                "retry_backoff_max: is zero; it must be at least 1ms",
            ),
            (
                builder().reconnect_backoff_base(ms(0)),
                "reconnect_backoff_base: is zero; it must be at least 1ms",
            ),
            (
                builder().reconnect_backoff_max(ms(499)),
                "reconnect_backoff_base: is above reconnect_backoff_max; raise that, or lower this",
            ),
            (builder().breaker_threshold(0), "breaker_threshold: is 0; it must be at least 1"),
            (builder().breaker_failure_rate(0), "breaker_failure_rate: is 0; it must be at least 1"),
            (builder().breaker_failure_rate(101), "breaker_failure_rate: is 101; it must be at most 100"),
            (builder().breaker_slow_calls(ms(9), 0), "breaker_slow_calls: is 0; it must be at least 1"),
            (builder().breaker_slow_calls(ms(9), 101), "breaker_slow_calls: is 101; it must be at most 100"),
            (builder().breaker_slow_calls(ms(0), 50), "breaker_slow_calls: is zero; it must be at least 1ms"),
            (
                builder().breaker_slow_calls(secs(6), 50),
                "breaker_slow_calls: is above operation_timeout; raise that, or lower this",
            ),
            (builder().breaker_window(ms(9)), "breaker_window: is 9ms; it must be at least 10ms"),
            (builder().breaker_minimum_calls(0), "breaker_minimum_calls: is 0; it must be at least 1"),
            (builder().breaker_timeout(ms(0)), "breaker_timeout: is zero; it must be at least 1ms"),
            (
                builder().breaker_timeout_max(secs(59)),
                "breaker_timeout: is above breaker_timeout_max; raise that, or lower this",
            ),
            (builder().breaker_jitter(101), "breaker_jitter: is 101; it must be at most 100"),
            (
                builder().breaker_half_open_permits(0),
                "breaker_half_open_permits: is 0; it must be at least 1",
            ),
            (
                builder().breaker_half_open_permits(33),
                "breaker_half_open_permits: is 33; it must be at most 32",
            ),
            (
                builder().breaker_half_open_timeout(secs(4)),
                "breaker_half_open_timeout: is below operation_timeout, so that slow operations would be taken for \
                 lost; raise it",
            ),
        ];
        for (builder, expected) in cases {
            match builder.check() {
                Err(Error::Config(error)) => assert_eq!(error.to_string(), expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    /// Whatever validates, no delay between dials is longer than its cap, and none can make a busy loop.
    #[test]
    fn no_schedule_that_validates_is_a_busy_loop() {
        let times = [ms(0), ms(1), ms(500), secs(60), Duration::MAX];
        for (base, max, retry_max) in
            times.into_iter().flat_map(|a| times.into_iter().flat_map(move |b| times.map(|c| (a, b, c))))
        {
            let builder = builder()
                .retry_backoff_base(ms(0))
                .retry_backoff_max(retry_max)
                .reconnect_backoff_base(base)
                .reconnect_backoff_max(max);
            let Ok((_, config)) = builder.check() else { continue };
            let Backoff { base, cap, jitter } = config.lane.reconnect;
            assert!(ms(1) <= base && base <= cap && cap <= max && jitter == Jitter::Full);
        }
    }
}
