//! A core's upstream connections: taken for one request, given back when its response is complete. Nothing is
//! shared between cores but the cluster's exact count of connections, which is a circuit breaker.
//!
//! It follows the configuration: idle connections that the newest snapshot has no use for are closed, those in use
//! when they are given back.
//!
//! A request that finds the cluster at its connection cap waits its turn (bounded by `max_pending_requests`,
//! exact over cores), and asks the other cores to let go of an idle connection.

mod open;

pub(crate) use open::OpenConnection;

use crate::{conn::Conn, state::CoreState};
use corelane_runtime::Nanos;
use corelane_snapshot::{
    CircuitBreakers, Cluster, ClusterConfig, ClusterId, ClusterKind, Endpoint, EndpointId, RoutingPriority,
    Snapshot, live,
};
use corelane_telemetry::{Block, ClusterStat};
use corelane_traffic::breaker;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::poll_fn,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// Idle connections that one sweep asks the kernel about.
const SWEEP_MAX: usize = 512;

/// One HTTP/1.1 connection to an endpoint, in use or idle.
pub(crate) struct UpstreamConn {
    pub conn: Rc<Conn>,
    pub endpoint: Arc<Endpoint>,
    pub cluster: Arc<ClusterConfig>,
    pub opened: Nanos,
    pub requests: u32,
    idle_since: Nanos,
    /// The snapshot that was last seen to have a use for it.
    version: u64,
    open: OpenConnection,
}

/// No snapshot has this version.
pub(crate) const NEVER_LOOKED: u64 = u64::MAX;

impl UpstreamConn {
    pub fn new(
        conn: Rc<Conn>,
        endpoint: Arc<Endpoint>,
        cluster: Arc<ClusterConfig>,
        opened: Nanos,
        open: OpenConnection,
    ) -> Self {
        let version = NEVER_LOOKED;
        UpstreamConn { conn, endpoint, cluster, opened, requests: 0, idle_since: opened, version, open }
    }

    pub fn is_reused(&self) -> bool {
        self.requests > 0
    }

    /// Whether it is too old, or was idle too long, for another request; counts which.
    fn expired(&self, now: Nanos) -> bool {
        let pool = &self.cluster.pool;
        let idle = pool.idle_timeout.is_some_and(|limit| now.since(self.idle_since) >= limit);
        let old = pool.connection_duration_max.is_some_and(|limit| now.since(self.opened) >= limit);
        match (idle, old) {
            (_, true) => self.count(ClusterStat::UpstreamCxMaxDurationReached),
            (true, false) => self.count(ClusterStat::UpstreamCxIdleTimeout),
            (false, false) => {}
        }
        idle || old
    }

    /// Whether the peer closed it, or broke the silence; to be asked of one that is idle.
    fn is_lost(&self) -> bool {
        let stale = self.conn.is_stale();
        if stale {
            self.open.closed_by_peer();
        }
        stale
    }

    /// It carries one more request.
    pub fn taken(&self) {
        if self.open.requests.get() == 0 {
            self.count(ClusterStat::UpstreamCxHttp1Total);
        }
        self.open.requests.set(self.open.requests.get().saturating_add(1));
        self.open.busy.set(true);
    }

    /// What it carried is over.
    pub fn rested(&self) {
        self.open.busy.set(false);
    }

    pub fn closed_by_peer(&self) {
        self.open.closed_by_peer();
    }

    /// Bytes both ways without a protocol, at the end of the connection.
    pub fn relayed(&self, state: &CoreState, up: u64, down: u64, by_peer: bool) {
        if by_peer {
            self.closed_by_peer();
        }
        state.shard.add(self.block(), ClusterStat::UpstreamCxTxBytesTotal, up);
        state.shard.add(self.block(), ClusterStat::UpstreamCxRxBytesTotal, down);
    }

    pub fn count(&self, stat: ClusterStat) {
        self.open.state.shard.inc(self.block(), stat);
    }

    pub fn block(&self) -> Block<ClusterStat> {
        Block::from_raw(self.cluster.stats.cluster.0)
    }
}

/// Whether the connections to one endpoint are limited, those of both priorities together.
pub(crate) fn caps_hosts(config: &ClusterConfig) -> bool {
    let capped = |breakers: &CircuitBreakers| breakers.host_connections_max.is_some();
    capped(&config.breakers) || capped(&config.high.breakers)
}

/// Whether what becomes free is of use to a request that waits, on any core.
fn anyone_waits(config: &ClusterConfig, live: &live::ClusterLive, priority: RoutingPriority) -> bool {
    match caps_hosts(config) {
        true => RoutingPriority::ALL.into_iter().any(|priority| breaker::anyone_waits(live.of(priority))),
        false => breaker::anyone_waits(live.of(priority)),
    }
}

/// Endpoint ids are dense already: no hashing.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id);
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

type ById<K, V> = HashMap<K, V, BuildHasherDefault<Identity>>;

/// A dense id, and the priority of the requests served: connections are not shared between priorities.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Of(u64);

impl Of {
    pub fn endpoint(id: EndpointId, priority: RoutingPriority) -> Of {
        Of(u64::from(id.0) << 1 | priority as u64)
    }

    pub fn cluster(id: ClusterId, priority: RoutingPriority) -> Of {
        Of(u64::from(id.0) << 1 | priority as u64)
    }
}

#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<ById<Of, Vec<UpstreamConn>>>,
    waiting: RefCell<ById<Of, VecDeque<Rc<Turn>>>>,
    /// The snapshot followed.
    version: Cell<u64>,
}

/// Whether the snapshot still has this cluster as it was, and the endpoint in it with the same transport socket.
pub(crate) fn is_wanted(snapshot: &Snapshot, config: &Arc<ClusterConfig>, endpoint: &Endpoint) -> bool {
    let same = |other: &Arc<Endpoint>| other.id == endpoint.id && other.transport == endpoint.transport;
    as_it_was(snapshot, config)
        .is_some_and(|cluster| makes_its_endpoints(config) || cluster.endpoints.endpoints.iter().any(same))
}

fn as_it_was<'s>(snapshot: &'s Snapshot, config: &Arc<ClusterConfig>) -> Option<&'s Cluster> {
    snapshot.cluster(config.id).filter(|cluster| Arc::ptr_eq(&cluster.config, config))
}

fn makes_its_endpoints(config: &ClusterConfig) -> bool {
    matches!(config.kind, ClusterKind::OriginalDst { .. })
}

/// As [`is_wanted`], for many connections: a cluster's endpoints are gone through once.
pub(crate) struct StillWanted<'s> {
    pub snapshot: &'s Snapshot,
    /// The endpoints of the clusters asked for, and their transport sockets.
    transports: ById<ClusterId, ById<EndpointId, u32>>,
}

impl<'s> StillWanted<'s> {
    pub fn by(snapshot: &'s Snapshot) -> Self {
        StillWanted { snapshot, transports: ById::default() }
    }

    pub fn has(&mut self, config: &Arc<ClusterConfig>, endpoint: &Endpoint) -> bool {
        let Some(cluster) = as_it_was(self.snapshot, config) else { return false };
        if makes_its_endpoints(config) {
            return true;
        }
        let endpoints = || cluster.endpoints.endpoints.iter().map(|one| (one.id, one.transport)).collect();
        let transports = self.transports.entry(config.id).or_insert_with(endpoints);
        transports.get(&endpoint.id) == Some(&endpoint.transport)
    }
}

/// A place in the queue for a connection.
#[derive(Default)]
struct Turn {
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pool {
    /// The connection to this endpoint used last (it is the likeliest to be open and warm).
    pub fn take(
        &self,
        now: Nanos,
        cluster: &Arc<ClusterConfig>,
        endpoint: &Endpoint,
        priority: RoutingPriority,
    ) -> Option<UpstreamConn> {
        let of = Of::endpoint(endpoint.id, priority);
        loop {
            let found = self.idle.borrow_mut().get_mut(&of)?.pop()?;
            let usable = Arc::ptr_eq(&found.cluster, cluster)
                && found.endpoint.transport == endpoint.transport
                && !found.expired(now)
                // one non-blocking look: what waits there now would be taken for the answer to the next request
                && !found.is_lost();
            if usable {
                return Some(found);
            }
            // dropped outside the borrow: its end wakes whoever waits for a connection
            drop(found);
        }
    }

    /// Gives a connection back after a whole response.
    pub fn put(&self, now: Nanos, mut conn: UpstreamConn) {
        let limits = &conn.cluster.pool;
        let (cluster, priority) = (conn.cluster.id, conn.open.priority);
        let worn =
            limits.requests_per_connection_max > 0 && conn.requests >= limits.requests_per_connection_max;
        if worn {
            conn.count(ClusterStat::UpstreamCxMaxRequests);
            return;
        }
        conn.idle_since = now;
        if conn.expired(now) {
            return;
        }
        if conn.version != self.version() {
            let snapshot = conn.open.state.pin();
            if !is_wanted(&snapshot, &conn.cluster, &conn.endpoint) {
                return;
            }
            conn.version = snapshot.version;
        }
        let idle_max =
            limits.idle_per_endpoint_max.min(conn.open.state.shared.limits.idle_per_endpoint_max) as usize;
        let queue = Of::cluster(cluster, priority);
        let waits_here = self.waiting.borrow().get(&queue).is_some_and(|queue| !queue.is_empty());
        let waits_elsewhere = !waits_here && anyone_waits(&conn.cluster, &conn.open.cluster_live, priority);
        if idle_max == 0 || waits_elsewhere {
            // closing it makes room under the cap they share, and tells them
            return;
        }
        let endpoint = Of::endpoint(conn.endpoint.id, priority);
        let oldest = {
            let mut idle = self.idle.borrow_mut();
            let kept = idle.entry(endpoint).or_default();
            let oldest = (kept.len() >= idle_max).then(|| kept.remove(0));
            kept.push(conn);
            oldest
        };
        drop(oldest);
        self.wake(cluster, priority);
    }

    /// Waits until a connection of the cluster on this core is given back or closed.
    pub async fn turn(&self, cluster: ClusterId, priority: RoutingPriority) {
        let turn = Rc::new(Turn::default());
        let queue = Of::cluster(cluster, priority);
        self.waiting.borrow_mut().entry(queue).or_default().push_back(turn.clone());
        let leave = LeaveQueue { pool: self, queue, turn: &turn, served: Cell::new(false) };
        poll_fn(|context| {
            if turn.called.get() {
                return Poll::Ready(());
            }
            *turn.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        leave.served.set(true);
    }

    /// Calls those of either priority that wait longest for a connection of the cluster.
    pub fn wake_one(&self, cluster: ClusterId) {
        for priority in RoutingPriority::ALL {
            self.wake(cluster, priority);
        }
    }

    /// Calls the one that waits longest for a connection of the cluster. False: nobody waits here.
    pub fn wake(&self, cluster: ClusterId, priority: RoutingPriority) -> bool {
        self.wake_next(Of::cluster(cluster, priority))
    }

    /// As [`Pool::wake`]; of the other priority too, where both share a cap on each endpoint's connections.
    pub fn wake_for(&self, cluster: &ClusterConfig, priority: RoutingPriority) -> bool {
        let own = self.wake(cluster.id, priority);
        let others =
            RoutingPriority::ALL.into_iter().filter(|other| caps_hosts(cluster) && *other != priority);
        others.fold(own, |woken, other| self.wake(cluster.id, other) || woken)
    }

    fn wake_next(&self, queue: Of) -> bool {
        let next = self.waiting.borrow_mut().get_mut(&queue).and_then(VecDeque::pop_front);
        let Some(turn) = next else { return false };
        turn.called.set(true);
        if let Some(waker) = turn.waker.borrow_mut().take() {
            waker.wake();
        }
        true
    }

    /// The snapshot that was followed last.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// A new configuration: what is idle and of no use in it is closed.
    pub fn follow(&self, wanted: &mut StillWanted<'_>) {
        let version = wanted.snapshot.version;
        self.version.set(version);
        let mut removed = Vec::new();
        self.idle.borrow_mut().retain(|_, kept| {
            removed.extend(kept.extract_if(.., |conn| {
                conn.version = version;
                !wanted.has(&conn.cluster, &conn.endpoint)
            }));
            !kept.is_empty()
        });
    }

    /// Closes idle connections of one cluster (another core is at the shared cap), or of all clusters.
    pub fn release_idle(&self, cluster: Option<ClusterId>) -> usize {
        self.remove_if(usize::MAX, |conn| cluster.is_none_or(|id| conn.cluster.id == id))
    }

    /// Closes idle connections of the cluster to other endpoints, to make room under its cap. Returns how many.
    pub fn release_idle_of(&self, cluster: ClusterId, priority: RoutingPriority, but: EndpointId) -> usize {
        self.remove_if(SWEEP_MAX, |conn| {
            conn.cluster.id == cluster && conn.open.priority == priority && conn.endpoint.id != but
        })
    }

    /// Closes the idle connections to an endpoint that serve the other priority, whose cap on them is the same.
    pub fn release_other_priority(&self, endpoint: EndpointId, priority: RoutingPriority) -> usize {
        let others = RoutingPriority::ALL.into_iter().filter(|other| *other != priority);
        let released: Vec<_> = others
            .filter_map(|other| self.idle.borrow_mut().remove(&Of::endpoint(endpoint, other)))
            .collect();
        // dropped outside the borrow: their ends wake whoever waits
        released.iter().map(Vec::len).sum()
    }

    /// Closes the idle connections to an endpoint that is out of order.
    pub fn release_endpoint(&self, endpoint: EndpointId) -> usize {
        let released = RoutingPriority::ALL
            .map(|priority| self.idle.borrow_mut().remove(&Of::endpoint(endpoint, priority)));
        released.iter().flatten().map(Vec::len).sum()
    }

    /// Closes what has been idle too long or was closed by the peer.
    pub fn sweep(&self, now: Nanos) -> usize {
        let looks = Cell::new(SWEEP_MAX);
        let may_look = || looks.replace(looks.get().saturating_sub(1)) > 0;
        self.remove_if(usize::MAX, |conn| conn.expired(now) || (may_look() && conn.is_lost()))
    }

    fn remove_if(&self, looked_at_max: usize, doomed: impl Fn(&UpstreamConn) -> bool) -> usize {
        let mut removed = Vec::new();
        let mut left = looked_at_max;
        self.idle.borrow_mut().retain(|_, kept| {
            let mut at = 0;
            while at < kept.len() && left > 0 {
                left -= 1;
                if doomed(&kept[at]) { removed.push(kept.remove(at)) } else { at += 1 }
            }
            !kept.is_empty()
        });
        removed.len()
    }
}

/// A waiter that gives up leaves the queue, and hands a call it got meanwhile to the next.
struct LeaveQueue<'a> {
    pool: &'a Pool,
    queue: Of,
    turn: &'a Rc<Turn>,
    /// The call came to the waiter, who looks for itself now.
    served: Cell<bool>,
}

impl Drop for LeaveQueue<'_> {
    fn drop(&mut self) {
        if self.turn.called.get() && !self.served.get() {
            self.pool.wake_next(self.queue);
        }
        if let Some(queue) = self.pool.waiting.borrow_mut().get_mut(&self.queue) {
            queue.retain(|turn| !Rc::ptr_eq(turn, self.turn));
        }
    }
}
