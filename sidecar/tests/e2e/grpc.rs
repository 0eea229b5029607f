//! What is counted of gRPC calls, with the h2 crate on both sides.

use crate::{hop::Hop, support::WITHIN};
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// gRPC over HTTP/2, "Length-Prefixed-Message".
fn message(text: &str) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// Sends back each message and ends with status 0, or 7 where the method is `Refuse`.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let status = if request.uri().path().ends_with("/Refuse") { "7" } else { "0" };
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let head = head.body(()).expect("a head");
                    let mut answer = respond.send_response(head, false).expect("an open stream");
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        body.flow_control().release_capacity(data.len()).expect("what was received");
                        answer.send_data(data, false).expect("an open stream");
                    }
                    let trailers = [("grpc-status", status)].into_iter();
                    let trailers = trailers.map(|(name, value)| {
                        (http::HeaderName::from_static(name), value.parse().expect("value"))
                    });
                    answer.send_trailers(trailers.collect()).expect("an open stream");
                });
            }
        });
    }
}

async fn call(address: SocketAddr, path: &str, kind: &str, messages: &[&str]) {
    let stream = TcpStream::connect(address).await.expect("the listener takes connections");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 by prior knowledge");
    tokio::task::spawn_local(connection);
    let request = http::Request::post(format!("http://payments{path}")).header("content-type", kind);
    let request = request.header("te", "trailers").body(()).expect("a request");
    let mut sender = sender.ready().await.expect("room for a stream");
    let (answer, mut stream) = sender.send_request(request, false).expect("an open connection");
    let body: Vec<u8> = messages.iter().flat_map(|text| message(text)).collect();
    stream.send_data(Bytes::from(body), true).expect("an open stream");
    let mut body = answer.await.expect("an answer").into_body();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole body");
        body.flow_control().release_capacity(data.len()).expect("what was received");
    }
    assert!(body.trailers().await.expect("whole").is_some());
}

#[test]
fn calls_are_counted_by_cluster_and_those_that_are_listed_by_method() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let proxy = tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        tokio::task::spawn_local(serve(listener));
        let hop = Hop {
            endpoints: &[port],
            cluster: "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    \
                      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n    \
                      explicit_http_config: { http2_protocol_options: {} }\n",
            http_filters: "- name: grpc_stats\n  typed_config:\n    \
                           \"@type\": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig\n    \
                           emit_filter_state: true\n    enable_upstream_stats: true\n    replace_dots_in_grpc_service_name: true\n    \
                           individual_method_stats_allowlist: { services: [{ name: pay.Pay, method_names: [Charge] }] }\n",
            ..Hop::default()
        }
        .start();
        let address = hop.proxy.listener("hop");
        let calls = async {
            call(address, "/pay.Pay/Charge", "application/grpc", &["a", "bc", ""]).await;
            call(address, "/pay.Pay/Charge", "application/grpc+proto", &["d"]).await;
            call(address, "/pay.Pay/Refuse", "application/grpc", &["e"]).await;
            call(address, "/pay.Pay/Charge", "application/json", &["f"]).await;
        };
        tokio::time::timeout(WITHIN, calls).await.expect("within the bound");
        hop
    });
    let proxy = &proxy.proxy;
    for (name, count) in [
        ("pay_Pay.Charge.total", 2),
        ("pay_Pay.Charge.success", 2),
        ("pay_Pay.Charge.0", 2),
        ("pay_Pay.Charge.request_message_count", 4),
        ("pay_Pay.Charge.response_message_count", 4),
        ("total", 1),
        ("failure", 1),
        ("7", 1),
        ("request_message_count", 1),
        ("response_message_count", 1),
    ] {
        proxy.wait_stat(&format!("cluster.app.grpc.{name}"), count);
    }
}
