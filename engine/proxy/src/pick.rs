//! Which endpoint a try goes to, with the cluster kinds that decide it by themselves.

use crate::{link::Link, prepare::Forward, state::CoreState, tries::Tries};
use corelane_http::RequestHead;
use corelane_snapshot::{Cluster, ClusterId, ClusterKind, Endpoint, EndpointId, HealthStatus, StatBlock};
use corelane_telemetry::{Block, ClusterStat};
use corelane_traffic::balance::{self, PickContext};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

pub(crate) fn endpoint(
    state: &CoreState,
    link: &Link,
    forward: &Forward<'_>,
    request: &RequestHead,
    tries: &Tries<'_>,
) -> Option<Arc<Endpoint>> {
    let cluster = forward.cluster;
    if let Some(destination) = original_dst(state, link, cluster, Some(request)) {
        return destination;
    }
    let avoid = forward.retry.is_some_and(|policy| policy.avoid_previous_hosts);
    let context = PickContext {
        now_ns: state.now().as_u64(),
        hash: forward.hash,
        // a retry goes to somebody else where it can, whether or not the policy names the predicate
        tried: tries.tried(),
        attempts_max: forward.retry.map_or(0, |policy| policy.host_selection_attempts_max).max(if avoid {
            1
        } else {
            3
        }),
        omit_canary: forward.retry.is_some_and(|policy| policy.omit_canary_hosts) && tries.number > 1,
        avoid_priorities: tries.avoided_priorities(),
    };
    state.with_view(cluster, |view, rng| {
        let picked = balance::pick(view, cluster, &context, rng).endpoint().cloned();
        if view.membership().panic {
            state.shard.inc(Block::from_raw(cluster.config.stats.cluster.0), ClusterStat::LbHealthyPanic);
        }
        picked
    })
}

/// ORIGINAL_DST clusters go where the client meant to go. Some(None): it cannot be known. None: another kind.
pub(crate) fn original_dst(
    state: &CoreState,
    link: &Link,
    cluster: &Cluster,
    request: Option<&RequestHead>,
) -> Option<Option<Arc<Endpoint>>> {
    let ClusterKind::OriginalDst { port, http_header, .. } = &cluster.config.kind else { return None };
    let by_header = http_header.as_deref().and_then(|name| {
        let value = request?.fields.get_name(name.as_bytes())?;
        std::str::from_utf8(value).ok()?.parse::<SocketAddr>().ok()
    });
    let Some(mut address) = by_header.or(link.facts.original_dst) else { return Some(None) };
    if let Some(port) = port {
        address.set_port(*port);
    }
    Some(Some(state.passing_endpoint(cluster.config.id, address)))
}

/// Destinations that a core remembers for ORIGINAL_DST clusters, so that their connections can be pooled; when
/// there are more, those without connections are forgotten.
const PASSING_MAX: usize = 4_096;

/// Endpoints that exist because somebody went there.
#[derive(Default)]
pub(crate) struct Passing(HashMap<(ClusterId, SocketAddr), Arc<Endpoint>>);

impl Passing {
    pub fn endpoint(&mut self, cluster: ClusterId, address: SocketAddr) -> Arc<Endpoint> {
        if self.0.len() >= PASSING_MAX {
            self.0.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let made = || {
            Arc::new(Endpoint {
                id: passing_id(),
                address,
                hostname: "".into(),
                weight: 1,
                priority: 0,
                locality: 0,
                health: HealthStatus::Healthy,
                canary: false,
                health_check_port: None,
                transport: 0,
                live: Arc::default(),
                stats: StatBlock::default(),
            })
        };
        self.0.entry((cluster, address)).or_insert_with(made).clone()
    }
}

/// Ids of such endpoints come from the top, away from the configured ones: no pooled connection is another's.
fn passing_id() -> EndpointId {
    static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);
    EndpointId(NEXT.fetch_sub(1, Relaxed))
}
