//! Envoy's configuration API on its way into a snapshot.
//!
//! [`proto`] are the protobuf types, [`supported`] says which of their fields we understand, [`Document::read`]
//! maps a file to them with every fault named and located, and [`translate`] makes a snapshot's resources of them.
//!
//! Architecture invariant: no runtime, clock, file or environment variable here, and no YAML: what a file says
//! comes in as a tree of plain nodes.

mod check;
mod document;
mod error;
mod finding;
mod json;
mod place;
mod read;
mod schema;
pub mod supported;
pub mod translate;
pub mod tree;

pub use document::Document;
pub use error::Error;
pub use finding::{FINDINGS_MAX, Finding, Severity};
pub use json::to_json;
pub use read::DEPTH_MAX;
pub use schema::Schema;

/// Rust types of the messages and fields that [`supported`] lists. Generated; see `proto/README.md`.
#[allow(clippy::all, clippy::pedantic)]
#[rustfmt::skip]
pub mod proto {
    include!("generated/packages.rs");
}
