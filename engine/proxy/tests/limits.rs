//! Time limits and bounds, each with what the client sees and what is counted. No test measures time: a limit is
//! short where it must strike, and far away where it must not.

mod support;

use corelane_snapshot::{Action, BackOff, DirectResponse, HttpConnectionManager};
use corelane_telemetry::{ClusterStat, HttpStat};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{Proxy, Setup, Upstream, ok, routes};

const SHORT: Duration = Duration::from_millis(50);

fn silent() -> Upstream {
    Upstream::start(|_, mut client| while client.try_more() {})
}

/// Answers with a head and a part of its body, and no more.
fn stalling() -> Upstream {
    Upstream::start(|_, mut client| {
        client.request();
        client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart");
        while client.try_more() {}
    })
}

fn count(proxy: &Proxy, stat: ClusterStat) -> u64 {
    proxy.cluster_count(|stats| stats.cluster, stat)
}

#[test]
fn a_request_that_does_not_arrive_in_time_is_408() {
    let upstream = silent();
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.request_timeout = Some(SHORT);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\npart");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (408, "request timeout"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(proxy.http_count(HttpStat::DownstreamRqTimeout), 1);
}

#[test]
fn the_request_timeout_does_not_hold_for_the_answer() {
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let upstream = Upstream::answering(move |_, _| {
        // the proxy's clock has passed the limit by then
        held.lock().expect("lock").recv_timeout(SHORT * 3).expect_err("nobody sends");
        ok("late")
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.request_timeout = Some(SHORT);
    let proxy = setup.start();
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "late");
    drop(go_on);
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_408() {
    let upstream = silent();
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.request_headers_timeout = Some(SHORT);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost:");
    assert_eq!(client.answer().status, 408);
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(proxy.http_count(HttpStat::DownstreamRqHeaderTimeout), 1);
}

#[test]
fn a_head_that_does_not_come_whole_ends_with_its_stream_or_as_an_idle_connection() {
    let upstream = silent();
    for begun in ["GET / HTTP/1.1\r\nhost:", "PRI * HT"] {
        let mut setup = Setup::to(&[upstream.address]);
        setup.manager = |manager| manager.stream_idle_timeout = Some(SHORT);
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.send(begun.as_bytes());
        if begun.starts_with("GET") {
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (408, "stream timeout"));
            assert_eq!(proxy.http_count(HttpStat::DownstreamRqIdleTimeout), 1);
        }
        assert_eq!(client.read_to_end(), b"");

        let mut setup = Setup::to(&[upstream.address]);
        setup.manager = |manager| {
            manager.stream_idle_timeout = None;
            manager.idle_timeout = Some(SHORT);
        };
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.send(begun.as_bytes());
        assert_eq!(client.read_to_end(), b"");
        assert_eq!(proxy.http_count(HttpStat::DownstreamCxIdleTimeout), 1);
    }
}

#[test]
fn a_stream_that_lasts_too_long_or_on_which_nothing_moves_is_answered_or_broken_off() {
    let lasts: fn(&mut HttpConnectionManager) = |manager| manager.stream_duration_max = Some(SHORT);
    let rests: fn(&mut HttpConnectionManager) = |manager| manager.stream_idle_timeout = Some(SHORT);
    for (limit, text, stat) in [
        (lasts, "downstream duration timeout", HttpStat::DownstreamRqMaxDurationReached),
        (rests, "stream timeout", HttpStat::DownstreamRqIdleTimeout),
    ] {
        for (upstream, begun) in [(silent(), false), (stalling(), true)] {
            let mut setup = Setup::to(&[upstream.address]);
            setup.manager = limit;
            let proxy = setup.start();
            let mut client = proxy.connect();
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            if begun {
                client.head();
                assert_eq!(client.read_to_end(), b"part");
            } else {
                let answer = client.answer();
                assert_eq!((answer.status, answer.text()), (504, text));
            }
            assert_eq!(proxy.http_count(stat), 1);
        }
    }
}

#[test]
fn an_idle_request_that_is_not_complete_is_the_clients_fault() {
    let upstream = silent();
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.stream_idle_timeout = Some(SHORT);
    let proxy = setup.start();
    let answer = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\npart");
    assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
}

#[test]
fn heads_beyond_their_limits_are_431() {
    let upstream = Upstream::answering(|_, _| ok("never"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        manager.request_head_bytes_max = 1_024;
        manager.header_fields_max = 5;
    };
    let proxy = setup.start();
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(2_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: 1\r\n".repeat(5));
    for (number, request) in [large, many].iter().enumerate() {
        let mut client = proxy.connect();
        client.send(request.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("connection")), (431, Some("close")), "{request}");
        assert_eq!(client.read_to_end(), b"");
        assert_eq!(proxy.http_count(HttpStat::DownstreamCxProtocolError), number as u64 + 1);
    }
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
}

#[test]
fn a_connection_ends_after_its_last_request() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.requests_per_connection_max = 2;
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().field("connection"), None);
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().field("connection"), Some("close"));
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(proxy.http_count(HttpStat::DownstreamCxMaxRequestsReached), 1);
}

#[test]
fn an_idle_connection_ends_when_its_time_is_over() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    for (old, stat) in
        [(true, HttpStat::DownstreamCxMaxDurationReached), (false, HttpStat::DownstreamCxIdleTimeout)]
    {
        let mut setup = Setup::to(&[upstream.address]);
        setup.manager = match old {
            true => |manager| manager.connection_duration_max = Some(Duration::from_millis(300)),
            false => |manager| manager.idle_timeout = Some(SHORT),
        };
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "x");
        assert_eq!(client.read_to_end(), b"");
        assert_eq!(proxy.http_count(stat), 1);
    }
}

#[test]
fn a_client_that_does_not_close_is_not_waited_for() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.delayed_close_timeout = SHORT;
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(client.answer().text(), "x");
    proxy.until("its time is over", || proxy.http_count(HttpStat::DownstreamCxDelayedCloseTimeout) == 1);
    proxy.until("it is closed", || proxy.http_count(HttpStat::DownstreamCxDestroy) == 1);
}

#[test]
fn an_upstream_connection_carries_no_more_requests_than_configured() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let upstream = Upstream::start(move |_, mut client| {
        counted.fetch_add(1, SeqCst);
        while client.waiting() {
            client.request();
            client.send(ok("x").as_bytes());
        }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.pool.requests_per_connection_max = 2;
    let proxy = setup.start();
    let mut client = proxy.connect();
    for _ in 0..6 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "x");
    }
    assert_eq!(connections.load(SeqCst), 3);
    proxy.until("counted", || count(&proxy, ClusterStat::UpstreamCxMaxRequests) == 3);
}

#[test]
fn an_upstream_connection_ends_when_it_is_idle_or_old() {
    for (old, stat) in
        [(true, ClusterStat::UpstreamCxMaxDurationReached), (false, ClusterStat::UpstreamCxIdleTimeout)]
    {
        let (ended, end) = std::sync::mpsc::channel();
        let upstream = Upstream::start(move |_, mut client| {
            client.request();
            client.send(ok("x").as_bytes());
            assert_eq!(client.read_to_end(), b"");
            let _ = ended.send(());
        });
        let mut setup = Setup::to(&[upstream.address]);
        setup.cluster = match old {
            true => |cluster| cluster.pool.connection_duration_max = Some(SHORT),
            false => |cluster| cluster.pool.idle_timeout = Some(SHORT),
        };
        let proxy = setup.start();
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "x");
        end.recv_timeout(support::PATIENCE).expect("closed by the proxy");
        proxy.until("counted", || count(&proxy, stat) == 1);
    }
}

#[test]
fn an_upstream_stream_that_lasts_too_long_is_504() {
    let upstream = silent();
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.pool.stream_duration_max = Some(SHORT);
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (504, "upstream max stream duration reached"));
    assert_eq!(count(&proxy, ClusterStat::UpstreamRqMaxDurationReached), 1);
}

#[test]
fn a_try_on_which_nothing_moves_is_given_up_for_another_or_broken_off() {
    let good = Upstream::answering(|_, _| ok("moving"));
    let quiet = silent();
    let mut policy = support::policy();
    policy.per_try_timeout = None;
    policy.per_try_idle_timeout = Some(SHORT);
    policy.retries_max = 1;
    let mut setup = Setup::to(&[quiet.address, good.address]);
    setup.retry = Some(policy.clone());
    let proxy = setup.start();
    for _ in 0..2 {
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "moving");
    }
    assert_eq!(count(&proxy, ClusterStat::UpstreamRqPerTryIdleTimeout), 1);

    let stalling = stalling();
    let mut setup = Setup::to(&[stalling.address]);
    setup.retry = Some(policy);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.head();
    assert_eq!(client.read_to_end(), b"part");
}

#[test]
fn the_routes_timeout_holds_for_all_tries_together() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let upstream = Upstream::start(move |_, mut client| {
        counted.fetch_add(1, SeqCst);
        while client.try_more() {}
    });
    let mut policy = support::policy();
    policy.per_try_timeout = Some(Duration::from_millis(100));
    policy.retries_max = 40;
    let mut setup = Setup::to(&[upstream.address]);
    setup.retry = Some(policy);
    setup.timeout = Some(Duration::from_millis(350));
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (504, "upstream request timeout"));
    let tries = tries.load(SeqCst);
    assert!((1..=4).contains(&tries), "{tries} tries within three and a half times one");
}

#[test]
fn a_slow_upload_is_not_a_slow_try() {
    let upstream = Upstream::answering(|_, body| ok(&String::from_utf8_lossy(body)));
    let mut policy = support::policy();
    policy.per_try_timeout = Some(SHORT);
    let mut setup = Setup::to(&[upstream.address]);
    setup.retry = Some(policy);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nfir");
    // the core's clock is past the limit when the rest is sent
    let start = proxy.on_core(|_| corelane_runtime::Nanos::read());
    proxy.until("time passes", || corelane_runtime::Nanos::read().since(start) > SHORT * 2);
    client.send(b"st!");
    assert_eq!(client.answer().text(), "first!");
}

/// Every request is answered by the proxy itself, with a large body.
fn direct(manager: &mut HttpConnectionManager) {
    routes::route(manager).action =
        Action::Direct(Box::new(DirectResponse { status: 200, body: vec![b'x'; 1 << 20].into() }));
    manager.stream_idle_timeout = Some(SHORT);
}

#[test]
fn a_client_that_does_not_read_our_own_answers_is_not_kept() {
    let mut setup = Setup::to(&[silent().address]);
    setup.manager = direct;
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100));
    proxy.until("its time is over", || proxy.http_count(HttpStat::DownstreamRqIdleTimeout) == 1);
    proxy.until("it is closed", || proxy.shared.connections() == 0);
    let read = client.read_to_end_or_reset();
    assert!(read.len() < 100 << 20, "{} bytes", read.len());
}

/// Longer than any test.
const LONG: Duration = Duration::from_secs(1_000);

#[test]
fn a_request_whose_client_reset_is_not_tried_again() {
    let upstream = Upstream::answering(|_, _| "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".into());
    let mut setup = Setup::to(&[upstream.address]);
    let mut policy = support::policy();
    policy.back_off = BackOff { base: LONG * 1_000, max: LONG * 1_000 };
    setup.retry = Some(policy);
    setup.timeout = None;
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.until("it backs off", || count(&proxy, ClusterStat::UpstreamRqRetry) == 1);
    client.reset();
    proxy.until("nobody waits", || proxy.shared.requests() == 0);
    assert_eq!(count(&proxy, ClusterStat::UpstreamRqTotal), 1);
}

#[test]
fn a_request_whose_client_reset_waits_for_no_connection() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let upstream = Upstream::answering(move |_, _| {
        held.lock().expect("lock").recv().expect("released");
        ok("first")
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.breakers.connections_max = 1;
    let proxy = setup.start();
    let mut first = proxy.connect();
    first.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.until("it has the connection", || count(&proxy, ClusterStat::UpstreamCxTotal) == 1);
    let mut second = proxy.connect();
    second.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.until("it waits", || count(&proxy, ClusterStat::UpstreamRqPendingTotal) == 2);
    second.reset();
    proxy.until("only the first is left", || proxy.shared.requests() == 1);
    assert_eq!(count(&proxy, ClusterStat::UpstreamRqCancelled), 1);
    release.send(()).expect("upstream waits");
    assert_eq!(first.answer().text(), "first");
}
