//! The pipeline, the only place where I/O and decisions meet. The modules stand in the order in which a request
//! passes them:
//!
//! accept - listener filters - filter chain - TLS - codec - exchange (route, authorize, limit, fault, rewrite,
//! balance, pool, attempt, relay) - record.
//!
//! Everything here runs on one core and owns nothing that another core can reach, but for the snapshot and the
//! exact counters that hang off it.
//!
//! Architecture invariant: no protobuf, no configuration text, no file, no environment variable.

mod state;
mod worker;

mod accept;
mod codec;
mod inspect;
mod link;

mod downstream;
mod exchange;
mod filters;
mod guard;
mod headers;
mod prepare;

mod attempt;
mod connect;
mod core_counts;
mod ejection;
mod pick;
mod pool;
mod replay;
mod tries;
mod upstream;

mod body;
mod http2;
mod reply;
mod tcp;
mod tunnel;

mod connection_log;
mod failure;
mod grpc;
mod record;
mod render;

mod conn;
mod drain;
mod health;
mod poll_io;
mod race;
mod shared;
mod transport_failure;

pub use ejection::count_ejection;
pub use health::hold_unchecked;
pub use shared::{Drained, Limits, Shared};
pub use worker::{CoreBlocks, Worker, WorkerEnv};
