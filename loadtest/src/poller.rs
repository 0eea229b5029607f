//! epoll, edge triggered: a descriptor is registered once and never modified, which leaves read, write and one wait
//! per batch as the only system calls of a request. Waits are exact to the nanosecond (epoll_pwait2, Linux 5.11): a
//! millisecond's rounding would be most of the latency to be measured.

use std::{io, os::fd::AsFd, time::Duration};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
};

/// Events taken from the kernel in one wait.
pub const READY_MAX: usize = 256;

#[derive(Clone, Copy)]
pub struct Ready {
    pub token: u64,
    flags: EventFlags,
}

impl Ready {
    pub fn writable(&self) -> bool {
        self.flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP)
    }

    pub fn readable(&self) -> bool {
        self.flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
    }

    /// The peer has closed its sending side; bytes may still be waiting.
    pub fn ended(&self) -> bool {
        self.flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
    }
}

pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(READY_MAX) })
    }

    /// Registers a stream for both directions, edge triggered. Closing the descriptor unregisters it.
    pub fn add_stream(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), flags)?)
    }

    /// Registers a listener or a pipe, level triggered, so that a bounded accept loop loses nothing.
    pub fn add_listener(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Forgets a descriptor that stays open.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits until something is ready or `timeout` has passed and replaces `ready` with what was found. `None` waits
    /// for ever. An interrupting signal counts as nothing ready.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout =
            timeout.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos() as _ });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let event = *event;
            Ready { token: event.data.u64(), flags: event.flags }
        }));
        Ok(())
    }
}
