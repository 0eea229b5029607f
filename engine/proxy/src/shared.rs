//! What the whole process shares: limits, and a few exact counts that every core may touch.

use corelane_snapshot::{ListenerId, TrafficDirection};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::Duration,
};

/// Bounds of one process, from the tuning section.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Downstream connections over all cores; one more is closed at accept and counted.
    pub downstream_connections_max: u32,
    /// Seconds without a byte after which an idle connection gives its buffer back.
    pub park_after: Duration,
    /// Bytes of a request's body kept for a retry; beyond, the try under way is final.
    pub replay_bytes_max: usize,
    /// Idle upstream connections one core keeps per endpoint.
    pub idle_per_endpoint_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            downstream_connections_max: 100_000,
            park_after: Duration::from_secs(1),
            replay_bytes_max: 64 << 10,
            idle_per_endpoint_max: 1_024,
        }
    }
}

/// Whose connections are asked to go, each step including the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Drained {
    #[default]
    Nobody,
    /// Of listeners with `traffic_direction: INBOUND`.
    Inbound,
    All,
}

impl Drained {
    pub fn includes(self, listener: TrafficDirection) -> bool {
        self == Drained::All || (self == Drained::Inbound && listener == TrafficDirection::Inbound)
    }
}

/// Shared by all cores and the control thread.
#[derive(Debug, Default)]
pub struct Shared {
    pub limits: Limits,
    /// This machine's name, for `%HOSTNAME%`.
    pub hostname: String,
    /// A [`Drained`]: there, answers say `connection: close` and streams get GOAWAY.
    draining: AtomicU8,
    /// The drain is over: idle connections are closed.
    pub closing: AtomicBool,
    /// From the moment that they are accepted, whichever core they then live on.
    pub downstream_connections: AtomicU32,
    /// Listening sockets open over all cores. What waits in their queues is no connection yet.
    pub listening: AtomicU32,
    /// Requests and tunnels under way, for the end of a drain.
    pub requests_active: AtomicU32,
    /// Faults now injected (max_active_faults).
    pub faults_active: AtomicU32,
    /// Where listeners with port 0 were bound by the first core that did. Never touched by a request.
    ports: Mutex<HashMap<ListenerId, SocketAddr>>,
}

/// One request or tunnel under way; counted until dropped, however that comes about.
pub(crate) struct Active(Arc<Shared>);

impl Active {
    pub fn new(shared: &Arc<Shared>) -> Self {
        shared.requests_active.fetch_add(1, Relaxed);
        Active(shared.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.requests_active.fetch_sub(1, Relaxed);
    }
}

/// A downstream connection that counts; until dropped.
pub(crate) struct Admitted(Arc<Shared>);

impl Admitted {
    /// None: that would be more than the cap.
    pub fn new(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.limits.downstream_connections_max;
        let count = |now: u32| (now < max).then_some(now + 1);
        let counted = shared.downstream_connections.fetch_update(Relaxed, Relaxed, count);
        counted.ok().map(|_| Admitted(shared.clone()))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.downstream_connections.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    pub fn new(limits: Limits) -> Self {
        Shared { limits, ..Shared::default() }
    }

    /// Begins a drain, or widens the one under way. Each core hears of it within a moment.
    pub fn drain(&self, whom: Drained) {
        self.draining.fetch_max(whom as u8, Relaxed);
    }

    pub fn drained(&self) -> Drained {
        match self.draining.load(Relaxed) {
            0 => Drained::Nobody,
            1 => Drained::Inbound,
            _ => Drained::All,
        }
    }

    /// Whether connections of a listener with this direction are asked to go.
    pub fn is_draining(&self, listener: TrafficDirection) -> bool {
        self.drained().includes(listener)
    }

    /// The drain is over: nothing is waited for but what is under way.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Downstream connections open now, over all cores.
    pub fn connections(&self) -> u32 {
        self.downstream_connections.load(Relaxed)
    }

    /// Whether somebody is connected, or may be before the last listening socket is closed. A socket that closes hands
    /// over all that waits there first.
    pub fn is_deserted(&self) -> bool {
        self.listening.load(Acquire) == 0 && self.connections() == 0
    }

    /// Requests and tunnels under way now, over all cores.
    pub fn requests(&self) -> u32 {
        self.requests_active.load(Relaxed)
    }

    /// The address to bind: the configured one, or where another core bound port 0 already.
    pub(crate) fn resolve_port(&self, id: ListenerId, configured: SocketAddr) -> SocketAddr {
        if configured.port() != 0 {
            return configured;
        }
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(&id).copied().unwrap_or(configured)
    }

    pub(crate) fn remember_port(&self, id: ListenerId, bound: SocketAddr) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(id, bound);
    }

    /// Where a listener is bound, on whichever core was first; None: on none.
    pub fn bound(&self, id: ListenerId) -> Option<SocketAddr> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}
