//! The configuration in force and the way to change it: one builder, one publisher, changes of one moment published
//! together.

use super::retire::Retirement;
use crate::stats::Stats;
use corelane_snapshot::{Builder, Cluster, Endpoint, HealthStatus, Publisher, Snapshot, SubscriptionSeed};
use corelane_telemetry::{
    Block, ClusterCircuitStat, ClusterManagerStat, ClusterOutlierStat, ClusterRemainingStat, ClusterStat,
    ListenerManagerStat, ProcessStat,
};
use corelane_traffic::breaker::{self, Limit};
use std::{
    cell::{Cell, RefCell},
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::sync::Notify;

/// Lives on the control thread.
pub struct Configuration {
    builder: RefCell<Builder>,
    publisher: Publisher,
    stats: Stats,
    retirement: RefCell<Retirement>,
    dirty: Cell<bool>,
    /// What the builder holds could not be published.
    refused: Cell<bool>,
    changed: Notify,
}

impl Configuration {
    pub fn new(builder: Builder, first: Snapshot, stats: Stats) -> Configuration {
        let configuration = Configuration {
            builder: RefCell::new(builder),
            publisher: Publisher::new(first),
            stats,
            retirement: RefCell::default(),
            dirty: Cell::new(false),
            refused: Cell::new(false),
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
        self.refused.set(built.is_err());
        match built {
            Ok(next) => {
                self.retirement.borrow_mut().replaced(&self.current(), &next);
                self.publisher.publish(next);
                self.count();
            }
            Err(error) => {
                let stats = &self.stats;
                stats.inc(stats.process, ProcessStat::ConfigRefused);
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

    /// Frees snapshots that cores have let go of, and the statistics of endpoints that are gone with them.
    pub fn collect(&self) {
        self.publish();
        self.publisher.collect();
        if !self.refused.get() {
            self.retirement.borrow_mut().advance(&self.current(), &self.stats);
        }
    }

    fn count(&self) {
        let snapshot = self.current();
        let stats = &self.stats;
        stats.inc(stats.process, ProcessStat::ConfigPublished);
        stats.set(stats.process, ProcessStat::ConfigGeneration, snapshot.version);
        let clusters = snapshot.clusters.iter().flatten().count() as u64;
        stats.set(stats.clusters, ClusterManagerStat::ActiveClusters, clusters);
        stats.set(
            stats.listeners,
            ListenerManagerStat::TotalListenersActive,
            snapshot.listeners.len() as u64,
        );
    }

    /// Brings the gauges about clusters up to date that are read off their exact state; for a scrape.
    pub fn refresh_gauges(&self) {
        for cluster in self.current().clusters.iter().flatten() {
            self.refresh_cluster(cluster);
        }
    }

    fn refresh_cluster(&self, cluster: &Cluster) {
        let (live, breakers, blocks) = (&cluster.live, cluster.config.breakers, cluster.config.stats);
        let endpoints = &cluster.endpoints.endpoints;
        let usable = |wanted: HealthStatus| {
            let fits = |e: &&Arc<Endpoint>| e.health == wanted && e.live.unhealthy.load(Relaxed) == 0;
            endpoints.iter().filter(fits).count() as u64
        };
        let block = Block::from_raw(blocks.cluster.0);
        self.stats.set(block, ClusterStat::MembershipTotal, endpoints.len() as u64);
        self.stats.set(block, ClusterStat::MembershipHealthy, usable(HealthStatus::Healthy));
        self.stats.set(block, ClusterStat::MembershipDegraded, usable(HealthStatus::Degraded));
        let outlier = Block::from_raw(blocks.outlier.0);
        self.stats.set(outlier, ClusterOutlierStat::EjectionsActive, live.ejected.load(Relaxed).into());
        let circuit = Block::from_raw(blocks.circuit.0);
        for (stat, now, max) in [
            (ClusterCircuitStat::DefaultCxOpen, &live.connections, breakers.connections_max),
            (ClusterCircuitStat::DefaultRqPendingOpen, &live.pending, breakers.pending_max),
            (ClusterCircuitStat::DefaultRqOpen, &live.requests, breakers.requests_max),
        ] {
            self.stats.set(circuit, stat, u64::from(now.load(Relaxed) >= max));
        }
        let remaining = Block::from_raw(blocks.remaining.0);
        for (stat, limit) in [
            (ClusterRemainingStat::RemainingCx, Limit::Connections),
            (ClusterRemainingStat::RemainingPending, Limit::Pending),
            (ClusterRemainingStat::RemainingRq, Limit::Requests),
            (ClusterRemainingStat::RemainingRetries, Limit::Retries),
        ] {
            self.stats.set(remaining, stat, breaker::remaining(live, &breakers, limit).into());
        }
    }
}
