//! From a request to what is done with it: the virtual host by authority, the first route that matches, the
//! cluster by weight, and the texts that a route rewrites. Nothing here allocates, but that a caller's buffer
//! may grow.

pub mod hash_policy;
pub mod header;
pub mod metadata;
pub mod path;
pub mod query;
pub mod redirect;
pub mod rewrite;
mod route;
mod target;
#[cfg(test)]
mod tests;
mod virtual_host;

pub use hash_policy::{Hashed, hash, hash_connection};
pub use route::{RequestFacts, is_grpc, is_grpc_message, route, route_matches};
pub use target::{Target, target, weighted, weighted_id};
pub use virtual_host::virtual_host;
