//! A connection to either side, plain or TLS. Everything above speaks to this and does not ask which.

use corelane_runtime::{
    Buf, Core,
    net::{PeerState, TcpStream},
};
use corelane_tls::TlsStream;
use std::{future::Future, io, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

/// One reader and one writer may be under way at once. A read that is dropped loses what it would have read, a
/// write that is dropped leaves the peer with half of it: after either, only close.
pub(crate) enum Conn {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Conn {
    /// Appends to the buffer's spare room; 0 is the end of the stream.
    #[inline]
    pub async fn read(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        match self {
            Conn::Plain(tcp) => tcp.read(buf).await,
            Conn::Tls(tls) => tls.read(buf).await,
        }
    }

    /// Writes what the buffer holds.
    #[inline]
    pub async fn write_all(&self, buf: Buf) -> (io::Result<()>, Buf) {
        match self {
            Conn::Plain(tcp) => tcp.write_all(buf).await,
            Conn::Tls(tls) => tls.write_all(buf).await,
        }
    }

    /// Both buffers, in order, with one system call where the transport allows it.
    pub async fn write_all_pair(&self, first: Buf, second: Buf) -> (io::Result<()>, Buf, Buf) {
        match self {
            Conn::Plain(tcp) => tcp.write_all_pair(first, second).await,
            Conn::Tls(tls) => tls.write_all_pair(first, second).await,
        }
    }

    /// Bytes that the kernel has taken so far, with those of a write that broke off. None: they are not what is
    /// written, but records of it.
    pub fn sent(&self) -> Option<u64> {
        match self {
            Conn::Plain(tcp) => Some(tcp.sent()),
            Conn::Tls(_) => None,
        }
    }

    /// Resolves when a read would not wait. Loses nothing when dropped.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Conn::Plain(tcp) => tcp.readable().await,
            Conn::Tls(tls) => tls.readable().await,
        }
    }

    /// Reads without holding a buffer while the connection is idle: after `idle_after` without bytes only readiness
    /// is awaited. An empty buffer is the end of the stream.
    pub async fn read_parking(&self, core: &Core, idle_after: Duration) -> io::Result<Buf> {
        match self {
            Conn::Plain(tcp) => tcp.read_parking(core, idle_after).await,
            Conn::Tls(tls) => tls.read_parking(idle_after).await,
        }
    }

    fn peer_state(&self) -> PeerState {
        match self {
            Conn::Plain(tcp) => tcp.peer_state(),
            Conn::Tls(tls) => tls.peer_state(),
        }
    }

    /// Whether a connection that should be silent is not fit for use: the peer closed it, or sent what nobody asked
    /// for. One non-blocking look.
    pub fn is_stale(&self) -> bool {
        self.peer_state() != PeerState::Quiet
    }

    /// Whether bytes wait to be read. One non-blocking look.
    pub fn is_asked(&self) -> bool {
        match self.peer_state() {
            PeerState::Readable => true,
            PeerState::Quiet => false,
            // so says a TLS stream beside a read that is pending: then only the socket can be asked
            PeerState::Closed => self.tcp().peer_state() == PeerState::Readable,
        }
    }

    /// No more bytes from us (for TLS close_notify first).
    pub async fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Conn::Plain(tcp) => tcp.shutdown_write(),
            Conn::Tls(tls) => tls.shutdown_write().await,
        }
    }

    /// Makes the close that follows a reset.
    pub fn reset(&self) {
        self.tcp().reset();
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Conn::Plain(tcp) => tcp,
            Conn::Tls(tls) => tls.tcp(),
        }
    }

    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Conn::Plain(_) => None,
            Conn::Tls(tls) => Some(tls),
        }
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp().local_addr().ok()
    }
}

type Reading = dyn Future<Output = (io::Result<usize>, Buf)>;

/// A read that survives being given up: the operation stays here and the next call takes it up again. For the
/// body of a request that may be tried again elsewhere. Allocates once a read, so heads are read without it.
#[derive(Default)]
pub(crate) struct ResumableRead {
    pending: Option<Pin<Box<Reading>>>,
}

impl ResumableRead {
    pub async fn read(&mut self, conn: &Rc<Conn>, take: impl FnOnce() -> Buf) -> (io::Result<usize>, Buf) {
        let pending = self.pending.get_or_insert_with(|| {
            let (conn, buf) = (conn.clone(), take());
            Box::pin(async move { conn.read(buf).await })
        });
        let done = pending.as_mut().await;
        self.pending = None;
        done
    }
}
