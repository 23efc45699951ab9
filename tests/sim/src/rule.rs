//! The invariants, by their ids.

use std::fmt;

macro_rules! rules {
    ($($id:ident, $byzantine:literal, $text:literal;)*) => {
        /// An invariant.
        #[allow(missing_docs, reason = "each says what it is by `text`")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $($id,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$id,)*];

            /// What must hold.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$id => $text,)*
                }
            }

            /// Whether it holds even where the server answers anything to anything.
            #[must_use]
            pub const fn holds_against_liars(self) -> bool {
                match self {
                    $(Self::$id => $byzantine,)*
                }
            }
        }
    };
}

rules! {
    O1, true, "an operation completes once, or is cancelled";
    O2, true, "a caller is woken by its deadline";
    O3, true, "after a close all ends by the grace, and nothing is written any more";
    O4, true, "after the last fault all ends, every connection serves, the breaker closes, and Redis answers";
    O5, false, "a SET is sent at most as often as there are attempts";
    P1, false, "an answer of Redis is one that Redis gave to this command, while it was under way";
    P2, false, "a value was set, and for this key";
    P4, false, "and it has come over the connection of that command, while that was the lane's";
    P5, false, "nothing but the handshake is sent before the reply to HELLO, and nothing but commands ever";
    B2, true, "no more operations are out in a trial of the breaker than it has places";
    B3, true, "while the breaker is open nobody waits, and it stays open as long as configured";
    B7, true, "a trial with a place left lets an operation in";
    C4, true, "a connection that owes answers and is silent for the stall timeout is closed";
    C7, true, "operations and bytes in flight are bounded";
    C8, true, "nobody waits for his turn while there is room";
    D1, true, "the same choices give the same outputs";
    D4, true, "the work of one instant ends";
    T1, true, "a timer that was handled lies in the future";
    A1, false, "with a fallback tier no outage reaches a caller, but that the tier is full";
    M1, false, "the counters say what the callers saw";
    F1, false, "no read is answered with a value that was overwritten before it began";
    F2, false, "nor with a copy from before a write that was given up and took place";
    F3, false, "a write that the fallback tier accepted is answered until Redis has it";
    F4, false, "no copy is served that is older than the configuration allows";
    F5, false, "a clear removes keys of its namespace only";
    F6, false, "what a clear has removed, or promised to, is not read any more";
    F7, false, "nor with a value of this process whose SET had ended before it was overwritten, whenever that was executed";
    F8, false, "a replay leaves alone what others wrote and this process has not read";
    S2, false, "a value of this process is not served from memory after its time to live";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When and how.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.rule, self.rule.text(), self.detail)
    }
}
