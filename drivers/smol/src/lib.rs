//! Larder on smol: everything of [`larder`], and [`Smol`] to connect with.
//!
//! ```no_run
//! use larder_smol::{Cache, Smol};
//!
//! # async fn example() -> Result<(), larder_smol::Error> {
//! let cache = Cache::redis("redis://localhost:6379/0").namespace("shop").connect(Smol).await?;
//! cache.set("greeting", "hello").await?;
//! assert_eq!(cache.get::<String>("greeting").await?.as_deref(), Some("hello"));
//! # Ok(())
//! # }
//! ```
//!
//! Under a name that stays, `larder = { package = "larder-smol", version = "0.1" }` in `Cargo.toml`, the runtime is in one line
//! of the code, the one with `.connect(larder::Smol)`: another one is another package there, and another name here.

use std::future::Future;
use std::io;
use std::time::Instant;

use larder::async_io::{Socket, Timer, connect};
use larder::runtime::{Endpoint, Runtime};

pub use larder::*;

/// smol's global executor, on whose threads the cache's tasks run (one, or `SMOL_THREADS` of them; started by the first
/// task), and the reactor that goes with it. The cache works from anywhere then, under any executor.
#[derive(Clone, Copy, Debug)]
pub struct Smol;

impl Runtime for Smol {
    type Stream = Socket;
    type Timer = Timer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        connect(to.clone())
    }

    fn timer(&self) -> Timer {
        Timer::default()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Dropped, a task of smol's would be cancelled.
        smol::spawn(task).detach();
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
