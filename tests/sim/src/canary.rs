//! Deliberate mistakes around the engine, each of which a rule must catch: who guards the guards.

use std::time::Duration;

use larder_engine::machine::EngineConfig;

use crate::rule::Rule;

macro_rules! canaries {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $rule:ident;)*) => {
        /// A mistake that can be switched on for a run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Canary {
            $($(#[$doc])* $variant,)*
        }

        impl Canary {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name, and the rule that must catch it.
            #[must_use]
            pub const fn entry(self) -> (&'static str, Rule) {
                match self {
                    $(Self::$variant => ($name, Rule::$rule),)*
                }
            }
        }
    };
}

canaries! {
    /// A caller is told its answer twice.
    ToldTwice = "told-twice", O1;
    /// A caller is never told.
    NeverTold = "never-told", O2;
    /// No timer ever fires.
    NoTimers = "no-timers", O2;
    /// The engine is given a longer grace than the callers believe.
    LongGrace = "long-grace", O3;
    /// A second dial is never answered.
    NoRedial = "no-redial", O4;
    /// The engine makes two attempts more than were configured.
    MoreAttempts = "more-attempts", O5;
    /// Two replies that come together change places.
    RepliesSwapped = "replies-swapped", P1;
    /// A value comes with another key's name.
    WrongKey = "wrong-key", P2;
    /// The engine is told of a reply to HELLO that nobody sent.
    HelloMadeUp = "hello-made-up", P5;
    /// The breaker has two places more.
    MorePlaces = "more-places", B2;
    /// The breaker is open for a tenth of the time.
    ShortOpen = "short-open", B3;
    /// The engine's stall timeout is ten times as long.
    PatientLink = "patient-link", C4;
    /// The engine's bounds are four times as wide.
    WideBounds = "wide-bounds", C7;
    /// The engine's seed comes from outside.
    ForeignSeed = "foreign-seed", D1;
    /// The driver always has something to do.
    Busy = "busy", D4;
    /// The engine's timer is always due now.
    TimerIsAlwaysNow = "timer-is-always-now", T1;
    /// There is no fallback tier.
    NoTier = "no-tier", A1;
    /// An operation is counted that nobody made.
    OneMore = "one-more", M1;
    /// The fallback tier answers with the first value that it ever had for a key.
    FirstValue = "first-value", F1;
    /// A copy is kept although a write was given up that may take place.
    GivenUp = "given-up", F2;
    /// The fallback tier forgets what it accepted.
    Forgetful = "forgetful", F3;
    /// Copies are kept a hundred times as long.
    OldCopies = "old-copies", F4;
    /// A clear clears all namespaces.
    ClearsAll = "clears-all", F5;
    /// A clear clears a namespace that nobody uses.
    ClearsNothing = "clears-nothing", F6;
}

impl Canary {
    /// Sets the engine up otherwise than the oracle believes.
    pub(crate) fn misconfigure(self, config: &mut EngineConfig) {
        match self {
            Self::MoreAttempts => config.lane.retry.attempts += 2,
            Self::MorePlaces => config.breaker.half_open_permits += 2,
            Self::ShortOpen => config.breaker.open_for /= 10,
            Self::PatientLink => config.lane.stall_timeout *= 10,
            Self::WideBounds => {
                config.lane.max_in_flight *= 4;
                config.lane.max_in_flight_bytes *= 4;
            }
            Self::NoTier => config.tier = None,
            Self::OldCopies => {
                config.tier.iter_mut().for_each(|tier| tier.max_staleness = Duration::from_secs(100_000));
            }
            _ => {}
        }
    }
}
