//! Which endpoint a try goes to. Each core keeps a [`ClusterView`] per cluster: who is usable, whose turn it is. It
//! is built anew when the cluster's endpoints, policy or health change; in between a pick reads one shared
//! atomic (`health_epoch`), allocates nothing and takes no lock.
//!
//! One policy a file. [`healthy`] says who may be used, [`hosts`] holds a list and its policy, [`locality`] comes
//! before it where localities have weights, [`ring_hash`] and [`maglev`] answer where a key decides.

mod edf;
mod healthy;
mod hosts;
mod least_request;
mod locality;
mod maglev;
mod priority;
mod random;
mod ring_hash;
mod round_robin;
mod slow_start;
#[cfg(test)]
mod tests;
mod xxhash;

pub use maglev::MAGLEV_SLOTS_MAX;
pub use ring_hash::RING_POINTS_MAX;
pub use xxhash::xxh64;

use crate::Rng;
use corelane_snapshot::{Cluster, ClusterConfig, Endpoint, EndpointId, EndpointSet};
use hosts::slow_start_of;
use priority::Priorities;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
};

/// Endpoints looked at in turn for one not tried yet, after random draws found none.
pub const SCAN_MAX: usize = 256;

/// What one try asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// Ticks in nanoseconds.
    pub now_ns: u64,
    /// Of the route's hash policy.
    pub hash: Option<u64>,
    /// Not again, if there is anybody else (previous_hosts). Empty: a first try.
    pub tried: &'a [EndpointId],
    /// Draws for one that was not tried (host_selection_retry_max_attempts); 0: Envoy's default of 1.
    pub attempts_max: u32,
    pub omit_canary: bool,
    /// Bit p: priority p was tried (previous_priorities); others with healthy endpoints come first. 0: off.
    pub avoid_priorities: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Pick<'c> {
    Endpoint(&'c Arc<Endpoint>),
    /// Flag UH. Includes panic with fail_traffic_on_panic.
    NoneHealthy,
}

impl<'c> Pick<'c> {
    pub fn endpoint(self) -> Option<&'c Arc<Endpoint>> {
        match self {
            Pick::Endpoint(endpoint) => Some(endpoint),
            Pick::NoneHealthy => None,
        }
    }
}

/// An endpoint in a hash table, with its share of the keys.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Index into the set.
    index: u32,
    weight: f64,
}

/// How full of usable endpoints a view is (`membership_healthy` and so on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub total: u32,
    pub healthy: u32,
    pub degraded: u32,
    pub excluded: u32,
    /// Some priority is in panic (`lb_healthy_panic`).
    pub panic: bool,
}

/// One core's view of one cluster.
#[derive(Debug)]
pub struct ClusterView {
    config: Arc<ClusterConfig>,
    set: Arc<EndpointSet>,
    epoch: u64,
    whole: Priorities,
}

impl ClusterView {
    pub fn new(cluster: &Cluster, now_ns: u64, rng: &mut Rng) -> ClusterView {
        // read before health is: a change in between is seen again, not missed
        let epoch = cluster.live.health_epoch.load(Acquire);
        let members = (0..cluster.endpoints.endpoints.len() as u32).collect();
        ClusterView {
            config: cluster.config.clone(),
            set: cluster.endpoints.clone(),
            epoch,
            whole: Priorities::new(&cluster.config, &cluster.endpoints, members, now_ns, rng),
        }
    }

    pub fn membership(&self) -> Membership {
        self.whole.membership()
    }

    /// Follows the cluster; nothing to do in nearly every call. True: the view changed.
    #[inline]
    pub fn refresh(&mut self, cluster: &Cluster, now_ns: u64, rng: &mut Rng) -> bool {
        let same = Arc::ptr_eq(&self.set, &cluster.endpoints)
            && self.epoch == cluster.live.health_epoch.load(Relaxed)
            && Arc::ptr_eq(&self.config, &cluster.config)
            && !self.whole.is_stale(now_ns);
        if !same {
            self.rebuild(cluster, now_ns, rng);
        }
        !same
    }

    #[cold]
    fn rebuild(&mut self, cluster: &Cluster, now_ns: u64, rng: &mut Rng) {
        let same_set = Arc::ptr_eq(&self.set, &cluster.endpoints);
        if !same_set && slow_start_of(&cluster.config.lb).is_some() {
            mark_new(&self.set, &cluster.endpoints, now_ns);
        }
        let same_tables = same_set && self.config.lb == cluster.config.lb;
        let mut old = std::mem::replace(self, ClusterView::new(cluster, now_ns, rng));
        if same_tables {
            // tables hold every endpoint, usable or not: health does not change them
            self.whole.take_tables(&mut old.whole);
        }
    }
}

/// The endpoint for one try. The view follows the cluster by itself.
#[inline]
pub fn pick<'c>(
    view: &mut ClusterView,
    cluster: &'c Cluster,
    context: &PickContext<'_>,
    rng: &mut Rng,
) -> Pick<'c> {
    view.refresh(cluster, context.now_ns, rng);
    match view.whole.pick(&cluster.config, &cluster.endpoints, context, rng) {
        Some(index) => Pick::Endpoint(&cluster.endpoints.endpoints[index as usize]),
        None => Pick::NoneHealthy,
    }
}

/// Endpoints that were not there before start slowly.
fn mark_new(old: &EndpointSet, new: &EndpointSet, now_ns: u64) {
    let known: HashSet<EndpointId> = old.endpoints.iter().map(|endpoint| endpoint.id).collect();
    for endpoint in new.endpoints.iter().filter(|endpoint| !known.contains(&endpoint.id)) {
        // the first core to see it says when
        let _ = endpoint.live.usable_since_ns.compare_exchange(0, now_ns.max(1), Relaxed, Relaxed);
    }
}
