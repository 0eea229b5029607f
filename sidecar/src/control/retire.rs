//! Gives back the statistics of endpoints that are gone, so that a name whose addresses change for months does not fill
//! the registry. A block is given back only when nobody can count in it any more: no snapshot that had the endpoint is
//! held, and no connection to it is open.

use crate::stats::Stats;
use corelane_snapshot::{Endpoint, Snapshot};
use corelane_telemetry::{Family, ProcessStat};
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Weak},
};

/// Endpoints that are gone with those who may still use them.
#[derive(Default)]
pub struct Retirement {
    endpoints: Vec<Weak<Endpoint>>,
    snapshots: Vec<Weak<Snapshot>>,
    /// What was hidden already, oldest first, under the registry's number for it.
    hidden: VecDeque<Hidden>,
}

struct Hidden {
    endpoints: Vec<Weak<Endpoint>>,
    snapshots: Vec<Weak<Snapshot>>,
    generation: u64,
}

impl Retirement {
    /// Notes what `old` had and `new` has not.
    pub fn replaced(&mut self, old: &Arc<Snapshot>, new: &Snapshot) {
        self.snapshots.push(Arc::downgrade(old));
        for before in old.clusters.iter().flatten() {
            let after = new.cluster(before.config.id).map(|cluster| &cluster.endpoints);
            if after.is_some_and(|after| Arc::ptr_eq(after, &before.endpoints)) {
                continue;
            }
            let kept: HashSet<_> = after.iter().flat_map(|set| set.endpoints.iter().map(|e| e.id)).collect();
            let gone = before.endpoints.endpoints.iter().filter(|endpoint| !kept.contains(&endpoint.id));
            self.endpoints.extend(gone.map(Arc::downgrade));
        }
    }

    /// Hides what is gone and gives back what nobody uses any more. `current` must be all there is: no change may wait to
    /// be published.
    pub fn advance(&mut self, current: &Snapshot, stats: &Stats) {
        self.snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        let held = self.snapshots.len() as u64;
        stats.set(stats.process, ProcessStat::ConfigSnapshotsLive, held + 1);
        if !self.endpoints.is_empty() {
            let generation = hide(current, stats);
            let endpoints = std::mem::take(&mut self.endpoints);
            // not taken: a later change may come while they are still held
            let snapshots = self.snapshots.clone();
            self.hidden.push_back(Hidden { endpoints, snapshots, generation });
        }
        while self.hidden.front_mut().is_some_and(|hidden| hidden.is_unused()) {
            if let Some(hidden) = self.hidden.pop_front() {
                let freed = stats.with(|registry| registry.reclaim(hidden.generation));
                tracing::debug!("statistics of {freed} endpoints given back");
            }
        }
    }
}

impl Hidden {
    fn is_unused(&mut self) -> bool {
        self.endpoints.retain(|endpoint| endpoint.strong_count() > 0);
        self.snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        self.endpoints.is_empty() && self.snapshots.is_empty()
    }
}

/// Takes every endpoint's scope out of sight that `current` does not have.
fn hide(current: &Snapshot, stats: &Stats) -> u64 {
    let mut live: HashSet<(&str, String)> = HashSet::new();
    for cluster in current.clusters.iter().flatten() {
        let name = cluster.config.stat_name.as_str();
        live.extend(cluster.endpoints.endpoints.iter().map(|endpoint| (name, endpoint.address.to_string())));
    }
    stats.with(|registry| {
        registry.retain(|scope| {
            scope.family != Family::Endpoint || live.contains(&(scope.label(0), scope.label(1).to_owned()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;
    use corelane_snapshot::EndpointSet;
    use std::sync::Arc;

    const CONFIG: &str = "\
static_resources:
  clusters:
  - name: payments
    load_assignment:
      cluster_name: payments
      endpoints:
      - lb_endpoints:
        - {endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 80}}}}
        - {endpoint: {address: {socket_address: {address: 192.0.2.2, port_value: 80}}}}
";

    #[test]
    fn a_block_is_given_back_when_nobody_can_count_in_it() {
        let process = testing::process(CONFIG);
        let configuration = &process.configuration;
        let scopes = || process.stats.value(process.stats.process, ProcessStat::StatsScopes);
        let live = || process.stats.value(process.stats.process, ProcessStat::ConfigSnapshotsLive);
        let before = scopes();

        let request = configuration.current();
        let cluster = request.cluster_by_name("payments").expect("cluster").clone();
        let connection = cluster.endpoints.endpoints[1].clone();
        let fewer = EndpointSet {
            endpoints: vec![cluster.endpoints.endpoints[0].clone()],
            priorities: 1,
            ..EndpointSet::default()
        };
        configuration.change(|builder| builder.put_endpoints(cluster.config.id, Arc::new(fewer)));
        configuration.publish();
        drop(cluster);

        configuration.collect();
        assert_eq!(scopes(), before, "a request holds the snapshot, and a connection the endpoint");
        assert_eq!(live(), 2);
        drop(request);
        configuration.collect();
        assert_eq!(scopes(), before, "a connection holds the endpoint");
        assert_eq!(live(), 1);
        drop(connection);
        configuration.collect();
        assert_eq!(scopes(), before - 1);
        configuration.collect();
        assert_eq!(scopes(), before - 1, "and once");
    }
}
