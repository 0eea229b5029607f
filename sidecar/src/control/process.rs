//! What the control thread holds of the running process, and what the admin pages are made from.

use super::{
    configuration::Configuration, lifecycle::Lifecycle, log_writer::LogFiles, resolver::Resolver,
    secrets::Secrets,
};
use crate::{flags::Flags, logging, stats::Stats, tuning::Tuning};
use corelane_snapshot::ListenerId;
use corelane_telemetry::{ProcessStat, ServerStat};
use std::{
    cell::RefCell,
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
    fn drain(&self);
    fn stop_accepting(&self);
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

    fn drain(&self) {}
    fn stop_accepting(&self) {}
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
        })
    }

    pub fn plane(&self) -> Rc<dyn DataPlane> {
        self.plane.borrow().clone()
    }

    pub fn set_plane(&self, plane: Rc<dyn DataPlane>) {
        self.plane.replace(plane);
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
        let stats = &self.stats;
        let plane = self.plane();
        let state = self.lifecycle.state();
        let memory = crate::memory::read();
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let days = self.secrets.borrow().first_expiry_s().map(|expiry| expiry.saturating_sub(now_s) / 86_400);
        for (stat, value) in [
            (ServerStat::Uptime, self.started.elapsed().as_secs()),
            (ServerStat::Live, u64::from(state == super::lifecycle::State::Live)),
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
}
