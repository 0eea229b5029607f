//! The control thread: everything that is not on the path of a request.

pub mod configuration;
pub mod dns;
pub mod drain;
pub mod lifecycle;
pub mod log_writer;
pub mod outlier;
pub mod process;
pub mod resolver;
pub mod retire;
pub mod secrets;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;
pub mod watchdog;
