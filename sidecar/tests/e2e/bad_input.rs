//! What a hostile or broken peer sends: the right status, a closed connection where the framing is in doubt, and no
//! effect on anybody else.

use crate::{
    hop::{Hop, Running},
    support::{Answer, App, Client, Request, wait_for},
};

fn hop(app: &App) -> Running {
    let manager = "request_headers_timeout: 0.3s\nmax_request_headers_kb: 16\nstream_idle_timeout: 5s";
    Hop { endpoints: &[app.port()], manager, ..Hop::default() }.start()
}

fn healthy(hop: &Running) {
    let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::get("/"));
    assert_eq!((answer.status, answer.text()), (200, "fine"));
}

/// Sends, and expects that status and then the end of the connection.
fn refused(hop: &Running, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.send(bytes);
    let answer = client.try_read("POST").unwrap_or_else(|error| panic!("{shown:?}: {error}"));
    assert_eq!(answer.map(|answer| answer.status), Some(status), "{shown:?}");
    assert!(client.read_to_end().unwrap_or_default().is_empty(), "{shown:?}: nothing after the refusal");
}

#[test]
fn ambiguous_framing_is_refused_and_nothing_smuggled() {
    let app = App::start(|request| {
        assert_eq!(request.path, "/", "a smuggled request arrived");
        Answer::ok("fine")
    });
    let hop = hop(&app);
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding: chunked\r\n folded: yes\r\n",
        "transfer-encoding: gzip, chunked, identity\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "x: a\0b\r\n",
        "x y: 1\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n0\r\n\r\n{smuggled}");
        let mut client = Client::connect(hop.proxy.listener("hop"));
        client.send(bytes.as_bytes());
        let answer = client.try_read("POST").unwrap_or_else(|error| panic!("{head:?}: {error}"));
        let status = answer.map(|answer| answer.status);
        assert!(matches!(status, Some(400 | 501)), "{head:?}: {status:?}");
        assert!(client.read_to_end().unwrap_or_default().is_empty(), "{head:?}: nothing after the refusal");
    }
    assert_eq!(app.requests(), 0);
    healthy(&hop);
}

#[test]
fn what_is_not_http_gets_400() {
    let app = App::start(|_| Answer::ok("fine"));
    let hop = hop(&app);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello"[..],
        b"GET\r\n\r\n",
        b"GET / HTTX/1.1\r\nhost: a\r\n\r\n",
        b"\xff\xfe\xfd\xfc\r\n\r\n",
        b"GET / HTTP/1.1 extra\r\nhost: a\r\n\r\n",
    ] {
        refused(&hop, bytes, 400);
    }
    // no host, and no two of them (RFC 9112 section 3.2)
    refused(&hop, b"GET / HTTP/1.1\r\n\r\n", 400);
    healthy(&hop);
    let errors = hop.proxy.stat("http.hop.downstream_cx_protocol_error");
    assert!((5..=6).contains(&errors), "{errors}; a missing host is well-formed HTTP/1.1 to some");
}

#[test]
fn broken_chunks_end_the_connection() {
    let app = App::start(|_| Answer::ok("fine"));
    let hop = hop(&app);
    for chunk in ["zz\r\n", "ffffffffffffffffff\r\n", "5\r\nhelloworld\r\n", "-1\r\n"] {
        let mut client = Client::connect(hop.proxy.listener("hop"));
        client.send(
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}").as_bytes(),
        );
        let answer = client.try_read("POST").ok().flatten();
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{chunk:?}: {answer:?}");
    }
    assert_eq!(app.requests(), 0, "no request with a broken body is whole");
    healthy(&hop);
}

#[test]
fn a_head_beyond_the_limits_gets_431() {
    let app = App::start(|_| Answer::ok("fine"));
    let hop = hop(&app);
    refused(&hop, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(17_000)).as_bytes(), 431);
    refused(&hop, format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(101)).as_bytes(), 431);
    healthy(&hop);
}

#[test]
fn a_head_that_trickles_gets_408() {
    let app = App::start(|_| Answer::ok("fine"));
    let hop = hop(&app);
    refused(&hop, b"GET / HTTP/1.1\r\nhost: ", 408);
    healthy(&hop);
}

#[test]
fn an_upstream_that_talks_rubbish_is_a_502_for_its_caller_only() {
    let app = App::start(|request| match request.path.as_str() {
        "/rubbish" => Answer::BytesThenClose(b"SSH-2.0-OpenSSH\r\n".to_vec()),
        "/both" => Answer::BytesThenClose(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        _ => Answer::ok("fine"),
    });
    let hop = hop(&app);
    for path in ["/rubbish", "/both"] {
        let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::get(path));
        assert_eq!(answer.status, 502, "{path}");
    }
    hop.proxy.wait_stat("cluster.app.upstream_cx_protocol_error", 2);
    healthy(&hop);
}

#[test]
fn an_answer_that_breaks_off_is_never_passed_as_whole() {
    let app = App::start(|request| match request.path.as_str() {
        "/length" => Answer::BytesThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()),
        "/chunked" => Answer::BytesThenReset(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec(),
        ),
        _ => Answer::ok("fine"),
    });
    let hop = hop(&app);
    for path in ["/length", "/chunked"] {
        let answer = Client::connect(hop.proxy.listener("hop")).try_call(&Request::get(path));
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 503), "{path}: {answer:?}");
    }
    healthy(&hop);
}

#[test]
fn a_client_that_does_not_read_holds_only_itself_back() {
    use std::{
        io::Write,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
    };
    const WHOLE: usize = 256 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let app = App::start_early(move |request| {
        if request.path != "/large" {
            return Answer::ok("fine");
        }
        let counted = counted.clone();
        Answer::Takeover(Box::new(move |mut stream| {
            let block = vec![b'x'; 1 << 16];
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {WHOLE}\r\n\r\n");
            let mut next = stream.write_all(head.as_bytes()).map(|()| 0);
            while let Ok(count) = next
                && counted.fetch_add(count, SeqCst) + count < WHOLE
            {
                next = stream.write(&block);
            }
        }))
    });
    let hop = hop(&app);
    let mut silent = Client::connect(hop.proxy.listener("hop"));
    silent.send(&Request::get("/large").bytes());
    wait_for("the answer to begin", || match written.load(SeqCst) {
        0 => Err("nothing written"),
        _ => Ok(()),
    });
    for _ in 0..50 {
        healthy(&hop);
    }
    let between = written.load(SeqCst);
    assert!(between < WHOLE / 2, "{between} bytes are somewhere in between");
    drop(silent);
    hop.proxy.wait_stat("cluster.app.upstream_rq_active", 0);
}

#[test]
fn connections_that_say_nothing_are_no_burden() {
    let app = App::start(|_| Answer::ok("fine"));
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    let silent: Vec<Client> = (0..200).map(|_| Client::connect(address)).collect();
    healthy(&hop);
    wait_for("200 connections", || match hop.proxy.listeners_stat("downstream_cx_active") {
        200 => Ok(()),
        count => Err(count),
    });
    drop(silent);
    wait_for("0 connections", || match hop.proxy.listeners_stat("downstream_cx_active") {
        0 => Ok(()),
        count => Err(count),
    });
}
