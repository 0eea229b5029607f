//! The one place where the process meets the proxy crate: cores are launched, and reached afterwards.

use crate::control::{
    lifecycle::Listeners,
    process::{CoreShown, DataPlane, Process},
};
use corelane_proxy::{CoreBlocks, Drained, Shared, Worker, WorkerEnv};
use corelane_runtime::{Core, CoreConfig, Cores, Mail, Nanos, Watchdog, launch};
use corelane_snapshot::ListenerId;
use corelane_telemetry::{
    DriverStat, ListenerManagerStat, Scope,
    access_log::{LogReader, log_ring},
};
use std::{
    cell::{OnceCell, RefCell},
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::Relaxed,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

/// A core that has not ended after this is left behind when the process exits.
const JOIN_WAIT: Duration = Duration::from_secs(5);

thread_local! {
    /// Of the core whose thread this is.
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// The cores that serve traffic.
pub struct Engine {
    cores: RefCell<Option<Cores>>,
    shared: Arc<Shared>,
    watchdog: RefCell<Watchdog>,
    cpus: Vec<Option<usize>>,
}

/// What every core takes its part from, once.
type Parts = Arc<Mutex<Vec<Option<WorkerEnv>>>>;

/// What gethostname(2) says, for `%HOSTNAME%`; empty where the kernel does not tell, which access logs show as `-`.
fn hostname() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
    read.map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Starts the cores and waits until each has bound its listeners.
///
/// # Errors
/// Every reason: what the kernel denied a core, and each listener that could not be bound, once.
pub fn start(
    process: &Process,
    configs: Vec<CoreConfig>,
) -> Result<(Rc<Engine>, Vec<LogReader>), Vec<String>> {
    let mut shared = Shared::new(process.tuning.limits.clone());
    shared.hostname = hostname();
    let shared = Arc::new(shared);
    let (mut envs, mut readers) = (Vec::new(), Vec::new());
    for core in 0..configs.len() {
        let (log, reader) = log_ring();
        readers.push(reader);
        envs.push(Some(WorkerEnv {
            subscription: process.configuration.seed(),
            tls: process.secrets.borrow().table().clone(),
            shard: process.stats.with(|registry| registry.shard(core)).map_err(|e| vec![e.to_string()])?,
            stats: process.stats.with(|registry| CoreBlocks::of(registry, core)),
            log,
            shared: shared.clone(),
            seed: RandomState::new().build_hasher().finish(),
        }));
    }
    let cpus = configs.iter().map(|config| config.cpu).collect();
    let parts: Parts = Arc::new(Mutex::new(envs));
    let (report, reports) = channel();
    let wanted = configs.len();
    let cores = launch(configs, move |core| serve(core, parts.clone(), report.clone()))
        .map_err(|error| vec![error.to_string()])?;
    let mut faults = Vec::new();
    for _ in 0..wanted {
        match reports.recv() {
            Ok(reported) => faults.extend(reported),
            Err(_) => faults.push("a core ended before it had bound its listeners".to_owned()),
        }
    }
    faults.sort();
    faults.dedup();
    let engine = Engine {
        watchdog: RefCell::new(cores.watchdog(process.tuning.stall_limit)),
        cores: RefCell::new(Some(cores)),
        shared,
        cpus,
    };
    engine.count(process, faults.len());
    if faults.is_empty() { Ok((Rc::new(engine), readers)) } else { Err(stopped(engine, faults)) }
}

fn stopped(engine: Engine, faults: Vec<String>) -> Vec<String> {
    engine.stop();
    faults
}

/// The main task of a core.
async fn serve(core: Rc<Core>, parts: Parts, report: Sender<Vec<String>>) {
    let env = parts.lock().unwrap_or_else(PoisonError::into_inner).get_mut(core.id).and_then(Option::take);
    let faults = match env.map(|env| Worker::start(&core, env)) {
        Some(Ok(worker)) => {
            WORKER.with(|slot| slot.set(worker).ok());
            Vec::new()
        }
        Some(Err(faults)) => faults.iter().map(ToString::to_string).collect(),
        None => vec![format!("core {} was started twice", core.id)],
    };
    // fails only where the control thread gave up, and the process with it
    let _ = report.send(faults);
    drop((parts, report));
    // a core ends by mail
    std::future::pending().await
}

fn whose(listeners: Listeners) -> Drained {
    match listeners {
        Listeners::Inbound => Drained::Inbound,
        Listeners::All => Drained::All,
    }
}

impl Engine {
    fn count(&self, process: &Process, faults: usize) {
        let listeners = process.configuration.current().listeners.len();
        let stats = &process.stats;
        let block = stats.listeners;
        stats.add(block, ListenerManagerStat::ListenerAdded, listeners as u64);
        stats.add(block, ListenerManagerStat::ListenerCreateSuccess, listeners.saturating_sub(faults) as u64);
        stats.add(block, ListenerManagerStat::ListenerCreateFailure, faults as u64);
        for (core, shown) in self.cores().iter().enumerate() {
            let info = stats.with(|registry| registry.block(Scope::driver(&core.to_string(), shown.driver)));
            stats.set(info, DriverStat::Info, 1);
        }
    }

    /// Runs on every core; one whose mailbox is full is left out.
    fn on_all(&self, run: impl Fn(&Rc<Worker>) + Copy + Send + 'static) {
        for (core, mail) in self.cores.borrow().iter().flat_map(Cores::mail).enumerate() {
            let task =
                Mail::task(move |_: &Rc<Core>| WORKER.with(|slot| slot.get().into_iter().for_each(run)));
            if mail.try_send(task).is_err() {
                tracing::warn!("core {core}: its mailbox is full; is it stalled?");
            }
        }
    }

    /// Ends the cores where they stand, and waits for them, but not for ever.
    pub fn stop(&self) {
        let Some(cores) = self.cores.borrow_mut().take() else { return };
        cores.stop();
        let (joined, ended) = channel();
        // its end is not awaited where a core hangs: the process exits all the same
        let waiter = std::thread::Builder::new().name("join".to_owned()).spawn(move || {
            let _ = joined.send(cores.join());
        });
        match waiter.map(|_| ended.recv_timeout(JOIN_WAIT)) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!("{error}"),
            Ok(Err(_)) => {
                tracing::warn!("a core has not ended after {} s; leaving it behind", JOIN_WAIT.as_secs())
            }
            Err(error) => tracing::warn!("cannot start a thread: {error}; not waiting for the cores"),
        }
    }
}

impl DataPlane for Engine {
    fn cores(&self) -> Vec<CoreShown> {
        let cores = self.cores.borrow();
        let Some(cores) = &*cores else { return Vec::new() };
        let shown = |(core, driver): (usize, &corelane_runtime::Driver)| CoreShown {
            driver: driver.name(),
            cpu: self.cpus.get(core).copied().flatten(),
            connections: cores.placement().load(core),
        };
        cores.drivers().iter().enumerate().map(shown).collect()
    }

    fn ring_denied(&self) -> Option<String> {
        self.cores.borrow().as_ref().and_then(Cores::ring_denied).map(ToString::to_string)
    }

    fn bound(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.shared.bound(listener)
    }

    fn connections(&self) -> u64 {
        self.shared.downstream_connections.load(Relaxed).into()
    }

    fn requests(&self) -> u64 {
        self.shared.requests_active.load(Relaxed).into()
    }

    fn drain(&self, listeners: Listeners) {
        self.shared.drain(whose(listeners));
    }

    fn draining(&self) -> Option<Listeners> {
        match self.shared.drained() {
            Drained::Nobody => None,
            Drained::Inbound => Some(Listeners::Inbound),
            Drained::All => Some(Listeners::All),
        }
    }

    fn stop_accepting(&self, listeners: Listeners) {
        self.on_all(move |worker| worker.stop_accepting(whose(listeners)));
    }

    fn is_deserted(&self) -> bool {
        self.shared.is_deserted()
    }

    fn close_idle(&self) {
        self.shared.closing.store(true, Relaxed);
    }

    fn stalled(&self) -> Vec<(usize, Duration)> {
        self.watchdog.borrow_mut().check(Nanos::read()).map(|stall| (stall.core, stall.lasting)).collect()
    }

    fn turns(&self) -> u64 {
        let cores = self.cores.borrow();
        cores.iter().flat_map(|cores| cores.heartbeats()).map(|heartbeat| heartbeat.turns()).sum()
    }
}
