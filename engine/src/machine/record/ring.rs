//! The latest steps of a machine, and its state before them.
//!
//! ```text
//!   half full, and at rest: the state is written down, and what was before the other half is let go of
//!
//!   ┌───────┬─────────────────────────┐ ┌───────┬─────────────────┬─ ─ ─ ─ ─┐
//!   │ state │ steps …                 │ │ state │ steps …         │         │
//!   └───────┴─────────────────────────┘ └───────┴─────────────────┴─ ─ ─ ─ ─┘
//!    half before                         half of now
//! ```

use alloc::vec::Vec;
use core::fmt;

pub(super) struct Ring {
    /// Of steps, or twice the larger state where that is more. The states come on top.
    max_bytes: usize,
    before: Half,
    now: Half,
    left_out: u64,
}

/// Steps from a known state on.
#[derive(Clone, Default)]
pub(super) struct Half {
    /// `None` where it was not known yet.
    pub(super) state: Option<Vec<u8>>,
    pub(super) steps: Vec<u8>,
    pub(super) count: u64,
}

impl Ring {
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, before: Half::new(None), now: Half::new(None), left_out: 0 }
    }

    /// Adds a step that `write` appends.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.now.state.is_none() {
            self.left_out += 1;
            return;
        }
        write(&mut self.now.steps);
        self.now.count += 1;
        let max_bytes = self.max_bytes.max(2 * self.before.state_len().max(self.now.state_len()));
        if self.before.steps.len() + self.now.steps.len() > max_bytes {
            self.left_out += core::mem::take(&mut self.before).count;
        }
        // The machine has not come to rest in time. From here on nothing can be told until it does.
        if self.now.steps.len() > max_bytes {
            self.left_out += core::mem::take(&mut self.now).count;
        }
    }

    /// Whether it is time to write down the machine's state, when that is at rest. Steps of fewer bytes than the latest are not
    /// worth another.
    pub(super) fn is_due(&self) -> bool {
        self.now.state.is_none() || self.now.steps.len() >= self.now.state_len().max(self.max_bytes / 2)
    }

    /// Goes on from here.
    pub(super) fn turn(&mut self, state: Vec<u8>) {
        let before = core::mem::replace(&mut self.now, Half::new(Some(state)));
        self.left_out += core::mem::replace(&mut self.before, before).count;
    }

    /// All steps that there are, as one half, and how many there have been before them.
    pub(super) fn whole(&self) -> (Half, u64) {
        let mut whole = if self.before.state.is_some() { self.before.clone() } else { Half::default() };
        if whole.state.is_none() {
            whole.state.clone_from(&self.now.state);
        }
        whole.steps.extend_from_slice(&self.now.steps);
        whole.count += self.now.count;
        (whole, self.left_out)
    }
}

/// What there is, not what is in it.
impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_bytes, before, now, left_out } = self;
        let count = before.count + now.count;
        f.debug_struct("Ring")
            .field("count", &count)
            .field("left_out", left_out)
            .field("max_bytes", max_bytes)
            .finish_non_exhaustive()
    }
}

impl Half {
    const fn new(state: Option<Vec<u8>>) -> Self {
        Self { state, steps: Vec::new(), count: 0 }
    }

    fn state_len(&self) -> usize {
        self.state.as_ref().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    proptest! {
        /// Steps are their numbers, and a state is the number of the next step.
        #[test]
        fn what_is_there_are_the_latest_steps_without_a_gap(
            max_bytes in 0_usize..200,
            steps in prop::collection::vec((1_usize..30, any::<bool>(), 1_usize..100), 0..200),
        ) {
            let mut ring = Ring::new(max_bytes);
            ring.turn(vec![0]);
            let (mut always_at_rest, mut longest) = (true, 1);
            for (number, (len, at_rest, state_len)) in steps.into_iter().enumerate() {
                ring.push(|out| out.extend(vec![number as u8; len]));
                if ring.is_due() && at_rest {
                    ring.turn(vec![number as u8 + 1; state_len]);
                    longest = longest.max(state_len);
                }
                always_at_rest &= at_rest || !ring.is_due();
                let (whole, left_out) = ring.whole();
                prop_assert_eq!(whole.count + left_out, number as u64 + 1);
                prop_assert!(whole.steps.len() <= max_bytes.max(2 * longest));
                let mut numbers = whole.steps.clone();
                numbers.dedup();
                let latest: Vec<u8> = (left_out as u8..number as u8 + 1).collect();
                prop_assert_eq!(numbers, latest);
                if let Some(state) = whole.state {
                    prop_assert!(state.iter().all(|number| u64::from(*number) == left_out));
                } else {
                    prop_assert!(!always_at_rest && whole.count == 0);
                }
            }
        }

        #[test]
        fn half_of_it_is_always_there(max_bytes in 100_usize..300, count in 0_usize..500) {
            let mut ring = Ring::new(max_bytes);
            ring.turn(Vec::new());
            for _ in 0..count {
                ring.push(|out| out.extend([0; 5]));
                if ring.is_due() {
                    ring.turn(Vec::new());
                }
            }
            let (whole, _) = ring.whole();
            prop_assert!(whole.steps.len() + 5 >= (count * 5).min(max_bytes / 2), "{}", whole.steps.len());
        }
    }
}
