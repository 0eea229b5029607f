//! Peers that break the protocol, or use its rarer corners: the right status, no smuggling, no effect on others.

mod support;

use corelane_telemetry::{ClusterStat, HttpStat};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};
use support::{Answer, Proxy, Setup, Upstream, ok};

/// Answers the first request on each connection with these bytes, and stays.
fn saying(bytes: &'static [u8]) -> Upstream {
    Upstream::start(move |_, mut client| {
        if client.waiting() {
            client.request();
            client.send(bytes);
            while client.try_more() {}
        }
    })
}

fn get(proxy: &Proxy) -> Answer {
    proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
}

#[test]
fn a_response_that_is_no_http_is_502() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let upstream = saying(garbage);
        let proxy = Setup::to(&[upstream.address]).start();
        let answer = get(&proxy);
        assert_eq!(answer.status, 502, "{}", String::from_utf8_lossy(garbage));
        assert!(answer.text().contains("protocol error"), "{}", answer.text());
        assert_eq!(proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamCxProtocolError), 1);
    }
}

/// Envoy: 502 and UPE. Nothing has been sent on, so that it need not be shown as an answer that breaks off.
#[test]
fn a_body_that_is_malformed_from_its_first_byte_is_502() {
    for body in [&b"zz\r\n"[..], b"\r\n\r\n", b"3;\0\r\nabc\r\n", b"3\r\nabcd\r\n"] {
        let head = &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-own: 1\r\n\r\n"[..];
        let upstream = saying([head, body].concat().leak());
        let proxy = Setup::to(&[upstream.address]).start();
        let mut client = proxy.connect();
        for served in 1..=2 {
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            let answer = client.answer();
            assert_eq!(answer.status, 502, "{}", String::from_utf8_lossy(body));
            assert_eq!(answer.field("x-own"), None);
            assert!(answer.text().contains("protocol error"), "{}", answer.text());
            // the connection downstream goes on
            proxy.until("it is counted", || proxy.http_count(HttpStat::DownstreamRq5xx) == served);
        }
        assert_eq!(proxy.http_count(HttpStat::DownstreamRq2xx), 0);
        assert_eq!(proxy.http_count(HttpStat::RqResetAfterDownstreamResponseStarted), 0);
        assert_eq!(proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamCxProtocolError), 2);
    }
}

#[test]
fn a_response_head_without_end_is_502() {
    let upstream = Upstream::start(|_, mut client| {
        client.request();
        client.send(b"HTTP/1.1 200 OK\r\n");
        let line = [&b"x-filler: "[..], &[b'a'; 1000], b"\r\n"].concat();
        while std::io::Write::write_all(&mut client.stream, &line).is_ok() {}
    });
    let proxy = Setup::to(&[upstream.address]).start();
    assert_eq!(get(&proxy).status, 502);
}

#[test]
fn interim_answers_are_passed_on_but_not_without_end() {
    let upstream = saying(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let hints = client.head();
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n") && hints.contains("link: </a.css>"), "{hints}");
    assert_eq!(client.answer().text(), "ok");

    let flood = Upstream::start(|_, mut client| {
        client.request();
        while std::io::Write::write_all(&mut client.stream, b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
    });
    let proxy = Setup::to(&[flood.address]).start();
    assert_eq!(get(&proxy).status, 502);
}

#[test]
fn an_http10_client_gets_no_interim_answer() {
    let upstream = saying(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Setup::to(&[upstream.address]).start();
    let answer = proxy.ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "ok"));
}

#[test]
fn what_follows_a_response_unasked_is_no_answer_to_anybody() {
    let upstream = Upstream::start(|_, mut client| {
        while client.waiting() {
            client.request();
            client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..10 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "good");
    }
}

#[test]
fn a_body_where_none_may_be_is_not_passed_on() {
    for head in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\n"]
    {
        let served = Arc::new(AtomicUsize::new(0));
        let counted = served.clone();
        let upstream = Upstream::start(move |_, mut client| {
            if client.waiting() {
                client.request();
                let first = counted.fetch_add(1, SeqCst) == 0;
                let answer = if first { format!("{head}poison") } else { ok("next") };
                client.send(answer.as_bytes());
                while client.try_more() {}
            }
        });
        let proxy = Setup::to(&[upstream.address]).start();
        let mut client = proxy.connect();
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.head()[9..12], head[9..12]);
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "next", "after {head}");
    }
}

#[test]
fn a_response_without_length_ends_with_its_connection() {
    let upstream = Upstream::start(|_, mut client| {
        if client.waiting() {
            client.request();
            client.send(b"HTTP/1.1 200 OK\r\n\r\nas long as it lasts");
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.text(), "as long as it lasts");
    }
    let old = proxy.ask("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    assert_eq!((old.field("transfer-encoding"), old.field("connection")), (None, Some("close")));
    assert_eq!(old.text(), "as long as it lasts");
}

#[test]
fn an_upstream_that_says_close_is_not_asked_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let upstream = Upstream::start(move |_, mut client| {
        counted.fetch_add(1, SeqCst);
        let mut requests = 0;
        while client.waiting() {
            client.request();
            requests += 1;
            assert_eq!(requests, 1, "it said close");
            client.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..4 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.field("connection")), ("ok", None));
    }
    assert_eq!(connections.load(SeqCst), 4);
}

#[test]
fn an_http10_upstream_is_understood() {
    let (seen, heads) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |number, mut client| {
        while client.waiting() {
            client.request();
            let _ = seen.send(number);
            match number {
                0 => client.send(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
                _ => client.send(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"),
            }
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.answer();
        assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
    }
    assert_eq!(heads.iter().take(3).collect::<Vec<_>>(), [0, 1, 1], "kept only where it said so");
}

#[test]
fn an_http10_client_keeps_its_connection_where_it_asks() {
    let upstream = Upstream::answering(|head, _| {
        assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
        ok("x")
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.field("connection")), ("x", Some("keep-alive")));
    }
    client.send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    let last = client.answer();
    assert_eq!((last.text(), last.field("connection")), ("x", Some("close")));
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn an_upgrade_that_the_upstream_declines_is_an_ordinary_answer() {
    let upstream =
        Upstream::answering(|head, _| ok(if head.contains("upgrade: websocket") { "no" } else { "plain" }));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "no"));
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "plain");
}

#[test]
fn a_second_upgrade_line_does_not_pass_beside_an_allowed_one() {
    let upstream = Upstream::answering(|_, _| panic!("nothing is to arrive"));
    let proxy = Setup::to(&[upstream.address]).start();
    let answer = proxy.ask(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nupgrade: secret\r\n\r\n",
    );
    assert_eq!(answer.status, 403);
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_502() {
    let upstream =
        saying(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw");
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().status, 502);
}

/// Header injection and request smuggling: refused, or sent on so that they mean one thing.
#[test]
fn a_request_that_could_mean_two_things_is_refused() {
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = reached.clone();
    let upstream = Upstream::answering(move |_, _| {
        counted.fetch_add(1, SeqCst);
        ok("reached")
    });
    let proxy = Setup::to(&[upstream.address]).start();
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n folded: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(request.as_bytes());
        let answer = client.answer();
        assert!((400..600).contains(&answer.status), "{request:?}: {}", answer.head);
        assert_eq!(answer.field("connection"), Some("close"), "{request:?}");
        assert_eq!(client.read_to_end(), b"", "{request:?}");
    }
    assert_eq!(reached.load(SeqCst), 0);
}

#[test]
fn a_malformed_chunk_is_refused_and_does_not_reach_the_upstream_whole() {
    let upstream = Upstream::start(|_, mut client| {
        client.head();
        let body = client.read_to_end_or_reset();
        assert!(!body.ends_with(b"0\r\n\r\n"), "the body has no end: {body:?}");
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("connection")), (400, Some("close")));
}

#[test]
fn a_post_is_not_sent_into_a_connection_that_is_known_to_be_closed() {
    let (closed, ready) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        if client.waiting() {
            let (head, _) = client.request();
            client.send(ok(&head[..4]).as_bytes());
            client.half_close();
            let _ = closed.send(());
            while client.try_more() {}
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
        assert_eq!(client.answer().text(), "POST");
        ready.recv_timeout(support::PATIENCE).expect("upstream has closed");
    }
}

#[test]
fn a_post_that_was_answered_with_a_reset_is_not_repeated() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    let upstream = Upstream::start(move |_, mut client| {
        while client.waiting() {
            let (head, _) = client.request();
            if head.starts_with("POST /twice") {
                counted.fetch_add(1, SeqCst);
                return client.reset();
            }
            client.send(ok("x").as_bytes());
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.answer();
    client.send(b"POST /twice HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(client.answer().status, 503);
    assert_eq!(hits.load(SeqCst), 1);
}
