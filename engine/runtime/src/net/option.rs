//! Socket options and flags that the socket library does not offer in the form we need.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

/// From linux/in.h; absent from some libc versions.
const IP_BIND_ADDRESS_NO_PORT: libc::c_int = 24;

/// A completion ring wants a blocking descriptor (it would report EAGAIN on a nonblocking one instead of waiting);
/// epoll wants a nonblocking one.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    // SAFETY: fcntl with F_GETFL takes no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let wanted = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: fcntl with F_SETFL takes an integer, no pointer.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

/// Binds to an address without choosing the port before the destination is known, so that source ports are not used
/// up by one destination (ip(7)).
pub(super) fn bind_without_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and size are those of a local integer.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// Puts a connected TCP socket back to unconnected, which sends RST at once and wakes every waiter (connect(2):
/// "dissolve the association by connecting to an address with the sa_family member of sockaddr set to AF_UNSPEC").
pub(super) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr is valid; AF_UNSPEC is 0.
    let unspecified: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and size are those of a local sockaddr.
    let result = unsafe {
        libc::connect(fd.as_raw_fd(), &unspecified, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    check(result).map(drop)
}

/// On a listening socket: segments that begin a connection are dropped, those that complete one are not. Connections
/// accepted inherit it, to which it does nothing.
pub(super) fn drop_beginnings(fd: BorrowedFd<'_>) -> io::Result<()> {
    // A TCP socket's filter sees the segment from its header on, whose byte 13 has the flags (RFC 9293 section 3.1).
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 2;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS_AT),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the pointer and size are those of a local struct, which points to a local array of the length it says;
    // the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// From the kernel's tcp_states.h: no connection any more.
pub(super) const TCP_CLOSE: u8 = 7;

/// The connection's state in the kernel's numbers; None if it cannot be read.
pub(super) fn tcp_state(fd: BorrowedFd<'_>) -> Option<u8> {
    // The first field of struct tcp_info (tcp(7)); the kernel copies as much as is asked for.
    let mut state = 0u8;
    let mut len: libc::socklen_t = 1;
    // SAFETY: the pointer and length are those of a local byte.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &mut len)
    };
    (result == 0 && len == 1).then_some(state)
}

/// Where an intercepted connection was going before netfilter redirected it; None if it was not.
pub(super) fn original_dst(fd: BorrowedFd<'_>, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(&fd);
    let found = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        // A dual-stack socket's IPv4 connection is in the IPv4 table.
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    found.ok()?.as_socket()
}

pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
