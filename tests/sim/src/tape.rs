//! What a run put out: always as a hash, and as lines where somebody wants to read them.

use larder_engine::Instant;

/// Bytes of the wire that a line shows.
const SHOWN: usize = 100;

#[derive(Debug)]
pub(crate) struct Tape {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Tape {
    pub(crate) fn new(readable: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: readable.then(Vec::new) }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    /// Keeps lines from now on.
    pub(crate) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    pub(crate) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// Something that happened, for the reader only.
    pub(crate) fn line(&mut self, at: Instant, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at:?} {}", text()));
        }
    }

    /// Bytes that a lane wants to be written.
    pub(crate) fn bytes(&mut self, at: Instant, (process, lane): (usize, usize), bytes: &[u8]) {
        self.number(at.as_nanos());
        self.number((process * 256 + lane) as u64);
        bytes.iter().for_each(|&byte| self.mix(byte));
        self.line(at, || {
            let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
            format!("process {process} lane {lane}: writes {} bytes: {shown}", bytes.len())
        });
    }

    pub(crate) fn number(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.mix(byte));
    }

    /// FNV-1a.
    fn mix(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
