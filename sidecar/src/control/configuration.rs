//! The configuration in force and the way to change it: one builder, one publisher, changes of one moment published
//! together.

use crate::stats::Stats;
use corelane_snapshot::{Builder, Publisher, Snapshot, SubscriptionSeed};
use corelane_telemetry::{ClusterManagerStat, ClusterStat, ListenerManagerStat, ProcessStat};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};
use tokio::sync::Notify;

/// Lives on the control thread.
pub struct Configuration {
    builder: RefCell<Builder>,
    publisher: Publisher,
    stats: Stats,
    dirty: Cell<bool>,
    changed: Notify,
}

impl Configuration {
    pub fn new(builder: Builder, first: Snapshot, stats: Stats) -> Configuration {
        let configuration = Configuration {
            builder: RefCell::new(builder),
            publisher: Publisher::new(first),
            stats,
            dirty: Cell::new(false),
            changed: Notify::new(),
        };
        configuration.count();
        configuration
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }

    /// For one core.
    pub fn seed(&self) -> SubscriptionSeed {
        self.publisher.seed()
    }

    /// Changes what the next snapshot holds. It is published by [`Configuration::publish_changes`].
    pub fn change<T>(&self, change: impl FnOnce(&mut Builder) -> T) -> T {
        let changed = change(&mut self.builder.borrow_mut());
        self.dirty.set(true);
        self.changed.notify_one();
        changed
    }

    /// Publishes what was changed, if anything was.
    pub fn publish(&self) {
        if !self.dirty.replace(false) {
            return;
        }
        // bound to a name: the builder must be free again when counters are updated
        let built = self.builder.borrow_mut().build();
        match built {
            Ok(next) => {
                self.publisher.publish(next);
                self.count();
            }
            Err(error) => {
                let stats = &self.stats;
                let process = stats.registry().process();
                stats.inc(process, ProcessStat::ConfigRefused);
                tracing::error!("configuration: keeping the one in force: {error}");
            }
        }
    }

    /// Publishes changes as they come, those of one turn of the loop together. For ever.
    pub async fn publish_changes(&self) {
        loop {
            self.changed.notified().await;
            // let the tasks that are ready now add theirs
            tokio::task::yield_now().await;
            self.publish();
        }
    }

    /// Frees snapshots that cores have let go of.
    pub fn collect(&self) {
        self.publisher.collect();
    }

    fn count(&self) {
        let snapshot = self.current();
        let stats = &self.stats;
        let process = stats.registry().process();
        stats.inc(process, ProcessStat::ConfigPublished);
        stats.set(process, ProcessStat::ConfigGeneration, snapshot.version);
        let clusters = snapshot.clusters.iter().flatten().count() as u64;
        stats.set(stats.clusters, ClusterManagerStat::ActiveClusters, clusters);
        stats.set(
            stats.listeners,
            ListenerManagerStat::TotalListenersActive,
            snapshot.listeners.len() as u64,
        );
    }

    /// Brings the gauges about endpoints up to date; for a scrape.
    pub fn refresh_gauges(&self) {
        use corelane_snapshot::HealthStatus;
        use corelane_telemetry::Block;
        use std::sync::atomic::Ordering::Relaxed;
        let snapshot = self.current();
        let registry = self.stats.registry();
        for cluster in snapshot.clusters.iter().flatten() {
            let block = Block::from_raw(cluster.config.stats.cluster.0);
            let endpoints = &cluster.endpoints.endpoints;
            let usable = |wanted: HealthStatus| {
                let fits =
                    endpoints.iter().filter(|e| e.health == wanted && e.live.unhealthy.load(Relaxed) == 0);
                fits.count() as u64
            };
            let control = registry.control();
            control.gauge_set(block, ClusterStat::MembershipTotal, endpoints.len() as u64);
            control.gauge_set(block, ClusterStat::MembershipHealthy, usable(HealthStatus::Healthy));
            control.gauge_set(block, ClusterStat::MembershipDegraded, usable(HealthStatus::Degraded));
        }
    }
}
