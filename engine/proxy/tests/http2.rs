//! HTTP/2 on either side and on both, against peers built on the h2 crate over tokio.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use bytes::Bytes;
use corelane_snapshot::{
    AccessLog, AccessLogSink, BackOff, ClusterConfig, LogFormat, RetryOn, RetryPolicy, TlsParams,
    TransportSocket, UpstreamProtocol, UpstreamTls, template::Template,
};
use h2::Reason;
use h2_peers::{
    H2Client, H2Upstream, answer_with, get, post, read_all, run, send_all, settings, trailers, whole,
};
use http::{Request, Response};
use std::{
    collections::HashSet,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};
use support::{Client, Drained, PATIENCE, Proxy, Setup, TRUSTING_CLIENT, Upstream, ok};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_local,
};
use tokio_rustls::{TlsAcceptor, rustls};

fn h2_cluster(config: &mut ClusterConfig) {
    config.protocol = UpstreamProtocol::Http2;
}

/// To an HTTP/2 upstream.
fn proxy_to(upstream: &H2Upstream) -> Proxy {
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = h2_cluster;
    setup.start()
}

fn echo() -> H2Upstream {
    H2Upstream::answering(settings(), |_, mut request, respond| async move {
        let body = read_all(request.body_mut()).await.expect("body");
        answer_with(respond, body).await;
    })
}

fn paths() -> H2Upstream {
    H2Upstream::answering(settings(), |_, request, respond| async move {
        answer_with(respond, request.uri().path()).await;
    })
}

fn retrying(on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        on,
        retries_max: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        back_off: BackOff { base: Duration::from_millis(1), max: Duration::from_millis(2) },
        avoid_previous_hosts: false,
        omit_canary_hosts: false,
        host_selection_attempts_max: 1,
        avoid_previous_priorities: None,
    }
}

fn large(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn a_request_by_prior_knowledge_becomes_http1_upstream() {
    let upstream = Upstream::answering(|head, _| {
        assert!(head.starts_with("GET /charge?x=1 HTTP/1.1\r\nhost: payments:80\r\n"), "{head}");
        assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
        assert!(head.contains("\r\nx-forwarded-proto: http\r\n"), "{head}");
        assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: keep-alive, x-secret\r\nx-secret: 1\r\n\r\npaid"
            .to_owned()
    });
    let proxy = Setup::to(&[upstream.address]).start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        for _ in 0..20 {
            let request = Request::builder()
                .uri("http://payments:80/charge?x=1")
                .header("cookie", "a=1")
                .header("cookie", "b=2");
            let (response, _) = client.send(request.body(()).expect("request"), true).await;
            let answer = whole(response.await.expect("response")).await;
            assert_eq!((answer.status, answer.text()), (200, "paid"));
            assert_eq!(answer.field("content-length"), Some("4"));
            assert_eq!(answer.field("server"), Some("corelane"));
            assert_eq!((answer.field("connection"), answer.field("x-secret")), (None, None));
        }
    });
}

#[test]
fn the_preface_is_known_however_it_is_cut_and_http1_stays_http1() {
    let upstream = Upstream::answering(|head, body| ok(&format!("{} {}", &head[..3], body.len())));
    let proxy = Setup::to(&[upstream.address]).start();
    // both begin like the preface
    for (begin, rest) in [
        ("P", "OST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"),
        ("PRI", "NT / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let mut client = proxy.connect();
        client.send(begin.as_bytes());
        client.send(rest.as_bytes());
        assert_eq!(client.answer().status, 200);
    }
    let mut raw = proxy.connect();
    for byte in PREFACE.iter().chain(&EMPTY_SETTINGS) {
        raw.send(&[*byte]);
    }
    assert_eq!(Frame::read(&mut raw).kind, SETTINGS);
}

#[test]
fn large_bodies_pass_small_windows_both_ways() {
    let upstream = Upstream::answering(|_, body| {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        answer.push_str(std::str::from_utf8(body).expect("text"));
        answer
    });
    let h2 = echo();
    for to_h2 in [false, true] {
        let mut setup = Setup::to(&[if to_h2 { h2.address } else { upstream.address }]);
        if to_h2 {
            setup.cluster = |config| {
                config.protocol = UpstreamProtocol::Http2;
                config.http2.stream_window = 1_000;
                config.http2.connection_window = 65_535;
            };
        }
        setup.manager = |manager| {
            manager.http2_stream_window = 1_000;
            manager.http2_connection_window = 65_535;
        };
        let proxy = setup.start();
        let body: Vec<u8> = large(300_000).into_iter().map(|byte| b'a' + byte % 26).collect();
        run(async {
            let mut small = h2::client::Builder::new();
            small.initial_window_size(900).initial_connection_window_size(65_535);
            let client = H2Client::with(proxy.address, &small).await;
            // the SETTINGS are known to both sides before: h2's sender may stall when its window shrinks below zero
            assert_eq!(client.post(post("/echo"), Vec::new(), None).await.status, 200);
            let answer = client.post(post("/echo"), body.clone(), None).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body == body, "{} of {} bytes came back the same", answer.body.len(), body.len());
        });
    }
}

#[test]
fn a_hundred_streams_at_once_share_few_connections_and_do_not_mix() {
    let connections = Arc::new(Mutex::new(HashSet::new()));
    let seen = connections.clone();
    let upstream = H2Upstream::answering(settings(), move |number, mut request, respond| {
        seen.lock().expect("lock").insert(number);
        async move {
            let path = request.uri().path().to_owned();
            let body = read_all(request.body_mut()).await.expect("body");
            answer_with(respond, [path.as_bytes(), b" ", &body].concat()).await;
        }
    });
    let proxy = proxy_to(&upstream);
    run(async {
        let client = std::rc::Rc::new(H2Client::connect(proxy.address).await);
        let asked = (0..100usize).map(|number| {
            let client = client.clone();
            spawn_local(
                async move { client.post(post(&format!("/{number}")), large(number * 300), None).await },
            )
        });
        for (number, answer) in asked.collect::<Vec<_>>().into_iter().enumerate() {
            let answer = answer.await.expect("stream");
            let expected = [format!("/{number} ").as_bytes(), &large(number * 300)].concat();
            assert!(answer.body == expected, "stream {number}");
        }
    });
    assert_eq!(connections.lock().expect("lock").len(), 1);
}

#[test]
fn a_peer_that_takes_one_stream_at_a_time_gets_more_connections() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    let mut one = settings();
    one.max_concurrent_streams(1);
    let upstream = H2Upstream::answering(one, move |number, request, respond| {
        counted.fetch_max(number + 1, SeqCst);
        async move { answer_with(respond, request.uri().path()).await }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |config| {
        config.protocol = UpstreamProtocol::Http2;
        config.breakers.connections_max = 4;
        config.http2.streams_max = 1;
    };
    let proxy = setup.start();
    run(async {
        let client = std::rc::Rc::new(H2Client::connect(proxy.address).await);
        let asked = (0..60usize).map(|number| {
            let client = client.clone();
            spawn_local(async move { client.get(&format!("/{number}")).await })
        });
        for (number, answer) in asked.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(answer.await.expect("stream").text(), format!("/{number}"));
        }
    });
    let connections = open.load(SeqCst);
    assert!((2..=4).contains(&connections), "{connections} connections at once");
}

#[test]
fn http1_downstream_meets_http2_upstream_with_trailers_both_ways() {
    let upstream = H2Upstream::answering(settings(), |_, mut request, mut respond| async move {
        assert_eq!(request.uri().to_string(), "http://a/sum?q");
        assert_eq!((request.headers().get("host"), request.headers().get("transfer-encoding")), (None, None));
        let body = read_all(request.body_mut()).await.expect("body");
        let sent = request.body_mut().trailers().await.expect("trailers").expect("some");
        assert_eq!(sent.get("x-sum").expect("x-sum"), "9");
        let stream = respond.send_response(Response::new(()), false).expect("head");
        send_all(stream, body, Some(trailers(&[("x-checked", "yes")]))).await.expect("sent");
    });
    let proxy = proxy_to(&upstream);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(b"POST /sum?q HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 9\r\n\r\n");
        let head = client.head();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked\r\n"),
            "{head}"
        );
        let mut body = String::new();
        while !body.ends_with("\r\n\r\n") {
            body.push(char::from(client.exactly(1)[0]));
        }
        assert!(body.ends_with("0\r\nx-checked: yes\r\n\r\n"), "{body}");
        let sent: String = body.lines().filter(|line| line.chars().all(|c| c.is_ascii_lowercase())).collect();
        assert_eq!(sent, "abcde");
    }
}

#[test]
fn answers_without_content_have_none_on_either_protocol() {
    let h2 = H2Upstream::answering(settings(), |_, request, mut respond| async move {
        let status: u16 = request.uri().path()[1..].parse().expect("status");
        let answer = Response::builder()
            .status(status)
            .header("content-length", if status == 204 { "0" } else { "77" });
        respond.send_response(answer.body(()).expect("head"), true).expect("sent");
    });
    let h1 = Upstream::answering(|head, _| {
        let status = head.split(' ').nth(1).expect("path")[1..].to_owned();
        let length = if status == "204" { "" } else { "content-length: 77\r\n" };
        format!("HTTP/1.1 {status} X\r\n{length}\r\n")
    });
    let mut to_h2 = Setup::to(&[h2.address]);
    to_h2.cluster = h2_cluster;
    for proxy in [to_h2.start(), Setup::to(&[h1.address]).start()] {
        run(async {
            let client = H2Client::connect(proxy.address).await;
            for (method, status, length) in
                [("HEAD", 200, Some("77")), ("GET", 204, None), ("GET", 304, Some("77"))]
            {
                let request = Request::builder()
                    .method(method)
                    .uri(format!("http://a/{status}"))
                    .body(())
                    .expect("request");
                let (response, _) = client.send(request, true).await;
                let answer = whole(response.await.expect("response")).await;
                assert_eq!((answer.status, answer.field("content-length")), (status, length), "{method}");
                assert!(answer.body.is_empty());
            }
        });
        let mut client = proxy.connect();
        client.send(b"HEAD /200 HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(client.head().contains("content-length: 77\r\n"));
        client.send(b"GET /204 HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(!client.head().contains("content-length"));
        client.send(b"GET /304 HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 304 "));
    }
}

/// A length-prefixed gRPC message (gRPC over HTTP/2, "Length-Prefixed-Message").
fn message(text: &str) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

#[test]
fn grpc_unary_and_streaming_calls_pass_with_their_status_which_is_logged() {
    let upstream = H2Upstream::answering(settings(), |_, mut request, mut respond| async move {
        assert_eq!(request.headers().get("te").expect("te"), "trailers");
        let head = Response::builder().header("content-type", "application/grpc");
        if request.uri().path() == "/pay.Pay/Refuse" {
            let head = head.header("grpc-status", "7").header("grpc-message", "no");
            respond.send_response(head.body(()).expect("head"), true).expect("sent");
            return;
        }
        let mut stream = respond.send_response(head.body(()).expect("head"), false).expect("head");
        // answers each message before the next comes: neither side waits for the other to end
        while let Some(data) = request.body_mut().data().await {
            let data = data.expect("message");
            request.body_mut().flow_control().release_capacity(data.len()).expect("released");
            stream.send_data(data, false).expect("echo");
        }
        stream.send_trailers(trailers(&[("grpc-status", "5"), ("grpc-message", "gone")])).expect("trailers");
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = h2_cluster;
    setup.manager = |manager| {
        let format = Template::parse(
            "%REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %GRPC_STATUS_NUMBER% %UPSTREAM_PROTOCOL%\n",
        );
        manager.access_log.push(Arc::new(AccessLog {
            sink: AccessLogSink::Stdout,
            sink_id: 0,
            format: LogFormat::Text(format.expect("format")),
            filter: None,
        }));
    };
    let proxy = setup.start();
    let call = |path: &str| {
        let request = Request::builder()
            .method("POST")
            .uri(format!("http://pay/pay.Pay/{path}"))
            .header("te", "trailers");
        request.header("content-type", "application/grpc").body(()).expect("request")
    };
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let unary = client.post(call("One"), message("one"), None).await;
        assert_eq!((unary.status, &unary.body), (200, &message("one")));
        assert_eq!(unary.trailers.get("grpc-status").expect("status"), "5");
        assert_eq!(unary.trailers.get("grpc-message").expect("message"), "gone");

        let (response, mut send) = client.send(call("Chat"), false).await;
        let mut received = None;
        let mut response = Some(response);
        for text in ["a", "bc", "def"] {
            send.send_data(message(text).into(), false).expect("sent");
            if let Some(response) = response.take() {
                received = Some(response.await.expect("response").into_body());
            }
            let body = received.as_mut().expect("body");
            let mut echoed = Vec::new();
            while echoed.len() < message(text).len() {
                let data = body.data().await.expect("more").expect("data");
                body.flow_control().release_capacity(data.len()).expect("released");
                echoed.extend_from_slice(&data);
            }
            assert_eq!(echoed, message(text));
        }
        send.send_data(Bytes::new(), true).expect("end");
        let mut body = received.expect("body");
        assert!(body.data().await.is_none());
        let status = body.trailers().await.expect("trailers").expect("some");
        assert_eq!(status.get("grpc-status").expect("status"), "5");

        let refused = client.post(call("Refuse"), message("x"), None).await;
        assert_eq!(
            (refused.status, refused.field("grpc-status"), refused.field("content-length")),
            (200, Some("7"), None)
        );
    });
    let wanted = "/pay.Pay/One HTTP/2 200 5 HTTP/2\n/pay.Pay/Chat HTTP/2 200 5 HTTP/2\n/pay.Pay/Refuse HTTP/2 200 7 HTTP/2\n";
    let logged = until_logged(&proxy, wanted.len());
    assert_eq!(logged, wanted);
}

fn until_logged(proxy: &Proxy, bytes: usize) -> String {
    let mut logged = String::new();
    let began = std::time::Instant::now();
    while logged.len() < bytes {
        assert!(began.elapsed() < PATIENCE, "logged so far: {logged}");
        proxy.log.drain(|_, line| logged.push_str(std::str::from_utf8(line).expect("text")));
        std::thread::yield_now();
    }
    logged
}

#[test]
fn a_client_that_resets_its_stream_cancels_the_try_upstream() {
    let (told, cancelled) = mpsc::channel();
    let h2 = H2Upstream::answering(settings(), move |_, _request, mut respond| {
        let told = told.clone();
        async move {
            told.send(None).expect("test waits");
            let reason = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            told.send(Some(reason.expect("reset"))).expect("test waits");
        }
    });
    let proxy = proxy_to(&h2);
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let (_response, mut stream) = client.send(get("/slow"), true).await;
        let arrived = std::rc::Rc::new(cancelled);
        assert_eq!(hear(&arrived).await, None);
        stream.send_reset(Reason::CANCEL);
        assert_eq!(hear(&arrived).await, Some(Reason::CANCEL));
    });
    let (told, gone) = mpsc::channel();
    let h1 = Upstream::start(move |_, mut client| {
        client.request();
        told.send(false).expect("test waits");
        while client.try_more() {}
        told.send(true).expect("test waits");
    });
    let proxy = Setup::to(&[h1.address]).start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let (_response, mut stream) = client.send(get("/slow"), true).await;
        let gone = std::rc::Rc::new(gone);
        assert!(!hear(&gone).await);
        stream.send_reset(Reason::CANCEL);
        assert!(hear(&gone).await);
    });
}

/// Waits for word from a thread while the connections of this one go on.
async fn hear<T>(from: &mpsc::Receiver<T>) -> T {
    loop {
        match from.try_recv() {
            Ok(word) => return word,
            Err(mpsc::TryRecvError::Empty) => tokio::task::yield_now().await,
            Err(mpsc::TryRecvError::Disconnected) => panic!("the upstream ended"),
        }
    }
}

#[test]
fn a_refused_stream_is_tried_again_where_the_policy_says_so() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let upstream = H2Upstream::answering(settings(), move |_, mut request, mut respond| {
        let first = counted.fetch_add(1, SeqCst) == 0;
        async move {
            if first {
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
            let body = read_all(request.body_mut()).await.expect("body");
            answer_with(respond, body).await;
        }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = h2_cluster;
    setup.retry = Some(retrying(RetryOn::REFUSED_STREAM));
    let proxy = setup.start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let answer = client.post(post("/"), b"again".to_vec(), None).await;
        assert_eq!((answer.status, answer.text()), (200, "again"));
    });
    assert_eq!(tries.load(SeqCst), 2);
}

#[test]
fn an_upstream_that_resets_is_answered_for_before_its_head_and_reset_after_it() {
    let (go, gone) = mpsc::channel();
    let gone = Arc::new(Mutex::new(gone));
    let upstream = H2Upstream::answering(settings(), move |_, request, mut respond| {
        let gone = gone.clone();
        async move {
            if request.uri().path() == "/before" {
                return respond.send_reset(Reason::INTERNAL_ERROR);
            }
            let mut stream = respond.send_response(Response::new(()), false).expect("head");
            stream.send_data(Bytes::from_static(b"part"), false).expect("data");
            while gone.lock().expect("lock").try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
    });
    let proxy = proxy_to(&upstream);
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let answer = client.get("/before").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().ends_with("reset reason: remote reset"), "{}", answer.text());
        let (response, _) = client.send(get("/after"), true).await;
        let mut body = response.await.expect("response").into_body();
        assert_eq!(body.data().await.expect("some").expect("data"), "part");
        go.send(()).expect("upstream waits");
        let broken = read_all(&mut body).await.expect_err("broken off");
        assert!(broken.is_reset(), "{broken}");
        assert_eq!(client.get("/before").await.status, 503, "the connection goes on");
    });
}

#[test]
fn a_reader_that_stops_stops_the_upstream_and_nobody_else() {
    const WHOLE: usize = 48 << 20;
    /// What kernels and windows may hold on the way.
    const HELD_MAX: usize = 24 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let upstream = Upstream::start(move |_, mut client| {
        let (head, _) = client.request();
        if head.starts_with("GET /small") {
            return client.send(ok("small").as_bytes());
        }
        client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {WHOLE}\r\n\r\n").as_bytes());
        let piece = [b'x'; 64 << 10];
        for _ in 0..WHOLE / piece.len() {
            client.stream.write_all(&piece).expect("the proxy reads on");
            counted.fetch_add(piece.len(), SeqCst);
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    run(async {
        let mut settings = h2::client::Builder::new();
        settings.initial_window_size(100_000).initial_connection_window_size(1 << 20);
        let client = H2Client::with(proxy.address, &settings).await;
        let (response, _) = client.send(get("/large"), true).await;
        let mut body = response.await.expect("response").into_body();
        // the stream's window is full before this answer comes, for both come over one connection
        other_requests(&client).await;
        let held = written.load(SeqCst);
        assert!(held < HELD_MAX, "{held} bytes were taken for a reader that had stopped");
        assert_eq!(read_all(&mut body).await.expect("body").len(), WHOLE);
    });
}

#[test]
fn a_writer_is_stopped_by_an_upstream_that_does_not_read() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::start(move |_, mut client| {
        if client.head().starts_with("GET /small") {
            return client.send(ok("small").as_bytes());
        }
        held.lock().expect("lock").recv().expect("released");
        client.exactly(32 << 20);
        client.send(ok("all").as_bytes());
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.http2_stream_window = 100_000;
    let proxy = setup.start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let request =
            Request::builder().method("POST").uri("http://a/").header("content-length", 32usize << 20);
        let (response, mut stream) = client.send(request.body(()).expect("request"), false).await;
        let mut sent = 0;
        let piece = Bytes::from(vec![7; 64 << 10]);
        // sends until nothing has moved for as long as other requests take
        while sent < 32 << 20 {
            stream.reserve_capacity(piece.len());
            let room = tokio::select! {
                biased;
                room = std::future::poll_fn(|context| stream.poll_capacity(context)) => room.expect("open").expect("room"),
                () = other_requests(&client) => break,
            };
            let room = room.min(piece.len());
            stream.send_data(piece.slice(..room), false).expect("sent");
            sent += room;
        }
        assert!(sent < 24 << 20, "{sent} bytes were taken for an upstream that does not read");
        release.send(()).expect("upstream waits");
        send_all(stream, vec![7; (32 << 20) - sent], None).await.expect("the rest");
        assert_eq!(whole(response.await.expect("response")).await.text(), "all");
    });
}

async fn other_requests(client: &H2Client) {
    for _ in 0..50 {
        assert_eq!(client.get("/small").await.text(), "small");
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn write(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn read(client: &mut Client) -> Frame {
        let head = client.exactly(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Frame { kind: head[3], stream, payload: client.exactly(length as usize) }
    }

    /// The next of this kind; others are skipped.
    fn next(client: &mut Client, kind: u8) -> Frame {
        loop {
            let frame = Frame::read(client);
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// RST_STREAM and GOAWAY: the error code.
    fn error(&self) -> Reason {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes")).into()
    }
}

/// GET http://a/ in HPACK, with one literal field.
fn head_block(field: Option<(&str, &str)>) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x41, 1, b'a'];
    if let Some((name, value)) = field {
        block.extend(
            [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat(),
        );
    }
    block
}

fn raw(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.send(PREFACE);
    client.send(&EMPTY_SETTINGS);
    client
}

#[test]
fn malformed_frames_end_their_connection_and_no_other() {
    let upstream = paths();
    let proxy = proxy_to(&upstream);
    run(async {
        let bystander = H2Client::connect(proxy.address).await;
        let broken: [(Vec<u8>, Reason); 4] = [
            (Frame::write(DATA, 0, 0, b"x"), Reason::PROTOCOL_ERROR),
            // (RFC 9113 section 4.3 says COMPRESSION_ERROR; h2 is less specific)
            (Frame::write(HEADERS, 5, 1, &[0xff; 20]), Reason::PROTOCOL_ERROR),
            (Frame::write(HEADERS, 5, 2, &head_block(None)), Reason::PROTOCOL_ERROR),
            (vec![0xff; 64], Reason::FRAME_SIZE_ERROR),
        ];
        for (bytes, reason) in broken {
            let mut client = raw(&proxy);
            client.send(&bytes);
            assert_eq!(Frame::next(&mut client, GOAWAY).error(), reason, "{bytes:?}");
            client.read_to_end();
            assert_eq!(bystander.get("/still").await.text(), "/still");
        }
    });
}

#[test]
fn connection_specific_fields_are_malformed_and_cost_only_their_stream() {
    let upstream = paths();
    let proxy = proxy_to(&upstream);
    let mut client = raw(&proxy);
    let fields =
        [("connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("te", "gzip")];
    for (number, field) in fields.into_iter().enumerate() {
        let stream = number as u32 * 2 + 1;
        client.send(&Frame::write(HEADERS, 5, stream, &head_block(Some(field))));
        let reset = Frame::next(&mut client, RST_STREAM);
        assert_eq!((reset.stream, reset.error()), (stream, Reason::PROTOCOL_ERROR), "{field:?}");
    }
    client.send(&Frame::write(HEADERS, 5, 9, &head_block(Some(("x-a", "1")))));
    assert_eq!(Frame::next(&mut client, HEADERS).stream, 9);
}

#[test]
fn streams_reset_as_fast_as_they_are_opened_end_the_connection() {
    let upstream = H2Upstream::answering(settings(), |_, _request, mut respond| async move {
        let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
    });
    let proxy = proxy_to(&upstream);
    let mut client = raw(&proxy);
    // CVE-2023-44487; the proxy may close while this is written
    for stream in (0..20_000u32).map(|number| number * 2 + 1) {
        let opened = Frame::write(HEADERS, 5, stream, &head_block(None));
        let reset = Frame::write(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        if client.stream.write_all(&[opened, reset].concat()).is_err() {
            break;
        }
    }
    assert_eq!(Frame::next(&mut client, GOAWAY).error(), Reason::ENHANCE_YOUR_CALM);
    while client.try_more() {}
    run(async {
        let other = H2Client::connect(proxy.address).await;
        let (_response, mut stream) = other.send(get("/"), true).await;
        stream.send_reset(Reason::CANCEL);
    });
}

#[test]
fn connect_is_refused() {
    let upstream = paths();
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = h2_cluster;
    setup.upgrades = vec!["connect", "websocket"];
    let proxy = setup.start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let request = Request::builder().method("CONNECT").uri("payments:80").body(()).expect("request");
        let (response, _stream) = client.send(request, false).await;
        assert_eq!(response.await.expect("response").status(), 501);
        assert_eq!(client.get("/on").await.text(), "/on");
    });
    // an upgrade has no way on over HTTP/2 either
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_eq!(answer.status, 502);
}

#[test]
fn the_protocol_follows_downstream_where_the_cluster_says_so() {
    let versions = Arc::new(Mutex::new(Vec::new()));
    let seen = versions.clone();
    // an upstream that understands both, by the first byte
    let upstream = H2Upstream::scripted(move |_, stream| {
        let seen = seen.clone();
        async move {
            let mut first = [0; 3];
            stream.peek(&mut first).await.expect("peek");
            if &first == b"PRI" {
                seen.lock().expect("lock").push("h2");
                let mut connection = settings().handshake(stream).await.expect("handshake");
                while let Some(Ok((_, respond))) = connection.accept().await {
                    spawn_local(answer_with(respond, "h2"));
                }
                return;
            }
            seen.lock().expect("lock").push("h1");
            let stream = stream.into_std().expect("socket");
            stream.set_nonblocking(false).expect("blocking");
            let mut client = Client::of(stream);
            client.request();
            client.send(ok("h1").as_bytes());
        }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |config| config.protocol = UpstreamProtocol::UseDownstream;
    let proxy = setup.start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        assert_eq!(client.get("/").await.text(), "h2");
    });
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "h1");
    assert_eq!(*versions.lock().expect("lock"), ["h2", "h1"]);
}

#[test]
fn a_drain_says_goodbye_and_lets_streams_end() {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let arrived = Arc::new(AtomicBool::new(false));
    let came = arrived.clone();
    let upstream = Upstream::answering(move |_, _| {
        came.store(true, SeqCst);
        held.lock().expect("lock").recv().expect("released");
        ok("to the end")
    });
    let proxy = Setup::to(&[upstream.address]).start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let idle = H2Client::connect(proxy.address).await;
        let (response, _) = client.send(get("/"), true).await;
        while !arrived.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        proxy.shared.drain(Drained::All);
        idle.connection.await.expect("task").expect("closed in good order");
        release.send(()).expect("upstream waits");
        assert_eq!(whole(response.await.expect("response")).await.text(), "to the end");
        client.connection.await.expect("task").expect("closed in good order");
    });
}

#[test]
fn an_upstream_that_is_not_there_or_does_not_speak_http2_gives_503() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let wrong = Upstream::answering(|_, _| ok("not HTTP/2"));
    for (address, reason) in [(closed, "remote connection failure"), (wrong.address, "")] {
        let mut setup = Setup::to(&[address]);
        setup.cluster = h2_cluster;
        let proxy = setup.start();
        run(async {
            let client = H2Client::connect(proxy.address).await;
            let answer = client.get("/").await;
            assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
            assert!(answer.text().contains(reason), "{}", answer.text());
        });
    }
}

/// Answers with the protocol that it was asked by, which ALPN chose.
fn negotiating(offers: &'static [&'static [u8]]) -> (H2Upstream, Arc<AtomicUsize>) {
    let own = rcgen::generate_simple_self_signed(vec!["payments".to_owned()]).expect("certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![own.cert.der().clone()], key).expect("config");
    config.alpn_protocols = offers.iter().map(|offer| offer.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let upstream = H2Upstream::scripted(move |_, stream| {
        let (acceptor, counted) = (acceptor.clone(), counted.clone());
        async move {
            let mut stream = acceptor.accept(stream).await.expect("handshake");
            counted.fetch_add(1, SeqCst);
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let mut connection = settings().handshake(stream).await.expect("preface");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    assert_eq!(request.uri().scheme_str(), Some("http"), "the client's");
                    spawn_local(answer_with(respond, "h2"));
                }
                return;
            }
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    stream.write_all(ok("h1").as_bytes()).await.expect("sent");
                    stream.flush().await.expect("flushed");
                }
            }
        }
    });
    (upstream, connections)
}

#[test]
fn alpn_chooses_where_the_cluster_leaves_it_open() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (offers, spoken) in [(both, "h2"), (&both[1..], "h1"), (&[], "h1")] {
        let (upstream, connections) = negotiating(offers);
        let mut setup = Setup::to(&[upstream.address]);
        setup.cluster = |config| {
            config.protocol = UpstreamProtocol::Auto;
            config.transport.sockets = vec![TransportSocket::Tls(Arc::new(UpstreamTls {
                context: TRUSTING_CLIENT,
                sni: None,
                certificate: None,
                validation: None,
                alpn: Vec::new(),
                params: TlsParams::default(),
                session_keys_max: 1,
            }))];
        };
        let proxy = setup.start();
        let mut client = proxy.connect();
        for _ in 0..5 {
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(client.answer().text(), spoken);
        }
        assert_eq!(connections.load(SeqCst), 1, "what was negotiated is used, and used again");
        run(async {
            let client = std::rc::Rc::new(H2Client::connect(proxy.address).await);
            let asked = (0..10).map(|_| {
                let client = client.clone();
                spawn_local(async move { client.get("/").await })
            });
            for answer in asked.collect::<Vec<_>>() {
                assert_eq!(answer.await.expect("stream").text(), spoken);
            }
        });
    }
}
