//! A Redis in memory, as much of it as a cache talks to, and the ways in which it misbehaves.
//!
//! It is one thread: while a command takes its time, or the process is stopped, what arrives waits and is executed
//! later, whether or not its sender still waits for it (a *zombie write*), unless somebody has ended that connection with
//! `CLIENT KILL` before. After a failover, connections made before it
//! lead to the demoted master, which refuses writes; new ones lead to the new master, which may have lost the latest
//! writes.

mod data;
mod wire;

use std::fmt;
use std::time::Duration;

use larder_engine::Instant;

use crate::choices::Choices;
use crate::net::{Conn, End, Net, arrival};
pub(crate) use data::Data;
pub(crate) use wire::CommandParser;

/// The password of a server that has one.
pub(crate) const PASSWORD: &str = "s3sam3-0pen";

/// How the server is set up, for a whole run.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerConfig {
    pub(crate) password: bool,
    /// It knows no HELLO.
    pub(crate) old: bool,
    /// A canary: it only says that it kills.
    pub(crate) deaf: bool,
    /// Keys on a page of SCAN.
    pub(crate) scan_page: usize,
    /// Of a thousand commands, how many are slow, and how slow.
    pub(crate) slow: u32,
    pub(crate) slow_for: Duration,
    /// Of a thousand replies, how many have a push ahead.
    pub(crate) pushes: u32,
    /// The latency of what it sends.
    pub(crate) latency: Duration,
}

/// An error that commands are answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    pub(crate) line: &'static [u8],
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// All but the handshake.
    All,
    Writes,
    /// All but the handshake and PING.
    Data,
    Login,
    /// New connections, which are closed then.
    Connections,
}

/// One of each class of error, and those of its class that are told apart somewhere.
pub(crate) const REFUSALS: [Refusal; 18] = [
    refusal("loading", b"LOADING Redis is loading the dataset in memory", Scope::All),
    refusal("busy", b"BUSY Redis is busy running a script.", Scope::All),
    refusal("tryagain", b"TRYAGAIN Multiple keys request during rehashing of slot", Scope::Data),
    refusal("clusterdown", b"CLUSTERDOWN The cluster is down", Scope::Data),
    refusal("masterdown", b"MASTERDOWN Link with MASTER is down", Scope::All),
    refusal("maxclients", b"ERR max number of clients reached", Scope::Connections),
    refusal("moved", b"MOVED 3999 127.0.0.1:6381", Scope::Data),
    refusal("ask", b"ASK 3999 127.0.0.1:6381", Scope::Data),
    refusal("readonly", b"READONLY You can't write against a read only replica.", Scope::Writes),
    refusal("oom", b"OOM command not allowed when used memory > 'maxmemory'.", Scope::Writes),
    refusal("misconf", b"MISCONF Redis is configured to save RDB snapshots", Scope::Writes),
    refusal("noreplicas", b"NOREPLICAS Not enough good replicas to write.", Scope::Writes),
    refusal("noauth", b"NOAUTH Authentication required.", Scope::All),
    refusal("wrongpass", b"WRONGPASS invalid username-password pair or user is disabled.", Scope::Login),
    refusal("noperm", b"NOPERM this user has no permissions to run this command", Scope::Data),
    refusal("unknown", b"ERR unknown command 'x', with args beginning with: ", Scope::Data),
    refusal("wrongtype", b"WRONGTYPE Operation against a key holding the wrong kind of value", Scope::Data),
    refusal("binary", b"ERR some \xff\xfe bytes", Scope::Data),
];

const fn refusal(name: &'static str, line: &'static [u8], scope: Scope) -> Refusal {
    Refusal { name, line, scope }
}

/// What a byzantine server does to the next reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mangle {
    Garbage,
    Duplicate,
    Drop,
    /// It comes after the one behind it.
    Swap,
    /// Its end is missing.
    Truncate,
    /// It is of another kind.
    Retype,
    /// It announces more than anybody has memory for.
    Huge,
    /// It is nested too deep.
    Deep,
}

pub(crate) const MANGLES: [(&str, Mangle); 8] = [
    ("garbage", Mangle::Garbage),
    ("duplicate", Mangle::Duplicate),
    ("drop", Mangle::Drop),
    ("swap", Mangle::Swap),
    ("truncate", Mangle::Truncate),
    ("retype", Mangle::Retype),
    ("huge", Mangle::Huge),
    ("deep", Mangle::Deep),
];

/// What the server did for a connection, for the oracle to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Get {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    Set {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
        existed: bool,
    },
    Exists {
        key: Vec<u8>,
        found: bool,
    },
    Unlink {
        keys: Vec<Vec<u8>>,
    },
    /// A journal was replayed.
    Replayed {
        key: Vec<u8>,
        /// What the key has now.
        value: Option<Vec<u8>>,
        /// What it had before.
        over: Option<Vec<u8>>,
        /// What the replay would have set, as far as it says.
        brought: Option<Vec<u8>>,
    },
    /// A scan has come to its end.
    Scanned {
        pattern: Vec<u8>,
    },
    /// A step of a clear was answered with an error.
    SweepRefused,
    /// A SET arrived; it may be refused.
    SetArrived {
        value: Vec<u8>,
    },
    /// A command arrived before the handshake was over.
    TooEarly,
    /// What arrived is no command.
    NotACommand,
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get { key, value: Some(value) } => {
                write!(f, "GET {} is {}", key.escape_ascii(), value.escape_ascii())
            }
            Self::Get { key, value: None } => write!(f, "GET {} is nothing", key.escape_ascii()),
            Self::Set { key, value } => write!(f, "SET {} to {}", key.escape_ascii(), value.escape_ascii()),
            Self::Delete { key, existed } => write!(f, "DEL {} that existed: {existed}", key.escape_ascii()),
            Self::Exists { key, found } => write!(f, "EXISTS {}: {found}", key.escape_ascii()),
            Self::Unlink { keys } => {
                f.write_str("UNLINK")?;
                keys.iter().try_for_each(|key| write!(f, " {}", key.escape_ascii()))
            }
            Self::Replayed { key, value, .. } => {
                let value = value.as_deref().unwrap_or(b"(none)");
                write!(f, "a replay leaves {} at {}", key.escape_ascii(), value.escape_ascii())
            }
            Self::SetArrived { value } => write!(f, "a SET to {} arrives", value.escape_ascii()),
            Self::Scanned { pattern } => write!(f, "the scan of {} ends", pattern.escape_ascii()),
            Self::SweepRefused => f.write_str("a step of a clear is refused"),
            Self::TooEarly => f.write_str("a command before the reply to HELLO was read"),
            Self::NotACommand => f.write_str("bytes that are no command"),
        }
    }
}

/// What it did, and where the reply that tells of it ends in what it sends.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) did: Did,
    pub(crate) reply_end: u64,
}

#[derive(Debug, Default)]
struct Session {
    /// Its number, the same as the connection's.
    id: usize,
    parser: CommandParser,
    resp3: bool,
    authenticated: bool,
    /// Which master this connection was made to.
    term: u32,
    /// Commands since MULTI.
    multi: Option<Vec<Vec<Vec<u8>>>>,
    /// A reply that comes after the next one.
    held_back: Vec<u8>,
    closing: bool,
}

/// The server, or servers: a master and the one it replaced.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) data: Data,
    sessions: Vec<Option<Session>>,
    /// Those that were ended by another; their connections are still to be closed.
    killed: Vec<usize>,
    term: u32,
    /// Nothing listens until then.
    pub(crate) down_until: Option<Instant>,
    /// The process is stopped until then.
    pub(crate) frozen_until: Option<Instant>,
    busy_until: Option<Instant>,
    pub(crate) refusal: Option<(Refusal, Instant)>,
    pub(crate) mangle: Option<Mangle>,
    /// Commands executed.
    pub(crate) executed: u64,
}

impl Server {
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self {
            config,
            data: Data::default(),
            sessions: Vec::new(),
            killed: Vec::new(),
            term: 0,
            down_until: None,
            frozen_until: None,
            busy_until: None,
            refusal: None,
            mangle: None,
            executed: 0,
        }
    }

    /// Whether somebody listens.
    pub(crate) fn listens(&self, now: Instant) -> bool {
        self.down_until.is_none_or(|until| until <= now)
    }

    /// A connection is made.
    pub(crate) fn accept(&mut self, now: Instant, id: usize, net: &mut Net) {
        if self.sessions.len() <= id {
            self.sessions.resize_with(id + 1, || None);
        }
        self.sessions[id] =
            Some(Session { id, term: self.term, authenticated: !self.config.password, ..Session::default() });
        if let Some(refusal) = self.refused(now, Scope::Connections) {
            let mut out = Vec::new();
            wire::error(&mut out, refusal.line);
            net.conn(id).down.write(arrival(now, self.config.latency), &out);
            net.server_close(id, arrival(now, self.config.latency), End::Fin);
        }
    }

    /// A failover: `lost` acknowledged writes were not replicated. The answer is their keys.
    pub(crate) fn fail_over(&mut self, lost: usize) -> Vec<Vec<u8>> {
        self.term += 1;
        self.data.roll_back(lost)
    }

    /// The process dies, and all connections with it; it is started again at that time.
    pub(crate) fn go_down(&mut self, now: Instant, until: Instant, net: &mut Net) {
        self.down_until = Some(until);
        (self.frozen_until, self.busy_until) = (None, None);
        for id in net.live().to_vec() {
            if net.get(id).server_open {
                net.server_close(id, arrival(now, self.config.latency), End::Rst);
            }
            self.sessions[id] = None;
        }
    }

    /// Trouble ends: also connections to a master that was demoted.
    pub(crate) fn heal(&mut self, now: Instant, net: &mut Net) {
        (self.down_until, self.frozen_until, self.refusal, self.mangle) = (None, None, None, None);
        (self.config.slow, self.config.pushes) = (0, 0);
        for id in net.live().to_vec() {
            if self.sessions[id].as_ref().is_some_and(|session| session.term < self.term) {
                self.sessions[id] = None;
                net.server_close(id, arrival(now, self.config.latency), End::Fin);
            }
        }
    }

    /// When it goes on by itself.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let times = [self.frozen_until, self.busy_until];
        times.into_iter().flatten().filter(|&at| at > now && !at.is_never()).min()
    }

    fn is_stopped(&self, now: Instant) -> bool {
        [self.frozen_until, self.busy_until].into_iter().flatten().any(|until| until > now)
    }

    /// Serves a connection as far as it can; the answer is whether anything was done.
    pub(crate) fn serve(
        &mut self,
        now: Instant,
        id: usize,
        net: &mut Net,
        choices: &mut Choices,
        done: &mut Vec<Done>,
    ) -> bool {
        if self.is_stopped(now) || !net.get(id).server_open {
            return false;
        }
        let is_idle = |session: &Session| {
            let up = &net.get(id).up;
            session.parser.is_empty() && up.readable(now) == 0 && up.ended(now).is_none()
        };
        if self.sessions[id].as_ref().is_none_or(is_idle) {
            return false;
        }
        let Some(mut session) = self.sessions[id].take() else { return false };
        let conn = net.conn(id);
        let mut progress = conn.up.read(now, usize::MAX, session.parser.buffer()) > 0;
        while !session.closing && !session.parser.is_empty() && !self.is_stopped(now) {
            match session.parser.next() {
                Ok(Some(words)) => {
                    progress = true;
                    if session.parser.consumed <= conn.before_hello && !is_handshake(&words) {
                        done.push(Done { did: Did::TooEarly, reply_end: 0 });
                    }
                    self.answer(now, &mut session, conn, words, choices, done);
                }
                Ok(None) => break,
                Err(wire::NotACommand) => {
                    done.push(Done { did: Did::NotACommand, reply_end: 0 });
                    session.closing = true;
                }
            }
        }
        // What was read before the end is executed first, however long that takes.
        let ended = conn.up.ended(now).is_some() && !self.is_stopped(now);
        for killed in self.killed.drain(..) {
            net.server_close(killed, arrival(now, self.config.latency), End::Fin);
        }
        if ended || session.closing {
            progress = true;
            net.server_close(id, arrival(now, self.config.latency), End::Fin);
        } else {
            self.sessions[id] = Some(session);
        }
        progress
    }

    fn answer(
        &mut self,
        now: Instant,
        session: &mut Session,
        conn: &mut Conn,
        words: Vec<Vec<u8>>,
        choices: &mut Choices,
        done: &mut Vec<Done>,
    ) {
        self.executed += 1;
        let greets = words[0] == b"HELLO" || words[0] == b"AUTH";
        let handshake = is_handshake(&words);
        let mut at = arrival(now, self.config.latency);
        if !handshake && choices.chance(self.config.slow) {
            let takes = choices.duration(self.config.slow_for);
            self.busy_until = Some(now.saturating_add(takes));
            at = at.saturating_add(takes);
        }
        let mut out = Vec::new();
        if session.resp3 && choices.chance(self.config.pushes) {
            out.extend_from_slice(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nx\r\n");
        }
        let begin = out.len();
        let mut did = Vec::new();
        self.execute(now, session, words, &mut out, &mut did);
        if !handshake {
            let reply = out.split_off(begin);
            self.send_reply(session, reply, &mut out);
        }
        let mut reply_end = u64::MAX;
        if conn.client_open {
            conn.down.write(at, &out);
            reply_end = conn.down.written;
        }
        done.extend(did.into_iter().map(|did| Done { did, reply_end }));
        conn.answers.push_back((session.parser.consumed, conn.down.written));
        if greets {
            conn.hello_end = conn.hello_end.or(Some(conn.down.written));
        }
    }

    /// Appends a reply, as an honest server does or as it was told to mangle it.
    fn send_reply(&mut self, session: &mut Session, reply: Vec<u8>, out: &mut Vec<u8>) {
        let held_back = std::mem::take(&mut session.held_back);
        match self.mangle.take() {
            None => out.extend_from_slice(&reply),
            Some(Mangle::Garbage) => out.extend_from_slice(b"\x16\x03\x01 what is this\r\n"),
            Some(Mangle::Duplicate) => {
                out.extend_from_slice(&reply);
                out.extend_from_slice(&reply);
            }
            Some(Mangle::Drop) => {}
            Some(Mangle::Swap) => session.held_back = reply,
            Some(Mangle::Truncate) => out.extend_from_slice(&reply[..reply.len() / 2]),
            Some(Mangle::Retype) => out.extend_from_slice(b"%1\r\n+a\r\n#t\r\n"),
            Some(Mangle::Huge) => out.extend_from_slice(b"$9223372036854775807\r\nx"),
            Some(Mangle::Deep) => out.extend_from_slice(&b"*1\r\n".repeat(100)),
        }
        out.extend_from_slice(&held_back);
    }

    fn execute(
        &mut self,
        now: Instant,
        session: &mut Session,
        words: Vec<Vec<u8>>,
        out: &mut Vec<u8>,
        did: &mut Vec<Did>,
    ) {
        let name = words[0].to_ascii_uppercase();
        if let (b"SET", Some(value)) = (&name[..], words.get(2)) {
            did.push(Did::SetArrived { value: value.clone() });
        }
        if matches!(&name[..], b"HELLO" | b"AUTH") {
            return self.let_in(now, session, &words, out);
        }
        match (is_handshake(&words), words.get(1).map(Vec::as_slice)) {
            (true, Some(b"INFO")) => return self.introduce(session, out),
            (true, Some(b"KILL")) => return self.kill(session, &words[2..], out),
            (true, _) => return out.extend_from_slice(b"+OK\r\n"),
            (false, _) => {}
        }
        let writes = matches!(&name[..], b"SET" | b"DEL" | b"UNLINK" | b"EVAL");
        if !session.authenticated {
            return wire::error(out, b"NOAUTH Authentication required.");
        }
        if writes && session.term < self.term {
            return wire::error(out, b"READONLY You can't write against a read only replica.");
        }
        for scope in [Scope::All, Scope::Data, Scope::Writes] {
            let applies = match scope {
                Scope::Data => name != b"PING",
                Scope::Writes => writes,
                _ => true,
            };
            if let Some(refusal) = self.refused(now, scope).filter(|_| applies) {
                did.extend(matches!(&name[..], b"SCAN" | b"UNLINK").then_some(Did::SweepRefused));
                return wire::error(out, refusal.line);
            }
        }
        match (&name[..], session.multi.take()) {
            (b"MULTI", None) => {
                session.multi = Some(Vec::new());
                out.extend_from_slice(b"+OK\r\n");
            }
            (b"EXEC", Some(queued)) => {
                wire::array(out, queued.len());
                for words in queued {
                    self.data.execute(now, &words, session.resp3, self.config.scan_page, out, did);
                }
            }
            (_, Some(mut queued)) => {
                queued.push(words);
                session.multi = Some(queued);
                out.extend_from_slice(b"+QUEUED\r\n");
            }
            _ => self.data.execute(now, &words, session.resp3, self.config.scan_page, out, did),
        }
    }

    fn introduce(&self, session: &Session, out: &mut Vec<u8>) {
        if self.config.old {
            return wire::error(out, b"ERR unknown subcommand 'INFO'");
        }
        let text = format!("id={} addr={} fd=8 name=\n", session.id, address(session.id));
        match session.resp3 {
            true => out.extend_from_slice(format!("={}\r\ntxt:{text}\r\n", 4 + text.len()).as_bytes()),
            false => wire::bulk(out, text.as_bytes()),
        }
    }

    /// Ends the session that all filters name, with what it has received and not executed.
    fn kill(&mut self, session: &Session, filters: &[Vec<u8>], out: &mut Vec<u8>) {
        let [_, id, _, addr] = filters else { return wire::error(out, b"ERR syntax error") };
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).unwrap_or(usize::MAX);
        let deaf = self.config.deaf;
        let is_there =
            |other: &Session| !deaf && other.term == session.term && *addr == address(id).as_bytes();
        let killed = self.sessions.get_mut(id).and_then(|other| other.take_if(|other| is_there(other)));
        self.killed.extend(killed.as_ref().map(|_| id));
        wire::integer(out, i64::from(killed.is_some()));
    }

    fn let_in(&self, now: Instant, session: &mut Session, words: &[Vec<u8>], out: &mut Vec<u8>) {
        let hello = words[0] == b"HELLO";
        if hello && self.config.old {
            return wire::error(out, b"ERR unknown command 'HELLO', with args beginning with: '3' ");
        }
        if let Some(refusal) = self.refused(now, Scope::Login) {
            return wire::error(out, refusal.line);
        }
        let given = match hello {
            true => words.iter().position(|word| word == b"AUTH").and_then(|at| words.get(at + 2)),
            false => words.last(),
        };
        if given.is_some_and(|given| given != PASSWORD.as_bytes()) {
            return wire::error(out, b"WRONGPASS invalid username-password pair or user is disabled.");
        }
        if self.config.password && given.is_none() {
            return wire::error(out, b"NOAUTH HELLO must be called with the client already authenticated");
        }
        (session.authenticated, session.resp3) = (true, hello);
        out.extend_from_slice(if hello { b"%1\r\n+proto\r\n:3\r\n" } else { b"+OK\r\n" });
    }

    fn refused(&self, now: Instant, scope: Scope) -> Option<Refusal> {
        let (refusal, until) = self.refusal?;
        (refusal.scope == scope && until > now).then_some(refusal)
    }
}

/// Where a client is, as the server sees it.
fn address(id: usize) -> String {
    format!("192.0.2.{}:{}", id % 250 + 1, 49_152 + id % 16_384)
}

fn is_handshake(words: &[Vec<u8>]) -> bool {
    let word = |at: usize| words.get(at).map_or(&b""[..], Vec::as_slice);
    match word(0) {
        b"HELLO" | b"AUTH" | b"SELECT" => true,
        b"CLIENT" => matches!(word(1), b"SETNAME" | b"SETINFO" | b"INFO" | b"KILL"),
        _ => false,
    }
}
