//! What a cluster's configuration says of its connections, and what is counted of them.

mod support;

use corelane_snapshot::ClusterKind;
use corelane_telemetry::ClusterStat;
use std::{
    io::{Read, Write},
    sync::{Mutex, mpsc},
    time::Duration,
};
use support::{Client, PATIENCE, Proxy, Setup, Upstream, ok};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn a_transport_socket_that_is_not_there_is_no_plain_one() {
    let upstream = Upstream::answering(|_, _| ok("in plain text"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.transport.sockets.clear();
    let proxy = setup.start();
    assert_eq!(proxy.ask(GET).status, 503);
    assert_eq!(proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamCxConnectFail), 1);
}

#[test]
fn an_answer_with_more_header_lines_than_the_cluster_allows_is_502() {
    let fields = |count: usize| "x-a: b\r\n".repeat(count);
    let upstream = Upstream::answering(move |head, _| {
        let more = fields(if head.contains("/many") { 3 } else { 2 });
        format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{more}\r\n")
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.cluster = |cluster| cluster.pool.header_fields_max = 3;
    let proxy = setup.start();
    assert_eq!(proxy.ask(GET).status, 200);
    assert_eq!(proxy.ask("GET /many HTTP/1.1\r\nhost: a\r\n\r\n").status, 502);
    assert_eq!(proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamCxProtocolError), 1);
}

fn counts<const N: usize>(proxy: &Proxy, stats: [ClusterStat; N]) -> [u64; N] {
    stats.map(|stat| proxy.cluster_count(|stats| stats.cluster, stat))
}

#[test]
fn the_bytes_of_a_cluster_are_those_on_the_wire() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (seen, bytes) = mpsc::channel();
    let upstream = Upstream::start(move |_, mut client| {
        while client.waiting() {
            let (head, body) = client.request();
            seen.send((head.len() + body.len()) as u64).expect("test waits");
            // in two pieces, the second of which comes as a read of its own
            client.send(&ANSWER.as_bytes()[..60]);
            client.send(&ANSWER.as_bytes()[60..]);
        }
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    let long = "a".repeat(200_000);
    for body in ["", "keep this", &long] {
        let length = body.len();
        client
            .send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes());
        assert_eq!(client.answer().text(), "hello");
    }
    let sent: u64 = bytes.iter().take(3).sum();
    let both = [ClusterStat::UpstreamCxTxBytesTotal, ClusterStat::UpstreamCxRxBytesTotal];
    proxy.until("counted", || counts(&proxy, both) == [sent, 3 * ANSWER.len() as u64]);
}

/// What an upload leaves behind that breaks off: read to its end.
fn bytes_of(mut client: Client) -> u64 {
    let mut bytes = 0;
    while let Ok(n @ 1..) = client.stream.read(&mut [0; 65_536]) {
        bytes += n as u64;
    }
    bytes
}

#[test]
fn an_upload_that_breaks_off_counts_what_went_out() {
    const HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n";
    let (seen, bytes) = mpsc::channel();
    let upstream = Upstream::start(move |_, client| seen.send(bytes_of(client)).expect("test waits"));
    let proxy = Setup::to(&[upstream.address]).start();
    let sent = |proxy: &Proxy| counts(proxy, [ClusterStat::UpstreamCxTxBytesTotal])[0];
    let mut all = 0;
    // a head alone, a piece, more than one buffer
    for body in [0, 5, 100_000] {
        let mut client = proxy.connect();
        client.send(HEAD.as_bytes());
        client.send(&vec![b'a'; body]);
        proxy.until("it is under way", || proxy.shared.requests() == 1);
        drop(client);
        all += bytes.recv_timeout(PATIENCE).expect("the upstream's end");
        proxy.until("counted", || sent(&proxy) == all);
    }
}

/// An upstream that takes some of it, and no more: the rest is not sent, and not counted.
#[test]
fn an_upload_that_the_upstream_does_not_take_counts_what_the_kernel_took() {
    let (given_up, wait) = mpsc::channel();
    let (seen, bytes) = mpsc::channel();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_, client| {
        wait.lock().expect("one").recv_timeout(PATIENCE).expect("the proxy gives up");
        seen.send(bytes_of(client)).expect("test waits");
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.stream_idle_timeout = Some(Duration::from_millis(200));
    let proxy = setup.start();
    let mut client = proxy.connect();
    let mut sink = client.stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n";
        // until the proxy closes
        let _ = sink.write_all(head.as_bytes()).and_then(|()| sink.write_all(&vec![b'a'; 99_999_999]));
    });
    assert_eq!(client.try_answer(), Some(408));
    proxy.until("it is over", || counts(&proxy, [ClusterStat::UpstreamCxDestroy]) == [1]);
    // a turn of the loop, in which the write that was given up is taken back from the ring
    proxy.on_core(|_| ());
    proxy.on_core(|_| ());
    given_up.send(()).expect("the upstream waits");
    let all = bytes.recv_timeout(PATIENCE).expect("the upstream's end");
    assert_eq!(counts(&proxy, [ClusterStat::UpstreamCxTxBytesTotal]), [all]);
}

#[test]
fn who_ends_a_connection_is_counted_with_how_long_it_was_and_what_it_carried() {
    use ClusterStat as Stat;
    let ends = [
        Stat::UpstreamCxDestroyRemote,
        Stat::UpstreamCxDestroyRemoteWithActiveRq,
        Stat::UpstreamCxDestroyLocal,
        Stat::UpstreamCxDestroyWithActiveRq,
        Stat::UpstreamCxCloseNotify,
    ];
    for (answer, requests, expected) in [
        // it says that it closes; we do, and nothing is under way
        (Some("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx"), 1, [0, 0, 1, 0, 1]),
        // the end of the connection is the end of the answer
        (Some("HTTP/1.1 200 OK\r\n\r\nx"), 1, [1, 0, 0, 0, 0]),
        // in the middle of an answer
        (Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx"), 1, [1, 1, 0, 1, 0]),
        // instead of one
        (None, 1, [1, 1, 0, 1, 0]),
        // what is no answer
        (Some("SMTP\r\n\r\n"), 1, [0, 0, 1, 1, 0]),
    ] {
        let upstream = Upstream::start(move |_, mut client| {
            client.request();
            if let Some(answer) = answer {
                client.send(answer.as_bytes());
            }
        });
        let proxy = Setup::to(&[upstream.address]).start();
        let mut client = proxy.connect();
        client.send(GET.as_bytes());
        client.try_answer().expect("an answer");
        proxy.until("it ends", || counts(&proxy, [Stat::UpstreamCxDestroy]) == [1]);
        assert_eq!(counts(&proxy, ends), expected, "{answer:?}");
        assert_eq!(counts(&proxy, [Stat::UpstreamCxHttp1Total]), [1]);
        assert_eq!(proxy.cluster_records(Stat::UpstreamRqPerCx), (1, requests));
        assert_eq!(proxy.cluster_records(Stat::UpstreamCxLengthMs).0, 1);
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_told_from_an_endpoint_that_is_not_there() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    // TEST-NET-1, which no host has
    setup.cluster = |cluster| cluster.bind = Some(([192, 0, 2, 1], 0).into());
    let proxy = setup.start();
    assert_eq!(proxy.ask(GET).status, 503);
    let both = [ClusterStat::BindErrors, ClusterStat::UpstreamCxConnectFail];
    assert_eq!(counts(&proxy, both), [1, 1]);
}

#[test]
fn a_header_that_names_no_address_is_counted_and_goes_nowhere() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[]);
    setup.cluster = |cluster| {
        cluster.kind = ClusterKind::OriginalDst { port: None, http_header: Some("x-to".into()) };
    };
    let proxy = setup.start();
    let to = |address: &str| proxy.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-to: {address}\r\n\r\n"));
    assert_eq!(to(&upstream.address.to_string()).text(), "x");
    assert_eq!(counts(&proxy, [ClusterStat::OriginalDstHostInvalid]), [0]);
    assert_eq!(to("payments").status, 503);
    assert_eq!(counts(&proxy, [ClusterStat::OriginalDstHostInvalid]), [1]);
}
