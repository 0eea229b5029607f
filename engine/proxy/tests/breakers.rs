//! Circuit breakers and what is counted and logged of them. What Envoy does is said in its "Circuit breaking" and
//! "Cluster stats" pages, and done in `ConnPoolImplBase::newStreamImpl` and `attachStreamToClient`.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use corelane_snapshot::{
    AccessLog, AccessLogSink, Action, CircuitBreakers, ClusterSpecifier, Forward, LogFormat, RetryBudget,
    RoutingPriority, UpstreamProtocol, template::Template,
};
use corelane_telemetry::{ClusterStat, ClusterStat as Stat};
use h2_peers::{H2Upstream, answer_with, settings};
use std::sync::{
    Arc, Mutex,
    mpsc::{Receiver, Sender, channel},
};
use support::{PATIENCE, Proxy, Setup, Upstream, ok, policy, routes};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn counts<const N: usize>(proxy: &Proxy, stats: [ClusterStat; N]) -> [u64; N] {
    stats.map(|stat| proxy.cluster_count(|stats| stats.cluster, stat))
}

fn logging(setup: &mut Setup) {
    setup.manager = |manager| {
        let format = Template::parse(
            "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        );
        manager.access_log.push(Arc::new(AccessLog {
            sink: AccessLogSink::Stdout,
            sink_id: 0,
            format: LogFormat::Text(format.expect("format")),
            filter: None,
        }));
    };
}

#[track_caller]
fn logged(proxy: &Proxy, lines: usize) -> Vec<String> {
    let found = Mutex::new(Vec::new());
    proxy.until("lines", || {
        let mut found = found.lock().expect("lock");
        proxy.log.drain(|_, line| found.push(String::from_utf8(line.to_vec()).expect("text")));
        found.len() >= lines
    });
    found.into_inner().expect("lock")
}

/// Answers a request when it is told to; tells when one has arrived.
fn held() -> (Upstream, Receiver<()>, Sender<()>) {
    let (release, held) = channel::<()>();
    let (arrived, arrivals) = channel();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_, _| {
        arrived.send(()).expect("test waits");
        held.lock().expect("lock").recv().expect("released");
        ok("held")
    });
    (upstream, arrivals, release)
}

/// `max_pending_requests: 0`: "If this circuit breaker overflows the upstream_rq_pending_overflow counter"; a request for
/// which no connection is ready is pending, so that none is ever sent.
#[test]
fn no_pending_request_means_no_new_connection() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let upstream = Upstream::answering(|_, _| ok("never"));
        let mut setup = Setup::to(&[upstream.address]);
        setup.breakers.pending_max = 0;
        if protocol == UpstreamProtocol::Http2 {
            setup.cluster = |cluster| cluster.protocol = UpstreamProtocol::Http2;
        }
        logging(&mut setup);
        let proxy = setup.start();
        for _ in 0..3 {
            let refused = proxy.ask(GET);
            assert_eq!((refused.status, refused.field("x-envoy-overloaded")), (503, Some("true")));
        }
        let counted = counts(
            &proxy,
            [
                Stat::UpstreamRqPendingOverflow,
                Stat::UpstreamRqPendingTotal,
                Stat::UpstreamRqTotal,
                Stat::UpstreamCxTotal,
            ],
        );
        assert_eq!(counted, [3, 0, 0, 0]);
        let line = "503 UO upstream_reset_before_response_started{overflow} 1";
        assert_eq!(logged(&proxy, 3), [line; 3]);
    }
}

/// core.RoutingPriority: each priority has thresholds of its own, and its requests go over connections of their own.
#[test]
fn the_high_priority_has_limits_and_connections_of_its_own() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (h1, h2);
        let address = if protocol == UpstreamProtocol::Http1 {
            h1 = Upstream::answering(|_, _| ok("x"));
            h1.address
        } else {
            h2 = H2Upstream::answering(settings(), |_, _, respond| answer_with(respond, "x"));
            h2.address
        };
        let start = |priority: RoutingPriority| {
            let mut setup = Setup::to(&[address]);
            setup.forward = match priority {
                RoutingPriority::Default => |_| {},
                RoutingPriority::High => |forward| forward.priority = RoutingPriority::High,
            };
            setup.cluster = match protocol {
                UpstreamProtocol::Http1 => |cluster| cluster.high.breakers.connections_max = 1,
                _ => |cluster| {
                    cluster.protocol = UpstreamProtocol::Http2;
                    cluster.high.breakers.connections_max = 1;
                },
            };
            setup.breakers = CircuitBreakers { connections_max: 0, pending_max: 0, ..Default::default() };
            setup.start()
        };
        let proxy = start(RoutingPriority::Default);
        assert_eq!(proxy.ask(GET).status, 503, "none of the default priority");
        let proxy = start(RoutingPriority::High);
        for _ in 0..3 {
            assert_eq!(proxy.ask(GET).status, 200);
        }
        assert_eq!(counts(&proxy, [Stat::UpstreamCxTotal, Stat::UpstreamCxOverflow]), [1, 0]);
        let live = proxy.cluster().live;
        let open = |priority| live.of(priority).connections.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((open(RoutingPriority::Default), open(RoutingPriority::High)), (0, 1));
    }
}

/// A cap on the connections to one endpoint holds for both priorities together.
#[test]
fn a_priority_gets_the_endpoints_connection_that_the_other_does_not_use() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers = CircuitBreakers { host_connections_max: Some(1), ..CircuitBreakers::default() };
    setup.cluster = |cluster| cluster.high.breakers.host_connections_max = Some(1);
    setup.manager = |manager| {
        let host = routes::host(manager);
        let Action::Forward(default) = &host.routes[0].action else { panic!("forward") };
        let ClusterSpecifier::Cluster(cluster) = default.target else { panic!("a cluster") };
        let high = Forward {
            timeout: default.timeout,
            priority: RoutingPriority::High,
            ..routes::forward_to(cluster)
        };
        host.routes.insert(0, Arc::new(routes::route_to("high", "/high/", high)));
    };
    let proxy = setup.start();
    for path in ["/", "/high/", "/", "/high/"] {
        let answer = proxy.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        assert_eq!((answer.status, answer.text()), (200, "x"), "{path}");
    }
    assert_eq!(counts(&proxy, [Stat::UpstreamCxTotal]), [4]);
}

/// What finds a connection ready is not pending, whatever the limit.
#[test]
fn only_who_waits_for_a_connection_is_pending() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers.pending_max = 1;
    let proxy = setup.start();
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.send(GET.as_bytes());
        assert_eq!(client.answer().status, 200);
    }
    let counted =
        counts(&proxy, [Stat::UpstreamRqPendingTotal, Stat::UpstreamRqTotal, Stat::UpstreamCxTotal]);
    assert_eq!(counted, [1, 5, 1]);
}

#[test]
fn what_waits_at_the_cap_is_pending_and_what_is_refused_was_never_sent() {
    let (upstream, arrivals, release) = held();
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers.connections_max = 1;
    setup.breakers.pending_max = 1;
    let proxy = setup.start();
    let mut first = proxy.connect();
    first.send(GET.as_bytes());
    arrivals.recv_timeout(PATIENCE).expect("the first has the connection");
    let mut second = proxy.connect();
    second.send(GET.as_bytes());
    proxy.until("it waits", || counts(&proxy, [Stat::UpstreamRqPendingTotal]) == [2]);
    assert_eq!(proxy.ask(GET).status, 503);
    let counted =
        counts(&proxy, [Stat::UpstreamRqPendingOverflow, Stat::UpstreamRqTotal, Stat::UpstreamCxOverflow]);
    assert_eq!(counted, [1, 1, 1], "one was sent, one waits at the cap");
    for client in [&mut first, &mut second] {
        release.send(()).expect("upstream waits");
        assert_eq!(client.answer().text(), "held");
    }
    assert_eq!(counts(&proxy, [Stat::UpstreamRqTotal, Stat::UpstreamRqPendingTotal]), [2, 2]);
}

/// A request whose connection fails was never sent: `upstream_rq_total` stays, `upstream_rq_pending_failure_eject` counts.
#[test]
fn a_failed_connection_sends_no_request() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let proxy = Setup::to(&[closed]).start();
    assert_eq!(proxy.ask(GET).status, 503);
    let counted = counts(
        &proxy,
        [Stat::UpstreamRqTotal, Stat::UpstreamRqPendingTotal, Stat::UpstreamRqPendingFailureEject],
    );
    assert_eq!(counted, [0, 1, 1]);
}

/// Envoy's router counts the attempt, and the request as completed, where the pool refuses it.
#[test]
fn a_request_beyond_the_limit_shows_one_attempt() {
    let upstream = Upstream::answering(|_, _| ok("never"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers.requests_max = 0;
    logging(&mut setup);
    let proxy = setup.start();
    assert_eq!(proxy.ask(GET).status, 503);
    assert_eq!(logged(&proxy, 1), ["503 UO upstream_reset_before_response_started{overflow} 1"]);
    assert_eq!(counts(&proxy, [Stat::UpstreamRqTotal]), [0]);
}

/// `Filter::onUpstreamHeaders`: RetryStatus::NoOverflow sets UpstreamOverflow, though the upstream's answer is shown.
#[test]
fn a_retry_that_is_refused_is_logged_as_overflow() {
    for by_budget in [false, true] {
        let upstream = Upstream::answering(|_, _| "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned());
        let mut setup = Setup::to(&[upstream.address]);
        setup.retry = Some(policy());
        match by_budget {
            false => setup.breakers.retries_max = Some(0),
            true => {
                setup.cluster = |cluster| {
                    cluster.retry_budget =
                        RetryBudget { percent: 0.0, retries_min: 0, ..RetryBudget::configured() }
                };
            }
        }
        logging(&mut setup);
        let proxy = setup.start();
        assert_eq!(proxy.ask(GET).status, 503);
        assert_eq!(logged(&proxy, 1), ["503 UO via_upstream 1"]);
        assert_eq!(counts(&proxy, [Stat::UpstreamRqRetryOverflow]), [1]);
    }
}
