//! `run`: requests on a schedule (open loop) or as fast as the peer answers (saturation), measured from the time each
//! was *meant* to leave.

mod driver;
mod exchange;
mod h2;
mod options;
mod report;
mod tally;

pub(crate) use options::parse_header;
pub use options::{Overrides, Protocol, RunOptions, parse_duration, parse_size};
pub use report::{Latency, RunReport, table};

use crate::Error;

/// Runs to the end and reports. Blocks the calling thread, which is pinned when `options.cpu` says so.
pub fn run(options: &RunOptions) -> Result<RunReport, Error> {
    options.check()?;
    crate::machine::raise_descriptors(options.connections)?;
    crate::machine::settle(options.cpu)?;
    match options.protocol {
        Protocol::H1 | Protocol::Tcp => driver::drive(options),
        Protocol::H2 => h2::drive(options),
    }
}
