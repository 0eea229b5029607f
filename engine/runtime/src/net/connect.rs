//! Opening connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::option;
use super::tcp::TcpStream;
use crate::core::Core;
use crate::driver::Driver;

/// When a silent connection is probed, tcp(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    pub interval: Duration,
    /// Unanswered probes after which the connection fails.
    pub probes: u32,
}

impl Keepalive {
    pub(super) fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        let params =
            TcpKeepalive::new().with_time(self.idle).with_interval(self.interval).with_retries(self.probes);
        socket.set_tcp_keepalive(&params)
    }
}

/// How to open a connection.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Source address; port 0 lets the kernel choose one.
    pub bind: Option<SocketAddr>,
    /// Do not hold back small segments. On by default: a proxy writes whole messages.
    pub nodelay: bool,
    pub keepalive: Option<Keepalive>,
    /// SO_MARK, which keeps our own connections from being intercepted. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Allow a source address that is not ours (IP_TRANSPARENT). Needs CAP_NET_ADMIN.
    pub transparent: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions { bind: None, nodelay: true, keepalive: None, mark: None, transparent: false }
    }
}

impl TcpStream {
    /// Opens a connection. Without a timeout of its own: put it under a deadline.
    ///
    /// The socket connects in nonblocking mode and its readiness is awaited, rather than with the ring's own connect
    /// operation, because that one cannot be given a socket with options.
    pub async fn connect(core: &Core, addr: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
        let socket = prepare(addr, options)?;
        match socket.connect(&SockAddr::from(addr)) {
            Ok(()) => return finish(core, socket),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_prepared(core, OwnedFd::from(socket))?;
        stream.writable().await?;
        if let Some(error) = SockRef::from(&stream.fd()).take_error()? {
            return Err(error);
        }
        if core.driver() == Driver::IoUring {
            option::set_nonblocking(stream.fd(), false)?;
        }
        Ok(stream)
    }
}

fn finish(core: &Core, socket: Socket) -> io::Result<TcpStream> {
    TcpStream::from_fd(core, OwnedFd::from(socket))
}

fn prepare(addr: SocketAddr, options: &ConnectOptions) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(keepalive) = &options.keepalive {
        keepalive.apply(SockRef::from(&socket))?;
    }
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    if options.transparent {
        set_transparent(&socket, addr)?;
    }
    if let Some(source) = options.bind {
        if source.port() == 0 {
            option::bind_without_port(socket.as_fd())?;
        }
        socket.bind(&SockAddr::from(source))?;
    }
    Ok(socket)
}

pub(super) fn set_transparent(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}
