//! What a listener and its core count of their connections.

mod support;

use corelane_snapshot::StatBlock;
use corelane_telemetry::{CoreStat, Http2Stat, HttpInspectorStat, TlsInspectorStat};
use std::time::Duration;
use support::{Drained, Setup, Upstream, ok};

/// A ClientHello without extensions, in its record (RFC 8446 section 4.1.2).
fn bare_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    hello
}

#[test]
fn inspectors_count_what_they_saw() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.listener = |listener| {
        listener.filters.tls_inspector = true;
        listener.filters.http_inspector = true;
        listener.filters_timeout = Some(Duration::from_secs(60));
    };
    let proxy = setup.start();
    let blocks = proxy.core_stats;
    let http = |stat| proxy.count(StatBlock(blocks.http_inspector.raw()), stat);
    let tls = |stat| proxy.count(StatBlock(blocks.tls_inspector.raw()), stat);
    let mut clients = Vec::new();
    for first in [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost: b\r\n\r\n".to_vec(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x00\x01\x02 not HTTP".to_vec(),
        bare_hello(),
    ] {
        let mut client = proxy.connect();
        client.send(&first);
        clients.push(client);
    }
    for (stat, expected) in [
        (HttpInspectorStat::Http10Found, 1),
        (HttpInspectorStat::Http11Found, 2),
        (HttpInspectorStat::Http2Found, 1),
        (HttpInspectorStat::HttpNotFound, 1),
    ] {
        proxy.until("HTTP is told", || http(stat) == expected);
    }
    for (stat, expected) in [
        (TlsInspectorStat::TlsNotFound, 5),
        (TlsInspectorStat::TlsFound, 1),
        (TlsInspectorStat::SniNotFound, 1),
        (TlsInspectorStat::AlpnNotFound, 1),
    ] {
        proxy.until("TLS is told", || tls(stat) == expected);
    }
    assert_eq!(tls(TlsInspectorStat::SniFound), 0);
}

#[test]
fn a_core_shows_its_connections_and_buffers() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "x");
    assert_eq!(proxy.core_count(CoreStat::ConnectionsAccepted), 1);
    assert_eq!(proxy.core_count(CoreStat::ConnectionsHandedOver), 0);
    proxy.until("the second is over", || proxy.core_count(CoreStat::ConnectionsActive) == 1);
    assert!(proxy.core_count(CoreStat::TimersActive) > 0);
    assert!(proxy.core_count(CoreStat::BufferBytes) > 0);
    drop(client);
    proxy.until("it is gone", || proxy.core_count(CoreStat::ConnectionsActive) == 0);
}

#[test]
fn streams_and_their_resets_are_counted() {
    let upstream = Upstream::start(|_, mut client| while client.try_more() {});
    let proxy = Setup::to(&[upstream.address]).start();
    let http2 = |stat| proxy.count(StatBlock(proxy.core_stats.http2.raw()), stat);
    let mut client = proxy.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // RFC 7541 appendix A: GET, http, /; and :authority as a literal
    client.send(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01a");
    proxy.until("the stream is open", || http2(Http2Stat::StreamsActive) == 1);
    // RFC 9113 section 6.4: RST_STREAM, CANCEL
    client.send(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08");
    proxy.until("the reset came", || http2(Http2Stat::RxReset) == 1);
    proxy.until("no stream is open", || http2(Http2Stat::StreamsActive) == 0);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    proxy.until("it was told to go", || http2(Http2Stat::GoawaySent) == 1);
    assert_eq!(http2(Http2Stat::TxReset), 0);
}
