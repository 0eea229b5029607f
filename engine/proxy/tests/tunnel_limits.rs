//! How long an upgrade may take, and what follows it. No test measures time: a limit is short where it must strike.

mod support;

use corelane_snapshot::{Listener, TcpProxy, Terminal};
use corelane_telemetry::{ClusterStat, HttpStat, TcpStat};
use std::{sync::Arc, time::Duration};
use support::{Proxy, Setup, Upstream};

const SHORT: Duration = Duration::from_millis(50);

const LASTS: Duration = Duration::from_millis(300);

#[test]
fn a_tunnel_lasts_no_longer_than_its_stream() {
    for upstream_limit in [false, true] {
        let upstream = Upstream::start(|_, mut client| {
            client.head();
            client.send(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            );
            while client.try_more() {}
        });
        let mut setup = Setup::to(&[upstream.address]);
        match upstream_limit {
            true => setup.cluster = |cluster| cluster.pool.stream_duration_max = Some(LASTS),
            false => setup.manager = |manager| manager.stream_duration_max = Some(LASTS),
        }
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        assert_eq!(client.read_to_end_or_reset(), b"");
        proxy.until("it is counted", || match upstream_limit {
            true => {
                proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamRqMaxDurationReached) == 1
            }
            false => proxy.http_count(HttpStat::DownstreamRqMaxDurationReached) == 1,
        });
    }
}

fn relay_of(listener: &mut Listener) -> &mut TcpProxy {
    let chain = Arc::get_mut(&mut listener.chains[0]).expect("nobody else has it");
    let Terminal::Tcp(relay) = &mut chain.terminal else { panic!("a relay") };
    Arc::get_mut(relay).expect("nobody else has it")
}

/// Who reads late gets all that was accepted for it, and sees an ordinary end.
#[test]
fn a_relay_that_a_limit_ends_delivers_what_it_took() {
    const BYTES: usize = 150_000;
    for idle in [true, false] {
        let (sent, waiting) = std::sync::mpsc::channel();
        let sent = std::sync::Mutex::new(sent);
        let upstream = Upstream::start(move |_, mut client| {
            assert_eq!(client.exactly(3), b"go!");
            client.send(&vec![b'd'; BYTES]);
            sent.lock().expect("lock").send(client.read_to_end_or_reset()).expect("test waits");
        });
        let mut setup = Setup::to(&[upstream.address]);
        setup.tcp = true;
        setup.listener = match idle {
            true => |listener| relay_of(listener).idle_timeout = Some(LASTS),
            false => |listener| relay_of(listener).connection_duration_max = Some(LASTS),
        };
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.send(b"go!");
        let limit = if idle { TcpStat::IdleTimeout } else { TcpStat::MaxDownstreamConnectionDuration };
        proxy.until("the limit strikes", || proxy.tcp_count(limit) == 1);
        let delivered = client.read_to_end();
        assert_eq!(delivered.len(), BYTES, "idle: {idle}");
        assert_eq!(waiting.recv_timeout(support::PATIENCE).expect("upstream sees the end"), b"");
    }
}

fn upgrade_to(protocol: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n")
}

/// Twice the limit goes by on the core's clock.
fn pass(proxy: &Proxy) {
    let start = proxy.on_core(|_| corelane_runtime::Nanos::read());
    proxy.until("time passes", || corelane_runtime::Nanos::read().since(start) > SHORT * 2);
}

#[test]
fn the_routes_timeout_holds_for_a_websocket_until_it_is_there_and_not_for_other_tunnels() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (arrived, waiting) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |number, mut client| {
        let head = client.head();
        let asked = head.lines().find(|line| line.starts_with("upgrade: ")).expect("an upgrade");
        arrived.send(()).expect("test waits");
        // the first is never answered
        if number > 0 {
            held.lock().expect("lock").recv().expect("released");
            client.send(
                format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{asked}\r\n\r\n")
                    .as_bytes(),
            );
            assert_eq!(client.exactly(4), b"ping");
            client.send(b"pong");
        }
        while client.try_more() {}
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.timeout = Some(SHORT);
    setup.upgrades = vec!["websocket", "telnet"];
    let proxy = setup.start();
    let answer = proxy.ask(&upgrade_to("WebSocket"));
    assert_eq!((answer.status, answer.text()), (504, "upstream request timeout"));
    waiting.recv_timeout(support::PATIENCE).expect("it was asked");

    let mut telnet = proxy.connect();
    telnet.send(upgrade_to("telnet").as_bytes());
    waiting.recv_timeout(support::PATIENCE).expect("it was asked");
    pass(&proxy);
    release.send(()).expect("upstream waits");
    assert!(telnet.head().starts_with("HTTP/1.1 101 "));
    let mut websocket = proxy.connect();
    release.send(()).expect("upstream will wait");
    websocket.send(upgrade_to("websocket").as_bytes());
    assert!(websocket.head().starts_with("HTTP/1.1 101 "));
    pass(&proxy);
    for tunnel in [&mut telnet, &mut websocket] {
        tunnel.send(b"ping");
        assert_eq!(tunnel.exactly(4), b"pong");
    }
}
