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
//!     +------------no password-------------+
//! ```
//!
//! `HELLO` carries AUTH and SETNAME, so that a current server needs one round trip before SETUP, which is one
//! more: SELECT (where the database is not 0), SETNAME (only in RESP2) and SETINFO travel together. HELLO and
//! AUTH travel alone: servers are known that drop the reply of an AUTH that was pipelined behind another
//! command (redis/redis#15640). Every command has its own slot for its reply; SETINFO and SETNAME may be
//! refused.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::config::HandshakeConfig;
use crate::resp::{Command, ErrorClass, Reply, ServerError};

/// Where a reply in the handshake belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Hello,
    Auth,
    /// Must succeed.
    Select,
    /// May fail: an old server does not know it, or an ACL forbids it.
    Courtesy,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Continue,
    Done,
}

/// Why a connection is not used although it was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server refused, in its own words.
    #[error("the server refused {during}: {error}")]
    Refused {
        /// The command it refused.
        during: &'static str,
        /// What it said.
        error: ServerError,
    },
    /// The server answered what no Redis answers to this command.
    #[error("the server's answer to {during} is not one of a Redis server")]
    Unexpected {
        /// The command it answered.
        during: &'static str,
    },
}

impl HandshakeError {
    /// The server spoke before it was asked: a full or protected one says so, and hangs up.
    pub(crate) fn unasked(config: &HandshakeConfig, reply: &Reply) -> Self {
        match reply {
            Reply::Error(error) => {
                Self::Refused { during: "the connection", error: hide_password(config, error) }
            }
            _ => Self::Unexpected { during: "nothing" },
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
            Self::Unexpected { .. } => false,
        }
    }
}

/// The dialogue itself: replies in, bytes out.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// What the server still owes, in order.
    expected: VecDeque<Slot>,
}

impl Handshake {
    pub(crate) fn start(config: &HandshakeConfig, out: &mut Vec<u8>) -> Self {
        let auth = config.credentials.as_ref().map(|credentials| {
            // HELLO's AUTH always names a user; a password alone is that of `default`.
            (credentials.username.as_deref().unwrap_or(b"default"), credentials.password.expose())
        });
        Command::Hello { version: 3, auth, client_name: config.client_name.as_deref() }.encode(out);
        Self { expected: VecDeque::from([Slot::Hello]) }
    }

    pub(crate) fn handle_reply(
        &mut self,
        config: &HandshakeConfig,
        reply: &Reply,
        out: &mut Vec<u8>,
    ) -> Result<Progress, HandshakeError> {
        let Some(slot) = self.expected.pop_front() else {
            return Err(HandshakeError::Unexpected { during: "nothing" });
        };
        match (slot, reply) {
            (Slot::Hello, Reply::Error(error)) if Self::wants_resp2(error) => {
                self.continue_in_resp2(config, out);
            }
            (Slot::Hello, Reply::Map(_) | Reply::Array(_)) => self.set_up(config, false, out),
            (Slot::Auth, Reply::Simple(_)) => self.set_up(config, true, out),
            (Slot::Select, Reply::Simple(_)) | (Slot::Courtesy, _) => {}
            (slot, Reply::Error(error)) => {
                return Err(HandshakeError::Refused {
                    during: slot.name(),
                    error: hide_password(config, error),
                });
            }
            (slot, _) => return Err(HandshakeError::Unexpected { during: slot.name() }),
        }
        Ok(if self.expected.is_empty() { Progress::Done } else { Progress::Continue })
    }

    fn wants_resp2(error: &ServerError) -> bool {
        error.class() == ErrorClass::Unsupported || error.code() == b"NOPERM"
    }

    fn continue_in_resp2(&mut self, config: &HandshakeConfig, out: &mut Vec<u8>) {
        match &config.credentials {
            Some(credentials) => {
                let username = credentials.username.as_deref();
                Command::Auth { username, password: credentials.password.expose() }.encode(out);
                self.expected.push_back(Slot::Auth);
            }
            None => self.set_up(config, true, out),
        }
    }

    fn set_up(&mut self, config: &HandshakeConfig, resp2: bool, out: &mut Vec<u8>) {
        if config.database != 0 {
            Command::Select(config.database).encode(out);
            self.expected.push_back(Slot::Select);
        }
        if let (true, Some(name)) = (resp2, &config.client_name) {
            Command::ClientSetName(name).encode(out);
            self.expected.push_back(Slot::Courtesy);
        }
        for (attribute, value) in [("LIB-NAME", "larder"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            Command::ClientSetInfo { attribute: attribute.as_bytes(), value: value.as_bytes() }.encode(out);
            self.expected.push_back(Slot::Courtesy);
        }
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

impl Slot {
    const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Auth => "AUTH",
            Self::Select => "SELECT",
            Self::Courtesy => "CLIENT",
        }
    }
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

    const INFO: [&str; 2] =
        ["CLIENT SETINFO LIB-NAME larder", concat!("CLIENT SETINFO LIB-VER ", env!("CARGO_PKG_VERSION"))];
    const HELLO_OK: &str = "%1\r\n+proto\r\n:3\r\n";

    /// Every transition of the diagram: what the server says, what we say to that, and how it ends.
    #[test]
    fn the_dialogue_follows_the_diagram() {
        let resp3 = vec![(HELLO_OK, vec!["SELECT 2", INFO[0], INFO[1]])];
        let resp2 = |refusal| {
            vec![
                (refusal, vec!["AUTH pw"]),
                ("+OK\r\n", vec!["SELECT 2", "CLIENT SETNAME me", INFO[0], INFO[1]]),
            ]
        };
        for (mut script, courtesies) in [
            (resp3, 2),
            (resp2("-NOPROTO unsupported protocol version\r\n"), 3),
            (resp2("-ERR unknown command 'HELLO'\r\n"), 3),
            (resp2("-NOPERM this user has no permissions to run the 'hello' command\r\n"), 3),
        ] {
            let config = config(true, 2);
            let mut out = Vec::new();
            let mut handshake = Handshake::start(&config, &mut out);
            assert_eq!(words(&out), ["HELLO 3 AUTH default pw SETNAME me"]);
            script.push(("+OK\r\n", vec![])); // SELECT
            script.extend(vec![("-ERR unknown subcommand\r\n", vec![]); courtesies]);
            let last = script.len() - 1;
            for (at, (said, answer)) in script.into_iter().enumerate() {
                out.clear();
                let progress = handshake.handle_reply(&config, &reply(said), &mut out).expect("no refusal");
                assert_eq!(words(&out), answer, "after {said:?}");
                assert_eq!(progress == Progress::Done, at == last, "after {said:?}");
            }
        }
    }

    #[test]
    fn without_password_and_database_there_is_nothing_to_authenticate_or_select() {
        let config = HandshakeConfig::default();
        let mut out = Vec::new();
        let mut handshake = Handshake::start(&config, &mut out);
        assert_eq!(words(&out), ["HELLO 3"]);
        out.clear();
        handshake.handle_reply(&config, &reply("-ERR unknown command\r\n"), &mut out).expect("falls back");
        assert_eq!(words(&out), INFO);
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
            let mut handshake = Handshake::start(&config, &mut Vec::new());
            let error = handshake.handle_reply(&config, &reply(said), &mut Vec::new()).expect_err(said);
            assert_eq!(error.is_configuration(), configuration, "{said:?}");
        }
    }

    /// Found by fuzzing: not every server quotes in the words of a Redis.
    #[test]
    fn regression_a_refusal_that_quotes_the_password_is_not_repeated() {
        let config = config(true, 0);
        let mut handshake = Handshake::start(&config, &mut Vec::new());
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
        let mut handshake = Handshake::start(&config, &mut Vec::new());
        handshake.handle_reply(&config, &reply(HELLO_OK), &mut Vec::new()).expect("HELLO is fine");
        let error = handshake
            .handle_reply(&config, &reply("-ERR DB index is out of range\r\n"), &mut Vec::new())
            .expect_err("no such database");
        assert!(error.is_configuration());
        assert!(std::format!("{error}").contains("SELECT"), "{error}");
    }
}
