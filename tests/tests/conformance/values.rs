//! What is stored comes back, whatever it is and however large.

use bytes::Bytes;
use larder::{Cache, Codec, Error};
use serde::{Deserialize, Serialize};

use super::World;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: Option<u8>,
    tags: Vec<String>,
}

pub(super) async fn codecs_bring_back_what_they_wrote(_: &Cache, world: &World) {
    let name = "Ada \u{1F9EE}\0".to_owned();
    let ada = User { name, age: None, tags: vec![String::new(), "x y".to_owned()] };
    for codec in [Codec::Json, Codec::Postcard] {
        let cache = world.connect(world.builder().codec(codec)).await.expect("connects");
        cache.set("ada", &ada).await.expect("set");
        assert_eq!(cache.get::<User>("ada").await.expect("get").as_ref(), Some(&ada), "{codec}");
    }
    let raw = world.connect(world.builder().codec(Codec::Raw)).await.expect("connects");
    raw.set("text", "as it is").await.expect("set");
    assert_eq!(world.cli(&["GET", "t:text"]), "as it is");
    assert_eq!(raw.get::<String>("text").await.expect("get").as_deref(), Some("as it is"));
    let error = raw.set("ada", &ada).await.expect_err("no bytes");
    assert!(matches!(error, Error::Encode(_)), "{error:?}");
}

/// Every byte in every place of a short value, line ends and zeros among them, and what stands at the edges of buffers.
pub(super) async fn binary_values_of_every_small_size_survive(cache: &Cache, world: &World) {
    for size in (0..=64).chain([255, 256, 1023, 4096]) {
        round_trip(cache, size).await;
    }
    assert_eq!(world.cli(&["STRLEN", "t:value"]), "4096");
}

/// Up to the largest value that the default limits of a reply allow.
pub(super) async fn values_of_1_byte_to_64_mib_survive(_: &Cache, world: &World) {
    let builder = world.builder().max_in_flight_bytes(80 << 20);
    let cache = world.connect(builder).await.expect("connects");
    for size in [1, 8_191, 8_192, 65_535, 65_536, 65_537, 1 << 20, (16 << 20) + 1, 64 << 20] {
        round_trip(&cache, size).await;
        assert_eq!(world.cli(&["STRLEN", "t:value"]), size.to_string());
    }
}

async fn round_trip(cache: &Cache, size: usize) {
    let value: Bytes = (0..=255).rev().map(|byte: u8| byte ^ size as u8).cycle().take(size).collect();
    cache.set_bytes("value", value.clone()).await.expect("set");
    assert!(cache.get_bytes("value").await.expect("get") == Some(value), "{size} bytes");
}
