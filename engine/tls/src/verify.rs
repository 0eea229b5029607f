//! Verification of a peer by its certificate: path to the trust bundle, revocation, pins, then names.
//!
//! One verifier serves both directions; only the required key usage differs. A SPIFFE peer is recognized by its
//! URI SAN, so the name under which it was reached is not compared unless the context asks for that.
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::certificate::{CertificateInfo, hex};
use crate::error::TlsError;
use crate::pem::{NamedPem, blocks, certificates};
use crate::san::{SAN_MATCHERS_MAX, SanMatch};
use crate::scope;

/// Roots in one trust bundle.
pub const TRUST_ROOTS_MAX: usize = 1024;

/// What a peer's certificate must satisfy; from a validation context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidationSpec {
    /// Any number of roots. `None`: the path is not verified, only the pins are. A text without a root is an error and
    /// never the same as none: a file is empty for a moment whenever something writes it anew.
    pub trust_bundle: Option<NamedPem>,
    /// One must match when there are any.
    pub sans: Vec<SanMatch>,
    /// Let connections through whose verification failed; [`crate::PeerIdentity::validated`] then says so.
    pub accept_untrusted: bool,
    /// Any number of revocation lists, at least one. When given, a certificate that no list covers is refused.
    pub crl: Option<NamedPem>,
    /// Consult the lists for the leaf only.
    pub crl_leaf_only: bool,
    /// SHA-256 digests of the leaf's DER. With `spki_sha256`: one of either list must match.
    pub certificate_sha256: Vec<[u8; 32]>,
    /// SHA-256 digests of the leaf's SubjectPublicKeyInfo.
    pub spki_sha256: Vec<[u8; 32]>,
}

impl ValidationSpec {
    /// A digest of all that decides who is accepted; sessions from before a change are not resumed after it.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for pem in [&self.trust_bundle, &self.crl] {
            let text = pem.as_ref().map(|pem| &pem.text[..]);
            context.update(&[u8::from(text.is_some())]);
            context.update(&(text.map_or(0, <[u8]>::len) as u64).to_be_bytes());
            context.update(text.unwrap_or_default());
        }
        context.update(&[u8::from(self.accept_untrusted), u8::from(self.crl_leaf_only)]);
        for pins in [&self.certificate_sha256, &self.spki_sha256] {
            context.update(&(pins.len() as u64).to_be_bytes());
            pins.iter().for_each(|pin| context.update(pin));
        }
        self.sans.iter().for_each(|san| san.feed(&mut context));
        sha256_of(context)
    }
}

pub(crate) fn sha256_of(context: digest::Context) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(bytes);
    sha256_of(context)
}

/// The compiled form of a [`ValidationSpec`].
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    /// Never empty.
    roots: Option<Vec<TrustAnchor<'static>>>,
    /// The bundle's certificates for `/certs`.
    pub(crate) root_info: Vec<CertificateInfo>,
    root_subjects: Vec<DistinguishedName>,
    /// Never empty.
    revocation_lists: Option<Vec<CertRevocationList<'static>>>,
    crl_leaf_only: bool,
    sans: Vec<SanMatch>,
    accept_untrusted: bool,
    certificate_sha256: Vec<[u8; 32]>,
    spki_sha256: Vec<[u8; 32]>,
    certificate_required: bool,
    match_server_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    /// Compiles a spec. Without one, any certificate (or none) is accepted and counts as not validated.
    ///
    /// # Errors
    /// Names `resource` and the part of the spec that cannot be used.
    pub(crate) fn build(
        resource: &str,
        spec: Option<&ValidationSpec>,
        certificate_required: bool,
        match_server_name: bool,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, TlsError> {
        let bad = |cause: &str| TlsError::BadSpec { resource: resource.to_owned(), cause: cause.to_owned() };
        let mut verifier = Self {
            roots: None,
            root_info: Vec::new(),
            root_subjects: Vec::new(),
            revocation_lists: None,
            crl_leaf_only: false,
            sans: Vec::new(),
            accept_untrusted: true,
            certificate_sha256: Vec::new(),
            spki_sha256: Vec::new(),
            certificate_required,
            match_server_name,
            algorithms,
        };
        let Some(spec) = spec else { return Ok(verifier) };
        let pinned = !spec.certificate_sha256.is_empty() || !spec.spki_sha256.is_empty();
        if spec.trust_bundle.is_none() && !(spec.sans.is_empty() && spec.crl.is_none()) {
            return Err(bad(
                "subject alternative names or a revocation list without a trust bundle prove nothing",
            ));
        }
        if spec.sans.len() > SAN_MATCHERS_MAX {
            return Err(bad("more subject alternative name matchers than are kept"));
        }
        verifier.accept_untrusted = spec.accept_untrusted || (spec.trust_bundle.is_none() && !pinned);
        verifier.crl_leaf_only = spec.crl_leaf_only;
        verifier.sans.clone_from(&spec.sans);
        verifier.certificate_sha256.clone_from(&spec.certificate_sha256);
        verifier.spki_sha256.clone_from(&spec.spki_sha256);
        if let Some(bundle) = &spec.trust_bundle {
            let roots = trust_roots(bundle)?;
            verifier.root_subjects =
                roots.iter().map(|(_, anchor)| DistinguishedName::in_sequence(&anchor.subject)).collect();
            verifier.root_info =
                roots.iter().filter_map(|(root, _)| CertificateInfo::from_der(root)).collect();
            verifier.roots = Some(roots.into_iter().map(|(_, anchor)| anchor).collect());
        }
        verifier.revocation_lists = spec.crl.as_ref().map(revocation_lists).transpose()?;
        Ok(verifier)
    }

    /// Verifies a leaf and its intermediates, and notes what was learned for the connection at work.
    fn verify(
        &self,
        usage: KeyUsage,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let verdict = self.verify_strictly(usage, leaf, intermediates, server_name, now);
        let untrusted = verdict.is_err() || (self.roots.is_none() && self.pins().next().is_none());
        if untrusted && !self.accept_untrusted {
            return verdict.map(|_| ());
        }
        scope::with_facts(|facts| {
            facts.peer_untrusted = untrusted;
            facts.peer_not_after_s = verdict.ok();
        });
        Ok(())
    }

    /// Unix seconds at which the first certificate of the verified path expires.
    fn verify_strictly(
        &self,
        usage: KeyUsage,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<u64, Error> {
        let parsed = EndEntityCert::try_from(leaf).map_err(rustls_error)?;
        let info = CertificateInfo::from_der(leaf).ok_or(CertificateError::BadEncoding)?;
        let mut not_after_s = info.not_after_s;
        if let Some(roots) = &self.roots {
            let lists: Vec<_> = self.revocation_lists.iter().flatten().collect();
            let revocation =
                self.revocation_lists.as_ref().map(|_| revocation_options(&lists, self.crl_leaf_only));
            let path = parsed
                .verify_for_usage(
                    self.algorithms.all,
                    roots,
                    intermediates,
                    now,
                    usage,
                    revocation.transpose()?,
                    None,
                )
                .map_err(rustls_error)?;
            for link in path.intermediate_certificates() {
                if let Some(link) = CertificateInfo::from_der(&link.der()) {
                    not_after_s = not_after_s.min(link.not_after_s);
                }
            }
        }
        self.check_pins(&parsed, leaf)?;
        if !self.sans.is_empty() && !self.sans.iter().any(|san| san.accepts(&info)) {
            return Err(other(SanMismatch::new(&info, &self.sans)));
        }
        if let (true, Some(name)) = (self.match_server_name, server_name) {
            parsed.verify_is_valid_for_subject_name(name).map_err(rustls_error)?;
        }
        Ok(not_after_s)
    }

    pub(crate) fn is_certificate_required(&self) -> bool {
        self.certificate_required
    }

    fn pins(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.certificate_sha256.iter().chain(&self.spki_sha256)
    }

    fn check_pins(&self, parsed: &EndEntityCert<'_>, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.pins().next().is_none() {
            return Ok(());
        }
        let certificate = sha256(leaf);
        let spki = sha256(&parsed.subject_public_key_info());
        if self.certificate_sha256.contains(&certificate) || self.spki_sha256.contains(&spki) {
            return Ok(());
        }
        Err(other(PinMismatch { certificate: hex(&certificate) }))
    }
}

/// The roots of a bundle, at least one.
///
/// # Errors
/// Names the bundle; also where one of its blocks is not whole, because the rest might be less than was meant.
pub(crate) fn trust_roots(
    bundle: &NamedPem,
) -> Result<Vec<(CertificateDer<'static>, TrustAnchor<'static>)>, TlsError> {
    let resource = || bundle.name.clone();
    let roots = certificates(&bundle.name, &bundle.text)?;
    if roots.len() > TRUST_ROOTS_MAX {
        let cause = format!("the trust bundle has {} roots, at most {TRUST_ROOTS_MAX} are kept", roots.len());
        return Err(TlsError::BadSpec { resource: resource(), cause });
    }
    let anchored = |root: CertificateDer<'static>| {
        let anchor = webpki::anchor_from_trusted_cert(&root).map_err(|error| TlsError::BadCertificate {
            resource: resource(),
            cause: format!("a root of the trust bundle: {error}"),
        })?;
        let anchor = anchor.to_owned();
        Ok((root, anchor))
    };
    roots.into_iter().map(anchored).collect()
}

/// The lists of a text, at least one.
///
/// # Errors
/// Names the text; also where one of its blocks is not whole.
pub(crate) fn revocation_lists(text: &NamedPem) -> Result<Vec<CertRevocationList<'static>>, TlsError> {
    let bad = |cause: String| TlsError::BadRevocationList { resource: text.name.clone(), cause };
    let lists = blocks::<CertificateRevocationListDer<'static>>(&text.name, &text.text)?;
    if lists.is_empty() {
        return Err(bad("it holds no X509 CRL block; was it emptied to be written anew?".to_owned()));
    }
    let owned = |list: CertificateRevocationListDer<'static>| {
        let list = BorrowedCertRevocationList::from_der(&list).and_then(|list| list.to_owned());
        list.map(CertRevocationList::Owned).map_err(|error| bad(error.to_string()))
    };
    lists.into_iter().map(owned).collect()
}

fn revocation_options<'a>(
    lists: &'a [&'a CertRevocationList<'a>],
    leaf_only: bool,
) -> Result<RevocationOptions<'a>, Error> {
    let depth = if leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
    // fails only for want of a list, and then nothing can be said of any certificate
    let options =
        RevocationOptionsBuilder::new(lists).map_err(|_| CertificateError::UnknownRevocationStatus)?;
    Ok(options
        .with_depth(depth)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce)
        .build())
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.certificate_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.root_subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(KeyUsage::client_auth(), leaf, intermediates, None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(KeyUsage::server_auth(), leaf, intermediates, Some(server_name), now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("peer presents {presented}; none of the {wanted} accepted names matches, the first being {first}")]
pub(crate) struct SanMismatch {
    presented: String,
    wanted: usize,
    first: String,
}

impl SanMismatch {
    fn new(peer: &CertificateInfo, sans: &[SanMatch]) -> Self {
        let names = peer.uri_sans.iter().chain(&peer.dns_sans).take(4).cloned().collect::<Vec<_>>();
        Self {
            presented: if names.is_empty() { "no URI or DNS name".to_owned() } else { names.join(", ") },
            wanted: sans.len(),
            first: sans.first().map_or_else(String::new, |san| format!("{:?} {:?}", san.kind, san.matcher)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("peer's certificate (sha-256 {certificate}) is not among the pinned ones")]
pub(crate) struct PinMismatch {
    certificate: String,
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// webpki's verdict as the rustls error that yields the right alert.
fn rustls_error(error: webpki::Error) -> Error {
    let error = match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        webpki::Error::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        unusual => CertificateError::Other(OtherError(Arc::new(unusual))),
    };
    Error::InvalidCertificate(error)
}
