//! Server and client contexts: what a listener or a cluster needs to speak TLS, built once from a plain spec.
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption, Tls12Resumption};
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls_pki_types::ServerName;

use crate::certificate::CertificateInfo;
use crate::error::TlsError;
use crate::identity::{CertifiedPem, Identity};
use crate::resumption::ContextSessions;
use crate::suites::{Finding, ProtocolSpec, TlsVersion};
use crate::tickets::{ContextTickets, TICKET_LIFETIME_S, TicketKeys};
use crate::verify::{PeerVerifier, ValidationSpec, sha256};

/// Certificates that one server context chooses from.
pub const SERVER_CERTIFICATES_MAX: usize = 64;
/// Tickets sent after a TLS 1.3 handshake: one, since a mesh's client opens few connections and keeps them.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// How records are processed once the handshake is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordPath {
    /// In place for TLS 1.3, rustls's unbuffered API for TLS 1.2.
    #[default]
    Auto,
    /// In place; like `Auto`, because TLS 1.2 has no such path.
    InPlace,
    /// rustls's unbuffered API for every version.
    Unbuffered,
}

/// What a listener's TLS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// What error messages and findings call this context.
    pub name: String,
    /// Chosen from by server name, then by the client's signature algorithms; the first is the fallback.
    pub certificates: Vec<CertifiedPem>,
    /// `None`: no client certificate is asked for, unless one is required.
    pub client_validation: Option<ValidationSpec>,
    pub require_client_certificate: bool,
    /// In order of preference. A client that offers none of them is served without ALPN, as by Envoy.
    pub alpn: Vec<Vec<u8>>,
    pub protocol: ProtocolSpec,
    pub session_tickets: bool,
    /// A session can be resumed this long; `None`: [`TICKET_LIFETIME_S`]. Longer than until the keys rotate is
    /// not possible.
    pub session_timeout_s: Option<u32>,
    pub record_path: RecordPath,
}

impl ServerSpec {
    /// A context with one certificate and the defaults.
    pub fn new(name: impl Into<String>, certificate: CertifiedPem) -> Self {
        Self {
            name: name.into(),
            certificates: vec![certificate],
            client_validation: None,
            require_client_certificate: false,
            alpn: Vec::new(),
            protocol: ProtocolSpec::default(),
            session_tickets: true,
            session_timeout_s: None,
            record_path: RecordPath::Auto,
        }
    }
}

/// What a cluster's TLS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSpec {
    /// What error messages and findings call this context.
    pub name: String,
    /// The server name to send; `None` sends none unless the connection overrides it.
    pub sni: Option<String>,
    pub alpn: Vec<Vec<u8>>,
    /// Presented when the server asks for a certificate.
    pub certificate: Option<CertifiedPem>,
    /// `None`: the server's certificate is not verified, as in Envoy.
    pub validation: Option<ValidationSpec>,
    /// Also compare the server name with the certificate's DNS and IP names (`auto_sni_san_validation`).
    pub match_server_name: bool,
    pub protocol: ProtocolSpec,
    /// TLS 1.3 tickets kept for one endpoint, at most [`crate::SESSION_TICKETS_MAX`]; 0 turns resumption off.
    pub session_keys_max: usize,
    pub record_path: RecordPath,
}

impl ClientSpec {
    /// A context that presents nothing and verifies nothing; the caller fills in the rest.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sni: None,
            alpn: Vec::new(),
            certificate: None,
            validation: None,
            match_server_name: false,
            protocol: ProtocolSpec::default(),
            session_keys_max: 1,
            record_path: RecordPath::Auto,
        }
    }
}

/// What contexts share: ticket keys and the clock.
#[derive(Debug, Clone)]
pub struct ContextEnvironment {
    pub ticket_keys: Arc<TicketKeys>,
    pub time: Arc<dyn TimeProvider>,
}

impl ContextEnvironment {
    /// Fresh ticket keys and the system's clock.
    ///
    /// # Errors
    /// [`TlsError::NoRandomness`].
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self { ticket_keys: TicketKeys::new()?, time: Arc::new(DefaultTimeProvider) })
    }

    pub(crate) fn now_s(&self) -> u64 {
        self.time.current_time().map_or(0, |now| now.as_secs())
    }
}

/// TLS as a server, ready for connections.
#[derive(Debug)]
pub struct ServerContext {
    name: String,
    pub(crate) config: Arc<ServerConfig>,
    /// For clients whose ALPN offer has nothing of ours.
    pub(crate) config_without_alpn: Arc<ServerConfig>,
    pub(crate) record_path: RecordPath,
    identities: Vec<Identity>,
    verifier: Option<Arc<PeerVerifier>>,
    findings: Vec<Finding>,
    bundle_digest: [u8; 32],
    bundle_generation: u64,
}

impl ServerContext {
    /// Builds a context. `bundle_generation` changes whenever [`ServerContext::bundle_digest`] does; tickets of
    /// other generations, and of contexts with another `scope`, are not resumed.
    ///
    /// # Errors
    /// Names the certificate, the bundle or the setting that cannot be used.
    pub fn build(
        spec: &ServerSpec,
        environment: &ContextEnvironment,
        scope: u64,
        bundle_generation: u64,
    ) -> Result<Self, TlsError> {
        let bad = |cause: &str| TlsError::BadSpec { resource: spec.name.clone(), cause: cause.to_owned() };
        if spec.certificates.is_empty() || spec.certificates.len() > SERVER_CERTIFICATES_MAX {
            return Err(bad("a server needs between 1 and 64 certificates"));
        }
        let mut findings = Vec::new();
        let versions = spec.protocol.versions(&spec.name)?;
        let provider = Arc::new(spec.protocol.provider(&spec.name, &mut findings)?);
        let identities = spec
            .certificates
            .iter()
            .map(|pem| Identity::from_pem(pem, &provider, environment.now_s()))
            .collect::<Result<Vec<_>, _>>()?;
        let algorithms = provider.signature_verification_algorithms;
        let verifier = (spec.client_validation.is_some() || spec.require_client_certificate)
            .then(|| {
                let required = spec.require_client_certificate;
                PeerVerifier::build(&spec.name, spec.client_validation.as_ref(), required, false, algorithms)
            })
            .transpose()?
            .map(Arc::new);
        let builder = ServerConfig::builder_with_details(provider, environment.time.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| bad(&error.to_string()))?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(CertificateChoice::new(&identities)));
        // sessions without a ticket would escape the ticket's bindings
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.enable_secret_extraction = true;
        config.send_tls13_tickets = 0;
        let bundle_digest = server_digest(spec);
        if spec.session_tickets {
            config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
            config.ticketer = Arc::new(ContextTickets {
                keys: environment.ticket_keys.clone(),
                binding: ticket_binding(scope, bundle_generation, &bundle_digest),
                time: environment.time.clone(),
                lifetime_s: spec.session_timeout_s.unwrap_or(TICKET_LIFETIME_S),
            });
        }
        let config_without_alpn = Arc::new(config.clone());
        config.alpn_protocols.clone_from(&spec.alpn);
        Ok(Self {
            name: spec.name.clone(),
            config: Arc::new(config),
            config_without_alpn,
            record_path: spec.record_path,
            identities,
            verifier,
            findings,
            bundle_digest,
            bundle_generation,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Settings that have no effect here.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Our certificate chains, for `/certs`.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// The trust bundle's certificates, for `/certs`.
    pub fn trust_roots(&self) -> &[CertificateInfo] {
        self.verifier.as_ref().map_or(&[], |verifier| &verifier.root_info)
    }

    /// Whether a client certificate is asked for, and whether it must be given.
    pub fn requires_client_certificate(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.is_certificate_required())
    }

    /// Digest of all that decides which clients are accepted.
    pub fn bundle_digest(&self) -> [u8; 32] {
        self.bundle_digest
    }

    /// See [`ServerContext::build`].
    pub fn bundle_generation(&self) -> u64 {
        self.bundle_generation
    }
}

/// The digest that [`ServerContext::bundle_digest`] of a context built from `spec` would have.
pub(crate) fn server_digest(spec: &ServerSpec) -> [u8; 32] {
    let mut parts =
        vec![u8::from(spec.require_client_certificate), u8::from(spec.client_validation.is_some())];
    parts.extend(spec.client_validation.as_ref().map_or([0; 32], ValidationSpec::digest));
    sha256(&parts)
}

fn ticket_binding(scope: u64, bundle_generation: u64, bundle_digest: &[u8; 32]) -> [u8; 32] {
    sha256(&[&scope.to_be_bytes()[..], &bundle_generation.to_be_bytes(), bundle_digest].concat())
}

/// Chooses among a server's certificates by server name and signature algorithms.
#[derive(Debug)]
struct CertificateChoice {
    choices: Vec<(Arc<CertifiedKey>, Vec<String>)>,
}

impl CertificateChoice {
    fn new(identities: &[Identity]) -> Self {
        let names = |identity: &Identity| {
            identity.leaf().dns_sans.iter().map(|name| name.to_ascii_lowercase()).collect()
        };
        Self { choices: identities.iter().map(|one| (one.certified.clone(), names(one))).collect() }
    }
}

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = |names: &[String]| {
            let wanted = hello.server_name().map(str::to_ascii_lowercase)?;
            let parent = wanted.split_once('.').map(|(_, parent)| parent);
            let is_match = |name: &String| {
                *name == wanted || name.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent)
            };
            names.iter().any(is_match).then_some(())
        };
        let best = self.choices.iter().find(|(key, names)| usable(key) && named(names).is_some());
        let best = best.or_else(|| self.choices.iter().find(|(key, _)| usable(key)));
        best.or(self.choices.first()).map(|(key, _)| key.clone())
    }
}

/// TLS as a client, ready for connections.
#[derive(Debug)]
pub struct ClientContext {
    name: String,
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: Option<ServerName<'static>>,
    pub(crate) record_path: RecordPath,
    identity: Option<Identity>,
    verifier: Arc<PeerVerifier>,
    findings: Vec<Finding>,
}

impl ClientContext {
    /// # Errors
    /// Names the certificate, the bundle or the setting that cannot be used.
    pub fn build(spec: &ClientSpec, environment: &ContextEnvironment) -> Result<Self, TlsError> {
        let bad = |cause: &str| TlsError::BadSpec { resource: spec.name.clone(), cause: cause.to_owned() };
        let mut findings = Vec::new();
        let versions = spec.protocol.versions(&spec.name)?;
        let provider = Arc::new(spec.protocol.provider(&spec.name, &mut findings)?);
        let server_name =
            spec.sni.as_deref().filter(|sni| !sni.is_empty()).map(parse_server_name).transpose();
        let server_name = server_name.map_err(|error| bad(&error.to_string()))?;
        let identity = spec
            .certificate
            .as_ref()
            .map(|pem| Identity::from_pem(pem, &provider, environment.now_s()))
            .transpose()?;
        let verifier = Arc::new(PeerVerifier::build(
            &spec.name,
            spec.validation.as_ref(),
            false,
            spec.match_server_name,
            provider.signature_verification_algorithms,
        )?);
        let builder = ClientConfig::builder_with_details(provider, environment.time.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| bad(&error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone());
        let mut config = match &identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(OneCertificate(identity.certified.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&spec.alpn);
        config.enable_secret_extraction = true;
        config.resumption = if spec.session_keys_max == 0 {
            Resumption::disabled()
        } else {
            let sessions = ContextSessions::new(spec.session_keys_max, environment.time.clone());
            Resumption::store(Arc::new(sessions)).tls12_resumption(Tls12Resumption::SessionIdOrTickets)
        };
        Ok(Self {
            name: spec.name.clone(),
            config: Arc::new(config),
            server_name,
            record_path: spec.record_path,
            identity,
            verifier,
            findings,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Settings that have no effect here.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Our certificate chain, for `/certs`.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The trust bundle's certificates, for `/certs`.
    pub fn trust_roots(&self) -> &[CertificateInfo] {
        &self.verifier.root_info
    }
}

/// A DNS name or an IP address; an address sends no server name.
pub(crate) fn parse_server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text)
        .map(|name| name.to_owned())
        .map_err(|_| TlsError::BadServerName(text.to_owned()))
}

/// Presents the one certificate of a client context whenever the server can verify its algorithm.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    // the server's CA hints are ignored: with SPIFFE federation a bundle may not list the root we come from
    fn resolve(&self, _root_hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl From<TlsVersion> for rustls::ProtocolVersion {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls12 => Self::TLSv1_2,
            TlsVersion::Tls13 => Self::TLSv1_3,
        }
    }
}
