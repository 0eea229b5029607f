//! What a configuration change does to upstream connections: those it has no use for are closed when nobody uses
//! them, the others are left alone.

mod support;

#[path = "support/h2_peers.rs"]
mod h2_peers;

use corelane_snapshot::{ClusterConfig, TransportSocket, UpstreamProtocol};
use h2_peers::{H2Upstream, settings};
use std::sync::{Mutex, mpsc};
use support::{PATIENCE, Setup, Upstream, ok};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Answers, and tells when a connection has ended.
fn telling() -> (Upstream, mpsc::Receiver<()>) {
    let (ended, end) = mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        while client.waiting() {
            client.request();
            client.send(ok("x").as_bytes());
        }
        let _ = ended.send(());
    });
    (upstream, end)
}

#[test]
fn idle_connections_to_what_is_gone_are_closed_and_others_are_kept() {
    let (gone, gone_end) = telling();
    let (stays, stays_end) = telling();
    let proxy = Setup::to(&[gone.address, stays.address]).start();
    for _ in 0..4 {
        assert_eq!(proxy.ask(REQUEST).text(), "x");
    }
    proxy.publish_endpoints(&[stays.address]);
    gone_end.recv_timeout(PATIENCE).expect("closed");
    assert_eq!(proxy.ask(REQUEST).text(), "x");
    assert_eq!(stays_end.try_recv(), Err(mpsc::TryRecvError::Empty), "one connection is enough");
    // another configuration of the cluster may mean other certificates
    proxy.publish_another_cluster();
    stays_end.recv_timeout(PATIENCE).expect("closed");
}

#[test]
fn a_connection_in_use_is_closed_when_it_is_given_back() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (arrived, waiting) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let slow = Upstream::start(move |_, mut client| {
        client.request();
        arrived.send(()).expect("test waits");
        held.lock().expect("lock").recv().expect("released");
        client.send(ok("late").as_bytes());
        assert_eq!(client.read_to_end(), b"");
        ended.send(()).expect("test waits");
    });
    let (other, _) = telling();
    let proxy = Setup::to(&[slow.address]).start();
    let mut client = proxy.connect();
    client.send(REQUEST.as_bytes());
    waiting.recv_timeout(PATIENCE).expect("the request is upstream");
    proxy.publish_endpoints(&[other.address]);
    release.send(()).expect("upstream waits");
    assert_eq!(client.answer().text(), "late");
    end.recv_timeout(PATIENCE).expect("closed");
}

#[test]
fn http2_connections_end_with_their_last_stream() {
    let (release, held) = tokio::sync::watch::channel(false);
    let (arrived, waiting) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let upstream = H2Upstream::scripted(move |_, stream| {
        let (held, arrived, ended) = (held.clone(), arrived.clone(), ended.clone());
        async move {
            let mut connection = settings().handshake(stream).await.expect("handshake");
            while let Some(Ok((request, respond))) = connection.accept().await {
                let slow = request.uri().path() == "/slow";
                arrived.send(slow).expect("test waits");
                let mut held = held.clone();
                tokio::task::spawn_local(async move {
                    if slow {
                        held.wait_for(|released| *released).await.expect("released");
                    }
                    h2_peers::answer_with(respond, "x").await;
                });
            }
            let _ = ended.send(());
        }
    });
    let (other, _) = telling();
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.protocol = UpstreamProtocol::Http2;
    let proxy = setup.start();
    assert_eq!(proxy.ask(REQUEST).text(), "x");
    waiting.recv_timeout(PATIENCE).expect("one stream");
    proxy.publish_another_cluster();
    end.recv_timeout(PATIENCE).expect("nothing was under way");

    let mut client = proxy.connect();
    client.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(waiting.recv_timeout(PATIENCE), Ok(true));
    proxy.publish_endpoints(&[other.address]);
    release.send(true).expect("upstream waits");
    assert_eq!(client.answer().text(), "x");
    end.recv_timeout(PATIENCE).expect("closed with the last stream");
}

#[test]
fn an_endpoint_that_changes_its_transport_socket_is_reached_by_the_new_one() {
    let http1 = Upstream::start(|number, mut client| {
        while client.waiting() {
            client.request();
            client.send(ok(&number.to_string()).as_bytes());
        }
    });
    let http2 = H2Upstream::answering(settings(), |number, _, respond| {
        h2_peers::answer_with(respond, number.to_string())
    });
    let two_sockets = |cluster: &mut ClusterConfig| cluster.transport.sockets.push(TransportSocket::Plain);
    for (address, cluster) in [
        (http1.address, two_sockets as fn(&mut ClusterConfig)),
        (http2.address, |cluster| {
            cluster.transport.sockets.push(TransportSocket::Plain);
            cluster.protocol = UpstreamProtocol::Http2;
        }),
    ] {
        let mut setup = Setup::to(&[address]);
        setup.cluster = cluster;
        let proxy = setup.start();
        for (transport, connection) in [(0, "0"), (1, "1"), (1, "1"), (0, "2")] {
            proxy.publish_transport(&[address], transport);
            assert_eq!(proxy.ask(REQUEST).text(), connection);
        }
    }
}

#[test]
fn a_tunnel_lets_go_of_the_configuration_it_was_made_under() {
    let upstream = Upstream::start(|_, mut client| {
        if !client.head().contains("upgrade: websocket\r\n") {
            return client.send(ok("x").as_bytes());
        }
        client.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        while client.waiting() {
            let ping = client.exactly(4);
            client.send(&ping);
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut tunnel = proxy.connect();
    tunnel.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert!(tunnel.head().starts_with("HTTP/1.1 101 "));
    let old = proxy.snapshot();
    proxy.publish_endpoints(&[upstream.address]);
    // the core takes up the new one with its next request
    assert_eq!(proxy.ask(REQUEST).text(), "x");
    proxy.until("nobody holds the old one", || proxy.is_freed(&old));
    tunnel.send(b"ping");
    assert_eq!(tunnel.exactly(4), b"ping");
}
