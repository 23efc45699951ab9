//! What the server stores: strings that expire.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use larder_engine::Instant;

use super::{Did, wire};

/// Writes that a failover can still lose.
const UNDO: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    expires: Instant,
}

/// The keys, and what the latest writes replaced.
#[derive(Debug, Default)]
pub(crate) struct Data {
    entries: BTreeMap<Vec<u8>, Entry>,
    undo: VecDeque<(Vec<u8>, Option<Entry>)>,
}

impl Data {
    /// Loses everything.
    pub(crate) fn wipe(&mut self) {
        self.entries.clear();
        self.undo.clear();
    }

    /// Takes the latest `count` writes back, and says of which keys they were.
    pub(crate) fn roll_back(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        for (key, before) in (0..count).map_while(|_| self.undo.pop_back()).collect::<Vec<_>>() {
            match before {
                Some(entry) => self.entries.insert(key.clone(), entry),
                None => self.entries.remove(&key),
            };
            keys.push(key);
        }
        self.undo.clear();
        keys
    }

    /// Executes a command and appends the reply.
    pub(crate) fn execute(
        &mut self,
        now: Instant,
        words: &[Vec<u8>],
        resp3: bool,
        page: usize,
        out: &mut Vec<u8>,
        did: &mut Vec<Did>,
    ) {
        let name = words[0].to_ascii_uppercase();
        match (&name[..], &words[1..]) {
            (b"PING", []) => out.extend_from_slice(b"+PONG\r\n"),
            (b"INFO", _) => wire::bulk(out, b"# Server\r\nredis_version:7.4.0\r\n"),
            (b"GET", [key]) => {
                let value = self.get(now, key).map(|entry| entry.value.clone());
                match &value {
                    Some(value) => wire::bulk(out, value),
                    None => wire::null(out, resp3),
                }
                did.push(Did::Get { key: key.clone(), value });
            }
            (b"SET", [key, value, options @ ..]) => {
                let expires = match options {
                    [px, millis] if px == b"PX" => {
                        now.saturating_add(Duration::from_millis(number(millis).max(1)))
                    }
                    _ => Instant::NEVER,
                };
                self.put(now, key, Some(Entry { value: value.clone(), expires }));
                out.extend_from_slice(b"+OK\r\n");
                did.push(Did::Set { key: key.clone(), value: value.clone() });
            }
            (b"DEL", [key]) => {
                let existed = self.put(now, key, None);
                wire::integer(out, i64::from(existed));
                did.push(Did::Delete { key: key.clone(), existed });
            }
            (b"DEL", keys) => {
                let removed = keys.iter().filter(|key| self.put(now, key, None)).count();
                wire::integer(out, removed as i64);
                did.extend(keys.iter().map(|key| {
                    let key = key.clone();
                    Did::Replayed { key, value: None, over: None, brought: None }
                }));
            }
            (b"EVAL", [_, count, rest @ ..]) => self.replay(now, number(count) as usize, rest, out, did),
            (b"UNLINK", keys) => {
                let removed = keys.iter().filter(|key| self.put(now, key, None)).count();
                wire::integer(out, removed as i64);
                did.push(Did::Unlink { keys: keys.to_vec() });
            }
            (b"EXISTS", [key]) => {
                let found = self.get(now, key).is_some();
                wire::integer(out, i64::from(found));
                did.push(Did::Exists { key: key.clone(), found });
            }
            (b"PTTL", [key]) => wire::integer(out, self.ttl(now, key)),
            (b"SCAN", [cursor, _, pattern, ..]) => {
                if self.scan(now, number(cursor), pattern, page, out) {
                    did.push(Did::Scanned { pattern: pattern.clone() });
                }
            }
            _ => wire::error(out, b"ERR unknown command"),
        }
    }

    /// What the script of the journal does; `tests/tests/journal.rs` asks a server to run it.
    fn replay(
        &mut self,
        now: Instant,
        count: usize,
        words: &[Vec<u8>],
        out: &mut Vec<u8>,
        did: &mut Vec<Did>,
    ) {
        let (keys, args) = words.split_at(count.min(words.len()));
        wire::array(out, keys.len());
        for (key, args) in keys.iter().zip(args.chunks(4)) {
            let [mode, seen, value, ttl] = args else { return };
            let over = self.get(now, key).map(|entry| entry.value.clone());
            let held = over.as_ref();
            let take = match &mode[..] {
                b"!" => true,
                b"=" => held == Some(seen) || held == Some(value),
                b"-" => held.is_none_or(|held| held == value),
                _ => false,
            };
            let expires = match &ttl[..] {
                b"" => Instant::NEVER,
                ttl => now.saturating_add(Duration::from_millis(number(ttl).max(1))),
            };
            let brought = (mode != b"x").then(|| value.clone());
            let value = take.then(|| value.clone());
            self.put(now, key, value.clone().map(|value| Entry { value, expires }));
            wire::integer(out, i64::from(take));
            did.push(Did::Replayed { key: key.clone(), value, over, brought });
        }
    }

    fn get(&self, now: Instant, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.expires > now)
    }

    /// Whether there was something before.
    fn put(&mut self, now: Instant, key: &[u8], entry: Option<Entry>) -> bool {
        let before = match entry {
            Some(entry) => self.entries.insert(key.to_vec(), entry),
            None => self.entries.remove(key),
        };
        let existed = before.as_ref().is_some_and(|before| before.expires > now);
        self.undo.push_back((key.to_vec(), before));
        if self.undo.len() > UNDO {
            self.undo.pop_front();
        }
        existed
    }

    fn ttl(&self, now: Instant, key: &[u8]) -> i64 {
        match self.get(now, key) {
            None => -2,
            Some(entry) if entry.expires.is_never() => -1,
            Some(entry) => entry.expires.saturating_since(now).as_millis() as i64,
        }
    }

    /// A page of keys in the order of their hashes; the cursor is where the next page begins in that order. So a key
    /// that is there from beginning to end is on some page, whatever comes and goes meanwhile.
    /// Whether it has come to its end.
    fn scan(&self, now: Instant, cursor: u64, pattern: &[u8], page: usize, out: &mut Vec<u8>) -> bool {
        let mut keys: Vec<(u64, &Vec<u8>)> = self.entries.keys().map(|key| (order(key), key)).collect();
        keys.sort_unstable();
        let mut rest = keys.into_iter().filter(|(order, _)| *order >= cursor);
        let seen: Vec<(u64, &Vec<u8>)> = rest.by_ref().take(page.max(1)).collect();
        let next = rest.next().map_or(0, |(order, _)| order);
        wire::array(out, 2);
        wire::bulk(out, next.to_string().as_bytes());
        let matches = |key: &[u8]| glob(pattern, key) && self.get(now, key).is_some();
        let found: Vec<&Vec<u8>> = seen.into_iter().map(|(_, key)| key).filter(|key| matches(key)).collect();
        wire::array(out, found.len());
        found.into_iter().for_each(|key| wire::bulk(out, key));
        next == 0
    }
}

/// FNV-1a, never 0: that is the cursor of the beginning.
fn order(key: &[u8]) -> u64 {
    let mixed = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mixed.max(1)
}

/// Redis's glob, without sets: `*`, `?` and `\`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ([b'\\', literal, rest @ ..], [first, text @ ..]) => literal == first && glob(rest, text),
        ([b'?', rest @ ..], [_, text @ ..]) => glob(rest, text),
        ([literal, rest @ ..], [first, text @ ..]) => literal == first && glob(rest, text),
        _ => false,
    }
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(data: &mut Data, now: u64, command: &str) -> String {
        let words: Vec<Vec<u8>> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let mut out = Vec::new();
        data.execute(Instant::from_millis(now), &words, true, 2, &mut out, &mut Vec::new());
        String::from_utf8(out).expect("replies here are text").replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn commands_and_replies() {
        let mut data = Data::default();
        for (now, command, reply) in [
            (0, "PING", "+PONG"),
            (0, "GET k", "_"),
            (0, "SET k v PX 10", "+OK"),
            (4, "PTTL k", ":6"),
            (9, "GET k", "$1 v"),
            (10, "GET k", "_"),
            (10, "PTTL k", ":-2"),
            (10, "DEL k", ":0"),
            (10, "SET k w", "+OK"),
            (10, "PTTL k", ":-1"),
            (10, "EXISTS k", ":1"),
            (10, "UNLINK k j", ":1"),
            (10, "SET k w", "+OK"),
            (10, "DEL k j", ":1"),
            (10, "EVAL s 2 k j - _ v 10 = _ v 10", "*2 :1 :0"),
            (10, "EVAL s 1 k = w v 10", "*1 :1"),
            (10, "EVAL s 1 k = v u 10", "*1 :1"),
            (10, "EVAL s 1 k - _ w 10", "*1 :0"),
            (10, "EVAL s 1 k ! _ w 10", "*1 :1"),
            (10, "PTTL k", ":10"),
            (10, "EVAL s 1 k x _ _ 10", "*1 :0"),
            (10, "EXISTS k", ":0"),
            (10, "NONSENSE", "-ERR unknown command"),
        ] {
            assert_eq!(ask(&mut data, now, command), reply, "{command} at {now}");
        }
    }

    #[test]
    fn a_scan_finds_what_stays_and_only_what_matches() {
        let mut data = Data::default();
        for n in 0..20 {
            ask(&mut data, 0, &format!("SET a:{n} v"));
            ask(&mut data, 0, &format!("SET ab:{n} v"));
        }
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let page = ask(&mut data, 0, &format!("SCAN {cursor} MATCH a:* COUNT 512"));
            let words: Vec<&str> = page.split(' ').collect();
            found.extend(words.iter().filter(|word| word.starts_with("a:") || word.starts_with("ab:")).map(
                |&key| {
                    ask(&mut data, 0, &format!("DEL {key}"));
                    key.to_owned()
                },
            ));
            cursor = words[2].to_owned();
            if cursor == "0" {
                break;
            }
        }
        found.sort_by_key(|key| key[2..].parse::<u32>().expect("a number"));
        assert_eq!(found, (0..20).map(|n| format!("a:{n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_failover_loses_the_latest_writes() {
        let mut data = Data::default();
        for command in ["SET a 1", "SET a 2", "SET b 1", "DEL a"] {
            ask(&mut data, 0, command);
        }
        assert_eq!(data.roll_back(2), [b"a", b"b"]);
        assert_eq!((ask(&mut data, 0, "GET a"), ask(&mut data, 0, "GET b")), ("$1 2".into(), "_".into()));
        data.wipe();
        assert_eq!(ask(&mut data, 0, "GET a"), "_");
    }

    #[test]
    fn globs_match_as_in_redis() {
        for (pattern, text, matches) in [
            ("a:*", "a:", true),
            ("a:*", "ab:x", false),
            (r"a\*:*", "a*:x", true),
            (r"a\*:*", "ab:x", false),
            ("?b", "ab", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }
}
