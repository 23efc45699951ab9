//! Deliberate mistakes, each of which a rule must catch: who guards the guards.
//!
//! Most are made around the engine, in the simulator. Those of the engine itself are there in a build with
//! `--cfg larder_canary` only.

use std::time::Duration;

#[cfg(larder_canary)]
use larder_engine::Mistake;
use larder_engine::machine::{EngineConfig, Reconcile};

use crate::rule::Rule;

macro_rules! canaries {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $rule:ident;)*) => {
        /// A mistake that can be switched on for a run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Canary {
            $($(#[$doc])* $variant,)*
            /// The engine makes it.
            #[cfg(larder_canary)]
            Engine(Mistake),
        }

        impl Canary {
            /// Those around the engine.
            pub const AROUND: &[Self] = &[$(Self::$variant,)*];

            /// Its name, and the rule that must catch it.
            #[must_use]
            pub const fn entry(self) -> (&'static str, Rule) {
                match self {
                    $(Self::$variant => ($name, Rule::$rule),)*
                    #[cfg(larder_canary)]
                    Self::Engine(mistake) => (mistake.name(), rule_of(mistake)),
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
    /// What a reset has lost comes over the next connection.
    LateReplies = "late-replies", P4;
    /// A value comes with another key's name.
    WrongKey = "wrong-key", P2;
    /// The engine is told of a reply to HELLO that nobody sent.
    HelloMadeUp = "hello-made-up", P5;
    /// The breaker has two places more.
    MorePlaces = "more-places", B2;
    /// The breaker has one place only.
    OnePlace = "one-place", B7;
    /// The breaker is open for a tenth of the time.
    ShortOpen = "short-open", B3;
    /// The engine's stall timeout is ten times as long.
    PatientLink = "patient-link", C4;
    /// The engine's bounds are four times as wide.
    WideBounds = "wide-bounds", C7;
    /// The engine's bounds are a quarter as wide.
    NarrowBounds = "narrow-bounds", C8;
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
    /// The server says that it has ended the connection before, and has not.
    DeafKill = "deaf-kill", F7;
    /// The journal overwrites whatever Redis holds.
    Overwrites = "overwrites", F8;
    /// The engine is not told how long values live.
    TtlUntold = "ttl-untold", S2;
}

/// The rule that must catch a mistake of the engine.
#[cfg(larder_canary)]
const fn rule_of(mistake: Mistake) -> Rule {
    match mistake {
        Mistake::AnyAttempt | Mistake::KeptInFlight => Rule::P1,
        Mistake::EagerWriter => Rule::P5,
        Mistake::NoFence => Rule::F7,
        Mistake::BytesStay | Mistake::RoomGivenTwice => Rule::C7,
        Mistake::PassedOver => Rule::C8,
        Mistake::EndlessWait | Mistake::TickLate => Rule::O2,
        Mistake::PlaceKept => Rule::B7,
        Mistake::OpenForEver => Rule::O4,
        Mistake::FenceUnread | Mistake::DeleteOfNothing => Rule::F1,
        Mistake::CopyOfLost => Rule::F2,
        Mistake::JournalBypassed | Mistake::NewerDropped | Mistake::LossIsSuccess => Rule::F3,
        Mistake::NoStaleness => Rule::F4,
        Mistake::ForeignOverwritten => Rule::F8,
        Mistake::TtlForgotten => Rule::S2,
    }
}

impl Canary {
    /// All of them: the engine's own too, where it was built with them.
    pub fn all() -> impl Iterator<Item = Self> {
        let all = Self::AROUND.iter().copied();
        #[cfg(larder_canary)]
        let all = all.chain(Mistake::ALL.iter().map(|&mistake| Self::Engine(mistake)));
        all
    }

    /// Has the engines that this thread runs make the chosen mistake, if it is one of theirs, and no other.
    pub(crate) fn choose(chosen: Option<Self>) {
        #[cfg(larder_canary)]
        larder_engine::make(match chosen {
            Some(Self::Engine(mistake)) => Some(mistake),
            _ => None,
        });
        let _ = chosen;
    }

    /// Sets the engine up otherwise than the oracle believes.
    pub(crate) fn misconfigure(self, config: &mut EngineConfig) {
        match self {
            Self::MoreAttempts => config.lane.retry.attempts += 2,
            Self::MorePlaces => config.breaker.half_open_permits += 2,
            Self::OnePlace => config.breaker.half_open_permits = 1,
            Self::ShortOpen => config.breaker.open_for /= 10,
            Self::PatientLink => config.lane.stall_timeout *= 10,
            Self::WideBounds => {
                config.lane.max_in_flight *= 4;
                config.lane.max_in_flight_bytes *= 4;
            }
            Self::NarrowBounds => {
                config.lane.max_in_flight = (config.lane.max_in_flight / 4).max(1);
                config.lane.max_in_flight_bytes = (config.lane.max_in_flight_bytes / 4).max(128);
            }
            Self::Overwrites => {
                config.tier.iter_mut().for_each(|tier| tier.reconcile = Reconcile::Overwrite);
            }
            Self::NoTier => config.tier = None,
            Self::OldCopies => {
                config.tier.iter_mut().for_each(|tier| tier.max_staleness = Duration::from_secs(100_000));
            }
            _ => {}
        }
    }
}
