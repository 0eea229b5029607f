//! What the control thread holds of the running process, and what the admin pages are made from.

use super::{
    configuration::Configuration,
    lifecycle::{Lifecycle, Listeners, State},
    log_writer::LogFiles,
    resolver::Resolver,
    secrets::{Secrets, expiries},
};
use crate::{flags::Flags, logging, stats::Stats, tuning::Tuning};
use corelane_snapshot::{Listener, ListenerId};
use corelane_telemetry::{
    Block, ListenerManagerStat, ListenerStat, ListenerWorkerStat, ProcessStat, Scope, ServerStat,
};
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// One core as `/server_info` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreShown {
    pub driver: &'static str,
    pub cpu: Option<usize>,
    pub connections: usize,
}

/// The running cores, as the control thread reaches them.
pub trait DataPlane {
    fn cores(&self) -> Vec<CoreShown>;
    /// Why a core that could have had io_uring has epoll.
    fn ring_denied(&self) -> Option<String>;
    /// Where a listener is bound.
    fn bound(&self, listener: ListenerId) -> Option<SocketAddr>;
    /// Downstream connections open now.
    fn connections(&self) -> u64;
    /// Requests and tunnels under way now.
    fn requests(&self) -> u64;
    /// From now on answers ask their clients to go.
    fn drain(&self, listeners: Listeners);
    /// The drain under way.
    fn draining(&self) -> Option<Listeners>;
    /// Listening sockets close, each after what waits there was accepted.
    fn stop_accepting(&self, listeners: Listeners);
    /// Nobody is connected, and nobody listens any more.
    fn is_deserted(&self) -> bool;
    /// Closes what is idle; what is under way may end.
    fn close_idle(&self);
    /// The cores that have not turned for longer than the limit, with how long.
    fn stalled(&self) -> Vec<(usize, Duration)>;
    /// Turns of all loops so far: whether anything happens at all.
    fn turns(&self) -> u64;
}

/// Before and after the cores run.
struct NoCores;

impl DataPlane for NoCores {
    fn cores(&self) -> Vec<CoreShown> {
        Vec::new()
    }

    fn ring_denied(&self) -> Option<String> {
        None
    }

    fn bound(&self, _: ListenerId) -> Option<SocketAddr> {
        None
    }

    fn connections(&self) -> u64 {
        0
    }

    fn requests(&self) -> u64 {
        0
    }

    fn drain(&self, _: Listeners) {}

    fn draining(&self) -> Option<Listeners> {
        None
    }

    fn stop_accepting(&self, _: Listeners) {}

    fn is_deserted(&self) -> bool {
        true
    }

    fn close_idle(&self) {}

    fn stalled(&self) -> Vec<(usize, Duration)> {
        Vec::new()
    }

    fn turns(&self) -> u64 {
        0
    }
}

/// Who this node says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub zone: String,
}

/// Everything the control thread shares among its tasks.
pub struct Process {
    pub flags: Flags,
    pub tuning: Tuning,
    pub node: Node,
    /// The bootstrap message, as read.
    pub bootstrap: Arc<[u8]>,
    pub started: Instant,
    pub started_at: SystemTime,
    pub stats: Stats,
    pub configuration: Configuration,
    pub secrets: Rc<RefCell<Secrets>>,
    pub logs: RefCell<LogFiles>,
    pub log: Option<logging::Handle>,
    pub resolver: Option<Resolver>,
    pub lifecycle: Lifecycle,
    plane: RefCell<Rc<dyn DataPlane>>,
    /// Whose listeners were stopped, and counted.
    stopped: Cell<Option<Listeners>>,
    /// Where the expiry of our certificates is shown, as long as they are these.
    expiries: expiries::Expiries,
}

/// What a process starts from.
pub struct Parts {
    pub flags: Flags,
    pub tuning: Tuning,
    pub node: Node,
    pub bootstrap: Arc<[u8]>,
    pub stats: Stats,
    pub configuration: Configuration,
    pub secrets: Secrets,
    pub logs: LogFiles,
    pub log: Option<logging::Handle>,
    pub resolver: Option<Resolver>,
}

impl Process {
    pub fn new(parts: Parts) -> Rc<Process> {
        Rc::new(Process {
            flags: parts.flags,
            tuning: parts.tuning,
            node: parts.node,
            bootstrap: parts.bootstrap,
            started: Instant::now(),
            started_at: SystemTime::now(),
            stats: parts.stats,
            configuration: parts.configuration,
            secrets: Rc::new(RefCell::new(parts.secrets)),
            logs: RefCell::new(parts.logs),
            log: parts.log,
            resolver: parts.resolver,
            lifecycle: Lifecycle::default(),
            plane: RefCell::new(Rc::new(NoCores)),
            stopped: Cell::new(None),
            expiries: expiries::Expiries::default(),
        })
    }

    pub fn plane(&self) -> Rc<dyn DataPlane> {
        self.plane.borrow().clone()
    }

    pub fn set_plane(&self, plane: Rc<dyn DataPlane>) {
        self.plane.replace(plane);
    }

    /// All cores serve.
    pub fn started_serving(&self) {
        self.lifecycle.enter(State::Live);
        let stats = &self.stats;
        for core in 0..self.plane().cores().len() {
            // shown from the start on: a core that never stalls shows 0
            stats.worker(core);
        }
        stats.set(stats.listeners, ListenerManagerStat::WorkersStarted, 1);
        stats.set(stats.server, ServerStat::Version, version_number());
        let took_us = self.started.elapsed().as_micros() as u64;
        stats.with(|registry| {
            registry.control().record(stats.server, ServerStat::InitializationTimeMs, took_us);
        });
    }

    /// Nobody new is accepted from now on.
    pub fn stop_listening(&self, which: Listeners) {
        self.plane().stop_accepting(which);
        let before = self.stopped.replace(self.stopped.get().max(Some(which)));
        let is_new = |listener: &&Arc<Listener>| {
            which.includes(listener.direction)
                && !before.is_some_and(|before| before.includes(listener.direction))
        };
        let stopped = self.configuration.current().listeners.iter().filter(is_new).count();
        self.stats.add(self.stats.listeners, ListenerManagerStat::ListenerStopped, stopped as u64);
    }

    /// After a rotation: access logs and the process's own log are opened again by their names.
    pub fn reopen_logs(&self) {
        self.logs.borrow_mut().reopen();
        if let Some(Err(error)) = self.log.map(logging::Handle::reopen) {
            tracing::warn!("log file: cannot open again: {error}; going on with the one that is open");
        }
    }

    /// Brings the gauges that are only read up to date; before a scrape.
    pub fn refresh_gauges(&self) {
        self.configuration.refresh_gauges();
        self.refresh_workers();
        self.expiries.refresh(self);
        let stats = &self.stats;
        let plane = self.plane();
        let state = self.lifecycle.state();
        let memory = crate::memory::read();
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let days = self.secrets.borrow().first_expiry_s().map(|expiry| expiry.saturating_sub(now_s) / 86_400);
        for (stat, value) in [
            (ServerStat::Uptime, self.started.elapsed().as_secs()),
            (ServerStat::Live, u64::from(state == State::Live)),
            (ServerStat::State, state.number()),
            (ServerStat::Concurrency, plane.cores().len() as u64),
            (ServerStat::TotalConnections, plane.connections()),
            (ServerStat::MemoryAllocated, memory.allocated),
            (ServerStat::MemoryHeapSize, memory.data),
            (ServerStat::MemoryPhysicalSize, memory.resident),
            // Envoy shows the largest number where no certificate can expire
            (ServerStat::DaysUntilFirstCertExpiring, days.unwrap_or(u64::from(u32::MAX))),
        ] {
            stats.set(stats.server, stat, value);
        }
        stats.inc(stats.process, ProcessStat::StatsScrapes);
    }

    /// A listener's connections as they spread over the cores: what each core has counted for the listener.
    fn refresh_workers(&self) {
        let cores = self.plane().cores().len();
        self.stats.with(|registry| {
            for listener in &self.configuration.current().listeners {
                let block: Block<ListenerStat> = Block::from_raw(listener.stats.listener.0);
                let Some(address) = registry.scope_of(block).map(|scope| scope.label(0).to_owned()) else {
                    continue;
                };
                for core in 0..cores {
                    let worker = registry.block(Scope::listener_worker(&address, &core.to_string()));
                    let total = registry.of_core(core, block, ListenerStat::DownstreamCxTotal);
                    let active = registry.of_core(core, block, ListenerStat::DownstreamCxActive);
                    let control = registry.control();
                    let shown = control.value(worker, ListenerWorkerStat::DownstreamCxTotal);
                    control.add(worker, ListenerWorkerStat::DownstreamCxTotal, total.saturating_sub(shown));
                    control.gauge_set(worker, ListenerWorkerStat::DownstreamCxActive, active);
                }
            }
        });
    }
}

/// `server.version` as one number: 1.2.3 is 1002003. Envoy's is cut from its commit.
fn version_number() -> u64 {
    let parts = env!("CARGO_PKG_VERSION").split(['.', '-']).take(3);
    parts.fold(0, |number, part| number * 1_000 + part.parse::<u64>().unwrap_or(0))
}
