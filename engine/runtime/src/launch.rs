//! Starting the cores: one named thread each, and what the control thread holds of them.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::core::{Core, CoreConfig, Peers};
use crate::driver::{self, Driver, DriverChoice, Loop, ProbeError};
use crate::error::Error;
use crate::mailbox::{MailReceiver, MailSender, mailbox};
use crate::placement::Placement;
use crate::service;
use crate::stall::{Heartbeat, Watchdog};

/// Cores of one launch.
pub const CORES_MAX: usize = 256;

/// The running cores, as the thread that launched them sees them. Dropping it leaves them running.
pub struct Cores {
    threads: Vec<JoinHandle<Result<(), Error>>>,
    drivers: Vec<Driver>,
    heartbeats: Vec<Arc<Heartbeat>>,
    peers: Arc<Peers>,
    passed_over: Option<ProbeError>,
}

impl Cores {
    pub fn len(&self) -> usize {
        self.drivers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.drivers.is_empty()
    }

    /// The event loop of each core.
    pub fn drivers(&self) -> &[Driver] {
        &self.drivers
    }

    /// Why a core that could have had io_uring runs on epoll, for a log line.
    pub fn ring_denied(&self) -> Option<&ProbeError> {
        self.passed_over.as_ref()
    }

    /// The mailbox of each core.
    pub fn mail(&self) -> &[MailSender] {
        &self.peers.mail
    }

    pub fn placement(&self) -> &Arc<Placement> {
        &self.peers.placement
    }

    pub fn heartbeats(&self) -> &[Arc<Heartbeat>] {
        &self.heartbeats
    }

    /// A watchdog that names cores which do not turn for longer than `limit`.
    pub fn watchdog(&self, limit: Duration) -> Watchdog {
        Watchdog::new(self.heartbeats.iter().cloned().zip(self.peers.mail.iter().cloned()), limit)
    }

    /// Ends every core where it stands; see [`MailSender::stop`].
    pub fn stop(&self) {
        self.peers.mail.iter().for_each(MailSender::stop);
    }

    /// The cores that have ended, for whatever reason.
    pub fn ended(&self) -> impl Iterator<Item = usize> + '_ {
        self.threads.iter().enumerate().filter(|(_, thread)| thread.is_finished()).map(|(core, _)| core)
    }

    /// Waits for every core to end. The first error wins.
    pub fn join(self) -> Result<(), Error> {
        let mut first = Ok(());
        for (core, thread) in self.threads.into_iter().enumerate() {
            let ended = thread.join().unwrap_or(Err(Error::Panicked { core }));
            first = first.and(ended);
        }
        first
    }
}

/// Starts one thread per configuration and runs `main` on each. Returns when all event loops run, or with the first
/// error after the others were told to end. A core ends when its `main` does.
pub fn launch<F, Fut>(configs: Vec<CoreConfig>, main: F) -> Result<Cores, Error>
where
    F: Fn(Rc<Core>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    check(&configs)?;
    let probed = driver::probe();
    let choices: Vec<_> = configs.iter().map(|config| config.driver).collect();
    let mut drivers = Vec::with_capacity(configs.len());
    let mut boxes = Vec::with_capacity(configs.len());
    let mut senders = Vec::with_capacity(configs.len());
    for (core, config) in configs.iter().enumerate() {
        drivers.push(driver::decide(core, config.driver, &probed)?);
        let (sender, receiver) = mailbox(config.mails_max).map_err(|source| Error::Descriptor {
            core,
            what: "mailbox wake-up",
            source,
        })?;
        senders.push(sender);
        boxes.push(receiver);
    }
    let peers = Arc::new(Peers { mail: senders, placement: Placement::new(configs.len()) });
    let heartbeats: Vec<_> = configs.iter().map(|_| Arc::new(Heartbeat::default())).collect();

    let (ready, started) = channel();
    let mut threads = Vec::with_capacity(configs.len());
    for (core, (mut config, mail)) in configs.into_iter().zip(boxes).enumerate() {
        config.id = core;
        let seat = Seat {
            driver: drivers[core],
            config,
            mail,
            heartbeat: heartbeats[core].clone(),
            peers: peers.clone(),
            ready: ready.clone(),
        };
        let main = main.clone();
        let spawned = std::thread::Builder::new().name(thread_name(core)).spawn(move || seat.run(main));
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(source) => return Err(abandon(&peers, Error::Thread { core, source })),
        }
    }
    drop(ready);
    let mut passed_over = probed.err().filter(|_| choices.contains(&DriverChoice::Auto));
    match await_started(&started, &mut drivers) {
        Ok(denied) => passed_over = passed_over.or(denied),
        Err(error) => return Err(abandon(&peers, error)),
    }
    Ok(Cores { threads, drivers, heartbeats, peers, passed_over })
}

/// Waits for every core's first word. Notes the drivers that turned out differently, and why.
fn await_started(started: &Receiver<Started>, drivers: &mut [Driver]) -> Result<Option<ProbeError>, Error> {
    let mut denied = None;
    for _ in 0..drivers.len() {
        match started.recv() {
            Ok(Started { core, outcome: Ok(None) }) => debug_assert!(core < drivers.len()),
            Ok(Started { core, outcome: Ok(Some(why)) }) => {
                drivers[core] = Driver::Epoll;
                denied = Some(why);
            }
            Ok(Started { outcome: Err(error), .. }) => return Err(error),
            // A thread died without a word: only a panic does that.
            Err(_) => return Err(Error::Panicked { core: 0 }),
        }
    }
    Ok(denied)
}

fn check(configs: &[CoreConfig]) -> Result<(), Error> {
    match configs.len() {
        0 => Err(Error::NoCores),
        asked if asked > CORES_MAX => Err(Error::TooManyCores { asked, max: CORES_MAX }),
        _ => Ok(()),
    }
}

fn thread_name(core: usize) -> String {
    format!("core-{core}")
}

fn abandon(peers: &Peers, error: Error) -> Error {
    peers.mail.iter().for_each(MailSender::stop);
    error
}

/// What one thread needs to become a core.
struct Seat {
    driver: Driver,
    config: CoreConfig,
    mail: MailReceiver,
    heartbeat: Arc<Heartbeat>,
    peers: Arc<Peers>,
    ready: Sender<Started>,
}

/// A core's first word.
struct Started {
    core: usize,
    /// Runs; on epoll instead of io_uring for that reason, if there is one.
    outcome: Result<Option<ProbeError>, Error>,
}

impl Seat {
    fn run<F, Fut>(self, main: F) -> Result<(), Error>
    where
        F: Fn(Rc<Core>) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let Seat { driver, config, mail, heartbeat, peers, ready } = self;
        let core = config.id;
        // The receiver is gone only if another core failed first; its error is the one reported.
        let report = move |outcome| drop(ready.send(Started { core, outcome }));
        let (mut event_loop, driver, denied) = match pin(&config).and_then(|()| build(driver, &config)) {
            Ok(built) => built,
            Err(error) => {
                report(Err(error));
                return Ok(());
            }
        };
        let outcome = event_loop.block_on(async move {
            let core = Core::new(&config, driver, heartbeat, peers);
            let context = core.clone();
            service::run(core, mail, async move {
                report(Ok(denied));
                main(context).await;
            })
            .await
        });
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Panicked { core }),
            Err(source) => Err(Error::Descriptor { core, what: "timer or mailbox descriptor", source }),
        }
    }
}

/// The event loop. A full-sized ring can be refused where the probe's small one was not (a locked-memory limit).
fn build(driver: Driver, config: &CoreConfig) -> Result<(Loop, Driver, Option<ProbeError>), Error> {
    let fail = |driver: Driver, source| Error::Loop { core: config.id, driver: driver.name(), source };
    match Loop::new(driver, config) {
        Ok(event_loop) => Ok((event_loop, driver, None)),
        Err(source) if driver == Driver::IoUring && config.driver == DriverChoice::Auto => {
            let event_loop =
                Loop::new(Driver::Epoll, config).map_err(|source| fail(Driver::Epoll, source))?;
            Ok((event_loop, Driver::Epoll, Some(ProbeError::Failed(source))))
        }
        Err(source) => Err(fail(driver, source)),
    }
}

fn pin(config: &CoreConfig) -> Result<(), Error> {
    match config.cpu {
        Some(cpu) if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) => {
            Err(Error::Pin { core: config.id, cpu })
        }
        _ => Ok(()),
    }
}
