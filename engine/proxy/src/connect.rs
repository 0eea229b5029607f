//! From a chosen endpoint to an open connection: the circuit breaker's leave, TCP, TLS. Each step has one time
//! limit together, the cluster's `connect_timeout`.

use crate::{
    conn::Conn,
    pool::{OpenConnection, UpstreamConn},
    state::CoreState,
};
use corelane_runtime::net::{ConnectOptions, TcpStream};
use corelane_snapshot::{Cluster, Endpoint, TransportSocket, UpstreamTls};
use corelane_telemetry::{Block, ClusterSslStat, ClusterStat, EndpointStat};
use corelane_tls::{ConnectParams, ContextId, TlsError};
use corelane_traffic::{
    Failure,
    breaker::{self, Limit, Permit},
};
use std::{rc::Rc, sync::Arc};

/// Takes an idle connection, or opens one, or waits for one when the cluster is at its cap.
pub(crate) async fn acquire(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
) -> Result<UpstreamConn, Failure> {
    if let Some(idle) = state.pool.take(state.now(), &cluster.config, endpoint.id) {
        return Ok(idle);
    }
    if permitted(cluster, endpoint) {
        return open(state, cluster, endpoint).await;
    }
    wait_for_turn(state, cluster, endpoint).await
}

/// The breakers' leave for one more connection; [`OpenConnection`] gives it back.
fn permitted(cluster: &Cluster, endpoint: &Endpoint) -> bool {
    let breakers = &cluster.config.breakers;
    if breaker::acquire(&cluster.live, breakers, Limit::Connections).is_err() {
        return false;
    }
    let host = breaker::acquire_host_connection(&endpoint.live, breakers).is_ok();
    if !host {
        breaker::release(&cluster.live, Limit::Connections);
    }
    host
}

async fn wait_for_turn(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
) -> Result<UpstreamConn, Failure> {
    let block = Block::from_raw(cluster.config.stats.cluster.0);
    state.shard.inc(block, ClusterStat::UpstreamCxOverflow);
    let _pending = Permit::acquire(&cluster.live, &cluster.config.breakers, Limit::Pending).map_err(|overflow| {
        state.shard.inc(block, ClusterStat::UpstreamRqPendingOverflow);
        Failure::from(overflow)
    })?;
    state.shard.inc(block, ClusterStat::UpstreamRqPendingTotal);
    loop {
        // an idle connection to another endpoint, here or on another core, may be what fills the cap
        if state.pool.release_idle_of(cluster.config.id, endpoint.id) == 0 {
            crate::worker::ask_for_idle(state, cluster.config.id);
            state.pool.turn(cluster.config.id).await;
        }
        if let Some(idle) = state.pool.take(state.now(), &cluster.config, endpoint.id) {
            return Ok(idle);
        }
        if permitted(cluster, endpoint) {
            return open(state, cluster, endpoint).await;
        }
    }
}

/// A connection for one downstream connection alone, never pooled; with what counts it while it is open.
pub(crate) async fn dedicated(
    state: &Rc<CoreState>,
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
) -> Result<UpstreamConn, Failure> {
    if !permitted(cluster, endpoint) {
        state.shard.inc(Block::from_raw(cluster.config.stats.cluster.0), ClusterStat::UpstreamCxOverflow);
        return Err(Failure::Overflow(Limit::Connections));
    }
    open(state, cluster, endpoint).await
}

/// Opens a connection for which the breaker has given leave.
async fn open(state: &Rc<CoreState>, cluster: &Cluster, endpoint: &Arc<Endpoint>) -> Result<UpstreamConn, Failure> {
    let open = OpenConnection::new(state, &cluster.config, &cluster.live, endpoint);
    let started = state.now();
    let conn = connect(state, cluster, endpoint, None).await.inspect_err(|failure| count(state, cluster, endpoint, failure))?;
    let now = state.now();
    let block = Block::from_raw(cluster.config.stats.cluster.0);
    state.shard.record(block, ClusterStat::UpstreamCxConnectMs, now.since(started).as_micros() as u64);
    open.established();
    Ok(UpstreamConn::new(Rc::new(conn), endpoint.clone(), cluster.config.clone(), now, open))
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
    let options = ConnectOptions { bind: cluster.config.bind, ..ConnectOptions::default() };
    let tcp = TcpStream::connect(&state.core, endpoint.address, &options)
        .await
        .map_err(|_| Failure::ConnectFailure)?;
    let sockets = &cluster.config.transport.sockets;
    match sockets.get(endpoint.transport as usize).or(sockets.first()) {
        Some(TransportSocket::Tls(tls)) => secure(state, cluster, endpoint, tcp, tls, alpn).await,
        _ => Ok(Conn::Plain(tcp)),
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
        return Err(Failure::TlsHandshake);
    };
    let params = ConnectParams { endpoint: Some(endpoint.address), alpn: alpn.map(<[_]>::to_vec), ..ConnectParams::default() };
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
            state.shard.inc(stats, ClusterSslStat::ConnectionError);
            if matches!(error, TlsError::Handshake(rustls::Error::InvalidCertificate(_))) {
                state.shard.inc(stats, ClusterSslStat::FailVerifyError);
            }
            Err(if matches!(error, TlsError::HandshakeTimeout) { Failure::ConnectTimeout } else { Failure::TlsHandshake })
        }
    }
}
