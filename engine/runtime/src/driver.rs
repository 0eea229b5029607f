//! Which event loop a core runs on, and whether the kernel lets us.

use std::future::Future;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::core::CoreConfig;
use crate::error::Error;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where it is usable, else epoll.
    #[default]
    Auto,
    /// io_uring or no start.
    IoUring,
    Epoll,
}

/// What a core runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    pub const fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// Why io_uring is not usable here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "io_uring is not permitted (a seccomp profile such as Docker's default denies it, or sysctl kernel.io_uring_disabled is set)"
    )]
    NotPermitted,
    #[error("io_uring is not implemented by this kernel, or a seccomp profile hides it")]
    NotImplemented,
    #[error("io_uring lacks the operation {0} (kernel older than 5.6?)")]
    MissingOperation(&'static str),
    #[error("io_uring could not be set up (locked memory limit or file descriptors exhausted?): {0}")]
    Failed(io::Error),
}

impl ProbeError {
    fn from_setup(error: io::Error) -> ProbeError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ProbeError::NotPermitted,
            Some(libc::ENOSYS) => ProbeError::NotImplemented,
            _ => ProbeError::Failed(error),
        }
    }
}

/// Sets up a tiny ring and asks it for the operations we use.
pub fn probe() -> Result<Driver, ProbeError> {
    let needed = [
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("writev", opcode::Writev::CODE),
        ("poll_add", opcode::PollAdd::CODE),
        ("async_cancel", opcode::AsyncCancel::CODE),
        ("close", opcode::Close::CODE),
    ];
    let ring = IoUring::new(2).map_err(ProbeError::from_setup)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(ProbeError::from_setup)?;
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => Err(ProbeError::MissingOperation(name)),
        None => Ok(Driver::IoUring),
    }
}

/// Settles the choice: the driver, and why io_uring was passed over if it was.
pub(crate) fn decide(
    core: usize,
    choice: DriverChoice,
    probed: &Result<Driver, ProbeError>,
) -> Result<Driver, Error> {
    match (choice, probed) {
        (DriverChoice::Epoll, _) | (DriverChoice::Auto, Err(_)) => Ok(Driver::Epoll),
        (_, Ok(_)) => Ok(Driver::IoUring),
        (DriverChoice::IoUring, Err(_)) => match probe() {
            Ok(driver) => Ok(driver),
            Err(source) => Err(Error::RingDenied { core, source }),
        },
    }
}

/// The event loop itself. Built and run on its own thread.
pub(crate) enum Loop {
    Ring(Runtime<IoUringDriver>),
    Epoll(Runtime<LegacyDriver>),
}

impl Loop {
    pub(crate) fn new(driver: Driver, config: &CoreConfig) -> io::Result<Loop> {
        match driver {
            Driver::Epoll => RuntimeBuilder::<LegacyDriver>::new()
                .with_entries(config.ring_entries)
                .build()
                .map(Loop::Epoll),
            Driver::IoUring => ring(config).map(Loop::Ring),
        }
    }

    pub(crate) fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Loop::Ring(runtime) => runtime.block_on(future),
            Loop::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

/// A ring with the flags that were asked for, or with none where the kernel is too old for them (5.19 to 6.1).
fn ring(config: &CoreConfig) -> io::Result<Runtime<IoUringDriver>> {
    let build = |urb: io_uring::Builder| {
        RuntimeBuilder::<IoUringDriver>::new().with_entries(config.ring_entries).uring_builder(urb).build()
    };
    let mut flagged = IoUring::builder();
    // One bad submission must not hold back those behind it.
    flagged.setup_submit_all();
    if config.coop_taskrun {
        flagged.setup_coop_taskrun();
    }
    // Deferred completions are only collected by a waiting core, so a polling one must not use them.
    let defer = config.defer_taskrun && config.busy_poll_us == 0;
    if config.single_issuer || defer {
        flagged.setup_single_issuer();
    }
    if defer {
        flagged.setup_defer_taskrun();
    }
    match build(flagged) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(IoUring::builder()),
        built => built,
    }
}
