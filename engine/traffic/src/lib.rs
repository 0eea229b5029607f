//! Every decision of the data plane, as plain functions: which filter chain, which route, may it pass, which
//! endpoint, again or not, how long. Synchronous and sans-io; the time (`now_ns`, ticks in nanoseconds) and the
//! randomness ([`Rng`]) are arguments, so that a test replays a decision exactly.
//!
//! Modules in the order in which a request meets them: [`listener`] picks the filter chain, [`matching`] the
//! route, [`authorize`], [`rate_limit`], [`fault`] and [`cors`] may answer at once, [`deadline`] says how long it may
//! take, [`balance`] picks the endpoint, [`breaker`] and [`budget`] bound what is in use, [`retry`] decides about
//! another try, [`outlier`] and [`health`] learn from the result. [`Failure`] names what can go wrong.
//!
//! Architecture invariant: no runtime, clock, file, environment variable or I/O here. What several cores must
//! count exactly together is in `corelane_snapshot::live`; everything else is given in.

pub mod authorize;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod cors;
pub mod deadline;
mod failure;
pub mod fault;
pub mod health;
pub mod listener;
pub mod matching;
pub mod outlier;
pub mod rate_limit;
pub mod retry;
mod rng;
mod text;

pub use balance::{ClusterView, Pick, PickContext, pick};
pub use failure::{Failure, Side};
pub use rng::{EvenDraws, Rng};

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod testing;
