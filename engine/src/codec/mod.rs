//! How a value becomes bytes, and bytes a value again.
//!
//! | | a value is | for |
//! |---|---|---|
//! | [`Codec::Json`] | plain compact JSON | sharing a cache with other languages, and reading it with one's own eyes |
//! | [`Codec::Postcard`] | [postcard] | small values, fast, among programs built from one source |
//! | [`Codec::Raw`] | itself | bytes and strings that are already what is to be stored |
//!
//! None of them adds an envelope, a version or a checksum: what other clients see under the key is the value.
//!
//! Bytes that do not decode are never a fault of the server. Somebody wrote something else there, perhaps an older
//! build of the same program; the caller gets a [`DecodeValueError`] and decides.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

mod json;
mod raw;

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

/// How values are stored.
///
/// ```
/// use larder_engine::codec::Codec;
///
/// let bytes = Codec::Json.encode(&("John", 42, [1.5]))?;
/// assert_eq!(bytes, r#"["John",42,[1.5]]"#);
///
/// let value: (String, u32, Vec<f64>) = Codec::Json.decode(&bytes)?;
/// assert_eq!(value.0, "John");
///
/// let codec: Codec = "raw".parse()?;
/// assert_eq!(codec.encode("as it is")?, "as it is");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON without white space, in UTF-8, the fields in the order of their declaration.
    ///
    /// Reads whatever is JSON and fits the type, to a nesting of 127. `NaN` and the infinities are not JSON: they are
    /// refused when they are written, and undecodable when another program (Python's `json` does so) wrote them.
    #[default]
    Json,
    /// Postcard, a binary format that stores neither names nor types.
    ///
    /// **The declaration is the schema**: adding, removing or reordering the fields of a struct or the variants of an
    /// enum changes the meaning of all stored bytes, and bytes of the old order may well decode as some value of the
    /// new one. Change the namespace when you change the type. Bytes left over after the value are an error, which
    /// catches some of these changes. Types that contain themselves are decoded as deep as the bytes say, so with
    /// those read only bytes that you trust.
    Postcard,
    /// The bytes themselves.
    ///
    /// Takes values that serialize as bytes or as a string, and sequences of `u8` such as `Vec<u8>`; also when a
    /// newtype struct wraps them. Everything else is an error, and so is a string that is not UTF-8 when it is read.
    /// A `Vec<u8>` passes through serde byte by byte; a type that serializes as bytes is copied whole.
    Raw,
}

impl Codec {
    /// Every codec, in the order in which errors list them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Postcard, Self::Raw];

    /// The bytes to store for `value`. One pass, and a buffer that grows.
    ///
    /// # Errors
    /// The codec cannot express the value, or its `Serialize` refused.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, EncodeError> {
        let encoded = match self {
            Self::Json => json::encode(value),
            Self::Postcard => postcard::to_allocvec(value).map(Bytes::from).map_err(Reason::new),
            Self::Raw => value.serialize(raw::Serializer),
        };
        encoded.map_err(|reason| EncodeError { codec: *self, reason })
    }

    /// The value that was stored as `bytes`, all of them; it may borrow from them.
    ///
    /// # Errors
    /// The bytes are not what the codec makes of a `T`.
    pub fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, DecodeValueError> {
        let decoded = match self {
            Self::Json => json::decode(bytes),
            Self::Postcard => match postcard::take_from_bytes(bytes) {
                Ok((value, [])) => Ok(value),
                Ok((_, rest)) => Err(Reason::new(format_args!(
                    "{} of {} bytes are left over: another type was stored here",
                    rest.len(),
                    bytes.len()
                ))),
                Err(error) => Err(Reason::new(error)),
            },
            Self::Raw => T::deserialize(raw::Deserializer::new(bytes)),
        };
        decoded.map_err(|reason| DecodeValueError { codec: *self, reason })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Postcard => "postcard",
            Self::Raw => "raw",
        })
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        match name {
            "json" => Ok(Self::Json),
            "postcard" => Ok(Self::Postcard),
            "raw" => Ok(Self::Raw),
            _ => Err(UnknownCodec { name: Reason::new(format_args!("{name:?}")) }),
        }
    }
}

/// A name that is no codec's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("codec {name} is unknown: use one of json, postcard, raw")]
pub struct UnknownCodec {
    name: Reason,
}

/// A value that its codec cannot write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value cannot be encoded as {codec}: {reason}")]
pub struct EncodeError {
    codec: Codec,
    reason: Reason,
}

impl EncodeError {
    /// The codec that refused.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }
}

/// Stored bytes that are not a value of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored bytes cannot be decoded as {codec}: {reason}")]
pub struct DecodeValueError {
    codec: Codec,
    reason: Reason,
}

impl DecodeValueError {
    /// The codec that refused.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }
}

/// What a format says is wrong. Cut after [`Reason::MAX`] bytes, because serde quotes the offending value, and that
/// may be megabytes of somebody's data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Reason(Box<str>);

impl Reason {
    const MAX: usize = 200;

    fn new(message: impl fmt::Display) -> Self {
        let mut kept = Kept { text: String::new(), cut: false };
        // Neither `Kept` nor any message fails; whatever was written is the best there is.
        let _ = fmt::write(&mut kept, format_args!("{message}"));
        if kept.cut {
            kept.text.push('…');
        }
        Self(kept.text.into_boxed_str())
    }
}

impl serde::ser::Error for Reason {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}

impl serde::de::Error for Reason {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}

/// The beginning of a message.
struct Kept {
    text: String,
    cut: bool,
}

impl fmt::Write for Kept {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            self.cut = self.cut || self.text.len() + c.len_utf8() > Reason::MAX;
            if self.cut {
                break;
            }
            self.text.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
