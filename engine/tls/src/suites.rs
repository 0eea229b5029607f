//! Protocol versions, cipher suites and curves: Envoy's and OpenSSL's names to what rustls has.
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::error::TlsError;

/// Our order of preference, which is Envoy's on machines with AES instructions: the 128 bit suites cost a fifth
/// less per byte than the 256 bit ones that rustls lists first.
const PREFERENCE: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// A protocol version that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    /// The name in access logs (`%DOWNSTREAM_TLS_VERSION%`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// A setting that was accepted but has no effect here; the caller logs it or refuses the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The context's name.
    pub resource: String,
    pub message: String,
}

/// Protocol parameters common to both sides of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolSpec {
    pub version_min: TlsVersion,
    pub version_max: TlsVersion,
    /// TLS 1.2 suites in order of preference, by OpenSSL or IANA name; `[A|B]` groups are read as lists.
    /// Empty: all that rustls has, AES-128 first. As in Envoy, this list does not govern TLS 1.3.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups in order of preference (`X25519`, `P-256`, ...). Empty: rustls's order.
    pub curves: Vec<String>,
}

impl Default for ProtocolSpec {
    fn default() -> Self {
        Self {
            version_min: TlsVersion::Tls12,
            version_max: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
        }
    }
}

impl ProtocolSpec {
    pub(crate) fn versions(
        &self,
        resource: &str,
    ) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        match (self.version_min, self.version_max) {
            (TlsVersion::Tls12, TlsVersion::Tls13) => Ok(vec![&version::TLS13, &version::TLS12]),
            (TlsVersion::Tls13, TlsVersion::Tls13) => Ok(vec![&version::TLS13]),
            (TlsVersion::Tls12, TlsVersion::Tls12) => Ok(vec![&version::TLS12]),
            (TlsVersion::Tls13, TlsVersion::Tls12) => Err(TlsError::BadSpec {
                resource: resource.to_owned(),
                cause: "the minimum TLS version is above the maximum".to_owned(),
            }),
        }
    }

    /// A provider restricted to what the spec names; names that rustls lacks become findings.
    pub(crate) fn provider(
        &self,
        resource: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<CryptoProvider, TlsError> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = PREFERENCE.to_vec();
        let mut note = |message: String| findings.push(Finding { resource: resource.to_owned(), message });
        if !self.cipher_suites.is_empty() {
            let mut chosen: Vec<_> =
                provider.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some()).collect();
            let names = self.cipher_suites.iter().flat_map(|entry| entry.trim_matches(['[', ']']).split('|'));
            for name in names {
                match suite_by_name(name) {
                    Some(found) if !chosen.contains(&found) => chosen.push(found),
                    Some(_) => {}
                    None => note(format!(
                        "cipher suite {name} is not in rustls (no CBC, no RSA key exchange); ignored"
                    )),
                }
            }
            if self.version_max == TlsVersion::Tls12 && chosen.iter().all(|suite| suite.tls13().is_some()) {
                let cause = "none of its cipher suites exists in rustls, and TLS 1.3 is off".to_owned();
                return Err(TlsError::BadSpec { resource: resource.to_owned(), cause });
            }
            if !chosen.iter().any(|suite| suite.tls13().is_none()) && self.version_min == TlsVersion::Tls12 {
                note("no usable TLS 1.2 cipher suite is left; only TLS 1.3 is spoken".to_owned());
            }
            provider.cipher_suites = chosen;
        }
        if !self.curves.is_empty() {
            let mut groups: Vec<&'static dyn SupportedKxGroup> = Vec::new();
            for name in &self.curves {
                match group_by_name(name) {
                    Some(group) => groups.push(group),
                    None => note(format!("key exchange group {name} is not in rustls; ignored")),
                }
            }
            if groups.is_empty() {
                let cause = "none of its key exchange groups exists in rustls".to_owned();
                return Err(TlsError::BadSpec { resource: resource.to_owned(), cause });
            }
            provider.kx_groups = groups;
        }
        Ok(provider)
    }
}

/// Looks up a suite by the name of OpenSSL or of the IANA registry.
fn suite_by_name(name: &str) -> Option<SupportedCipherSuite> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_AES_128_GCM_SHA256" => suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => suite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => suite::TLS13_CHACHA20_POLY1305_SHA256,
        _ => return None,
    })
}

fn group_by_name(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    Some(match name {
        "X25519" => kx_group::X25519,
        "P-256" | "prime256v1" | "secp256r1" => kx_group::SECP256R1,
        "P-384" | "secp384r1" => kx_group::SECP384R1,
        "X25519MLKEM768" => kx_group::X25519MLKEM768,
        _ => return None,
    })
}

/// The OpenSSL name of a suite, as Envoy prints it in access logs (`%DOWNSTREAM_TLS_CIPHER%`).
pub fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoy_suite_lists_are_mapped_and_the_rest_is_reported() {
        let spec = ProtocolSpec {
            cipher_suites: vec![
                "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]".to_owned(),
                "ECDHE-RSA-AES256-GCM-SHA384".to_owned(),
                "AES128-GCM-SHA256".to_owned(),
            ],
            curves: vec!["P-256".to_owned(), "P-521".to_owned()],
            ..ProtocolSpec::default()
        };
        let mut findings = Vec::new();
        let provider = spec.provider("inbound", &mut findings).unwrap();
        let names: Vec<_> = provider.cipher_suites.iter().map(|suite| cipher_name(suite.suite())).collect();
        assert_eq!(
            names[3..],
            ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-AES256-GCM-SHA384"]
        );
        assert!(provider.cipher_suites[..3].iter().all(|suite| suite.tls13().is_some()));
        assert_eq!(provider.kx_groups.len(), 1);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].message.contains("AES128-GCM-SHA256"), "{findings:?}");
        assert!(findings[1].message.contains("P-521"), "{findings:?}");
    }

    #[test]
    fn the_preference_names_every_suite_that_rustls_has_once() {
        for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            assert_eq!(PREFERENCE.iter().filter(|ours| *ours == suite).count(), 1, "{suite:?}");
            assert_eq!(suite_by_name(cipher_name(suite.suite())), Some(*suite));
        }
        let provider = ProtocolSpec::default().provider("outbound", &mut Vec::new()).unwrap();
        assert_eq!(cipher_name(provider.cipher_suites[0].suite()), "TLS_AES_128_GCM_SHA256");
    }

    #[test]
    fn impossible_ranges_are_refused_by_name() {
        let spec = ProtocolSpec {
            version_min: TlsVersion::Tls13,
            version_max: TlsVersion::Tls12,
            ..ProtocolSpec::default()
        };
        assert!(spec.versions("edge").unwrap_err().to_string().starts_with("edge: the minimum"));
        let spec = ProtocolSpec {
            version_max: TlsVersion::Tls12,
            cipher_suites: vec!["AES128-SHA".to_owned()],
            ..ProtocolSpec::default()
        };
        assert!(spec.provider("edge", &mut Vec::new()).unwrap_err().to_string().contains("TLS 1.3 is off"));
    }
}
