//! What a cluster's configuration says of its connections.

mod support;

use corelane_telemetry::ClusterStat;
use support::{Setup, Upstream, ok};

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
