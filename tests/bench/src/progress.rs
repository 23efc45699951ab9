//! Tells a person who waits how far it is.

use std::io::{IsTerminal, Write, stderr};

/// One line on stderr that says what is being measured; rewritten in place where that is a terminal.
pub(crate) struct Progress {
    done: usize,
    total: usize,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Self {
        Self { done: 0, total }
    }

    pub(crate) fn next(&mut self, scenario: &str, contender: &str) {
        self.done += 1;
        self.line(&format!("[{}/{}] {scenario}: {contender}", self.done, self.total));
    }

    pub(crate) fn clear(&self) {
        if stderr().is_terminal() {
            self.line("");
        }
    }

    /// Progress that cannot be shown is no reason to stop.
    fn line(&self, text: &str) {
        let mut stderr = stderr();
        let _ =
            if stderr.is_terminal() { write!(stderr, "\r\x1b[K{text}") } else { writeln!(stderr, "{text}") };
    }
}
