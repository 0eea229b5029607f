//! How a core comes to the configuration, beside the bare operations of arc-swap, and what one change costs the
//! control thread.

use crate::traffic;
use arc_swap::{ArcSwap, cache::Cache};
use corelane_snapshot::{
    Builder, ClusterConfig, Publisher, Snapshot, StatAllocator, StatBlock, StatScope, Subscription,
};
use criterion::{BatchSize, BenchmarkGroup, Criterion, measurement::WallTime};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const CLUSTERS: u32 = 1000;
/// Subscriptions that follow one publication: enough to make the clock reads around them cheap.
const SUBSCRIPTIONS: u64 = 64;

pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    pins(&mut group);
    arc_swap_loads(&mut group);
    changes(&mut group);
    group.finish();
}

fn version(version: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.version = version;
    snapshot
}

fn pins(group: &mut BenchmarkGroup<'_, WallTime>) {
    let publisher = Publisher::new(version(1));
    let mut subscription = publisher.seed().open();
    group.bench_function("pin/unchanged", |b| b.iter(|| black_box(subscription.pin()).version));
    let mut subscriptions: Vec<Subscription> = (0..SUBSCRIPTIONS).map(|_| publisher.seed().open()).collect();
    let mut published = 1;
    group.bench_function("pin/after_publish", |b| {
        b.iter_custom(|turns| {
            let (mut left, mut taken) = (turns, Duration::ZERO);
            while left > 0 {
                published += 1;
                publisher.publish(version(published));
                let now = left.min(SUBSCRIPTIONS);
                let start = Instant::now();
                for subscription in &mut subscriptions[..now as usize] {
                    black_box(subscription.pin());
                }
                taken += start.elapsed();
                left -= now;
            }
            taken
        });
    });
    assert_eq!(subscriptions[0].pin().version, published);
}

fn arc_swap_loads(group: &mut BenchmarkGroup<'_, WallTime>) {
    let current = Arc::new(ArcSwap::from_pointee(version(1)));
    let mut cache = Cache::new(current.clone());
    group.bench_function("arc_swap/cache", |b| b.iter(|| black_box(cache.load()).version));
    group.bench_function("arc_swap/load", |b| b.iter(|| black_box(current.load()).version));
    group.bench_function("arc_swap/load_full", |b| b.iter(|| black_box(current.load_full()).version));
}

struct NoStats;

impl StatAllocator for NoStats {
    fn block(&mut self, _: StatScope) -> StatBlock {
        StatBlock::default()
    }
}

/// One cluster of 1,000 gets new endpoints; what did not change is shared with the snapshot before.
fn changes(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut builder = Builder::new(Box::new(NoStats));
    let endpoints = Arc::new(traffic::set(&traffic::hosts(2)));
    let ids: Vec<_> = (0..CLUSTERS).map(|number| builder.cluster_id(&format!("service-{number}"))).collect();
    for id in &ids {
        let config = ClusterConfig { id: *id, ..traffic::cluster_config() };
        builder.put_cluster(Arc::new(config), endpoints.clone());
    }
    let publisher = Publisher::new(builder.build().expect("within bounds"));
    let mut subscription = publisher.seed().open();
    let others = Arc::new(traffic::set(&traffic::hosts(3)));
    group.bench_function("change_of_1000_clusters", |b| {
        b.iter_batched(
            || others.clone(),
            |endpoints| {
                assert!(builder.put_endpoints(ids[0], endpoints));
                publisher.publish(builder.build().expect("within bounds"));
                black_box(subscription.pin()).version
            },
            BatchSize::SmallInput,
        );
    });
}
