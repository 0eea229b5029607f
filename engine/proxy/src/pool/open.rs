//! An open connection, pooled or not, as the breakers and the metrics see it.

use super::anyone_waits;
use crate::{state::CoreState, worker};
use corelane_runtime::Nanos;
use corelane_snapshot::{ClusterConfig, Endpoint, RoutingPriority, live};
use corelane_telemetry::{Block, ClusterStat, EndpointStat};
use corelane_traffic::breaker::{self, Limit};
use std::{cell::Cell, rc::Rc, sync::Arc};

/// Keeps the counts of open connections exact: up when made, down when dropped; then tells how it ended.
pub(crate) struct OpenConnection {
    pub(super) state: Rc<CoreState>,
    cluster: Arc<ClusterConfig>,
    pub(super) cluster_live: Arc<live::ClusterLive>,
    endpoint: Arc<Endpoint>,
    /// Under whose cap it is, and whose requests it carries.
    pub(super) priority: RoutingPriority,
    /// Since when it is up.
    established: Cell<Option<Nanos>>,
    /// HTTP requests begun on it; none on a connection that carries bytes.
    pub(super) requests: Cell<u32>,
    /// A request is under way.
    pub(super) busy: Cell<bool>,
    /// The peer ends it, not we.
    by_peer: Cell<bool>,
}

impl OpenConnection {
    /// The breakers have given leave for the connection already; this gives it back.
    pub fn new(
        state: &Rc<CoreState>,
        cluster: &Arc<ClusterConfig>,
        cluster_live: &Arc<live::ClusterLive>,
        endpoint: &Arc<Endpoint>,
        priority: RoutingPriority,
    ) -> Self {
        OpenConnection {
            state: state.clone(),
            cluster: cluster.clone(),
            cluster_live: cluster_live.clone(),
            endpoint: endpoint.clone(),
            priority,
            established: Cell::new(None),
            requests: Cell::new(0),
            busy: Cell::new(false),
            by_peer: Cell::new(false),
        }
    }

    pub fn closed_by_peer(&self) {
        self.by_peer.set(true);
    }

    /// What a connection with many streams carried, at its end.
    pub fn carried(&self, requests: u32, busy: bool) {
        self.requests.set(requests);
        self.busy.set(busy);
    }

    /// The connection is up: it shows in the metrics from here on.
    pub fn established(&self) {
        self.established.set(Some(self.state.now()));
        let shard = &self.state.shard;
        let block = Block::from_raw(self.cluster.stats.cluster.0);
        shard.inc(block, ClusterStat::UpstreamCxTotal);
        shard.gauge_add(block, ClusterStat::UpstreamCxActive, 1);
        let block = Block::from_raw(self.endpoint.stats.0);
        shard.inc(block, EndpointStat::CxTotal);
        shard.gauge_add(block, EndpointStat::CxActive, 1);
    }

    fn count_end(&self, since: Nanos) {
        use ClusterStat as Stat;
        let shard = &self.state.shard;
        let block = Block::from_raw(self.cluster.stats.cluster.0);
        shard.gauge_sub(block, Stat::UpstreamCxActive, 1);
        shard.inc(block, Stat::UpstreamCxDestroy);
        let (ended, ended_busy) = match self.by_peer.get() {
            true => (Stat::UpstreamCxDestroyRemote, Stat::UpstreamCxDestroyRemoteWithActiveRq),
            false => (Stat::UpstreamCxDestroyLocal, Stat::UpstreamCxDestroyLocalWithActiveRq),
        };
        shard.inc(block, ended);
        if self.busy.get() {
            shard.inc(block, Stat::UpstreamCxDestroyWithActiveRq);
            shard.inc(block, ended_busy);
        }
        shard.record(block, Stat::UpstreamCxLengthMs, self.state.now().since(since).as_micros() as u64);
        if self.requests.get() > 0 {
            shard.record(block, Stat::UpstreamRqPerCx, self.requests.get().into());
        }
        shard.gauge_sub(Block::from_raw(self.endpoint.stats.0), EndpointStat::CxActive, 1);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        breaker::release_host_connection(&self.endpoint.live);
        let live = self.cluster_live.of(self.priority);
        breaker::release(live, Limit::Connections);
        if let Some(since) = self.established.get() {
            self.count_end(since);
        }
        if !self.state.pool.wake_for(&self.cluster, self.priority)
            && anyone_waits(&self.cluster, &self.cluster_live, self.priority)
        {
            worker::offer_elsewhere(&self.state, self.cluster.id);
        }
    }
}
