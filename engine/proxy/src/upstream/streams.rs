//! A core's upstream HTTP/2 connections, by endpoint. A request takes a stream of one that has room; where none
//! has, one connection at a time is opened, and all who need it wait for it. Connections are counted by the same
//! breakers as HTTP/1.1 ones.
//!
//! Bounds: streams by `Http2Options::streams_max` and the peer's own limit, connections by the breakers, requests
//! that wait at the cap by `max_pending_requests`.

use super::{
    frames::{drive, settings},
    opening::Opening,
};
use crate::{
    conn::Conn,
    connect,
    http2::Chunk,
    poll_io::PollIo,
    pool::{NEVER_LOOKED, Of, OpenConnection, StillWanted, UpstreamConn, is_wanted},
    state::CoreState,
};
use corelane_runtime::Nanos;
use corelane_snapshot::{
    Cluster, ClusterConfig, ClusterId, Endpoint, EndpointId, RoutingPriority, TransportSocket, UpstreamTls,
};
use corelane_telemetry::{Block, ClusterHttp2Stat, ClusterStat};
use corelane_traffic::{Failure, breaker::Limit};
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Connections that one request waits for, one after the other, while others take all their streams.
const ROUNDS_MAX: u32 = 16;
/// Endpoints that are remembered to speak HTTP/1.1 only; beyond, they are asked again.
const REMEMBERED_MAX: usize = 4_096;

/// One HTTP/2 connection as long as it takes streams.
pub(crate) struct Multiplexed {
    pub conn: Rc<Conn>,
    cluster: Arc<ClusterConfig>,
    endpoint: Arc<Endpoint>,
    priority: RoutingPriority,
    /// The snapshot that was last seen to have a use for it.
    version: Cell<u64>,
    opened: Nanos,
    sender: RefCell<SendRequest<Chunk>>,
    usage: Rc<Usage>,
}

/// Shared with the task that moves the frames.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) streams: Cell<u32>,
    requests: Cell<u32>,
    pub(super) idle_since: Cell<Nanos>,
    /// The peer has sent a GOAWAY.
    dismissed: Cell<bool>,
}

impl Multiplexed {
    fn streams_max(&self) -> u32 {
        let theirs = self.sender.borrow().current_max_send_streams();
        self.cluster.http2.streams_max.min(u32::try_from(theirs).unwrap_or(u32::MAX))
    }

    fn of(&self) -> Of {
        Of::endpoint(self.endpoint.id, self.priority)
    }

    fn has_room(&self) -> bool {
        self.usage.streams.get() < self.streams_max()
    }

    /// False after a GOAWAY or an error.
    fn is_open(&self) -> bool {
        let ready = self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Err(error)) = &ready
            && error.is_go_away()
            && error.is_remote()
        {
            self.usage.dismissed.set(true);
        }
        !matches!(ready, Poll::Ready(Err(_)))
    }

    fn is_idle(&self) -> bool {
        self.usage.streams.get() == 0
    }

    fn is_worn(&self) -> bool {
        let max = self.cluster.pool.requests_per_connection_max;
        max > 0 && self.usage.requests.get() >= max
    }
}

/// A stream's place on a connection; given back when dropped.
pub(crate) struct Stream {
    state: Rc<CoreState>,
    on: Rc<Multiplexed>,
    reused: bool,
}

impl Stream {
    fn new(state: &Rc<CoreState>, on: Rc<Multiplexed>) -> Rc<Stream> {
        let usage = &on.usage;
        usage.streams.set(usage.streams.get() + 1);
        let before = usage.requests.replace(usage.requests.get().saturating_add(1));
        Rc::new(Stream { state: state.clone(), reused: before > 0, on })
    }

    pub fn conn(&self) -> &Rc<Conn> {
        &self.on.conn
    }

    pub fn state(&self) -> &CoreState {
        &self.state
    }

    pub fn cluster(&self) -> &ClusterConfig {
        &self.on.cluster
    }

    pub fn is_reused(&self) -> bool {
        self.reused
    }

    pub fn scheme(&self) -> &'static str {
        if self.on.conn.tls().is_some() { "https" } else { "http" }
    }

    pub fn send(
        &self,
        request: http::Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Chunk>), h2::Error> {
        // a handle of its own: whether an earlier stream waits for its turn does not matter to this one
        let mut sender = self.on.sender.borrow().clone();
        sender.send_request(request, end)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let usage = &self.on.usage;
        let was_full = !self.on.has_room();
        usage.streams.set(usage.streams.get() - 1);
        usage.idle_since.set(self.state.now());
        if self.on.is_idle() && self.on.version.get() != self.state.pool.version() {
            let snapshot = self.state.pin();
            if is_wanted(&snapshot, &self.on.cluster, &self.on.endpoint) {
                self.on.version.set(snapshot.version);
            } else {
                self.state.streams.remove(self.on.of(), usage);
            }
        }
        if was_full || self.on.is_idle() {
            self.state.pool.wake_for(&self.on.cluster, self.on.priority);
        }
    }
}

/// Where a request can go.
pub(crate) enum Acquired {
    Stream(Rc<Stream>),
    /// The endpoint negotiated HTTP/1.1; the connection is in the pool for HTTP/1.1.
    Http1,
}

/// The protocol that a request is to be sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Http2,
    /// What ALPN says.
    Negotiated,
}

struct AtEndpoint {
    config: Arc<ClusterConfig>,
    priority: RoutingPriority,
    /// Of the endpoint, when it was met first.
    transport: u32,
    connections: Vec<Rc<Multiplexed>>,
    opening: Option<Rc<Opening>>,
    speaks_http1: bool,
}

#[derive(Default)]
pub(crate) struct Streams {
    endpoints: RefCell<HashMap<Of, AtEndpoint>>,
}

enum Found {
    Room(Rc<Multiplexed>),
    Opening(Rc<Opening>),
    Http1,
    Nothing,
}

impl Streams {
    fn find(&self, config: &Arc<ClusterConfig>, endpoint: &Endpoint, priority: RoutingPriority) -> Found {
        let mut endpoints = self.endpoints.borrow_mut();
        let of = Of::endpoint(endpoint.id, priority);
        let Some(at) = endpoints.get_mut(&of) else { return Found::Nothing };
        if !Arc::ptr_eq(&at.config, config) || at.transport != endpoint.transport {
            // both may mean other certificates: what is open serves its streams to the end
            endpoints.remove(&of);
            return Found::Nothing;
        }
        at.connections.retain(|on| on.is_open() && !on.is_worn());
        if let Some(on) = at.connections.iter().find(|on| on.has_room()) {
            return Found::Room(on.clone());
        }
        match &at.opening {
            Some(opening) => Found::Opening(opening.clone()),
            None if at.speaks_http1 => Found::Http1,
            None => Found::Nothing,
        }
    }

    fn begin(
        &self,
        config: &Arc<ClusterConfig>,
        endpoint: &Endpoint,
        priority: RoutingPriority,
    ) -> Rc<Opening> {
        let mut endpoints = self.endpoints.borrow_mut();
        if endpoints.len() >= REMEMBERED_MAX {
            endpoints.retain(|_, at| at.opening.is_some() || !at.connections.is_empty());
        }
        let opening = Rc::new(Opening::default());
        let at = endpoints.entry(Of::endpoint(endpoint.id, priority)).or_insert_with(|| AtEndpoint {
            config: config.clone(),
            priority,
            transport: endpoint.transport,
            connections: Vec::new(),
            opening: None,
            speaks_http1: false,
        });
        at.opening = Some(opening.clone());
        opening
    }

    /// The endpoint as it was when this connection was begun; None: its configuration changed meanwhile.
    fn opened(&self, endpoint: Of, opening: &Rc<Opening>, done: impl FnOnce(&mut AtEndpoint)) {
        let mut endpoints = self.endpoints.borrow_mut();
        let Some(at) = endpoints.get_mut(&endpoint) else { return };
        if at.opening.as_ref().is_some_and(|current| Rc::ptr_eq(current, opening)) {
            at.opening = None;
            done(at);
        }
        if at.opening.is_none() && at.connections.is_empty() && !at.speaks_http1 {
            endpoints.remove(&endpoint);
        }
    }

    pub(super) fn remove(&self, endpoint: Of, usage: &Rc<Usage>) {
        let mut endpoints = self.endpoints.borrow_mut();
        let Some(at) = endpoints.get_mut(&endpoint) else { return };
        at.connections.retain(|on| !Rc::ptr_eq(&on.usage, usage));
        if at.opening.is_none() && at.connections.is_empty() && !at.speaks_http1 {
            endpoints.remove(&endpoint);
        }
    }

    /// A new configuration: no more streams on what is of no use in it; those under way go on to their end.
    pub fn follow(&self, wanted: &mut StillWanted<'_>) {
        for at in self.endpoints.borrow_mut().values_mut() {
            let Some(on) = at.connections.first() else { continue };
            if wanted.has(&on.cluster, &on.endpoint) {
                at.connections.iter().for_each(|on| on.version.set(wanted.snapshot.version));
            } else {
                at.connections.clear();
            }
        }
    }

    /// No more streams on what is open to an endpoint that is out of order; those under way go on to their end.
    pub fn release_endpoint(&self, endpoint: EndpointId) {
        for priority in RoutingPriority::ALL {
            if let Some(at) = self.endpoints.borrow_mut().get_mut(&Of::endpoint(endpoint, priority)) {
                at.connections.clear();
            }
        }
    }

    /// Closes connections of the cluster that carry nothing, but those to one endpoint. Returns how many.
    pub fn release_idle(
        &self,
        cluster: ClusterId,
        priority: RoutingPriority,
        but: Option<EndpointId>,
    ) -> usize {
        let mut released = Vec::new();
        for at in self.endpoints.borrow_mut().values_mut() {
            if at.config.id != cluster || at.priority != priority {
                continue;
            }
            let idle = |on: &mut Rc<Multiplexed>| on.is_idle() && Some(on.endpoint.id) != but;
            released.extend(at.connections.extract_if(.., idle));
        }
        released.len()
    }
}

/// A stream to the endpoint: of an open connection, of one that is opened for it, or of one waited for at the cap.
pub(crate) async fn acquire(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    wanted: Wanted,
    priority: RoutingPriority,
) -> Result<Acquired, Failure> {
    let (mut pending, mut waiting) = (None, None);
    let mut rounds = 0;
    loop {
        let opening = match state.streams.find(&cluster.config, endpoint, priority) {
            Found::Room(on) => return Ok(Acquired::Stream(Stream::new(state, on))),
            Found::Http1 if wanted == Wanted::Negotiated => return Ok(Acquired::Http1),
            Found::Opening(opening) => Some(opening),
            Found::Http1 | Found::Nothing => None,
        };
        // as for HTTP/1.1, a request for which no connection is ready is pending
        if pending.is_none() {
            pending = Some(connect::wait_permit(state, cluster, priority)?);
        }
        let may_open = || connect::permitted(cluster, endpoint, priority);
        let opening = match opening {
            None if may_open() => Some(begin(state, cluster, endpoint, wanted, priority)),
            opening => opening,
        };
        match opening {
            Some(opening) if rounds < ROUNDS_MAX => {
                rounds += 1;
                opening.wait().await?;
            }
            // a peer that takes no streams, or a crowd that is always faster
            Some(_) => return Err(Failure::Overflow(Limit::Pending)),
            None => {
                waiting.get_or_insert_with(|| connect::at_cap(state, cluster, priority));
                // an idle connection to another endpoint, or of the other protocol, may be what fills the cap
                let released = state.streams.release_idle(cluster.config.id, priority, Some(endpoint.id));
                if released + state.pool.release_idle(Some(cluster.config.id)) == 0 {
                    connect::turn(state, cluster, priority).await;
                }
            }
        }
    }
}

/// Opens a connection on a task of its own: it is of use to others when the request that began it is gone.
fn begin(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    wanted: Wanted,
    priority: RoutingPriority,
) -> Rc<Opening> {
    let opening = state.streams.begin(&cluster.config, endpoint, priority);
    let open = OpenConnection::new(state, &cluster.config, &cluster.live, endpoint, priority);
    let task = run(
        state.clone(),
        cluster.clone(),
        endpoint.clone(),
        (wanted, priority),
        Ended::new(state, Of::endpoint(endpoint.id, priority), &opening),
        open,
    );
    state.core.spawn(task);
    opening
}

/// Whatever happens to the task, those who wait hear of it.
struct Ended {
    state: Rc<CoreState>,
    endpoint: Of,
    opening: Rc<Opening>,
}

impl Ended {
    fn new(state: &Rc<CoreState>, endpoint: Of, opening: &Rc<Opening>) -> Self {
        Ended { state: state.clone(), endpoint, opening: opening.clone() }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.opening.result.get().is_none() {
            self.state.streams.opened(self.endpoint, &self.opening, |_| {});
            self.opening.finish(Err(Failure::ConnectFailure));
        }
    }
}

async fn run(
    state: Rc<CoreState>,
    cluster: Cluster,
    endpoint: Arc<Endpoint>,
    (wanted, priority): (Wanted, RoutingPriority),
    ended: Ended,
    open: OpenConnection,
) {
    let (opening, of) = (&ended.opening, ended.endpoint);
    let offer = alpn(&cluster, &endpoint, wanted);
    let conn = match connect::establish(&state, &cluster, &endpoint, &open, offer.as_deref()).await {
        Ok(conn) => Rc::new(conn),
        Err(failure) => {
            state.streams.opened(of, opening, |_| {});
            return opening.finish(Err(failure));
        }
    };
    let now = state.now();
    if wanted == Wanted::Negotiated && conn.tls().and_then(|tls| tls.alpn()) != Some(b"h2") {
        state.streams.opened(of, opening, |at| at.speaks_http1 = true);
        state.pool.put(now, UpstreamConn::new(conn, endpoint, cluster.config.clone(), now, open));
        return opening.finish(Ok(()));
    }
    let config = cluster.config.clone();
    drop(cluster);
    let block = Block::from_raw(config.stats.cluster.0);
    let frames = settings(&config).handshake::<_, Chunk>(PollIo::upstream(&state, &conn, block)).await;
    let Ok((sender, frames)) = frames else {
        state.streams.opened(of, opening, |_| {});
        return opening.finish(Err(Failure::UpstreamTermination));
    };
    state.shard.inc(block, ClusterStat::UpstreamCxHttp2Total);
    let usage = Rc::new(Usage::default());
    usage.idle_since.set(now);
    let on = Multiplexed {
        conn,
        cluster: config.clone(),
        endpoint: endpoint.clone(),
        priority,
        version: Cell::new(NEVER_LOOKED),
        opened: now,
        sender: RefCell::new(sender),
        usage: usage.clone(),
    };
    let (opened, on) = (on.opened, Rc::new(on));
    let held = Rc::downgrade(&on);
    state.streams.opened(of, opening, |at| at.connections.push(on));
    opening.finish(Ok(()));
    let well_formed = drive(&state, &config, of, &usage, opened, frames).await;
    if !well_formed || (held.strong_count() == 0 && usage.streams.get() == 0) {
        // RFC 9113 section 5.4.1 for an error, section 6.8 for one that nobody uses any more
        state.shard.inc(Block::from_raw(config.stats.http2.0), ClusterHttp2Stat::GoawaySent);
    }
    // while somebody here could still use it, only the peer ends it
    if let Some(on) = held.upgrade() {
        on.is_open();
        if well_formed {
            open.closed_by_peer();
        }
    }
    if usage.dismissed.get() {
        state.shard.inc(block, ClusterStat::UpstreamCxCloseNotify);
    }
    open.carried(usage.requests.get(), usage.streams.get() > 0);
    state.streams.remove(of, &usage);
    drop(open);
}

/// What is offered where the TLS configuration says nothing.
fn alpn(cluster: &Cluster, endpoint: &Endpoint, wanted: Wanted) -> Option<Vec<Vec<u8>>> {
    tls(cluster, endpoint).filter(|tls| tls.alpn.is_empty())?;
    Some(match wanted {
        Wanted::Http2 => vec![b"h2".to_vec()],
        Wanted::Negotiated => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    })
}

pub(crate) fn tls<'a>(cluster: &'a Cluster, endpoint: &Endpoint) -> Option<&'a UpstreamTls> {
    match cluster.config.transport.sockets.get(endpoint.transport as usize) {
        Some(TransportSocket::Tls(tls)) => Some(tls),
        _ => None,
    }
}
