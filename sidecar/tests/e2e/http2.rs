//! HTTP/2 by prior knowledge and by ALPN, with the h2 crate or Envoy as the other side.

use crate::{
    hop::Hop,
    support::{Answer, App, Client, Identities, Kind, Proxy, Request, WITHIN, fill, wait_for},
};
use h2::client::SendRequest;
use std::{fmt::Display, net::SocketAddr};

const STREAMS: usize = 100;

fn echo() -> App {
    App::start(|request| Answer::ok([request.path.as_bytes(), b"\n", &request.body].concat()))
}

/// Runs a client on a runtime of its own, bounded in time.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = async { tokio::time::timeout(WITHIN, client).await.expect("within the bound") };
    tokio::task::LocalSet::new().block_on(&runtime, client)
}

pub(crate) async fn connect(address: SocketAddr) -> SendRequest<bytes::Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("the listener takes connections");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 by prior knowledge");
    tokio::task::spawn_local(connection);
    sender
}

/// One exchange: the status, the body, and `grpc-status` of the trailers.
async fn call(sender: &SendRequest<bytes::Bytes>, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let sender = sender.clone().ready().await.expect("room for a stream");
    exchange(sender, path, body).await
}

/// The same on a connection that is known to have room for a stream.
pub(crate) async fn exchange(
    mut sender: SendRequest<bytes::Bytes>,
    path: &str,
    body: Vec<u8>,
) -> (u16, Vec<u8>) {
    let request = http::Request::post(format!("http://payments{path}")).body(()).expect("a request");
    let (answer, mut stream) = sender.send_request(request, false).expect("an open connection");
    let sending = async {
        let mut left = bytes::Bytes::from(body);
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx))
                .await
                .expect("an open stream")
                .expect("room");
            stream.send_data(left.split_to(room.min(left.len())), false).expect("an open stream");
        }
        stream.send_data(bytes::Bytes::new(), true).expect("an open stream");
    };
    let receiving = async {
        let (head, mut body) = answer.await.expect("an answer").into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a whole body");
            body.flow_control().release_capacity(piece.len()).expect("what was received");
            bytes.extend_from_slice(&piece);
        }
        (head.status.as_u16(), bytes)
    };
    tokio::join!(receiving, sending).0
}

#[test]
fn many_streams_share_one_connection() {
    let app = echo();
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    run(async {
        let sender = connect(address).await;
        let calls: Vec<_> = (0..STREAMS)
            .map(|n| {
                let sender = sender.clone();
                tokio::task::spawn_local(async move {
                    let (status, body) = call(&sender, &format!("/{n}"), vec![b'x'; n]).await;
                    assert_eq!(
                        (status, body),
                        (200, [format!("/{n}\n").as_bytes(), &vec![b'x'; n]].concat())
                    );
                })
            })
            .collect();
        for call in calls {
            call.await.expect("no assertion failed");
        }
    });
    assert_eq!(app.requests(), STREAMS as u64);
    hop.proxy.wait_stat("http.hop.downstream_cx_http2_total", 1);
    hop.proxy.wait_stat("http.hop.downstream_rq_2xx", STREAMS as u64);
}

#[test]
fn bodies_larger_than_every_window_pass_both_ways() {
    let app = echo();
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 241) as u8).collect();
    let (status, back) = run(async { call(&connect(address).await, "/large", body.clone()).await });
    assert_eq!(status, 200);
    assert!(back[b"/large\n".len()..] == body[..], "3 MB come back as they went");
}

#[test]
fn a_stream_that_is_reset_does_not_disturb_the_others() {
    let app = App::start_early(|request| match request.path.as_str() {
        "/hangs" => Answer::Takeover(Box::new(|mut stream| drop(crate::support::app::drain(&mut stream)))),
        path => Answer::BytesThenClose(
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{path}", path.len())
                .into_bytes(),
        ),
    });
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    run(async {
        let sender = connect(address).await;
        let request = http::Request::get("http://payments/hangs").body(()).expect("a request");
        let mut ready = sender.clone().ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request, true).expect("an open connection");
        while app.requests() == 0 {
            tokio::task::yield_now().await;
            assert_eq!(call(&sender, "/next", Vec::new()).await.0, 200);
        }
        stream.send_reset(h2::Reason::CANCEL);
        assert!(answer.await.is_err());
        assert_eq!(call(&sender, "/after", Vec::new()).await, (200, b"/after".to_vec()));
    });
    hop.proxy.wait_stat("http.hop.downstream_rq_active", 0);
    hop.proxy.wait_stat("cluster.app.upstream_rq_active", 0);
}

/// orders over HTTP/1.1 to its sidecar, HTTP/2 over mutual TLS between the sidecars, HTTP/1.1 to the app.
fn multiplexed(caller: Kind, callee: Kind) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identities::issue(folder.path());
    let app = echo();
    let place = folder.path().display();
    let values: [(&str, &dyn Display); 3] =
        [("NAME", &"payments"), ("FOLDER", &place), ("APP_PORT", &app.port())];
    let inbound = fill(include_str!("../../demo/payments.yaml"), &values)
        .replace("common_tls_context:", "common_tls_context:\n            alpn_protocols: [h2, http/1.1]");
    let payments = Proxy::start_kind(callee, folder.path(), "payments", &inbound);
    let port = payments.listener("inbound").port();
    let values: [(&str, &dyn Display); 3] = [("FOLDER", &place), ("B1_PORT", &port), ("B2_PORT", &port)];
    let outbound = fill(include_str!("../../demo/orders.yaml"), &values).replace(
        // a large body on a busy machine may take longer than the demo allows a try
        "                    per_try_timeout: 0.25s\n",
        "",
    );
    let outbound = outbound.replace(
        "    lb_policy: ROUND_ROBIN\n",
        "    lb_policy: ROUND_ROBIN\n    typed_extension_protocol_options:\n      \
         envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
         explicit_http_config: { http2_protocol_options: {} }\n",
    );
    let outbound = outbound.replace(
        "        sni: payments\n        common_tls_context:",
        "        sni: payments\n        common_tls_context:\n          alpn_protocols: [h2]",
    );
    let orders = Proxy::start_kind(caller, folder.path(), "orders", &outbound);
    let address = orders.listener("outbound");
    std::thread::scope(|scope| {
        for caller in 0..8 {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for size in [0, 1, 1000, 70_000, 1_000_000] {
                    let body = vec![b'a' + caller; size];
                    let answer = client.call(&Request::post("/p", body.clone()));
                    assert!(
                        answer.status == 200 && answer.body[3..] == body[..],
                        "{size}: {}",
                        answer.status
                    );
                }
            });
        }
    });
    assert_eq!(app.requests(), 40);
    payments.wait_stat("http.inbound.downstream_rq_2xx", 40);
    let connections = payments.stat("http.inbound.downstream_cx_http2_total");
    assert!((1..=8).contains(&connections), "{connections} connections for 8 callers");
    wait_for("streams that ended as they should", || {
        let page = orders.page("/stats?filter=^cluster.payments.http2");
        let shown = ["streams_active", "tx_reset", "rx_reset", "rx_messaging_error"];
        let all = shown.iter().all(|name| page.contains(&format!("cluster.payments.http2.{name}: 0\n")));
        if all { Ok(()) } else { Err(page) }
    });
}

#[test]
fn corelane_multiplexes_to_envoy() {
    multiplexed(Kind::Corelane, Kind::Envoy);
}

#[test]
fn envoy_multiplexes_to_corelane() {
    multiplexed(Kind::Envoy, Kind::Corelane);
}

#[test]
fn corelane_multiplexes_to_corelane() {
    multiplexed(Kind::Corelane, Kind::Corelane);
}
