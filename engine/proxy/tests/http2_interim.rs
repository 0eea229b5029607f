//! HTTP/2 beside the whole message: heads before the final one, and requests that end before their end.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use corelane_snapshot::UpstreamProtocol;
use corelane_telemetry::ClusterStat;
use h2::Reason;
use h2_peers::{H2Client, H2Upstream, post, run, settings};
use http::Response;
use support::{Setup, Upstream};

#[test]
fn an_http2_upstream_may_be_the_one_that_answers_expect() {
    let upstream = H2Upstream::answering(settings(), |_, mut request, mut respond| async move {
        assert_eq!(request.headers()["expect"], "100-continue");
        let interim = Response::builder().status(100).body(()).expect("head");
        respond.send_informational(interim).expect("100");
        let body = request.body_mut().data().await.expect("a body").expect("whole");
        let mut stream = respond.send_response(Response::new(()), false).expect("answer");
        stream.send_data(body, true).expect("body");
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.protocol = UpstreamProtocol::Http2;
    setup.manager = |manager| manager.proxy_100_continue = true;
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100 Continue\r\n"));
    client.send(b"hello");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn a_request_that_a_client_resets_without_error_is_not_whole() {
    let (ended, end) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        let head = client.head();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let _ = ended.send(client.read_to_end());
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let sent = run(async {
        let client = H2Client::connect(proxy.address).await;
        let (_answer, mut body) = client.send(post("/"), false).await;
        body.send_data("half".into(), false).expect("data");
        let sent = || proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamCxTxBytesTotal);
        while sent() == 0 {
            tokio::task::yield_now().await;
        }
        body.send_reset(Reason::NO_ERROR);
        loop {
            match end.try_recv() {
                Ok(sent) => break sent,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert!(!sent.ends_with(b"0\r\n\r\n"), "{}", sent.escape_ascii());
}
