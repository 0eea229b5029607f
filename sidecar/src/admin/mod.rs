//! The admin pages, in Envoy's shapes. One small HTTP/1.1 server on the control thread: bounded connections, pages made
//! in steps, so that neither a large scrape nor a slow reader delays what else the thread does.

mod commands;
mod pages;
mod query;
mod reply;

use crate::control::process::Process;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{cell::Cell, convert::Infallible, io, net::SocketAddr, path::Path, rc::Rc, time::Duration};
use tokio::net::{TcpListener, TcpStream};

pub use query::Query;
pub use reply::{Page, Reply};

/// Connections at once; one more is closed at accept.
pub const CONNECTIONS_MAX: u32 = 64;

/// For a whole head, and for the next request of a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection ends after this, whatever its reader does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

const HEAD_BYTES_MAX: usize = 16 << 10;

/// Accepting failed; the next try waits, so that a process out of descriptors does not spin.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Binds the admin address and, where asked for, writes down which one it became.
///
/// # Errors
/// The address can't be bound, or the file can't be written.
pub async fn bind(address: SocketAddr, address_path: Option<&Path>) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; is another proxy running with this admin address?",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        };
        format!("admin: cannot bind {address}: {error}{hint}")
    })?;
    let bound = listener.local_addr().map_err(|error| format!("admin: {address}: {error}"))?;
    if let Some(path) = address_path {
        std::fs::write(path, bound.to_string())
            .map_err(|error| format!("--admin-address-path {}: cannot write: {error}", path.display()))?;
    }
    Ok(listener)
}

/// Serves the pages, for ever. Runs inside a `LocalSet`.
pub async fn serve(listener: TcpListener, process: Rc<Process>) {
    let open = Rc::new(Cell::new(0_u32));
    loop {
        match listener.accept().await {
            Ok((stream, _)) if open.get() < CONNECTIONS_MAX => {
                open.set(open.get() + 1);
                let guard = Guard(open.clone());
                let process = process.clone();
                tokio::task::spawn_local(async move {
                    connection(stream, process).await;
                    drop(guard);
                });
            }
            Ok((stream, peer)) => {
                tracing::warn!("admin: {CONNECTIONS_MAX} connections are open; closing the one from {peer}");
                drop(stream);
            }
            Err(error) => {
                tracing::warn!("admin: cannot accept: {error}; are file descriptors exhausted?");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

struct Guard(Rc<Cell<u32>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn connection(stream: TcpStream, process: Rc<Process>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let process = process.clone();
        async move { Ok::<_, Infallible>(commands::answer(&process, &request).await.into_response()) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("admin: connection ended: {error}"),
        Err(_) => tracing::debug!("admin: connection closed after {} s", CONNECTION_TIMEOUT.as_secs()),
    }
}

#[cfg(test)]
mod tests;
