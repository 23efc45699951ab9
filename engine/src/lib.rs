//! The engine of Larder, a cache that keeps answering when Redis does not: everything but the I/O.
//!
//! Nothing in here opens a socket, reads a clock, spawns or locks. A *driver* owns those; it tells the engine what
//! happened and when, and asks it what to do. So the same engine runs under every runtime, and under a test that plays
//! a day of outages in a millisecond. Applications use a driver's crate; this one is for who writes a driver, a
//! simulator or a fuzzer.
//!
//! # Drive it by hand
//!
//! ```
//! use std::task::{Poll, Waker};
//!
//! use larder_engine::Instant;
//! use larder_engine::machine::{Action, Answer, Disconnect, Engine, EngineConfig, Request, Source, Transmit};
//! use larder_engine::resp::{Decoder, Limits};
//!
//! fn write(engine: &mut Engine, now: Instant) -> Vec<u8> {
//!     let mut out = Vec::new();
//!     while engine.poll_transmit(0, &mut out) == Transmit::Linger {} // A driver lets other tasks run here, once.
//!     engine.handle_written(now, 0, out.len());
//!     out
//! }
//!
//! fn read(engine: &mut Engine, now: Instant, wire: &[u8]) {
//!     let mut replies = Vec::new();
//!     Decoder::new(Limits::default()).decode(&mut wire.into(), &mut replies).expect("RESP");
//!     engine.handle_replies(now, 0, &mut replies).expect("replies to what was sent");
//! }
//!
//! let now = Instant::from_millis(0);
//! let waker = Waker::noop();
//! let mut engine = Engine::new(&EngineConfig::default(), 42, now);
//!
//! // It wants a connection, and introduces itself on it.
//! assert_eq!(engine.poll_action(), Some((0, Action::Dial)));
//! engine.handle_connected(now, 0);
//! assert_eq!(write(&mut engine, now), b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
//! read(&mut engine, now, b"%1\r\n+proto\r\n:3\r\n");
//! write(&mut engine, now); // CLIENT SETINFO, twice, and CLIENT INFO.
//! read(&mut engine, now, b"+OK\r\n+OK\r\n$31\r\nid=18 addr=192.0.2.1:49152 fd=8\r\n");
//! assert!(engine.is_ready(0));
//!
//! // Two operations travel in one write, and are answered in order.
//! let mut set = engine.submit(b"tea", Request::Set { value: "hot".into(), ttl: None });
//! let mut get = engine.submit(b"tea", Request::Get);
//! assert_eq!(engine.poll(now, &mut set, waker), Poll::Pending);
//! assert_eq!(engine.poll(now, &mut get, waker), Poll::Pending);
//! let sent = write(&mut engine, now);
//! assert_eq!(sent, b"*3\r\n$3\r\nSET\r\n$3\r\ntea\r\n$3\r\nhot\r\n*2\r\n$3\r\nGET\r\n$3\r\ntea\r\n");
//! let now = Instant::from_millis(1);
//! read(&mut engine, now, b"+OK\r\n$3\r\nhot\r\n");
//! assert_eq!(engine.poll(now, &mut set, waker), Poll::Ready(Ok(Answer::Stored(Source::Primary))));
//! let hot = |source| Poll::Ready(Ok(Answer::Value(Some("hot".into()), source)));
//! assert_eq!(engine.poll(now, &mut get, waker), hot(Source::Primary));
//!
//! // The connection dies. An operation waits for the next one, which is due soon ...
//! engine.handle_disconnected(now, 0, Disconnect::Lost);
//! let mut get = engine.submit(b"tea", Request::Get);
//! assert_eq!(engine.poll(now, &mut get, waker), Poll::Pending);
//! let redial = engine.poll_timeout().expect("a backoff");
//! engine.handle_timeout(redial);
//! assert_eq!(engine.poll_action(), Some((0, Action::Dial)));
//!
//! // ... and fails: now memory answers, and says so.
//! engine.handle_dial_failed(redial, 0);
//! let age = redial.saturating_since(now);
//! assert_eq!(engine.poll(redial, &mut get, waker), hot(Source::Fallback { age }));
//! ```
//!
//! # The contract
//!
//! What comes in is [`submit`], `poll`, `cancel` and `close` from callers, and `handle_*` from the driver. What goes out
//! is asked for with `poll_*`.
//!
//! 1. After any input ask [`poll_action`] (dial, hang up), [`poll_transmit`] (bytes to write), [`poll_timeout`] (when to
//!    call back) and [`wake`] (callers that can go on), in any order. Forgetting one delays work; it never loses or
//!    reorders it.
//! 2. Every operation ends **exactly once**: `poll` is `Ready` with an answer or an error, no later than its deadline
//!    where the driver calls [`handle_timeout`] in time; or `cancel` withdraws it.
//! 3. After [`handle_timeout(now)`](machine::Engine::handle_timeout), `poll_timeout()` is `None` or later than `now`. Early
//!    and late calls are both fine, and so is a clock that goes backwards.
//! 4. A reply can only ever reach the operation whose command asked for it. A cancelled or timed-out operation leaves a
//!    tombstone in the order of replies; a reply to nothing, or bytes that are none, end that connection and no other.
//! 5. `Err` from [`handle_replies`] means "close this socket". What failed for one caller is a value in that caller's
//!    answer.
//! 6. Memory is bounded: operations in flight and waiting, their bytes, the size and nesting of replies, the fallback
//!    tier. Over a bound an operation is refused before anything of it is encoded.
//!
//! The same seed and the same inputs give the same outputs, byte for byte. Time is an [`Instant`] that the driver hands
//! in; wakers are collected and woken by `wake` only, so never under a lock.
//!
//! # Where things are
//!
//! | module | what it is | knows nothing of |
//! |---|---|---|
//! | [`machine`] | a cache on Redis: operations, lanes, breaker and fallback tier, whole ([`Engine`]) or in parts | sockets, clocks, locks |
//! | [`policy`] | backoff, retry budget, circuit breaker: pure step functions | operations |
//! | [`store`] | the memory store: exact LRU, exact expiry, bounds | Redis |
//! | [`resp`] | the wire format: bounded scan, replies, commands, what errors mean | connections |
//! | [`key`] | which keys are accepted, and namespaces | all of it |
//! | [`codec`] | typed values to bytes and back | all of it |
//! | [`config`], [`stats`], [`time`] | plain data | all of it |
//!
//! [`Engine`]: machine::Engine
//! [`submit`]: machine::Engine::submit
//! [`poll_action`]: machine::Engine::poll_action
//! [`poll_transmit`]: machine::Engine::poll_transmit
//! [`poll_timeout`]: machine::Engine::poll_timeout
//! [`wake`]: machine::Engine::wake
//! [`handle_timeout`]: machine::Engine::handle_timeout
//! [`handle_replies`]: machine::Engine::handle_replies
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, larder_canary))]
extern crate std;

mod archive;
#[macro_use]
mod canary;
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

#[cfg(larder_canary)]
pub use canary::{Mistake, make};
pub use time::Instant;
