//! The handshake, sans-io: records in, flights out, then a session in one of two forms.
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{HandshakeKind, ProtocolVersion, SupportedCipherSuite};
use rustls_pki_types::ServerName;

use crate::context::{ClientContext, RecordPath, ServerContext};
use crate::drive::{Connection, Intent, Stage};
use crate::error::TlsError;
use crate::hello;
use crate::inplace::{InPlace, Schedule};
use crate::peer::{PeerCache, PeerIdentity};
use crate::record::HEADER_BYTES;
use crate::scope::Facts;
use crate::suites::{TlsVersion, cipher_name};
use crate::unbuffered::Unbuffered;

/// What a peer may send in one handshake before it is over; a chain of 16 certificates fits several times.
pub const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;
/// Records that a peer may cut its handshake into: each one costs a pass over what is not complete yet.
pub const HANDSHAKE_RECORDS_MAX: usize = 512;
/// A ClientHello that is looked into; rustls refuses longer handshake messages.
const HELLO_BYTES_MAX: usize = 0xffff;

/// What was agreed, and with whom.
#[derive(Debug, Clone)]
pub struct Negotiated {
    pub version: TlsVersion,
    /// OpenSSL's name.
    pub cipher: &'static str,
    pub alpn: Option<Rc<[u8]>>,
    /// What the client asked for.
    pub sni: Option<Rc<str>>,
    pub resumed: bool,
    pub peer: Option<Rc<PeerIdentity>>,
}

/// The form in which records are processed from here on.
pub(crate) enum Session {
    InPlace(Box<InPlace>),
    Unbuffered(Box<Unbuffered>),
}

/// What the handshake waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Send `out`, then feed another record.
    Wants,
    /// Send `out`, then take the session.
    Done,
}

enum Role {
    /// The hello, collected here, decides between configurations, so there is no connection before it.
    AwaitingHello(Arc<ServerContext>, Vec<u8>),
    Running(Connection),
}

/// One handshake.
pub(crate) struct Handshake {
    role: Role,
    facts: Facts,
    record_path: RecordPath,
    /// Records whose messages are not complete yet.
    incoming: Vec<u8>,
    /// For the peer; the caller drains it.
    pub(crate) out: Vec<u8>,
    received_bytes: usize,
    received_records: usize,
    sni: Option<Rc<str>>,
    /// Overrides the cipher's own limit.
    pub(crate) records_max: Option<u64>,
}

impl Handshake {
    pub(crate) fn server(context: &Arc<ServerContext>) -> Self {
        Self::new(Role::AwaitingHello(context.clone(), Vec::new()), context.record_path, Facts::default())
    }

    /// Begins as a client: `out` then holds the ClientHello.
    pub(crate) fn client(
        context: &ClientContext,
        name: ServerName<'static>,
        alpn: Option<Vec<Vec<u8>>>,
        facts: Facts,
    ) -> Result<Self, TlsError> {
        let sni = match &name {
            ServerName::DnsName(name) => Some(Rc::from(name.as_ref())),
            _ => None,
        };
        let mut facts = facts;
        let config = context.config.clone();
        let connection = crate::scope::within(&mut facts, || match alpn {
            Some(alpn) => UnbufferedClientConnection::new_with_alpn(config, name, alpn),
            None => UnbufferedClientConnection::new(config, name),
        })
        .map_err(TlsError::Handshake)?;
        let role = Role::Running(Connection::Client(Box::new(connection)));
        let mut handshake = Self::new(role, context.record_path, facts);
        handshake.sni = sni;
        handshake.run()?;
        Ok(handshake)
    }

    fn new(role: Role, record_path: RecordPath, facts: Facts) -> Self {
        Self {
            role,
            facts,
            record_path,
            incoming: Vec::new(),
            out: Vec::new(),
            received_bytes: 0,
            received_records: 0,
            sni: None,
            records_max: None,
        }
    }

    /// Takes one whole record. One at a time, so that rustls never sees a record of the session that follows.
    ///
    /// # Errors
    /// The handshake is over; `out` may hold the alert that tells the peer.
    pub(crate) fn feed(&mut self, record: &[u8]) -> Result<Progress, TlsError> {
        self.received_bytes += record.len();
        self.received_records += 1;
        if self.received_bytes > HANDSHAKE_BYTES_MAX {
            return Err(TlsError::HandshakeTooLarge { max: HANDSHAKE_BYTES_MAX });
        }
        if self.received_records > HANDSHAKE_RECORDS_MAX {
            return Err(TlsError::HandshakeTooFragmented { max: HANDSHAKE_RECORDS_MAX });
        }
        self.incoming.extend_from_slice(record);
        if let Role::AwaitingHello(context, message) = &mut self.role {
            let context = context.clone();
            if !collect_hello(message, record) {
                return Ok(Progress::Wants);
            }
            let hello = hello::parse(message).unwrap_or_default();
            self.sni = hello.server_name.map(Rc::from);
            let ours = &context.config.alpn_protocols;
            let overlap = hello.alpn.iter().any(|theirs| ours.iter().any(|ours| ours == theirs));
            let config =
                if overlap || hello.alpn.is_empty() { &context.config } else { &context.config_without_alpn };
            let connection = UnbufferedServerConnection::new(config.clone()).map_err(TlsError::Handshake)?;
            self.role = Role::Running(Connection::Server(Box::new(connection)));
        }
        self.run()
    }

    fn run(&mut self) -> Result<Progress, TlsError> {
        let Role::Running(connection) = &mut self.role else { return Ok(Progress::Wants) };
        loop {
            let mut early = Vec::new();
            let (done, stage) = connection.step(
                &mut self.facts,
                &mut self.incoming,
                Intent::Nothing,
                &mut self.out,
                &mut early,
            );
            self.incoming.drain(..done.min(self.incoming.len()));
            match stage {
                Ok(Stage::Again) => {}
                Ok(Stage::Blocked) => return Ok(Progress::Wants),
                Ok(Stage::Ready) => return Ok(Progress::Done),
                Ok(Stage::PeerClosed | Stage::Closed) => return Err(TlsError::HandshakeClosed),
                Err(error) => {
                    self.collect_alert();
                    return Err(TlsError::Handshake(error));
                }
            }
        }
    }

    /// After an error rustls has at most one alert to send.
    fn collect_alert(&mut self) {
        let Role::Running(connection) = &mut self.role else { return };
        connection.collect_alert(&mut self.facts, &mut self.incoming, &mut self.out);
    }

    /// The session, once [`Progress::Done`] was reached and `out` has been taken.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] when rustls does not hand over its keys, which its configuration rules out.
    pub(crate) fn finish(self, peers: &PeerCache) -> Result<(Session, Negotiated), TlsError> {
        let Role::Running(connection) = self.role else { return Err(TlsError::HandshakeClosed) };
        let common = connection.common();
        let suite = common.negotiated_cipher_suite().ok_or(TlsError::HandshakeClosed)?;
        let version = match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let negotiated = Negotiated {
            version,
            cipher: cipher_name(suite.suite()),
            alpn: common.alpn_protocol().map(Rc::from),
            sni: self.sni,
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: common.peer_certificates().and_then(|chain| peers.intern(chain, is_validated(&self.facts))),
        };
        let in_place = version == TlsVersion::Tls13 && self.record_path != RecordPath::Unbuffered;
        if !in_place {
            let session = Unbuffered::new(connection, self.facts, self.incoming);
            return Ok((Session::Unbuffered(Box::new(session)), negotiated));
        }
        if !self.incoming.is_empty() {
            // rustls refuses this itself; were it not to, the bytes would be lost here
            return Err(TlsError::Handshake(rustls::PeerMisbehaved::KeyEpochWithPendingFragment.into()));
        }
        let limit = self.records_max.unwrap_or_else(|| confidentiality_limit(suite));
        let (secrets, schedule) = match connection {
            Connection::Client(connection) => {
                let (secrets, kernel) =
                    connection.dangerous_into_kernel_connection().map_err(TlsError::Handshake)?;
                (secrets, Schedule::Client(Box::new(kernel)))
            }
            Connection::Server(connection) => {
                let (secrets, kernel) =
                    connection.dangerous_into_kernel_connection().map_err(TlsError::Handshake)?;
                (secrets, Schedule::Server(Box::new(kernel)))
            }
        };
        let session = InPlace::new(secrets, schedule, self.facts, limit)?;
        Ok((Session::InPlace(Box::new(session)), negotiated))
    }
}

fn is_validated(facts: &Facts) -> bool {
    // set by the verifier, or by the ticket of a session that was verified
    facts.peer_not_after_s.is_some() && !facts.peer_untrusted
}

/// Records after which one key is replaced; RFC 8446 section 5.5 gives 2^24.5 full records for AES-GCM.
fn confidentiality_limit(suite: SupportedCipherSuite) -> u64 {
    suite.tls13().map_or(u64::MAX, |suite| suite.common.confidentiality_limit)
}

/// Adds a record to the first handshake message; true once that is whole, or can no longer be a ClientHello.
fn collect_hello(message: &mut Vec<u8>, record: &[u8]) -> bool {
    let Some((header, body)) = record.split_first_chunk::<HEADER_BYTES>() else { return true };
    if header[0] != crate::record::HANDSHAKE {
        return true;
    }
    message.extend_from_slice(body);
    match message.as_slice() {
        [_, high, middle, low, contents @ ..] => {
            let len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            contents.len() >= len || len > HELLO_BYTES_MAX
        }
        _ => false,
    }
}
