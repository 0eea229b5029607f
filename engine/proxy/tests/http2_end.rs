//! The end of an HTTP/2 connection: from downstream, what was answered before it reaches even a client that reads
//! slowly; to an upstream that dismisses us, the next request takes another.

#[path = "support/h2_peers.rs"]
mod h2_peers;
mod support;

use corelane_snapshot::UpstreamProtocol;
use corelane_telemetry::{ClusterStat, HttpStat};
use h2_peers::{H2Client, H2Upstream, answer_with, get, read_all, run, settings};
use std::{
    io::{Read, Write},
    time::Duration,
};
use support::{Drained, Proxy, Setup, Upstream, ok, tls};
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
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    proxy.on_core(|worker| worker.close_idle());
}

/// Envoy's default of overload.premature_reset_total_stream_count.
const PREMATURE_RESETS_MAX: u32 = 500;

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

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, and one setting.
fn greeting(setting: &[u8]) -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, setting)].concat()
}

/// For `/`.
fn request(stream: u32) -> Vec<u8> {
    const END_STREAM_AND_HEADERS: u8 = 0x5;
    // RFC 7541 appendix A: GET, http, /; and :authority as a literal
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &[0x82, 0x86, 0x84, 0x01, 0x01, b'a'])
}

/// A client that says nothing but this: large windows, then requests for `/`.
fn requests(streams: u32) -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut bytes = greeting(&[0, 4, 0x7F, 0xFF, 0xFF, 0xFF]);
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes()));
    bytes.extend((0..streams).flat_map(|number| request(2 * number + 1)));
    bytes
}

/// Kinds and lengths of whole frames.
fn frames(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        found.push((head[3], length));
        bytes = rest.get(length..).expect("a whole frame");
    }
    found
}

/// Bytes of DATA in a stream of frames.
fn data_bytes(bytes: &[u8]) -> usize {
    frames(bytes).iter().filter(|(kind, _)| *kind == DATA).map(|(_, length)| length).sum()
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
fn a_client_whose_window_stays_closed_is_let_go_though_it_pings() {
    let body = "x".repeat(WINDOW + 1);
    let upstream = Upstream::answering(move |_, _| ok(&body));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        manager.stream_idle_timeout = Some(Duration::from_millis(100));
        manager.delayed_close_timeout = Duration::from_millis(20);
    };
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(&[greeting(&[]), request(1)].concat());
    proxy.until("it came", || proxy.http_count(HttpStat::DownstreamRqTotal) == 1);
    drained(&proxy);
    let ping = frame(PING, 0, 0, &[7; 8]);
    let start = std::time::Instant::now();
    // each is answered before the next is sent, so something is always written
    while client.stream.write_all(&ping).is_ok() && client.try_more() {
        assert!(start.elapsed() < support::PATIENCE, "it is held on to");
    }
    proxy.until("it is let go", || proxy.shared.connections() == 0);
}

#[test]
fn a_connection_over_tls_ends_with_a_goaway_and_then_with_a_close_notify() {
    const STREAMS: u32 = 3;
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.listener = tls::required;
    let proxy = setup.start();
    let mut client = tls::connect(&proxy, b"h2");
    client.write_all(&requests(STREAMS)).expect("sent");
    proxy.until("all came", || proxy.http_count(HttpStat::DownstreamRqTotal) == u64::from(STREAMS));
    drained(&proxy);
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).expect("a close_notify");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(data_bytes(&answers), STREAMS as usize);
    assert!(frames(&answers).iter().any(|(kind, _)| *kind == GOAWAY));
    drop(client);
    proxy.until("nobody is left", || proxy.shared.connections() == 0);
}

#[test]
fn a_client_that_resets_what_it_asks_for_is_dismissed() {
    let upstream = Upstream::start(|_, mut client| while client.try_more() {});
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(&greeting(&[]));
    for asked in 1..=PREMATURE_RESETS_MAX {
        client.send(&request(2 * asked - 1));
        // it is under way before it is reset, so no limit of the codec's own is met
        proxy.until("it came", || proxy.http_count(HttpStat::DownstreamRqTotal) == u64::from(asked));
        client.send(&frame(RST_STREAM, 0, 2 * asked - 1, &8u32.to_be_bytes()));
        proxy.until("it is gone", || proxy.http_count(HttpStat::DownstreamRqRxReset) == u64::from(asked));
    }
    let dismissed = || proxy.http_count(HttpStat::DownstreamRqTooManyPrematureResets);
    assert_eq!(dismissed(), 0);
    client.send(&request(2 * PREMATURE_RESETS_MAX + 1));
    proxy.until("that was one too many", || dismissed() == 1);
    let said = client.read_to_end_or_reset();
    assert_eq!(frames(&said).last(), Some(&(GOAWAY, 8)));
    assert!(said.ends_with(&u32::from(h2::Reason::ENHANCE_YOUR_CALM).to_be_bytes()));
    proxy.until("it is closed", || proxy.shared.connections() == 0);
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
