//! One downstream connection, once its filter chain is known: what a request on it may ask about it.

use crate::conn::Conn;
use corelane_runtime::{Deadline, Nanos};
use corelane_snapshot::{FilterChain, Listener};
use corelane_tls::PeerIdentity;
use std::{net::SocketAddr, rc::Rc, sync::Arc};

pub(crate) struct Link {
    /// Unique in the process; `%CONNECTION_ID%`.
    pub id: u64,
    pub conn: Rc<Conn>,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    pub facts: Facts,
    /// URI SANs of the certificate we showed.
    pub local_uri_sans: Vec<String>,
    pub accepted: Nanos,
    /// The connection's timer slot; whoever waits on the connection uses it.
    pub deadline: Deadline,
}

/// What is known before the first byte for the application.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Who holds the other end of the socket.
    pub direct_remote: SocketAddr,
    /// Who the PROXY protocol says it is; else the same.
    pub remote: SocketAddr,
    /// Where the client meant to go: the original destination where traffic was redirected.
    pub local: SocketAddr,
    pub original_dst: Option<SocketAddr>,
    pub server_name: Option<Box<str>>,
}

impl Link {
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.conn.tls()?.peer()
    }
}
