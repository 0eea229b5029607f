//! TLS for a mesh: our identity, SPIFFE verification of the peer, and records that are sealed and opened in the
//! buffers that the socket and the proxy use anyway.
//!
//! In the order of use:
//! `context` builds contexts from plain specs, `table` holds them by number and swaps them;
//! `verify` judges the peer and `peer` says who it is; `tickets` and `resumption` make the next handshake cheap;
//! `establish` accepts and connects, [`TlsStream`] carries data. The record path is `intake` (whole records from
//! the socket), `record` (the cipher) and `inplace` (what the peer says between the data), or `unbuffered` for TLS 1.2.
//!
//! Architecture Invariant: nothing here reads a file, an environment variable or Kubernetes; PEM text comes in as
//! bytes, and whoever watches files hands in new bytes.

mod certificate;
mod check;
mod context;
mod core;
mod der;
mod drive;
mod error;
mod establish;
#[cfg(test)]
mod fuzz_tests;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod hello;
mod identity;
mod inplace;
mod intake;
mod peer;
mod pem;
mod record;
mod resumption;
mod san;
mod scope;
mod stream;
mod suites;
mod table;
mod tickets;
mod unbuffered;
mod verify;

pub use certificate::{CertificateInfo, SUBJECT_ALT_NAMES_MAX};
pub use check::{PairPart, check_pair, check_revocation_lists, check_trust_bundle};
pub use context::{
    ClientContext, ClientSpec, ContextEnvironment, RecordPath, SERVER_CERTIFICATES_MAX, ServerContext,
    ServerSpec,
};
pub use core::{TlsCore, TlsStats};
pub use error::TlsError;
pub use establish::{ConnectParams, accept, connect};
pub use handshake::{HANDSHAKE_BYTES_MAX, HANDSHAKE_RECORDS_MAX, Negotiated};
pub use identity::{CHAIN_MAX, CertifiedPem, Identity};
pub use inplace::{IDLE_RECORDS_MAX, POST_HANDSHAKE_BYTES_MAX};
pub use peer::PeerIdentity;
pub use pem::NamedPem;
pub use record::{CONTENT_BYTES_MAX, RECORD_BYTES_MAX};
pub use resumption::{SESSION_PEERS_MAX, SESSION_TICKETS_MAX};
pub use san::{SAN_MATCHERS_MAX, SanKind, SanMatch, TextMatcher};
pub use stream::TlsStream;
pub use suites::{Finding, ProtocolSpec, TlsVersion, cipher_name};
pub use table::{CONTEXTS_MAX, ContextId, ContextTable, ContextView};
pub use tickets::{TICKET_KEYS_MAX, TICKET_LIFETIME_S, TicketKeys};
pub use verify::{TRUST_ROOTS_MAX, ValidationSpec};
