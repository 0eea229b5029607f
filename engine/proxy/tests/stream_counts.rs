//! What is counted of streams and messages that end otherwise than they should.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use bytes::Bytes;
use corelane_snapshot::{StatBlock, UpstreamProtocol};
use corelane_telemetry::{ClusterHttp2Stat, ClusterStat, Http2Stat, HttpStat};
use h2::{Reason, server::SendResponse};
use h2_peers::{H2Client, H2Upstream, get, post, read_all, run, settings, trailers};
use http::Response;
use std::{net::TcpListener, rc::Rc, sync::Arc, time::Duration};
use support::{Proxy, Setup, Upstream, ok};
use tokio::sync::Notify;

/// To an HTTP/2 upstream that does what the path says.
fn to_streams() -> (H2Upstream, Proxy) {
    let read = Arc::new(Notify::new());
    let upstream = H2Upstream::answering(settings(), move |_, request, mut respond| {
        let read = read.clone();
        async move { act(&read, request.uri().path(), &mut respond).await }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.protocol = UpstreamProtocol::Http2;
    let proxy = setup.start();
    (upstream, proxy)
}

async fn act(read: &Notify, path: &str, respond: &mut SendResponse<Bytes>) {
    match path {
        "/trailers" => {
            let mut stream = respond.send_response(Response::new(()), false).expect("head");
            stream.send_data(Bytes::from_static(b"x"), false).expect("body");
            stream.send_trailers(trailers(&[("x-sum", "1")])).expect("trailers");
        }
        "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/enough" => {
            let mut stream = respond.send_response(Response::new(()), false).expect("head");
            stream.send_data(Bytes::from_static(b"enough"), false).expect("body");
            read.notified().await;
            stream.send_reset(Reason::NO_ERROR);
        }
        "/read" => {
            read.notify_one();
            respond.send_response(Response::new(()), true).expect("head");
        }
        "/wrong" => {
            let head = Response::builder().header("content-length", "9").body(()).expect("head");
            let mut stream = respond.send_response(head, false).expect("head");
            stream.send_data(Bytes::from_static(b"four"), true).expect("body");
        }
        "/never" => std::future::pending().await,
        path => {
            let mut stream = respond.send_response(Response::new(()), false).expect("head");
            stream.send_data(path.to_owned().into(), true).expect("body");
        }
    }
}

fn codec(proxy: &Proxy, stat: ClusterHttp2Stat) -> u64 {
    proxy.cluster_count(|stats| stats.http2, stat)
}

fn cluster(proxy: &Proxy, stat: ClusterStat) -> u64 {
    proxy.cluster_count(|stats| stats.cluster, stat)
}

#[test]
fn the_ends_of_upstream_streams_are_told_apart() {
    use ClusterHttp2Stat as Stat;
    let (_upstream, proxy) = to_streams();
    let counts = |proxy: &Proxy| {
        [Stat::Trailers, Stat::RxReset, Stat::RxMessagingError, Stat::TxReset].map(|stat| codec(proxy, stat))
    };
    run(async {
        let client = Rc::new(H2Client::connect(proxy.address).await);
        assert_eq!(client.get("/plain").await.text(), "/plain");
        assert_eq!(counts(&proxy), [0; 4]);
        assert_eq!(client.get("/trailers").await.trailers.len(), 1);
        assert_eq!(client.get("/reset").await.status, 503);
        proxy.until("reset", || counts(&proxy) == [1, 1, 0, 0]);
        let resets = [ClusterStat::UpstreamRqRxReset, ClusterStat::UpstreamRqRxResetNoError];
        assert_eq!(resets.map(|stat| cluster(&proxy, stat)), [1, 0]);
        // RFC 9113 section 8.1: a reset with NO_ERROR follows a complete response
        let mut answer = client.send(get("/enough"), true).await.0.await.expect("head").into_body();
        assert_eq!(answer.data().await.expect("body").expect("data"), "enough");
        assert_eq!(client.get("/read").await.status, 200);
        assert_eq!(read_all(&mut answer).await.expect("whole"), b"");
        proxy.until("reset without an error", || counts(&proxy) == [1, 2, 0, 0]);
        assert_eq!(resets.map(|stat| cluster(&proxy, stat)), [1, 1]);
        let _ = client.send(get("/wrong"), true).await.0.await;
        proxy.until("fewer bytes than promised", || counts(&proxy) == [1, 2, 1, 1]);
        let (answer, _) = client.send(get("/never"), true).await;
        // behind it on the same connection, so that it has come when this is answered
        assert_eq!(client.get("/plain").await.text(), "/plain");
        proxy.until("it is under way", || codec(&proxy, Stat::StreamsActive) == 1);
        drop(answer);
        assert_eq!(client.get("/plain").await.text(), "/plain");
        proxy.until("given up", || counts(&proxy) == [1, 2, 1, 2]);
        proxy.until("none is under way", || codec(&proxy, Stat::StreamsActive) == 0);
    });
}

#[test]
fn a_connection_that_nobody_uses_any_more_is_told_to_go() {
    let (_upstream, proxy) = to_streams();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        assert_eq!(client.get("/plain").await.text(), "/plain");
        assert_eq!(codec(&proxy, ClusterHttp2Stat::GoawaySent), 0);
        proxy.publish_another_cluster();
        assert_eq!(client.get("/plain").await.text(), "/plain");
        proxy.until("the first has ended", || codec(&proxy, ClusterHttp2Stat::GoawaySent) == 1);
    });
}

#[test]
fn trailers_and_malformed_requests_are_counted_over_all_connections() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let proxy = Setup::to(&[upstream.address]).start();
    let counts = || {
        [Http2Stat::Trailers, Http2Stat::RxMessagingError]
            .map(|stat| proxy.count(StatBlock(proxy.core_stats.http2.raw()), stat))
    };
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let sum = Some(trailers(&[("x-sum", "1")]));
        assert_eq!(client.post(post("/"), b"body".to_vec(), sum).await.text(), "x");
        proxy.until("trailers", || counts() == [1, 0]);
        let wrong = http::Request::builder()
            .method("POST")
            .uri("http://payments/")
            .header("content-length", "9")
            .body(())
            .expect("request");
        let (answer, mut body) = client.send(wrong, false).await;
        body.send_data(Bytes::from_static(b"four"), true).expect("sent");
        let _ = answer.await;
        proxy.until("fewer bytes than promised", || counts() == [1, 1]);
        let two = http::Request::builder().uri("http://payments/").header("host", "ledger").body(());
        assert_eq!(client.send(two.expect("request"), true).await.0.await.expect("answer").status(), 400);
        proxy.until("two hosts", || counts() == [1, 2]);
    });
}

#[test]
fn a_client_that_goes_before_its_answer_has_reset_its_request() {
    let upstream = Upstream::start(|_, mut client| while client.try_more() {});
    let proxy = Setup::to(&[upstream.address]).start();
    for (number, start) in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nfour",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour",
    ]
    .iter()
    .enumerate()
    {
        let mut client = proxy.connect();
        client.send(start.as_bytes());
        proxy.until("it is under way", || cluster(&proxy, ClusterStat::UpstreamRqActive) == 1);
        client.reset();
        proxy.until("it is gone", || cluster(&proxy, ClusterStat::UpstreamRqActive) == 0);
        let resets = number as u64 + 1;
        proxy.until("counted", || proxy.http_count(HttpStat::DownstreamRqRxReset) == resets);
        proxy.until("and upstream", || cluster(&proxy, ClusterStat::UpstreamRqTxReset) == resets);
    }
}

#[test]
fn an_answer_that_breaks_off_is_counted_by_whose_fault_it_was() {
    let upstream = Upstream::start(|_, mut client| {
        client.request();
        client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour");
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let _ = client.try_answer();
    let broken = HttpStat::RqResetAfterDownstreamResponseStarted;
    proxy.until("counted", || proxy.http_count(broken) == 1);
    // HTTP/1 has no stream to reset: Envoy counts these of multiplexed connections alone
    assert_eq!(cluster(&proxy, ClusterStat::UpstreamRqRxReset), 0);
    assert_eq!(proxy.http_count(HttpStat::DownstreamRqRxReset), 0);
}

/// Envoy resets a stream upstream whenever it is through with it before its end: upstream_rq_tx_reset.
#[test]
fn a_request_that_we_give_up_is_reset_upstream_and_one_that_was_not_sent_is_not() {
    // the whole request is not awaited
    let early = Upstream::start(|_, mut client| {
        client.head();
        client.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n");
        while client.try_more() {}
    });
    let proxy = Setup::to(&[early.address]).start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nfour");
    assert_eq!(client.try_answer(), Some(413));
    proxy.until("reset", || cluster(&proxy, ClusterStat::UpstreamRqTxReset) == 1);
    assert_eq!(proxy.http_count(HttpStat::DownstreamRqResponseBeforeRqComplete), 1);

    let silent = Upstream::start(|_, mut client| while client.try_more() {});
    let mut setup = Setup::to(&[silent.address]);
    setup.manager = |manager| manager.stream_idle_timeout = Some(Duration::from_millis(50));
    let proxy = setup.start();
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 504);
    assert_eq!(cluster(&proxy, ClusterStat::UpstreamRqTxReset), 1);

    let gone = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let proxy = Setup::to(&[gone]).start();
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 503);
    assert_eq!(cluster(&proxy, ClusterStat::UpstreamRqTxReset), 0);
}
