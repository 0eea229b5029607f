//! Envoy's configuration API on its way into a snapshot.
//!
//! [`proto`] are the protobuf types, [`supported`] says which of their fields we understand.
//!
//! Architecture invariant: no runtime, clock, file or environment variable here, and no YAML: what a file says
//! comes in as a tree of plain nodes.

pub mod supported;

/// Rust types of the messages and fields that [`supported`] lists. Generated; see `proto/README.md`.
#[allow(clippy::all, clippy::pedantic)]
#[rustfmt::skip]
pub mod proto {
    include!("generated/packages.rs");
}
