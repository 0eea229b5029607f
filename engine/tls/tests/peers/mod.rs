//! The other side in these tests: a certificate authority of our own, and rustls's buffered connections over
//! blocking sockets, which share no code with the paths under test but the handshake.
#![allow(dead_code, unused_imports)] // each test binary uses its part
#![allow(clippy::unwrap_used)] // its helpers are part of the tests

use std::net::{Shutdown, TcpListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use corelane_runtime::net::TcpStream;
use corelane_runtime::{Buf, Core, Nanos};
use corelane_tls::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

pub const ORDERS: &str = "spiffe://cluster.local/ns/prod/sa/orders";
pub const PAYMENTS: &str = "spiffe://cluster.local/ns/prod/sa/payments";

/// A root that issues leaves.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a leaf says.
pub struct Leaf<'a> {
    pub uris: &'a [&'a str],
    pub dns: &'a [&'a str],
    pub not_before: (i32, u8, u8),
    pub not_after: (i32, u8, u8),
    pub rsa: bool,
    pub serial: u8,
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self { uris: &[], dns: &[], not_before: (2020, 1, 1), not_after: (2049, 1, 1), rsa: false, serial: 7 }
    }
}

impl<'a> Leaf<'a> {
    pub fn uri(uri: &'a &'a str) -> Self {
        Self { uris: std::slice::from_ref(uri), ..Self::default() }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    pub fn issue(&self, leaf: Leaf<'_>) -> CertifiedPem {
        let dns: Vec<String> = leaf.dns.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        for &uri in leaf.uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        params.serial_number = Some(SerialNumber::from_slice(&[leaf.serial]));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let date = |(year, month, day)| rcgen::date_time_ymd(year, month, day);
        (params.not_before, params.not_after) = (date(leaf.not_before), date(leaf.not_after));
        let algorithm = if leaf.rsa { &rcgen::PKCS_RSA_SHA256 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        CertifiedPem {
            name: "leaf".to_owned(),
            key_name: "leaf's key".to_owned(),
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    pub fn revoke(&self, serial: u8) -> Vec<u8> {
        let revoked = rcgen::RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[serial]),
            revocation_time: rcgen::date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2021, 1, 1),
            next_update: rcgen::date_time_ymd(2049, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap().into_bytes()
    }

    /// Accepts leaves of this authority that carry one of these URIs; any, when there are none.
    pub fn validation(&self, uris: &[&str]) -> ValidationSpec {
        ValidationSpec {
            trust_bundle: Some(NamedPem::new("bundle", self.pem())),
            sans: uris.iter().map(|&uri| SanMatch::exact_uri(uri)).collect(),
            ..ValidationSpec::default()
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        roots
    }
}

pub fn environment() -> ContextEnvironment {
    ContextEnvironment::new().unwrap()
}

pub fn server(spec: &ServerSpec) -> Arc<ServerContext> {
    Arc::new(ServerContext::build(spec, &environment(), 1, 1).unwrap())
}

pub fn client(spec: &ClientSpec) -> Arc<ClientContext> {
    Arc::new(ClientContext::build(spec, &environment()).unwrap())
}

pub fn chain_of(pem: &CertifiedPem) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(&pem.chain).map(Result::unwrap).collect()
}

pub fn key_of(pem: &CertifiedPem) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(&pem.key).unwrap()
}

fn provider(suites: &[SupportedCipherSuite]) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if !suites.is_empty() {
        provider.cipher_suites = suites.to_vec();
    }
    Arc::new(provider)
}

pub type Versions = &'static [&'static SupportedProtocolVersion];
pub const TLS12: Versions = &[&rustls::version::TLS12];
pub const TLS13: Versions = &[&rustls::version::TLS13];

/// rustls's own client: verifies against the authority without names, presents `certificate`.
pub fn rustls_client(
    authority: &Authority,
    certificate: Option<&CertifiedPem>,
    versions: Versions,
    suites: &[SupportedCipherSuite],
) -> ClientConfig {
    let provider = provider(suites);
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(authority.roots()),
        provider.clone(),
    )
    .build()
    .unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(WithoutNames(verifier)));
    match certificate {
        Some(pem) => builder.with_client_auth_cert(chain_of(pem), key_of(pem)).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// rustls's own server; asks for client certificates of `clients`.
pub fn rustls_server(
    certificate: &CertifiedPem,
    clients: Option<&Authority>,
    versions: Versions,
    suites: &[SupportedCipherSuite],
) -> ServerConfig {
    let provider = provider(suites);
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        Some(authority) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider)
                .build()
                .unwrap(),
        ),
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain_of(certificate), key_of(certificate)).unwrap()
}

#[derive(Debug)]
struct WithoutNames(Arc<rustls::client::WebPkiServerVerifier>);

impl ServerCertVerifier for WithoutNames {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Two ends of one loopback connection. A peer that waits longer than this for bytes hangs.
pub fn sockets() -> (StdStream, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (two, _) = listener.accept().unwrap();
    for socket in [&one, &two] {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    (one, two)
}

/// Gives a blocking socket to a core.
pub fn adopt(core: &Core, socket: StdStream) -> TcpStream {
    TcpStream::from_fd(core, OwnedFd::from(socket)).unwrap()
}

pub fn deadline(core: &Core) -> Nanos {
    core.now() + Duration::from_secs(20)
}

/// The other end of one connection of ours, running on a thread of its own.
pub struct Far<T> {
    pub near: StdStream,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Far<T> {
    pub fn run(peer: impl FnOnce(StdStream) -> T + Send + 'static) -> Self {
        let (near, far) = sockets();
        Self { near, thread: std::thread::spawn(move || peer(far)) }
    }

    /// Splits off the socket for us; what the peer returns comes from [`finish`].
    pub fn split(self) -> (StdStream, JoinHandle<T>) {
        (self.near, self.thread)
    }
}

/// The peer's result, awaited without blocking the core.
pub async fn finish<T>(core: &Core, thread: JoinHandle<T>) -> T {
    while !thread.is_finished() {
        core.timers().sleep(Duration::from_millis(1)).await;
    }
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub type RustlsClient = rustls::StreamOwned<ClientConnection, StdStream>;
pub type RustlsServer = rustls::StreamOwned<ServerConnection, StdStream>;

pub fn rustls_connect(config: ClientConfig, socket: StdStream) -> RustlsClient {
    let name = "payments.prod.svc".try_into().unwrap();
    rustls::StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

pub fn rustls_accept(config: ServerConfig, socket: StdStream) -> RustlsServer {
    rustls::StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket)
}

/// Bytes whose order shows when any is lost, doubled or moved.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Reads until `len` bytes or the end.
pub async fn read_len(core: &Core, stream: &TlsStream, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < len {
        let (result, buf) = stream.read(core.buffers().take()).await;
        let n = result.unwrap_or_else(|error| panic!("read after {} bytes: {error}", got.len()));
        if n == 0 {
            break;
        }
        assert_eq!(n, buf.len());
        got.extend_from_slice(buf.filled());
    }
    got
}

/// Writes all bytes, a core buffer at a time.
pub async fn write_bytes(core: &Core, stream: &TlsStream, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut buf = core.buffers().take();
        let n = buf.extend_from_slice(rest);
        rest = &rest[n..];
        let (result, buf) = stream.write_all(buf).await;
        result.unwrap();
        assert!(buf.is_empty());
    }
}

/// What an operation's I/O error says about TLS.
pub fn tls_error(error: &std::io::Error) -> &TlsError {
    TlsError::of(error).unwrap_or_else(|| panic!("not a TLS error: {error:?}"))
}

/// One of our cores on both ends.
pub async fn both_ends(core: &Rc<Core>, path: RecordPath) -> (Rc<TlsCore>, Rc<TlsStream>, Rc<TlsStream>) {
    let authority = Authority::new("root");
    let mut server_spec = ServerSpec::new("inbound", authority.issue(Leaf::uri(&PAYMENTS)));
    let mut client_spec = ClientSpec::new("outbound");
    client_spec.validation = Some(authority.validation(&[PAYMENTS]));
    (server_spec.record_path, client_spec.record_path) = (path, path);
    let (server, client) = (server(&server_spec), client(&client_spec));
    let (one, two) = sockets();
    let (one, two) = (adopt(core, one), adopt(core, two));
    let tls = TlsCore::new(core);
    let accepted: Rc<std::cell::RefCell<Option<TlsStream>>> = Rc::default();
    let (tls_far, core_far, accepted_far) = (tls.clone(), core.clone(), accepted.clone());
    core.spawn(async move {
        let stream = accept(&tls_far, two, &server, None, deadline(&core_far)).await.unwrap();
        *accepted_far.borrow_mut() = Some(stream);
    });
    let client = connect(&tls, one, &client, ConnectParams::default(), deadline(core)).await.unwrap();
    while accepted.borrow().is_none() {
        core.timers().sleep(Duration::from_millis(1)).await;
    }
    let server = accepted.borrow_mut().take().unwrap();
    (tls, Rc::new(client), Rc::new(server))
}
