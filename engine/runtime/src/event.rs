//! Two kernel objects that wake a core: an event counter (other threads' mail) and a timer. Both are waited for with
//! a readiness operation of the event loop, which works the same on both drivers and holds no buffer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::clock::Nanos;

/// An eventfd. Any thread may notify; one core waits.
#[derive(Debug)]
pub(crate) struct EventCounter(OwnedFd);

impl EventCounter {
    pub(crate) fn new() -> io::Result<EventCounter> {
        // SAFETY: eventfd takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(EventCounter(owned(fd)?))
    }

    pub(crate) fn notify(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the pointer and length are those of a local array. The only failure, a full counter (EAGAIN),
        // means that a wake-up is already pending.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Resets the counter.
    pub(crate) fn drain(&self) {
        read_counter(&self.0);
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// A timerfd on the monotonic clock.
pub(crate) struct TimerFd(OwnedFd);

impl TimerFd {
    pub(crate) fn new() -> io::Result<TimerFd> {
        // SAFETY: timerfd_create takes no pointer.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        Ok(TimerFd(owned(fd)?))
    }

    /// Becomes readable `at - now` from now, once; never for None.
    pub(crate) fn set(&self, at: Option<Nanos>, now: Nanos) {
        let mut spec = zero_spec();
        if let Some(at) = at {
            // A zero value would disarm the timer.
            let after = at.since(now).max(std::time::Duration::from_nanos(1));
            spec.it_value.tv_sec = after.as_secs() as libc::time_t;
            spec.it_value.tv_nsec = after.subsec_nanos() as libc::c_long;
        }
        // SAFETY: spec is a valid itimerspec for the call's duration; the old value is not asked for.
        unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
    }

    pub(crate) fn drain(&self) {
        read_counter(&self.0);
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

fn zero_spec() -> libc::itimerspec {
    libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec { tv_sec: 0, tv_nsec: 0 },
    }
}

/// Both kinds of descriptor are read as one 8 byte counter; nonblocking, so an empty one is no error.
fn read_counter(fd: &OwnedFd) {
    let mut counter = [0u8; 8];
    // SAFETY: the pointer and length are those of a local array.
    unsafe { libc::read(fd.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits on the core's event loop for a descriptor to become readable.
pub(crate) struct Readiness(monoio::net::TcpStream);

impl Readiness {
    /// `fd` should be a duplicate: this closes it. Must be called on a core.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Readiness> {
        // The event loop only polls the descriptor; that it is no socket does not matter to it.
        monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd)).map(Readiness)
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as self is.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }

    pub(crate) async fn wait(&self) -> io::Result<()> {
        self.0.readable(false).await
    }
}
