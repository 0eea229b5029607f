//! One downstream connection, once its filter chain is known: what a request on it may ask about it.

use crate::conn::Conn;
use corelane_runtime::{Deadline, Nanos};
use corelane_snapshot::{FilterChain, Listener, LocalRateLimit, TokenBuckets};
use corelane_tls::PeerIdentity;
use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

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
    pub rate_limits: OwnRateLimits,
}

/// Token buckets of this connection alone (local_rate_limit_per_downstream_connection).
#[derive(Default)]
pub(crate) struct OwnRateLimits(RefCell<Vec<(Arc<LocalRateLimit>, TokenBuckets)>>);

/// Rate limits of one connection: each route may have one. Over it the one that came first begins anew.
const OWN_RATE_LIMITS_MAX: usize = 16;

impl OwnRateLimits {
    pub fn with<T>(&self, limit: &Arc<LocalRateLimit>, judge: impl FnOnce(&TokenBuckets) -> T) -> T {
        let mut all = self.0.borrow_mut();
        if let Some((_, buckets)) = all.iter().find(|(of, _)| Arc::ptr_eq(of, limit)) {
            return judge(buckets);
        }
        if all.len() >= OWN_RATE_LIMITS_MAX {
            all.remove(0);
        }
        let buckets = limit.buckets.fresh();
        let judged = judge(&buckets);
        all.push((limit.clone(), buckets));
        judged
    }
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
