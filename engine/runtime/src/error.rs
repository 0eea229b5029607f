//! Why cores could not be started. Errors of single connections stay `std::io::Error`.

use std::io;

use crate::driver::ProbeError;

/// A start-up error; each variant is a different thing for the operator to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no core was configured: at least one is needed")]
    NoCores,
    #[error("{asked} cores were configured, at most {max} are supported")]
    TooManyCores { asked: usize, max: usize },
    #[error("core {core}: io_uring was demanded but is not usable: {source}")]
    RingDenied { core: usize, source: ProbeError },
    #[error(
        "core {core}: the {driver} event loop could not be created (file descriptors or locked memory exhausted?): {source}"
    )]
    Loop { core: usize, driver: &'static str, source: io::Error },
    #[error("core {core}: cannot be pinned to cpu {cpu}: not in this process's cpu set")]
    Pin { core: usize, cpu: usize },
    #[error("core {core}: {what} could not be created (file descriptors exhausted?): {source}")]
    Descriptor { core: usize, what: &'static str, source: io::Error },
    #[error("core {core}: its thread could not be started (thread limit reached?): {source}")]
    Thread { core: usize, source: io::Error },
    #[error("core {core}: its main task panicked; see the panic message on standard error")]
    Panicked { core: usize },
    #[error("cpus of this process could not be read: {0}")]
    Cpus(io::Error),
}
