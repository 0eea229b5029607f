//! Looks at the parts of a context one by one, to tell all that is wrong with them: building one stops at the first.
use crate::context::ContextEnvironment;
use crate::error::TlsError;
use crate::identity::{CertifiedPem, Identity};
use crate::pem::{NamedPem, certificates, private_key};
use crate::verify::{revocation_lists, trust_roots};

/// Which half of a pair is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairPart {
    Chain,
    Key,
}

/// What is wrong with a certificate chain and its key; what is wrong with both together is said of the key.
pub fn check_pair(pem: &CertifiedPem, environment: &ContextEnvironment) -> Vec<(PairPart, TlsError)> {
    let chain = certificates(&pem.name, &pem.chain).err().map(|error| (PairPart::Chain, error));
    let key = private_key(&pem.key_name, &pem.key).err().map(|error| (PairPart::Key, error));
    let faults: Vec<_> = chain.into_iter().chain(key).collect();
    if !faults.is_empty() {
        return faults;
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let fault = Identity::from_pem(pem, &provider, environment.now_s()).err();
    let part = |error: &TlsError| match error {
        TlsError::KeyMismatch { .. } | TlsError::BadPrivateKey { .. } => PairPart::Key,
        _ => PairPart::Chain,
    };
    fault.map(|error| (part(&error), error)).into_iter().collect()
}

/// # Errors
/// The bundle can't be used.
pub fn check_trust_bundle(bundle: &NamedPem) -> Result<(), TlsError> {
    trust_roots(bundle).map(drop)
}

/// # Errors
/// The lists can't be used.
pub fn check_revocation_lists(lists: &NamedPem) -> Result<(), TlsError> {
    revocation_lists(lists).map(drop)
}
