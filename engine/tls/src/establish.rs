//! Handshakes over a socket: accept and connect.
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use corelane_runtime::net::TcpStream;
use corelane_runtime::{Buf, BufferPool, Nanos};
use rustls_pki_types::ServerName;

use crate::context::{ClientContext, ServerContext, parse_server_name};
use crate::core::TlsCore;
use crate::error::TlsError;
use crate::handshake::{Handshake, Negotiated, Progress, Session};
use crate::intake::Intake;
use crate::scope::Facts;
use crate::stream::TlsStream;

/// How one connection differs from its context.
#[derive(Debug, Clone, Default)]
pub struct ConnectParams<'a> {
    /// Replaces the context's server name; an IP address or an empty text sends none.
    pub sni: Option<&'a str>,
    /// Replaces the context's ALPN offer.
    pub alpn: Option<Vec<Vec<u8>>>,
    /// Whom the session belongs to; the socket's peer address when `None`.
    pub endpoint: Option<SocketAddr>,
}

/// Performs the handshake as a server. `already_read` holds what was read from the socket before, such as a sniffed
/// ClientHello.
///
/// # Errors
/// One of the handshake's variants; the peer was told by an alert where TLS has one for it, and the socket is closed.
pub async fn accept(
    tls: &Rc<TlsCore>,
    tcp: TcpStream,
    context: &Arc<ServerContext>,
    already_read: Option<Buf>,
    deadline: Nanos,
) -> Result<TlsStream, TlsError> {
    let handshake = Handshake::server(context);
    let result = establish(tls, tcp, handshake, Intake::new(already_read), deadline).await;
    tls.count(|stats| match &result {
        Ok(stream) => {
            stats.accepted += 1;
            stats.resumed += u64::from(stream.resumed());
        }
        Err(_) => stats.failed += 1,
    });
    result
}

/// Performs the handshake as a client.
///
/// # Errors
/// As [`accept`], and [`TlsError::BadServerName`].
pub async fn connect(
    tls: &Rc<TlsCore>,
    tcp: TcpStream,
    context: &Arc<ClientContext>,
    params: ConnectParams<'_>,
    deadline: Nanos,
) -> Result<TlsStream, TlsError> {
    let result = match client(tls, &tcp, context, params) {
        Ok(handshake) => establish(tls, tcp, handshake, Intake::default(), deadline).await,
        Err(error) => Err(error),
    };
    tls.count(|stats| match &result {
        Ok(stream) => {
            stats.connected += 1;
            stats.resumed += u64::from(stream.resumed());
        }
        Err(_) => stats.failed += 1,
    });
    result
}

fn client(
    tls: &Rc<TlsCore>,
    tcp: &TcpStream,
    context: &ClientContext,
    params: ConnectParams<'_>,
) -> Result<Handshake, TlsError> {
    let endpoint = match params.endpoint {
        Some(endpoint) => endpoint,
        None => tcp.peer_addr()?,
    };
    let name = match (params.sni, &context.server_name) {
        (Some(""), _) | (None, None) => ServerName::from(endpoint.ip()),
        (Some(name), _) => parse_server_name(name)?,
        (None, Some(name)) => name.clone(),
    };
    let facts = Facts { endpoint: Some(endpoint), sessions: Some(tls.sessions.clone()), ..Facts::default() };
    Handshake::client(context, name, params.alpn, facts)
}

async fn establish(
    tls: &Rc<TlsCore>,
    tcp: TcpStream,
    mut handshake: Handshake,
    mut intake: Intake,
    deadline: Nanos,
) -> Result<TlsStream, TlsError> {
    let exchange = exchange(tls, &tcp, &mut handshake, &mut intake);
    match tls.core().timers().timeout(deadline, exchange).await {
        Err(_) => {
            // the read that was given up would keep the socket open for as long as the peer is silent
            tcp.reset();
            return Err(TlsError::HandshakeTimeout);
        }
        Ok(Err(error)) => {
            // the alert that rustls left, as far as the socket takes it at once
            if !handshake.out.is_empty() {
                let _ = tcp.try_write(&handshake.out);
            }
            let _ = tcp.shutdown_write();
            return Err(error);
        }
        Ok(Ok(())) => {}
    }
    let (session, negotiated): (Session, Negotiated) = handshake.finish(&tls.peers)?;
    Ok(TlsStream::new(tls.clone(), tcp, session, negotiated, intake))
}

async fn exchange(
    tls: &Rc<TlsCore>,
    tcp: &TcpStream,
    handshake: &mut Handshake,
    intake: &mut Intake,
) -> Result<(), TlsError> {
    let mut first = true;
    loop {
        send(tls, tcp, &mut handshake.out).await?;
        let len = match next_record(tls, tcp, intake).await {
            Ok(len) => len,
            // RFC 8446 leaves the answer open; plain text in place of a ClientHello deserves its own name
            Err(TlsError::PeerMisbehaved { .. }) if first => return Err(TlsError::NotTls),
            Err(TlsError::Truncated) => return Err(TlsError::HandshakeClosed),
            Err(error) => return Err(error),
        };
        first = false;
        let progress = handshake.feed(intake.record(len));
        intake.consume(len);
        if progress? == Progress::Done {
            return send(tls, tcp, &mut handshake.out).await;
        }
    }
}

/// Waits for one whole record and returns its size. No buffer is held for a peer that is silent.
async fn next_record(tls: &TlsCore, tcp: &TcpStream, intake: &mut Intake) -> Result<usize, TlsError> {
    loop {
        if let Some(len) = intake.whole()? {
            return Ok(len);
        }
        tcp.readable().await?;
        if try_fill(tls, tcp, intake)? == Some(0) {
            return Err(TlsError::Truncated);
        }
    }
}

/// Waits for bytes with a buffer, `own` or one of `pool`; directly from the kernel when they may be there already.
///
/// # Errors
/// [`TlsError::Truncated`] at the end of the connection.
pub(crate) async fn fill(
    tls: &TlsCore,
    tcp: &TcpStream,
    intake: &mut Intake,
    own: Option<Buf>,
    pool: &BufferPool,
) -> Result<(), TlsError> {
    if intake.expects_more() {
        match try_fill_from(tls, tcp, intake, pool)? {
            Some(0) => return Err(TlsError::Truncated),
            // nothing has begun, so the caller may prefer to wait otherwise
            None if !intake.is_idle() => {}
            Some(_) | None => return Ok(()),
        }
    }
    let (result, buf) = tcp.read(prepare(tls, intake, own, pool)?).await;
    intake.accept(buf);
    if result? == 0 { Err(TlsError::Truncated) } else { Ok(()) }
}

/// Receives what has arrived, 0 bytes at the end of the connection; `None` when nothing has.
pub(crate) fn try_fill(
    tls: &TlsCore,
    tcp: &TcpStream,
    intake: &mut Intake,
) -> Result<Option<usize>, TlsError> {
    try_fill_from(tls, tcp, intake, tls.core().buffers())
}

fn try_fill_from(
    tls: &TlsCore,
    tcp: &TcpStream,
    intake: &mut Intake,
    pool: &BufferPool,
) -> Result<Option<usize>, TlsError> {
    let mut buf = prepare(tls, intake, None, pool)?;
    let result = tcp.try_read(&mut buf);
    intake.accept(buf);
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn prepare(tls: &TlsCore, intake: &mut Intake, own: Option<Buf>, pool: &BufferPool) -> Result<Buf, TlsError> {
    let buf = intake.prepare(own, pool)?;
    let moved = std::mem::take(&mut intake.moved_bytes);
    if moved > 0 {
        tls.count(|stats| stats.ciphertext_bytes_moved += moved);
    }
    Ok(buf)
}

/// Sends and empties a vector of finished records.
pub(crate) async fn send(tls: &TlsCore, tcp: &TcpStream, out: &mut Vec<u8>) -> Result<(), TlsError> {
    while !out.is_empty() {
        let mut buf = tls.core().buffers().take();
        let n = buf.extend_from_slice(out);
        out.drain(..n);
        tcp.write_all(buf).await.0?;
    }
    // a connection may live for hours after its handshake
    *out = Vec::new();
    Ok(())
}
