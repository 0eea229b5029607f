//! Long bodies move in larger buffers, which belong to nobody afterwards.

mod support;

use std::io::Write;
use support::{Setup, Upstream, ok};

const LEN: usize = 4 << 20;

#[test]
fn a_long_body_moves_in_bulk_buffers_and_a_short_or_slow_one_does_not() {
    let upstream = Upstream::start(|_, mut client| {
        client.request();
        client.send(ok("short").as_bytes());
        client.request();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n");
        client.stream.write_all(head.as_bytes()).expect("send");
        client.stream.write_all(&b"0123456789abcdef".repeat(LEN / 16)).expect("send");
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    let bulk = || proxy.on_core(|worker| worker.core_stats()).bulk;
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "short");
    assert_eq!(bulk().peak, 0);
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.answer().text() == "0123456789abcdef".repeat(LEN / 16));
    assert!(bulk().peak > 0);
    proxy.until("every bulk buffer is back", || bulk().in_use == 0);
}
