//! TLS for a mesh: our identity, SPIFFE verification of the peer, and records that are sealed and opened in the
//! buffers that the socket and the proxy use anyway.
//!
//! In the order of use:
//! [`context`] builds contexts from plain specs, [`table`] holds them by number and swaps them;
//! `verify` judges the peer and `peer` says who it is; `tickets` and `resumption` make the next handshake cheap.
//!
//! Architecture Invariant: nothing here reads a file, an environment variable or Kubernetes; PEM text comes in as
//! bytes, and whoever watches files hands in new bytes.

mod certificate;
mod context;
mod der;
mod error;
mod identity;
mod peer;
mod resumption;
mod san;
mod scope;
mod suites;
mod table;
mod tickets;
mod verify;

pub use certificate::{CertificateInfo, SUBJECT_ALT_NAMES_MAX};
pub use context::{
    ClientContext, ClientSpec, ContextEnvironment, RecordPath, SERVER_CERTIFICATES_MAX, ServerContext, ServerSpec,
};
pub use error::TlsError;
pub use identity::{CHAIN_MAX, CertifiedPem, Identity};
pub use peer::PeerIdentity;
pub use resumption::{SESSION_PEERS_MAX, SESSION_TICKETS_MAX};
pub use san::{SAN_MATCHERS_MAX, SanKind, SanMatch, TextMatcher};
pub use suites::{Finding, ProtocolSpec, TlsVersion, cipher_name};
pub use table::{CONTEXTS_MAX, ContextId, ContextTable, ContextView};
pub use tickets::{TICKET_KEYS_MAX, TICKET_LIFETIME_S, TicketKeys};
pub use verify::{TRUST_ROOTS_MAX, ValidationSpec};
