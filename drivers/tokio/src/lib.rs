//! Larder on tokio.
