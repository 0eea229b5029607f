//! Mutual TLS, with Envoy on the other side in both directions, and with peers that must be refused.

use crate::{
    hop::Hop,
    support::{Answer, App, Client, Identities, Kind, NAMESPACE_IDS, Proxy, Request, fill, wait_for},
};
use std::{net::SocketAddr, path::Path};

/// The demo's file without its time limit for a try: a large body on a busy machine may take longer.
fn orders_template() -> String {
    include_str!("../../demo/orders.yaml").replace("per_try_timeout: 0.25s", "")
}

const PAYMENTS: &str = include_str!("../../demo/payments.yaml");

fn app() -> App {
    App::start(|request| {
        let caller = request.head.get("x-forwarded-client-cert").unwrap_or("-");
        Answer::ok([caller.as_bytes(), b"\n", &request.body].concat())
    })
}

fn inbound(kind: Kind, folder: &Path, app: &App, change: (&str, &str)) -> Proxy {
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("NAME", &"payments"), ("FOLDER", &folder.display()), ("APP_PORT", &app.port())];
    Proxy::start_kind(kind, folder, "payments", &fill(PAYMENTS, &values).replace(change.0, change.1))
}

fn outbound(kind: Kind, folder: &Path, to: SocketAddr, change: (&str, &str)) -> Proxy {
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("FOLDER", &folder.display()), ("B1_PORT", &to.port()), ("B2_PORT", &to.port())];
    Proxy::start_kind(kind, folder, "orders", &fill(&orders_template(), &values).replace(change.0, change.1))
}

const UNCHANGED: (&str, &str) = ("", "");

/// Bodies of all sizes pass two sidecars of these kinds, and the app learns who calls.
fn two_hops(caller: Kind, callee: Kind, caller_change: (&str, &str), callee_change: (&str, &str)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identities::issue(folder.path());
    let app = app();
    let payments = inbound(callee, folder.path(), &app, callee_change);
    let orders = outbound(caller, folder.path(), payments.listener("inbound"), caller_change);
    let mut client = Client::connect(orders.listener("outbound"));
    // around a record's 16 KiB, and many of them
    for size in [0, 1, 1024, 16_383, 16_384, 16_385, 65_536, 2_000_000] {
        let body: Vec<u8> = (0..size).map(|n: u32| (n % 249) as u8).collect();
        let answer = client.call(&Request::post("/charge", body.clone()));
        assert_eq!(answer.status, 200, "{size}: {}", payments.process.log_tail());
        let line = answer.body.iter().position(|byte| *byte == b'\n').expect("the app's first line");
        let who = String::from_utf8_lossy(&answer.body[..line]).into_owned();
        assert!(who.contains(&format!("URI={}", NAMESPACE_IDS[0])), "{who}");
        assert!(answer.body[line + 1..] == body[..], "{size} bytes come back as they went");
    }
    assert_eq!(app.requests(), 8);
    assert_eq!(orders.stat("cluster.payments.upstream_rq_retry"), 0);
}

#[test]
fn corelane_calls_envoy() {
    two_hops(Kind::Corelane, Kind::Envoy, UNCHANGED, UNCHANGED);
}

#[test]
fn envoy_calls_corelane() {
    two_hops(Kind::Envoy, Kind::Corelane, UNCHANGED, UNCHANGED);
}

#[test]
fn corelane_calls_corelane() {
    two_hops(Kind::Corelane, Kind::Corelane, UNCHANGED, UNCHANGED);
}

const TLS12: (&str, &str) = (
    "common_tls_context:",
    "common_tls_context:\n            tls_params: { tls_maximum_protocol_version: TLSv1_2 }",
);

#[test]
fn corelane_calls_envoy_over_tls_1_2() {
    two_hops(Kind::Corelane, Kind::Envoy, UNCHANGED, TLS12);
}

#[test]
fn envoy_calls_corelane_over_tls_1_2() {
    two_hops(Kind::Envoy, Kind::Corelane, TLS12_OF_CALLER, UNCHANGED);
}

const TLS12_OF_CALLER: (&str, &str) = (
    "common_tls_context:",
    "common_tls_context:\n          tls_params: { tls_maximum_protocol_version: TLSv1_2 }",
);

#[test]
fn a_server_that_is_somebody_else_gets_no_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identities::issue(folder.path());
    let app = app();
    let text = fill(
        PAYMENTS,
        &[("NAME", &"ledger"), ("FOLDER", &folder.path().display()), ("APP_PORT", &app.port())],
    );
    let text = text.replace("payments.pem", "ledger.pem").replace("payments.key", "ledger.key");
    let ledger = Proxy::start(folder.path(), "ledger", &text);
    let orders = outbound(Kind::Corelane, folder.path(), ledger.listener("inbound"), UNCHANGED);
    let answer = Client::connect(orders.listener("outbound")).call(&Request::get("/"));
    assert_eq!((answer.status, app.requests()), (503, 0));
    wait_for("the refusal to be counted", || match orders.stat("cluster.payments.ssl.fail_verify_san") {
        0 => Err(orders.page("/stats?filter=ssl")),
        _ => Ok(()),
    });
}

/// CertificateValidationContext.verify_certificate_hash of another certificate.
const PINNED: (&str, &str) = (
    "match_typed_subject_alt_names:",
    "verify_certificate_hash: [\"0000000000000000000000000000000000000000000000000000000000000000\"]
            match_typed_subject_alt_names:",
);

#[test]
fn a_peer_whose_certificate_is_not_the_pinned_one_is_told_from_others_that_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identities::issue(folder.path());
    let app = app();
    let in_a_server = (PINNED.0, PINNED.1.replace("\n", "\n  "));
    let unpinned = inbound(Kind::Corelane, folder.path(), &app, UNCHANGED);
    let orders = outbound(Kind::Corelane, folder.path(), unpinned.listener("inbound"), PINNED);
    assert_eq!(Client::connect(orders.listener("outbound")).call(&Request::get("/")).status, 503);
    assert!(
        orders.stat("cluster.payments.ssl.fail_verify_cert_hash") > 0,
        "{}",
        orders.page("/stats?filter=ssl")
    );
    assert_eq!(orders.stat("cluster.payments.ssl.connection_error"), 0);
    drop((orders, unpinned));
    let payments = inbound(Kind::Corelane, folder.path(), &app, (in_a_server.0, &in_a_server.1));
    let orders = outbound(Kind::Corelane, folder.path(), payments.listener("inbound"), UNCHANGED);
    assert_eq!(Client::connect(orders.listener("outbound")).call(&Request::get("/")).status, 503);
    wait_for("the refusal to be counted", || match payments.listeners_stat("ssl.fail_verify_cert_hash") {
        0 => Err(payments.page("/stats?filter=ssl")),
        _ => Ok(()),
    });
    assert_eq!(app.requests(), 0);
}

#[test]
fn clients_without_a_certificate_of_this_mesh_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = tempfile::tempdir().expect("a temporary folder");
    let ours = Identities::issue(folder.path());
    let theirs = Identities::issue(other.path());
    std::fs::copy(ours.file("ca.pem"), theirs.file("ca.pem")).expect("a client that trusts us");
    let app = app();
    let payments = inbound(Kind::Corelane, folder.path(), &app, UNCHANGED);
    let address = payments.listener("inbound");
    for refused in [ours.client(None, "http/1.1"), theirs.client(Some("orders"), "http/1.1")] {
        // TLS 1.3: the client's side of the handshake may be over before the server has judged
        let answer =
            Client::connect_tls(address, refused).and_then(|mut client| client.try_call(&Request::get("/")));
        assert!(answer.is_err(), "{answer:?}");
    }
    wait_for("the refusal to be counted", || match payments.listeners_stat("ssl.fail_verify_no_cert") {
        1 => Ok(()),
        count => Err(count),
    });
    let mut client =
        Client::connect_tls(address, ours.client(Some("orders"), "http/1.1")).expect("one of us");
    assert_eq!(client.call(&Request::get("/")).status, 200);
    assert_eq!(app.requests(), 1);
}

/// Over TLS 1.3 the client's handshake is over before the server has judged: what it says then is about the handshake all
/// the same, and the log must tell why nobody gets through.
#[test]
fn a_server_that_does_not_accept_our_certificate_is_a_failed_connection() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = tempfile::tempdir().expect("a temporary folder");
    let ours = Identities::issue(folder.path());
    let theirs = Identities::issue(other.path());
    std::fs::copy(theirs.file("ca.pem"), ours.file("ca.pem"))
        .expect("we trust them, and they do not trust us");
    let app = app();
    let payments = inbound(Kind::Corelane, other.path(), &app, UNCHANGED);
    let logged = ("%DURATION%ms", "why=%UPSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_CODE_DETAILS%");
    let orders = outbound(Kind::Corelane, folder.path(), payments.listener("inbound"), logged);
    let answer = Client::connect(orders.listener("outbound")).call(&Request::get("/"));
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("remote connection failure"), "{}", answer.text());
    // `retry_on: connect-failure` has it tried three times
    let line = wait_for("the access log", || {
        let log = std::fs::read_to_string(folder.path().join("orders.access.log")).unwrap_or_default();
        if log.ends_with('\n') { Ok(log) } else { Err(log) }
    });
    assert!(line.contains(" 503 attempts=3 ") && line.contains("UF"), "{line}");
    // both roots have the same name: the alert is about the signature
    assert!(line.contains("fatal_alert_DecryptError"), "{line}");
    assert!(line.contains("remote_connection_failure|TLS"), "{line}");
    for stat in ["ssl.connection_error", "upstream_cx_connect_fail"] {
        assert_eq!(orders.stat(&format!("cluster.payments.{stat}")), 3, "{stat}");
    }
    assert_eq!(app.requests(), 0);
}

#[test]
fn what_is_not_tls_on_a_tls_listener_harms_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let app = app();
    let payments = inbound(Kind::Corelane, folder.path(), &app, UNCHANGED);
    let address = payments.listener("inbound");
    for bytes in
        [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1, 2], &[0; 64], &[0x16]]
    {
        let mut client = Client::connect(address);
        client.send(bytes);
        client.half_close();
        let _ = client.read_to_end();
    }
    let mut client =
        Client::connect_tls(address, identities.client(Some("orders"), "http/1.1")).expect("a handshake");
    assert_eq!(client.call(&Request::get("/")).status, 200);
    assert_eq!(app.requests(), 1);
}

#[test]
fn a_plain_hop_may_call_tls_by_another_stack() {
    // rustls's own server, so that neither our engine nor Envoy is on the other side
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("a bound socket").port();
    let server = identities.server("payments");
    let peer = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (stream, _) = listener.accept().expect("a connection");
        let connection = rustls::ServerConnection::new(server).expect("a server");
        let mut tls = rustls::StreamOwned::new(connection, stream);
        let mut head = [0; 4096];
        let count = tls.read(&mut head).expect("a request");
        assert!(head[..count].starts_with(b"GET /tls HTTP/1.1\r\n"));
        tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("an answer");
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let files = folder.path().display();
    let cluster = format!(
        r#"transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    common_tls_context:
      tls_certificates:
      - certificate_chain: {{ filename: {files}/orders.pem }}
        private_key: {{ filename: {files}/orders.key }}
      validation_context: {{ trusted_ca: {{ filename: {files}/ca.pem }} }}
"#
    );
    let hop = Hop { endpoints: &[port], cluster: &cluster, ..Hop::default() }.start();
    let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::get("/tls"));
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    peer.join().expect("the peer's script");
}

#[test]
fn a_client_that_still_sends_when_its_answer_comes_early_is_not_reset() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let app = App::start_early(|_| {
        let head = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge";
        Answer::BytesThenClose(head.to_vec())
    });
    let payments = inbound(Kind::Corelane, folder.path(), &app, UNCHANGED);
    let config = identities.client(Some("orders"), "http/1.1");
    let mut client = Client::connect_tls(payments.listener("inbound"), config).expect("a handshake");
    client.send(b"POST / HTTP/1.1\r\nhost: payments\r\ncontent-length: 1000000\r\n\r\nonly the start");
    let answer = client.read("POST");
    assert_eq!((answer.status, answer.text()), (413, "large"));
    for _ in 0..20 {
        client.send(&[b'x'; 10_000]);
    }
    assert_eq!(client.read_to_end().expect("a clean end, not a reset"), b"");
}
