//! What the process asks of the machine: a core, descriptors, precise timers, and to be told when to stop.

use std::{io, num::NonZeroU64, os::unix::net::UnixStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Error;

/// Pins the calling thread to one core and makes its timers exact.
pub fn settle(cpu: Option<usize>) -> Result<(), Error> {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(Error::usage(format!(
            "cannot pin to cpu {id}: it does not exist or is not allowed here"
        )));
    }
    // a thread's default slack of 50 us would sit in every open-loop send
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))
        .map_err(|e| Error::io("setting the timer slack", e.into()))
}

/// Makes room for `needed` open descriptors beside the few that every process has.
pub fn raise_descriptors(needed: usize) -> Result<(), Error> {
    let needed = needed as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map_or(needed, |maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: Some(maximum) })
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum }))
        .map_err(|e| Error::io(format!("raising the limit of open files to {needed}"), e.into()))
}

/// A pipe that becomes readable on SIGTERM or SIGINT, for a poller to watch.
pub fn stop_signal() -> Result<UnixStream, Error> {
    let pipe = || -> io::Result<UnixStream> {
        let (receive, send) = UnixStream::pair()?;
        receive.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, send.try_clone()?)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, send)?;
        Ok(receive)
    };
    pipe().map_err(|e| Error::io("listening for SIGTERM", e))
}
