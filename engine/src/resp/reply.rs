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

    /// What a field of a map holds, be it a RESP3 map or RESP2's flat array of fields and values.
    #[must_use]
    pub fn field(&self, name: &[u8]) -> Option<&Self> {
        let is_named = |field: &Self| field.as_bytes() == Some(name);
        match self {
            Self::Map(pairs) => pairs.iter().find(|(field, _)| is_named(field)).map(|(_, value)| value),
            Self::Array(flat) => flat
                .chunks_exact(2)
                .find(|pair| pair.first().is_some_and(is_named))
                .and_then(|pair| pair.get(1)),
            _ => None,
        }
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
