//! tcp_proxy: one upstream connection per downstream one, bytes both ways.

use crate::{
    connect,
    connection_log::Relayed,
    failure,
    link::Link,
    pool::UpstreamConn,
    shared::Active,
    state::CoreState,
    tunnel::{self, Carried, Early, TunnelEnd, TunnelLimits},
};
use corelane_runtime::Buf;
use corelane_snapshot::{Cluster, Endpoint, EndpointId, TcpProxy, TcpTarget};
use corelane_telemetry::{Block, ClusterStat, EndpointStat, ResponseFlags, TcpStat};
use corelane_traffic::{
    Failure,
    balance::{self, PickContext},
    matching,
    outlier::{self, Observation},
};
use std::{rc::Rc, sync::Arc};

pub(crate) async fn serve(state: &Rc<CoreState>, link: &Link, proxy: &TcpProxy, early: Option<Buf>) {
    let stats = Block::from_raw(proxy.stats.0);
    state.shard.inc(stats, TcpStat::DownstreamCxTotal);
    let _active = Active::new(&state.shared);
    let mut relayed = Relayed::start(link, proxy);
    match dial(state, link, proxy, &mut relayed).await {
        Some(upstream) => {
            let early = Early { from_downstream: early, from_upstream: None };
            let until = proxy.connection_duration_max.map(|max| link.accepted + max);
            let limits = TunnelLimits { idle: proxy.idle_timeout, until, stats: Some(stats) };
            let carried =
                tunnel::carry(state, link.id, &link.deadline, &link.conn, &upstream.conn, early, limits)
                    .await;
            upstream.relayed(state, carried.up, carried.down, carried.end == TunnelEnd::UpstreamReset);
            count(state, proxy, &carried, &mut relayed);
        }
        // the client learns of it by a reset, as from a closed port
        None => link.conn.reset(),
    }
    relayed.finish(state, link, proxy);
}

fn count(state: &CoreState, proxy: &TcpProxy, carried: &Carried, relayed: &mut Relayed) {
    relayed.carried(carried.up, carried.down);
    let stats = Block::from_raw(proxy.stats.0);
    match carried.end {
        TunnelEnd::IdleTimeout => state.shard.inc(stats, TcpStat::IdleTimeout),
        TunnelEnd::Drained => state.shard.inc(stats, TcpStat::DownstreamCxDrainClose),
        TunnelEnd::MaxDuration => {
            relayed.outcome.flags |= ResponseFlags::DURATION_TIMEOUT;
            state.shard.inc(stats, TcpStat::MaxDownstreamConnectionDuration);
        }
        _ => {}
    }
}

/// Tries endpoints, `max_connect_attempts` of them, and returns an open connection.
async fn dial(
    state: &Rc<CoreState>,
    link: &Link,
    proxy: &TcpProxy,
    relayed: &mut Relayed,
) -> Option<UpstreamConn> {
    let stats = Block::from_raw(proxy.stats.0);
    let snapshot = state.pin();
    let id = match &proxy.target {
        TcpTarget::Cluster(id) => Some(*id),
        TcpTarget::Weighted { clusters, total } => {
            matching::weighted_id(clusters, *total, state.draw_evenly())
        }
    };
    let Some(cluster) = id.and_then(|id| snapshot.cluster(id)) else {
        state.shard.inc(stats, TcpStat::DownstreamCxNoRoute);
        relayed.outcome.flags |= ResponseFlags::NO_CLUSTER_FOUND;
        return None;
    };
    if let Some(logged) = &mut relayed.logged {
        logged.cluster.push_str(&cluster.config.name);
    }
    let block = Block::from_raw(cluster.config.stats.cluster.0);
    let mut tried: Vec<EndpointId> = Vec::new();
    for _ in 0..proxy.connect_attempts_max.max(1) {
        let Some(endpoint) = pick(state, link, proxy, cluster, &tried) else {
            state.shard.inc(block, ClusterStat::UpstreamCxNoneHealthy);
            relayed.outcome.flags |= ResponseFlags::NO_HEALTHY_UPSTREAM;
            return None;
        };
        relayed.outcome.attempts += 1;
        relayed.outcome.upstream_address = Some(endpoint.address);
        let opened = connect::dedicated(state, cluster, &endpoint).await;
        observe(
            state,
            cluster,
            &endpoint,
            match &opened {
                Ok(_) => Some(Observation::ConnectSuccessFinal),
                Err(failure) => Observation::of_failure(*failure),
            },
        );
        match opened {
            Ok(opened) => {
                relayed.outcome.flags = ResponseFlags::NONE;
                relayed.outcome.upstream_local_address = opened.conn.local_addr();
                return Some(opened);
            }
            Err(why) => {
                relayed.outcome.flags |= failure::describe(why).1;
                if let (Failure::TlsHandshake | Failure::ConnectFailure, Some(logged)) =
                    (why, &mut relayed.logged)
                {
                    logged.transport_failure =
                        state.transport_failure.borrow().of(Some(endpoint.id)).to_owned();
                }
                tried.push(endpoint.id);
            }
        }
    }
    relayed.outcome.flags |= ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
    state.shard.inc(block, ClusterStat::UpstreamCxConnectAttemptsExceeded);
    None
}

fn pick(
    state: &CoreState,
    link: &Link,
    proxy: &TcpProxy,
    cluster: &Cluster,
    tried: &[EndpointId],
) -> Option<Arc<Endpoint>> {
    if let Some(endpoint) = crate::pick::original_dst(state, link, cluster, None) {
        return endpoint;
    }
    let hash = matching::hash_connection(&proxy.hash_policy, link.facts.remote.ip());
    let context =
        PickContext { now_ns: state.now().as_u64(), hash, tried, attempts_max: 5, ..PickContext::default() };
    state.with_view(cluster, |view, rng| balance::pick(view, cluster, &context, rng).endpoint().cloned())
}

fn observe(state: &CoreState, cluster: &Cluster, endpoint: &Endpoint, observation: Option<Observation>) {
    let Some(observation) = observation else { return };
    let now_ns = state.now().as_u64();
    let found = outlier::observe(cluster, endpoint, observation, now_ns, &mut state.rng.borrow_mut());
    for ejection in found.into_iter().flatten() {
        crate::ejection::count_ejection(&state.shard, cluster, ejection);
    }
    let stats = Block::from_raw(endpoint.stats.0);
    let good = matches!(observation, Observation::ConnectSuccessFinal);
    state.shard.inc(stats, if good { EndpointStat::RqSuccess } else { EndpointStat::RqError });
}
