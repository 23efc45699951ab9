//! Commands on one connection, in the order of their replies.
//!
//! ```text
//!            stage()          hand_over()           answered()
//!  command ----------> staged ------------> handed ------------> gone
//!                        |                    |
//!              withdraw()| never sent         | connection lost: `sent` tells
//!                        v                    v whether the last byte was written
//!                      gone                 gone
//! ```
//!
//! A command whose caller has left stays in the queue: its reply still comes, and must be given to nobody
//! (a *tombstone*). Only while it is staged can it still be taken back.
//!
//! Of a write whose reply never comes, the server may still execute the command: [`Pipeline::disconnected`] tells the
//! keys of those. They are kept in a queue of bytes beside that of the commands, so that they cost no allocation.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::archive::{Archive, Archived};
use crate::resp::{Command, Key};

/// The commands in flight on one connection; `T` says whose they are.
#[derive(Debug)]
pub(crate) struct Pipeline<T> {
    queue: VecDeque<Entry<T>>,
    /// How many at the back of `queue` are staged: encoded into `out` and not yet handed over.
    staged: usize,
    /// The keys of the writes in `queue`, one behind the other.
    keys: VecDeque<u8>,
    out: Vec<u8>,
    /// Bytes handed to the driver on this connection, and how many of them its socket has taken.
    handed: u64,
    written: u64,
    /// Bytes ever staged. Grows like `handed` but does not shrink by what is withdrawn, so that it can serve
    /// as a ticket: a command is staged as long as its ticket is above `handed_ticket`.
    ticket: u64,
    handed_ticket: u64,
    /// Bytes of `queue`, staged or handed, and not answered.
    bytes: usize,
    /// Staged commands that are wanted no more, and their bytes; both are still in `queue` and `out`.
    withdrawn: usize,
    withdrawn_bytes: usize,
}

#[derive(Debug)]
struct Entry<T> {
    owner: T,
    len: usize,
    /// Where the command ends in the stream of bytes handed over; set when it is handed over.
    end: u64,
    writes: bool,
    /// How many bytes of `keys` are its key; none where it names none.
    key: usize,
}

/// A command that ended with its connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Orphan<T> {
    pub(crate) owner: T,
    /// Whether the socket had taken the command's last byte. If not, the server cannot have executed it.
    pub(crate) sent: bool,
}

impl<T> Pipeline<T> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            staged: 0,
            keys: VecDeque::new(),
            out: Vec::new(),
            handed: 0,
            written: 0,
            ticket: 0,
            handed_ticket: 0,
            bytes: 0,
            withdrawn: 0,
            withdrawn_bytes: 0,
        }
    }

    /// Commands not yet answered, tombstones included, withdrawn ones not.
    pub(crate) fn len(&self) -> usize {
        self.queue.len().saturating_sub(self.withdrawn)
    }

    /// The bytes of those commands.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes.saturating_sub(self.withdrawn_bytes)
    }

    /// Whether nothing awaits a reply on this connection.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.len() == self.staged
    }

    pub(crate) const fn has_staged(&self) -> bool {
        self.staged > 0
    }

    pub(crate) fn staged_bytes(&self) -> usize {
        self.out.len()
    }

    /// Encodes a command behind the others. The ticket tells [`Pipeline::is_staged`] about it.
    pub(crate) fn stage(&mut self, command: &Command<'_>, owner: T) -> u64 {
        let before = self.out.len();
        command.encode(&mut self.out);
        let len = self.out.len() - before;
        let key = command.write_key().map_or(0, |key| put_key(&mut self.keys, key));
        self.queue.push_back(Entry { owner, len, end: 0, writes: command.is_write(), key });
        self.staged += 1;
        self.bytes += len;
        self.ticket += len as u64;
        self.ticket
    }

    pub(crate) const fn is_staged(&self, ticket: u64) -> bool {
        ticket > self.handed_ticket
    }

    /// Says that a staged command of `len` bytes is wanted no more: it is never handed over.
    pub(crate) const fn withdraw(&mut self, len: usize) {
        self.withdrawn += 1;
        self.withdrawn_bytes += len;
    }

    /// Lets go of withdrawn commands (`wanted` says no) where they take more room than the others that are staged: so
    /// each byte is moved no more than once for a byte withdrawn, and no more than twice the bound is ever held.
    pub(crate) fn tidy(&mut self, wanted: impl Fn(&T) -> bool) {
        if self.withdrawn_bytes > self.out.len() / 2 {
            self.leave_out_withdrawn(wanted);
        }
    }

    /// Moves the staged bytes to `out`, without those of withdrawn commands (`wanted` says no).
    pub(crate) fn hand_over(&mut self, out: &mut Vec<u8>, wanted: impl Fn(&T) -> bool) {
        if self.withdrawn > 0 {
            self.leave_out_withdrawn(wanted);
        }
        let first = self.queue.len() - self.staged;
        for entry in self.queue.range_mut(first..) {
            self.handed += entry.len as u64;
            entry.end = self.handed;
        }
        self.staged = 0;
        self.handed_ticket = self.ticket;
        if out.is_empty() {
            core::mem::swap(out, &mut self.out);
        } else {
            out.append(&mut self.out);
        }
    }

    fn leave_out_withdrawn(&mut self, wanted: impl Fn(&T) -> bool) {
        let (staged, mut keys) = self.split_off_staged();
        let bytes = core::mem::take(&mut self.out);
        let mut rest = bytes.as_slice();
        self.staged = 0;
        (self.withdrawn, self.withdrawn_bytes) = (0, 0);
        for entry in staged {
            let (command, behind) = rest.split_at(entry.len.min(rest.len()));
            rest = behind;
            let key = keys.drain(..entry.key);
            if wanted(&entry.owner) {
                self.out.extend_from_slice(command);
                self.keys.extend(key);
                self.queue.push_back(entry);
                self.staged += 1;
            } else {
                self.bytes -= entry.len;
            }
        }
    }

    /// The socket took `n` more bytes; the answer is whether some of them were of the oldest command.
    pub(crate) fn wrote(&mut self, n: usize) -> bool {
        let before = self.written;
        self.written = self.written.saturating_add(n as u64).min(self.handed);
        self.written > before && self.queue.front().is_some_and(|oldest| oldest.end > before)
    }

    /// The owner of the oldest command that was handed over.
    pub(crate) fn oldest(&self) -> Option<&T> {
        self.queue.front().filter(|_| !self.is_quiet()).map(|entry| &entry.owner)
    }

    /// The owner of the oldest command that was handed over, whose reply has come.
    pub(crate) fn answered(&mut self) -> Option<T> {
        if self.is_quiet() {
            return None;
        }
        let entry = self.queue.pop_front()?;
        if !mistake!(BytesStay) {
            self.bytes -= entry.len;
        }
        self.keys.drain(..entry.key);
        Some(entry.owner)
    }

    /// The connection is gone. What was handed over ends; what is only staged was never part of it and goes out
    /// on the next one where `keep_staged` says so, and otherwise ends too, unsent.
    ///
    /// Where the server may still execute writes, wanted or not, the answer is their keys, as far as they name one: oldest
    /// first, and a key as often as it was written.
    pub(crate) fn disconnected(
        &mut self,
        keep_staged: bool,
        mut ended: impl FnMut(Orphan<T>),
    ) -> Option<Vec<Bytes>> {
        if mistake!(KeptInFlight) {
            return None;
        }
        let (staged, staged_keys) = self.split_off_staged();
        let mut keys = Bytes::from(Vec::from(core::mem::replace(&mut self.keys, staged_keys)));
        let mut strays = None;
        for entry in self.queue.drain(..) {
            self.bytes -= entry.len;
            let sent = entry.end <= self.written;
            let key = keys.split_to(entry.key);
            if sent && entry.writes {
                strays.get_or_insert_with(Vec::new).extend((!key.is_empty()).then_some(key));
            }
            ended(Orphan { owner: entry.owner, sent });
        }
        self.handed = 0;
        self.written = 0;
        if keep_staged {
            self.queue = staged;
            return strays;
        }
        for entry in staged {
            ended(Orphan { owner: entry.owner, sent: false });
        }
        self.keys.clear();
        self.out.clear();
        self.staged = 0;
        self.bytes = 0;
        self.handed_ticket = self.ticket;
        (self.withdrawn, self.withdrawn_bytes) = (0, 0);
        strays
    }

    /// Takes what is staged off the backs of both queues.
    fn split_off_staged(&mut self) -> (VecDeque<Entry<T>>, VecDeque<u8>) {
        let staged = self.queue.split_off(self.queue.len() - self.staged);
        let keys: usize = staged.iter().map(|entry| entry.key).sum();
        (staged, self.keys.split_off(self.keys.len() - keys))
    }
}

impl<T: Archived> Pipeline<T> {
    /// Of one with nothing staged.
    pub(super) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self {
            queue,
            staged: _,
            keys,
            out: _,
            handed,
            written,
            ticket,
            handed_ticket,
            bytes,
            withdrawn: _,
            withdrawn_bytes: _,
        } = self;
        let (mut before, mut read) = (Bytes::from(Vec::from(keys.clone())), VecDeque::new());
        let blank = || Entry { owner: T::blank(), len: 0, end: 0, writes: false, key: 0 };
        archive.list(queue, blank, |Entry { owner, len, end, writes, key }, archive| {
            owner.archive(archive);
            archive.value(len);
            archive.value(end);
            archive.value(writes);
            let mut text = before.split_to((*key).min(before.len()));
            archive.text(&mut text);
            *key = text.len();
            read.extend(text);
        });
        *keys = read;
        *bytes = queue.iter().map(|entry| entry.len).sum();
        archive.values([handed, written, ticket, handed_ticket]);
    }
}

/// Appends a key as it is on the wire; the answer is its length.
fn put_key(keys: &mut VecDeque<u8>, key: Key<'_>) -> usize {
    if let Key { namespace: namespace @ [_, ..], .. } = key {
        keys.extend(namespace);
        keys.push_back(b':');
    }
    keys.extend(key.key);
    key.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Key;
    use alloc::vec;
    use proptest::prelude::*;

    fn get(key: &str) -> Command<'_> {
        Command::Get(Key { namespace: b"", key: key.as_bytes() })
    }

    fn wire(command: &Command<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        command.encode(&mut out);
        out
    }

    fn set(key: &str) -> Command<'_> {
        Command::Set { key: Key { namespace: b"", key: key.as_bytes() }, value: b"v", ttl: None }
    }

    /// A command of each kind: without a key that matters, with one, and a write without one.
    fn any<'a>(kind: usize, key: &'a str, keys: &'a [Bytes]) -> Command<'a> {
        match kind % 4 {
            0 => get(key),
            1 => set(key),
            2 => Command::Del(Key { namespace: b"n", key: key.as_bytes() }),
            _ => Command::Unlink(keys),
        }
    }

    #[test]
    fn replies_belong_to_commands_in_order() {
        let mut pipeline = Pipeline::new();
        pipeline.stage(&get("a"), 'a');
        pipeline.stage(&get("b"), 'b');
        assert_eq!(pipeline.answered(), None, "nothing was handed over yet");
        let mut out = Vec::new();
        pipeline.hand_over(&mut out, |_| true);
        pipeline.stage(&get("c"), 'c');
        assert_eq!(pipeline.answered(), Some('a'));
        assert_eq!(pipeline.answered(), Some('b'));
        assert_eq!(pipeline.answered(), None, "c is only staged");
        assert_eq!(pipeline.bytes(), wire(&get("c")).len());
    }

    #[test]
    fn a_withdrawn_command_is_never_handed_over() {
        let mut pipeline = Pipeline::new();
        pipeline.stage(&get("a"), 'a');
        let ticket = pipeline.stage(&get("bb"), 'b');
        pipeline.stage(&get("c"), 'c');
        assert!(pipeline.is_staged(ticket));
        pipeline.withdraw(wire(&get("bb")).len());
        assert_eq!(
            pipeline.bytes(),
            wire(&get("a")).len() + wire(&get("c")).len(),
            "its room is free at once"
        );
        let mut out = Vec::new();
        pipeline.hand_over(&mut out, |&owner| owner != 'b');
        assert!(!pipeline.is_staged(ticket));
        assert_eq!(out, [wire(&get("a")), wire(&get("c"))].concat());
        assert_eq!(
            (pipeline.answered(), pipeline.answered(), pipeline.answered()),
            (Some('a'), Some('c'), None)
        );
        assert_eq!(pipeline.bytes(), 0);
    }

    /// A caller that submits and cancels while nothing can be sent must not fill the memory.
    #[test]
    fn withdrawn_commands_take_no_more_than_as_much_again() {
        let mut pipeline = Pipeline::new();
        pipeline.stage(&get("kept"), 0);
        for owner in 1..10_000 {
            pipeline.stage(&get("gone"), owner);
            pipeline.withdraw(wire(&get("gone")).len());
            pipeline.tidy(|&owner| owner == 0);
            assert_eq!(pipeline.len(), 1);
            assert!(pipeline.staged_bytes() <= 2 * wire(&get("kept")).len());
        }
    }

    #[test]
    fn lost_connection_says_which_commands_were_sent() {
        let commands = [wire(&get("a")), wire(&get("b"))];
        let total = commands[0].len() + commands[1].len();
        for written in 0..=total {
            let mut pipeline = Pipeline::new();
            pipeline.stage(&get("a"), 'a');
            pipeline.stage(&get("b"), 'b');
            pipeline.hand_over(&mut Vec::new(), |_| true);
            pipeline.stage(&get("c"), 'c');
            pipeline.wrote(written);
            let mut sent = vec![];
            pipeline.disconnected(false, |orphan| sent.push(orphan.sent));
            assert_eq!(
                sent,
                [written >= commands[0].len(), written == total, false],
                "{written} bytes written"
            );
            assert_eq!((pipeline.len(), pipeline.bytes()), (0, 0));
        }
    }

    /// Which of the writes the server may still execute, by how much of them its socket has taken.
    #[test]
    fn lost_connection_tells_the_keys_of_the_writes_it_may_still_execute() {
        let unlinked = [Bytes::from_static(b"u")];
        let commands = [
            get("a"),
            Command::Unlink(&unlinked),
            set("c"),
            Command::Del(Key { namespace: b"n", key: b"d" }),
        ];
        let ends: Vec<usize> =
            (1..=4).map(|n| commands[..n].iter().map(Command::encoded_len).sum()).collect();
        for written in 0..=ends[3] {
            let mut pipeline = Pipeline::new();
            for command in &commands {
                pipeline.stage(command, ());
            }
            pipeline.hand_over(&mut Vec::new(), |()| true);
            pipeline.stage(&set("only staged"), ());
            pipeline.wrote(written);
            let strays = pipeline.disconnected(true, drop);
            let expected: Option<&[&str]> = match ends.iter().filter(|end| **end <= written).count() {
                0 | 1 => None,
                2 => Some(&[]),
                3 => Some(&["c"]),
                _ => Some(&["c", "n:d"]),
            };
            let expected = expected.map(|keys| keys.iter().map(|key| Bytes::from(*key)).collect());
            assert_eq!(strays, expected, "{written} bytes written");
            pipeline.hand_over(&mut Vec::new(), |()| true);
            pipeline.wrote(usize::MAX);
            let strays = pipeline.disconnected(true, drop);
            assert_eq!(strays, Some(vec!["only staged".into()]), "on the next connection");
            assert_eq!(pipeline.disconnected(false, drop), None, "told once");
        }
    }

    #[test]
    fn what_was_only_staged_survives_a_disconnect_when_asked() {
        let mut pipeline = Pipeline::new();
        pipeline.stage(&get("a"), 'a');
        pipeline.hand_over(&mut Vec::new(), |_| true);
        pipeline.stage(&get("b"), 'b');
        let mut gone = vec![];
        pipeline.disconnected(true, |orphan| gone.push(orphan.owner));
        assert_eq!(gone, ['a']);
        let mut out = Vec::new();
        pipeline.hand_over(&mut out, |_| true);
        assert_eq!(out, wire(&get("b")));
        pipeline.wrote(out.len());
        let mut sent = vec![];
        pipeline.disconnected(false, |orphan| sent.push((orphan.owner, orphan.sent)));
        assert_eq!(sent, [('b', true)]);
    }

    proptest! {
        /// Whatever is staged, withdrawn, handed over, answered and lost, owners come back in order, the wanted ones
        /// exactly once, the byte count is that of the queue, and what was sent of the writes is told by key.
        #[test]
        fn order_and_accounting_hold(steps in proptest::collection::vec((0u8..8, 0usize..8), 1..80)) {
            let mut pipeline = Pipeline::new();
            let mut model: VecDeque<Modelled> = VecDeque::new();
            let mut unwanted = alloc::collections::BTreeSet::new();
            let (mut next, mut written, unlinked) = (0u32, 0, [Bytes::from_static(b"u")]);
            for (step, n) in steps {
                match step {
                    0 | 5 => {
                        let key = "k".repeat(n + 1);
                        let command = any(n, &key, &unlinked);
                        pipeline.stage(&command, next);
                        let write = [None, Some(key.clone()), Some(std::format!("n:{key}")), Some("".into())];
                        let write = write[n % 4].clone();
                        model.push_back(Modelled { owner: next, len: wire(&command).len(), handed: None, write });
                        next += 1;
                    }
                    1 => {
                        let mut staged = model.iter().filter(|m| m.handed.is_none());
                        if let Some(&Modelled { owner, len, .. }) = staged.nth(n) {
                            unwanted.insert(owner);
                            model.retain(|m| m.owner != owner);
                            pipeline.withdraw(len);
                        }
                    }
                    4 => pipeline.tidy(|owner| !unwanted.contains(owner)),
                    2 => {
                        let mut out = Vec::new();
                        pipeline.hand_over(&mut out, |owner| !unwanted.contains(owner));
                        let mut expected = 0;
                        for m in model.iter_mut().filter(|m| m.handed.is_none()) {
                            expected += m.len;
                            m.handed = Some(written + expected);
                        }
                        prop_assert_eq!(out.len(), expected);
                        written += expected;
                        let missing = (15 * n.saturating_sub(5)).min(expected);
                        pipeline.wrote(expected - missing);
                        if missing > 0 {
                            let (strays, lost) = lose(&mut pipeline, &mut model, written - missing, n % 2 == 0);
                            prop_assert_eq!(strays, lost);
                            written = 0;
                        }
                    }
                    6 if n == 0 => {
                        let (strays, lost) = lose(&mut pipeline, &mut model, written, true);
                        prop_assert_eq!(strays, lost);
                        written = 0;
                    }
                    _ => {
                        let oldest = model.front().is_some_and(|m| m.handed.is_some());
                        let expected = if oldest { model.pop_front().map(|m| m.owner) } else { None };
                        prop_assert_eq!(pipeline.answered(), expected);
                    }
                }
                prop_assert_eq!(pipeline.len(), model.len());
                prop_assert_eq!(pipeline.bytes(), model.iter().map(|m| m.len).sum::<usize>());
            }
        }
    }

    struct Modelled {
        owner: u32,
        len: usize,
        /// Where it ends among the bytes handed over, once it is.
        handed: Option<usize>,
        /// Of a write its key, empty where it names none.
        write: Option<std::string::String>,
    }

    /// Loses the connection in both; what each says of the strays.
    fn lose(
        pipeline: &mut Pipeline<u32>,
        model: &mut VecDeque<Modelled>,
        written: usize,
        keep_staged: bool,
    ) -> (Option<Vec<Bytes>>, Option<Vec<Bytes>>) {
        let sent = model.iter().filter(|m| m.handed.is_some_and(|end| end <= written));
        let writes: Vec<_> = sent.filter_map(|m| m.write.clone()).collect();
        let expected = (!writes.is_empty())
            .then(|| writes.into_iter().filter(|key| !key.is_empty()).map(Bytes::from).collect());
        model.retain(|m| keep_staged && m.handed.is_none());
        (pipeline.disconnected(keep_staged, drop), expected)
    }
}
