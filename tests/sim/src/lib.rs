//! A deterministic simulator for Larder's engine: virtual time, a faulty network and a model of Redis, from a seed.
//!
//! ```
//! use larder_sim::{Choices, Options, run};
//!
//! let outcome = run(&mut Choices::seed(7), Options::default());
//! assert_eq!(outcome.violation, None);
//! ```
//!
//! The README says how it works and what it does not do yet.

mod canary;
mod choices;
mod event;
mod net;
mod oracle;
mod process;
mod rule;
mod run;
mod runtime;
mod script;
mod server;
mod setup;
mod shrink;
mod tape;
mod world;

pub use canary::Canary;
pub use choices::{Choice, Choices};
pub use event::{Event, What};
pub use rule::{Rule, Violation};
pub use run::{Options, Outcome, run, run_script};
pub use runtime::{JoinHandle, SimRuntime, SimStream, SimTimer};
pub use script::Script;
pub use setup::Setup;
pub use shrink::{Shrunk, shrink};
