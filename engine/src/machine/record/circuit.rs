//! The inputs of a breaker, as they are written down, and made again.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use super::redact::Digest;
use super::step::inputs;
use super::{Machine, PartRecording, Recorder, recording};
use crate::archive::Archive;
use crate::machine::Circuit;
use crate::machine::outcome::{Signal, SignalParts};
use crate::policy::BreakerConfig;
use crate::time::Instant;

impl Circuit {
    /// Like [`Circuit::new`], and writes down what it is told.
    #[must_use]
    pub fn recorded(config: BreakerConfig, seed: u64, recorder: Recorder) -> Self {
        Self::new(config, seed).recorded_by(recorder)
    }

    /// What was written down of late.
    #[must_use]
    pub fn recording(&self) -> Option<PartRecording> {
        recording(self.recorder.as_deref())
    }
}

inputs! {
    /// One call of a breaker that may change it. Times are nanoseconds.
    CircuitInput:
    0 Admit { now: u64 }
    1 Signal { now: u64, signal: SignalParts }
    2 TimedOut { now: u64 }
    3 Probe {}
    4 Recovered {}
    5 Trial {}
}

impl Machine for Circuit {
    type Input = CircuitInput;

    fn blank() -> Self {
        Self::new(BreakerConfig::default(), 0)
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        Self::archive(self, archive);
    }

    fn look(&self, digest: &mut Digest<'_>) {
        digest.number(self.view().to_bits().into());
        digest.number(self.trips());
        digest.number(self.poll_timeout().map_or(0, Instant::as_nanos));
    }

    fn feed(&mut self, input: &CircuitInput) -> Option<()> {
        let at = |nanos: &u64| Instant::from_nanos(*nanos);
        match input {
            CircuitInput::Admit { now } => drop(self.admit(at(now))),
            CircuitInput::Signal { now, signal } => self.handle_signal(at(now), Signal::from_parts(*signal)?),
            CircuitInput::TimedOut { now } => self.handle_timeout(at(now)),
            CircuitInput::Probe {} => drop(self.poll_probe()),
            CircuitInput::Recovered {} => _ = self.poll_recovered(),
            CircuitInput::Trial {} => _ = self.poll_trial(),
        }
        Some(())
    }

    fn recorder(&mut self) -> &mut Option<Box<Recorder>> {
        &mut self.recorder
    }
}

impl fmt::Display for CircuitInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |nanos: &u64| Duration::from_nanos(*nanos);
        let name = self.name();
        match self {
            Self::Signal { now, signal } => match Signal::from_parts(*signal) {
                Some(signal) => write!(f, "{:?} {signal:?}", at(now)),
                None => write!(f, "{:?} {name}", at(now)),
            },
            Self::Admit { now } | Self::TimedOut { now } => write!(f, "{:?} {name}", at(now)),
            Self::Probe {} | Self::Recovered {} | Self::Trial {} => f.write_str(name),
        }
    }
}
