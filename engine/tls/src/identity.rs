//! Our own certificates: a chain and its key from PEM, checked once when the context is built.
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::certificate::CertificateInfo;
use crate::error::TlsError;
use crate::pem::{certificates, private_key};

/// Certificates in one chain that are sent to a peer.
pub const CHAIN_MAX: usize = 16;

/// One certificate chain and its private key, both PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifiedPem {
    /// What error messages call the chain: a secret's name or a file.
    pub name: String,
    /// And what they call the key.
    pub key_name: String,
    /// The leaf first, then its intermediates.
    pub chain: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC 1.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for CertifiedPem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CertifiedPem").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A certificate that we can prove to own.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
    info: Arc<[CertificateInfo]>,
}

impl Identity {
    /// Parses and checks one pair at `now_s` (unix seconds).
    ///
    /// # Errors
    /// Names the pair and whether the PEM, the certificate, the key, their match or the validity is at fault.
    pub(crate) fn from_pem(
        pem: &CertifiedPem,
        provider: &CryptoProvider,
        now_s: u64,
    ) -> Result<Self, TlsError> {
        let resource = || pem.name.clone();
        let chain = certificates(&pem.name, &pem.chain)?;
        if chain.len() > CHAIN_MAX {
            let cause = format!("the chain has {} certificates, at most {CHAIN_MAX} are sent", chain.len());
            return Err(TlsError::BadSpec { resource: resource(), cause });
        }
        let info = chain
            .iter()
            .map(|certificate| {
                CertificateInfo::from_der(certificate).ok_or_else(|| TlsError::BadCertificate {
                    resource: resource(),
                    cause: "not an X.509 v3 certificate".to_owned(),
                })
            })
            .collect::<Result<Arc<[_]>, _>>()?;
        let key = private_key(&pem.key_name, &pem.key)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch { key: pem.key_name.clone(), chain: resource() }
            }
            other => TlsError::BadPrivateKey { resource: pem.key_name.clone(), cause: other.to_string() },
        })?;
        // a leaf that has expired would fail every handshake; one not valid yet may become so
        if info[0].not_after_s < now_s {
            return Err(TlsError::CertificateExpired {
                resource: resource(),
                not_after_s: info[0].not_after_s,
            });
        }
        Ok(Self { certified: Arc::new(certified), info })
    }

    /// The chain's readable fields, leaf first; never empty.
    pub fn chain(&self) -> &[CertificateInfo] {
        &self.info
    }

    /// The leaf's readable fields.
    pub fn leaf(&self) -> &CertificateInfo {
        &self.info[0]
    }
}
