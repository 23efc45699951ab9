//! What a breaker is made of, for recordings.

use core::time::Duration;

use super::window::Window;
use super::{Breaker, BreakerConfig, Phase};
use crate::archive::Archive;
use crate::time::Instant;

impl Breaker {
    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { config, rng, phase, window, generation, reopened, trips } = self;
        config.archive(archive);
        archive.random(rng);
        phase.archive(archive);
        archive.option(window, || Window::new(Duration::MAX), Window::archive);
        archive.value(&mut generation.0);
        archive.value(reopened);
        archive.value(trips);
    }
}

impl BreakerConfig {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self {
            failure_threshold,
            failure_rate_percent,
            slow_call_after,
            slow_call_rate_percent,
            minimum_calls,
            window,
            open_for,
            open_for_cap,
            jitter_percent,
            half_open_permits,
            half_open_timeout,
        } = self;
        archive.value(failure_rate_percent);
        archive.value(slow_call_after);
        archive.values([
            failure_threshold,
            slow_call_rate_percent,
            minimum_calls,
            jitter_percent,
            half_open_permits,
        ]);
        archive.values([window, open_for, open_for_cap, half_open_timeout]);
    }
}

impl Phase {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let to = |phase: &Self| match *phase {
            Self::Closed { failures } => (0_u8, 0, failures, 0, 0),
            Self::Open { until } => (1, until.as_nanos(), 0, 0, 0),
            Self::Probing { until, handed_out } => (2, until.as_nanos(), handed_out.into(), 0, 0),
            Self::Trial { until, out, succeeded, slow } => (3, until.as_nanos(), out, succeeded, slow),
        };
        archive.by(self, to, |(number, until, one, succeeded, slow)| {
            let until = Instant::from_nanos(until);
            Some(match number {
                0 => Self::Closed { failures: one },
                1 => Self::Open { until },
                2 => Self::Probing { until, handed_out: one > 0 },
                3 => Self::Trial { until, out: one, succeeded, slow },
                _ => return None,
            })
        });
    }
}
