//! Streams and listeners over loopback, on both event loops.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use corelane_runtime::net::{ConnectOptions, Keepalive, ListenOptions, Listener, PeerState, TcpStream};
use corelane_runtime::testing::on_both_drivers;
use corelane_runtime::{Buf, Core};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Far beyond what any of these tests takes.
const LONG: Duration = Duration::from_secs(60);

fn listen(core: &Core) -> Listener {
    Listener::bind(core, ANY, &ListenOptions::default()).expect("bind")
}

async fn connect(core: &Core, to: SocketAddr) -> TcpStream {
    TcpStream::connect(core, to, &ConnectOptions::default()).await.expect("connect")
}

/// Two ends of one connection: (accepted, connected).
async fn pair(core: &Core) -> (TcpStream, TcpStream) {
    let listener = listen(core);
    let client = connect(core, listener.local_addr()).await;
    let server = listener.accept().await.expect("accept").into_stream(core).expect("stream");
    (server, client)
}

fn filled(core: &Core, bytes: &[u8]) -> Buf {
    let mut buf = core.buffers().take_sized(bytes.len());
    assert_eq!(buf.extend_from_slice(bytes), bytes.len());
    buf
}

async fn send(core: &Core, stream: &TcpStream, bytes: &[u8]) {
    let (result, buf) = stream.write_all(filled(core, bytes)).await;
    result.expect("write");
    assert_eq!(buf.filled(), bytes, "a written buffer comes back as it was");
}

/// Reads until `n` bytes came or the stream ended.
async fn receive(core: &Core, stream: &TcpStream, n: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < n {
        let (result, buf) = stream.read(core.buffers().take()).await;
        if result.expect("read") == 0 {
            break;
        }
        all.extend_from_slice(buf.filled());
    }
    all
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn echoes_more_than_the_socket_buffers_hold() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let (echo_core, sent) = (core.clone(), pattern(8 << 20));
        core.spawn(async move {
            loop {
                let (result, buf) = server.read(echo_core.buffers().take()).await;
                if result.expect("read") == 0 {
                    break;
                }
                server.write_all(buf).await.0.expect("write");
            }
        });
        let client = Rc::new(client);
        let (writer_core, writer, bytes) = (core.clone(), client.clone(), sent.clone());
        core.spawn(async move { send(&writer_core, &writer, &bytes).await });
        assert!(receive(&core, &client, sent.len()).await == sent);
    });
}

#[test]
fn a_pair_arrives_in_order_however_it_is_split() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let sizes = [(0, 0), (0, 5), (7, 0), (100, 1000), (200, 4 << 20)];
        let total: usize = sizes.iter().map(|(head, body)| head + body).sum();
        let mut expected = Vec::new();
        for (head, body) in sizes {
            expected.extend(pattern(head));
            expected.extend(pattern(body));
        }
        let writer_core = core.clone();
        core.spawn(async move {
            for (head, body) in sizes {
                let (head, body) = (pattern(head), pattern(body));
                let (result, head_back, body_back) =
                    client.write_all_pair(filled(&writer_core, &head), filled(&writer_core, &body)).await;
                result.expect("write");
                assert!(head_back.filled() == head && body_back.filled() == body);
            }
        });
        assert!(receive(&core, &server, total).await == expected);
    });
}

#[test]
fn half_close_leaves_the_other_direction_open() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        send(&core, &client, b"question").await;
        client.shutdown_write().expect("shutdown");
        assert_eq!(receive(&core, &server, usize::MAX).await, b"question");
        send(&core, &server, b"answer").await;
        drop(server);
        assert_eq!(receive(&core, &client, usize::MAX).await, b"answer");
    });
}

#[test]
fn a_reset_reaches_the_peer_and_ends_our_own_pending_read() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let server = Rc::new(server);
        let (reader_core, reader) = (core.clone(), server.clone());
        let ended = Rc::new(std::cell::Cell::new(false));
        let mark = ended.clone();
        core.spawn(async move {
            let (result, _) = reader.read(reader_core.buffers().take()).await;
            assert!(!matches!(result, Ok(n) if n > 0));
            mark.set(true);
        });
        core.yield_now().await;
        server.reset();
        let (result, _) = client.read(core.buffers().take()).await;
        assert_eq!(result.expect_err("reset").kind(), ErrorKind::ConnectionReset);
        while !ended.get() {
            core.timers().sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_read_without_room_is_refused_rather_than_an_end() {
    on_both_drivers(|core| async move {
        let (server, _client) = pair(&core).await;
        let full = filled(&core, &pattern(core.buffers().buffer_bytes()));
        let (result, mut buf) = server.read(full).await;
        assert_eq!(result.expect_err("no room").kind(), ErrorKind::InvalidInput);
        assert_eq!(server.try_read(&mut buf).expect_err("no room").kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn reads_append_and_respect_the_room() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        send(&core, &client, b"abcdef").await;
        let mut buf = filled(&core, &pattern(core.buffers().buffer_bytes() - 4));
        let before = buf.filled().to_vec();
        let result;
        (result, buf) = server.read(buf).await;
        assert_eq!(result.expect("read"), 4);
        assert_eq!(buf.filled()[before.len()..], *b"abcd");
        assert_eq!(receive(&core, &server, 2).await, b"ef");
    });
}

#[test]
fn immediate_reads_and_writes_do_not_wait() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let mut buf = core.buffers().take();
        assert_eq!(server.try_read(&mut buf).expect_err("empty").kind(), ErrorKind::WouldBlock);
        assert_eq!(client.try_write(b"now").expect("write"), 3);
        server.readable().await.expect("readable");
        assert_eq!(server.try_read(&mut buf).expect("read"), 3);
        assert_eq!(buf.filled(), b"now");
        let block = pattern(1 << 20);
        let full = loop {
            if let Err(error) = client.try_write(&block) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let drain_core = core.clone();
        core.spawn(async move { drop(receive(&drain_core, &server, usize::MAX).await) });
        client.writable().await.expect("writable");
    });
}

#[test]
fn the_state_of_an_idle_peer_is_seen_without_reading() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        assert_eq!(client.peer_state(), PeerState::Quiet);
        send(&core, &server, b"x").await;
        client.readable().await.expect("readable");
        assert_eq!(client.peer_state(), PeerState::Readable);
        assert_eq!(receive(&core, &client, 1).await, b"x");
        drop(server);
        client.readable().await.expect("readable");
        assert_eq!(client.peer_state(), PeerState::Closed);
    });
}

#[test]
fn a_failed_connection_is_told_from_a_half_closed_one() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        assert!(!client.has_failed());
        server.shutdown_write().expect("shutdown");
        client.readable().await.expect("readable");
        assert!(client.peer_state() == PeerState::Closed && !client.has_failed());
        server.reset();
        while !client.has_failed() {
            core.timers().sleep(Duration::from_millis(1)).await;
        }
        let error = client.write_all(filled(&core, b"late")).await.0.expect_err("reset");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    });
}

#[test]
fn a_connection_refused_is_an_error() {
    on_both_drivers(|core| async move {
        // A dropped listener is gone at once.
        let addr = listen(&core).local_addr();
        let error = TcpStream::connect(&core, addr, &ConnectOptions::default()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connect_options_are_applied() {
    on_both_drivers(|core| async move {
        let listener = listen(&core);
        let options = ConnectOptions {
            bind: Some(SocketAddr::from(([127, 0, 0, 9], 0))),
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(30),
                interval: Duration::from_secs(5),
                probes: 3,
            }),
            ..ConnectOptions::default()
        };
        let client = TcpStream::connect(&core, listener.local_addr(), &options).await.expect("connect");
        let accepted = listener.accept().await.expect("accept");
        assert_eq!(accepted.peer, client.local_addr().expect("local"));
        assert_eq!(accepted.peer.ip().to_string(), "127.0.0.9");
        assert_eq!(client.peer_addr().expect("peer"), listener.local_addr());
        let socket = socket2::SockRef::from(&accepted.fd);
        assert!(socket.tcp_nodelay().expect("option"), "inherited from the listener");
    });
}

#[test]
fn without_redirection_there_is_no_original_destination() {
    on_both_drivers(|core| async move {
        let (server, _client) = pair(&core).await;
        // With connection tracking loaded the kernel names the address itself.
        let own = server.local_addr().expect("local");
        assert!(server.original_dst().is_none_or(|dst| dst == own));
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0));
        if let Ok(listener) = Listener::bind(&core, v6, &ListenOptions::default()) {
            let client = connect(&core, listener.local_addr()).await;
            let own = client.local_addr().expect("local");
            assert!(client.original_dst().is_none_or(|dst| dst == own));
        }
    });
}

#[test]
fn a_parked_read_gives_its_buffer_back_and_loses_no_byte() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let sent = pattern(3000);
        let (writer_core, bytes) = (core.clone(), sent.clone());
        core.spawn(async move {
            for chunk in bytes.chunks(100) {
                // Sometimes before the read parks, sometimes after, sometimes as it does.
                writer_core.timers().sleep(Duration::from_millis(u64::from(chunk[0]) % 4)).await;
                send(&writer_core, &client, chunk).await;
            }
        });
        let mut all = Vec::new();
        loop {
            let buf = server.read_parking(&core, Duration::from_millis(1)).await.expect("read");
            if buf.is_empty() {
                break;
            }
            all.extend_from_slice(buf.filled());
        }
        assert!(all == sent);
    });
}

#[test]
fn an_idle_parked_read_holds_no_buffer_until_bytes_come() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let (reader_core, got) = (core.clone(), Rc::new(std::cell::RefCell::new(None)));
        let sink = got.clone();
        core.spawn(async move {
            let buf = server.read_parking(&reader_core, Duration::from_millis(2)).await.expect("read");
            sink.replace(Some(buf.filled().to_vec()));
        });
        core.yield_now().await;
        assert_eq!(core.buffers().stats().in_use, 1);
        while core.buffers().stats().in_use > 0 {
            core.timers().sleep(Duration::from_millis(1)).await;
        }
        assert!(got.borrow().is_none());
        send(&core, &client, b"late").await;
        while got.borrow().is_none() {
            core.timers().sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(got.borrow().as_deref(), Some(&b"late"[..]));
    });
}

#[test]
fn bytes_that_race_with_parking_are_kept() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        for round in 0..300u32 {
            let (writer_core, word) = (core.clone(), round.to_be_bytes());
            // The write is due in the same turn as the cancellation.
            let at = core.now() + Duration::from_millis(2);
            let writing = async {
                writer_core.timers().sleep_until(at).await;
                client.try_write(&word).expect("write")
            };
            let reading = server.read_parking(&core, Duration::from_millis(2));
            let (_, buf) = both(writing, reading).await;
            assert_eq!(buf.expect("read").filled(), word);
        }
    });
}

/// Polls both until both are done.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut got_a, mut got_b) = (None, None);
    std::future::poll_fn(|cx| {
        if got_a.is_none()
            && let std::task::Poll::Ready(value) = a.as_mut().poll(cx)
        {
            got_a = Some(value);
        }
        if got_b.is_none()
            && let std::task::Poll::Ready(value) = b.as_mut().poll(cx)
        {
            got_b = Some(value);
        }
        match (got_a.take(), got_b.take()) {
            (Some(a), Some(b)) => std::task::Poll::Ready((a, b)),
            (a, b) => {
                (got_a, got_b) = (a, b);
                std::task::Poll::Pending
            }
        }
    })
    .await
}

#[test]
fn a_dropped_operation_returns_its_buffer() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let at = core.now() + Duration::from_millis(2);
        let read = core.timers().timeout(at, server.read(core.buffers().take())).await;
        assert!(read.is_err(), "nothing was sent");
        let block = filled(&core, &pattern(16 << 20));
        let at = core.now() + Duration::from_millis(2);
        assert!(core.timers().timeout(at, client.write_all(block)).await.is_err(), "nobody reads");
        drop((server, client));
        while core.buffers().stats().in_use > 0 {
            core.timers().sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    on_both_drivers(|core| async move {
        let listener = listen(&core);
        let addr = listener.local_addr();
        let server_core = core.clone();
        core.spawn(async move {
            loop {
                let accepted = listener.accept().await.expect("accept");
                let (stream, core) =
                    (accepted.into_stream(&server_core).expect("stream"), server_core.clone());
                server_core.spawn(async move {
                    loop {
                        let buf = stream.read_parking(&core, LONG).await.expect("read");
                        if buf.is_empty() {
                            break;
                        }
                        stream.write_all(buf).await.0.expect("write");
                    }
                });
            }
        });
        let done = Rc::new(std::cell::Cell::new(0));
        for id in 0..1000u32 {
            let (core, done) = (core.clone(), done.clone());
            core.clone().spawn(async move {
                let client = connect(&core, addr).await;
                for round in 0..3u32 {
                    let word = (id * 3 + round).to_be_bytes();
                    send(&core, &client, &word).await;
                    assert_eq!(receive(&core, &client, 4).await, word);
                }
                done.set(done.get() + 1);
            });
        }
        while done.get() < 1000 {
            assert_eq!(core.stats().tasks_panicked, 0);
            core.timers().sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_waiting_accept_may_be_dropped() {
    on_both_drivers(|core| async move {
        let listener = listen(&core);
        let at = core.now() + Duration::from_millis(2);
        assert!(core.timers().timeout(at, listener.accept()).await.is_err());
        let client = connect(&core, listener.local_addr()).await;
        let accepted = listener.accept().await.expect("accept");
        assert_eq!(accepted.peer, client.local_addr().expect("local"));
    });
}

#[test]
fn connections_that_wait_can_be_taken_before_the_listener_goes() {
    on_both_drivers(|core| async move {
        let listener = listen(&core);
        assert!(listener.try_accept().expect("accept").is_none());
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(connect(&core, listener.local_addr()).await);
        }
        let mut taken = Vec::new();
        while let Some(accepted) = listener.try_accept().expect("accept") {
            taken.push(accepted.into_stream(&core).expect("stream"));
        }
        drop(listener);
        assert_eq!(taken.len(), clients.len());
        for (server, client) in taken.iter().zip(&clients) {
            send(&core, server, b"still").await;
            assert_eq!(receive(&core, client, 5).await, b"still");
        }
    });
}

#[test]
fn writing_to_a_closed_connection_is_an_error_and_no_signal() {
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        server.reset();
        client.readable().await.expect("readable");
        let error: io::Error = loop {
            let (head, body) = (filled(&core, b"head"), filled(&core, b"body"));
            if let (Err(error), ..) = client.write_all_pair(head, body).await {
                break error;
            }
        };
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let error = client.write_all(filled(&core, b"more")).await.0.expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_flow_that_never_waits_lets_others_have_their_turn() {
    const PIECES: usize = 64;
    on_both_drivers(|core| async move {
        let (server, client) = pair(&core).await;
        let turns = Rc::new(std::cell::Cell::new(0));
        let (other, counted) = (core.clone(), turns.clone());
        core.spawn(async move {
            loop {
                other.yield_now().await;
                counted.set(counted.get() + 1);
            }
        });
        let reader = core.clone();
        core.spawn(async move { drop(receive(&reader, &client, usize::MAX).await) });
        for _ in 0..PIECES {
            send(&core, &server, &pattern(8 << 10)).await;
        }
        // three waits, the first of which may fall in the turn in which the other begins
        assert!(turns.get() >= 2, "{} turns", turns.get());
    });
}
