//! The TCP relay: bytes both ways, each direction ending by itself.

use crate::support::{Client, Proxy, app::drain, fill};
use std::{
    io::Write,
    net::{Shutdown, TcpListener, TcpStream},
    thread::JoinHandle,
};

const CONFIG: &str = include_str!("tcp.yaml");

/// Takes one connection and does with it what the script says.
fn upstream<T: Send + 'static>(script: impl FnOnce(TcpStream) -> T + Send + 'static) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("a bound socket").port();
    (port, std::thread::spawn(move || script(listener.accept().expect("a connection").0)))
}

fn start(port: u16) -> (Proxy, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let proxy = Proxy::start(folder.path(), "relay", &fill(CONFIG, &[("PORT", &port)]));
    (proxy, folder)
}

fn relay(port: u16) -> (Proxy, Client, tempfile::TempDir) {
    let (proxy, folder) = start(port);
    let client = Client::connect(proxy.listener("relay"));
    (proxy, client, folder)
}

#[test]
fn bytes_pass_both_ways_and_each_way_ends_by_itself() {
    let (port, upstream) = upstream(|mut stream| {
        stream.write_all(b"first").expect("the relay reads");
        stream.shutdown(Shutdown::Write).expect("our half");
        drain(&mut stream)
    });
    let (proxy, mut client, _folder) = relay(port);
    assert_eq!(client.read_to_end().expect("the upstream's half has ended"), b"first");
    client.send(b"still ");
    client.send(b"open");
    client.half_close();
    assert_eq!(upstream.join().expect("the upstream's script"), b"still open");
    proxy.wait_stat("tcp.relay.downstream_cx_rx_bytes_total", 10);
    proxy.wait_stat("tcp.relay.downstream_cx_tx_bytes_total", 5);
    proxy.wait_stat("cluster.app.upstream_cx_active", 0);
}

#[test]
fn the_client_may_end_its_half_first() {
    let (port, upstream) = upstream(|mut stream| {
        let question = drain(&mut stream);
        stream.write_all(&question).expect("the other half is open");
    });
    let (_proxy, mut client, _folder) = relay(port);
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n % 253) as u8).collect();
    client.send(&bytes);
    client.half_close();
    assert!(client.read_to_end().expect("a clean end") == bytes, "5 MB come back as they went");
    upstream.join().expect("the upstream's script");
}

#[test]
fn a_peer_that_does_not_read_holds_the_other_back() {
    let (port, upstream) = upstream(|mut stream| {
        // sends until the relay takes no more, which it must while nobody reads at the other end
        stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).expect("a timeout");
        let block = vec![7; 1 << 16];
        let mut sent = 0usize;
        while sent < 1 << 30 {
            match stream.write(&block) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        sent
    });
    let (proxy, client, _folder) = relay(port);
    let sent = upstream.join().expect("the upstream's script");
    assert!(sent < 64 << 20, "{sent} bytes are somewhere in between");
    drop(client);
    proxy.wait_stat("tcp.relay.downstream_cx_active", 0);
}

#[test]
fn an_upstream_that_refuses_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("a bound socket").port();
    drop(listener);
    let (proxy, _folder) = start(port);
    // the relay is quick enough that the end may reach us while the kernel still connects
    let client = Client::try_connect(proxy.listener("relay"));
    assert!(client.and_then(|mut client| client.read_to_end()).unwrap_or_default().is_empty());
    proxy.wait_stat("cluster.app.upstream_cx_connect_fail", 1);
    proxy.wait_stat("tcp.relay.downstream_cx_active", 0);
}
