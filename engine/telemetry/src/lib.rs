//! Statistics, outcomes and access logs of the data plane: sans-io, without a clock, and free of locks and allocations on a core.
//!
//! The control thread owns the [`Registry`], which gives a [`Block`] of slots to every [`Scope`] (a listener, a cluster, an
//! endpoint). The blocks are resolved when a snapshot is built. A core owns a [`Shard`] and counts in it:
//!
//! ```
//! use corelane_telemetry::{ClusterStat, Registry, Scope};
//!
//! let mut registry = Registry::new(2);
//! let payments = registry.block(Scope::cluster("payments"));
//! let shard = registry.shard(0)?; // moves to core 0
//! shard.inc(payments, ClusterStat::UpstreamRqTotal);
//! shard.record(payments, ClusterStat::UpstreamCxConnectMs, 350); // microseconds
//! assert_eq!(registry.value(payments, ClusterStat::UpstreamRqTotal), 1);
//! # Ok::<(), corelane_telemetry::Error>(())
//! ```
//!
//! A scrape ([`exposition`]) sums the shards, a bounded piece at a time. One [`Outcome`] per request charges the counters that are
//! charged once, and is what the access log ([`access_log`]) writes a line from.
//!
//! Architecture Invariant: no runtime, no clock, no file, no environment; times are arguments.

pub mod access_log;
mod block;
mod codes;
mod details;
mod error;
pub mod exposition;
mod families;
mod histogram;
mod outcome;
mod registry;
mod response_flags;
mod sampler;
mod shard;
mod stat;

pub use block::{Block, SCOPE_LABELS_MAX, Scope, ScopeRef};
pub use codes::CODES;
pub use details::{DETAILS_BYTES_MAX, Details};
pub use error::Error;
pub use families::*;
pub use histogram::{BOUNDS, BUCKETS, Histogram, MICROS_BOUNDS, MILLIS_BOUNDS};
pub use outcome::{Direction, FailureSide, Outcome, OutcomeBlocks, Timings};
pub use registry::{BLOCKS_MAX, OVERFLOW_LABEL, Registry};
pub use response_flags::ResponseFlags;
pub use sampler::{ADDED_TIME_SAMPLED_EVERY, Sampler};
pub use shard::Shard;
pub use stat::{FamilyMeta, Kind, LabelMeta, Stat, StatMeta};
