//! Which filter chain takes a connection.

mod chain;

#[cfg(test)]
mod tests;

pub use chain::{ConnectionFacts, pick_chain};
