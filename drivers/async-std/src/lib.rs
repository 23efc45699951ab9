//! Larder on async-std: everything of [`larder`], and [`AsyncStd`] to connect with.
//!
//! **async-std is discontinued upstream** ([RUSTSEC-2025-0052](https://rustsec.org/advisories/RUSTSEC-2025-0052)). This crate
//! is for services that are still on it; new ones take `larder-smol`, which stands on the same reactor, and where moving
//! later changes one line.
//!
//! ```no_run
//! use larder_async_std::{AsyncStd, Cache};
//!
//! # async fn example() -> Result<(), larder_async_std::Error> {
//! let cache = Cache::redis("redis://localhost:6379/0").namespace("shop").connect(AsyncStd).await?;
//! cache.set("greeting", "hello").await?;
//! assert_eq!(cache.get::<String>("greeting").await?.as_deref(), Some("hello"));
//! # Ok(())
//! # }
//! ```
//!
//! Under a name that stays, `larder = { package = "larder-async-std", version = "0.1" }` in `Cargo.toml`, the runtime is in one line
//! of the code, the one with `.connect(larder::AsyncStd)`: another one is another package there, and another name here.

use std::future::Future;
use std::io;
use std::time::Instant;

use larder::async_io::{Socket, Timer, connect};
use larder::runtime::{Endpoint, Runtime};

pub use larder::*;

/// async-std's global executor, on whose threads the cache's tasks run (one for each core, or `ASYNC_STD_THREAD_COUNT`;
/// started by the first task), and the reactor that goes with it. The cache works from anywhere then, under any executor.
#[derive(Clone, Copy, Debug)]
pub struct AsyncStd;

impl Runtime for AsyncStd {
    type Stream = Socket;
    type Timer = Timer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        connect(to.clone())
    }

    fn timer(&self) -> Timer {
        Timer::default()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Dropped, the handle detaches the task.
        drop(async_std::task::spawn(task));
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
