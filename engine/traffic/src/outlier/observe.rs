//! One result of one endpoint. On the request path of every core: in the good case it reads two counts and
//! writes none.

use super::{Cause, Ejection, LocalFailure, Observation, eject::try_eject};
use crate::Rng;
use corelane_snapshot::{Cluster, Endpoint, OutlierDetection};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What one result may trip: a gateway failure is a 5xx too.
pub type Found = [Option<Ejection>; 2];

/// Counts it, and ejects the endpoint if that was one failure too many. Envoy's order: the row of gateway failures is
/// judged before that of all 5xx, each detection is counted by itself, and what is out already is not found again.
pub fn observe(
    cluster: &Cluster,
    endpoint: &Endpoint,
    observation: Observation,
    now_ns: u64,
    rng: &mut Rng,
) -> Found {
    let Some(config) = cluster.config.outlier.as_ref() else { return [None, None] };
    count(cluster, config, endpoint, observation)
        .map(|cause| try_eject(cluster, config, endpoint, cause?, now_ns, rng))
}

fn count(
    cluster: &Cluster,
    config: &OutlierDetection,
    endpoint: &Endpoint,
    observation: Observation,
) -> [Option<Cause>; 2] {
    let rated = is_rated(config, cluster.endpoints.endpoints.len());
    if config.split_external_local_origin_errors {
        match observation {
            Observation::Status(status) => external(config, endpoint, status, rated),
            Observation::ExternalFailure => external(config, endpoint, 503, rated),
            Observation::Local(_) => [local_failure(config, endpoint, rated), None],
            Observation::ConnectSuccess | Observation::ConnectSuccessFinal => {
                local_success(endpoint, rated);
                [None, None]
            }
        }
    } else {
        // Envoy: "all errors are mapped to HTTP codes"
        match observation {
            Observation::Status(status) => external(config, endpoint, status, rated),
            Observation::ExternalFailure => external(config, endpoint, 500, rated),
            Observation::Local(LocalFailure::Timeout) => external(config, endpoint, 504, rated),
            Observation::Local(LocalFailure::Connect | LocalFailure::Reset) => {
                external(config, endpoint, 503, rated)
            }
            Observation::ConnectSuccessFinal => external(config, endpoint, 200, rated),
            Observation::ConnectSuccess => [None, None],
        }
    }
}

/// Rates are compared only between enough hosts; with fewer, nobody need count.
fn is_rated(config: &OutlierDetection, hosts: usize) -> bool {
    hosts >= config.success_rate_minimum_hosts.min(config.failure_percentage_minimum_hosts) as usize
}

fn external(config: &OutlierDetection, endpoint: &Endpoint, status: u16, rated: bool) -> [Option<Cause>; 2] {
    let live = &endpoint.live;
    let failed = status >= 500;
    if rated {
        live.interval_total.fetch_add(1, Relaxed);
        if !failed {
            live.interval_success.fetch_add(1, Relaxed);
        }
    }
    if !failed {
        clear(&live.consecutive_5xx);
        clear(&live.consecutive_gateway);
        return [None, None];
    }
    let gateway = matches!(status, 502..=504);
    if !gateway {
        clear(&live.consecutive_gateway);
    }
    let gateway = gateway && reaches(&live.consecutive_gateway, config.consecutive_gateway_failure);
    let any = reaches(&live.consecutive_5xx, config.consecutive_5xx);
    [gateway.then_some(Cause::ConsecutiveGateway), any.then_some(Cause::Consecutive5xx)]
}

fn local_failure(config: &OutlierDetection, endpoint: &Endpoint, rated: bool) -> Option<Cause> {
    let live = &endpoint.live;
    if rated {
        live.interval_local_total.fetch_add(1, Relaxed);
    }
    reaches(&live.consecutive_local, config.consecutive_local_origin_failure)
        .then_some(Cause::ConsecutiveLocalOrigin)
}

fn local_success(endpoint: &Endpoint, rated: bool) {
    let live = &endpoint.live;
    if rated {
        live.interval_local_total.fetch_add(1, Relaxed);
        live.interval_local_success.fetch_add(1, Relaxed);
    }
    clear(&live.consecutive_local);
}

/// Every `threshold`-th failure in a row is one core's to act on, and starts the count anew.
fn reaches(count: &AtomicU32, threshold: u32) -> bool {
    if threshold == 0 {
        return false;
    }
    let now = count.fetch_add(1, Relaxed) + 1;
    if now != threshold {
        return false;
    }
    let _ = count.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(threshold)));
    true
}

/// Reading is cheap where a write would take the line from the other cores.
fn clear(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}
