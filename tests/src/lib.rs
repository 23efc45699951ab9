//! What the integration tests, examples and benches of Larder share: real servers, started for one test and gone after it.
//!
//! ```
//! use larder_tests::RedisServer;
//!
//! let mut server = RedisServer::start();
//! assert_eq!(server.cli(&["SET", "greeting", "hello"]), "OK");
//!
//! server.restart(); // the same address, and nothing stored: servers here do not persist
//! assert_eq!(server.cli(&["EXISTS", "greeting"]), "0");
//! ```
//!
//! Everything panics when it fails, with what the server logged: in a test that is the report one wants.

mod redis_server;

pub use redis_server::{RedisServer, RedisServerBuilder, free_port};
