//! Running a test on a real core, on both event loops. For tests of this crate and of those above it.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use socket2::SockRef;

use crate::core::{Core, CoreConfig};
use crate::driver::{Driver, DriverChoice, probe};
use crate::launch::launch;

/// A test that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(50);

/// The drivers that work here: epoll always, io_uring where the kernel permits it.
pub fn drivers() -> Vec<Driver> {
    let mut drivers = vec![Driver::Epoll];
    drivers.extend(probe());
    drivers
}

/// Small enough for many cores in one test process.
pub fn config(driver: Driver) -> CoreConfig {
    let driver = match driver {
        Driver::IoUring => DriverChoice::IoUring,
        Driver::Epoll => DriverChoice::Epoll,
    };
    CoreConfig { driver, ring_entries: 256, ..CoreConfig::default() }
}

/// Runs the test on one core of each driver, one after the other. Panics if it panics or hangs.
pub fn on_both_drivers<F, Fut>(test: F)
where
    F: Fn(Rc<Core>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    for driver in drivers() {
        on_cores(vec![config(driver)], test.clone());
    }
}

/// Runs the test on as many cores of each driver; it runs on every core.
pub fn on_many_cores<F, Fut>(cores: usize, test: F)
where
    F: Fn(Rc<Core>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    for driver in drivers() {
        on_cores(vec![config(driver); cores], test.clone());
    }
}

/// Runs the test on cores of these configurations. Panics if it panics or hangs on any.
pub fn on_cores<F, Fut>(configs: Vec<CoreConfig>, test: F)
where
    F: Fn(Rc<Core>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let cores = match launch(configs, test) {
        Ok(cores) => cores,
        Err(error) => resume_unwind(Box::new(error.to_string())),
    };
    let drivers = cores.drivers().to_vec();
    let (done, ended) = channel();
    std::thread::spawn(move || drop(done.send(cores.join())));
    match ended.recv_timeout(HANG) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => resume_unwind(Box::new(format!("on {drivers:?}: {error}"))),
        Err(_) => resume_unwind(Box::new(format!("on {drivers:?}: hangs"))),
    }
}

/// Another descriptor of the end that this process has of a connection with `peer`, so that a test can bring it about
/// that the kernel takes nothing more. While it is kept, the connection does not end with the core's own.
pub fn end_towards(peer: SocketAddr) -> Option<OwnedFd> {
    std::fs::read_dir("/proc/self/fd").ok()?.flatten().find_map(|entry| {
        let number: RawFd = entry.file_name().to_str()?.parse().ok()?;
        // SAFETY: a number that is not open, or not any more, is an error and nothing else.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            return None;
        }
        // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        let towards = SockRef::from(&copy).peer_addr().ok()?.as_socket();
        (towards == Some(peer)).then_some(copy)
    })
}
