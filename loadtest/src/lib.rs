//! Load generator and backends that share no code with the engine they measure.
//!
//! Everything on the measured path is one pinned thread over epoll: [`run`] sends on a schedule that does not wait for
//! answers (so a stalled peer cannot hide its own delay), [`backend`] answers from prebuilt bytes. HTTP/2 goes through
//! the h2 crate on a tokio thread, as a second, independent implementation.

pub mod backend;
pub mod certs;
pub mod cli;
pub mod error;
pub mod handshakes;
pub mod idle;
pub mod run;

mod arrivals;
mod async_transport;
mod clock;
mod dialler;
mod framing;
mod heads;
mod machine;
mod poller;
pub mod target;
mod tickets;
pub mod tls;
mod transport;
mod watch;

pub use error::Error;
