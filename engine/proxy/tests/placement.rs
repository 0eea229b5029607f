//! Connections that one core accepts and another serves.

mod support;

use corelane_snapshot::CircuitBreakers;
use corelane_telemetry::{ClusterStat, CoreStat};
use support::{Drained, Setup, Upstream, ok};

#[test]
fn connections_are_handed_to_the_core_that_has_fewer_and_are_served_there() {
    const CONNECTIONS: usize = 20;
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.cores = 2;
    let proxy = setup.start();
    // the second core accepts all
    proxy.on_core(|worker| worker.stop_accepting(Drained::All));
    proxy.until("the first has stopped", || {
        proxy.shared.listening.load(std::sync::atomic::Ordering::SeqCst) == 1
    });
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "x");
    }
    let count = |core, stat| proxy.count_of_core(core, stat);
    assert_eq!(count(1, CoreStat::ConnectionsAccepted), CONNECTIONS as u64);
    assert_eq!(count(0, CoreStat::ConnectionsAccepted), 0);
    let moved = count(1, CoreStat::ConnectionsHandedOver);
    assert_eq!(count(0, CoreStat::ConnectionsReceived), moved);
    let active = |core| count(core, CoreStat::ConnectionsActive);
    proxy.until("both show theirs", || active(0) == moved && active(0) + active(1) == CONNECTIONS as u64);
    assert!(moved.abs_diff(CONNECTIONS as u64 / 2) <= 1, "{moved} of {CONNECTIONS} were handed over");
    drop(clients);
    proxy.until("both are rid of them", || active(0) + active(1) == 0);
    assert_eq!(proxy.shared.connections(), 0);
}

#[test]
fn a_core_at_the_cap_that_all_share_gets_what_another_does_not_use() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.cores = 2;
    setup.breakers = CircuitBreakers { connections_max: 1, ..CircuitBreakers::default() };
    let proxy = setup.start();
    // one on each core
    let mut clients = [proxy.connect(), proxy.connect()];
    let active = |core| proxy.count_of_core(core, CoreStat::ConnectionsActive);
    proxy.until("each core has one", || active(0) == 1 && active(1) == 1);
    const ROUNDS: u64 = 3;
    for _ in 0..ROUNDS {
        for client in &mut clients {
            // the connection of the answer before is idle on the other core
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(client.answer().text(), "x");
        }
    }
    let count = |stat| proxy.cluster_count(|stats| stats.cluster, stat);
    assert_eq!(count(ClusterStat::UpstreamCxTotal), 2 * ROUNDS, "each core has to make its own");
    assert_eq!(count(ClusterStat::UpstreamRqPendingOverflow), 0);
}
