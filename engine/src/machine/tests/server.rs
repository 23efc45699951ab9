//! A Redis in memory, as much of it as a cache talks to, on virtual time.

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use bytes::{Bytes, BytesMut};

use crate::resp::{Decoder, Limits, Reply};
use crate::time::Instant;

/// One server, shared by all connections to it.
#[derive(Default)]
pub(super) struct Server {
    pub(super) data: BTreeMap<Vec<u8>, (Bytes, Instant)>,
    /// What AUTH must say; without one, everybody is let in.
    pub(super) password: Option<Vec<u8>>,
    /// Whether it knows HELLO.
    pub(super) old: bool,
    /// The names of the commands that were executed, handshakes excluded.
    pub(super) executed: Vec<String>,
    /// Errors to answer commands with: name, line, how many times.
    scripted: Vec<(&'static str, &'static str, usize)>,
    /// How many of the next replies are swallowed, handshakes excluded.
    pub(super) swallow: usize,
    /// Bytes to be sent ahead of the next reply.
    pub(super) announce: Vec<u8>,
    /// Connections that have asked who they are. A connection that its client left has ended here, and all that was under
    /// way on it: there is never somebody to kill.
    introduced: u64,
}

/// What the server knows of one connection.
pub(super) struct Session {
    decoder: Decoder,
    input: BytesMut,
    authenticated: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self { decoder: Decoder::new(Limits::default()), input: BytesMut::new(), authenticated: false }
    }
}

impl Server {
    /// Answers the next `times` commands of a name with an error instead of executing them.
    pub(super) fn fail(&mut self, name: &'static str, line: &'static str, times: usize) {
        self.scripted.push((name, line, times));
    }

    pub(super) fn recover(&mut self) {
        self.scripted.clear();
    }

    pub(super) fn count(&self, name: &str) -> usize {
        self.executed.iter().filter(|executed| *executed == name).count()
    }

    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key.as_bytes()).map(|(value, _)| &value[..])
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.data.insert(key.into(), (Bytes::copy_from_slice(value.as_bytes()), Instant::NEVER));
    }

    /// Takes bytes of a connection, and answers the commands that are complete.
    pub(super) fn receive(&mut self, now: Instant, session: &mut Session, bytes: &[u8]) -> Vec<u8> {
        session.input.extend_from_slice(bytes);
        let mut commands = Vec::new();
        session.decoder.decode(&mut session.input, &mut commands).expect("the engine writes commands");
        let mut out = Vec::new();
        for command in commands {
            let Reply::Array(words) = command else { panic!("not a command: {command:?}") };
            let words: Vec<Bytes> = words.into_iter().filter_map(Reply::into_bytes).collect();
            out.append(&mut self.announce);
            let (before, reply) = (self.executed.len(), self.execute(now, session, &words));
            if self.swallow > 0 && self.executed.len() > before {
                self.swallow -= 1;
            } else {
                out.extend(reply);
            }
        }
        out
    }

    fn execute(&mut self, now: Instant, session: &mut Session, words: &[Bytes]) -> Vec<u8> {
        let name = String::from_utf8_lossy(&words[0]).into_owned();
        if let Some(line) = self.scripted_error(&name) {
            return format!("-{line}\r\n").into_bytes();
        }
        match name.as_str() {
            "HELLO" if self.old => return b"-ERR unknown command 'HELLO'\r\n".to_vec(),
            "HELLO" | "AUTH" => return self.let_in(session, &name, words),
            "CLIENT" if words[1] == "INFO" => {
                self.introduced += 1;
                return bulk(format!("id={} addr=192.0.2.1:49152 resp=3\n", self.introduced).as_bytes());
            }
            "CLIENT" if words[1] == "KILL" => return b":0\r\n".to_vec(),
            "CLIENT" | "SELECT" => return b"+OK\r\n".to_vec(),
            _ if self.password.is_some() && !session.authenticated => {
                return b"-NOAUTH Authentication required.\r\n".to_vec();
            }
            _ => {}
        }
        self.executed.push(name.clone());
        self.data.retain(|_, (_, deadline)| *deadline > now);
        match (name.as_str(), &words[1..]) {
            ("PING", _) => b"+PONG\r\n".to_vec(),
            ("INFO", _) => bulk(b"# Server\r\nredis_version:7.4.0\r\n"),
            ("GET", [key]) => {
                self.data.get(&key[..]).map_or_else(|| b"$-1\r\n".to_vec(), |(value, _)| bulk(value))
            }
            ("SET", [key, value, options @ ..]) => {
                let deadline = match options {
                    [_, millis] => now.saturating_add(core::time::Duration::from_millis(number(millis))),
                    _ => Instant::NEVER,
                };
                self.data.insert(key.to_vec(), (value.clone(), deadline));
                b"+OK\r\n".to_vec()
            }
            ("DEL" | "UNLINK", keys) => {
                let removed = keys.iter().filter(|key| self.data.remove(&key[..]).is_some()).count();
                format!(":{removed}\r\n").into_bytes()
            }
            ("EXISTS", [key]) => format!(":{}\r\n", u8::from(self.data.contains_key(&key[..]))).into_bytes(),
            ("SCAN", [cursor, _, pattern, ..]) => self.scan(number(cursor), pattern),
            ("EVAL", [_, count, rest @ ..]) => self.replay(now, number(count) as usize, rest),
            other => panic!("the model does not know {other:?}"),
        }
    }

    /// What the script of the journal does; `tests/tests/journal.rs` runs the script itself.
    fn replay(&mut self, now: Instant, count: usize, words: &[Bytes]) -> Vec<u8> {
        let (keys, args) = words.split_at(count);
        let mut out = format!("*{count}\r\n").into_bytes();
        for (key, args) in keys.iter().zip(args.chunks(4)) {
            let [mode, seen, value, ttl] = args else { panic!("four for each key: {args:?}") };
            let held = self.data.get(&key[..]).map(|(held, _)| held);
            let take = match &mode[..] {
                b"!" => true,
                b"=" => held == Some(seen) || held == Some(value),
                b"-" => held.is_none() || held == Some(value),
                _ => false,
            };
            let deadline = match &ttl[..] {
                b"" => Instant::NEVER,
                ttl => now.saturating_add(core::time::Duration::from_millis(number(ttl))),
            };
            match take {
                true => drop(self.data.insert(key.to_vec(), (value.clone(), deadline))),
                false => drop(self.data.remove(&key[..])),
            }
            out.extend(format!(":{}\r\n", u8::from(take)).into_bytes());
        }
        out
    }

    fn let_in(&self, session: &mut Session, name: &str, words: &[Bytes]) -> Vec<u8> {
        let given = match name {
            "AUTH" => words.last(),
            _ => words.iter().position(|word| word == "AUTH").and_then(|at| words.get(at + 2)),
        };
        if self.password.is_some() && self.password.as_deref() != given.map(|given| &given[..]) {
            let known =
                if given.is_some() { "WRONGPASS no such user or password" } else { "NOAUTH who are you" };
            return format!("-{known}\r\n").into_bytes();
        }
        session.authenticated = true;
        if name == "AUTH" { b"+OK\r\n".to_vec() } else { b"%1\r\n+proto\r\n:3\r\n".to_vec() }
    }

    /// Two keys a page; the cursor counts keys in order. Deletions between pages make it skip some, so a page begins
    /// behind the keys that were there when the scan began: it counts from the end.
    fn scan(&self, cursor: u64, pattern: &[u8]) -> Vec<u8> {
        let prefix = pattern.strip_suffix(b"*").expect("patterns of namespaces end in a star");
        let prefix: Vec<u8> = prefix.iter().copied().filter(|&byte| byte != b'\\').collect();
        let left = if cursor == 0 { self.data.len() } else { (cursor as usize).min(self.data.len()) };
        let page: Vec<_> = self
            .data
            .keys()
            .skip(self.data.len() - left)
            .take(2)
            .filter(|key| key.starts_with(&prefix))
            .collect();
        let mut out = b"*2\r\n".to_vec();
        out.extend(bulk(left.saturating_sub(2).to_string().as_bytes()));
        out.extend(format!("*{}\r\n", page.len()).into_bytes());
        page.into_iter().for_each(|key| out.extend(bulk(key)));
        out
    }

    fn scripted_error(&mut self, name: &str) -> Option<String> {
        let (_, line, times) =
            self.scripted.iter_mut().find(|(scripted, _, times)| *scripted == name && *times > 0)?;
        *times -= 1;
        Some((*line).to_owned())
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

fn number(text: &[u8]) -> u64 {
    core::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("a number")
}
