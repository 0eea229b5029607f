//! TCP through one hop.

mod support;

use corelane_telemetry::{ClusterStat, TcpStat};
use support::{Setup, Upstream};

fn relay(upstream: &Upstream) -> support::Proxy {
    let mut setup = Setup::to(&[upstream.address]);
    setup.tcp = true;
    setup.start()
}

#[test]
fn each_direction_ends_by_itself() {
    let upstream = Upstream::start(|_, mut client| {
        let asked = client.read_to_end();
        client.send(&asked);
        client.send(b" and more");
    });
    let proxy = relay(&upstream);
    let mut client = proxy.connect();
    client.send(b"question");
    client.half_close();
    assert_eq!(client.read_to_end(), b"question and more");
}

#[test]
fn a_server_may_speak_first() {
    let upstream = Upstream::start(|_, mut client| {
        client.send(b"220 ready\r\n");
        assert_eq!(client.exactly(4), b"QUIT");
    });
    let proxy = relay(&upstream);
    let mut client = proxy.connect();
    assert_eq!(client.exactly(11), b"220 ready\r\n");
    client.send(b"QUIT");
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn megabytes_go_both_ways_at_once() {
    let upstream = Upstream::start(|_, mut client| {
        let mut back = client.stream.try_clone().expect("clone");
        let sender = std::thread::spawn(move || std::io::Write::write_all(&mut back, &vec![b'd'; 8 << 20]));
        assert_eq!(client.exactly(8 << 20), vec![b'u'; 8 << 20]);
        sender.join().expect("thread").expect("sent");
    });
    let proxy = relay(&upstream);
    let mut client = proxy.connect();
    let mut up = client.stream.try_clone().expect("clone");
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut up, &vec![b'u'; 8 << 20]));
    assert_eq!(client.exactly(8 << 20), vec![b'd'; 8 << 20]);
    sender.join().expect("thread").expect("sent");
}

#[test]
fn bytes_are_counted_as_they_go_and_not_only_at_the_end() {
    let upstream = Upstream::start(|_, mut client| {
        assert_eq!(client.exactly(4), b"ping");
        client.send(b"answer");
        client.read_to_end();
    });
    let proxy = relay(&upstream);
    let mut client = proxy.connect();
    client.send(b"ping");
    assert_eq!(client.exactly(6), b"answer");
    let counted = || {
        (
            proxy.tcp_count(TcpStat::DownstreamCxRxBytesTotal),
            proxy.tcp_count(TcpStat::DownstreamCxTxBytesTotal),
        )
    };
    proxy.until("both directions show", || counted() == (4, 6));
    drop(client);
    proxy.until("it is over", || proxy.shared.connections() == 0);
    assert_eq!(counted(), (4, 6), "once");
    let upstream = [ClusterStat::UpstreamCxTxBytesTotal, ClusterStat::UpstreamCxRxBytesTotal];
    assert_eq!(upstream.map(|stat| proxy.cluster_count(|stats| stats.cluster, stat)), [4, 6]);
}
