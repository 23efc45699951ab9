//! The parts of a deterministic simulator for Larder's engine. So far: [`Choices`], a network of bytes and a model of
//! Redis. What drives an engine over them is still to be written; the README says how it is meant.

mod choices;
#[allow(
    dead_code,
    reason = "used by its own tests only, until there is a world that connects engines with it"
)]
mod net;
#[allow(
    dead_code,
    reason = "used by its own tests only, until there is a world that connects engines with it"
)]
mod server;

pub use choices::{Choice, Choices};
