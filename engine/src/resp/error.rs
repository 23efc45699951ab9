//! What can be wrong: with a reply (the server refused), or with the stream (it is not RESP, or too much of it).

use core::fmt::{self, Write};

use bytes::Bytes;
use thiserror::Error;

/// An error line of the server, without its type byte and line end. It is bytes: a server quotes what it was sent,
/// UTF-8 or not.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError(pub(super) Bytes);

impl ServerError {
    /// Wraps the line.
    #[must_use]
    pub const fn new(line: Bytes) -> Self {
        Self(line)
    }

    /// The whole line.
    pub(crate) fn line(&self) -> &[u8] {
        &self.0
    }

    /// The first word, if it is an upper-case word such as `WRONGTYPE`; otherwise `ERR`.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.split().0
    }

    /// What follows the code, as the server sent it: of any length, and old servers quote the password of a `HELLO`
    /// they do not know. To show the error use its `Display`.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.split().1
    }

    /// What the error means for the command, the connection and the circuit breaker.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        let (code, message) = self.split();
        let says = |start: &[u8]| message.get(..start.len()).is_some_and(|m| m.eq_ignore_ascii_case(start));
        match code {
            b"LOADING" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" | b"MASTERDOWN" => ErrorClass::Transient,
            b"MOVED" | b"ASK" | b"READONLY" => ErrorClass::Topology,
            b"OOM" | b"MISCONF" | b"NOREPLICAS" => ErrorClass::Capacity,
            // DENIED: protected mode. The `ERR` lines below: servers before 6.0, and AUTH where no password is set.
            b"NOAUTH" | b"WRONGPASS" | b"NOPERM" | b"DENIED" => ErrorClass::Auth,
            b"NOPROTO" => ErrorClass::Unsupported,
            b"ERR" if says(b"max number of clients") => ErrorClass::Transient,
            b"ERR" if says(b"invalid password") || says(b"client sent auth") || says(b"auth <password>") => {
                ErrorClass::Auth
            }
            b"ERR" if says(b"unknown command") || says(b"unknown subcommand") => ErrorClass::Unsupported,
            _ => ErrorClass::Caller,
        }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let is_code = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
        let length = self.0.iter().position(|&byte| byte == b' ').unwrap_or(self.0.len());
        match self.0.split_at_checked(length) {
            Some((code @ [b'A'..=b'Z', ..], rest)) if code.iter().all(is_code) => {
                (code, rest.get(1..).unwrap_or_default())
            }
            _ => (b"ERR", &self.0),
        }
    }
}

/// The line as text: what is not printable or not UTF-8 is escaped, what is longer than 256 bytes is cut, and the
/// arguments that a server quotes after `unknown command` are left out, because old servers quote the password
/// of a `HELLO … AUTH` they do not know.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const QUOTES: &[u8] = b"with args beginning with:";
        const LONGEST: usize = 256;

        let shown = self.0.get(..LONGEST).unwrap_or(&self.0);
        let quoted = shown.windows(QUOTES.len()).position(|window| window.eq_ignore_ascii_case(QUOTES));
        let shown = quoted.and_then(|at| shown.get(..at + QUOTES.len())).unwrap_or(shown);
        for chunk in shown.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    // Printable, but for `escape_debug` in need of a backslash.
                    '"' | '\'' | '\\' => f.write_char(char)?,
                    _ => write!(f, "{}", char.escape_debug())?,
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        if shown.len() < self.0.len() {
            f.write_str(if quoted.is_some() { " (hidden)" } else { "…" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerError({self})")
    }
}

impl core::error::Error for ServerError {}

/// What an error reply means, for everyone who has to decide what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The server cannot now, but will: `LOADING`, `BUSY`, `TRYAGAIN`, `CLUSTERDOWN`, `MASTERDOWN`, too many clients.
    /// Not executed, so anything may be tried again.
    Transient,
    /// Another server has to be asked: `MOVED`, `ASK`, and `READONLY` after a failover. Not executed.
    Topology,
    /// The server is well but takes no writes: `OOM`, `MISCONF`, `NOREPLICAS`. Not executed.
    Capacity,
    /// Credentials or rights: `NOAUTH`, `WRONGPASS`, `NOPERM`, protected mode. Not executed; needs an operator.
    Auth,
    /// The server does not know the command or protocol version: `NOPROTO`, unknown command. Not executed.
    Unsupported,
    /// The caller's mistake, such as `WRONGTYPE`, and everything not named above. The server itself is healthy.
    Caller,
}

/// A stream that cannot be read on: its connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("at byte {offset} of what the server sent: {violation}")]
pub struct DecodeError {
    /// Where the offending token begins, counted from the first byte of the connection. Where the line end behind a
    /// bulk string is wrong it is the place of that line end.
    pub offset: u64,
    /// What is wrong there.
    pub violation: Violation,
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A byte that begins no reply: another protocol, or framing lost.
    #[error("'{}' begins no RESP reply{}", .0.escape_ascii(), whose_else(*.0))]
    UnknownType(u8),
    /// A line that is not what its type byte says.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A line with a CR or LF on its own.
    #[error("a line does not end in CR LF")]
    LineEnd,
    /// Something other than CR LF after a bulk string.
    #[error("a bulk string is not followed by CR LF")]
    BulkEnd,
    /// Strings and aggregates of unannounced length, which Redis does not send.
    #[error("streamed replies are not supported")]
    Streamed,
    /// A push inside another reply.
    #[error("a push interrupts a reply")]
    NestedPush,
    /// Over [`Limits::depth`](super::Limits::depth).
    #[error("a reply is nested deeper than the limit of {limit}")]
    Depth {
        /// The limit.
        limit: u32,
    },
    /// Over [`Limits::line`](super::Limits::line).
    #[error("a line is longer than the limit of {limit} bytes")]
    Line {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::bulk`](super::Limits::bulk).
    #[error("a bulk string is longer than the limit of {limit} bytes")]
    Bulk {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::elements`](super::Limits::elements).
    #[error("a reply has more elements than the limit of {limit}")]
    Elements {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::frame`](super::Limits::frame).
    #[error("a reply is longer than the limit of {limit} bytes")]
    Frame {
        /// The limit.
        limit: usize,
    },
}

impl Violation {
    /// Whether the stream was well-formed as far as it was read, but too much for a limit that can be raised.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::Depth { .. }
                | Self::Line { .. }
                | Self::Bulk { .. }
                | Self::Elements { .. }
                | Self::Frame { .. }
        )
    }
}

/// Who begins what it says with this byte, and what to do about that: the usual ones behind a wrong port.
const fn whose_else(byte: u8) -> &'static str {
    match byte {
        b'H' => ", though it begins those of HTTP: is this the port of a web server?",
        b'S' => ", though it begins the greeting of SSH: is this the right port?",
        b'2' => ", though it begins the greeting of a mail or FTP server: is this the right port?",
        0x15 | 0x16 => ", though it begins a message of TLS: does this port want TLS?",
        _ => ": is this a Redis server, and is TLS on at both ends or neither?",
    }
}

/// A reply that is well-formed but is not the answer that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The server refused.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// Another kind of reply.
    #[error("the server answered {got} instead of {wanted}")]
    Unexpected {
        /// What the command is answered with.
        wanted: &'static str,
        /// What came.
        got: &'static str,
    },
    /// A `SCAN` cursor that is no unsigned 64-bit number.
    #[error("the server answered SCAN with a cursor that is no number")]
    BadCursor,
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::{format, vec};

    use super::*;

    fn error(line: &'static str) -> ServerError {
        ServerError::new(Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn error_classes() {
        use ErrorClass::{Auth, Caller, Capacity, Topology, Transient, Unsupported};

        let lines = [
            (Transient, "LOADING Redis is loading the dataset in memory"),
            (
                Transient,
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            ),
            (Transient, "TRYAGAIN Multiple keys request during rehashing of slot"),
            (Transient, "CLUSTERDOWN The cluster is down"),
            (Transient, "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
            (Transient, "ERR max number of clients reached"),
            (Transient, "ERR max number of clients + cluster connections reached"),
            (Topology, "MOVED 3999 127.0.0.1:6381"),
            (Topology, "MOVED 1 :6379"),
            (Topology, "ASK 3999 127.0.0.1:6381"),
            (Topology, "READONLY You can't write against a read only replica."),
            (Capacity, "OOM command not allowed when used memory > 'maxmemory'."),
            (
                Capacity,
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.",
            ),
            (Capacity, "NOREPLICAS Not enough good replicas to write."),
            (Auth, "NOAUTH Authentication required."),
            (Auth, "NOAUTH HELLO must be called with the client already authenticated"),
            (Auth, "WRONGPASS invalid username-password pair or user is disabled."),
            (Auth, "NOPERM this user has no permissions to run the 'get' command"),
            (Auth, "DENIED Redis is running in protected mode because protected mode is enabled"),
            (Auth, "ERR invalid password"),
            (Auth, "ERR Client sent AUTH, but no password is set"),
            (Auth, "ERR AUTH <password> called without any password configured for the default user."),
            (Unsupported, "NOPROTO unsupported protocol version"),
            (Unsupported, "ERR unknown command 'HELLO', with args beginning with: '3' "),
            (Unsupported, "ERR unknown command `HELLO`, with args beginning with: `3`, "),
            (
                Unsupported,
                "ERR Unknown subcommand or wrong number of arguments for 'SETINFO'. Try CLIENT HELP.",
            ),
            (Unsupported, "ERR unknown subcommand 'SETINFO'. Try CLIENT HELP."),
            (Caller, "WRONGTYPE Operation against a key holding the wrong kind of value"),
            (Caller, "ERR value is not an integer or out of range"),
            (Caller, "ERR syntax error"),
            (Caller, "CROSSSLOT Keys in request don't hash to the same slot"),
            (Caller, "NOSCRIPT No matching script. Please use EVAL."),
            (Caller, "EXECABORT Transaction discarded because of previous errors."),
            (Caller, "ERR Protocol error: invalid bulk length"),
            // Codes are whole words, and messages begin with what identifies them.
            (Caller, "BUSYGROUP Consumer Group name already exists"),
            (Caller, "BUSYKEY Target key name already exists."),
            (Caller, "LOADINGX"),
            (Caller, "loading"),
            (Caller, " LOADING"),
            (Caller, "ERR LOADING"),
            (Caller, "ERR a user's message that says max number of clients"),
            (Caller, "ERR"),
            (Caller, ""),
            // The code alone is enough; a message without a code is an ERR.
            (Transient, "LOADING"),
            (Transient, "max number of clients reached"),
        ];
        for (class, line) in lines {
            assert_eq!(error(line).class(), class, "{line}");
        }
    }

    #[test]
    fn code_and_message() {
        let lines = [
            ("WRONGTYPE Operation against", "WRONGTYPE", "Operation against"),
            ("OOM", "OOM", ""),
            ("OOM ", "OOM", ""),
            ("MOVED  1 :6379", "MOVED", " 1 :6379"),
            ("V2_ERROR what", "V2_ERROR", "what"),
            ("Wrongtype what", "ERR", "Wrongtype what"),
            ("WRONG-TYPE what", "ERR", "WRONG-TYPE what"),
            ("42 is not it", "ERR", "42 is not it"),
            ("_", "ERR", "_"),
            (" ERR what", "ERR", " ERR what"),
            ("", "ERR", ""),
        ];
        for (line, code, message) in lines {
            let error = error(line);
            assert_eq!((error.code(), error.message()), (code.as_bytes(), message.as_bytes()), "{line:?}");
        }
        let binary = ServerError::new(Bytes::from_static(b"ERR\0 \xff"));
        assert_eq!((binary.code(), binary.message()), (&b"ERR"[..], &b"ERR\0 \xff"[..]));
    }

    #[test]
    fn errors_are_shown_printable_and_bounded() {
        let shown = |line: &[u8]| ServerError::new(Bytes::copy_from_slice(line)).to_string();
        assert_eq!(shown(b"ERR plain \"text\", it's \\ fine"), "ERR plain \"text\", it's \\ fine");
        assert_eq!(shown("ERR naïve".as_bytes()), "ERR naïve");
        assert_eq!(shown(b"ERR a\0b\r\nc\x1b[31m\xff"), "ERR a\\0b\\r\\nc\\u{1b}[31m\\xff");
        // Text that changes the order of the text around it.
        assert_eq!(shown("ERR \u{202e}".as_bytes()), "ERR \\u{202e}");

        assert_eq!(shown(&[b'x'; 256]), "x".repeat(256));
        assert_eq!(shown(&[b'x'; 257]), format!("{}…", "x".repeat(256)));
        let huge = shown(&vec![0xff; 1 << 20]);
        assert_eq!(huge, format!("{}…", "\\xff".repeat(256)));
        // Cut within a character.
        assert!(shown("é".repeat(200).as_bytes()).ends_with("é…"));
        assert!(shown(format!("x{}", "é".repeat(200)).as_bytes()).ends_with("é\\xc3…"));
    }

    #[test]
    fn quoted_arguments_are_hidden() {
        let line = "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `sesame`, ";
        let shown = "ERR unknown command `HELLO`, with args beginning with: (hidden)";
        assert_eq!(error(line).to_string(), shown);
        assert_eq!(format!("{:?}", error(line)), format!("ServerError({shown})"));
        // Wherever it stands, nothing behind it is shown.
        for padding in 180..300 {
            let line = format!("ERR {} with args beginning with: sesame", "x".repeat(padding));
            assert!(!ServerError::new(line.into()).to_string().contains("sesame"), "{padding}");
        }
    }

    #[test]
    fn violations_say_which_limit() {
        let error = DecodeError { offset: 17, violation: Violation::Bulk { limit: 64 } };
        let text = "at byte 17 of what the server sent: a bulk string is longer than the limit of 64 bytes";
        assert_eq!(error.to_string(), text);
        assert!(error.violation.is_limit());
        for (byte, start, end) in [
            (b'H', "'H' begins", "HTTP: is this the port of a web server?"),
            (b'S', "'S' begins", "SSH: is this the right port?"),
            (b'2', "'2' begins", "a mail or FTP server: is this the right port?"),
            (0x15, "'\\x15' begins", "TLS: does this port want TLS?"),
            (0x16, "'\\x16' begins", "TLS: does this port want TLS?"),
            (0, "'\\x00' begins", "is this a Redis server, and is TLS on at both ends or neither?"),
        ] {
            let shown = Violation::UnknownType(byte).to_string();
            assert!(shown.starts_with(start) && shown.ends_with(end), "{shown}");
        }
        for violation in
            [Violation::UnknownType(0), Violation::LineEnd, Violation::BulkEnd, Violation::Streamed]
        {
            assert!(!violation.is_limit());
        }
    }
}
