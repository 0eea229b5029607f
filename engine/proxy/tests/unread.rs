//! A client whose socket takes nothing more: what is left to be said to it is given up in time, be it ever so short.

mod support;

use corelane_runtime::{Nanos, testing::end_towards};
use corelane_telemetry::HttpStat;
use socket2::Socket;
use std::{io::Write, net::TcpStream, sync::mpsc, time::Duration};
use support::{Drained, PATIENCE, Proxy, Setup, Upstream, ok, tls};

const SHORT: Duration = Duration::from_millis(50);
const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
/// Acknowledgements of what the client's kernel took have come by then, and have made no more room.
const SETTLED: Duration = Duration::from_millis(200);

/// From the proxy's end, until the kernel takes no byte more.
fn fill(proxy: &Proxy, client: &TcpStream) {
    let far = client.local_addr().expect("address");
    let end = Socket::from(end_towards(far).expect("the proxy's end is in this process"));
    // little fills it, so tests beside this one do not bring the kernel into need of memory
    end.set_send_buffer_size(4_096).expect("option");
    let start = Nanos::read();
    proxy.until("it is full", || {
        for piece in [&[0; 65_536][..], &[0; 1]] {
            while end.send_with_flags(piece, MSG_DONTWAIT).is_ok() {}
        }
        Nanos::read().since(start) > SETTLED
    });
}

/// Of linux/socket.h.
const MSG_DONTWAIT: i32 = 0x40;

#[test]
fn a_client_that_does_not_take_a_100_costs_no_upstream_connection() {
    let upstream = Upstream::start(|number, mut client| {
        while client.waiting() {
            client.request();
            client.send(ok(&number.to_string()).as_bytes());
        }
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.stream_idle_timeout = Some(SHORT * 20);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(REQUEST.as_bytes());
    assert_eq!(client.answer().text(), "0");
    fill(&proxy, &client.stream);
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    proxy.until("it is given up", || proxy.http_count(HttpStat::DownstreamRqIdleTimeout) == 1);
    proxy.until("it is closed", || proxy.shared.connections() == 0);
    // nothing was sent on the connection that waited with it
    assert_eq!(proxy.ask(REQUEST).text(), "0");
}

/// An upgrade that is answered when the test says so, with an end to tell it.
fn switching() -> (Upstream, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (arrived, waiting) = mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        client.head();
        arrived.send(()).expect("test waits");
        held.lock().expect("lock").recv().expect("released");
        client.send(SWITCHED.as_bytes());
        while client.try_more() {}
    });
    (upstream, waiting, release)
}

#[test]
fn a_client_that_does_not_take_a_101_is_not_waited_for() {
    let (upstream, waiting, release) = switching();
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.stream_idle_timeout = Some(SHORT * 20);
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(UPGRADE.as_bytes());
    waiting.recv_timeout(PATIENCE).expect("it was asked");
    fill(&proxy, &client.stream);
    release.send(()).expect("upstream waits");
    proxy.until("it is given up", || proxy.http_count(HttpStat::DownstreamRqIdleTimeout) == 1);
    proxy.until("it is closed", || proxy.shared.connections() == 0);
}

#[test]
fn a_client_that_does_not_take_a_close_notify_is_not_waited_for() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.listener = tls::required;
    setup.manager = |manager| manager.delayed_close_timeout = SHORT;
    let proxy = setup.start();
    let mut client = tls::connect(&proxy, b"http/1.1");
    client.write_all(REQUEST.as_bytes()).expect("sent");
    proxy.until("it is answered", || {
        proxy.shared.requests() == 0 && proxy.http_count(HttpStat::DownstreamRq2xx) == 1
    });
    fill(&proxy, &client.sock);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    proxy.on_core(|worker| worker.close_idle());
    proxy.until("it is given up", || proxy.http_count(HttpStat::DownstreamCxDelayedCloseTimeout) == 1);
    proxy.until("it is closed", || proxy.shared.connections() == 0);
}

#[test]
fn a_tunnel_that_does_not_take_a_close_notify_is_not_waited_for() {
    let (upstream, waiting, release) = switching();
    let mut setup = Setup::to(&[upstream.address]);
    setup.listener = tls::required;
    let proxy = setup.start();
    let mut client = tls::connect(&proxy, b"http/1.1");
    client.write_all(UPGRADE.as_bytes()).expect("sent");
    waiting.recv_timeout(PATIENCE).expect("it was asked");
    release.send(()).expect("upstream waits");
    proxy.until("it stands", || proxy.http_count(HttpStat::DownstreamCxUpgradesActive) == 1);
    fill(&proxy, &client.sock);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    proxy.on_core(|worker| worker.close_idle());
    proxy.until("it is closed", || proxy.shared.connections() == 0);
}
