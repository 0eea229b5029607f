//! Active health checks: the checks of a cluster run on one core, its id modulo the cores, and their verdict is in the
//! endpoints' shared bits, which every core sees. When a check runs next and what its result means is decided by
//! `corelane_traffic::health`; this is what brings it about.
//!
//! The supervisor follows the snapshot: endpoints that are new are held back until they pass (unless their live
//! state knows them from before), those that are gone are forgotten, checks under way for them end unheard.
//!
//! An endpoint under several checks passes when it passes all of them, one after the other; the first one's
//! intervals and thresholds count.

mod probe;

use crate::{conn::Conn, race::race, state::CoreState, worker::on_worker};
use corelane_runtime::{Core, Mail, Nanos};
use corelane_snapshot::{
    Cluster, ClusterConfig, Endpoint, EndpointId, HealthCheck, Snapshot,
    live::{EndpointLive, InUse},
};
use corelane_telemetry::{Block, ClusterHealthCheckStat as Stat};
use corelane_traffic::health::{CheckFacts, CheckResult, Checker, Transition};
use probe::Probed;
use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    task::{Poll, Waker},
};

/// Checks under way at once on one core; others that are due wait.
pub(crate) const CHECKS_ACTIVE_MAX: usize = 64;

/// What `EndpointLive::health_streak` says about an endpoint: 0 nothing yet, or
const HELD: u32 = 1;
/// it has been checked at least once.
const CHECKED: u32 = 2;

/// Holds back the endpoints that have active checks and were never checked, so that none gets traffic before it passed
/// one. The control thread calls it with a snapshot that it is about to publish; endpoints that are known keep
/// their health.
pub fn hold_unchecked(snapshot: &Snapshot) {
    for cluster in
        snapshot.clusters.iter().flatten().filter(|cluster| !cluster.config.health_checks.is_empty())
    {
        let mut held = false;
        for endpoint in &cluster.endpoints.endpoints {
            let live = &endpoint.live;
            if live.health_streak.compare_exchange(0, HELD, AcqRel, Relaxed).is_ok() {
                live.unhealthy.fetch_or(EndpointLive::PENDING_ACTIVE_HC, AcqRel);
                held = true;
            }
        }
        if held {
            cluster.live.health_epoch.fetch_add(1, Release);
        }
    }
}

/// One core's checks.
pub(crate) struct Health {
    state: Rc<CoreState>,
    targets: RefCell<HashMap<EndpointId, Target>>,
    /// When whose turn is; entries that a target's own time contradicts are void.
    queue: RefCell<BinaryHeap<Reverse<(Nanos, EndpointId)>>>,
    active: Cell<usize>,
    /// The snapshot followed.
    version: Cell<Option<u64>>,
    is_scheduling: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// A cluster under check.
struct Watched {
    cluster: Cluster,
    /// Has had traffic since it is watched; until then `no_traffic_interval` holds.
    has_traffic: Cell<bool>,
}

impl Watched {
    /// The check whose intervals and thresholds count.
    fn first(&self) -> Option<&HealthCheck> {
        self.cluster.config.health_checks.first()
    }

    fn has_traffic(&self) -> bool {
        let used = |live: &InUse| {
            live.connections.load(Relaxed) > 0
                || live.requests.load(Relaxed) > 0
                || live.budget.slots.iter().any(|slot| slot.requests.load(Relaxed) != 0)
        };
        let seen = || self.cluster.live.in_use.iter().any(used);
        if !self.has_traffic.get() && seen() {
            self.has_traffic.set(true);
        }
        self.has_traffic.get()
    }

    fn facts<'a>(&'a self, endpoint: &'a Endpoint, now: Nanos) -> CheckFacts<'a> {
        let outlier = self.cluster.config.outlier.as_ref();
        CheckFacts {
            cluster: &self.cluster.live,
            endpoint: &endpoint.live,
            now_ns: now.as_u64(),
            has_traffic: self.has_traffic(),
            uneject: outlier.is_some_and(|outlier| outlier.successful_active_health_check_uneject_host),
        }
    }
}

/// An endpoint under check.
struct Target {
    watched: Rc<Watched>,
    endpoint: Arc<Endpoint>,
    checker: Checker,
    /// Connections kept between checks, one a configured check (reuse_connection).
    kept: Vec<Option<Rc<Conn>>>,
    busy: bool,
    /// The snapshot that it was last seen in.
    version: u64,
}

impl Target {
    /// Whether a connection made so is one as it would be made now.
    fn is_reached_by(&self, config: &Arc<ClusterConfig>, transport: u32) -> bool {
        Arc::ptr_eq(&self.watched.cluster.config, config) && self.endpoint.transport == transport
    }
}

impl Health {
    pub fn new(state: &Rc<CoreState>) -> Rc<Health> {
        Rc::new(Health {
            state: state.clone(),
            targets: RefCell::default(),
            queue: RefCell::default(),
            active: Cell::new(0),
            version: Cell::new(None),
            is_scheduling: Cell::new(false),
            waker: Cell::new(None),
        })
    }

    /// Takes up what the newest snapshot changed; cheap where it changed nothing.
    pub fn follow(self: &Rc<Self>) {
        let snapshot = self.state.pin();
        if self.version.replace(Some(snapshot.version)) == Some(snapshot.version) {
            return;
        }
        hold_unchecked(&snapshot);
        let core = &self.state.core;
        for cluster in snapshot.clusters.iter().flatten() {
            if !cluster.config.health_checks.is_empty()
                && cluster.config.id.0 as usize % core.cores() == core.id
            {
                self.adopt(cluster, snapshot.version);
            }
        }
        self.forget(&snapshot);
        if !self.targets.borrow().is_empty() && !self.is_scheduling.replace(true) {
            let health = self.clone();
            core.spawn(async move { health.schedule().await });
        }
        self.wake();
    }

    fn adopt(&self, cluster: &Cluster, version: u64) {
        let mut targets = self.targets.borrow_mut();
        let mut watched: Option<Rc<Watched>> = None;
        for endpoint in &cluster.endpoints.endpoints {
            let had_traffic =
                targets.get(&endpoint.id).is_some_and(|target| target.watched.has_traffic.get());
            let watched = watched
                .get_or_insert_with(|| {
                    Rc::new(Watched { cluster: cluster.clone(), has_traffic: Cell::new(had_traffic) })
                })
                .clone();
            match targets.get_mut(&endpoint.id) {
                Some(target) => {
                    if !target.is_reached_by(&cluster.config, endpoint.transport) {
                        target.kept.clear();
                    }
                    (target.endpoint, target.watched, target.version) =
                        (at_check_port(endpoint), watched, version);
                }
                None => drop(targets.insert(endpoint.id, self.target(watched, endpoint, version))),
            }
        }
        if let Some(watched) = watched {
            self.gauge(&watched);
        }
    }

    fn target(&self, watched: Rc<Watched>, endpoint: &Arc<Endpoint>, version: u64) -> Target {
        let is_new = endpoint.live.health_streak.load(Acquire) != CHECKED;
        let facts = watched.facts(endpoint, self.state.now());
        // follow() looks at clusters with checks only
        let check = &watched.cluster.config.health_checks[0];
        let checker = Checker::new(check, &facts, is_new, &mut self.state.rng.borrow_mut());
        self.queue.borrow_mut().push(Reverse((Nanos::from_u64(checker.next_at_ns()), endpoint.id)));
        Target { endpoint: at_check_port(endpoint), checker, kept: Vec::new(), busy: false, version, watched }
    }

    /// What the snapshot no longer has. An endpoint whose cluster goes on without checks is as good as before them.
    fn forget(&self, snapshot: &Snapshot) {
        self.targets.borrow_mut().retain(|_, target| {
            let stays = target.version == snapshot.version;
            let cluster = snapshot.cluster(target.watched.cluster.config.id);
            if let (false, Some(cluster)) =
                (stays, cluster.filter(|cluster| cluster.config.health_checks.is_empty()))
            {
                target.endpoint.live.unhealthy.fetch_and(!EndpointLive::ACTIVE_HC, AcqRel);
                target.endpoint.live.health_streak.store(0, Release);
                cluster.live.health_epoch.fetch_add(1, Release);
            }
            stays
        });
    }

    /// Starts checks when they are due, for as long as the core runs.
    async fn schedule(self: Rc<Self>) {
        let deadline = self.state.core.timers().deadline();
        loop {
            deadline.arm(self.begin_due().unwrap_or(Nanos::MAX));
            let _ = race(deadline.expired(), self.woken()).await;
        }
    }

    /// Returns when the next one is due; None: whoever ends next, or brings more, wakes the scheduler.
    fn begin_due(self: &Rc<Self>) -> Option<Nanos> {
        let now = self.state.now();
        while self.active.get() < CHECKS_ACTIVE_MAX {
            let (at, id) = self.queue.borrow().peek().map(|due| due.0)?;
            if at > now {
                return Some(at);
            }
            self.queue.borrow_mut().pop();
            self.begin(at, id);
        }
        None
    }

    fn begin(self: &Rc<Self>, at: Nanos, id: EndpointId) {
        let (watched, endpoint, kept) = match self.targets.borrow_mut().get_mut(&id) {
            Some(target) if !target.busy && target.checker.next_at_ns() == at.as_u64() => {
                target.busy = true;
                (target.watched.clone(), target.endpoint.clone(), std::mem::take(&mut target.kept))
            }
            _ => return,
        };
        self.active.set(self.active.get() + 1);
        let by = (watched.cluster.config.clone(), endpoint.transport);
        let mut under_way = UnderWay { health: self.clone(), id, by, probed: Probed::lost(), kept };
        self.state.core.spawn(async move {
            let state = under_way.health.state.clone();
            let probed = probe::all(&state, &watched.cluster, &endpoint, &mut under_way.kept).await;
            under_way.over(probed);
        });
    }

    fn finish(&self, ended: &mut UnderWay) {
        self.active.set(self.active.get() - 1);
        if let Some(target) = self.targets.borrow_mut().get_mut(&ended.id) {
            target.busy = false;
            if target.is_reached_by(&ended.by.0, ended.by.1) {
                target.kept = std::mem::take(&mut ended.kept);
            }
            self.judge(target, ended.probed);
            let due = Nanos::from_u64(target.checker.next_at_ns());
            self.queue.borrow_mut().push(Reverse((due, ended.id)));
        }
        self.wake();
    }

    fn judge(&self, target: &mut Target, probed: Probed) {
        let watched = target.watched.clone();
        let Some(check) = watched.first() else { return };
        let shard = &self.state.shard;
        let stats = Block::from_raw(watched.cluster.config.stats.health_check.0);
        shard.inc(stats, Stat::Attempt);
        shard.inc(stats, if probed.result == CheckResult::Pass { Stat::Success } else { Stat::Failure });
        if probed.is_network {
            shard.inc(stats, Stat::NetworkFailure);
        }
        if probed.verified_cluster {
            shard.inc(stats, Stat::VerifyCluster);
        }
        target.endpoint.live.health_streak.store(CHECKED, Release);
        let facts = watched.facts(&target.endpoint, self.state.now());
        let rng = &mut self.state.rng.borrow_mut();
        match target.checker.on_result(check, &facts, probed.result, rng) {
            Transition::None => {}
            Transition::BecameHealthy => self.gauge(&watched),
            Transition::BecameUnhealthy => {
                self.gauge(&watched);
                if watched.cluster.config.close_connections_on_host_health_failure {
                    close_idle_of(&self.state, target.endpoint.id);
                }
            }
        }
    }

    /// Endpoints that pass, of the cluster as it is now.
    fn gauge(&self, watched: &Watched) {
        let bits = EndpointLive::FAILED_ACTIVE_HC | EndpointLive::PENDING_ACTIVE_HC;
        let passes = |endpoint: &&Arc<Endpoint>| endpoint.live.unhealthy.load(Acquire) & bits == 0;
        let passing = watched.cluster.endpoints.endpoints.iter().filter(passes).count();
        let stats = Block::from_raw(watched.cluster.config.stats.health_check.0);
        self.state.shard.gauge_set(stats, Stat::Healthy, passing as u64);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Resolves at the next [`Health::wake`].
    async fn woken(&self) {
        let mut waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// A check under way; one that is dropped (a panic, or the core refused the task) counts as lost.
struct UnderWay {
    health: Rc<Health>,
    id: EndpointId,
    /// The configuration and the transport socket that it was begun with.
    by: (Arc<ClusterConfig>, u32),
    probed: Probed,
    kept: Vec<Option<Rc<Conn>>>,
}

impl UnderWay {
    /// With this result; a check whose task ends before is lost.
    fn over(mut self, probed: Probed) {
        self.probed = probed;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.health.clone().finish(self);
    }
}

/// The endpoint as it is checked: at its health check port, where it has one.
fn at_check_port(endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
    let Some(port) = endpoint.health_check_port else { return endpoint.clone() };
    let mut address = endpoint.address;
    address.set_port(port);
    Arc::new(Endpoint {
        id: endpoint.id,
        address,
        hostname: endpoint.hostname.clone(),
        weight: endpoint.weight,
        priority: endpoint.priority,
        locality: endpoint.locality,
        health: endpoint.health,
        canary: endpoint.canary,
        health_check_port: endpoint.health_check_port,
        transport: endpoint.transport,
        live: endpoint.live.clone(),
        stats: endpoint.stats,
    })
}

/// close_connections_on_host_health_failure: idle ones, on every core; what is in use is not given back later.
fn close_idle_of(state: &CoreState, endpoint: EndpointId) {
    state.pool.release_endpoint(endpoint);
    state.streams.release_endpoint(endpoint);
    for other in (0..state.core.cores()).filter(|core| *core != state.core.id) {
        let close = Mail::task(move |_: &Rc<Core>| {
            on_worker(|worker| {
                worker.state.pool.release_endpoint(endpoint);
                worker.state.streams.release_endpoint(endpoint);
            });
        });
        // a full mailbox: that core's connections are found out when they are used
        let _ = state.core.post(other, close);
    }
}
