//! What is said on a new connection before it serves.
//!
//! ```text
//!            ok
//!  HELLO 3 -----------------------------> SETUP --every reply in--> done
//!     |                                    ^
//!     | NOPROTO, NOPERM, unknown command   | ok
//!     v                                    |
//!  (RESP2) --password--> AUTH -------------+
//!     |                                    ^
//!     +------------no password: PING ------+  (which does not wait for the answer)
//! ```
//!
//! | step    | sent                                     | when                       | accepted     | on refusal    |
//! |---------|------------------------------------------|----------------------------|--------------|---------------|
//! | HELLO   | `HELLO 3 [AUTH user pw] [SETNAME name]`  | always, alone              | map or array | see below     |
//! | AUTH    | `AUTH [user] pw`                         | RESP2, a password; alone   | `+OK`        | it ends       |
//! | PING    | `PING`                                   | RESP2, no password         | a status     | NOAUTH: ends  |
//! | SELECT  | `SELECT database`                        | SETUP, database is not 0   | `+OK`        | it ends       |
//! | SETNAME | `CLIENT SETNAME name`                    | SETUP, RESP2, has a name   | `+OK`        | NOAUTH: ends  |
//! | SETINFO | `CLIENT SETINFO LIB-NAME …`, `LIB-VER …` | SETUP                      | `+OK`        | NOAUTH: ends  |
//! | INFO    | `CLIENT INFO`                            | SETUP                      | anything     | NOAUTH: ends  |
//! | KILL    | `CLIENT KILL ID number ADDR address`     | SETUP, has a predecessor   | anything     | NOAUTH: ends  |
//!
//! A HELLO refused with NOPROTO, NOPERM or as an unknown command leads to RESP2, any other refusal of it ends the
//! handshake. What is refused with anything but NOAUTH in the rows that name it was a courtesy: it does not matter.
//!
//! Any other reply ends it. The deadline is one for all steps, the connect timeout, counted from the start of the
//! dial: a server gains no time by answering slowly, or one byte at a time.
//!
//! `HELLO` carries AUTH and SETNAME, so that a current server needs one round trip before SETUP, whose commands
//! travel together in one more. HELLO and AUTH travel alone: servers are known that drop the reply of an AUTH that
//! was pipelined behind another command (redis/redis#15640). PING finds out whether an old server wants a password:
//! SETINFO does not, since Redis 7.0 first says that it does not know that, and then nothing would be served. Every
//! command has its own slot for its reply, so that a courtesy that an old server does not know, or an ACL forbids,
//! cannot be taken for the answer to what must succeed.
//!
//! INFO learns the number and the address by which the server knows this connection ([`Identity`]); servers before Redis
//! 6.2 do not tell. KILL ends the connection before, its *predecessor*, which left writes unanswered: what the server
//! had received of them and not executed is gone then. An integer says that it is *fenced*: `:1`, or `:0` where the
//! server had ended it already. Whatever else they are answered is no reason not to serve; the writes are then at large.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::config::HandshakeConfig;
use crate::resp::{Command, ErrorClass, Reply, ServerError};

/// A row of the table above, and the slot of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    Auth,
    Ping,
    Select,
    SetName,
    SetInfo,
    Info,
    Kill,
}

/// What a reply means to its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The server speaks RESP2 only.
    Resp2,
    Refused,
    /// It is not an answer to this command.
    Nonsense,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Continue,
    Done {
        /// Who this connection is.
        identity: Option<Identity>,
        /// Whether the predecessor is no more.
        fenced: bool,
    },
}

/// Who a connection is to its server.
///
/// The number alone would do, were it not that a server that was restarted counts from the beginning: the address makes
/// sure that nobody else is meant. So there is no identity without one, as on a Unix socket, where all have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(super) id: u64,
    pub(super) addr: Box<[u8]>,
}

impl Identity {
    /// What `CLIENT INFO` says: `id=5 addr=127.0.0.1:43210 laddr=…`, in any order.
    fn from_reply(reply: &Reply) -> Option<Self> {
        let (Reply::Bulk(text) | Reply::Verbatim { text, .. }) = reply else { return None };
        let field =
            |name: &[u8]| text.split(u8::is_ascii_whitespace).find_map(|field| field.strip_prefix(name));
        let number = |digits: &[u8]| core::str::from_utf8(digits).ok()?.parse::<u64>().ok();
        let addr = field(b"addr=").filter(|addr| addr.len() <= MAX_ADDRESS)?;
        // A Unix socket's is `/its/path:0`, one that the server does not know `?:0`.
        let (colon, _) = addr.iter().enumerate().rev().find(|(_, byte)| **byte == b':')?;
        let port = addr.get(colon + 1..).and_then(number).filter(|port| (1..=0xffff).contains(port));
        port.filter(|_| colon > 0)?;
        Some(Self { id: number(field(b"id=")?)?, addr: addr.into() })
    }
}

/// Longer than any address with a port, IPv6 and zone included.
const MAX_ADDRESS: usize = 128;

/// Why a connection is not used although it was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server refused, in its own words.
    #[error("the server refused {during}: {error}{}", remedy(during, error))]
    Refused {
        /// The command it refused.
        during: &'static str,
        /// What it said.
        error: ServerError,
    },
    /// The server answered what no Redis answers to this command.
    #[error("the server's answer to {during} is not one of a Redis server: are host and port right?")]
    Unexpected {
        /// The command it answered.
        during: &'static str,
    },
    /// The server spoke before it was asked, and not to refuse.
    #[error("the server spoke before it was asked, which no Redis server does: are host and port right?")]
    Unasked,
}

impl HandshakeError {
    /// The server spoke before it was asked: a full or protected one says so, and hangs up.
    pub(crate) fn unasked(config: &HandshakeConfig, reply: &Reply) -> Self {
        match reply {
            Reply::Error(error) => {
                Self::Refused { during: "the connection", error: hide_password(config, error) }
            }
            _ => Self::Unasked,
        }
    }

    /// Whether trying again cannot help before somebody changes a configuration: wrong password, no
    /// permission, no such database.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Refused { error, .. } => {
                matches!(error.class(), ErrorClass::Auth | ErrorClass::Unsupported | ErrorClass::Caller)
            }
            Self::Unexpected { .. } | Self::Unasked => false,
        }
    }
}

/// The dialogue itself: replies in, bytes out.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// What the server still owes, in order.
    expected: VecDeque<Step>,
    /// Who is to be ended.
    predecessor: Option<Identity>,
    identity: Option<Identity>,
    fenced: bool,
}

impl Handshake {
    pub(crate) fn start(config: &HandshakeConfig, predecessor: Option<Identity>, out: &mut Vec<u8>) -> Self {
        let auth = config.credentials.as_ref().map(|credentials| {
            // HELLO's AUTH always names a user; a password alone is that of `default`.
            (credentials.username.as_deref().unwrap_or(b"default"), credentials.password.expose())
        });
        let mut handshake = Self { expected: VecDeque::new(), predecessor, identity: None, fenced: false };
        let hello = Command::Hello { version: 3, auth, client_name: config.client_name.as_deref() };
        handshake.say(Step::Hello, &hello, out);
        handshake
    }

    pub(crate) fn handle_reply(
        &mut self,
        config: &HandshakeConfig,
        reply: &Reply,
        out: &mut Vec<u8>,
    ) -> Result<Progress, HandshakeError> {
        let Some(step) = self.expected.pop_front() else {
            return Err(HandshakeError::unasked(config, reply));
        };
        match (step.judge(reply), reply) {
            (Verdict::Accepted, _) if step == Step::Hello => self.set_up(config, false, out),
            (Verdict::Accepted, _) if step == Step::Auth => self.set_up(config, true, out),
            (Verdict::Accepted, _) if step == Step::Info => self.identity = Identity::from_reply(reply),
            (Verdict::Accepted, _) if step == Step::Kill => self.fenced = reply.as_integer().is_some(),
            (Verdict::Accepted, _) => {}
            (Verdict::Resp2, _) => self.continue_in_resp2(config, out),
            (Verdict::Refused, Reply::Error(error)) => {
                let error = hide_password(config, error);
                return Err(HandshakeError::Refused { during: step.name(), error });
            }
            (Verdict::Refused | Verdict::Nonsense, _) => {
                return Err(HandshakeError::Unexpected { during: step.name() });
            }
        }
        Ok(match self.expected.is_empty() {
            true => Progress::Done { identity: self.identity.take(), fenced: self.fenced },
            false => Progress::Continue,
        })
    }

    /// The command whose answer is due.
    pub(crate) fn awaits(&self) -> &'static str {
        self.expected.front().map_or("nothing", |step| step.name())
    }

    fn continue_in_resp2(&mut self, config: &HandshakeConfig, out: &mut Vec<u8>) {
        match &config.credentials {
            Some(credentials) => {
                let username = credentials.username.as_deref();
                let password = credentials.password.expose();
                self.say(Step::Auth, &Command::Auth { username, password }, out);
            }
            None => {
                self.say(Step::Ping, &Command::Ping, out);
                self.set_up(config, true, out);
            }
        }
    }

    fn set_up(&mut self, config: &HandshakeConfig, resp2: bool, out: &mut Vec<u8>) {
        if config.database != 0 {
            self.say(Step::Select, &Command::Select(config.database), out);
        }
        if let (true, Some(name)) = (resp2, &config.client_name) {
            self.say(Step::SetName, &Command::ClientSetName(name), out);
        }
        for (attribute, value) in [("LIB-NAME", "larder"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            let (attribute, value) = (attribute.as_bytes(), value.as_bytes());
            self.say(Step::SetInfo, &Command::ClientSetInfo { attribute, value }, out);
        }
        self.say(Step::Info, &Command::ClientInfo, out);
        if let Some(Identity { id, addr }) = self.predecessor.take() {
            self.say(Step::Kill, &Command::ClientKill { id, addr: &addr }, out);
        }
    }

    /// A command and the slot of its reply: never one without the other.
    fn say(&mut self, step: Step, command: &Command<'_>, out: &mut Vec<u8>) {
        command.encode(out);
        self.expected.push_back(step);
    }
}

impl Step {
    /// The columns `accepted` and `a refusal` of the table.
    fn judge(self, reply: &Reply) -> Verdict {
        match (self, reply) {
            (Self::Hello, Reply::Map(_) | Reply::Array(_)) => Verdict::Accepted,
            (Self::Hello, Reply::Error(error)) if speaks_resp2(error) => Verdict::Resp2,
            (Self::Hello | Self::Auth | Self::Select, Reply::Error(_)) => Verdict::Refused,
            // What is not let in here will not be let in later either.
            (_, Reply::Error(error)) if error.code() == b"NOAUTH" => Verdict::Refused,
            (Self::Info | Self::Kill, _) => Verdict::Accepted,
            (Self::Ping | Self::SetName | Self::SetInfo, Reply::Error(_)) => Verdict::Accepted,
            (Self::Ping, Reply::Simple(_)) => Verdict::Accepted,
            (Self::Auth | Self::Select | Self::SetName | Self::SetInfo, reply) if reply.is_ok() => {
                Verdict::Accepted
            }
            _ => Verdict::Nonsense,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Auth => "AUTH",
            Self::Ping => "PING",
            Self::Select => "SELECT",
            Self::SetName => "CLIENT SETNAME",
            Self::SetInfo => "CLIENT SETINFO",
            Self::Info => "CLIENT INFO",
            Self::Kill => "CLIENT KILL",
        }
    }
}

/// Whether a refused HELLO leaves RESP2 to be tried: the server, or the ACL, knows nothing newer.
fn speaks_resp2(error: &ServerError) -> bool {
    error.class() == ErrorClass::Unsupported || error.code() == b"NOPERM"
}

/// What somebody can do about a refusal, where its words do not say it.
fn remedy(during: &str, error: &ServerError) -> &'static str {
    match (error.class(), error.code()) {
        (ErrorClass::Auth, b"NOAUTH") => " (it wants a password: give it one)",
        (ErrorClass::Auth, b"NOPERM") => " (give this user the right to it)",
        (ErrorClass::Auth, b"DENIED") => " (set a password on the server, or connect from its own machine)",
        // `AUTH`, where no password is set.
        (ErrorClass::Auth, b"ERR") if !error.message().eq_ignore_ascii_case(b"invalid password") => {
            " (it has no password: give none)"
        }
        (ErrorClass::Auth, _) => " (check user and password)",
        (ErrorClass::Transient, b"ERR") => " (raise its maxclients, or make fewer connections)",
        (ErrorClass::Caller, _) if during == "SELECT" => " (check the number of the database)",
        _ => "",
    }
}

/// The error as it may be shown: servers are known that quote what they were sent.
fn hide_password(config: &HandshakeConfig, error: &ServerError) -> ServerError {
    let Some(credentials) = &config.credentials else { return error.clone() };
    let password = credentials.password.expose();
    let repeats =
        |text: &[u8]| !password.is_empty() && text.windows(password.len()).any(|part| part == password);
    if !repeats(error.message()) && !repeats(error.code()) {
        return error.clone();
    }
    let code = if repeats(error.code()) { b"ERR" } else { error.code() };
    ServerError::new([code, b" (its words are hidden: they repeat the password)"].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credentials;
    use crate::resp::{Decoder, Limits};
    use bytes::BytesMut;
    use std::string::String;
    use std::vec;

    fn reply(wire: &str) -> Reply {
        let mut replies = Vec::new();
        Decoder::new(Limits::default())
            .decode(&mut BytesMut::from(wire), &mut replies)
            .expect("a valid reply");
        replies.remove(0)
    }

    /// The commands in `wire`, as words.
    fn words(wire: &[u8]) -> Vec<String> {
        let mut replies = Vec::new();
        Decoder::new(Limits::default())
            .decode(&mut BytesMut::from(wire), &mut replies)
            .expect("valid commands");
        let text = |reply: &Reply| String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned();
        replies
            .iter()
            .map(|command| match command {
                Reply::Array(words) => words.iter().map(text).collect::<Vec<_>>().join(" "),
                other => panic!("not a command: {other:?}"),
            })
            .collect()
    }

    fn config(password: bool, database: u32) -> HandshakeConfig {
        HandshakeConfig {
            credentials: password.then(|| Credentials { username: None, password: "pw".into() }),
            database,
            client_name: Some("me".into()),
        }
    }

    const INFO: [&str; 3] = [
        "CLIENT SETINFO LIB-NAME larder",
        concat!("CLIENT SETINFO LIB-VER ", env!("CARGO_PKG_VERSION")),
        "CLIENT INFO",
    ];
    const KILL: &str = "CLIENT KILL ID 18 ADDR 10.0.0.1:4711";

    fn predecessor() -> Identity {
        Identity { id: 18, addr: b"10.0.0.1:4711"[..].into() }
    }
    const HELLO_OK: &str = "%1\r\n+proto\r\n:3\r\n";

    /// Every transition of the diagram: what the server says, what we say to that, and how it ends.
    #[test]
    fn the_dialogue_follows_the_diagram() {
        let resp3 = vec![(HELLO_OK, vec!["SELECT 2", INFO[0], INFO[1], INFO[2], KILL])];
        let resp2 = |refusal| {
            vec![
                (refusal, vec!["AUTH pw"]),
                ("+OK\r\n", vec!["SELECT 2", "CLIENT SETNAME me", INFO[0], INFO[1], INFO[2], KILL]),
            ]
        };
        for (mut script, courtesies) in [
            (resp3, 4),
            (resp2("-NOPROTO unsupported protocol version\r\n"), 5),
            (resp2("-ERR unknown command 'HELLO'\r\n"), 5),
            (resp2("-NOPERM this user has no permissions to run the 'hello' command\r\n"), 5),
        ] {
            let config = config(true, 2);
            let mut out = Vec::new();
            let mut handshake = Handshake::start(&config, Some(predecessor()), &mut out);
            assert_eq!(words(&out), ["HELLO 3 AUTH default pw SETNAME me"]);
            script.push(("+OK\r\n", vec![])); // SELECT
            script.extend(vec![("-ERR unknown subcommand\r\n", vec![]); courtesies]);
            let last = script.len() - 1;
            for (at, (said, answer)) in script.into_iter().enumerate() {
                out.clear();
                let progress = handshake.handle_reply(&config, &reply(said), &mut out).expect("no refusal");
                assert_eq!(words(&out), answer, "after {said:?}");
                let expected = match at == last {
                    true => Progress::Done { identity: None, fenced: false },
                    false => Progress::Continue,
                };
                assert_eq!(progress, expected, "after {said:?}");
            }
        }
    }

    /// Every row of the table against every kind of reply.
    #[test]
    fn each_step_judges_as_the_table_says() {
        use Step::{Auth, Hello, Info, Kill, Ping, Select, SetInfo, SetName};
        use Verdict::{Accepted, Nonsense, Refused, Resp2};

        let steps = [Hello, Auth, Select, Ping, SetName, SetInfo];
        for (said, expected) in [
            (HELLO_OK, [Accepted, Nonsense, Nonsense, Nonsense, Nonsense, Nonsense]),
            ("*2\r\n+proto\r\n:2\r\n", [Accepted, Nonsense, Nonsense, Nonsense, Nonsense, Nonsense]),
            ("+OK\r\n", [Nonsense, Accepted, Accepted, Accepted, Accepted, Accepted]),
            (
                "-NOPROTO unsupported protocol version\r\n",
                [Resp2, Refused, Refused, Accepted, Accepted, Accepted],
            ),
            (
                "-NOPERM no permissions to run this command\r\n",
                [Resp2, Refused, Refused, Accepted, Accepted, Accepted],
            ),
            ("-ERR unknown command 'X'\r\n", [Resp2, Refused, Refused, Accepted, Accepted, Accepted]),
            ("-ERR syntax error\r\n", [Refused, Refused, Refused, Accepted, Accepted, Accepted]),
            ("-NOAUTH Authentication required.\r\n", [Refused, Refused, Refused, Refused, Refused, Refused]),
            ("-WRONGPASS invalid\r\n", [Refused, Refused, Refused, Accepted, Accepted, Accepted]),
            ("-LOADING Redis is loading\r\n", [Refused, Refused, Refused, Accepted, Accepted, Accepted]),
            ("!11\r\nERR another\r\n", [Refused, Refused, Refused, Accepted, Accepted, Accepted]),
            ("+PONG\r\n", [Nonsense, Nonsense, Nonsense, Accepted, Nonsense, Nonsense]),
            ("$2\r\nOK\r\n", [Nonsense; 6]),
            (":1\r\n", [Nonsense; 6]),
            ("_\r\n", [Nonsense; 6]),
            ("$-1\r\n", [Nonsense; 6]),
            ("*-1\r\n", [Nonsense; 6]),
            ("#t\r\n", [Nonsense; 6]),
            ("~0\r\n", [Nonsense; 6]),
        ] {
            assert_eq!(steps.map(|step| step.judge(&reply(said))), expected, "{said:?}");
            let anything = if said.starts_with("-NOAUTH") { Refused } else { Accepted };
            assert_eq!([Info, Kill].map(|step| step.judge(&reply(said))), [anything; 2], "{said:?}");
        }
    }

    /// An old server with a password, and a client without: it would serve nothing.
    #[test]
    fn an_old_server_that_wants_a_password_is_found_out() {
        let config = HandshakeConfig::default();
        let mut handshake = Handshake::start(&config, None, &mut Vec::new());
        let mut say = |said| handshake.handle_reply(&config, &reply(said), &mut Vec::new());
        assert_eq!(say("-ERR unknown command 'HELLO'\r\n"), Ok(Progress::Continue));
        let error = say("-NOAUTH Authentication required.\r\n").expect_err("nothing will be served");
        assert!(error.is_configuration() && std::format!("{error}").contains("give it one"), "{error}");
    }

    #[test]
    fn a_refusal_names_its_remedy() {
        for (during, line, remedy) in [
            ("HELLO", "NOAUTH HELLO must be called with the client already authenticated", "give it one"),
            (
                "HELLO",
                "WRONGPASS invalid username-password pair or user is disabled.",
                "check user and password",
            ),
            ("AUTH", "ERR invalid password", "check user and password"),
            ("AUTH", "ERR Client sent AUTH, but no password is set", "give none"),
            ("AUTH", "ERR AUTH <password> called without any password configured", "give none"),
            ("SELECT", "NOPERM this user has no permissions to run the 'select' command", "the right to it"),
            ("SELECT", "ERR DB index is out of range", "number of the database"),
            ("the connection", "DENIED Redis is running in protected mode", "its own machine"),
            ("the connection", "ERR max number of clients reached", "maxclients"),
        ] {
            let error = ServerError::new(line.into());
            let shown = std::format!("{}", HandshakeError::Refused { during, error });
            assert!(shown.starts_with(&std::format!("the server refused {during}: {line} (")), "{shown}");
            assert!(shown.contains(remedy), "{shown}");
        }
        let error = ServerError::new("LOADING Redis is loading the dataset in memory".into());
        let shown = std::format!("{}", HandshakeError::Refused { during: "HELLO", error });
        assert_eq!(shown, "the server refused HELLO: LOADING Redis is loading the dataset in memory");
    }

    #[test]
    fn without_password_and_database_there_is_nothing_to_authenticate_or_select() {
        let config = HandshakeConfig::default();
        let mut out = Vec::new();
        let mut handshake = Handshake::start(&config, None, &mut out);
        assert_eq!(words(&out), ["HELLO 3"]);
        out.clear();
        handshake.handle_reply(&config, &reply("-ERR unknown command\r\n"), &mut out).expect("falls back");
        assert_eq!(words(&out), ["PING", INFO[0], INFO[1], INFO[2]]);
    }

    /// What a handshake whose KILL is answered so ends with.
    #[test]
    fn the_predecessor_is_fenced_where_the_server_counts_whom_it_ended() {
        for (said, expected) in [
            (":1\r\n", true),
            (":0\r\n", true),
            ("+OK\r\n", false),
            ("$1\r\n1\r\n", false),
            ("_\r\n", false),
            ("-NOPERM this user has no permissions to run the 'client|kill' command\r\n", false),
            ("-ERR syntax error\r\n", false),
            ("-ERR unknown command 'CLIENT'\r\n", false),
            ("-READONLY You can't write against a read only replica.\r\n", false),
            ("-LOADING Redis is loading the dataset in memory\r\n", false),
            ("-BUSY Redis is busy running a script.\r\n", false),
        ] {
            let config = HandshakeConfig::default();
            let mut handshake = Handshake::start(&config, Some(predecessor()), &mut Vec::new());
            let mut say = |said| handshake.handle_reply(&config, &reply(said), &mut Vec::new());
            for before in [HELLO_OK, "+OK\r\n", "+OK\r\n", "$2\r\nno\r\n"] {
                assert_eq!(say(before), Ok(Progress::Continue));
            }
            assert_eq!(say(said), Ok(Progress::Done { identity: None, fenced: expected }), "{said:?}");
        }
    }

    #[test]
    fn an_identity_is_a_number_and_the_address_of_a_host() {
        let text = |text: &str| Reply::Bulk(bytes::Bytes::copy_from_slice(text.as_bytes()));
        let known = |addr: &[u8]| Some(Identity { id: 5, addr: addr.into() });
        let long = "1".repeat(MAX_ADDRESS);
        for (said, expected) in [
            ("id=5 addr=127.0.0.1:43210 laddr=127.0.0.1:6379 fd=8 name=", known(b"127.0.0.1:43210")),
            ("laddr=10.0.0.9:6379 addr=[::1]:9 name=id=7 id=5\n", known(b"[::1]:9")),
            (
                "laddr=10.0.0.9:6379 addr=[fe80::1%eth0]:65535 id=5 cmd=client|info",
                known(b"[fe80::1%eth0]:65535"),
            ),
            ("id=5 addr=/run/redis.sock:0 laddr=/run/redis.sock:0", None),
            ("id=5 addr=?:0", None),
            ("id=5 addr=127.0.0.1:65536", None),
            ("id=5 addr=127.0.0.1:", None),
            ("id=5 addr=:80", None),
            ("id=5 addr=localhost", None),
            ("id=5 addr=", None),
            ("id=5 laddr=127.0.0.1:43210", None),
            ("id= addr=127.0.0.1:43210", None),
            ("id=-5 addr=127.0.0.1:43210", None),
            ("id=18446744073709551616 addr=127.0.0.1:43210", None),
            ("addr=127.0.0.1:43210", None),
            (&std::format!("id=5 addr={long}:1"), None),
            ("", None),
        ] {
            assert_eq!(Identity::from_reply(&text(said)), expected, "{said:?}");
        }
        let verbatim = reply("=29\r\ntxt:id=5 addr=127.0.0.1:43210\r\n");
        assert_eq!(Identity::from_reply(&verbatim), known(b"127.0.0.1:43210"));
        let status = Reply::Simple("id=5 addr=127.0.0.1:43210".into());
        assert_eq!(Identity::from_reply(&status), None, "no Redis says it so");
    }

    #[test]
    fn refusals_and_nonsense_end_it() {
        for (said, configuration) in [
            ("-WRONGPASS invalid username-password pair\r\n", true),
            ("-NOAUTH HELLO must be called with the client already authenticated\r\n", true),
            ("-LOADING Redis is loading the dataset in memory\r\n", false),
            ("-ERR max number of clients reached\r\n", false),
            ("+OK\r\n", false),
        ] {
            let config = config(true, 0);
            let mut handshake = Handshake::start(&config, None, &mut Vec::new());
            let error = handshake.handle_reply(&config, &reply(said), &mut Vec::new()).expect_err(said);
            assert_eq!(error.is_configuration(), configuration, "{said:?}");
        }
    }

    /// Found by fuzzing: not every server quotes in the words of a Redis.
    #[test]
    fn regression_a_refusal_that_quotes_the_password_is_not_repeated() {
        let config = config(true, 0);
        let mut handshake = Handshake::start(&config, None, &mut Vec::new());
        let error = handshake
            .handle_reply(&config, &reply("-WRONGPASS no, `pw` it is not\r\n"), &mut Vec::new())
            .expect_err("refused");
        let shown = std::format!("{error} {error:?}");
        assert!(shown.contains("WRONGPASS") && !shown.contains("`pw`"), "{shown}");
        assert!(error.is_configuration());
    }

    #[test]
    fn a_refused_database_is_an_error_of_configuration() {
        let config = config(false, 99);
        let mut handshake = Handshake::start(&config, None, &mut Vec::new());
        handshake.handle_reply(&config, &reply(HELLO_OK), &mut Vec::new()).expect("HELLO is fine");
        let error = handshake
            .handle_reply(&config, &reply("-ERR DB index is out of range\r\n"), &mut Vec::new())
            .expect_err("no such database");
        assert!(error.is_configuration());
        assert!(std::format!("{error}").contains("SELECT"), "{error}");
    }
}
