//! Retries, per-try timeouts and outlier detection on the wire.

mod support;

use corelane_telemetry::{ClusterOutlierStat, ClusterStat};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{Setup, Upstream, ok, outlier, policy};

/// Accepts, reads the request, resets; counts how often.
fn resetting() -> (Upstream, Arc<AtomicUsize>) {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    let upstream = Upstream::start(move |_, mut client| {
        if client.try_more() {
            counted.fetch_add(1, SeqCst);
            client.reset();
        }
    });
    (upstream, hits)
}

#[test]
fn a_resetting_replica_is_not_noticed_and_is_ejected_after_five_failures() {
    let (broken, hits) = resetting();
    let good = Upstream::answering(|_, _| ok("good"));
    let mut setup = Setup::to(&[broken.address, good.address]);
    setup.retry = Some(policy());
    setup.outlier = Some(outlier());
    let proxy = setup.start();
    let mut client = proxy.connect();
    for _ in 0..60 {
        client.send(b"GET /charge HTTP/1.1\r\nhost: payments\r\n\r\n");
        assert_eq!(client.answer().text(), "good");
    }
    assert_eq!(hits.load(SeqCst), 5, "ejected after five in a row, and not tried again");
    // HTTP/1 has no stream to reset: Envoy counts these only of multiplexed connections
    for stat in [ClusterStat::UpstreamRqRxReset, ClusterStat::UpstreamRqPendingFailureEject] {
        assert_eq!(proxy.cluster_count(|stats| stats.cluster, stat), 0, "{stat:?}");
    }
    use ClusterOutlierStat as Stat;
    for stat in [
        Stat::EjectionsDetectedConsecutive5xx,
        Stat::EjectionsEnforcedConsecutive5xx,
        Stat::EjectionsEnforcedTotal,
        // their names of old
        Stat::EjectionsConsecutive5xx,
        Stat::EjectionsTotal,
    ] {
        assert_eq!(proxy.cluster_count(|stats| stats.outlier, stat), 1, "{stat:?}");
    }
}

#[test]
fn a_body_is_sent_again_to_the_next_replica() {
    let (broken, _) = resetting();
    let good =
        Upstream::answering(|head, body| ok(&format!("{} {}", &head[..4], String::from_utf8_lossy(body))));
    let mut setup = Setup::to(&[broken.address, good.address]);
    setup.retry = Some(policy());
    let proxy = setup.start();
    for _ in 0..4 {
        let answer = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nkeep this");
        assert_eq!((answer.status, answer.text()), (200, "POST keep this"));
    }
}

#[test]
fn a_server_error_is_tried_again_and_the_last_one_is_shown() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let upstream = Upstream::answering(move |head, _| {
        let number = counted.fetch_add(1, SeqCst) + 1;
        assert!(head.contains(&format!("x-envoy-attempt-count: {number}\r\n")), "{head}");
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy".to_owned()
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.retry = Some(policy());
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (503, "busy"));
    assert_eq!(tries.load(SeqCst), 3);
    let retried = ClusterStat::RetryUpstreamRqCompleted;
    assert_eq!(proxy.cluster_count(|stats| stats.cluster, retried), 2, "the last was passed on");
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another() {
    let silent = Upstream::start(|_, mut client| while client.try_more() {});
    let good = Upstream::answering(|_, _| ok("in time"));
    let mut setup = Setup::to(&[silent.address, good.address]);
    setup.retry = Some(policy());
    let proxy = setup.start();
    for _ in 0..2 {
        let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((answer.status, answer.text()), (200, "in time"));
    }
}

#[test]
fn the_routes_timeout_is_answered_with_504() {
    let silent = Upstream::start(|_, mut client| while client.try_more() {});
    let mut setup = Setup::to(&[silent.address]);
    setup.timeout = Some(Duration::from_millis(50));
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (504, "upstream request timeout"));
}

#[test]
fn requests_beyond_the_circuit_breaker_are_refused_at_once() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (arrived, waiting) = std::sync::mpsc::channel();
    let upstream = Upstream::answering(move |_, _| {
        arrived.send(()).expect("test waits");
        held.lock().expect("lock").recv().expect("released");
        ok("slow")
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers.requests_max = 1;
    let proxy = setup.start();
    let mut first = proxy.connect();
    first.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    waiting.recv_timeout(support::PATIENCE).expect("the first request is upstream");
    let refused = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("overflow"), "{}", refused.text());
    let overflow = [ClusterStat::UpstreamRqActiveOverflow, ClusterStat::UpstreamRqPendingOverflow];
    assert_eq!(overflow.map(|stat| proxy.cluster_count(|stats| stats.cluster, stat)), [1, 0]);
    release.send(()).expect("upstream waits");
    assert_eq!(first.answer().text(), "slow");
}

#[test]
fn a_request_waits_for_a_connection_when_the_cluster_is_at_its_cap() {
    let upstream = Upstream::answering(|head, _| ok(head.split(' ').nth(1).expect("path")));
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers.connections_max = 1;
    let proxy = setup.start();
    let mut clients: Vec<_> = (0..8).map(|_| proxy.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), format!("/{number}"));
    }
}

#[test]
fn an_answer_before_a_reset_is_passed_on_while_the_upload_fails() {
    let upstream = Upstream::start(|_, mut client| {
        client.head();
        client.send(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nb");
        client.send(b"ig");
        client.reset();
    });
    let proxy = Setup::to(&[upstream.address]).start();
    for _ in 0..20 {
        let mut client = proxy.connect();
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n");
        let piece = vec![b'x'; 100_000];
        while std::io::Write::write_all(&mut client.stream, &piece).is_ok() && client.peek_is_empty() {}
        let answered = client.try_answer();
        assert!(matches!(answered, Some(413 | 503)), "{answered:?}");
    }
    // and the proxy goes on
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 413);
}

#[test]
fn head_gets_the_head_of_a_local_answer() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let proxy = Setup::to(&[closed]).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("content-length: "), "{head}");
    }
}

#[test]
fn the_routes_timeout_counts_over_all_tries() {
    let silent = Upstream::start(|_, mut client| while client.try_more() {});
    let mut setup = Setup::to(&[silent.address]);
    let mut retry = policy();
    retry.retries_max = 100;
    retry.per_try_timeout = Some(Duration::from_millis(40));
    setup.retry = Some(retry);
    setup.timeout = Some(Duration::from_millis(100));
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(answer.status, 504);
    let tries: u32 = answer.field("x-envoy-attempt-count").map_or(0, |count| count.parse().expect("count"));
    assert!(tries <= 4, "a hundred retries of 40 ms do not fit into 100 ms");
}
