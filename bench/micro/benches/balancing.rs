//! Which of 50 endpoints takes the next request, and what a change of health costs the first pick after it.

use crate::traffic::{self, Host};
use corelane_snapshot::{Cluster, ClusterConfig, EndpointId, HashLb, LbPolicy};
use corelane_traffic::{ClusterView, Pick, PickContext, Rng, pick};
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use std::{hint::black_box, sync::atomic::Ordering::Relaxed};

const ENDPOINTS: u32 = 50;
/// Envoy's default sizes.
const HASH: HashLb =
    HashLb { ring_size_min: 1024, ring_size_max: 8 << 20, maglev_table_size: 65_537, use_hostname: false };

pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balancing");
    let policies = [
        ("round_robin", LbPolicy::RoundRobin { slow_start: None }),
        ("least_request", LbPolicy::LeastRequest { choices: 2, active_request_bias: 1.0, slow_start: None }),
        ("random", LbPolicy::Random),
        ("ring_hash", LbPolicy::RingHash(HASH)),
        ("maglev", LbPolicy::Maglev(HASH)),
    ];
    for (name, policy) in &policies {
        for (weights, weighted) in [("equal", false), ("weighted", true)] {
            picks(&mut group, &format!("{name}/{weights}"), &cluster(policy, weighted), &[]);
        }
    }
    let round_robin = cluster(&policies[0].1, false);
    picks(&mut group, "round_robin/retry", &round_robin, &[EndpointId(1), EndpointId(2)]);
    health_change(&mut group, "round_robin/health_change", &round_robin);
    health_change(&mut group, "round_robin/weighted_health_change", &cluster(&policies[0].1, true));
    health_change(&mut group, "maglev/health_change", &cluster(&policies[4].1, false));
    group.finish();
}

fn cluster(policy: &LbPolicy, weighted: bool) -> Cluster {
    let weight = |number: u32| if weighted { 1 + number % 5 } else { 1 };
    let host = |number| Host { weight: weight(number), ..traffic::host(number) };
    let hosts: Vec<Host> = (0..ENDPOINTS).map(host).collect();
    let cluster = traffic::cluster(ClusterConfig { lb: policy.clone(), ..traffic::cluster_config() }, &hosts);
    for (endpoint, active) in cluster.endpoints.endpoints.iter().zip((0u32..7).cycle()) {
        endpoint.live.requests_active.store(active, Relaxed);
    }
    cluster
}

/// A hash costs a draw here in place of the hashing of a header.
fn picks(group: &mut BenchmarkGroup<'_, WallTime>, id: &str, cluster: &Cluster, tried: &[EndpointId]) {
    let mut rng = Rng::new(1);
    let mut view = ClusterView::new(cluster, 0, &mut rng);
    group.bench_function(id, |b| {
        b.iter(|| {
            let context = PickContext { hash: Some(rng.next_u64()), tried, ..PickContext::default() };
            black_box(pick(&mut view, black_box(cluster), &context, &mut rng)).endpoint().is_some()
        });
    });
    let context = PickContext { hash: Some(1), tried, ..PickContext::default() };
    assert!(matches!(pick(&mut view, cluster, &context, &mut rng), Pick::Endpoint(_)));
}

/// The view is made anew at each pick.
fn health_change(group: &mut BenchmarkGroup<'_, WallTime>, id: &str, cluster: &Cluster) {
    let mut rng = Rng::new(1);
    let mut view = ClusterView::new(cluster, 0, &mut rng);
    group.bench_function(id, |b| {
        b.iter(|| {
            cluster.live.health_epoch.fetch_add(1, Relaxed);
            let context = PickContext { hash: Some(rng.next_u64()), ..PickContext::default() };
            black_box(pick(&mut view, black_box(cluster), &context, &mut rng)).endpoint().is_some()
        });
    });
}
