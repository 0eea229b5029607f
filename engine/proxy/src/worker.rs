//! One core's worker: its state, its listeners, its housekeeping. It follows the snapshot: what is new is bound,
//! what is gone stops accepting, what is equal is left alone.

use crate::{
    accept, core_counts,
    health::Health,
    shared::{Drained, Shared},
    state::CoreState,
};
use corelane_runtime::{
    Core, CoreStats, Mail,
    net::{Keepalive, ListenOptions, Listener as Socket},
};
use corelane_snapshot::{ClusterId, Listener, ListenerId, SubscriptionSeed, TcpKeepalive};
use corelane_telemetry::{
    Block, CoreStat, Http2Stat, HttpInspectorStat, Registry, Scope, Shard, TlsInspectorStat,
    access_log::LogWriter,
};
use corelane_tls::ContextTable;
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// How long a log line waits at most before it is on its way to the file.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// Rounds of housekeeping between two looks at idle upstream connections.
const SWEEP_EVERY: u32 = 4;

/// What a worker is given to start with; moves to its core.
pub struct WorkerEnv {
    pub subscription: SubscriptionSeed,
    pub tls: Arc<ContextTable>,
    pub shard: Shard,
    pub stats: CoreBlocks,
    pub log: LogWriter,
    pub shared: Arc<Shared>,
    /// For this core's random numbers; tests give a fixed one.
    pub seed: u64,
}

/// Where a core counts whatever the snapshot holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreBlocks {
    pub core: Block<CoreStat>,
    pub tls_inspector: Block<TlsInspectorStat>,
    pub http_inspector: Block<HttpInspectorStat>,
    pub http2: Block<Http2Stat>,
}

impl CoreBlocks {
    pub fn of(registry: &mut Registry, core: usize) -> Self {
        CoreBlocks {
            core: registry.block(Scope::core(&core.to_string())),
            tls_inspector: registry.block(Scope::tls_inspector()),
            http_inspector: registry.block(Scope::http_inspector()),
            http2: registry.block(Scope::http2()),
        }
    }
}

/// Why a listener does not listen. The address says which.
#[derive(Debug, thiserror::Error)]
#[error("listener {name:?}: cannot bind {address}: {source}{hint}")]
pub struct BindError {
    pub name: String,
    pub address: SocketAddr,
    pub source: io::Error,
    hint: &'static str,
}

thread_local! {
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

pub struct Worker {
    pub(crate) state: Rc<CoreState>,
    accepting: RefCell<HashMap<ListenerId, Rc<accept::Accepting>>>,
    /// Whose listeners were stopped; a later snapshot does not bring them back.
    stopped: Cell<Drained>,
}

impl Worker {
    /// Starts the worker of this core: binds the snapshot's listeners and returns; call once a core.
    ///
    /// # Errors
    /// The listeners that could not be bound; the others serve.
    pub fn start(core: &Rc<Core>, env: WorkerEnv) -> Result<Rc<Worker>, Vec<BindError>> {
        let state = CoreState::new(core.clone(), env);
        let worker = Rc::new(Worker {
            state: Rc::new(state),
            accepting: RefCell::default(),
            stopped: Cell::default(),
        });
        WORKER.with(|slot| slot.set(worker.clone()).ok());
        let health = Health::new(&worker.state);
        // before anybody can connect: endpoints that must pass a check first are held back
        health.follow();
        core.spawn(housekeeping(worker.state.clone(), health));
        worker.reconcile()?;
        Ok(worker)
    }

    /// Follows the newest snapshot's listeners. The control thread posts this to each core after it has published
    /// one whose listeners differ.
    pub fn reconcile(self: &Rc<Self>) -> Result<(), Vec<BindError>> {
        let snapshot = self.state.pin();
        let mut accepting = self.accepting.borrow_mut();
        accepting.retain(|id, socket| {
            let kept = snapshot
                .listener(*id)
                .is_some_and(|listener| listener.bind_to_port && listener.address == socket.configured);
            if !kept {
                socket.stop();
            }
            kept
        });
        let mut failed = Vec::new();
        for listener in snapshot.listeners.iter().filter(|listener| listener.bind_to_port) {
            if accepting.contains_key(&listener.id) || self.stopped.get().includes(listener.direction) {
                continue;
            }
            match self.bind(listener) {
                Ok(socket) => {
                    self.state.core.spawn(accept::run(self.clone(), socket.clone()));
                    accepting.insert(listener.id, socket);
                }
                Err(error) => failed.push(error),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Where a listener is bound; the port is real where the configuration says 0.
    pub fn bound(&self, id: ListenerId) -> Option<SocketAddr> {
        Some(self.accepting.borrow().get(&id)?.socket.local_addr())
    }

    /// What the core's tasks, buffers and frames are up to.
    pub fn core_stats(&self) -> CoreStats {
        self.state.core.stats()
    }

    /// From now on answers say `connection: close`, streams get GOAWAY; listeners go on. One core's call is seen by all,
    /// but only this core's idle HTTP/2 connections hear of it at once.
    pub fn begin_drain(&self, whom: Drained) {
        self.state.shared.drain(whom);
        self.state.drain.ring();
    }

    /// The drain is over: this core's idle connections and its tunnels are closed, the others' within a moment;
    /// requests under way go on.
    pub fn close_idle(&self) {
        self.state.shared.closing.store(true, Relaxed);
        self.state.drain.ring();
    }

    /// Stops accepting on these listeners, for good, once what waits to be accepted was; what is under way goes on.
    pub fn stop_accepting(&self, on: Drained) {
        self.stopped.set(self.stopped.get().max(on));
        self.accepting.borrow_mut().retain(|_, socket| {
            let kept = !on.includes(socket.direction);
            if !kept {
                socket.stop();
            }
            kept
        });
    }

    fn bind(&self, listener: &Arc<Listener>) -> Result<Rc<accept::Accepting>, BindError> {
        let options = ListenOptions {
            backlog: listener.backlog,
            reuse_port: true,
            transparent: listener.transparent,
            freebind: listener.freebind,
            v6only: Some(!listener.ipv4_compat),
            keepalive: listener.tcp_keepalive.map(keepalive),
            ..ListenOptions::default()
        };
        // port 0: the first core to bind decides, the others follow
        let address = self.state.shared.resolve_port(listener.id, listener.address);
        let failed = |source: io::Error| BindError {
            name: listener.name.clone(),
            address,
            hint: match source.kind() {
                io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
                io::ErrorKind::AddrInUse => {
                    "; another process listens there without SO_REUSEPORT, or as another user"
                }
                io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
                _ => "",
            },
            source,
        };
        let socket = Socket::bind(&self.state.core, address, &options).map_err(failed)?;
        self.state.shared.remember_port(listener.id, socket.local_addr());
        Ok(accept::Accepting::new(listener, socket, &self.state.shared))
    }
}

/// What is not configured is what Linux does by default (tcp(7)).
pub(crate) fn keepalive(configured: TcpKeepalive) -> Keepalive {
    let seconds = |value: Option<u32>, or: u64| Duration::from_secs(value.map_or(or, u64::from));
    Keepalive {
        idle: seconds(configured.time_s, 7_200),
        interval: seconds(configured.interval_s, 75),
        probes: configured.probes.unwrap_or(9),
    }
}

/// Runs on a core, by mail.
pub(crate) fn on_worker(run: impl FnOnce(&Rc<Worker>)) {
    WORKER.with(|slot| {
        if let Some(worker) = slot.get() {
            run(worker);
        }
    });
}

/// This core is at a cap that all share: the others let go of idle connections of that cluster.
pub(crate) fn ask_for_idle(state: &CoreState, cluster: ClusterId) {
    tell_others(state, move |worker| {
        worker.state.pool.release_idle(Some(cluster));
    });
}

/// A connection under a shared cap is free, and nobody here waits for one: whoever waits elsewhere may look.
pub(crate) fn offer_elsewhere(state: &CoreState, cluster: ClusterId) {
    tell_others(state, move |worker| {
        worker.state.pool.wake_one(cluster);
    });
}

fn tell_others(state: &CoreState, tell: impl Fn(&Rc<Worker>) + Clone + Send + 'static) {
    let own = state.core.id;
    for other in (0..state.core.cores()).filter(|core| *core != own) {
        let tell = tell.clone();
        let mail = Mail::task(move |_: &Rc<Core>| on_worker(|worker| tell(worker)));
        // a full mailbox: that core is busy, and gives connections back as it goes
        let _ = state.core.post(other, mail);
    }
}

async fn housekeeping(state: Rc<CoreState>, health: Rc<Health>) {
    let mut round = 0u32;
    let mut heard = (Drained::Nobody, false);
    loop {
        state.core.timers().sleep(HOUSEKEEPING).await;
        state.log.borrow_mut().flush();
        // the control thread only sets the flags
        let drained = (state.shared.drained(), state.shared.is_closing());
        if drained != heard {
            heard = drained;
            state.drain.ring();
        }
        // an idle core lets go of the snapshot before the last one too
        state.follow();
        health.follow();
        round = round.wrapping_add(1);
        if round.is_multiple_of(SWEEP_EVERY) {
            state.pool.sweep(state.now());
            state.passing.borrow_mut().forget_unused();
            core_counts::publish(&state);
        }
    }
}
