//! The life of the process, in the order in which it passes: admin page up, names resolved, cores started, LIVE, and
//! out again.

use super::{
    configuration::Configuration,
    dns, drain,
    lifecycle::{State, Wish},
    log_writer::{LogFiles, next_look},
    outlier,
    process::{Node, Parts, Process},
    resolver::Resolver,
    secrets, watchdog,
};
use crate::{
    admin,
    bootstrap::Loadable,
    engine::{self, Engine},
    flags::{Flags, Mode},
    logging,
};
use corelane_tls::TICKET_LIFETIME_S;
use corelane_xds::translate::{Dns, DnsCluster};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{rc::Rc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{LocalSet, spawn_local},
    time::sleep,
};

/// Between two collections of snapshots that cores let go of.
const COLLECT: Duration = Duration::from_secs(10);

/// A core hands over its last log lines after at most a quarter of a second.
const LAST_LINES: Duration = Duration::from_millis(300);

/// Runs until the process is asked to end. The calling thread becomes the control thread.
///
/// # Errors
/// Every reason why it could not start.
pub fn run(flags: Flags, loaded: Loadable, log: logging::Handle) -> Result<(), Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| vec![format!("control thread: cannot start its event loop: {error}")])?;
    raise_descriptor_limit();
    LocalSet::new().block_on(&runtime, serve(flags, loaded, log))
}

/// Every connection is a descriptor: takes what the process may have, not the small number that shells start with.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("file descriptors: cannot raise the limit; staying at {:?}", limit.current);
    }
}

async fn serve(flags: Flags, loaded: Loadable, log: logging::Handle) -> Result<(), Vec<String>> {
    // first of all: a signal that comes while the process starts must not kill it half way
    let signals = Signals::new()?;
    let admin = loaded.translation.admin;
    let configs = loaded.cores.clone();
    let (process, dns_clusters) = prepare(flags, loaded, log)?;
    process.lifecycle.enter(State::Initializing);
    if let Some(admin) = admin {
        let path = process.flags.admin_address_path.clone();
        let listener = admin::bind(admin.address, path.as_deref()).await.map_err(|fault| vec![fault])?;
        if let Ok(bound) = listener.local_addr() {
            tracing::info!("admin pages on http://{bound}/");
        }
        spawn_local(admin::serve(listener, process.clone()));
    }
    dns::follow(&process, dns_clusters).await;
    let (engine, readers) = engine::start(&process, configs)?;
    process.logs.borrow_mut().read_from(readers);
    process.set_plane(engine.clone());
    announce(&process);
    if process.flags.mode == Mode::InitOnly {
        engine.stop();
        return Ok(());
    }
    process.started_serving();
    start_tasks(&process);
    // reading the configuration took several times what is left of it
    corelane_runtime::memory::trim();
    corelane_runtime::memory::forget_code();
    until_end(&process, signals).await;
    end(&process, &engine).await;
    Ok(())
}

/// All that can fail before anything runs.
fn prepare(
    flags: Flags,
    loaded: Loadable,
    log: logging::Handle,
) -> Result<(Rc<Process>, Vec<DnsCluster>), Vec<String>> {
    let translation = loaded.translation;
    let logs = LogFiles::open(loaded.builder.sinks(), loaded.stats.clone())?;
    let resolver = match translation.dns_clusters.is_empty() {
        true => None,
        false => Some(resolver(&translation.dns).map_err(|fault| vec![fault])?),
    };
    let node = Node {
        id: translation.node.id,
        cluster: translation.node.cluster,
        zone: translation.node.locality.zone.to_string(),
    };
    let process = Process::new(Parts {
        flags,
        tuning: loaded.tuning,
        node,
        bootstrap: loaded.bootstrap,
        configuration: Configuration::new(loaded.builder, loaded.snapshot, loaded.stats.clone()),
        stats: loaded.stats,
        secrets: loaded.secrets,
        logs,
        log: Some(log),
        resolver,
    });
    Ok((process, translation.dns_clusters))
}

fn resolver(dns: &Dns) -> Result<Resolver, String> {
    if *dns == Dns::default() {
        Resolver::system()
    } else {
        Resolver::of(&dns.servers, dns.use_tcp, dns.no_search_domain)
    }
}

/// What somebody who reads the log wants to know first.
fn announce(process: &Process) {
    let plane = process.plane();
    let cores = plane.cores();
    if let Some(reason) = plane.ring_denied() {
        tracing::warn!("running on epoll: {reason}");
    }
    for (core, shown) in cores.iter().enumerate() {
        let place = shown.cpu.map_or("not pinned".to_owned(), |cpu| format!("on CPU {cpu}"));
        tracing::info!(
            core = core as u64,
            driver = shown.driver,
            "core {core} runs on {}, {place}",
            shown.driver
        );
    }
    for listener in &process.configuration.current().listeners {
        if let Some(bound) = plane.bound(listener.id) {
            tracing::info!("listener `{}` accepts on {bound}", listener.name);
        }
    }
    let millis = process.started.elapsed().as_millis();
    let s = if cores.len() == 1 { "" } else { "s" };
    tracing::info!("started with {} core{s} in {millis} ms", cores.len());
}

fn start_tasks(process: &Rc<Process>) {
    let task = |process: &Rc<Process>| process.clone();
    let publishing = task(process);
    spawn_local(async move { publishing.configuration.publish_changes().await });
    spawn_local(secrets::follow_files(process.secrets.clone(), process.stats.clone()));
    spawn_local(watchdog::watch(task(process)));
    spawn_local(outlier::sweep_clusters(task(process)));
    spawn_local(rotate_ticket_keys(task(process)));
    if !process.logs.borrow().is_empty() {
        spawn_local(write_logs(task(process)));
    }
    let collecting = task(process);
    spawn_local(async move {
        loop {
            sleep(COLLECT).await;
            collecting.configuration.collect();
        }
    });
}

async fn write_logs(process: Rc<Process>) {
    let mut wait = Duration::ZERO;
    loop {
        let lines = process.logs.borrow_mut().drain();
        wait = next_look(wait, lines);
        sleep(wait).await;
    }
}

async fn rotate_ticket_keys(process: Rc<Process>) {
    loop {
        sleep(Duration::from_secs(TICKET_LIFETIME_S.into())).await;
        let rotated = process.secrets.borrow().table().environment().ticket_keys.rotate();
        if let Err(error) = rotated {
            tracing::warn!("session tickets: keeping the keys in use: {error}");
        }
    }
}

/// Follows signals and wishes until the process may end.
async fn until_end(process: &Rc<Process>, signals: Signals) {
    spawn_local(signals.follow(process.clone()));
    loop {
        match process.lifecycle.wished().await {
            Wish::Drain(listeners, stop) => drain::begin(process, listeners, stop),
            Wish::Shutdown => {
                drain::shutdown(process).await;
                return;
            }
            Wish::Quit => return,
        }
    }
}

async fn end(process: &Process, engine: &Engine) {
    if !process.logs.borrow().is_empty() {
        sleep(LAST_LINES).await;
        process.logs.borrow_mut().drain();
    }
    engine.stop();
    tracing::info!("ended after {} s", process.started.elapsed().as_secs());
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Vec<String>> {
        let listen = |kind| signal(kind).map_err(|error| vec![format!("signals: cannot listen: {error}")]);
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            reopen: listen(SignalKind::user_defined1())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn follow(mut self, process: Rc<Process>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => process.lifecycle.wish(Wish::Shutdown),
                _ = self.interrupt.recv() => process.lifecycle.wish(Wish::Shutdown),
                _ = self.reopen.recv() => process.reopen_logs(),
                // a terminal that goes away, or a habit of log rotation: neither is a reason to end, as in Envoy
                _ = self.hangup.recv() => tracing::warn!("SIGHUP is ignored; SIGUSR1 reopens the logs"),
            }
        }
    }
}
