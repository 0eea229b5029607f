//! A connected TCP socket on a core.

use std::cell::{Cell, OnceCell, UnsafeCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::buf::IoVecBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use socket2::SockRef;

use super::burst::Burst;
use super::operation::{Append, Pair, Rest};
use super::option;
use super::parking::Parking;
use crate::buffer::Buf;
use crate::core::Core;
use crate::driver::Driver;

/// What a connection looks like without reading from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Open, nothing to read: an idle connection that can be reused.
    Quiet,
    /// Bytes wait to be read.
    Readable,
    /// The peer closed its side, or the connection failed.
    Closed,
}

/// A connected socket. Methods take `&self`: one task may read while another writes.
///
/// Invariant: at most one read (`read`, `read_parking`, `readable`) and at most one write (`write_all`,
/// `write_all_pair`, `writable`) are pending at a time.
///
/// Dropping a pending operation is safe: the event loop keeps its buffer and the socket until the kernel has let go
/// of them. The bytes of a dropped read are lost, and how much of a dropped write was sent is unknown: only close
/// the connection then.
pub struct TcpStream {
    io: UnsafeCell<monoio::net::TcpStream>,
    pub(super) parking: OnceCell<Box<Parking>>,
    driver: Driver,
    burst: Rc<Burst>,
    sent: Cell<u64>,
}

impl TcpStream {
    /// Takes over a connected socket, which may come from another core. Must be called on the core that will use it.
    pub fn from_fd(core: &Core, fd: OwnedFd) -> io::Result<TcpStream> {
        option::set_nonblocking(fd.as_fd(), core.driver() == Driver::Epoll)?;
        TcpStream::from_prepared(core, fd)
    }

    /// `fd` has the blocking mode that the driver wants.
    pub(super) fn from_prepared(core: &Core, fd: OwnedFd) -> io::Result<TcpStream> {
        let io = monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd))?;
        Ok(TcpStream {
            io: UnsafeCell::new(io),
            parking: OnceCell::new(),
            driver: core.driver(),
            burst: core.burst().clone(),
            sent: Cell::new(0),
        })
    }

    /// Bytes that the kernel has taken from [`TcpStream::write_all`] and [`TcpStream::write_all_pair`], of one that
    /// failed or was dropped as many as are known of.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    fn count_sent(&self, bytes: usize) -> usize {
        self.sent.set(self.sent.get() + bytes as u64);
        bytes
    }

    /// Appends what arrives to the buffer's spare room. 0 bytes is the end of the stream; a buffer without room is
    /// an error (invalid input).
    pub async fn read(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        if buf.spare_len() == 0 {
            return (Err(no_room()), buf);
        }
        let mut append = Append(buf);
        loop {
            let (result, back) = self.io().read(append).await;
            append = back;
            match result {
                // On epoll the mark of an earlier cancellation can outlive its read.
                Err(error) if self.driver == Driver::Epoll && is_cancelled(&error) => continue,
                result => return (result, append.0),
            }
        }
    }

    /// Sends all filled bytes. The buffer comes back with its filled range as it was.
    pub async fn write_all(&self, buf: Buf) -> (io::Result<()>, Buf) {
        if self.burst.is_spent(buf.len()) {
            self.burst.turnstile.pass().await;
        }
        let mut rest = Rest { buf, sent: 0 };
        match self.directly(rest.buf.len(), || self.try_write(rest.buf.filled())) {
            Ok(n) => rest.sent = self.count_sent(n),
            Err(error) => return (Err(error), rest.buf),
        }
        while rest.sent < rest.buf.len() {
            let (result, back) = self.io().write(rest).await;
            rest = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), rest.buf),
                Ok(n) => rest.sent += self.count_sent(n),
                Err(error) => return (Err(error), rest.buf),
            }
        }
        (Ok(()), rest.buf)
    }

    /// Sends all of `head` and then all of `body`, in one system call where the socket takes it. Both come back with
    /// their filled ranges as they were.
    pub async fn write_all_pair(&self, mut head: Buf, mut body: Buf) -> (io::Result<()>, Buf, Buf) {
        let total = head.len() + body.len();
        if self.burst.is_spent(total) {
            self.burst.turnstile.pass().await;
        }
        let pair = Pair::new(head, body, 0);
        let direct = self.directly(total, || self.try_write_pair(&pair));
        (head, body) = pair.into_parts();
        let mut sent = match direct {
            Ok(n) => self.count_sent(n),
            Err(error) => return (Err(error), head, body),
        };
        while sent < total {
            let (result, back) = self.io().writev(Pair::new(head, body, sent)).await;
            (head, body) = back.into_parts();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), head, body),
                Ok(n) => sent += self.count_sent(n),
                Err(error) => return (Err(error), head, body),
            }
        }
        (Ok(()), head, body)
    }

    /// Reads with a buffer from the core's pool, and gives that buffer back while the connection is idle: after
    /// `idle_after` without bytes it only waits for readiness. No byte is lost. The buffer that is returned is empty
    /// at the end of the stream.
    pub async fn read_parking(&self, core: &Core, idle_after: Duration) -> io::Result<Buf> {
        super::parking::read(self, core, idle_after).await
    }

    /// Reads at once what is there, directly from the kernel; `WouldBlock` if nothing is.
    pub fn try_read(&self, buf: &mut Buf) -> io::Result<usize> {
        if buf.spare_len() == 0 {
            return Err(no_room());
        }
        // SAFETY: pointer and length are those of the buffer's spare room, exclusively borrowed for the call.
        let n =
            unsafe { libc::recv(self.raw_fd(), buf.spare_ptr().cast(), buf.spare_len(), libc::MSG_DONTWAIT) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        Ok(buf.commit(n))
    }

    /// Sends at once what the kernel takes; `WouldBlock` if it takes nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: pointer and length are those of the slice.
        let n = unsafe { libc::send(self.raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// What of a write the kernel takes at once; nothing where it should go with the other writes of its turn.
    fn directly(&self, bytes: usize, send: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        if bytes == 0 || !self.burst.sends_directly(bytes) {
            return Ok(0);
        }
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    fn try_write_pair(&self, pair: &Pair) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: all zeros is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pair.read_iovec_ptr().cast_mut();
        message.msg_iovlen = pair.read_iovec_len();
        // SAFETY: the iovecs and what they point to belong to the pair, which outlives the call.
        let n = unsafe { libc::sendmsg(self.raw_fd(), &raw const message, flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Waits, without a buffer, until a read would not wait: bytes, end of stream or an error.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            match self.io().readable(false).await {
                Err(error) if self.driver == Driver::Epoll && is_cancelled(&error) => continue,
                result => return result,
            }
        }
    }

    /// Waits until a write would not wait, or would fail.
    pub async fn writable(&self) -> io::Result<()> {
        self.io().writable(false).await
    }

    /// Tells the peer that no more bytes follow; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.fd()).shutdown(std::net::Shutdown::Write)
    }

    /// Ends the connection with RST, at once: what was not sent yet is discarded, pending operations fail.
    pub fn reset(&self) {
        // Both may fail only because the connection has ended already.
        let _ = SockRef::from(&self.fd()).set_linger(Some(Duration::ZERO));
        let _ = option::disconnect(self.fd());
    }

    /// Whether an idle connection can be reused: a cheap look (one system call) that consumes nothing.
    pub fn peer_state(&self) -> PeerState {
        let mut byte = 0u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: pointer and length are those of a local byte.
        let n = unsafe { libc::recv(self.raw_fd(), (&raw mut byte).cast(), 1, flags) };
        match n {
            1.. => PeerState::Readable,
            0 => PeerState::Closed,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => PeerState::Quiet,
            _ => PeerState::Closed,
        }
    }

    /// Whether the connection has failed (reset, timed out) or ended in both directions. Unlike a read it leaves the
    /// error to the operation that meets it.
    pub fn has_failed(&self) -> bool {
        option::tcp_state(self.fd()).is_none_or(|state| state == option::TCP_CLOSE)
    }

    /// Cached after the first call.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io().peer_addr()
    }

    /// Cached after the first call.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io().local_addr()
    }

    /// Where the peer wanted to go before netfilter redirected the connection here: `SO_ORIGINAL_DST` for IPv4,
    /// `IP6T_SO_ORIGINAL_DST` for IPv6. None if it was not redirected.
    pub fn original_dst(&self) -> Option<SocketAddr> {
        option::original_dst(self.fd(), self.local_addr().ok()?)
    }

    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        SockRef::from(&self.fd()).set_tcp_nodelay(on)
    }

    /// For log lines and diagnosis only.
    pub fn raw_fd(&self) -> RawFd {
        self.io().as_raw_fd()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as self is.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }

    /// The event loop's stream takes `&mut` for its operations, but only clones its descriptor for them; one reader
    /// beside one writer is what it allows to its own split halves, in this same way.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(super) fn io(&self) -> &mut monoio::net::TcpStream {
        // SAFETY: self is `!Sync`, and no operation keeps or changes anything inside the stream but its descriptor's
        // reference count and the cached addresses, which are written before they are returned.
        unsafe { &mut *self.io.get() }
    }
}

impl std::fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpStream").field("fd", &self.raw_fd()).finish()
    }
}

pub(super) fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "buffer has no room to read into")
}
