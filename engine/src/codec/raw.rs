//! [`Codec::Raw`](super::Codec::Raw): a serde format in which a value is its own bytes.

use alloc::vec::Vec;
use bytes::Bytes;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::ser::{Impossible, SerializeSeq, SerializeTuple};
use serde::{Serialize, de, forward_to_deserialize_any, ser};

use super::Reason;

/// Accepts bytes, strings and sequences of `u8`; everything else is refused by name.
pub(super) struct Serializer;

fn refuse<T>(found: &str) -> Result<T, Reason> {
    Err(Reason::new(format_args!(
        "{found} is not bytes, a string or a sequence of u8: use the codec json or postcard for it"
    )))
}

macro_rules! refuse_scalars {
    ($($method:ident: $type:ty, $found:literal;)*) => {
        $(fn $method(self, _: $type) -> Result<Self::Ok, Reason> { refuse($found) })*
    };
}

/// What neither a whole value nor one element of a sequence can be.
macro_rules! refuse_compounds {
    () => {
        type SerializeTupleStruct = Impossible<Self::Ok, Reason>;
        type SerializeTupleVariant = Impossible<Self::Ok, Reason>;
        type SerializeMap = Impossible<Self::Ok, Reason>;
        type SerializeStruct = Impossible<Self::Ok, Reason>;
        type SerializeStructVariant = Impossible<Self::Ok, Reason>;

        refuse_scalars! {
            serialize_bool: bool, "a bool";
            serialize_i8: i8, "an i8";
            serialize_i16: i16, "an i16";
            serialize_i32: i32, "an i32";
            serialize_i64: i64, "an i64";
            serialize_i128: i128, "an i128";
            serialize_u16: u16, "a u16";
            serialize_u32: u32, "a u32";
            serialize_u64: u64, "a u64";
            serialize_u128: u128, "a u128";
            serialize_f32: f32, "an f32";
            serialize_f64: f64, "an f64";
            serialize_char: char, "a char";
            serialize_unit_struct: &'static str, "a unit struct";
        }

        fn serialize_none(self) -> Result<Self::Ok, Reason> {
            refuse("an Option")
        }

        // Refused although it could be written: `None` cannot, and a type should not fail depending on its value.
        fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, Reason> {
            refuse("an Option")
        }

        fn serialize_unit(self) -> Result<Self::Ok, Reason> {
            refuse("a unit")
        }

        fn serialize_unit_variant(
            self,
            name: &'static str,
            _: u32,
            _: &'static str,
        ) -> Result<Self::Ok, Reason> {
            refuse_named("enum", name)
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            name: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<Self::Ok, Reason> {
            refuse_named("enum", name)
        }

        fn serialize_tuple_struct(
            self,
            name: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct, Reason> {
            refuse_named("struct", name)
        }

        fn serialize_tuple_variant(
            self,
            name: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant, Reason> {
            refuse_named("enum", name)
        }

        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Reason> {
            refuse("a map")
        }

        fn serialize_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeStruct, Reason> {
            refuse_named("struct", name)
        }

        fn serialize_struct_variant(
            self,
            name: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant, Reason> {
            refuse_named("enum", name)
        }
    };
}

fn refuse_named<T>(kind: &str, name: &str) -> Result<T, Reason> {
    Err(Reason::new(format_args!(
        "the {kind} {name} is not bytes, a string or a sequence of u8: use the codec json or postcard for it"
    )))
}

impl ser::Serializer for Serializer {
    type Ok = Bytes;
    type Error = Reason;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;

    refuse_compounds!();
    refuse_scalars! { serialize_u8: u8, "a u8"; }

    fn serialize_str(self, value: &str) -> Result<Bytes, Reason> {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Bytes, Reason> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Bytes, Reason> {
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Elements, Reason> {
        // A hint, and as such bounded: it is the value's own claim.
        Ok(Elements(Vec::with_capacity(len.unwrap_or(0).min(64 * 1024))))
    }

    fn serialize_tuple(self, len: usize) -> Result<Elements, Reason> {
        self.serialize_seq(Some(len))
    }
}

/// A sequence of `u8` on its way.
pub(super) struct Elements(Vec<u8>);

impl SerializeSeq for Elements {
    type Ok = Bytes;
    type Error = Reason;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Reason> {
        self.0.push(value.serialize(ElementSerializer)?);
        Ok(())
    }

    fn end(self) -> Result<Bytes, Reason> {
        Ok(self.0.into())
    }
}

impl SerializeTuple for Elements {
    type Ok = Bytes;
    type Error = Reason;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Reason> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Bytes, Reason> {
        SerializeSeq::end(self)
    }
}

/// Accepts a `u8` and nothing else.
struct ElementSerializer;

impl ser::Serializer for ElementSerializer {
    type Ok = u8;
    type Error = Reason;
    type SerializeSeq = Impossible<u8, Reason>;
    type SerializeTuple = Impossible<u8, Reason>;

    refuse_compounds!();
    refuse_scalars! {
        serialize_str: &str, "a sequence of strings";
        serialize_bytes: &[u8], "a sequence of bytes";
    }

    fn serialize_u8(self, value: u8) -> Result<u8, Reason> {
        Ok(value)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<u8, Reason> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Reason> {
        refuse("a sequence of sequences")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Reason> {
        refuse("a sequence of tuples")
    }
}

/// Offers the bytes as bytes, as a string or as a sequence of `u8`, whichever the type asks for.
pub(super) struct Deserializer<'de> {
    bytes: &'de [u8],
}

impl<'de> Deserializer<'de> {
    pub(super) const fn new(bytes: &'de [u8]) -> Self {
        Self { bytes }
    }
}

impl<'de> de::Deserializer<'de> for Deserializer<'de> {
    type Error = Reason;

    /// All types that this format does not know end here.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        Err(cannot_be(&visitor))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_borrowed_bytes(self.bytes)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        match core::str::from_utf8(self.bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(error) => Err(Reason::new(format_args!("a string was expected: {error}"))),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Reason> {
        let all = self.bytes.len();
        let value = visitor.visit_seq(&mut self)?;
        match self.bytes.len() {
            0 => Ok(value),
            left => Err(Reason::invalid_length(all, &Fewer(all.saturating_sub(left)))),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Reason> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Reason> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char option unit unit_struct tuple_struct map struct enum
        identifier ignored_any
    }
}

fn cannot_be(expected: &dyn de::Expected) -> Reason {
    Reason::new(format_args!(
        "raw bytes are bytes, a string or a sequence of u8, and {expected} was expected: use the codec json or \
         postcard for it"
    ))
}

/// The length that the type had room for.
struct Fewer(usize);

impl de::Expected for Fewer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<'de> SeqAccess<'de> for Deserializer<'de> {
    type Error = Reason;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Reason> {
        let Some((&byte, rest)) = self.bytes.split_first() else {
            return Ok(None);
        };
        self.bytes = rest;
        seed.deserialize(Element(byte)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.bytes.len())
    }
}

/// One byte of a sequence. Offered to `u8` alone: serde's own `U8Deserializer` would widen it, and so read as
/// `Vec<u32>` what cannot be written as one.
struct Element(u8);

impl<'de> de::Deserializer<'de> for Element {
    type Error = Reason;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        Err(cannot_be(&visitor))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_u8(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Reason> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}
