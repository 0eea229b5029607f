//! Sessions that are resumed, and every reason for which they must not be.
#![allow(clippy::unwrap_used)] // its helpers are part of its tests

mod peers;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corelane_runtime::Core;
use corelane_runtime::testing::on_both_drivers;
use corelane_tls::*;
use peers::*;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// A clock that the test sets.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, year: u64) {
        self.0.store((year - 1970) * 31_556_952, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

struct Mesh {
    authority: Authority,
    clock: Arc<Clock>,
    table: Arc<ContextTable>,
    inbound: ContextId,
    outbound: ContextId,
    /// How the client connects.
    version: TlsVersion,
    path: RecordPath,
}

impl Mesh {
    fn new(version: TlsVersion, path: RecordPath) -> Self {
        let clock = Arc::new(Clock(AtomicU64::new(0)));
        clock.set(2026);
        let environment = ContextEnvironment { ticket_keys: TicketKeys::new().unwrap(), time: clock.clone() };
        let table = ContextTable::new(environment);
        let (inbound, outbound) = (table.reserve().unwrap(), table.reserve().unwrap());
        let mesh = Self { authority: Authority::new("root"), clock, table, inbound, outbound, version, path };
        mesh.table.set_server(inbound, &mesh.server_spec(2049)).unwrap();
        mesh.table.set_client(outbound, &mesh.client_spec(2049)).unwrap();
        mesh
    }

    /// Requires orders; its own certificate lives until the given year.
    fn server_spec(&self, until: i32) -> ServerSpec {
        let leaf = Leaf { not_after: (until, 1, 1), ..Leaf::uri(&PAYMENTS) };
        let mut spec = ServerSpec::new("inbound", self.authority.issue(leaf));
        spec.client_validation = Some(self.authority.validation(&[ORDERS]));
        spec.require_client_certificate = true;
        spec
    }

    fn client_spec(&self, until: i32) -> ClientSpec {
        let leaf = Leaf { not_after: (until, 1, 1), ..Leaf::uri(&ORDERS) };
        let mut spec = ClientSpec::new("outbound");
        spec.certificate = Some(self.authority.issue(leaf));
        spec.validation = Some(self.authority.validation(&[PAYMENTS]));
        spec.sni = Some("payments.prod.svc".to_owned());
        spec.protocol.version_max = self.version;
        spec.record_path = self.path;
        spec
    }
}

/// One connection between our own ends; returns whether both hold it for resumed.
async fn visit(core: &Rc<Core>, tls: &Rc<TlsCore>, mesh: &Mesh, endpoint: &str) -> bool {
    let (one, two) = sockets();
    let (one, two) = (adopt(core, one), adopt(core, two));
    let accepted: Rc<RefCell<Option<TlsStream>>> = Rc::default();
    let server = mesh.table.server(mesh.inbound).unwrap();
    let client = mesh.table.client(mesh.outbound).unwrap();
    let (tls_far, core_far, accepted_far) = (tls.clone(), core.clone(), accepted.clone());
    core.spawn(async move {
        let stream = accept(&tls_far, two, &server, None, deadline(&core_far)).await.unwrap();
        write_bytes(&core_far, &stream, b"welcome").await;
        *accepted_far.borrow_mut() = Some(stream);
    });
    let params = ConnectParams { endpoint: Some(endpoint.parse().unwrap()), ..ConnectParams::default() };
    let near = connect(tls, one, &client, params, deadline(core)).await.unwrap();
    // the ticket, where there is one, comes before the first data
    assert_eq!(read_len(core, &near, 7).await, b"welcome");
    while accepted.borrow().is_none() {
        core.timers().sleep(Duration::from_millis(1)).await;
    }
    let far = accepted.borrow_mut().take().unwrap();
    assert_eq!(far.peer().unwrap().principal(), Some(ORDERS), "a resumed peer is the same peer");
    assert_eq!(near.peer().unwrap().principal(), Some(PAYMENTS));
    assert_eq!(near.resumed(), far.resumed());
    near.resumed()
}

const B1: &str = "10.0.0.1:443";
const B2: &str = "10.0.0.2:443";

/// Runs a scenario with both record paths and both versions.
fn scenario<F>(run: impl Fn(Rc<Core>, Rc<TlsCore>, Mesh) -> F + Send + Clone + 'static)
where
    F: Future<Output = ()> + 'static,
{
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for path in [RecordPath::InPlace, RecordPath::Unbuffered] {
            let run = run.clone();
            on_both_drivers(move |core| run(core.clone(), TlsCore::new(&core), Mesh::new(version, path)));
        }
    }
}

#[test]
fn sessions_are_resumed_for_their_endpoint_only() {
    scenario(|core, tls, mesh| async move {
        assert!(!visit(&core, &tls, &mesh, B1).await);
        assert!(visit(&core, &tls, &mesh, B1).await);
        // the resumed session brings a ticket too
        assert!(visit(&core, &tls, &mesh, B1).await);
        assert!(!visit(&core, &tls, &mesh, B2).await);
        assert!(visit(&core, &tls, &mesh, B2).await);
        assert_eq!(tls.session_peers(), 2);
        assert_eq!(tls.stats().resumed, 6, "each connection has two ends here");
    });
}

#[test]
fn any_core_opens_any_cores_tickets_until_the_keys_are_rotated_twice() {
    scenario(|core, tls, mesh| async move {
        visit(&core, &tls, &mesh, B1).await;
        let keys = mesh.table.environment().ticket_keys.clone();
        keys.rotate().unwrap();
        assert!(visit(&core, &tls, &mesh, B1).await, "the previous key still opens");
        keys.rotate().unwrap();
        keys.rotate().unwrap();
        assert!(!visit(&core, &tls, &mesh, B1).await);
        assert!(visit(&core, &tls, &mesh, B1).await);
    });
}

#[test]
fn a_server_with_another_bundle_refuses_old_tickets_but_not_with_another_certificate() {
    scenario(|core, tls, mesh| async move {
        visit(&core, &tls, &mesh, B1).await;
        let generation = mesh.table.server(mesh.inbound).unwrap().bundle_generation();
        // only our own certificate changes
        mesh.table.set_server(mesh.inbound, &mesh.server_spec(2050)).unwrap();
        assert_eq!(mesh.table.server(mesh.inbound).unwrap().bundle_generation(), generation);
        assert!(visit(&core, &tls, &mesh, B1).await);
        // a second root is trusted
        let mut spec = mesh.server_spec(2050);
        let bundle = mesh.authority.pem() + &Authority::new("second root").pem();
        spec.client_validation.as_mut().unwrap().trust_bundle = Some(NamedPem::new("bundle", bundle));
        mesh.table.set_server(mesh.inbound, &spec).unwrap();
        assert!(!visit(&core, &tls, &mesh, B1).await);
        assert!(visit(&core, &tls, &mesh, B1).await);
        // the old bundle comes back, which does not revive what was issued under it
        mesh.table.set_server(mesh.inbound, &mesh.server_spec(2050)).unwrap();
        assert!(!visit(&core, &tls, &mesh, B1).await);
        // the accepted names change
        assert!(visit(&core, &tls, &mesh, B1).await);
        let mut spec = mesh.server_spec(2050);
        spec.client_validation
            .as_mut()
            .unwrap()
            .sans
            .push(SanMatch::exact_uri("spiffe://cluster.local/ns/a/sa/b"));
        mesh.table.set_server(mesh.inbound, &spec).unwrap();
        assert!(!visit(&core, &tls, &mesh, B1).await);
    });
}

#[test]
fn a_ticket_dies_with_the_clients_certificate() {
    scenario(|core, tls, mesh| async move {
        mesh.table.set_client(mesh.outbound, &mesh.client_spec(2030)).unwrap();
        visit(&core, &tls, &mesh, B1).await;
        assert!(visit(&core, &tls, &mesh, B1).await);
        // a full handshake would fail now, so the ticket must have been refused: it fails
        mesh.clock.set(2031);
        let (one, two) = sockets();
        let (one, two) = (adopt(&core, one), adopt(&core, two));
        let server = mesh.table.server(mesh.inbound).unwrap();
        let client = mesh.table.client(mesh.outbound).unwrap();
        let (tls_far, core_far) = (tls.clone(), core.clone());
        let verdict: Rc<RefCell<Option<TlsError>>> = Rc::default();
        let verdict_far = verdict.clone();
        core.spawn(async move {
            let result = accept(&tls_far, two, &server, None, deadline(&core_far)).await;
            *verdict_far.borrow_mut() = result.err();
        });
        let params = ConnectParams { endpoint: Some(B1.parse().unwrap()), ..ConnectParams::default() };
        if let Ok(stream) = connect(&tls, one, &client, params, deadline(&core)).await {
            // TLS 1.3 tells the client after its own part is done
            let (result, _) = stream.read(core.buffers().take()).await;
            let error = result.unwrap_err();
            let expected = rustls::AlertDescription::CertificateExpired;
            assert!(matches!(tls_error(&error), TlsError::PeerAlert(alert) if *alert == expected), "{error}");
        }
        while verdict.borrow().is_none() {
            core.timers().sleep(Duration::from_millis(1)).await;
        }
        let verdict = verdict.borrow_mut().take().unwrap().to_string();
        assert!(verdict.contains("certificate expired"), "{verdict}");
    });
}

#[test]
fn a_session_dies_with_the_servers_certificate_and_with_the_clients_context() {
    scenario(|core, tls, mesh| async move {
        mesh.table.set_server(mesh.inbound, &mesh.server_spec(2030)).unwrap();
        visit(&core, &tls, &mesh, B1).await;
        assert!(visit(&core, &tls, &mesh, B1).await);
        // the server is rotated in time, and the client's clock passes the end of the certificate it knew
        mesh.table.set_server(mesh.inbound, &mesh.server_spec(2049)).unwrap();
        mesh.clock.set(2031);
        assert!(!visit(&core, &tls, &mesh, B1).await);
        assert!(visit(&core, &tls, &mesh, B1).await);
        // a new bundle or identity makes a new context
        mesh.table.set_client(mesh.outbound, &mesh.client_spec(2050)).unwrap();
        assert!(!visit(&core, &tls, &mesh, B1).await);
        assert_eq!(tls.session_peers(), 1, "the sessions of the old context are gone");
    });
}

#[test]
fn resumption_can_be_switched_off_on_either_side() {
    scenario(|core, tls, mesh| async move {
        let mut spec = mesh.server_spec(2049);
        spec.session_tickets = false;
        mesh.table.set_server(mesh.inbound, &spec).unwrap();
        for _ in 0..2 {
            assert!(!visit(&core, &tls, &mesh, B1).await);
        }
        mesh.table.set_server(mesh.inbound, &mesh.server_spec(2049)).unwrap();
        let mut spec = mesh.client_spec(2049);
        spec.session_keys_max = 0;
        mesh.table.set_client(mesh.outbound, &spec).unwrap();
        for _ in 0..2 {
            assert!(!visit(&core, &tls, &mesh, B1).await);
        }
    });
}

#[test]
fn tickets_of_one_context_are_nothing_to_another() {
    on_both_drivers(|core| async move {
        let mesh = Mesh::new(TlsVersion::Tls13, RecordPath::Auto);
        let tls = TlsCore::new(&core);
        visit(&core, &tls, &mesh, B1).await;
        // the same specification under another number, reached at the same endpoint
        let other = mesh.table.reserve().unwrap();
        mesh.table.set_server(other, &mesh.server_spec(2049)).unwrap();
        let mesh = Mesh { inbound: other, ..mesh };
        assert!(!visit(&core, &tls, &mesh, B1).await);
        assert!(visit(&core, &tls, &mesh, B1).await);
    });
}

#[test]
fn rustls_clients_resume_with_us_and_we_with_rustls_servers() {
    let mesh = Mesh::new(TlsVersion::Tls13, RecordPath::Auto);
    let orders = mesh.authority.issue(Leaf::uri(&ORDERS));
    let context = mesh.table.server(mesh.inbound).unwrap();
    let config = rustls_client(&mesh.authority, Some(&orders), TLS13, &[]);
    on_both_drivers(move |core| {
        let (context, mut config) = (context.clone(), config.clone());
        config.resumption = rustls::client::Resumption::in_memory_sessions(16);
        async move {
            let tls = TlsCore::new(&core);
            for round in 0..3 {
                let config = config.clone();
                let (near, far) = Far::run(move |socket| {
                    let mut tls = rustls_connect(config, socket);
                    tls.write_all(b"x").unwrap();
                    tls.read_exact(&mut [0]).unwrap();
                    tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
                })
                .split();
                let tcp = adopt(&core, near);
                let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
                assert_eq!(read_len(&core, &stream, 1).await, b"x");
                write_bytes(&core, &stream, b"y").await;
                assert_eq!((stream.resumed(), finish(&core, far).await), (round > 0, round > 0));
                assert_eq!(stream.peer().unwrap().spiffe_id(), Some(ORDERS));
            }
        }
    });
    let config = Arc::new(rustls_server(&mesh.authority.issue(Leaf::uri(&PAYMENTS)), None, TLS13, &[]));
    let context = client(&mesh.client_spec(2049));
    on_both_drivers(move |core| {
        let (context, config) = (context.clone(), config.clone());
        async move {
            let tls = TlsCore::new(&core);
            for round in 0..3 {
                let config = config.clone();
                let (near, far) = Far::run(move |socket| {
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    let mut tls = rustls::StreamOwned::new(connection, socket);
                    tls.read_exact(&mut [0]).unwrap();
                    tls.write_all(b"y").unwrap();
                })
                .split();
                let tcp = adopt(&core, near);
                let params =
                    ConnectParams { endpoint: Some(B1.parse().unwrap()), ..ConnectParams::default() };
                let stream = connect(&tls, tcp, &context, params, deadline(&core)).await.unwrap();
                assert_eq!(stream.resumed(), round > 0);
                write_bytes(&core, &stream, b"x").await;
                assert_eq!(read_len(&core, &stream, 1).await, b"y");
                finish(&core, far).await;
            }
        }
    });
}
