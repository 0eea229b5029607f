//! HTTP/1.1 through one hop, with scripted peers on both sides.

mod support;

use corelane_snapshot::HttpConnectionManager;
use corelane_telemetry::{ClusterStat, HttpStat};
use std::io::Write;
use support::{Setup, Upstream, ok};

#[test]
fn a_request_reaches_the_upstream_and_its_answer_comes_back() {
    let upstream = Upstream::answering(|head, _| {
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\nhost: example.com\r\n"), "{head}");
        assert!(head.contains("\r\nx-request-id: "), "{head}");
        assert!(head.contains("\r\nx-forwarded-proto: http\r\n"), "{head}");
        ok("hello")
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let answer = proxy.ask("GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.field("server"), Some("corelane"));
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")));
    assert!(answer.field("x-envoy-upstream-service-time").is_some());
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (seen, connections) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |number, mut client| {
        for _ in 0..3 {
            client.request();
            seen.send(number).expect("test waits");
            client.send(ok("x").as_bytes());
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(connections.iter().take(3).collect::<Vec<_>>(), [0, 0, 0]);
}

#[test]
fn an_answer_that_comes_with_the_end_of_its_requests_sending_costs_no_connection() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 200;
    let upstream = Upstream::answering(|_, body| ok(&format!("{} bytes", body.len())));
    let proxy = Setup::to(&[upstream.address]).start();
    std::thread::scope(|scope| {
        for mut client in (0..CLIENTS).map(|_| proxy.connect()) {
            scope.spawn(move || {
                for _ in 0..REQUESTS {
                    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
                    let answer = client.answer();
                    assert_eq!((answer.text(), answer.field("connection")), ("4 bytes", None));
                }
            });
        }
    });
    assert_eq!(proxy.http_count(HttpStat::DownstreamRqResponseBeforeRqComplete), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::answering(|head, _| ok(head.split(' ').nth(1).expect("path")));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nPOST /3 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /4 HTTP/1.1\r\nhost: a\r\n\r\n");
    let answers: Vec<String> = (0..4).map(|_| client.answer().text().to_owned()).collect();
    assert_eq!(answers, ["/1", "/2", "/3", "/4"]);
}

#[test]
fn bodies_stream_both_ways_in_either_framing() {
    let upstream = Upstream::answering(|head, body| {
        let body = String::from_utf8_lossy(body);
        if head.contains("transfer-encoding: chunked") {
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
        } else {
            ok(&body)
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let large = "0123456789".repeat(100_000);
    let mut client = proxy.connect();
    client.send(
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{large}", large.len()).as_bytes(),
    );
    assert_eq!(client.answer().text(), large);
    let mut chunked = String::from("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for piece in large.as_bytes().chunks(777) {
        chunked += &format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).expect("ascii"));
    }
    client.send((chunked + "0\r\n\r\n").as_bytes());
    let answer = client.answer();
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.text(), large);
}

#[test]
fn a_trickling_client_and_a_trickling_upstream_are_understood() {
    let upstream = Upstream::start(|_, mut client| {
        client.request();
        for byte in ok("trickle").bytes() {
            client.stream.write_all(&[byte]).expect("send");
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for byte in b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabcde" {
        client.send(&[*byte]);
    }
    assert_eq!(client.answer().text(), "trickle");
}

#[test]
fn the_answer_to_head_has_no_body_and_the_connection_goes_on() {
    let upstream = Upstream::answering(|head, _| {
        if head.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n".to_owned()
        } else {
            ok("next")
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = client.head();
    assert!(head.contains("content-length: 77\r\n"), "{head}");
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "next");
}

#[test]
fn a_client_that_expects_100_is_told_to_go_on() {
    let upstream = Upstream::answering(|head, body| {
        assert!(!head.contains("\r\nexpect:"), "{head}");
        ok(&String::from_utf8_lossy(body))
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"body");
    assert_eq!(client.answer().text(), "body");
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let upstream = Upstream::answering(|_, _| ok("late"));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.half_close();
    assert_eq!(client.answer().text(), "late");
}

#[test]
fn an_early_answer_is_passed_on_while_the_request_is_still_coming() {
    let upstream = Upstream::start(|_, mut client| {
        client.head();
        client.send(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig");
        client.read_to_end();
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nstart");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "big"));
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn a_websocket_carries_bytes_both_ways() {
    const SWITCHES: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
    let (seen, bytes) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        let head = client.head();
        seen.send(head.len() + b"ping".len()).expect("test waits");
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        client.send(SWITCHES);
        assert_eq!(client.exactly(4), b"ping");
        client.send(b"pong");
        assert_eq!(client.read_to_end(), b"");
        client.send(b"bye");
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.exactly(5), b"hello");
    client.send(b"ping");
    assert_eq!(client.exactly(4), b"pong");
    client.half_close();
    assert_eq!(client.read_to_end(), b"bye");
    let count = |stat| proxy.cluster_count(|stats| stats.cluster, stat);
    proxy.until("it is over", || count(ClusterStat::UpstreamCxDestroy) == 1);
    assert_eq!(count(ClusterStat::UpstreamCxRxBytesTotal), (SWITCHES.len() + b"pongbye".len()) as u64);
    assert_eq!(count(ClusterStat::UpstreamCxTxBytesTotal), bytes.recv().expect("seen") as u64);
    assert_eq!(count(ClusterStat::UpstreamCxDestroyWithActiveRq), 0);
}

#[test]
fn an_upgrade_that_is_not_allowed_is_refused() {
    let upstream = Upstream::answering(|_, _| ok("never"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.upgrades.clear();
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(answer.status, 403);
}

#[test]
fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let upstream = Upstream::answering(|_, _| ok("never"));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn a_reused_connection_that_the_upstream_closed_is_replaced_without_the_client_noticing() {
    let upstream = Upstream::start(|_, mut client| {
        // one answer a connection, and no word that it ends
        client.request();
        client.send(ok("once").as_bytes());
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..50 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "once");
    }
}

#[test]
fn a_lost_race_is_no_attempt() {
    let upstream = Upstream::start(|number, mut client| {
        let (head, _) = client.request();
        assert!(head.contains("x-envoy-attempt-count: 1\r\n"), "{head}");
        client.send(ok("x").as_bytes());
        if number == 0 {
            // the second request arrives, and dies with the connection
            client.request();
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "x");
    }
    let count = |stat| proxy.cluster_count(|stats| stats.cluster, stat);
    assert_eq!(count(ClusterStat::UpstreamCxTotal), 2);
    assert_eq!((count(ClusterStat::UpstreamRqTotal), count(ClusterStat::UpstreamRqRetry)), (2, 0));
    proxy.until("none is active", || count(ClusterStat::UpstreamRqActive) == 0);
}

#[test]
fn a_request_that_lost_a_race_goes_on_a_fresh_connection_with_its_body() {
    const IDLE: usize = 4;
    let all_taken = std::sync::Barrier::new(IDLE);
    let upstream = Upstream::start(move |number, mut client| {
        if number < IDLE {
            client.request();
            all_taken.wait();
            client.send(ok("first").as_bytes());
            // the next request on it arrives, and dies with the connection
            client.request();
        } else {
            let (_, body) = client.request();
            client.send(ok(std::str::from_utf8(&body).expect("text")).as_bytes());
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut clients: Vec<_> = (0..IDLE).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "first"));
    clients[0].send(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(clients[0].answer().text(), "hello");
    let connections = proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamCxTotal);
    assert_eq!(connections, IDLE as u64 + 1);
}

#[test]
fn an_upstream_that_is_not_there_gives_503() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let proxy = Setup::to(&[closed]).start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("remote connection failure"), "{}", answer.text());
}

#[test]
fn an_upstream_that_breaks_off_its_answer_breaks_off_ours() {
    let upstream = Upstream::start(|_, mut client| {
        client.request();
        client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = client.head();
    assert!(head.contains("content-length: 100"), "{head}");
    assert_eq!(client.read_to_end(), b"only this");
}

#[test]
fn a_head_does_not_wait_for_its_body() {
    let (upload, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    // both sides speak first, and only then send what they announced
    let upstream = Upstream::start(move |_, mut client| {
        let head = client.head();
        client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n");
        held.lock().expect("lock").recv().expect("the client has the head");
        let body = if head.contains("chunked") { client.chunked() } else { client.exactly(5) };
        client.send(&body);
    });
    let proxy = Setup::to(&[upstream.address]).start();
    for (framing, body) in
        [("content-length: 5", "hello"), ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n").as_bytes());
        assert!(client.head().starts_with("HTTP/1.1 200 OK\r\n"));
        upload.send(()).expect("upstream waits");
        client.send(body.as_bytes());
        assert_eq!(client.exactly(5), b"hello");
    }
}

#[test]
fn an_upstream_may_be_the_one_that_answers_expect() {
    let upstream = Upstream::start(|number, mut client| {
        assert!(client.head().contains("expect: 100-continue\r\n"));
        if number == 0 {
            client
                .send(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
            return;
        }
        client.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        let body = client.exactly(5);
        client.send(ok(std::str::from_utf8(&body).expect("text")).as_bytes());
    });
    let manager = |manager: &mut HttpConnectionManager| manager.proxy_100_continue = true;
    let proxy = Setup { manager, ..Setup::to(&[upstream.address]) }.start();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let mut client = proxy.connect();
    client.send(head);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (417, "no"));
    let mut client = proxy.connect();
    client.send(head);
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn an_answer_to_the_head_alone_is_passed_on() {
    let upstream = Upstream::start(|_, mut client| {
        client.head();
        client.send(ok("no need").as_bytes());
        client.try_more();
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let answer = proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "no need"));
}

#[test]
fn a_head_and_what_came_with_it_go_in_one_piece() {
    let (seen, first) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        let mut piece = [0; 4096];
        let n = std::io::Read::read(&mut client.stream, &mut piece).expect("read");
        seen.send(piece[..n].ends_with(b"\r\n\r\nbody")).expect("test waits");
        client.send(ok("x").as_bytes());
    });
    let proxy = Setup::to(&[upstream.address]).start();
    proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    assert!(first.recv_timeout(support::PATIENCE).expect("seen"));
}

#[test]
fn interim_answers_of_both_hops_do_not_mix() {
    let upstream = Upstream::start(|_, mut client| {
        while client.waiting() {
            client.head();
            client.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
            let body = client.exactly(4);
            client.send(ok(std::str::from_utf8(&body).expect("text")).as_bytes());
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    for _ in 0..50 {
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
        // ours is whole before the upstream hears of the request
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        let hints = client.head();
        assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{hints}");
        client.send(b"body");
        assert_eq!(client.answer().text(), "body");
    }
}

#[test]
fn a_client_that_does_not_wait_for_100_does_not_get_it() {
    let upstream = Upstream::answering(|_, body| ok(&String::from_utf8_lossy(body)));
    let proxy = Setup::to(&[upstream.address]).start();
    let answer =
        proxy.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\nbody");
    assert_eq!((answer.status, answer.text()), (200, "body"));
}

#[test]
fn bytes_on_the_wire_are_counted_both_ways() {
    let upstream = Upstream::answering(|_, body| ok(&format!("{} bytes", body.len())));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    let asked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let (head, body) = asked.split_at(20);
    client.send(head);
    client.send(body);
    assert_eq!(client.answer().text(), "4 bytes");
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let last = client.read_to_end();
    assert!(last.ends_with(b"\r\n\r\n0 bytes"), "{}", String::from_utf8_lossy(&last));
    drop(client);
    proxy.until("it is over", || proxy.http_count(HttpStat::DownstreamCxDestroy) == 1);
    let received = asked.len() as u64 + 46;
    assert_eq!(proxy.http_count(HttpStat::DownstreamCxRxBytesTotal), received);
    let sent = proxy.http_count(HttpStat::DownstreamCxTxBytesTotal);
    // the answer to the first has no connection: close
    assert_eq!(sent, 2 * last.len() as u64 - "connection: close\r\n".len() as u64);
    assert_eq!(proxy.http_count(HttpStat::DownstreamCxSslTotal), 0);
}
