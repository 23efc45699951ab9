//! What each fuzz target does with its bytes: a plain function that panics when a promise is broken.
//!
//! `fuzz/` gives them to libFuzzer; `tests/corpus.rs` here replays the checked-in corpora on every run of the tests.

mod lane;
mod resp;
mod store;
mod url;

pub use lane::{handshake, link};
pub use resp::{command_encode, resp_differential, resp_round_trip, resp_scan, resp_split};
pub use store::store_ops;
pub use url::url;

/// A target: its name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target there is.
pub const TARGETS: [Target; 9] = [
    ("command_encode", command_encode),
    ("handshake", handshake),
    ("link", link),
    ("resp_differential", resp_differential),
    ("resp_round_trip", resp_round_trip),
    ("resp_scan", resp_scan),
    ("resp_split", resp_split),
    ("store_ops", store_ops),
    ("url", url),
];

/// Takes choices off the front of the input; when that is used up, everything is 0, the boring choice.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes as the next one says.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}
