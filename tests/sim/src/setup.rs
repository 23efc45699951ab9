//! What a run is set up with: sizes, timeouts, bounds, and how often which fault strikes.

use std::ops::Range;
use std::time::Duration;

use larder_engine::Instant;
use larder_engine::config::{Credentials, Secret};
use larder_engine::machine::{EngineConfig, TierConfig};

use crate::choices::Choices;
use crate::server::{PASSWORD, ServerConfig};

macro_rules! setup {
    ($($(#[$doc:meta])* $name:ident = $boring:literal or $others:expr;)*) => {
        #[allow(missing_docs, reason = "most say by their name which field of the engine's configuration they are")]
        /// Everything about a run that does not change while it runs. The default is the boring run.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Setup {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Default for Setup {
            fn default() -> Self {
                Self { $($name: $boring,)* }
            }
        }

        impl Setup {
            /// Each setting on its own, so that most runs lack most faults and are free to do more of the others
            /// (Groce et al., *Swarm Testing*, 2012).
            pub(crate) fn draw(choices: &mut Choices) -> Self {
                Self { $($name: ($others).draw(choices, $boring),)* }
            }

            /// Changes the setting of this name; `false` where there is none.
            pub(crate) fn set(&mut self, name: &str, value: u32) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }

            /// The settings that are not the boring ones.
            pub(crate) fn unusual(&self) -> impl Iterator<Item = (&'static str, u32)> {
                [$((stringify!($name), self.$name, $boring),)*]
                    .into_iter()
                    .filter(|(_, value, boring)| value != boring)
                    .map(|(name, value, _)| (name, value))
            }
        }
    };
}

/// What a setting may be besides boring.
trait Others {
    fn draw(self, choices: &mut Choices, boring: u32) -> u32;
}

impl<const N: usize> Others for [u32; N] {
    fn draw(self, choices: &mut Choices, boring: u32) -> u32 {
        match choices.below(N as u32 + 1) {
            0 => boring,
            other => self[other as usize - 1],
        }
    }
}

impl Others for Range<u32> {
    fn draw(self, choices: &mut Choices, boring: u32) -> u32 {
        match choices.below(self.end - self.start + 1) {
            0 => boring,
            other => self.start + other - 1,
        }
    }
}

setup! {
    /// Which pieces, slow commands, late callers and jitter there are, of those that the other settings allow; 0 is
    /// none.
    noise = 0 or 1..1 << 16;
    /// Processes that share the server.
    processes = 1 or [1, 2, 3];
    /// Connections of each.
    lanes = 1 or [1, 2, 3];
    /// Keys that are used; even ones are in namespace `a`, odd ones in `b`.
    keys = 2 or [1, 3, 8];
    /// Of a thousand events, behind how many another one follows.
    more = 980 or [900, 990, 995];
    /// The longest pause between two events, in milliseconds.
    pause = 10 or [1, 100, 2000];

    /// The deadline of an operation, in milliseconds, as all that follow.
    operation_timeout = 5000 or [1000, 300, 40];
    stall_timeout = 2000 or [300, 60];
    connect_timeout = 5000 or [500, 60];
    health_check_interval = 30_000 or [1000, 200];
    reconnect_base = 500 or [50, 2];
    reconnect_cap = 5000 or [500, 20];
    attempts = 3 or [1, 2, 6];
    retry_base = 100 or [10, 1];
    failure_threshold = 5 or [1, 2];
    open_for = 5000 or [1000, 200];
    open_for_cap = 20_000 or [2000];
    /// Shares of the breaker's window in percent; 0 is none. Slow is what takes so many milliseconds, 0 is nothing.
    failure_rate = 0 or [0, 0, 20, 70];
    slow_call_after = 0 or [0, 0, 50, 500];
    slow_call_rate = 50 or [10, 100];
    minimum_calls = 100 or [1, 10];
    window = 30_000 or [300, 3000];
    half_open_permits = 3 or [1, 8];
    half_open_timeout = 10_000 or [2000, 300];
    max_in_flight = 65_536 or [1, 3, 16];
    max_in_flight_bytes = 1_000_000 or [200, 1000];
    max_waiting = 1000 or [0, 2];
    /// Whether there is a fallback tier, and its bounds.
    tier = 1 or [1, 1, 0];
    max_entries = 10_000 or [1, 3];
    max_journal_entries = 10_000 or [0, 2];
    max_staleness = 300_000 or [3000, 300];
    mirror_refresh = 1000 or [0, 100];

    /// How late timers fire and, at most, how late a woken caller comes back, in milliseconds.
    timer_lateness = 0 or [0, 3, 30];
    caller_lateness = 0 or [0, 5, 200];
    /// Of a thousand wake-ups, how many find a caller that is late.
    late_callers = 0 or [0, 100, 500];
    /// Of a thousand instants, how many find a caller back that nobody has woken.
    spurious = 0 or [0, 0, 100];
    /// Of a thousand rounds at an instant, how many begin with somebody else.
    shuffles = 0 or [0, 300];
    /// Of a thousand times that an engine is told the time, how many are wrong, and how far back at most.
    wrong_clocks = 0 or [0, 0, 100];
    clock_back = 5 or [1, 5000];
    /// The latency of each direction, in microseconds.
    latency = 100 or [1, 1000, 5000];
    /// Of a thousand reads and writes of a socket, how many move only a piece.
    pieces = 0 or [0, 100, 900];

    password = 0 or [0, 1];
    /// The server knows no HELLO.
    old_server = 0 or [0, 0, 1];
    scan_page = 10 or [1, 2];
    /// Of a thousand commands, how many are slow, and how slow at most.
    slow = 0 or [0, 0, 20, 200];
    slow_for = 100 or [10, 1000];
    pushes = 0 or [0, 50];

    /// How often which call is made, relative to each other.
    gets = 50 or [20, 100];
    sets = 30 or [10, 60];
    deletes = 10 or [0, 30];
    exists = 5 or [0];
    clears = 1 or [0, 5];
    cancels = 0 or [0, 5, 30];

    /// How often which fault strikes, relative to the calls.
    fins = 0 or [0, 0, 2, 8];
    resets = 0 or [0, 0, 2, 8];
    cuts = 0 or [0, 0, 2, 8];
    holds = 0 or [0, 0, 2, 8];
    darks = 0 or [0, 0, 2, 8];
    freezes = 0 or [0, 0, 2, 8];
    downs = 0 or [0, 0, 2, 8];
    wipes = 0 or [0, 0, 0, 2];
    swallows = 0 or [0, 0, 2, 8];
    refusals = 0 or [0, 0, 2, 8];
    failovers = 0 or [0, 0, 2, 8];
    mangles = 0 or [0, 0, 0, 0, 0, 4];
    /// The longest fault, in milliseconds.
    fault = 500 or [50, 5000, 30_000];
}

pub(crate) fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

impl Setup {
    /// What the sockets, the server and the callers choose from at an instant. Of its own for each, so that taking
    /// something out of a run does not change what happens at other times.
    pub(crate) fn noise_at(&self, now: Instant) -> Choices {
        if self.noise == 0 {
            return Choices::boring();
        }
        Choices::seed((u64::from(self.noise) << 32) ^ now.as_nanos().rotate_left(17))
    }

    /// Whether the server may answer anything at all to anything.
    pub(crate) const fn is_byzantine(&self) -> bool {
        self.mangles > 0
    }

    /// Whether there is room for a few entries only in the journal, if for any.
    pub(crate) const fn is_tier_small(&self) -> bool {
        self.max_journal_entries < 10
    }

    /// How far back the time may be that an engine was told.
    pub(crate) fn clock_error(&self) -> Duration {
        millis(if self.wrong_clocks > 0 { self.clock_back } else { 0 })
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency.into())
    }

    pub(crate) fn engine(&self) -> EngineConfig {
        let mut config = EngineConfig::default();
        config.lanes = self.lanes as usize;
        config.operation_timeout = millis(self.operation_timeout);
        config.lane.stall_timeout = millis(self.stall_timeout);
        config.lane.connect_timeout = millis(self.connect_timeout);
        config.lane.health_check_interval = millis(self.health_check_interval);
        config.lane.reconnect.base = millis(self.reconnect_base);
        config.lane.reconnect.cap = millis(self.reconnect_cap);
        config.lane.retry.attempts = self.attempts;
        config.lane.retry.backoff.base = millis(self.retry_base);
        config.lane.max_in_flight = self.max_in_flight as usize;
        config.lane.max_in_flight_bytes = self.max_in_flight_bytes as usize;
        config.lane.max_waiting = self.max_waiting as usize;
        if self.password > 0 {
            let password = Secret::from(PASSWORD);
            config.lane.handshake.credentials = Some(Credentials { username: None, password });
        }
        config.breaker.failure_threshold = self.failure_threshold;
        config.breaker.open_for = millis(self.open_for);
        config.breaker.open_for_cap = millis(self.open_for_cap);
        config.breaker.failure_rate_percent = (self.failure_rate > 0).then_some(self.failure_rate);
        config.breaker.slow_call_after = (self.slow_call_after > 0).then(|| millis(self.slow_call_after));
        config.breaker.slow_call_rate_percent = self.slow_call_rate;
        config.breaker.minimum_calls = self.minimum_calls;
        config.breaker.window = millis(self.window);
        config.breaker.half_open_permits = self.half_open_permits;
        config.breaker.half_open_timeout = millis(self.half_open_timeout);
        config.tier = (self.tier > 0).then(|| {
            let mut tier = TierConfig::default();
            tier.max_entries = self.max_entries as usize;
            tier.max_journal_entries = self.max_journal_entries as usize;
            tier.max_staleness = millis(self.max_staleness);
            tier.mirror_refresh = millis(self.mirror_refresh);
            tier
        });
        config
    }

    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig {
            password: self.password > 0,
            old: self.old_server > 0,
            deaf: false,
            scan_page: self.scan_page as usize,
            slow: self.slow,
            slow_for: millis(self.slow_for),
            pushes: self.pushes,
            latency: self.latency(),
        }
    }

    /// How long after the last fault every connection that is dead has been found out, and has left the breaker's
    /// window: before, a success may be what makes its shares count, and opens it.
    pub(crate) fn notices(&self) -> Duration {
        let busy = millis(self.slow_for);
        let is_windowed = self.failure_rate + self.slow_call_after > 0;
        let window = millis(if is_windowed { self.window } else { 0 });
        // A connection can die while it is made, too.
        let dies = millis(self.connect_timeout)
            + millis(self.health_check_interval)
            + 2 * millis(self.stall_timeout);
        window + busy + dies + self.slack()
    }

    /// How long after that everything is well again, whatever state the faults have left.
    pub(crate) fn recovery(&self) -> Duration {
        let redials = 2 * (millis(self.reconnect_cap) + millis(self.connect_timeout));
        let opens = millis(self.open_for.max(self.open_for_cap)) * 115 / 100;
        let closes = 2 * millis(self.half_open_timeout);
        // The longest wait between two replays, and a failure on the way.
        let replays = 2 * (Duration::from_secs(10) + millis(self.operation_timeout));
        redials + opens + closes + replays + millis(self.operation_timeout) + self.slack()
    }

    fn slack(&self) -> Duration {
        10 * (millis(self.timer_lateness + self.caller_lateness) + 2 * self.latency())
    }
}
