//! A pinned core: one thread, one event loop, and everything that loop owns.
//!
//! This crate hides monoio (io_uring, or epoll where io_uring is denied) behind types of its own, so that nothing
//! above it names the event loop it runs on. What a core owns ([`Core`]) is `!Send` and lives in `Rc` and `Cell`:
//! no lock is ever taken on a core. Threads meet only in the bounded mailboxes ([`MailSender`]), in the connection
//! counts ([`Placement`]) and in the heartbeats ([`Watchdog`]).
//!
//! Invariants for the layers above:
//! - A future that is dropped with a read in flight loses the bytes that read would have returned: after dropping
//!   a read, only close the connection. [`net::TcpStream::read_parking`] cancels its own reads without loss.
//! - One reader and one writer at a time on a [`net::TcpStream`].
//! - This is the only crate of the workspace with unsafe code.

pub mod buffer;
pub mod clock;
pub mod core;
pub mod cpus;
pub mod driver;
pub mod error;
mod event;
pub mod frame;
mod launch;
pub mod mailbox;
pub mod memory;
pub mod net;

pub mod placement;
mod service;
pub mod stall;
mod task;
pub mod testing;
pub mod timers;

pub use buffer::{Buf, BufferPool, BufferStats};
pub use clock::{Nanos, TurnClock};
pub use core::{Core, CoreConfig, CoreStats};
pub use driver::{Driver, DriverChoice, ProbeError, probe};
pub use error::Error;
pub use frame::{Frame, FramePool};
pub use launch::{Cores, launch};
pub use mailbox::{Adopted, Mail, MailSender};
pub use placement::{LoadGuard, Placement};
pub use stall::{Heartbeat, Stall, Watchdog};
pub use timers::{Deadline, Elapsed, Interval, Timers};
