//! rustls configurations from PEM files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::{Error, tickets::Tickets};

/// The client's side of TLS.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientTls {
    /// Roots that the server's certificate must chain to (PEM).
    #[arg(long = "tls-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate chain for mTLS (PEM).
    #[arg(long = "tls-cert", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Key of the client certificate (PEM).
    #[arg(long = "tls-key", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Server name to ask for and to check; the target's host when absent.
    #[arg(long = "tls-server-name", value_name = "NAME")]
    pub server_name: Option<String>,
    /// Accept any server certificate: cheaper, so the generator lasts longer in a handshake run.
    #[arg(long = "tls-insecure")]
    pub insecure: bool,
}

/// The server's side of TLS; with `ca`, clients must present a certificate (mTLS).
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServerTls {
    /// Certificate chain (PEM); turns TLS on.
    #[arg(long = "tls-cert", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Key of the certificate (PEM).
    #[arg(long = "tls-key", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Roots for client certificates (PEM); turns mTLS on.
    #[arg(long = "tls-ca", value_name = "FILE", requires = "cert")]
    pub ca: Option<PathBuf>,
}

/// Builds the client configuration; `resumption` keeps sessions between connections.
pub fn client_config(tls: &ClientTls, alpn: &[u8], resumption: bool) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = if tls.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
    } else {
        let ca = tls
            .ca
            .as_ref()
            .ok_or_else(|| Error::usage("a TLS target needs --tls-ca FILE or --tls-insecure"))?;
        builder.with_root_certificates(roots(ca)?)
    };
    let mut config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => builder.with_client_auth_cert(read_chain(cert)?, read_key(key)?)?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption =
        if resumption { Resumption::store(Arc::new(Tickets::default())) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

/// Builds the server configuration, or `None` where no certificate is named.
pub fn server_config(tls: &ServerTls, alpn: &[&[u8]]) -> Result<Option<Arc<ServerConfig>>, Error> {
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else { return Ok(None) };
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &tls.ca {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider())
                .build()
                .map_err(|e| Error::File { path: ca.clone(), reason: e.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(read_chain(cert)?, read_key(key)?)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Some(Arc::new(config)))
}

/// The certificates of a PEM file in order; an empty file is an error.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |reason: String| Error::File { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|e| bad(e.to_string()))?;
    if chain.is_empty() { Err(bad("holds no certificate".into())) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| Error::File { path: path.to_owned(), reason: e.to_string() })
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in read_chain(path)? {
        store.add(certificate)?;
    }
    Ok(store)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// `--tls-insecure`. Signatures are not checked either: the run measures the server.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
