//! Transport security as configured. The contexts themselves (keys, verifiers) live in the TLS crate's table,
//! behind the id, and are replaced there when a secret rotates.

use crate::{StringMatcher, TlsContextId};
use std::path::PathBuf;

/// envoy.config.core.v3.DataSource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DataSource {
    File(PathBuf),
    Inline(Vec<u8>),
    /// Name of a secret (static or by SDS).
    Secret(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TlsCertificate {
    pub chain: DataSource,
    pub key: DataSource,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TlsParams {
    pub version_min: TlsVersion,
    pub version_max: TlsVersion,
    /// OpenSSL or IANA names for TLS 1.2; empty: the library's safe defaults.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups in order of preference, by BoringSSL's names; empty: the library's.
    pub curves: Vec<String>,
}

impl Default for TlsParams {
    /// Both directions default to 1.3 at most: Envoy's 1.2 for clients is history, and servers choose anyway.
    fn default() -> Self {
        let (version_min, version_max) = (TlsVersion::V1_2, TlsVersion::V1_3);
        TlsParams { version_min, version_max, cipher_suites: Vec::new(), curves: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    Uri,
    Dns,
    Ip,
    Email,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// None: any kind (the deprecated match_subject_alt_names).
    pub kind: Option<SanKind>,
    pub matcher: StringMatcher,
}

/// envoy...tls.v3.CertificateValidationContext.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TlsValidation {
    pub trusted_ca: Option<DataSource>,
    /// Any one must match; empty: the chain alone decides.
    pub sans: Vec<SanMatcher>,
    pub crl: Option<DataSource>,
    /// Hex SHA-256 of the DER certificate.
    pub certificate_hashes: Vec<String>,
    /// Base64 SHA-256 of the SubjectPublicKeyInfo.
    pub spki_pins: Vec<String>,
    pub accept_untrusted: bool,
}

#[derive(Debug, PartialEq)]
pub struct DownstreamTls {
    pub context: TlsContextId,
    pub certificates: Vec<TlsCertificate>,
    pub validation: Option<TlsValidation>,
    pub require_client_certificate: bool,
    pub alpn: Vec<Vec<u8>>,
    pub params: TlsParams,
    pub session_tickets: bool,
    pub session_timeout_s: Option<u32>,
}

#[derive(Debug, PartialEq)]
pub struct UpstreamTls {
    pub context: TlsContextId,
    pub sni: Option<String>,
    pub certificate: Option<TlsCertificate>,
    pub validation: Option<TlsValidation>,
    pub alpn: Vec<Vec<u8>>,
    pub params: TlsParams,
    pub session_keys_max: u32,
}
