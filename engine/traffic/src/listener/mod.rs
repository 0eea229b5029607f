//! Which filter chain takes a connection.

mod chain;

pub use chain::{ConnectionFacts, pick_chain};
