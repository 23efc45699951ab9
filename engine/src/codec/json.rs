//! [`Codec::Json`](super::Codec::Json): serde_json, except that a float which JSON cannot express is an error.

use bytes::Bytes;
use serde::Deserialize;
use serde::ser::{self, Serialize};

use super::Reason;

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, Reason> {
    serde_json::to_vec(&Finite(value)).map(Bytes::from).map_err(Reason::new)
}

pub(super) fn decode<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Reason> {
    serde_json::from_slice(json).map_err(|error| {
        if error.is_syntax() && not_a_number_at(json, error.line(), error.column()) {
            return Reason::new(format_args!("{error}: NaN and Infinity are not JSON, write null instead"));
        }
        Reason::new(error)
    })
}

/// Whether a bare `NaN`, `Infinity` or `-Infinity` stands at the place of a syntax error, which serde_json reports
/// as it would any other. Lines and columns count from 1, and a column may be one past the sign.
fn not_a_number_at(json: &[u8], line: usize, column: usize) -> bool {
    let line = json.split(|&byte| byte == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let at = line.get(column.saturating_sub(1)..).unwrap_or_default();
    at.starts_with(b"NaN") || at.starts_with(b"Infinity") || at.starts_with(b"-Infinity")
}

/// Passes everything on and stops at floats that are not finite.
///
/// serde_json writes `null` for those. The value would be stored, and then be undecodable, or `None`, for whoever
/// reads it. A wrapper costs nothing at run time: it is inlined away.
struct Finite<S>(S);

fn check_finite<E: ser::Error>(value: f64) -> Result<(), E> {
    if value.is_finite() {
        return Ok(());
    }
    Err(E::custom(format_args!("{value} is not JSON: use an Option, or the codec postcard")))
}

/// Methods whose arguments hold no value that could hold a float.
macro_rules! pass_on {
    ($($method:ident($($arg:ident: $type:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self, $($arg: $type),*) -> Result<$ok, S::Error> { self.0.$method($($arg),*) })*
    };
}

/// Methods that begin a compound.
macro_rules! pass_on_compounds {
    ($($method:ident($($arg:ident: $type:ty),*) -> $compound:ident;)*) => {
        $(
            type $compound = Finite<S::$compound>;

            fn $method(self, $($arg: $type),*) -> Result<Self::$compound, S::Error> {
                self.0.$method($($arg),*).map(Finite)
            }
        )*
    };
}

impl<S: ser::Serializer> ser::Serializer for Finite<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        check_finite(f64::from(value))?;
        self.0.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        check_finite(value)?;
        self.0.serialize_f64(value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Finite(value))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Finite(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Finite(value))
    }

    fn collect_str<T: core::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    pass_on! {
        serialize_bool(value: bool) -> S::Ok;
        serialize_i8(value: i8) -> S::Ok;
        serialize_i16(value: i16) -> S::Ok;
        serialize_i32(value: i32) -> S::Ok;
        serialize_i64(value: i64) -> S::Ok;
        serialize_i128(value: i128) -> S::Ok;
        serialize_u8(value: u8) -> S::Ok;
        serialize_u16(value: u16) -> S::Ok;
        serialize_u32(value: u32) -> S::Ok;
        serialize_u64(value: u64) -> S::Ok;
        serialize_u128(value: u128) -> S::Ok;
        serialize_char(value: char) -> S::Ok;
        serialize_str(value: &str) -> S::Ok;
        serialize_bytes(value: &[u8]) -> S::Ok;
        serialize_none() -> S::Ok;
        serialize_unit() -> S::Ok;
        serialize_unit_struct(name: &'static str) -> S::Ok;
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> S::Ok;
    }

    pass_on_compounds! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeStructVariant;
    }
}

/// A value inside a compound.
impl<T: Serialize + ?Sized> Serialize for Finite<&T> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Finite(serializer))
    }
}

macro_rules! pass_on_values {
    ($($compound:ident { $($method:ident($($arg:ident: $type:ty),*);)* })*) => {
        $(
            impl<S: ser::$compound> ser::$compound for Finite<S> {
                type Ok = S::Ok;
                type Error = S::Error;

                $(
                    fn $method<T: Serialize + ?Sized>(&mut self, $($arg: $type,)* value: &T) -> Result<(), S::Error> {
                        self.0.$method($($arg,)* &Finite(value))
                    }
                )*

                fn end(self) -> Result<S::Ok, S::Error> {
                    self.0.end()
                }
            }
        )*
    };
}

pass_on_values! {
    SerializeSeq { serialize_element(); }
    SerializeTuple { serialize_element(); }
    SerializeTupleStruct { serialize_field(); }
    SerializeTupleVariant { serialize_field(); }
    SerializeMap { serialize_key(); serialize_value(); }
    SerializeStruct { serialize_field(key: &'static str); }
    SerializeStructVariant { serialize_field(key: &'static str); }
}
