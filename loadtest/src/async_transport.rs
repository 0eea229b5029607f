//! A [`Transport`] under tokio's I/O traits, for the h2 crate.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::transport::Transport;

pub struct AsyncTransport {
    transport: Transport,
    /// A duplicate of the transport's socket that tells when it is ready; bytes go through the transport only.
    readiness: TcpStream,
    /// Bytes that were read before the connection came here.
    prefix: Vec<u8>,
}

impl AsyncTransport {
    pub fn new(transport: Transport, prefix: Vec<u8>) -> io::Result<Self> {
        let readiness = TcpStream::from_std(transport.socket().try_clone()?)?;
        Ok(AsyncTransport { transport, readiness, prefix })
    }

    /// Waits for a nonblocking connect and the TLS handshake to finish.
    pub async fn established(mut self) -> io::Result<Self> {
        self.readiness.writable().await?;
        if let Some(error) = self.transport.socket().take_error()? {
            return Err(error);
        }
        while !self.transport.handshake()? {
            // the handshake has just read until there was no more: what made the socket ready is used up
            let used_up: io::Result<()> =
                self.readiness.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
            drop(used_up);
            self.readiness.readable().await?;
        }
        Ok(self)
    }
}

impl AsyncRead for AsyncTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..count]);
            self.prefix.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let Self { transport, readiness, .. } = &mut *self;
        loop {
            ready!(readiness.poll_read_ready(cx))?;
            let into = buffer.initialize_unfilled();
            match readiness.try_io(Interest::READABLE, || transport.read(into)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncTransport {
    /// Repeats `step` until it does not want to wait for room in the socket.
    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Transport) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let Self { transport, readiness, .. } = self;
        loop {
            ready!(readiness.poll_write_ready(cx))?;
            match readiness.try_io(Interest::WRITABLE, || step(transport)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for AsyncTransport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |transport| match transport.write(bytes) {
            // a TLS session that is full takes nothing until its records are gone
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            other => other,
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(cx, |transport| match transport.flush() {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.transport.socket().shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        })
    }
}
