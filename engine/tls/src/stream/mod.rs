//! An established connection over a socket, with the same methods as the socket's own stream.
mod read;
mod write;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use corelane_runtime::Buf;
use corelane_runtime::net::TcpStream;
use rustls::AlertDescription;

use crate::core::TlsCore;
use crate::error::TlsError;
use crate::handshake::{Negotiated, Session};
use crate::intake::Intake;
use crate::peer::PeerIdentity;
use crate::suites::TlsVersion;

/// What the reading side has, when nobody reads.
#[derive(Default)]
struct Reading {
    intake: Intake,
    /// Decrypted bytes that found no room.
    plain: Option<Buf>,
    /// What came to light behind data that was delivered first.
    failure: Option<TlsError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadSide {
    Open,
    /// Somebody reads; seen by somebody else, that read was abandoned.
    Busy,
    /// close_notify came.
    Closed,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteSide {
    Open,
    /// Bytes of ours are on their way; nothing may come between them.
    Busy,
    /// We said close_notify, or a fatal alert.
    Closed,
    Broken,
}

/// A TLS connection. Methods take `&self`: one task may read while another writes.
///
/// Invariant: at most one read and at most one write are pending at a time. A read or a write that is dropped half
/// way leaves the stream unusable in that direction, and says so; [`TlsStream::readable`] may be dropped freely.
pub struct TlsStream {
    tcp: TcpStream,
    tls: Rc<TlsCore>,
    session: Session,
    negotiated: Negotiated,
    reading: RefCell<Reading>,
    read_side: Cell<ReadSide>,
    write_side: Cell<WriteSide>,
    /// To be sent when the writer is done.
    alert: Cell<Option<AlertDescription>>,
}

/// Leaves the direction broken unless the operation came to its end.
struct Turn<'a, T: Copy> {
    side: &'a Cell<T>,
    after: T,
}

impl<T: Copy> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.side.set(self.after);
    }
}

impl TlsStream {
    pub(crate) fn new(
        tls: Rc<TlsCore>,
        tcp: TcpStream,
        session: Session,
        negotiated: Negotiated,
        mut intake: Intake,
    ) -> Self {
        intake.protected = matches!(session, Session::InPlace(_));
        Self {
            tcp,
            tls,
            session,
            negotiated,
            reading: RefCell::new(Reading { intake, ..Reading::default() }),
            read_side: Cell::new(ReadSide::Open),
            write_side: Cell::new(WriteSide::Open),
            alert: Cell::new(None),
        }
    }

    /// Who is on the other side; `None` when it presented no certificate. To keep it: `negotiated().peer`.
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.negotiated.peer.as_deref()
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.negotiated.alpn.as_deref()
    }

    /// The server name that the client asked for.
    pub fn sni(&self) -> Option<&str> {
        self.negotiated.sni.as_deref()
    }

    pub fn version(&self) -> TlsVersion {
        self.negotiated.version
    }

    /// OpenSSL's name.
    pub fn cipher(&self) -> &'static str {
        self.negotiated.cipher
    }

    pub fn resumed(&self) -> bool {
        self.negotiated.resumed
    }

    /// All that was agreed; cheap to clone.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether records are opened and sealed in place.
    pub fn is_in_place(&self) -> bool {
        matches!(self.session, Session::InPlace(_))
    }

    /// Key updates sent and received; counted on the in-place path.
    pub fn key_updates(&self) -> (u64, u64) {
        match &self.session {
            Session::InPlace(session) => session.key_updates(),
            Session::Unbuffered(_) => (0, 0),
        }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Ends the connection with RST, at once.
    pub fn reset(&self) {
        self.tcp.reset();
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("version", &self.version())
            .field("cipher", &self.cipher())
            .finish_non_exhaustive()
    }
}
