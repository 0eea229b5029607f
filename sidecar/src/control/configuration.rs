//! The configuration in force and the way to change it: one builder, one publisher, changes of one moment published
//! together.

use super::retire::Retirement;
use crate::stats::Stats;
use corelane_runtime::Nanos;
use corelane_snapshot::{
    Builder, Cluster, Endpoint, EndpointSet, HealthStatus, Publisher, RoutingPriority, Snapshot,
    SubscriptionSeed, live::EndpointLive,
};
use corelane_telemetry::{
    Block, ClusterCircuitStat, ClusterManagerStat, ClusterOutlierStat, ClusterRemainingStat, ClusterStat,
    EndpointStat, ListenerManagerStat, ProcessStat,
};
use corelane_traffic::{
    breaker::{self, Limit},
    budget,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
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
        let clusters = configuration.current().clusters.iter().flatten().count() as u64;
        let stats = &configuration.stats;
        stats.add(stats.clusters, ClusterManagerStat::ClusterAdded, clusters);
        configuration.count_membership(None, &configuration.current());
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
                self.count_membership(Some(&self.current()), &next);
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

    /// "Total cluster membership changes": one for each cluster whose endpoints come or go, the first ones too.
    fn count_membership(&self, before: Option<&Snapshot>, now: &Snapshot) {
        let ids =
            |set: &EndpointSet| set.endpoints.iter().map(|endpoint| endpoint.id).collect::<HashSet<_>>();
        for cluster in now.clusters.iter().flatten() {
            let before = before.and_then(|before| before.cluster(cluster.config.id));
            let is_same = match before {
                Some(before) if Arc::ptr_eq(&before.endpoints, &cluster.endpoints) => true,
                Some(before) => ids(&before.endpoints) == ids(&cluster.endpoints),
                None => cluster.endpoints.endpoints.is_empty(),
            };
            if !is_same {
                self.stats
                    .inc(Block::from_raw(cluster.config.stats.cluster.0), ClusterStat::MembershipChange);
            }
        }
    }

    /// Brings the gauges about clusters up to date that are read off their exact state; for a scrape.
    pub fn refresh_gauges(&self) {
        for cluster in self.current().clusters.iter().flatten() {
            self.refresh_cluster(cluster);
        }
    }

    fn refresh_cluster(&self, cluster: &Cluster) {
        let blocks = cluster.config.stats;
        let endpoints = &cluster.endpoints.endpoints;
        let usable = |wanted: HealthStatus| {
            let fits = |e: &&Arc<Endpoint>| e.health == wanted && e.live.unhealthy.load(Relaxed) == 0;
            endpoints.iter().filter(fits).count() as u64
        };
        let block = Block::from_raw(blocks.cluster.0);
        self.stats.set(block, ClusterStat::MembershipTotal, endpoints.len() as u64);
        self.stats.set(block, ClusterStat::MembershipHealthy, usable(HealthStatus::Healthy));
        self.stats.set(block, ClusterStat::MembershipDegraded, usable(HealthStatus::Degraded));
        self.stats.set(block, ClusterStat::MembershipExcluded, excluded(cluster));
        let heaviest = endpoints.iter().map(|endpoint| endpoint.weight).max().unwrap_or(0);
        self.stats.set(block, ClusterStat::MaxHostWeight, heaviest.into());
        let pending: u32 = cluster.live.in_use.iter().map(|one| one.pending.load(Relaxed)).sum();
        self.stats.set(block, ClusterStat::UpstreamRqPendingActive, pending.into());
        self.stats.with(|registry| {
            for endpoint in endpoints.iter() {
                let block = Block::from_raw(endpoint.stats.0);
                let healthy = takes_traffic(endpoint);
                registry.control().gauge_set(block, EndpointStat::Healthy, healthy.into());
            }
        });
        let outlier = Block::from_raw(blocks.outlier.0);
        self.stats.set(
            outlier,
            ClusterOutlierStat::EjectionsActive,
            cluster.live.ejected.load(Relaxed).into(),
        );
        use ClusterCircuitStat as Stat;
        let default =
            [Stat::DefaultCxOpen, Stat::DefaultRqPendingOpen, Stat::DefaultRqOpen, Stat::DefaultRqRetryOpen];
        let high = [Stat::HighCxOpen, Stat::HighRqPendingOpen, Stat::HighRqOpen, Stat::HighRqRetryOpen];
        for (priority, stats) in [(RoutingPriority::Default, default), (RoutingPriority::High, high)] {
            let circuit = Block::from_raw(blocks.circuit.0);
            for (stat, is_open) in stats.into_iter().zip(open_breakers(cluster, priority)) {
                self.stats.set(circuit, stat, is_open.into());
            }
        }
        let (live, breakers) = (cluster.live.of(RoutingPriority::Default), cluster.config.breakers);
        let remaining = Block::from_raw(blocks.remaining.0);
        for (stat, limit) in [
            (ClusterRemainingStat::RemainingCx, Limit::Connections),
            (ClusterRemainingStat::RemainingPending, Limit::Pending),
            (ClusterRemainingStat::RemainingRq, Limit::Requests),
        ] {
            self.stats.set(remaining, stat, breaker::remaining(live, &breakers, limit).into());
        }
        // as in Envoy: under a budget what is left depends on who asks when, and 0 is shown
        let retries = breakers.retries_max.map(|_| breaker::remaining(live, &breakers, Limit::Retries));
        self.stats.set(remaining, ClusterRemainingStat::RemainingRetries, retries.unwrap_or(0).into());
    }
}

/// Connections, pending requests, requests, retries: whether one more would be refused.
fn open_breakers(cluster: &Cluster, priority: RoutingPriority) -> [bool; 4] {
    let (live, breakers) = (cluster.live.of(priority), breaker::limits(&cluster.config, priority));
    let [connections, pending, requests, capped] =
        [Limit::Connections, Limit::Pending, Limit::Requests, Limit::Retries]
            .map(|limit| breaker::in_use(live, limit) >= limit.max(breakers));
    let budget = budget::of(&cluster.config, priority);
    let spent = budget::is_exhausted(&live.budget, budget, Nanos::read().as_u64());
    [connections, pending, requests, capped || spent]
}

/// Neither checks, nor its failures, nor its configuration keep traffic from it.
fn takes_traffic(endpoint: &Endpoint) -> bool {
    let configured = matches!(endpoint.health, HealthStatus::Healthy | HealthStatus::Degraded);
    configured && endpoint.live.unhealthy.load(Relaxed) == 0
}

/// Endpoints that do not count before their first check.
fn excluded(cluster: &Cluster) -> u64 {
    if !cluster.config.common_lb.ignore_new_hosts_until_first_hc {
        return 0;
    }
    let waits = |e: &&Arc<Endpoint>| e.live.unhealthy.load(Relaxed) == EndpointLive::PENDING_ACTIVE_HC;
    cluster.endpoints.endpoints.iter().filter(waits).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    const CONFIG: &str = "\
static_resources:
  clusters:
  - name: payments
    common_lb_config: {ignore_new_hosts_until_first_hc: true}
    circuit_breakers:
      thresholds: [{max_connections: 1, max_pending_requests: 2, max_requests: 3, max_retries: 1},
        {priority: HIGH, max_requests: 1}]
    load_assignment:
      cluster_name: payments
      endpoints:
      - lb_endpoints:
        - {endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 80}}}}
        - {endpoint: {address: {socket_address: {address: 192.0.2.2, port_value: 80}}}}
        - {load_balancing_weight: 7, endpoint: {address: {socket_address: {address: 192.0.2.3, port_value: 80}}}}
";

    #[test]
    fn gauges_of_a_cluster_show_its_state_when_they_are_asked_for() {
        let process = testing::process(CONFIG);
        let snapshot = process.configuration.current();
        let cluster = snapshot.cluster_by_name("payments").expect("cluster");
        let blocks = cluster.config.stats;
        let [gone, new, good] = &cluster.endpoints.endpoints[..] else { panic!("three") };
        let of = |stat| process.stats.value(Block::from_raw(blocks.cluster.0), stat);
        let healthy = |e: &Endpoint| process.stats.value(Block::from_raw(e.stats.0), EndpointStat::Healthy);
        let open = || {
            use ClusterCircuitStat as Stat;
            [Stat::DefaultCxOpen, Stat::DefaultRqPendingOpen, Stat::DefaultRqOpen, Stat::DefaultRqRetryOpen]
                .map(|stat| process.stats.value(Block::from_raw(blocks.circuit.0), stat))
        };
        process.refresh_gauges();
        assert_eq!((open(), of(ClusterStat::UpstreamRqPendingActive)), ([0; 4], 0));
        assert_eq!((healthy(gone), healthy(new), healthy(good)), (1, 1, 1));

        for limit in [Limit::Connections, Limit::Pending, Limit::Requests, Limit::Retries] {
            breaker::acquire(&cluster.live.in_use[0], &cluster.config.breakers, limit).expect("room");
        }
        // the high priority has its own limits, here the defaults but for one
        let high = [ClusterCircuitStat::HighCxOpen, ClusterCircuitStat::HighRqOpen];
        breaker::acquire(&cluster.live.in_use[1], &cluster.config.high.breakers, Limit::Requests)
            .expect("room");
        process.refresh_gauges();
        let of_high = high.map(|stat| process.stats.value(Block::from_raw(blocks.circuit.0), stat));
        assert_eq!(of_high, [0, 1]);
        gone.live.unhealthy.store(EndpointLive::FAILED_OUTLIER, Relaxed);
        new.live.unhealthy.store(EndpointLive::PENDING_ACTIVE_HC, Relaxed);
        process.refresh_gauges();
        assert_eq!((open(), of(ClusterStat::UpstreamRqPendingActive)), ([1, 0, 0, 1], 1));
        assert_eq!((of(ClusterStat::MembershipHealthy), of(ClusterStat::MembershipExcluded)), (1, 1));
        assert_eq!((healthy(gone), healthy(new), healthy(good)), (0, 0, 1));
        assert_eq!(of(ClusterStat::MaxHostWeight), 7);
        let added = process.stats.value(process.stats.clusters, ClusterManagerStat::ClusterAdded);
        assert_eq!(added, 1);
    }

    #[test]
    fn endpoints_that_come_or_go_are_a_change_of_membership() {
        let process = testing::process(CONFIG);
        let cluster = process.configuration.current().cluster_by_name("payments").expect("cluster").clone();
        let id = cluster.config.id;
        let changes = || {
            let block = Block::from_raw(cluster.config.stats.cluster.0);
            process.stats.value(block, ClusterStat::MembershipChange)
        };
        assert_eq!(changes(), 1, "the first ones");
        let publish = |set: EndpointSet| {
            assert!(process.configuration.change(|builder| builder.put_endpoints(id, set.into())));
            process.configuration.publish();
        };
        publish(EndpointSet::clone(&cluster.endpoints));
        assert_eq!(changes(), 1, "the same");
        let mut fewer = EndpointSet::clone(&cluster.endpoints);
        fewer.endpoints.pop();
        publish(fewer);
        assert_eq!(changes(), 2);
    }

    #[test]
    fn a_budget_that_admits_no_further_retry_shows_as_open() {
        let process = testing::process(&CONFIG.replace(", max_retries: 1}", ", track_remaining: true}"));
        let snapshot = process.configuration.current();
        let cluster = snapshot.cluster_by_name("payments").expect("cluster");
        let blocks = cluster.config.stats;
        let shown = || {
            process.refresh_gauges();
            let open = ClusterCircuitStat::DefaultRqRetryOpen;
            let left = ClusterRemainingStat::RemainingRetries;
            let of_remaining = process.stats.value(Block::from_raw(blocks.remaining.0), left);
            (process.stats.value(Block::from_raw(blocks.circuit.0), open), of_remaining)
        };
        assert_eq!(shown(), (0, 0));
        let (budget, now_ns) = (&cluster.config.retry_budget, Nanos::read().as_u64());
        while budget::try_retry(&cluster.live.in_use[0].budget, budget, now_ns) {}
        assert_eq!(shown(), (1, 0));
    }
}
