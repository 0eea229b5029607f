//! A nonblocking byte stream, plain or TLS, that reads and writes until the kernel says `WouldBlock`.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustls::{Connection, HandshakeKind};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub enum Transport {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub struct Tls {
    connection: Connection,
    socket: TcpStream,
}

impl Transport {
    pub fn plain(socket: TcpStream) -> Self {
        Transport::Plain(socket)
    }

    pub fn tls(socket: TcpStream, connection: impl Into<Connection>) -> Self {
        Transport::Tls(Box::new(Tls { connection: connection.into(), socket }))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => &tls.socket,
        }
    }

    /// One read is enough to empty the socket when it came back short. A TLS session may hold more than it gave.
    pub fn short_read_means_empty(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    /// Goes on with the handshake; true once application data may flow.
    pub fn handshake(&mut self) -> io::Result<bool> {
        let Transport::Tls(tls) = self else { return Ok(true) };
        tls.flush()?;
        while tls.connection.is_handshaking() {
            match tls.receive() {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => tls.flush()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(!tls.connection.wants_write())
    }

    /// Whether the finished handshake resumed an earlier session.
    pub fn resumed(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(tls) => tls.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// ALPN chose HTTP/2.
    pub fn negotiated_h2(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.connection.alpn_protocol() == Some(b"h2"))
    }

    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(into),
            Transport::Tls(tls) => tls.read(into),
        }
    }

    /// Takes what fits; bytes taken by TLS may still wait in the session, see [`Transport::flush`].
    pub fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(from),
            Transport::Tls(tls) => {
                tls.flush()?;
                let taken = tls.connection.writer().write(from)?;
                tls.flush()?;
                Ok(taken)
            }
        }
    }

    /// Sends what the TLS session holds; true when nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(_) => Ok(true),
            Transport::Tls(tls) => {
                tls.flush()?;
                Ok(!tls.connection.wants_write())
            }
        }
    }

    /// Says goodbye in TLS, so that the peer keeps the session resumable.
    pub fn close(mut self) {
        if let Transport::Tls(tls) = &mut self {
            tls.connection.send_close_notify();
            let _ = tls.flush();
        }
    }

    /// Drops the connection with a reset instead of a FIN.
    pub fn reset(self) {
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Tls {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.flush()?;
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let count = self.connection.read_tls(&mut self.socket)?;
        if let Err(error) = self.connection.process_new_packets() {
            // the alert tells the peer why
            let _ = self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(count)
    }

    /// A full socket is not an error: the next writable event goes on.
    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Starts a nonblocking connect from `source` (an address of this machine) or wherever the kernel likes.
pub fn connect(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Listens with a backlog deep enough for a burst of ten thousand connects.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    const BACKLOG: i32 = 16_384;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
