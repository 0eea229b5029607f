//! Where a seccomp profile denies io_uring, as container runtimes do by default, cores run on epoll and say why.

use std::io::Error as IoError;

use corelane_runtime::{CoreConfig, Driver, DriverChoice, Error, ProbeError, launch, probe};

/// Makes io_uring_setup of `entries` or more fail with `errno` in this thread and in those it starts.
fn deny_ring(errno: libc::c_int, entries: u32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The system call's number is the first word of struct seccomp_data.
        op(LOAD, 0, 0, 0),
        op(JUMP_IF_EQUAL, 0, 3, libc::SYS_io_uring_setup as u32),
        // Its first argument's low half, little endian, follows number, architecture and instruction pointer.
        op(LOAD, 0, 0, 16),
        op(JUMP_IF_NOT_LESS, 0, 1, entries),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes integers only.
    let no_new = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(no_new, 0, "{}", IoError::last_os_error());
    // SAFETY: the program and its instructions live until the call returns; the kernel copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", IoError::last_os_error());
}

/// Filters last as long as their thread, so each case gets one of its own.
fn denied_with(errno: libc::c_int, entries: u32, case: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        deny_ring(errno, entries);
        case();
    });
    thread.join().expect("case passed");
}

#[test]
fn the_probe_says_why() {
    denied_with(libc::EPERM, 0, || {
        let error = probe().expect_err("denied");
        assert!(matches!(error, ProbeError::NotPermitted));
        assert!(error.to_string().contains("seccomp"), "{error}");
    });
    denied_with(libc::ENOSYS, 0, || assert!(matches!(probe(), Err(ProbeError::NotImplemented))));
}

#[test]
fn auto_falls_back_to_epoll_and_says_so() {
    denied_with(libc::EPERM, 0, || {
        let cores = launch(vec![CoreConfig::default()], |_| async {}).expect("launch");
        assert_eq!(cores.drivers(), [Driver::Epoll]);
        assert!(matches!(cores.ring_denied(), Some(ProbeError::NotPermitted)));
        cores.join().expect("orderly end");
    });
}

#[test]
fn auto_falls_back_where_only_a_full_sized_ring_is_refused() {
    denied_with(libc::ENOMEM, 256, || {
        assert!(probe().is_ok());
        let cores = launch(vec![CoreConfig::default()], |_| async {}).expect("launch");
        assert_eq!(cores.drivers(), [Driver::Epoll]);
        assert!(matches!(cores.ring_denied(), Some(ProbeError::Failed(_))));
        cores.join().expect("orderly end");
        let demanded = CoreConfig { driver: DriverChoice::IoUring, ..CoreConfig::default() };
        let error = launch(vec![demanded], |_| async {}).map(|_| ()).expect_err("refused");
        assert!(matches!(error, Error::Loop { core: 0, driver: "io_uring", .. }), "{error}");
    });
}

#[test]
fn a_demanded_ring_that_is_denied_is_an_error() {
    denied_with(libc::EPERM, 0, || {
        let config = CoreConfig { driver: DriverChoice::IoUring, ..CoreConfig::default() };
        let error = launch(vec![config], |_| async {}).map(|_| ()).expect_err("denied");
        assert!(matches!(error, Error::RingDenied { core: 0, source: ProbeError::NotPermitted }));
    });
}

#[test]
fn epoll_that_was_asked_for_is_no_fallback() {
    let config = CoreConfig { driver: DriverChoice::Epoll, ..CoreConfig::default() };
    let cores = launch(vec![config], |_| async {}).expect("launch");
    assert!(cores.ring_denied().is_none());
    cores.join().expect("orderly end");
}
