//! Deliberate mistakes in the engine, each of which the simulator must catch: who guards the guards.
//!
//! They are there in a build with `RUSTFLAGS="--cfg larder_canary"` only: all of them, and none is made before somebody
//! chooses one. In any other build [`mistake!`] is the word `false`, and nothing else of this is compiled.

/// Whether a mistake is made here.
#[cfg(not(larder_canary))]
macro_rules! mistake {
    ($name:ident) => {
        false
    };
}

#[cfg(larder_canary)]
macro_rules! mistake {
    ($name:ident) => {
        $crate::canary::is_made($crate::canary::Mistake::$name)
    };
}

#[cfg(larder_canary)]
pub(crate) use made::is_made;
#[cfg(larder_canary)]
pub use made::{Mistake, make};

#[cfg(larder_canary)]
mod made {
    use core::cell::Cell;

    std::thread_local! {
        static MADE: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Has the engines of this thread make a mistake from now on; `None` is none.
    pub fn make(mistake: Option<Mistake>) {
        MADE.set(mistake);
    }

    pub(crate) fn is_made(mistake: Mistake) -> bool {
        MADE.get() == Some(mistake)
    }

    macro_rules! mistakes {
        ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
            /// A mistake that can be chosen.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Mistake {
                $($(#[$doc])* $variant,)*
            }

            impl Mistake {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$variant,)*];

                /// What it is called.
                #[must_use]
                pub const fn name(self) -> &'static str {
                    match self {
                        $(Self::$variant => $name,)*
                    }
                }
            }
        };
    }

    mistakes! {
        /// A reply goes to whoever has the slot by now.
        AnyAttempt = "any-attempt";
        /// What is in flight stays so when the connection is lost.
        KeptInFlight = "kept-in-flight";
        /// Commands are written before the handshake is over.
        EagerWriter = "eager-writer";
        /// A connection that is lost is never ended at the server.
        NoFence = "no-fence";
        /// The bytes of what is answered stay in flight.
        BytesStay = "bytes-stay";
        /// Room that is kept for those who were called is given to others too.
        RoomGivenTwice = "room-given-twice";
        /// Who waits for his turn waits until nothing is in flight.
        PassedOver = "passed-over";
        /// Operations that wait for their turn have no deadline.
        EndlessWait = "endless-wait";
        /// Deadlines are a nanosecond late.
        TickLate = "tick-late";
        /// A cancelled operation keeps its place in a trial of the breaker.
        PlaceKept = "place-kept";
        /// The breaker, once open, opens again when its time is over.
        OpenForEver = "open-for-ever";
        /// A read that began before a write puts its copy over that of the write.
        FenceUnread = "fence-unread";
        /// Copies do not age.
        NoStaleness = "no-staleness";
        /// The copy stays although nobody knows what became of a write.
        CopyOfLost = "copy-of-lost";
        /// The fallback tier forgets the time to live of what it accepts.
        TtlForgotten = "ttl-forgotten";
        /// A delete of what is not known to be there is not journalled.
        DeleteOfNothing = "delete-of-nothing";
        /// A read of what is journalled asks Redis.
        JournalBypassed = "journal-bypassed";
        /// What was written while its entry was on its way is dropped with it.
        NewerDropped = "newer-dropped";
        /// A replay takes what it sent for done, although Redis has died again.
        LossIsSuccess = "loss-is-success";
        /// A replay overwrites what others have written.
        ForeignOverwritten = "foreign-overwritten";
    }
}
