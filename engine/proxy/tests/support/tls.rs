//! TLS between a client and the proxy.

use super::{PATIENCE, Proxy};
use corelane_snapshot::{DownstreamTls, Listener, TlsContextId, TlsParams};
use corelane_tls::{CertifiedPem, ContextTable, ServerSpec};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::{
    net::TcpStream,
    sync::{Arc, LazyLock},
};

/// The number of the listener's context, which comes after the clients'.
const SERVER: TlsContextId = TlsContextId(1);
const NAME: &str = "orders";

static OWN: LazyLock<CertifiedKey<KeyPair>> =
    LazyLock::new(|| generate_simple_self_signed(vec![NAME.to_owned()]).expect("certificate"));

pub(super) fn put_server(contexts: &ContextTable) {
    let id = contexts.reserve().expect("a number");
    assert_eq!(id.0, SERVER.0);
    let own = CertifiedPem {
        name: "own".into(),
        key_name: "own key".into(),
        chain: OWN.cert.pem().into_bytes(),
        key: OWN.signing_key.serialize_pem().into_bytes(),
    };
    let mut spec = ServerSpec::new("inbound", own);
    spec.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    contexts.set_server(id, &spec).expect("context");
}

/// The listener speaks TLS.
pub fn required(listener: &mut Listener) {
    Arc::get_mut(&mut listener.chains[0]).expect("nobody else has it").tls = Some(Arc::new(DownstreamTls {
        context: SERVER,
        certificates: Vec::new(),
        validation: None,
        require_client_certificate: false,
        alpn: Vec::new(),
        params: TlsParams::default(),
        session_tickets: true,
        session_timeout_s: None,
    }));
}

/// Its end is an error where no close_notify came first.
pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// A client that asks for this protocol.
pub fn connect(proxy: &Proxy, alpn: &[u8]) -> TlsClient {
    let mut roots = RootCertStore::empty();
    roots.add(OWN.cert.der().clone()).expect("root");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = NAME.try_into().expect("name");
    let session = ClientConnection::new(Arc::new(config), name).expect("session");
    let stream = TcpStream::connect(proxy.address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_nodelay(true).expect("nodelay");
    StreamOwned::new(session, stream)
}
