//! What can go wrong with TLS, each variant a decision for the caller.
//!
//! The first group refuses a configuration, and names the resource; the second fails a handshake; the
//! third ends an established stream. A stream error also travels inside an [`std::io::Error`]
//! (see [`TlsError::into_io`]) because the stream's reads and writes look like a socket's.
use std::io;

/// Every failure of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// The PEM text cannot be decoded.
    #[error("{resource}: not valid PEM ({cause}); is the file truncated or DER-encoded?")]
    BadPem { resource: String, cause: String },
    /// The PEM text holds no `CERTIFICATE` block.
    #[error("{resource}: holds no certificate; is the file empty, or the key given in its place?")]
    NoCertificate { resource: String },
    /// The PEM text holds no private key block.
    #[error("{resource}: holds no private key; is the file empty, or the certificate given in its place?")]
    NoPrivateKey { resource: String },
    /// The key needs a password, which there is no way to give.
    #[error("{resource}: the private key is encrypted, and no password can be given; write it without one")]
    EncryptedPrivateKey { resource: String },
    /// The certificate is not X.509 v3 as webpki reads it.
    #[error("{resource}: certificate cannot be parsed ({cause})")]
    BadCertificate { resource: String, cause: String },
    /// The key type is unknown or the key is damaged.
    #[error(
        "{resource}: private key cannot be used ({cause}); supported are RSA, ECDSA P-256/384/521 and Ed25519"
    )]
    BadPrivateKey { resource: String, cause: String },
    /// The key belongs to another certificate.
    #[error(
        "{key}: the private key does not match the certificate of {chain}; were they rotated one without the other?"
    )]
    KeyMismatch { key: String, chain: String },
    /// The certificate's validity has passed.
    #[error("{resource}: the certificate expired at unix second {not_after_s}; has rotation stopped?")]
    CertificateExpired { resource: String, not_after_s: u64 },
    /// A validation context or a version range contradicts itself.
    #[error("{resource}: {cause}")]
    BadSpec { resource: String, cause: String },
    /// A certificate revocation list cannot be parsed.
    #[error("{resource}: certificate revocation list cannot be parsed ({cause})")]
    BadRevocationList { resource: String, cause: String },
    /// The context table is full.
    #[error("context table: {max} contexts are the most that one process keeps")]
    TooManyContexts { max: usize },
    /// The operating system gave no randomness.
    #[error("ticket keys: the system's random source failed")]
    NoRandomness,

    /// The peer, or our verification of it, ended the handshake.
    #[error("TLS handshake failed: {}", explain(.0))]
    Handshake(rustls::Error),
    /// The peer sent something that is not TLS.
    #[error("TLS handshake failed: the peer does not speak TLS; is it plain text on a TLS port?")]
    NotTls,
    /// The connection ended inside the handshake.
    #[error("TLS handshake failed: the peer closed the connection in the middle of it")]
    HandshakeClosed,
    /// The deadline passed inside the handshake.
    #[error("TLS handshake failed: not finished before its deadline")]
    HandshakeTimeout,
    /// One flight of the handshake is larger than a buffer.
    #[error("TLS handshake failed: the peer's messages exceed {max} bytes")]
    HandshakeTooLarge { max: usize },
    /// The handshake comes in more records than any honest peer cuts it into.
    #[error("TLS handshake failed: the peer cut its messages into more than {max} records")]
    HandshakeTooFragmented { max: usize },
    /// The server name to ask for is not a DNS name or an IP address.
    #[error("TLS handshake failed: {0:?} is not a server name")]
    BadServerName(String),
    /// A read was given a buffer without spare room.
    #[error("TLS stream: the buffer has no room to read into")]
    NoRoom,

    /// The peer ended the connection without `close_notify`: data may be missing.
    #[error("TLS stream: the peer closed without close_notify; the data may be cut short")]
    Truncated,
    /// The peer sent a fatal alert.
    #[error("TLS stream: the peer sent the fatal alert {0:?}")]
    PeerAlert(rustls::AlertDescription),
    /// The peer broke the protocol; the alert is what we answered.
    #[error("TLS stream: {what} (answered {alert:?})")]
    PeerMisbehaved { what: &'static str, alert: rustls::AlertDescription },
    /// The keys are used up and cannot be replaced.
    #[error("TLS stream: the traffic keys are exhausted")]
    KeysExhausted,
    /// An earlier operation was dropped half way, or failed; the stream cannot go on.
    #[error("TLS stream: unusable since an earlier operation failed or was abandoned")]
    Broken,
    /// The write side is closed already.
    #[error("TLS stream: written to after close_notify")]
    WriteClosed,
    /// rustls refused a record on the unbuffered path.
    #[error("TLS stream: {0}")]
    Stream(rustls::Error),
    /// The socket failed.
    #[error("TLS: socket: {0:?}")]
    Io(io::ErrorKind),
}

/// rustls's error with what most often lies behind it.
fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    let likely = match error {
        Error::InvalidCertificate(Certificate::Other(inner)) => return inner.0.to_string(),
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "the peer's root is not in our trust bundle",
        Error::InvalidCertificate(Certificate::ExpiredContext { .. }) => "has the peer's rotation stopped?",
        Error::InvalidCertificate(Certificate::NotValidYetContext { .. }) => "do the clocks agree?",
        Error::NoCertificatesPresented => "is the peer outside the mesh, or its mTLS off?",
        Error::AlertReceived(Alert::UnknownCA) => "our root is not in the peer's trust bundle",
        Error::AlertReceived(Alert::CertificateExpired) => "the peer holds our certificate for expired",
        Error::AlertReceived(Alert::CertificateRequired) => "the peer requires a client certificate",
        Error::AlertReceived(Alert::CertificateUnknown | Alert::BadCertificate | Alert::AccessDenied) => {
            "the peer does not accept our identity"
        }
        Error::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure) => {
            "no protocol version or cipher suite in common"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {likely}")
}

impl TlsError {
    /// The peer's certificate is good, and belongs to somebody else than the one wanted.
    pub fn is_san_mismatch(&self) -> bool {
        self.is_refusal::<crate::verify::SanMismatch>()
    }

    /// The peer's certificate is none of those whose hashes are wanted.
    pub fn is_pin_mismatch(&self) -> bool {
        self.is_refusal::<crate::verify::PinMismatch>()
    }

    /// The peer ended the connection because of our certificate, or for want of one (RFC 8446, 6.2). In TLS 1.3 that can
    /// come after the handshake.
    pub fn is_about_certificate(&self) -> bool {
        use rustls::AlertDescription as Alert;
        let TlsError::PeerAlert(alert) = self else { return false };
        matches!(
            alert,
            Alert::HandshakeFailure
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired
        )
    }

    fn is_refusal<R: std::error::Error + 'static>(&self) -> bool {
        match self {
            TlsError::Handshake(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(
                other,
            ))) => other.0.downcast_ref::<R>().is_some(),
            _ => false,
        }
    }

    /// The same failure as an I/O error: `get_ref` downcasts to `TlsError`.
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Truncated | Self::HandshakeClosed => io::ErrorKind::UnexpectedEof,
            Self::HandshakeTimeout => io::ErrorKind::TimedOut,
            Self::PeerAlert(_) => io::ErrorKind::ConnectionAborted,
            Self::WriteClosed | Self::Broken => io::ErrorKind::BrokenPipe,
            Self::NoRoom => io::ErrorKind::InvalidInput,
            Self::Io(kind) => *kind,
            _ => io::ErrorKind::InvalidData,
        };
        match self {
            Self::Io(kind) => io::Error::from(kind),
            other => io::Error::new(kind, other),
        }
    }

    /// The TLS failure inside an I/O error that a stream returned, if there is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        match Self::of(&error) {
            Some(inner) => inner.clone(),
            None => Self::Io(error.kind()),
        }
    }
}
