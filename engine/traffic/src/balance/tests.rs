//! Policies over views: fairness, health, priorities, localities, subsets, slow start, minimal disruption.

use super::*;
use crate::testing::{Host, SECOND, cluster, cluster_config, host, hosts, seed, with_hosts};
use corelane_snapshot::{
    ClusterConfig, EndpointSet, HashLb, HealthStatus, LbPolicy, Locality, SlowStart, live::EndpointLive,
};
use std::{collections::HashMap, sync::atomic::Ordering::Release, time::Duration};

fn config(lb: LbPolicy) -> ClusterConfig {
    ClusterConfig { lb, ..cluster_config() }
}

fn round_robin() -> LbPolicy {
    LbPolicy::RoundRobin { slow_start: None }
}

fn least_request() -> LbPolicy {
    LbPolicy::LeastRequest { choices: 2, active_request_bias: 1.0, slow_start: None }
}

fn ring_hash() -> LbPolicy {
    LbPolicy::RingHash(HashLb {
        ring_size_min: 1024,
        ring_size_max: 8 << 20,
        maglev_table_size: 65_537,
        use_hostname: false,
    })
}

fn maglev() -> LbPolicy {
    LbPolicy::Maglev(HashLb {
        ring_size_min: 1024,
        ring_size_max: 8 << 20,
        maglev_table_size: 65_537,
        use_hostname: false,
    })
}

struct Core {
    view: ClusterView,
    rng: Rng,
}

impl Core {
    fn new(cluster: &Cluster) -> Core {
        let mut rng = Rng::new(seed());
        Core { view: ClusterView::new(cluster, 0, &mut rng), rng }
    }

    fn pick(&mut self, cluster: &Cluster, context: &PickContext<'_>) -> Option<u32> {
        pick(&mut self.view, cluster, context, &mut self.rng).endpoint().map(|endpoint| endpoint.id.0)
    }

    /// How often each host was picked, by number.
    fn spread(&mut self, cluster: &Cluster, picks: u32) -> HashMap<u32, u32> {
        let mut seen = HashMap::new();
        for _ in 0..picks {
            let host = self.pick(cluster, &PickContext::default()).unwrap();
            *seen.entry(host).or_default() += 1;
        }
        seen
    }

    fn by_key(&mut self, cluster: &Cluster, keys: u64) -> Vec<u32> {
        let key = |n: u64| PickContext { hash: Some(xxh64(&n.to_le_bytes(), 0)), ..PickContext::default() };
        (0..keys).map(|n| self.pick(cluster, &key(n)).unwrap()).collect()
    }
}

fn set_unhealthy(cluster: &Cluster, host: u32, unhealthy: bool) {
    let live = &cluster.endpoints.endpoints.iter().find(|e| e.id.0 == host).unwrap().live;
    let bits = if unhealthy { EndpointLive::FAILED_ACTIVE_HC } else { 0 };
    live.unhealthy.store(bits, Release);
    cluster.live.health_epoch.fetch_add(1, Release);
}

fn within(count: u32, expected: f64, tolerance: f64) -> bool {
    (f64::from(count) - expected).abs() <= expected * tolerance
}

#[test]
fn round_robin_is_exact() {
    let cluster = cluster(config(round_robin()), &hosts(7));
    let spread = Core::new(&cluster).spread(&cluster, 7000);
    assert!((0..7).all(|host| spread[&host] == 1000), "{spread:?}");
}

#[test]
fn round_robin_follows_weights_exactly() {
    let weights = [1, 2, 3, 10];
    let hosts: Vec<Host> = (0..4).map(|n| Host { weight: weights[n as usize], ..host(n) }).collect();
    let cluster = cluster(config(round_robin()), &hosts);
    let mut core = Core::new(&cluster);
    let spread = core.spread(&cluster, 16_000);
    for (host, weight) in (0..).zip(weights) {
        assert_eq!(spread[&host], weight * 1000, "{spread:?}");
    }
    // a round too long to lay out: turns by deadline
    let hosts = [Host { weight: 9_973, ..host(0) }, Host { weight: 3, ..host(1) }];
    let cluster = self::cluster(config(round_robin()), &hosts);
    let spread = Core::new(&cluster).spread(&cluster, 99_760);
    assert!(spread[&1].abs_diff(30) <= 1, "{spread:?}");
}

#[test]
fn cores_do_not_all_start_with_the_same_host() {
    let cluster = cluster(config(round_robin()), &hosts(8));
    let mut rng = Rng::new(seed());
    let mut first = |_| {
        let mut view = ClusterView::new(&cluster, 0, &mut rng);
        pick(&mut view, &cluster, &PickContext::default(), &mut rng).endpoint().unwrap().id.0
    };
    let firsts: std::collections::HashSet<u32> = (0..64).map(&mut first).collect();
    assert!(firsts.len() >= 6, "{firsts:?}");
}

#[test]
fn random_follows_weights() {
    let weights = [1, 2, 5];
    let hosts: Vec<Host> = (0..3).map(|n| Host { weight: weights[n as usize], ..host(n) }).collect();
    for hosts in [hosts, self::hosts(3)] {
        let cluster = cluster(config(LbPolicy::Random), &hosts);
        let total: u32 = hosts.iter().map(|host| host.weight).sum();
        let spread = Core::new(&cluster).spread(&cluster, 80_000);
        for host in &hosts {
            let expected = 80_000.0 * f64::from(host.weight) / f64::from(total);
            assert!(within(spread[&host.number], expected, 0.04), "{spread:?}");
        }
    }
}

#[test]
fn least_request_avoids_the_busy() {
    let cluster = cluster(config(least_request()), &hosts(4));
    cluster.endpoints.endpoints[2].live.requests_active.store(50, Release);
    let mut core = Core::new(&cluster);
    let spread = core.spread(&cluster, 12_000);
    assert!(!spread.contains_key(&2), "two choices are two hosts, and one is always less busy: {spread:?}");
    assert!([0, 1, 3].iter().all(|host| within(spread[host], 4_000.0, 0.1)), "{spread:?}");
    let every = LbPolicy::LeastRequest { choices: 10, active_request_bias: 1.0, slow_start: None };
    let cluster = self::cluster(config(every), &hosts(4));
    for (host, active) in [(0, 3), (1, 2), (2, 1), (3, 2)] {
        cluster.endpoints.endpoints[host].live.requests_active.store(active, Release);
    }
    assert_eq!(Core::new(&cluster).spread(&cluster, 50), HashMap::from([(2, 50)]));
}

#[test]
fn least_request_weighs_weights_against_load() {
    let hosts = [Host { weight: 4, ..host(0) }, host(1)];
    let cluster = cluster(config(least_request()), &hosts);
    let spread = Core::new(&cluster).spread(&cluster, 10_000);
    assert!(within(spread[&0], 8_000.0, 0.01), "{spread:?}");
    cluster.endpoints.endpoints[0].live.requests_active.store(3, Release);
    let spread = Core::new(&cluster).spread(&cluster, 10_000);
    assert!(within(spread[&0], 5_000.0, 0.01), "4 / (3 + 1) is 1: {spread:?}");
}

#[test]
fn unhealthy_hosts_get_nothing_until_they_are_back() {
    for lb in [round_robin(), least_request(), LbPolicy::Random, ring_hash(), maglev()] {
        let cluster = cluster(config(lb.clone()), &hosts(4));
        let mut core = Core::new(&cluster);
        core.spread(&cluster, 10);
        set_unhealthy(&cluster, 1, true);
        assert!(!core.spread(&cluster, 1000).contains_key(&1), "{lb:?}");
        set_unhealthy(&cluster, 1, false);
        assert!(core.spread(&cluster, 1000).contains_key(&1), "{lb:?}");
    }
}

#[test]
fn panic_uses_everybody() {
    for lb in [round_robin(), ring_hash(), maglev()] {
        let cluster = cluster(config(lb), &hosts(4));
        let mut core = Core::new(&cluster);
        (0..3).for_each(|host| set_unhealthy(&cluster, host, true));
        assert_eq!(core.spread(&cluster, 1000).len(), 4);
        assert_eq!(
            core.view.membership(),
            Membership { total: 4, healthy: 1, degraded: 0, excluded: 0, panic: true }
        );
        set_unhealthy(&cluster, 0, false);
        assert_eq!(core.spread(&cluster, 1000).len(), 2, "half is enough");
        assert!(!core.view.membership().panic);
    }
}

#[test]
fn nobody_is_there() {
    let empty = cluster(config(round_robin()), &[]);
    assert!(Core::new(&empty).pick(&empty, &PickContext::default()).is_none());
    let mut no_panic = config(ring_hash());
    no_panic.common_lb.healthy_panic_threshold = 0.0;
    let cluster = cluster(no_panic, &[Host { health: HealthStatus::Draining, ..host(0) }]);
    assert!(Core::new(&cluster).pick(&cluster, &PickContext::default()).is_none());
}

#[test]
fn hosts_that_wait_for_their_first_check() {
    let mut config = config(round_robin());
    config.common_lb.ignore_new_hosts_until_first_hc = true;
    let cluster = cluster(config, &hosts(10));
    for endpoint in &cluster.endpoints.endpoints[2..] {
        endpoint.live.unhealthy.store(EndpointLive::PENDING_ACTIVE_HC, Release);
    }
    let mut core = Core::new(&cluster);
    assert_eq!(core.spread(&cluster, 100).len(), 2, "eight new ones are no reason to panic");
    assert_eq!(core.view.membership().excluded, 8);
}

#[test]
fn a_retry_goes_elsewhere_and_takes_nobodys_turn() {
    for lb in [round_robin(), least_request(), LbPolicy::Random, ring_hash(), maglev()] {
        let cluster = cluster(config(lb.clone()), &hosts(3));
        let mut core = Core::new(&cluster);
        for key in 0..300 {
            let tried = [EndpointId(0), EndpointId(2)];
            let context = PickContext { tried: &tried, hash: Some(key), ..PickContext::default() };
            assert_eq!(core.pick(&cluster, &context), Some(1), "{lb:?}");
            let all = [EndpointId(0), EndpointId(1), EndpointId(2)];
            let context = PickContext { tried: &all, ..context };
            assert!(core.pick(&cluster, &context).is_some(), "better a tried one than none");
        }
    }
    let cluster = cluster(config(round_robin()), &hosts(2));
    let mut core = Core::new(&cluster);
    let mut firsts = [0; 2];
    for _ in 0..100 {
        let first = core.pick(&cluster, &PickContext::default()).unwrap();
        firsts[first as usize] += 1;
        core.pick(&cluster, &PickContext { tried: &[EndpointId(first)], ..PickContext::default() });
    }
    assert_eq!(firsts, [50, 50]);
}

#[test]
fn canaries_can_be_left_out_of_retries() {
    let hosts = [host(0), Host { canary: true, ..host(1) }, Host { canary: true, ..host(2) }];
    let cluster = cluster(config(round_robin()), &hosts);
    let mut core = Core::new(&cluster);
    let context = PickContext { omit_canary: true, ..PickContext::default() };
    assert!((0..50).all(|_| core.pick(&cluster, &context) == Some(0)));
}

#[test]
fn load_spills_over_priorities() {
    let hosts: Vec<Host> = (0..20).map(|n| Host { priority: n / 10, ..host(n) }).collect();
    let cluster = cluster(config(round_robin()), &hosts);
    let mut core = Core::new(&cluster);
    assert!(core.spread(&cluster, 1000).keys().all(|host| *host < 10));
    (0..5).for_each(|host| set_unhealthy(&cluster, host, true));
    let spread = core.spread(&cluster, 100_000);
    let first: u32 = spread.iter().filter(|(host, _)| **host < 10).map(|(_, picks)| picks).sum();
    assert!(within(first, 70_000.0, 0.02), "half of P0 at 1.4 is 70 %: {first}");
    (5..10).for_each(|host| set_unhealthy(&cluster, host, true));
    assert!(core.spread(&cluster, 1000).keys().all(|host| *host >= 10));
}

#[test]
fn a_retry_can_go_to_another_priority() {
    let hosts: Vec<Host> = (0..6).map(|n| Host { priority: n / 2, ..host(n) }).collect();
    let cluster = cluster(config(round_robin()), &hosts);
    let mut core = Core::new(&cluster);
    let mut priority = |avoid_priorities| {
        core.pick(&cluster, &PickContext { avoid_priorities, ..PickContext::default() }).unwrap() / 2
    };
    assert_eq!([0b000, 0b001, 0b011, 0b111].map(&mut priority), [0, 1, 2, 0]);
    [2, 3].into_iter().for_each(|host| set_unhealthy(&cluster, host, true));
    assert_eq!(priority(0b001), 2, "nobody healthy in P1");
}

/// Localities of the given weights, `per` hosts each.
fn localities(config: ClusterConfig, weights: &[u32], per: u32) -> Cluster {
    let hosts: Vec<Host> =
        (0..per * weights.len() as u32).map(|n| Host { locality: n / per, ..host(n) }).collect();
    let mut set: EndpointSet = crate::testing::set(&hosts);
    set.localities =
        weights.iter().map(|&weight| Locality { weight: Some(weight), ..Locality::default() }).collect();
    Cluster { config: Arc::new(config), endpoints: Arc::new(set), live: Arc::default() }
}

#[test]
fn localities_share_by_weight_and_lose_weight_with_their_hosts() {
    let mut config = config(round_robin());
    config.common_lb.locality_weighted = true;
    let cluster = localities(config, &[1, 3], 10);
    let mut core = Core::new(&cluster);
    let near = |spread: HashMap<u32, u32>| {
        spread.iter().filter(|(host, _)| **host < 10).map(|(_, n)| *n).sum::<u32>()
    };
    assert!(near(core.spread(&cluster, 40_000)).abs_diff(10_000) <= 1);
    (10..15).for_each(|host| set_unhealthy(&cluster, host, true));
    // 1 against 3 * 0.7
    assert!(within(near(core.spread(&cluster, 31_000)), 10_000.0, 0.01));
}

#[test]
fn tables_share_keys_by_weight() {
    for (lb, tolerance) in [(ring_hash(), 0.1), (maglev(), 0.05)] {
        let weights = [1, 1, 2, 4];
        let hosts: Vec<Host> = (0..4).map(|n| Host { weight: weights[n as usize], ..host(n) }).collect();
        let cluster = cluster(config(lb.clone()), &hosts);
        let keys = Core::new(&cluster).by_key(&cluster, 80_000);
        for host in 0..4u32 {
            let share = keys.iter().filter(|&&owner| owner == host).count() as u32;
            let expected = 10_000.0 * f64::from(weights[host as usize]);
            assert!(within(share, expected, tolerance), "{lb:?} host {host}: {share} of {expected}");
        }
    }
}

#[test]
fn a_key_stays_while_its_host_does() {
    const KEYS: u64 = 20_000;
    // at most 1/n of the keys, and a little more of maglev's
    for (lb, stray_max) in [(ring_hash(), 0.0), (maglev(), 0.05)] {
        let ten = cluster(config(lb.clone()), &hosts(10));
        let mut core = Core::new(&ten);
        let before = core.by_key(&ten, KEYS);
        assert_eq!(before, core.by_key(&ten, KEYS), "the same key, the same host");

        set_unhealthy(&ten, 3, true);
        let without = core.by_key(&ten, KEYS);
        let stray = before.iter().zip(&without).filter(|(old, new)| **old != 3 && old != new).count();
        assert_eq!(stray, 0, "{lb:?}: ill health moves only the keys of the ill");
        assert!(!without.contains(&3));
        set_unhealthy(&ten, 3, false);
        assert_eq!(before, core.by_key(&ten, KEYS), "{lb:?}: and they come back");

        let nine = with_hosts(&ten, &hosts(9));
        let fewer = core.by_key(&nine, KEYS);
        let stray = before.iter().zip(&fewer).filter(|(old, new)| **old != 9 && old != new).count();
        assert!(stray as f64 <= KEYS as f64 * stray_max, "{lb:?}: {stray} keys of others moved");
        let moved = before.iter().zip(&fewer).filter(|(old, new)| old != new).count();
        assert!(
            moved as f64 <= KEYS as f64 * (0.11 + stray_max),
            "{lb:?}: {moved} of {KEYS}, 1/10 is {}",
            KEYS / 10
        );
    }
}

#[test]
fn every_core_sends_a_key_to_the_same_host() {
    for lb in [ring_hash(), maglev()] {
        let cluster = cluster(config(lb), &hosts(5));
        let mut other = Core { rng: Rng::new(99), ..Core::new(&cluster) };
        assert_eq!(Core::new(&cluster).by_key(&cluster, 1000), other.by_key(&cluster, 1000));
    }
}

#[test]
fn a_new_host_starts_slowly() {
    let slow_start =
        Some(SlowStart { window: Duration::from_secs(100), aggression: 1.0, min_weight_percent: 10.0 });
    for lb in [
        LbPolicy::RoundRobin { slow_start: slow_start.clone() },
        LbPolicy::LeastRequest { choices: 2, active_request_bias: 1.0, slow_start },
    ] {
        let old = cluster(config(lb.clone()), &hosts(1));
        let mut core = Core::new(&old);
        assert_eq!(core.spread(&old, 10), HashMap::from([(0, 10)]));
        let new = with_hosts(&old, &hosts(2));
        let mut share = |from_s: u64| {
            let picks = (0..4000).filter(|_| {
                core.pick(&new, &PickContext { now_ns: from_s * SECOND, ..PickContext::default() }) == Some(1)
            });
            picks.count() as u32
        };
        assert!(within(share(1000), 4000.0 / 11.0, 0.05), "{lb:?}: a tenth of a weight");
        assert!(within(share(1050), 4000.0 / 3.0, 0.05), "{lb:?}: half a weight");
        assert!(within(share(1100), 2000.0, 0.05), "{lb:?}: all of it");
        assert!(within(share(9999), 2000.0, 0.05));
    }
}

#[test]
fn a_view_follows_the_cluster() {
    let two = cluster(config(round_robin()), &hosts(2));
    let mut core = Core::new(&two);
    assert!(!core.view.refresh(&two, 0, &mut core.rng));
    let three = with_hosts(&two, &hosts(3));
    assert!(core.view.refresh(&three, 0, &mut core.rng));
    assert_eq!(core.spread(&three, 30).len(), 3);
    let random = Cluster { config: Arc::new(config(LbPolicy::Random)), ..three.clone() };
    assert!(core.view.refresh(&random, 0, &mut core.rng));
}
