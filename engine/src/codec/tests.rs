use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::IpAddr;
use core::time::Duration;

use proptest::collection::{btree_map, vec as vec_of};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeStruct, SerializeStructVariant, SerializeTupleStruct, SerializeTupleVariant};
use serde::{Deserializer, Serializer, de};

use super::*;

/// One value of each shape in serde's data model that no type of the standard library has, holding an `f64` where
/// it can. (`derive` would be one more dependency for this file alone.)
enum Shape {
    UnitStruct,
    Newtype(f64),
    TupleStruct(f64),
    Struct(f64),
    UnitVariant,
    NewtypeVariant(f64),
    TupleVariant(f64),
    StructVariant(f64),
    Bytes(&'static [u8]),
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::UnitStruct => serializer.serialize_unit_struct("Unit"),
            Self::Newtype(x) => serializer.serialize_newtype_struct("Newtype", x),
            Self::TupleStruct(x) => {
                let mut fields = serializer.serialize_tuple_struct("Pair", 2)?;
                fields.serialize_field(&1u8)?;
                fields.serialize_field(x)?;
                fields.end()
            }
            Self::Struct(x) => {
                let mut fields = serializer.serialize_struct("Point", 2)?;
                fields.serialize_field("x", x)?;
                fields.serialize_field("y", &())?;
                fields.end()
            }
            Self::UnitVariant => serializer.serialize_unit_variant("Enum", 0, "unit"),
            Self::NewtypeVariant(x) => serializer.serialize_newtype_variant("Enum", 1, "newtype", x),
            Self::TupleVariant(x) => {
                let mut fields = serializer.serialize_tuple_variant("Enum", 2, "tuple", 1)?;
                fields.serialize_field(x)?;
                fields.end()
            }
            Self::StructVariant(x) => {
                let mut fields = serializer.serialize_struct_variant("Enum", 3, "struct", 1)?;
                fields.serialize_field("x", x)?;
                fields.end()
            }
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

fn shapes(x: f64) -> Vec<Shape> {
    vec![
        Shape::UnitStruct,
        Shape::Newtype(x),
        Shape::TupleStruct(x),
        Shape::Struct(x),
        Shape::UnitVariant,
        Shape::NewtypeVariant(x),
        Shape::TupleVariant(x),
        Shape::StructVariant(x),
        Shape::Bytes(b"ab"),
    ]
}

/// A string in a newtype struct, and bytes that serialize as bytes.
#[derive(Debug, PartialEq)]
struct Html(String);

impl Serialize for Html {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct("Html", &self.0)
    }
}

impl<'de> Deserialize<'de> for Html {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Html;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("struct Html")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Html, D::Error> {
                String::deserialize(inner).map(Html)
            }
        }
        deserializer.deserialize_newtype_struct("Html", Visitor)
    }
}

#[derive(Debug, PartialEq)]
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    let bytes = Codec::Json.encode(value).expect("encodes");
    String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8")
}

fn json_error<T: DeserializeOwned + fmt::Debug>(bytes: &[u8]) -> String {
    Codec::Json.decode::<T>(bytes).expect_err("undecodable").to_string()
}

#[test]
fn names_round_trip_and_others_are_refused_with_the_list() {
    for codec in Codec::ALL {
        assert_eq!(codec.to_string().parse(), Ok(codec));
    }
    assert_eq!(Codec::default(), Codec::Json);
    for name in ["pickle", "JSON", "", " json"] {
        let message = name.parse::<Codec>().expect_err("no such codec").to_string();
        assert_eq!(message, format!("codec {name:?} is unknown: use one of json, postcard, raw"));
        assert!(Codec::ALL.iter().all(|codec| message.contains(&codec.to_string())));
    }
}

#[test]
fn json_is_what_serde_json_writes() {
    assert_eq!(json("héllo \n"), r#""héllo \n""#);
    assert_eq!(json(&None::<u8>), "null");
    assert_eq!(json(&BTreeMap::from([("b", 1), ("a", 2)])), r#"{"a":2,"b":1}"#);
    assert_eq!(json(&IpAddr::from([127, 0, 0, 1])), r#""127.0.0.1""#);
    let value =
        (shapes(-0.0), Some(1.5f32), u128::MAX, i128::MIN, 'ß', (1i8, 2i16, 3i32, 4i64), Duration::MAX);
    assert_eq!(json(&value).into_bytes(), serde_json::to_vec(&value).expect("finite"));
    let integers = (true, 1u8, 2u16, 3u32, 4u64, BTreeMap::from([(1u8, Some(()))]));
    assert_eq!(json(&integers).into_bytes(), serde_json::to_vec(&integers).expect("finite"));
}

#[test]
fn json_refuses_floats_that_are_not_finite_wherever_they_stand() {
    for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for shape in shapes(x) {
            let float_free = matches!(shape, Shape::UnitStruct | Shape::UnitVariant | Shape::Bytes(_));
            assert_eq!(Codec::Json.encode(&shape).is_ok(), float_free);
        }
        assert!(Codec::Json.encode(&vec![1.0, x]).is_err());
        assert!(Codec::Json.encode(&Some(x)).is_err());
        assert!(Codec::Json.encode(&(0, x)).is_err());
        assert!(Codec::Json.encode(&BTreeMap::from([("x", x)])).is_err());
        assert!(Codec::Json.encode(&[x as f32]).is_err());
    }
    let error = Codec::Json.encode(&f64::NAN).expect_err("not finite");
    assert_eq!(error.codec(), Codec::Json);
    assert_eq!(
        error.to_string(),
        "value cannot be encoded as json: NaN is not JSON: use an Option, or the codec postcard"
    );
}

#[test]
fn json_reads_what_python_writes() {
    let decode = |text: &str| Codec::Json.decode::<serde_json::Value>(text.as_bytes());
    for stored in [
        r#"{"name": "John", "n": 42, "ok": true, "none": null, "l": [1, 2], "d": {"x": 1.5}}"#,
        r#""value""#,
        "1180591620717411303424",
        "1e+22",
        "-0.0",
        "null",
        r#""h\u00e9llo \u4e16\u754c \ud83d\ude00""#,
        r#"{"1": "b", "null": "c", "2.5": "d"}"#,
    ] {
        assert!(decode(stored).is_ok(), "{stored}");
    }
    assert_eq!(Codec::Json.decode::<String>(br#""h\u00e9llo""#).expect("a string"), "héllo");
    assert_eq!(Codec::Json.decode::<f64>(b"1e+22").expect("a float"), 1e22);
    assert_eq!(Codec::Json.decode::<u128>(b"1180591620717411303424").expect("an integer"), 1 << 70);
    assert_eq!(Codec::Json.decode::<Option<u8>>(b"null").expect("null"), None);
}

#[test]
fn undecodable_json_is_an_error_and_nothing_else() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let value = |bytes: &[u8]| Codec::Json.decode::<serde_json::Value>(bytes);
    assert!(value(nested(127).as_bytes()).is_ok());
    for depth in [128, 100_000] {
        assert!(value(nested(depth).as_bytes()).is_err());
    }
    for bytes in [&b""[..], b"\xef\xbb\xbf1", b"\"\xff\"", b"1 2", b"{", br#""\ud800""#, b"nul", b"\0"] {
        assert!(value(bytes).is_err(), "{bytes:?}");
    }
    assert!(json_error::<u64>(b"1180591620717411303424").contains("floating point"));
    assert!(
        json_error::<u8>(b"300")
            .starts_with("stored bytes cannot be decoded as json: invalid value: integer")
    );
}

#[test]
fn pythons_nan_is_named() {
    for text in
        ["NaN", "Infinity", "-Infinity", "[NaN, 1]", "[1, Infinity]", "[\n1,\n -Infinity]", r#"{"a": NaN}"#]
    {
        let message = json_error::<serde_json::Value>(text.as_bytes());
        assert!(message.ends_with("NaN and Infinity are not JSON, write null instead"), "{text}: {message}");
    }
    for text in ["[NaM]", r#"["NaN"}"#, "-", "Inf"] {
        assert!(!json_error::<serde_json::Value>(text.as_bytes()).contains("NaN"), "{text}");
    }
}

#[test]
fn errors_do_not_repeat_the_value_at_length() {
    let stored = format!("\"{}\"", "ä".repeat(1_000_000));
    let message = json_error::<u8>(stored.as_bytes());
    assert!(message.len() < 300 && message.ends_with('…'), "{}", message.len());
}

#[test]
fn postcard_refuses_bytes_left_over_and_bytes_missing() {
    let bytes = Codec::Postcard.encode(&("a", 300u32)).expect("encodes");
    assert_eq!(Codec::Postcard.decode::<(String, u32)>(&bytes), Ok(("a".to_string(), 300)));
    let error = Codec::Postcard.decode::<String>(&bytes).expect_err("two bytes too many");
    assert_eq!(
        error.to_string(),
        "stored bytes cannot be decoded as postcard: 2 of 4 bytes are left over: another type was stored here"
    );
    assert_eq!(error.codec(), Codec::Postcard);
    assert!(Codec::Postcard.decode::<(String, u32, u8)>(&bytes).is_err());
    assert!(
        Codec::Postcard.decode::<Vec<u64>>(&[0xff; 9]).is_err(),
        "a length that is a lie allocates nothing"
    );
}

#[test]
fn raw_is_the_bytes_themselves() {
    let raw = |value: &dyn Fn() -> Result<Bytes, EncodeError>| value().expect("encodes");
    assert_eq!(raw(&|| Codec::Raw.encode("héllo")), "héllo");
    assert_eq!(raw(&|| Codec::Raw.encode(&"s".to_string())), "s");
    assert_eq!(raw(&|| Codec::Raw.encode(&[0u8, 255][..])), &[0, 255][..]);
    assert_eq!(raw(&|| Codec::Raw.encode(&vec![1u8; 100_000])), vec![1u8; 100_000]);
    assert_eq!(raw(&|| Codec::Raw.encode(&[1u8, 2, 3])), &[1, 2, 3][..]);
    assert_eq!(raw(&|| Codec::Raw.encode(&(1u8, 2u8))), &[1, 2][..]);
    assert_eq!(raw(&|| Codec::Raw.encode(&Shape::Bytes(b"\0b"))), &b"\0b"[..]);
    assert_eq!(raw(&|| Codec::Raw.encode(&Html("<p>".to_string()))), "<p>");
    assert_eq!(raw(&|| Codec::Raw.encode(&IpAddr::from([1, 2, 3, 4]))), "1.2.3.4");
    assert_eq!(raw(&|| Codec::Raw.encode("")), "");
}

#[test]
fn raw_reads_bytes_strings_and_sequences_of_u8() {
    assert_eq!(Codec::Raw.decode("héllo".as_bytes()), Ok("héllo".to_string()));
    assert_eq!(Codec::Raw.decode(&[0, 255]), Ok(vec![0u8, 255]));
    assert_eq!(Codec::Raw.decode(&[0, 255]), Ok([0u8, 255]));
    assert_eq!(Codec::Raw.decode(&[0, 255]), Ok(Blob(vec![0, 255])));
    assert_eq!(Codec::Raw.decode(b"<p>"), Ok(Html("<p>".to_string())));
    assert_eq!(Codec::Raw.decode(b"1.2.3.4"), Ok(IpAddr::from([1, 2, 3, 4])));
    assert_eq!(Codec::Raw.decode(b""), Ok(Vec::<u8>::new()));
    assert_eq!(Codec::Raw.decode(b""), Ok(String::new()));
}

#[test]
fn raw_refuses_everything_else_and_names_the_remedy() {
    fn check<T: DeserializeOwned + fmt::Debug + Serialize>(value: &T, found: &str) {
        let error = Codec::Raw.encode(value).expect_err(found).to_string();
        let remedy = "is not bytes, a string or a sequence of u8: use the codec json or postcard for it";
        assert_eq!(error, format!("value cannot be encoded as raw: {found} {remedy}"));
        let error = Codec::Raw.decode::<T>(b"1").expect_err(found).to_string();
        assert!(error.ends_with("was expected: use the codec json or postcard for it"), "{error}");
    }
    check(&true, "a bool");
    check(&1u8, "a u8");
    check(&1u64, "a u64");
    check(&-1i32, "an i32");
    check(&1u128, "a u128");
    check(&1.5f32, "an f32");
    check(&'c', "a char");
    check(&(), "a unit");
    check(&None::<String>, "an Option");
    check(&Some("a".to_string()), "an Option");
    check(&BTreeMap::from([(1, 2)]), "a map");
    check(&Duration::ZERO, "the struct Duration");
    check(&Ok::<u8, u8>(1), "the enum Result");
    check(&vec![1u32], "a u32");
    check(&("a".to_string(), 1u8), "a sequence of strings");
    check(&vec![vec![1u8]], "a sequence of sequences");
    check(&[[1u8]], "a sequence of tuples");

    for shape in shapes(1.0) {
        assert_eq!(Codec::Raw.encode(&shape).is_ok(), matches!(shape, Shape::Bytes(_)));
        assert!(Codec::Raw.encode(&vec![shape]).is_err());
    }
    let message = |error: DecodeValueError| error.to_string();
    assert!(
        Codec::Raw
            .decode::<serde_json::Value>(b"1")
            .map_err(message)
            .is_err_and(|m| m.contains("any valid JSON"))
    );
    assert!(Codec::Raw.decode::<String>(b"ab\xff").map_err(message).is_err_and(|m| m.contains("index 2")));
    assert!(
        Codec::Raw
            .decode::<[u8; 2]>(b"abc")
            .map_err(message)
            .is_err_and(|m| m.contains("invalid length 3, expected 2"))
    );
    assert!(Codec::Raw.decode::<[u8; 2]>(b"a").is_err());
}

/// Every kind of content that a value has, in types that serde implements without `derive`.
type Sample =
    (bool, i64, u128, char, String, Vec<Option<u32>>, BTreeMap<String, (u8, i8)>, Result<Vec<u8>, String>);

fn sample() -> impl Strategy<Value = Sample> {
    (
        any::<bool>(),
        any::<i64>(),
        any::<u128>(),
        any::<char>(),
        any::<String>(),
        vec_of(any::<Option<u32>>(), 0..5),
        btree_map(any::<String>(), any::<(u8, i8)>(), 0..4),
        any::<Result<Vec<u8>, String>>(),
    )
}

proptest! {
    #[test]
    fn json_and_postcard_give_back_what_they_took(value in sample()) {
        for codec in [Codec::Json, Codec::Postcard] {
            let bytes = codec.encode(&value).expect("encodes");
            prop_assert_eq!(codec.decode::<Sample>(&bytes), Ok(value.clone()));
        }
    }

    #[test]
    fn floats_survive_to_the_bit(bits in any::<u64>(), half in any::<u32>()) {
        let (x, y) = (f64::from_bits(bits), f32::from_bits(half));
        for codec in [Codec::Json, Codec::Postcard] {
            if codec == Codec::Json && !(x.is_finite() && y.is_finite()) {
                prop_assert!(codec.encode(&(x, y)).is_err());
                continue;
            }
            let bytes = codec.encode(&(x, y)).expect("encodes");
            let (a, b): (f64, f32) = codec.decode(&bytes).expect("decodes");
            prop_assert_eq!((a.to_bits(), b.to_bits()), (bits, half));
        }
    }

    #[test]
    fn raw_gives_back_what_it_took(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        let stored = Codec::Raw.encode(&bytes).expect("encodes");
        prop_assert_eq!(&stored, &bytes);
        prop_assert_eq!(Codec::Raw.decode(&stored), Ok(bytes.clone()));
        let stored = Codec::Raw.encode(&text).expect("encodes");
        prop_assert_eq!(&stored, &text);
        prop_assert_eq!(Codec::Raw.decode(&stored), Ok(text));
        prop_assert_eq!(Codec::Raw.decode::<String>(&bytes).is_ok(), core::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn no_bytes_make_a_codec_panic(bytes in any::<Vec<u8>>()) {
        for codec in Codec::ALL {
            let _ = codec.decode::<Sample>(&bytes);
            let _ = codec.decode::<String>(&bytes);
            let _ = codec.decode::<[u8; 3]>(&bytes);
        }
    }
}
