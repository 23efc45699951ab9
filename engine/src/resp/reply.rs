//! What a server answers.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{ReplyError, ServerError};

/// One reply of a server, RESP2 or RESP3.
///
/// Byte strings are slices of the buffer they were read into and keep all of it alive: copy what is to be kept.
/// Attributes (`|`) are dropped. Comparison is by value, so a NaN equals nothing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// `+`: a status such as `OK`.
    Simple(Bytes),
    /// `-` and `!`: the server refused.
    Error(ServerError),
    /// `:`
    Integer(i64),
    /// `$`: any bytes.
    Bulk(Bytes),
    /// `_`, and RESP2's `$-1` and `*-1`.
    Null,
    /// `#`
    Boolean(bool),
    /// `,`
    Double(f64),
    /// `(`: the digits, with their sign if there was one.
    BigNumber(Bytes),
    /// `=`: text with a hint how to show it.
    Verbatim {
        /// `txt`, `mkd`, or whatever else the server says.
        format: [u8; 3],
        /// The text without the hint.
        text: Bytes,
    },
    /// `*`
    Array(Vec<Self>),
    /// `~`: as sent, neither sorted nor freed of duplicates.
    Set(Vec<Self>),
    /// `%`: pairs as sent, neither sorted nor freed of duplicates.
    Map(Vec<(Self, Self)>),
    /// `>`: not an answer to anything; it may arrive between any two replies.
    Push(Vec<Self>),
}

impl Reply {
    /// The bytes of a simple string, bulk string, verbatim text or big number.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) | Self::BigNumber(bytes) => Some(bytes),
            Self::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Like [`Reply::as_bytes`], without a copy and without keeping the reply.
    #[must_use]
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) | Self::BigNumber(bytes) => Some(bytes),
            Self::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The number of an integer reply.
    #[must_use]
    pub const fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether this is a simple string `OK`.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Simple(status) if status.as_ref() == b"OK")
    }

    /// Takes a reply to `SCAN` apart: the cursor to go on with (opaque; zero after the last page) and a page of keys,
    /// which may be empty before the end.
    ///
    /// # Errors
    /// The server's own error, or that the reply is not `[cursor, [key, …]]`.
    pub fn into_scan(self) -> Result<(u64, Vec<Bytes>), ReplyError> {
        const WANTED: &str = "a cursor and an array of keys";
        let unexpected = |got: &Self| ReplyError::Unexpected { wanted: WANTED, got: got.kind() };

        let page = match self {
            Self::Array(page) => page,
            Self::Error(error) => return Err(ReplyError::Server(error)),
            other => return Err(unexpected(&other)),
        };
        let mut parts = page.into_iter();
        let (Some(cursor), Some(keys), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ReplyError::Unexpected { wanted: WANTED, got: "an array of another length" });
        };
        let number = cursor.as_bytes().and_then(cursor_of).ok_or(ReplyError::BadCursor)?;
        let Self::Array(keys) = keys else { return Err(unexpected(&keys)) };
        let keys = keys.into_iter().map(|key| {
            let kind = key.kind();
            key.into_bytes().ok_or(ReplyError::Unexpected { wanted: "a key", got: kind })
        });
        Ok((number, keys.collect::<Result<_, _>>()?))
    }

    /// What kind of reply this is, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Simple(_) => "a simple string",
            Self::Error(_) => "an error",
            Self::Integer(_) => "an integer",
            Self::Bulk(_) => "a bulk string",
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Double(_) => "a double",
            Self::BigNumber(_) => "a big number",
            Self::Verbatim { .. } => "a verbatim string",
            Self::Array(_) => "an array",
            Self::Set(_) => "a set",
            Self::Map(_) => "a map",
            Self::Push(_) => "a push",
        }
    }
}

fn cursor_of(text: &[u8]) -> Option<u64> {
    if text.first() == Some(&b'+') {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::super::testing::reply_of;
    use super::*;

    fn scan_of(stream: &str) -> Result<(u64, Vec<Bytes>), ReplyError> {
        reply_of(stream).into_scan()
    }

    #[test]
    fn scan_pages() {
        assert_eq!(scan_of("*2\r\n$1\r\n0\r\n*0\r\n"), Ok((0, vec![])));
        let page = scan_of("*2\r\n$20\r\n18446744073709551615\r\n*2\r\n$1\r\na\r\n$2\r\n\r\n\r\n");
        assert_eq!(page, Ok((u64::MAX, vec!["a".into(), "\r\n".into()])));
    }

    #[test]
    fn what_is_no_scan_page_says_why() {
        for cursor in ["", "-1", "+1", " 1", "1 ", "x", "18446744073709551616", "1e3"] {
            let stream = std::format!("*2\r\n${}\r\n{cursor}\r\n*0\r\n", cursor.len());
            assert_eq!(scan_of(&stream), Err(ReplyError::BadCursor), "{cursor:?}");
        }
        let refused = ServerError::new("NOPERM no".into());
        assert_eq!(scan_of("-NOPERM no\r\n"), Err(ReplyError::Server(refused)));
        for (stream, got) in [
            ("+OK\r\n", "a simple string"),
            ("_\r\n", "null"),
            ("*0\r\n", "an array of another length"),
            ("*1\r\n$1\r\n0\r\n", "an array of another length"),
            ("*3\r\n$1\r\n0\r\n*0\r\n*0\r\n", "an array of another length"),
            ("*2\r\n$1\r\n0\r\n*-1\r\n", "null"),
            ("*2\r\n$1\r\n0\r\n%0\r\n", "a map"),
            ("*2\r\n$1\r\n0\r\n*1\r\n*0\r\n", "an array"),
            ("*2\r\n$1\r\n0\r\n*1\r\n$-1\r\n", "null"),
        ] {
            let Err(ReplyError::Unexpected { got: said, .. }) = scan_of(stream) else { panic!("{stream:?}") };
            assert_eq!(said, got, "{stream:?}");
        }
    }

    #[test]
    fn accessors_of_every_kind() {
        let text = "txt";
        for (stream, bytes, kind) in [
            ("+txt\r\n", Some(text), "a simple string"),
            ("$3\r\ntxt\r\n", Some(text), "a bulk string"),
            ("=7\r\nmkd:txt\r\n", Some(text), "a verbatim string"),
            ("(123\r\n", Some("123"), "a big number"),
            ("-txt\r\n", None, "an error"),
            ("!3\r\ntxt\r\n", None, "an error"),
            (":1\r\n", None, "an integer"),
            ("_\r\n", None, "null"),
            ("#t\r\n", None, "a boolean"),
            (",1\r\n", None, "a double"),
            ("*0\r\n", None, "an array"),
            ("~0\r\n", None, "a set"),
            ("%0\r\n", None, "a map"),
            (">0\r\n", None, "a push"),
        ] {
            let reply = reply_of(stream);
            assert_eq!(reply.as_bytes(), bytes.map(str::as_bytes), "{stream:?}");
            assert_eq!(reply.kind(), kind);
            assert_eq!(reply.as_integer(), (stream == ":1\r\n").then_some(1));
            assert!(!reply.is_ok());
            assert_eq!(reply.into_bytes().as_deref(), bytes.map(str::as_bytes));
        }
        assert!(reply_of("+OK\r\n").is_ok());
        assert!(!reply_of("$2\r\nOK\r\n").is_ok());
    }
}
