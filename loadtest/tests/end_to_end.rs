//! Generator against backend over loopback: every request is accounted for on both sides. Runs are bounded by their
//! request count; nothing here depends on how fast the machine is.

#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use corelane_loadtest::{
    backend::{Backend, BackendOptions, Mode, ResetAt},
    certs,
    run::{self, Overrides, Protocol, RunOptions, RunReport},
    tls::{ClientTls, ServerTls},
};

const REQUESTS: u64 = 200;

fn bounded(url: String, chosen: Overrides) -> RunOptions {
    let mut options = RunOptions::resolve(&url, None, chosen).unwrap();
    options.connections = options.connections.min(4);
    options.warmup = Duration::ZERO;
    options.duration = Duration::from_secs(60);
    options.requests_max = REQUESTS;
    options
}

fn assert_all_answered(report: &RunReport) {
    assert!(report.sent >= REQUESTS && report.sent < REQUESTS + 8, "{report:?}");
    assert_eq!(report.statuses.values().sum::<u64>(), report.sent, "{report:?}");
    assert_eq!(report.latency_us.count, report.sent);
    assert!(report.clean(), "{report:?}");
}

#[test]
fn http1_requests_and_answers_agree() {
    let backend = Backend::start(BackendOptions { body_bytes: 70_000, ..Default::default() }).unwrap();
    let chosen = Overrides { body_bytes: Some(30_000), ..Default::default() };
    let report = run::run(&bounded(format!("http://{}/charge", backend.address()), chosen)).unwrap();
    assert_all_answered(&report);
    let served = backend.stop().unwrap();
    assert_eq!((served.answered, served.malformed), (report.sent, 0));
    assert_eq!(served.connections, 4);
}

#[test]
fn an_open_loop_sends_what_is_due() {
    let backend = Backend::start(BackendOptions::default()).unwrap();
    let chosen = Overrides { rate: Some(1_000.0), ..Default::default() };
    let report = run::run(&bounded(format!("http://{}/", backend.address()), chosen)).unwrap();
    assert_all_answered(&report);
    assert_eq!((report.mode, report.sent), ("open", REQUESTS));
    assert_eq!(backend.stop().unwrap().answered, REQUESTS);
}

/// The reason for an open loop: a server that holds each answer for 20 ms, on one connection, at 200 requests a second
/// falls behind by 15 ms with every request. A closed loop would report 20 ms for ever.
#[test]
fn a_stalled_server_cannot_hide_behind_its_own_delay() {
    let delay = Duration::from_millis(20);
    let backend = Backend::start(BackendOptions { delay, ..Default::default() }).unwrap();
    let chosen = Overrides { rate: Some(200.0), connections: Some(1), ..Default::default() };
    let mut options = bounded(format!("http://{}/", backend.address()), chosen);
    options.requests_max = 20;
    let report = run::run(&options).unwrap();
    assert!(report.service_us.p50 >= 20_000.0 * 0.99, "{report:?}");
    assert!(report.latency_us.max >= 20_000.0 + 19.0 * 15_000.0 * 0.99, "{report:?}");
    assert!(report.waited_for_connection >= 19, "{report:?}");
}

#[test]
fn connections_that_close_after_each_answer_are_replaced() {
    let backend = Backend::start(BackendOptions { close_after: 1, ..Default::default() }).unwrap();
    let report = run::run(&bounded(format!("http://{}/", backend.address()), Overrides::default())).unwrap();
    assert_all_answered(&report);
    let served = backend.stop().unwrap();
    assert!(served.connections >= report.sent, "{served:?}");
}

#[test]
fn every_reset_is_counted_once_on_each_side() {
    let options =
        BackendOptions { reset_probability: 0.25, reset_at: ResetAt::Request, ..Default::default() };
    let backend = Backend::start(options).unwrap();
    let report = run::run(&bounded(format!("http://{}/", backend.address()), Overrides::default())).unwrap();
    let served = backend.stop().unwrap();
    let failed: u64 = report.errors.values().sum();
    assert!(failed > 10, "{report:?}");
    assert_eq!((served.answered, served.resets), (report.ok, failed), "{report:?} {served:?}");
    assert!(!report.clean());
}

#[test]
fn tcp_messages_come_back() {
    let backend = Backend::start(BackendOptions { mode: Mode::Echo, ..Default::default() }).unwrap();
    let chosen = Overrides { body_bytes: Some(300_000), ..Default::default() };
    let report = run::run(&bounded(format!("tcp://{}", backend.address()), chosen)).unwrap();
    assert_all_answered(&report);
    backend.stop().unwrap();
}

#[test]
fn http2_works_by_prior_knowledge() {
    let backend = Backend::start(BackendOptions { body_bytes: 100_000, ..Default::default() }).unwrap();
    for rate in [None, Some(2_000.0)] {
        let chosen = Overrides {
            protocol: Some(Protocol::H2),
            streams: Some(2),
            rate,
            body_bytes: Some(2_000),
            ..Default::default()
        };
        let before = backend.served().answered;
        let report = run::run(&bounded(format!("http://{}/", backend.address()), chosen)).unwrap();
        assert_all_answered(&report);
        assert_eq!(backend.served().answered - before, report.sent);
    }
    assert_eq!(backend.stop().unwrap().malformed, 0);
}

#[test]
fn mutual_tls_carries_both_protocols_and_a_stranger_is_turned_away() {
    let directory = tempfile::tempdir().unwrap();
    certs::issue(&certs::Order::example(directory.path())).unwrap();
    let path = |name: &str| Some(Path::join(directory.path(), name));
    let tls = ServerTls { cert: path("payments.pem"), key: path("payments.key"), ca: path("ca.pem") };
    let backend = Backend::start(BackendOptions { tls, body_bytes: 40_000, ..Default::default() }).unwrap();
    for protocol in [Protocol::H1, Protocol::H2] {
        let chosen = Overrides { protocol: Some(protocol), ..Default::default() };
        let mut options = bounded(format!("https://{}/", backend.address()), chosen);
        options.tls = ClientTls {
            ca: path("ca.pem"),
            cert: path("orders.pem"),
            key: path("orders.key"),
            ..Default::default()
        };
        assert_all_answered(&run::run(&options).unwrap());
    }
    assert_eq!(backend.served().malformed, 0);

    let mut stranger = bounded(format!("https://{}/", backend.address()), Overrides::default());
    stranger.tls = ClientTls { ca: path("ca.pem"), ..Default::default() };
    stranger.duration = Duration::from_millis(100);
    let report = run::run(&stranger);
    // TLS 1.3 lets the client believe for a moment that it is in
    assert!(report.is_err() || report.is_ok_and(|report| report.ok == 0));
    assert!(backend.stop().unwrap().malformed > 0);
}

#[test]
fn handshakes_resume_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    certs::issue(&certs::Order::example(directory.path())).unwrap();
    let path = |name: &str| Some(Path::join(directory.path(), name));
    let tls = ServerTls { cert: path("payments.pem"), key: path("payments.key"), ca: path("ca.pem") };
    let backend = Backend::start(BackendOptions { tls, ..Default::default() }).unwrap();
    for resume in [false, true] {
        let options = corelane_loadtest::handshakes::HandshakeOptions {
            target: corelane_loadtest::target::Target::parse(&format!("https://{}/", backend.address()))
                .unwrap(),
            tls: ClientTls {
                ca: path("ca.pem"),
                cert: path("orders.pem"),
                key: path("orders.key"),
                ..Default::default()
            },
            resume,
            concurrency: 32,
            duration: Duration::from_secs(1),
            warmup: Duration::from_millis(100),
            timeout: Duration::from_secs(10),
            sources: 0,
            cpu: None,
            watch_pids: vec![std::process::id()],
        };
        let report = corelane_loadtest::handshakes::shake(&options).unwrap();
        assert!(report.completed > 0, "{report:?}");
        assert_eq!(report.failed, 0, "{report:?}");
        assert_eq!(report.resumed > 0, resume, "{report:?}");
        // whether the generator is the limit is the machine's affair, and it says so
        assert!(report.valid || report.generator_limited, "{report:?}");
        assert!(report.watched[0].cpu_us > 0.0, "{report:?}");
    }
    backend.stop().unwrap();
}

#[test]
fn idle_connections_are_held_until_told() {
    let backend = Backend::start(BackendOptions { body_bytes: 20_000, ..Default::default() }).unwrap();
    let mut options = RunOptions::for_target(&format!("http://{}/", backend.address())).unwrap();
    options.connections = 300;
    options.duration = Duration::from_secs(60);
    let (mut tell, stop) = std::os::unix::net::UnixStream::pair().unwrap();
    let report = corelane_loadtest::idle::hold(&options, &stop, |established| {
        assert_eq!((established.connections, backend.served().connections), (300, 300));
        std::io::Write::write_all(&mut tell, b"x").unwrap();
    })
    .unwrap();
    assert_eq!((report.connections, report.closed_by_peer), (300, 0));
    assert_eq!(backend.stop().unwrap().answered, 300);
}

#[test]
fn a_reset_in_the_handshake_never_reaches_http() {
    let options =
        BackendOptions { reset_probability: 1.0, reset_at: ResetAt::Handshake, ..Default::default() };
    let backend = Backend::start(options).unwrap();
    let mut options = bounded(format!("http://{}/", backend.address()), Overrides::default());
    options.requests_max = 20;
    let report = run::run(&options).unwrap();
    let served = backend.stop().unwrap();
    assert_eq!((report.ok, served.answered), (0, 0));
    assert_eq!(report.errors.values().sum::<u64>(), report.sent, "{report:?}");
    assert!(served.resets >= report.sent, "{report:?} {served:?}");
}
