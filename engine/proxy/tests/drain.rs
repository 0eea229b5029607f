//! The way out: while the process drains it answers everybody and asks them to go; what is idle at the end is closed
//! with a FIN; what is under way is finished.

mod support;

use corelane_snapshot::{Listener, TrafficDirection};
use corelane_telemetry::{HttpStat, TcpStat};
use std::{
    io::Read,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};
use support::{Client, Drained, Limits, Setup, Upstream, ok};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// The stream ends without a byte, and not by a reset.
#[track_caller]
fn ends(client: &mut Client) {
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).expect("a FIN, not a reset");
    assert_eq!(rest, b"");
}

#[test]
fn under_load_every_request_is_answered_and_nothing_is_reset() {
    const CLIENTS: usize = 8;
    /// Answers that said `connection: close` until a client stops.
    const LAST_WORDS: usize = 5;
    let upstream = Upstream::answering(|_, body| ok(&format!("{} bytes", body.len())));
    let proxy = Setup::to(&[upstream.address]).start();
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (address, answered) = (proxy.address, answered.clone());
            std::thread::spawn(move || {
                let mut last_words = 0;
                while last_words < LAST_WORDS {
                    let mut client = Client::of(TcpStream::connect(address).expect("accepted"));
                    loop {
                        if number % 2 == 0 {
                            client.send(REQUEST);
                        } else {
                            client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
                        }
                        let answer = client.answer();
                        assert_eq!(answer.text(), if number % 2 == 0 { "0 bytes" } else { "4 bytes" });
                        answered.fetch_add(1, SeqCst);
                        if answer.field("connection") == Some("close") {
                            last_words += 1;
                            ends(&mut client);
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    proxy.until("all are busy", || answered.load(SeqCst) > 40 * CLIENTS);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    for client in clients {
        client.join().expect("every request was answered");
    }
    assert!(proxy.http_count(HttpStat::DownstreamCxDrainClose) >= (CLIENTS * LAST_WORDS) as u64);
    proxy.on_core(|worker| worker.close_idle());
    proxy.until("nobody is left", || proxy.shared.connections() == 0 && proxy.shared.requests() == 0);
}

/// Parked at once, as connections are that were idle for a while.
fn parking() -> Limits {
    Limits { park_after: std::time::Duration::from_millis(20), ..Limits::default() }
}

#[test]
fn idle_connections_are_closed_at_the_end_and_not_before() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.limits = parking();
    let proxy = setup.start();
    let mut asked = proxy.connect();
    asked.send(REQUEST);
    asked.answer();
    let mut silent = proxy.connect();
    proxy.until("both are served", || proxy.shared.connections() == 2);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    // still served, and told to go
    let late = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((late.text(), late.field("connection")), ("x", Some("close")));
    proxy.until("that one is gone", || proxy.shared.connections() == 2);
    proxy.on_core(|worker| worker.close_idle());
    ends(&mut asked);
    ends(&mut silent);
    drop((asked, silent));
    proxy.until("nobody is left", || proxy.shared.connections() == 0);
}

#[test]
fn a_drain_of_inbound_listeners_leaves_the_others_alone() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let start = |direct: fn(&mut Listener)| {
        let mut setup = Setup::to(&[upstream.address]);
        setup.listener = direct;
        setup.start()
    };
    let inbound = start(|listener| listener.direction = TrafficDirection::Inbound);
    let outbound = start(|listener| listener.direction = TrafficDirection::Outbound);
    let says = |proxy: &support::Proxy| {
        proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").field("connection").map(str::to_owned)
    };
    for proxy in [&inbound, &outbound] {
        proxy.on_core(|worker| worker.begin_drain(Drained::Inbound));
    }
    assert_eq!((says(&inbound).as_deref(), says(&outbound)), (Some("close"), None));
    for proxy in [&inbound, &outbound] {
        proxy.on_core(|worker| {
            worker.stop_accepting(Drained::Inbound);
            // a later configuration does not bring back what was stopped
            worker.reconcile().expect("nothing to bind");
        });
    }
    inbound.until("its socket is closed", || TcpStream::connect(inbound.address).is_err());
    assert_eq!(says(&outbound), None);
    outbound.on_core(|worker| worker.begin_drain(Drained::All));
    assert_eq!(says(&outbound).as_deref(), Some("close"));
}

#[test]
fn the_flags_alone_are_heard_too() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.limits = parking();
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(REQUEST);
    client.answer();
    // as a control thread does that cannot reach the core
    proxy.shared.drain(Drained::All);
    proxy.shared.closing.store(true, SeqCst);
    ends(&mut client);
}

#[test]
fn what_is_under_way_is_finished_and_told_to_go() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (arrived, waiting) = mpsc::channel();
    let upstream = Upstream::answering(move |_, _| {
        arrived.send(()).expect("test waits");
        held.lock().expect("lock").recv().expect("released");
        ok("finished")
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(REQUEST);
    waiting.recv_timeout(support::PATIENCE).expect("the request is upstream");
    assert_eq!(proxy.shared.requests(), 1);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    proxy.on_core(|worker| worker.close_idle());
    release.send(()).expect("upstream waits");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.field("connection")), ("finished", Some("close")));
    ends(&mut client);
    drop(client);
    proxy.until("nobody is left", || proxy.shared.connections() == 0 && proxy.shared.requests() == 0);
}

#[test]
fn a_tunnel_is_closed_at_the_end() {
    for tcp in [false, true] {
        let closed = Arc::new(AtomicBool::new(false));
        let seen = closed.clone();
        let upstream = Upstream::start(move |_, mut client| {
            if !tcp {
                client.head();
                client.send(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                );
            }
            client.send(b"hello");
            assert_eq!(client.read_to_end(), b"");
            seen.store(true, SeqCst);
        });
        let mut setup = Setup::to(&[upstream.address]);
        setup.tcp = tcp;
        let proxy = setup.start();
        let mut client = proxy.connect();
        if !tcp {
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            client.head();
        }
        assert_eq!(client.exactly(5), b"hello");
        proxy.on_core(|worker| worker.begin_drain(Drained::All));
        assert_eq!(proxy.shared.requests(), 1, "a drain alone does not end it");
        proxy.on_core(|worker| worker.close_idle());
        ends(&mut client);
        proxy.until("upstream sees the end", || closed.load(SeqCst));
        proxy.until("nobody is left", || proxy.shared.connections() == 0 && proxy.shared.requests() == 0);
        if tcp {
            assert_eq!(proxy.tcp_count(TcpStat::DownstreamCxDrainClose), 1);
        }
    }
}

#[test]
fn what_waits_to_be_accepted_when_listeners_stop_is_served_and_what_is_silent_is_closed() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let proxy = Setup::to(&[upstream.address]).start();
    let (connected, all) = mpsc::channel::<()>();
    let (blocked, ready) = mpsc::channel();
    let address = proxy.address;
    let clients = std::thread::spawn(move || {
        ready.recv_timeout(support::PATIENCE).expect("the core stands still");
        let connect = |_| Client::of(TcpStream::connect(address).expect("queued"));
        let mut clients: Vec<_> = (0..8).map(connect).collect();
        clients.iter_mut().step_by(2).for_each(|client| client.send(REQUEST));
        connected.send(()).expect("the core waits");
        clients
    });
    proxy.on_core(move |worker| {
        blocked.send(()).expect("test waits");
        all.recv_timeout(support::PATIENCE).expect("all wait in the queue");
        worker.begin_drain(Drained::All);
        worker.close_idle();
        worker.stop_accepting(Drained::All);
    });
    for (number, client) in clients.join().expect("clients").iter_mut().enumerate() {
        if number % 2 == 0 {
            let answer = client.answer();
            assert_eq!((answer.text(), answer.field("connection")), ("x", Some("close")));
        }
        ends(client);
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    proxy.until("nobody is left", || proxy.shared.is_deserted());
}

#[test]
fn a_process_is_not_deserted_while_somebody_waits_to_be_accepted() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let proxy = Setup::to(&[upstream.address]).start();
    let (address, shared) = (proxy.address, proxy.shared.clone());
    let (stopped, wait) = mpsc::channel::<()>();
    let (blocked, ready) = mpsc::channel();
    let late = std::thread::spawn(move || {
        ready.recv_timeout(support::PATIENCE).expect("the core stands still");
        let mut late = Client::of(TcpStream::connect(address).expect("queued"));
        late.send(REQUEST);
        assert_eq!(shared.connections(), 0);
        assert!(!shared.is_deserted(), "one is in the queue");
        stopped.send(()).expect("the core waits");
        late
    });
    proxy.on_core(move |worker| {
        blocked.send(()).expect("test waits");
        wait.recv_timeout(support::PATIENCE).expect("it waits in the queue");
        worker.stop_accepting(Drained::All);
    });
    let mut late = late.join().expect("queued");
    proxy.until("the socket is closed", || proxy.shared.listening.load(SeqCst) == 0);
    assert!(proxy.shared.connections() == 1 && !proxy.shared.is_deserted());
    assert_eq!(late.answer().text(), "x");
    drop(late);
    proxy.until("nobody is left", || proxy.shared.is_deserted());
}
