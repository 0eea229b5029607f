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
        let address = std::str::from_utf8(value).ok().and_then(|text| text.parse::<SocketAddr>().ok());
        if address.is_none() {
            let stats = Block::from_raw(cluster.config.stats.cluster.0);
            state.shard.inc(stats, ClusterStat::OriginalDstHostInvalid);
        }
        address
    });
    let Some(mut address) = by_header.or(link.facts.original_dst) else { return Some(None) };
    if let Some(port) = port {
        address.set_port(*port);
    }
    let endpoint = state.passing.borrow_mut().endpoint(cluster.config.id, address);
    if endpoint.is_none() {
        state.shard.inc(Block::from_raw(cluster.config.stats.cluster.0), ClusterStat::UpstreamCxOverflow);
    }
    Some(endpoint)
}

/// Destinations of ORIGINAL_DST clusters that a core knows at once, so that their connections can be pooled. Those
/// without connections are forgotten in time; beyond the bound nobody goes to a new one.
const PASSING_MAX: usize = 16_384;
/// A look that leaves fewer places than this is not repeated before the next round of housekeeping.
const PASSING_FREED_MIN: usize = PASSING_MAX / 8;

/// Endpoints that exist because somebody goes there.
#[derive(Default)]
pub(crate) struct Passing {
    endpoints: HashMap<(ClusterId, SocketAddr), Arc<Endpoint>>,
    /// The last look found nearly all in use.
    crowded: bool,
}

impl Passing {
    /// None: there are too many.
    pub fn endpoint(&mut self, cluster: ClusterId, address: SocketAddr) -> Option<Arc<Endpoint>> {
        if let Some(known) = self.endpoints.get(&(cluster, address)) {
            return Some(known.clone());
        }
        if self.endpoints.len() >= PASSING_MAX {
            if !self.crowded {
                self.forget_unused();
                self.crowded = self.endpoints.len() > PASSING_MAX - PASSING_FREED_MIN;
            }
            if self.endpoints.len() >= PASSING_MAX {
                return None;
            }
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
        Some(self.endpoints.entry((cluster, address)).or_insert_with(made).clone())
    }

    /// Forgets endpoints without connections, as Envoy does once a `cleanup_interval`.
    pub fn forget_unused(&mut self) {
        self.endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        self.crowded = false;
    }
}

/// Ids of such endpoints come from the top, away from the configured ones: no pooled connection is another's.
fn passing_id() -> EndpointId {
    static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);
    EndpointId(NEXT.fetch_sub(1, Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> SocketAddr {
        let [_, _, high, low] = (number as u32).to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 80))
    }

    #[test]
    fn destinations_are_bounded_and_forgotten_when_nobody_goes_there() {
        let mut passing = Passing::default();
        let mut go = |number: usize| passing.endpoint(ClusterId(1), address(number));
        let mut used: Vec<_> = (0..PASSING_MAX).map(|number| go(number).expect("room")).collect();
        assert!(go(PASSING_MAX).is_none(), "all are in use");
        assert!(Arc::ptr_eq(&go(7).expect("known"), &used[7]));
        used.truncate(10);
        assert!(go(PASSING_MAX).is_none(), "one look a round of housekeeping");
        passing.forget_unused();
        assert_eq!(passing.endpoints.len(), 10);
        // with many that are in no use, a look makes room at once
        for number in 0..2 * PASSING_MAX {
            assert!(passing.endpoint(ClusterId(2), address(number)).is_some());
            assert!(passing.endpoints.len() <= PASSING_MAX);
        }
        assert!(Arc::ptr_eq(&passing.endpoint(ClusterId(1), address(7)).expect("in use"), &used[7]));
    }
}
