//! Faults that are injected: how they end, and how many may be under way.

mod support;

use corelane_snapshot::{Fault, FaultDelay, Fraction, HttpConnectionManager};
use corelane_telemetry::{ClusterStat, FaultStat, HttpStat};
use std::{sync::Arc, time::Duration};
use support::{Drained, Setup, Upstream, ok};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(1_000);

fn delaying(manager: &mut HttpConnectionManager) {
    let delay = Some(FaultDelay { fixed: Some(LONG), fraction: Fraction::ALL });
    manager.filters.fault = Some(Arc::new(Fault {
        delay,
        abort: None,
        headers: Vec::new(),
        upstream_cluster: None,
        downstream_nodes: Vec::new(),
        active_max: None,
    }));
}

#[test]
fn an_injected_delay_ends_with_the_client_with_the_stream_and_with_the_drain() {
    let upstream = Upstream::answering(|_, _| ok("after all"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = delaying;
    let proxy = setup.start();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.until("it waits", || proxy.shared.requests() == 1);
    client.reset();
    proxy.until("nobody waits", || proxy.shared.requests() == 0);
    assert_eq!(proxy.http_count(HttpStat::DownstreamRqRxReset), 1);
    assert_eq!(proxy.cluster_count(|stats| stats.cluster, ClusterStat::UpstreamRqTotal), 0);
    let busy = HttpStat::DownstreamCxDestroyRemoteActiveRq;
    proxy.until("it is counted", || proxy.http_count(busy) == 1);
    assert_eq!(proxy.http_count(HttpStat::DownstreamCxDestroyActiveRq), 1);
    assert_eq!(proxy.http_count(HttpStat::DownstreamCxDestroyRemote), 1);

    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.until("it waits", || proxy.shared.requests() == 1);
    proxy.on_core(|worker| worker.begin_drain(Drained::All));
    proxy.on_core(|worker| worker.close_idle());
    assert_eq!(client.answer().text(), "after all");

    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        delaying(manager);
        manager.stream_duration_max = Some(Duration::from_millis(50));
    };
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (504, "downstream duration timeout"));
}

#[test]
fn no_more_faults_are_under_way_than_may_be_and_those_that_end_are_not() {
    let upstream = Upstream::answering(|_, _| ok("unharmed"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        delaying(manager);
        let fault = manager.filters.fault.as_mut().and_then(Arc::get_mut).expect("made just now");
        fault.active_max = Some(1);
    };
    let proxy = setup.start();
    for round in 1..=2 {
        let mut delayed = proxy.connect();
        delayed.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        proxy.until("it waits", || proxy.fault_count(FaultStat::ActiveFaults) == 1);
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "unharmed");
        assert_eq!(proxy.fault_count(FaultStat::FaultsOverflow), round);
        assert_eq!(proxy.fault_count(FaultStat::DelaysInjected), round);
        delayed.reset();
        proxy.until("none is under way", || proxy.fault_count(FaultStat::ActiveFaults) == 0);
    }
}
