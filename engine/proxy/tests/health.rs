//! Active health checks against scripted endpoints.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use corelane_snapshot::{HealthCheck, HealthCheckKind, RangeI64, StringMatcher, live::EndpointLive};
use corelane_telemetry::ClusterHealthCheckStat as Stat;
use h2_peers::H2Upstream;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{Proxy, Setup, Upstream, ok};

const OUT: u32 = EndpointLive::FAILED_ACTIVE_HC | EndpointLive::PENDING_ACTIVE_HC;

fn check(kind: HealthCheckKind) -> HealthCheck {
    HealthCheck {
        kind,
        timeout: Duration::from_secs(5),
        interval: Duration::from_millis(10),
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        interval_jitter_percent: 10,
        unhealthy_threshold: 1,
        healthy_threshold: 1,
        unhealthy_interval: Duration::from_millis(10),
        no_traffic_interval: Duration::from_millis(10),
        reuse_connection: true,
    }
}

fn http() -> HealthCheckKind {
    HealthCheckKind::Http {
        host: "".into(),
        path: "/healthz".into(),
        method: "GET".into(),
        request_headers_add: Vec::new(),
        request_headers_remove: Vec::new(),
        expected_statuses: vec![RangeI64 { start: 200, end: 201 }],
        retriable_statuses: Vec::new(),
        service_name: None,
        http2: false,
    }
}

fn bits(proxy: &Proxy, endpoint: usize) -> u32 {
    proxy.cluster().endpoints.endpoints[endpoint].live.unhealthy.load(SeqCst)
}

fn count(proxy: &Proxy, stat: Stat) -> u64 {
    proxy.cluster_count(|stats| stats.health_check, stat)
}

/// Answers checks as the switch says, other requests with 200.
fn switched(healthy: &Arc<AtomicBool>, name: &'static str) -> Upstream {
    let healthy = healthy.clone();
    Upstream::answering(move |head, _| {
        let is_check = head.starts_with("GET /healthz HTTP/1.1\r\n");
        if is_check && !healthy.load(SeqCst) {
            return "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
        }
        ok(name)
    })
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_traffic_until_it_passes() {
    let (first, second) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (a, b) = (switched(&first, "a"), switched(&second, "b"));
    let mut setup = Setup::to(&[a.address, b.address]);
    setup.cluster = |cluster| cluster.health_checks = vec![check(http())];
    let proxy = setup.start();
    proxy.until("both pass", || bits(&proxy, 0) | bits(&proxy, 1) == 0);
    proxy.until("the gauge follows", || count(&proxy, Stat::Healthy) == 2);
    first.store(false, SeqCst);
    let b_is = proxy.cluster().endpoints.endpoints.iter().position(|e| e.address == b.address).expect("b");
    let a_is = 1 - b_is;
    proxy.until("a fails", || bits(&proxy, a_is) == EndpointLive::FAILED_ACTIVE_HC);
    for _ in 0..10 {
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n").text(), "b");
    }
    assert_eq!((count(&proxy, Stat::Healthy), bits(&proxy, b_is)), (1, 0));
    assert!(count(&proxy, Stat::Failure) > 0 && count(&proxy, Stat::NetworkFailure) == 0);
    first.store(true, SeqCst);
    proxy.until("a passes again", || bits(&proxy, a_is) == 0);
    let answers: Vec<_> =
        (0..4).map(|_| proxy.ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n").text().to_owned()).collect();
    assert!(answers.iter().any(|answer| answer == "a"), "{answers:?}");
}

#[test]
fn a_check_asks_as_configured_and_keeps_its_connection() {
    let (seen, heads) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |number, mut client| {
        while client.waiting() {
            let (head, _) = client.request();
            let _ = seen.send((number, head));
            client.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.health_checks = vec![check(http())];
    let proxy = setup.start();
    for _ in 0..3 {
        let (number, head) = heads.recv_timeout(support::PATIENCE).expect("a check");
        assert_eq!(number, 0, "on the same connection");
        assert!(head.starts_with("GET /healthz HTTP/1.1\r\nhost: upstream\r\n"), "{head}");
        assert!(head.contains("user-agent: Envoy/HC\r\n"), "{head}");
    }
    proxy.until("it passed", || bits(&proxy, 0) == 0);
    assert!(count(&proxy, Stat::Attempt) >= 2 && count(&proxy, Stat::Success) >= 2);
}

#[test]
fn without_reuse_each_check_has_its_own_connection() {
    let (seen, numbers) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |number, mut client| {
        let (head, _) = client.request();
        assert!(head.contains("connection: close\r\n"), "{head}");
        let _ = seen.send(number);
        client.send(ok("x").as_bytes());
        client.read_to_end();
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| {
        cluster.health_checks = vec![HealthCheck { reuse_connection: false, ..check(http()) }];
    };
    let _proxy = setup.start();
    let numbers: Vec<usize> =
        (0..3).map(|_| numbers.recv_timeout(support::PATIENCE).expect("a check")).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn an_endpoint_is_held_back_until_its_first_check_and_a_silent_one_times_out() {
    let silent = Upstream::start(|_, mut client| while client.try_more() {});
    let mut setup = Setup::to(&[silent.address]);
    setup.cluster = |cluster| {
        cluster.common_lb.healthy_panic_threshold = 0.0;
        cluster.health_checks = vec![HealthCheck { timeout: Duration::from_millis(300), ..check(http()) }];
    };
    let proxy = setup.start();
    assert_ne!(bits(&proxy, 0) & OUT, 0, "held back from the start");
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (503, "no healthy upstream"));
    let timed_out = EndpointLive::FAILED_ACTIVE_HC | EndpointLive::ACTIVE_HC_TIMEOUT;
    proxy.until("it fails", || bits(&proxy, 0) == timed_out);
    proxy.until("counted", || count(&proxy, Stat::NetworkFailure) > 0);
    assert_eq!(count(&proxy, Stat::Healthy), 0);
}

#[test]
fn endpoints_that_come_are_checked_and_those_that_go_are_left_alone() {
    let healthy = Arc::new(AtomicBool::new(true));
    let first = switched(&healthy, "first");
    let checks = Arc::new(AtomicUsize::new(0));
    let counted = checks.clone();
    let second = Upstream::answering(move |head, _| {
        if head.starts_with("GET /healthz") {
            counted.fetch_add(1, SeqCst);
        }
        ok("second")
    });
    let mut setup = Setup::to(&[first.address]);
    setup.cluster = |cluster| cluster.health_checks = vec![check(http())];
    let proxy = setup.start();
    proxy.until("the first passes", || bits(&proxy, 0) == 0);
    proxy.publish_endpoints(&[second.address]);
    proxy.until("the second is checked and passes", || checks.load(SeqCst) > 1 && bits(&proxy, 0) == 0);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n").text(), "second");
    healthy.store(false, SeqCst);
    proxy.publish_endpoints(&[first.address, second.address]);
    let first_is =
        proxy.cluster().endpoints.endpoints.iter().position(|e| e.address == first.address).expect("first");
    assert_eq!(
        bits(&proxy, first_is) & EndpointLive::PENDING_ACTIVE_HC,
        0,
        "known from before: keeps its health"
    );
    proxy.until("and is checked again", || bits(&proxy, first_is) == EndpointLive::FAILED_ACTIVE_HC);
}

#[test]
fn a_tcp_check_sends_and_expects_bytes() {
    let talking = Upstream::start(|_, mut client| {
        while client.try_more() {
            assert_eq!(client.exactly(4), b"PING");
            client.send(b"..PO");
            client.send(b"NG..");
        }
    });
    let wrong = Upstream::start(|_, mut client| {
        client.send(b"hello");
        client.exactly(4);
    });
    let mut setup = Setup::to(&[talking.address, wrong.address]);
    setup.cluster = |cluster| {
        let receive = vec![(*b"PO").into(), (*b"NG").into()];
        cluster.health_checks = vec![check(HealthCheckKind::Tcp { send: (*b"PING").into(), receive })];
    };
    let proxy = setup.start();
    let endpoints = proxy.cluster().endpoints.endpoints.clone();
    let talking_is = endpoints.iter().position(|e| e.address == talking.address).expect("talking");
    proxy.until("the one that answers passes", || bits(&proxy, talking_is) == 0);
    proxy.until("the other fails", || bits(&proxy, 1 - talking_is) == EndpointLive::FAILED_ACTIVE_HC);
    proxy.until("on a kept connection, several times", || count(&proxy, Stat::Success) > 2);
}

#[test]
fn a_tcp_check_without_payload_only_connects() {
    let listening = Upstream::start(|_, _| {});
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let mut setup = Setup::to(&[listening.address, closed]);
    setup.cluster = |cluster| {
        cluster.health_checks =
            vec![check(HealthCheckKind::Tcp { send: Box::default(), receive: Vec::new() })];
    };
    let proxy = setup.start();
    let endpoints = proxy.cluster().endpoints.endpoints.clone();
    let open_is = endpoints.iter().position(|e| e.address == listening.address).expect("open");
    proxy.until("one passes", || bits(&proxy, open_is) == 0);
    proxy.until("one fails", || bits(&proxy, 1 - open_is) == EndpointLive::FAILED_ACTIVE_HC);
}

#[test]
fn the_name_of_the_service_is_verified() {
    let upstream = Upstream::answering(|_, _| {
        "HTTP/1.1 200 OK\r\nx-envoy-upstream-healthchecked-cluster: other\r\ncontent-length: 0\r\n\r\n"
            .to_owned()
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| {
        let mut kind = http();
        if let HealthCheckKind::Http { service_name, .. } = &mut kind {
            *service_name = Some(StringMatcher::exact("payments"));
        }
        cluster.health_checks = vec![check(kind)];
    };
    let proxy = setup.start();
    proxy.until("it fails", || bits(&proxy, 0) == EndpointLive::FAILED_ACTIVE_HC);
    assert!(count(&proxy, Stat::VerifyCluster) > 0);
}

#[test]
fn a_passed_check_lets_an_ejected_endpoint_back_in() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.outlier = Some(support::outlier());
    setup.cluster = |cluster| cluster.health_checks = vec![check(http())];
    let proxy = setup.start();
    proxy.until("it passes", || bits(&proxy, 0) == 0);
    let cluster = proxy.cluster();
    cluster.live.ejected.store(1, SeqCst);
    cluster.endpoints.endpoints[0].live.unhealthy.fetch_or(EndpointLive::FAILED_OUTLIER, SeqCst);
    proxy.until("the next passed check lets it in", || bits(&proxy, 0) == 0);
    proxy.until("and gives its place back", || cluster.live.ejected.load(SeqCst) == 0);
}

#[test]
fn an_answer_that_says_so_fails_its_endpoint_at_once() {
    let upstream = Upstream::answering(|head, _| {
        if head.starts_with("GET /healthz") {
            return ok("fine");
        }
        "HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: true\r\ncontent-length: 0\r\n\r\n".to_owned()
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| {
        let day = Duration::from_secs(86_400);
        let slow =
            HealthCheck { interval: day, unhealthy_interval: day, no_traffic_interval: day, ..check(http()) };
        cluster.health_checks = vec![slow];
    };
    let proxy = setup.start();
    proxy.until("it passes", || bits(&proxy, 0) == 0);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n").status, 200);
    proxy.until("out until its next check", || bits(&proxy, 0) == EndpointLive::FAILED_ACTIVE_HC);
    proxy.until("counted", || count(&proxy, Stat::PassiveFailure) == 1);
}

#[test]
fn a_check_over_http2_is_answered_over_http2() {
    let healthy = Arc::new(AtomicBool::new(true));
    let says = healthy.clone();
    let upstream = H2Upstream::answering(h2_peers::settings(), move |_, request, mut respond| {
        let status = if says.load(SeqCst) { 200 } else { 503 };
        async move {
            assert_eq!((request.uri().path(), request.method().as_str()), ("/healthz", "GET"));
            assert_eq!(request.headers()["user-agent"], "Envoy/HC");
            let answer = http::Response::builder().status(status).body(()).expect("answer");
            let _ = respond.send_response(answer, true);
        }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| {
        let mut kind = http();
        if let HealthCheckKind::Http { http2, .. } = &mut kind {
            *http2 = true;
        }
        cluster.health_checks = vec![check(kind)];
    };
    let proxy = setup.start();
    proxy.until("it passes", || bits(&proxy, 0) == 0);
    proxy.until("more than once", || count(&proxy, Stat::Success) > 2);
    healthy.store(false, SeqCst);
    proxy.until("it fails", || bits(&proxy, 0) == EndpointLive::FAILED_ACTIVE_HC);
    assert_eq!(count(&proxy, Stat::NetworkFailure), 0);
}
