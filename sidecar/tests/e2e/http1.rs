//! One HTTP/1.1 hop: methods, framings, interim answers, connections kept and not.

use crate::{
    hop::{Hop, Running},
    support::{Answer, App, Client, Received, Request},
};

fn echo(request: &Received) -> Answer {
    let seen = format!("{} {} {}\n", request.method, request.path, request.body.len()).into_bytes();
    Answer::ok([seen, request.body.clone()].concat())
}

fn hop(app: &App) -> (Running, Client) {
    let running = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let client = Client::connect(running.proxy.listener("hop"));
    (running, client)
}

#[test]
fn methods_and_bodies_pass_on_one_connection() {
    let app = App::start(echo);
    let (hop, mut client) = hop(&app);
    assert_eq!(client.call(&Request::get("/a?b=c")).text(), "GET /a?b=c 0\n");
    assert_eq!(client.call(&Request::post("/small", "hello")).text(), "POST /small 5\nhello");
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = client.call(&Request::post("/large", large.clone()));
    assert_eq!(answer.status, 200);
    let start = b"POST /large 3000000\n".len();
    assert!(answer.body[start..] == large[..], "3 MB come back as they were sent");
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = client.call(&Request { body: Some(b"x".to_vec()), ..Request::new(method, "/m") });
        assert_eq!(answer.text(), format!("{method} /m 1\nx"));
    }
    hop.proxy.wait_stat("http.hop.downstream_cx_total", 1);
    hop.proxy.wait_stat("http.hop.downstream_rq_total", 7);
    hop.proxy.wait_stat("cluster.app.upstream_rq_total", 7);
}

#[test]
fn an_upstream_connection_is_kept_and_used_again() {
    let app = App::start(echo);
    let (_hop, mut client) = hop(&app);
    for _ in 0..10 {
        assert_eq!(client.call(&Request::get("/")).status, 200);
    }
    assert_eq!((app.requests(), app.connections()), (10, 1));
}

#[test]
fn head_has_no_body_and_keeps_its_length() {
    let app = App::start(|_| Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec()));
    let (_hop, mut client) = hop(&app);
    for _ in 0..3 {
        let answer = client.call(&Request::new("HEAD", "/"));
        assert_eq!((answer.status, answer.get("content-length")), (200, Some("1000")));
    }
}

#[test]
fn answers_without_a_body_end_at_their_head() {
    let app = App::start(|request| match request.path.as_str() {
        "/204" => Answer::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/304" => {
            Answer::Bytes(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n".to_vec())
        }
        _ => Answer::ok("body"),
    });
    let (_hop, mut client) = hop(&app);
    assert_eq!(client.call(&Request::get("/204")).status, 204);
    let unchanged = client.call(&Request::get("/304"));
    assert_eq!((unchanged.status, unchanged.get("etag")), (304, Some("\"a\"")));
    assert_eq!(client.call(&Request::get("/next")).text(), "body");
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let app = App::start(|request| {
        assert_eq!(request.body, b"hello world");
        Answer::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nback\r\n6;ext=1\r\n again\r\n0\r\n\r\n".to_vec())
    });
    let (_hop, mut client) = hop(&app);
    for _ in 0..2 {
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n");
        client.send(b"5\r\nworld\r\n0\r\n\r\n");
        assert_eq!(client.read("POST").text(), "back again");
    }
}

#[test]
fn trailers_pass_where_they_are_enabled() {
    let app = App::start(|request| {
        assert_eq!(request.trailers, [("x-sum".to_owned(), "1".to_owned())]);
        Answer::Bytes(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-check: 2\r\n\r\n"
                .to_vec(),
        )
    });
    let hop = Hop {
        endpoints: &[app.port()],
        manager: "http_protocol_options: { enable_trailers: true }",
        cluster: "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    \
                  \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n    \
                  explicit_http_config: { http_protocol_options: { enable_trailers: true } }\n",
        ..Hop::default()
    }
    .start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.send(
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n",
    );
    let answer = client.read("POST");
    assert_eq!((answer.text(), &answer.trailers[..]), ("ok", &[("x-check".to_owned(), "2".to_owned())][..]));
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_it_sends() {
    let app = App::start(echo);
    let (_hop, mut client) = hop(&app);
    client.send(b"POST /e HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(client.read("POST").status, 100);
    client.send(b"body");
    assert_eq!(client.read("POST").text(), "POST /e 4\nbody");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let app = App::start(echo);
    let (_hop, mut client) = hop(&app);
    let requests: Vec<Request> = (0..20).map(|n| Request::post(&format!("/{n}"), vec![b'x'; n])).collect();
    client.send(&requests.iter().flat_map(Request::bytes).collect::<Vec<_>>());
    for n in 0..20 {
        assert!(client.read("POST").text().starts_with(&format!("POST /{n} {n}\n")));
    }
}

#[test]
fn an_answer_that_ends_with_the_connection_is_passed_whole() {
    let app = App::start(|_| Answer::BytesThenClose(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()));
    let (_hop, mut client) = hop(&app);
    assert_eq!(client.call(&Request::get("/")).text(), "until the end");
    assert_eq!(
        client.call(&Request::get("/")).text(),
        "until the end",
        "the client's connection was chunked and stays"
    );
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let app = App::start_early(|_| {
        Answer::BytesThenClose(
            b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge".to_vec(),
        )
    });
    let (_hop, mut client) = hop(&app);
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nonly the start");
    let answer = client.read("POST");
    assert_eq!((answer.status, answer.text()), (413, "large"));
}

#[test]
fn the_client_that_asks_for_it_is_closed_after_its_answer() {
    let app = App::start(echo);
    let (_hop, mut client) = hop(&app);
    let answer = client.call(&Request::get("/").field("connection", "close"));
    assert_eq!((answer.status, answer.get("connection")), (200, Some("close")));
    assert_eq!(client.read_to_end().expect("a clean end"), b"");
}

#[test]
fn http_1_0_is_refused_or_served_as_configured() {
    let app = App::start(echo);
    let hop = Hop {
        endpoints: &[app.port()],
        manager: "http_protocol_options: { accept_http_10: true, default_host_for_http_10: payments }",
        ..Hop::default()
    }
    .start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.send(b"GET /old HTTP/1.0\r\n\r\n");
    let answer = client.read("GET");
    assert_eq!((answer.status, answer.text()), (200, "GET /old 0\n"));
    assert_eq!(client.read_to_end().expect("a clean end"), b"");
    let strict = self::hop(&app).0;
    let mut client = Client::connect(strict.proxy.listener("hop"));
    client.send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(client.read("GET").status, 426);
}

#[test]
fn forwarding_fields_are_envoys() {
    let app = App::start(|request| {
        let get = |name: &str| request.head.get(name).unwrap_or("-").to_owned();
        let id = get("x-request-id");
        assert_eq!((id.len(), id.matches('-').count()), (36, 4), "a UUID: {id}");
        assert_eq!(request.head.get("connection"), None, "hop by hop");
        Answer::ok([get("x-forwarded-proto"), get("x-forwarded-for"), get("host")].join(" "))
    });
    let hop = Hop { endpoints: &[app.port()], manager: "use_remote_address: true", ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    let request = Request::get("/").field("connection", "x-private").field("x-private", "1");
    let answer = client.call(&request.field("x-forwarded-for", "203.0.113.1"));
    let text = answer.text();
    assert!(text.starts_with("http 203.0.113.1,") && text.ends_with(" payments"), "{text}");
    assert_eq!(answer.get("server"), Some("envoy"));
    assert!(answer.get("x-envoy-upstream-service-time").is_some_and(|ms| ms.parse::<u32>().is_ok()));
}
