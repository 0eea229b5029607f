//! Accepting connections. Every core has its own listening socket on the same address (SO_REUSEPORT), so accepting
//! needs no coordination; where a connection then lives is [`crate::Placement`]'s answer.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::connect::{Keepalive, set_transparent};
use super::option::{self, check};
use super::tcp::TcpStream;
use crate::core::Core;
use crate::driver::Driver;
use crate::event::Readiness;

/// Connections accepted in a row before other tasks get a turn.
const ACCEPTS_IN_A_ROW_MAX: u32 = 32;

/// How to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
    pub backlog: u32,
    /// Several sockets on one address, one per core.
    pub reuse_port: bool,
    /// Accept connections to addresses that are not ours (IP_TRANSPARENT, for TPROXY). Needs CAP_NET_ADMIN.
    pub transparent: bool,
    /// Bind to an address that the machine does not have yet (IP_FREEBIND).
    pub freebind: bool,
    /// IPv6 only, or IPv4 too; None leaves the system's default.
    pub v6only: Option<bool>,
    /// Accepted connections do not hold back small segments.
    pub nodelay: bool,
    /// For accepted connections.
    pub keepalive: Option<Keepalive>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: 4096,
            reuse_port: true,
            transparent: false,
            freebind: false,
            v6only: None,
            nodelay: true,
            keepalive: None,
        }
    }
}

/// A listening socket of one core.
pub struct Listener {
    /// Owns the socket.
    ready: Readiness,
    local: SocketAddr,
    driver: Driver,
    /// Nobody else holds the socket.
    own: bool,
    /// Accepts left before the readiness must be asked again; 0 when nothing is known to wait.
    in_a_row: Cell<u32>,
}

/// Whether an accept failed because the process or the machine has run out of something, so that the next would too.
/// accept(2): other errors are "already-pending network errors on the new socket", after which the next may succeed.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// A connection that has no core yet: make it a stream here or send the descriptor to another core.
#[derive(Debug)]
pub struct Accepted {
    pub fd: OwnedFd,
    pub peer: SocketAddr,
    /// The event loop whose blocking mode the descriptor has.
    prepared_for: Driver,
}

impl Accepted {
    /// The connection lives on `core`, on whose thread this must be called; it may have been accepted by another.
    pub fn into_stream(self, core: &Core) -> io::Result<TcpStream> {
        if self.prepared_for == core.driver() {
            TcpStream::from_prepared(core, self.fd)
        } else {
            TcpStream::from_fd(core, self.fd)
        }
    }
}

impl Listener {
    /// Binds and listens. With port 0 the kernel chooses; see [`Listener::local_addr`].
    pub fn bind(core: &Core, addr: SocketAddr, options: &ListenOptions) -> io::Result<Listener> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new_raw(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        // A restarted process can bind while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(options.reuse_port)?;
        if let (SocketAddr::V6(_), Some(only)) = (addr, options.v6only) {
            socket.set_only_v6(only)?;
        }
        if options.transparent {
            set_transparent(&socket, addr)?;
        }
        if options.freebind {
            match addr {
                SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
                SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
        }
        // Accepted sockets inherit both, which saves system calls per connection.
        socket.set_tcp_nodelay(options.nodelay)?;
        if let Some(keepalive) = &options.keepalive {
            keepalive.apply(SockRef::from(&socket))?;
        }
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
        Listener::from_socket(core, socket, true)
    }

    /// Takes over a listening socket that another process may hold too.
    pub fn from_fd(core: &Core, fd: OwnedFd) -> io::Result<Listener> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        Listener::from_socket(core, socket, false)
    }

    fn from_socket(core: &Core, socket: Socket, own: bool) -> io::Result<Listener> {
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let ready = Readiness::new(OwnedFd::from(socket))?;
        Ok(Listener { ready, local, driver: core.driver(), own, in_a_row: Cell::new(0) })
    }

    /// Waits for a connection. When descriptors or memory are exhausted (EMFILE, ENFILE, ENOBUFS, ENOMEM) the error
    /// comes back at every call: pause before calling again. Dropping the call loses no connection.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            if self.in_a_row.get() == 0 {
                self.ready.wait().await?;
                self.in_a_row.set(ACCEPTS_IN_A_ROW_MAX);
            }
            self.in_a_row.set(self.in_a_row.get() - 1);
            match self.accept_now() {
                Ok(accepted) => return Ok(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.in_a_row.set(0),
                Err(error) if of_that_connection(&error) => {}
                Err(error) => {
                    self.in_a_row.set(0);
                    return Err(error);
                }
            }
        }
    }

    /// A connection that waits already, if one does. Before a listener is dropped its waiting connections should be
    /// taken, because the kernel resets them.
    pub fn try_accept(&self) -> io::Result<Option<Accepted>> {
        loop {
            match self.accept_now() {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if of_that_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From now on nobody new gets an answer: whoever knocks does so again in a second, and finds who listens then, if
    /// anybody. Connections whose handshake has begun can still be accepted: what comes between the last accept and
    /// the end of the socket would be reset.
    ///
    /// # Errors
    /// The kernel has no socket filters; all goes on as before, as it does where another process holds the socket too.
    pub fn turn_away(&self) -> io::Result<()> {
        if self.own {
            option::drop_beginnings(self.ready.fd())
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept_now(&self) -> io::Result<Accepted> {
        let mode = if self.driver == Driver::Epoll { libc::SOCK_NONBLOCK } else { 0 };
        let listener = self.ready.raw_fd();
        // SAFETY: accept4 is given the storage and its size; it initialises the address when it succeeds.
        let (fd, peer) = unsafe {
            SockAddr::try_init(|storage, len| {
                check(libc::accept4(listener, storage.cast(), len, libc::SOCK_CLOEXEC | mode))
            })
        }?;
        // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) };
        let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Accepted { fd, peer, prepared_for: self.driver })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.own {
            // The ring closes descriptors at its next submission; until then the kernel would go on accepting
            // connections that nobody will serve.
            let _ = SockRef::from(&self.ready.fd()).shutdown(std::net::Shutdown::Both);
        }
    }
}

/// accept(2): "already-pending network errors on the new socket ... treat them like EAGAIN by retrying."
fn of_that_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("local", &self.local).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ConnectOptions;
    use crate::testing::on_both_drivers;
    use std::pin::pin;
    use std::time::Duration;

    #[test]
    fn whoever_is_turned_away_hears_nothing_and_what_is_connected_goes_on() {
        on_both_drivers(|core| async move {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let options = ConnectOptions::default();
            let listener = Listener::bind(&core, any, &ListenOptions::default()).expect("bind");
            let before = TcpStream::connect(&core, listener.local_addr(), &options).await.expect("connect");
            listener.turn_away().expect("socket filters");
            let mut late = pin!(TcpStream::connect(&core, listener.local_addr(), &options));
            let soon = core.now() + Duration::from_millis(20);
            assert!(core.timers().timeout(soon, late.as_mut()).await.is_err(), "nobody answers");
            let accepted = listener.accept().await.expect("accept").into_stream(&core).expect("stream");
            assert!(listener.try_accept().expect("accept").is_none());
            drop(listener);
            for (from, to) in [(&accepted, &before), (&before, &accepted)] {
                let mut word = core.buffers().take();
                word.extend_from_slice(b"still");
                from.write_all(word).await.0.expect("write");
                assert_eq!(to.read(core.buffers().take()).await.1.filled(), b"still");
            }
            assert_eq!(late.await.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
