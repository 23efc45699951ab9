//! The runtime-free engine of Larder.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
pub mod config;
pub mod key;
mod link;
pub mod machine;
pub mod policy;
pub mod resp;
pub mod stats;
pub mod store;
pub mod time;

pub use time::Instant;
