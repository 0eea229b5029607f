//! From a chosen endpoint to an open connection: the circuit breaker's leave, TCP, TLS. Each step has one time
//! limit together, the cluster's `connect_timeout`.

use crate::{
    conn::Conn,
    pool::{OpenConnection, UpstreamConn, caps_hosts},
    state::CoreState,
};
use corelane_runtime::net::{ConnectOptions, TcpStream};
use corelane_snapshot::{Cluster, Endpoint, RoutingPriority, TransportSocket, UpstreamProtocol, UpstreamTls};
use corelane_telemetry::{Block, ClusterSslStat, ClusterStat, EndpointStat};
use corelane_tls::{ConnectParams, ContextId, TlsError};
use corelane_traffic::{
    Failure,
    breaker::{self, Limit, Permit, Waiting},
};
use std::{rc::Rc, sync::Arc};

/// Takes an idle connection unless it is to be `fresh`, or opens one, or waits for one when the cluster is at its cap. As
/// in Envoy's connection pool (`newStream`), whoever finds no connection ready is pending until there is one, even where
/// it is made at once.
pub(crate) async fn acquire(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    priority: RoutingPriority,
    fresh: bool,
) -> Result<UpstreamConn, Failure> {
    if !fresh && let Some(idle) = state.pool.take(state.now(), &cluster.config, endpoint, priority) {
        return Ok(idle);
    }
    let _pending = wait_permit(state, cluster, priority)?;
    if permitted(cluster, endpoint, priority) {
        return open(state, cluster, endpoint, priority).await;
    }
    wait_for_turn(state, cluster, endpoint, priority).await
}

/// The breakers' leave for one more connection; [`OpenConnection`] gives it back.
pub(crate) fn permitted(cluster: &Cluster, endpoint: &Endpoint, priority: RoutingPriority) -> bool {
    let (live, breakers) = (cluster.live.of(priority), breaker::limits(&cluster.config, priority));
    if breaker::acquire(live, breakers, Limit::Connections).is_err() {
        return false;
    }
    let host = breaker::acquire_host_connection(&endpoint.live, breakers).is_ok();
    if !host {
        breaker::release(live, Limit::Connections);
    }
    host
}

async fn wait_for_turn(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    priority: RoutingPriority,
) -> Result<UpstreamConn, Failure> {
    let _waiting = at_cap(state, cluster, priority);
    loop {
        // looked at first: what became free before this one was counted as waiting was offered to nobody
        if let Some(idle) = state.pool.take(state.now(), &cluster.config, endpoint, priority) {
            return Ok(idle);
        }
        if permitted(cluster, endpoint, priority) {
            return open(state, cluster, endpoint, priority).await;
        }
        let mut released = state.pool.release_idle_of(cluster.config.id, priority, endpoint.id);
        if caps_hosts(&cluster.config) {
            released += state.pool.release_other_priority(endpoint.id, priority);
        }
        if released + state.streams.release_idle(cluster.config.id, priority, None) == 0 {
            turn(state, cluster, priority).await;
        }
    }
}

/// No more connections are allowed: from here on others are to give theirs up.
pub(crate) fn at_cap(state: &CoreState, cluster: &Cluster, priority: RoutingPriority) -> Waiting {
    state.shard.inc(Block::from_raw(cluster.config.stats.cluster.0), ClusterStat::UpstreamCxOverflow);
    Waiting::begin(&cluster.live, priority)
}

/// Leave to wait for a connection, be it only until it is made.
pub(crate) fn wait_permit(
    state: &CoreState,
    cluster: &Cluster,
    priority: RoutingPriority,
) -> Result<Permit, Failure> {
    let block = Block::from_raw(cluster.config.stats.cluster.0);
    let pending = Permit::acquire(cluster, priority, Limit::Pending).map_err(|overflow| {
        state.shard.inc(block, ClusterStat::UpstreamRqPendingOverflow);
        Failure::from(overflow)
    })?;
    state.shard.inc(block, ClusterStat::UpstreamRqPendingTotal);
    Ok(pending)
}

/// Waits until a connection of the cluster may have become free, after asking the other cores for an idle one.
pub(crate) async fn turn(state: &CoreState, cluster: &Cluster, priority: RoutingPriority) {
    crate::worker::ask_for_idle(state, cluster.config.id);
    state.pool.turn(cluster.config.id, priority).await;
}

/// A connection for one downstream connection alone, never pooled; with what counts it while it is open.
pub(crate) async fn dedicated(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
) -> Result<UpstreamConn, Failure> {
    if !permitted(cluster, endpoint, RoutingPriority::Default) {
        state.shard.inc(Block::from_raw(cluster.config.stats.cluster.0), ClusterStat::UpstreamCxOverflow);
        return Err(Failure::Overflow(Limit::Connections));
    }
    open(state, cluster, endpoint, RoutingPriority::Default).await
}

/// Opens a connection for which the breaker has given leave.
async fn open(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    priority: RoutingPriority,
) -> Result<UpstreamConn, Failure> {
    let open = OpenConnection::new(state, &cluster.config, &cluster.live, endpoint, priority);
    // where ALPN decides, this is the way of what was found to speak HTTP/1.1
    let alpn = (cluster.config.protocol == UpstreamProtocol::Auto).then(|| [b"http/1.1".to_vec()]);
    let conn = establish(state, cluster, endpoint, &open, alpn.as_ref().map(<[_; 1]>::as_slice)).await?;
    Ok(UpstreamConn::new(Rc::new(conn), endpoint.clone(), cluster.config.clone(), state.now(), open))
}

/// Connects, and counts how that went.
pub(crate) async fn establish(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    open: &OpenConnection,
    alpn: Option<&[Vec<u8>]>,
) -> Result<Conn, Failure> {
    let started = state.now();
    let conn = connect(state, cluster, endpoint, alpn)
        .await
        .inspect_err(|failure| count(state, cluster, endpoint, failure))?;
    let block = Block::from_raw(cluster.config.stats.cluster.0);
    state.shard.record(
        block,
        ClusterStat::UpstreamCxConnectMs,
        state.now().since(started).as_micros() as u64,
    );
    open.established();
    Ok(conn)
}

/// The peer did not accept our certificate, which it said when the connection seemed to stand.
pub(crate) fn refused(state: &CoreState, cluster: &Cluster, endpoint: &Endpoint) {
    count(state, cluster, endpoint, &Failure::TlsHandshake);
    state.shard.inc(Block::from_raw(cluster.config.stats.ssl.0), ClusterSslStat::ConnectionError);
}

fn count(state: &CoreState, cluster: &Cluster, endpoint: &Endpoint, failure: &Failure) {
    let block = Block::from_raw(cluster.config.stats.cluster.0);
    state.shard.inc(block, ClusterStat::UpstreamCxConnectFail);
    if matches!(failure, Failure::ConnectTimeout) {
        state.shard.inc(block, ClusterStat::UpstreamCxConnectTimeout);
    }
    state.shard.inc(Block::from_raw(endpoint.stats.0), EndpointStat::CxConnectFail);
}

/// TCP and, where the endpoint's transport socket says so, TLS.
pub(crate) async fn connect(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    alpn: Option<&[Vec<u8>]>,
) -> Result<Conn, Failure> {
    let by = state.now() + cluster.config.connect_timeout;
    let opened = state.core.timers().timeout(by, connect_unlimited(state, cluster, endpoint, alpn)).await;
    opened.unwrap_or(Err(Failure::ConnectTimeout))
}

async fn connect_unlimited(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    alpn: Option<&[Vec<u8>]>,
) -> Result<Conn, Failure> {
    let keepalive = cluster.config.tcp_keepalive.map(crate::worker::keepalive);
    let options = ConnectOptions { bind: cluster.config.bind, keepalive, ..ConnectOptions::default() };
    let tcp = TcpStream::connect(&state.core, endpoint.address, &options).await.map_err(|error| {
        use std::io::ErrorKind::{AddrInUse, AddrNotAvailable};
        // of a connection that nothing is bound for, they say that there are no more ports
        if cluster.config.bind.is_some() && matches!(error.kind(), AddrInUse | AddrNotAvailable) {
            let stats = Block::from_raw(cluster.config.stats.cluster.0);
            state.shard.inc(stats, ClusterStat::BindErrors);
        }
        state.transport_failure.borrow_mut().note_connect(endpoint.id, &error);
        Failure::ConnectFailure
    })?;
    match cluster.config.transport.sockets.get(endpoint.transport as usize) {
        Some(TransportSocket::Tls(tls)) => secure(state, cluster, endpoint, tcp, tls, alpn).await,
        Some(TransportSocket::Plain) => Ok(Conn::Plain(tcp)),
        // which socket was meant is unknown: never in plain text by mistake
        None => {
            state.transport_failure.borrow_mut().note(Some(endpoint.id), &"no transport socket");
            Err(Failure::TlsHandshake)
        }
    }
}

async fn secure(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    tcp: TcpStream,
    tls: &UpstreamTls,
    alpn: Option<&[Vec<u8>]>,
) -> Result<Conn, Failure> {
    let stats = Block::from_raw(cluster.config.stats.ssl.0);
    let Some(context) = state.tls.client(ContextId(tls.context.0)) else {
        // its secret has not arrived, or was never good
        state.transport_failure.borrow_mut().note(Some(endpoint.id), &"no certificate yet");
        return Err(Failure::TlsHandshake);
    };
    let params = ConnectParams {
        endpoint: Some(endpoint.address),
        alpn: alpn.map(<[_]>::to_vec),
        ..ConnectParams::default()
    };
    let by = state.now() + cluster.config.connect_timeout;
    match corelane_tls::connect(&state.tls_core, tcp, &context, params, by).await {
        Ok(stream) => {
            state.shard.inc(stats, ClusterSslStat::Handshake);
            if stream.resumed() {
                state.shard.inc(stats, ClusterSslStat::SessionReused);
            }
            Ok(Conn::Tls(Box::new(stream)))
        }
        Err(error) => {
            // connection_error: "not including failed certificate verifications"
            let stat = match &error {
                error if error.is_san_mismatch() => ClusterSslStat::FailVerifySan,
                error if error.is_pin_mismatch() => ClusterSslStat::FailVerifyCertHash,
                TlsError::Handshake(rustls::Error::InvalidCertificate(_)) => ClusterSslStat::FailVerifyError,
                _ => ClusterSslStat::ConnectionError,
            };
            state.shard.inc(stats, stat);
            if matches!(error, TlsError::HandshakeTimeout) {
                return Err(Failure::ConnectTimeout);
            }
            state.transport_failure.borrow_mut().note(Some(endpoint.id), &error);
            Err(Failure::TlsHandshake)
        }
    }
}
