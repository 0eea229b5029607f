//! The end of an HTTP/2 connection: from downstream, what was answered before it reaches even a client that reads
//! slowly; to an upstream that dismisses us, the next request takes another.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use corelane_snapshot::UpstreamProtocol;
use corelane_telemetry::{ClusterStat, HttpStat};
use h2_peers::{H2Client, H2Upstream, answer_with, get, read_all, run, settings};
use std::time::Duration;
use support::{Proxy, Setup, Upstream, ok};
use tokio::task::spawn_local;

/// RFC 9113 section 3.4: what each connection of a client begins with.
const PREFACE_BYTES: u64 = 24;

fn answering(bytes: usize) -> (Upstream, Proxy) {
    let body = "x".repeat(bytes);
    let upstream = Upstream::answering(move |_, _| ok(&body));
    let proxy = Setup::to(&[upstream.address]).start();
    (upstream, proxy)
}

/// All is answered, as far as the proxy is concerned; then the drain begins and is over at once.
fn drained(proxy: &Proxy) {
    proxy.until("all is handed over", || proxy.shared.requests() == 0);
    proxy.on_core(|worker| worker.begin_drain());
    proxy.on_core(|worker| worker.close_idle());
}

/// RFC 9113 section 6.9.2.
const WINDOW: usize = 65_535;

#[test]
fn what_waits_for_the_clients_window_is_not_cut_off_by_the_end_of_a_drain() {
    let (_upstream, proxy) = answering(WINDOW + 1);
    run(async {
        let client = H2Client::connect(proxy.address).await;
        let (response, _) = client.send(get("/"), true).await;
        let mut body = response.await.expect("head").into_body();
        drained(&proxy);
        // the window opens only now
        assert_eq!(read_all(&mut body).await.expect("the whole body").len(), WINDOW + 1);
        drop((body, client.requests));
        client.connection.await.expect("task").expect("an orderly end");
    });
    proxy.until("nobody is left", || proxy.shared.connections() == 0);
}

/// A client that says nothing but this: large windows, then requests for `/`.
fn requests(streams: u32) -> Vec<u8> {
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    const HEADERS: u8 = 1;
    const END_STREAM_AND_HEADERS: u8 = 0x5;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
    };
    // SETTINGS_INITIAL_WINDOW_SIZE
    frame(SETTINGS, 0, 0, &[0, 4, 0x7F, 0xFF, 0xFF, 0xFF]);
    frame(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
    for number in 0..streams {
        // RFC 7541 appendix A: GET, http, /; and :authority as a literal
        frame(HEADERS, END_STREAM_AND_HEADERS, 2 * number + 1, &[0x82, 0x86, 0x84, 0x01, 0x01, b'a']);
    }
    bytes
}

/// Bytes of DATA in a stream of frames.
fn data_bytes(mut frames: &[u8]) -> usize {
    let mut total = 0;
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == 0 {
            total += length;
        }
        frames = rest.get(length..).expect("a whole frame");
    }
    total
}

#[test]
fn what_waits_for_the_socket_is_not_cut_off_by_the_end_of_a_drain() {
    const STREAMS: u32 = 100;
    const BYTES: usize = 64 << 10;
    let (_upstream, proxy) = answering(BYTES);
    let mut client = proxy.connect();
    client.send(&requests(STREAMS));
    proxy.until("all came", || proxy.http_count(HttpStat::DownstreamRqTotal) == u64::from(STREAMS));
    drained(&proxy);
    let answers = client.read_to_end();
    assert_eq!(data_bytes(&answers), STREAMS as usize * BYTES);
    assert_eq!(proxy.http_count(HttpStat::DownstreamCxTxBytesTotal), answers.len() as u64);
    let asked = requests(STREAMS).len() as u64;
    assert!(proxy.http_count(HttpStat::DownstreamCxRxBytesTotal) >= asked);
    drop(client);
    proxy.until("nobody is left", || proxy.shared.connections() == 0);
}

#[test]
fn a_client_that_does_not_read_what_it_is_owed_is_let_go() {
    const STREAMS: u32 = 100;
    let body = "x".repeat(64 << 10);
    let upstream = Upstream::answering(move |_, _| ok(&body));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.stream_idle_timeout = Some(Duration::from_millis(100));
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(&requests(STREAMS));
    proxy.until("all came", || proxy.http_count(HttpStat::DownstreamRqTotal) == u64::from(STREAMS));
    drained(&proxy);
    proxy.until("it is let go", || proxy.shared.connections() == 0);
}

#[test]
fn after_a_goaway_the_next_request_takes_a_fresh_connection() {
    let upstream = H2Upstream::scripted(|number, stream| async move {
        let mut connection = settings().handshake(stream).await.expect("handshake");
        let (_, respond) = connection.accept().await.expect("a request").expect("well-formed");
        let answer = spawn_local(answer_with(respond, format!("connection {number}")));
        connection.graceful_shutdown();
        while let Some(Ok((_, respond))) = connection.accept().await {
            spawn_local(answer_with(respond, format!("connection {number} still")));
        }
        answer.await.expect("answered");
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.protocol = UpstreamProtocol::Http2;
    let proxy = setup.start();
    run(async {
        let client = H2Client::connect(proxy.address).await;
        for number in 0..20 {
            assert_eq!(client.get("/").await.text(), format!("connection {number}"));
        }
    });
    let count = |stat| proxy.cluster_count(|stats| stats.cluster, stat);
    proxy.until("all were dismissed", || count(ClusterStat::UpstreamCxCloseNotify) == 20);
    assert_eq!(proxy.cluster_records(ClusterStat::UpstreamRqPerCx), (20, 20));
    assert_eq!(count(ClusterStat::UpstreamCxDestroyWithActiveRq), 0);
    assert!(count(ClusterStat::UpstreamCxRxBytesTotal) > 20 * "connection 0".len() as u64);
    assert!(count(ClusterStat::UpstreamCxTxBytesTotal) > 20 * PREFACE_BYTES);
}
