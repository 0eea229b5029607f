//! Taking an endpoint out and letting it back in.

use super::{Cause, Ejection, Outcome};
use crate::{Rng, breaker};
use corelane_snapshot::{
    Cluster, Endpoint, OutlierDetection,
    live::{ClusterLive, EndpointLive},
};
use std::{
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
    time::Duration,
};

/// Endpoints of a cluster that may be ejected at once.
///
/// Unset means Envoy's 10 %, but at least one: Envoy alone would never eject one of two. A value that is set is
/// obeyed, and `always_eject_one_host` raises it to one.
pub fn hosts_ejected_max(config: &OutlierDetection, hosts: usize) -> u32 {
    const PERCENT_DEFAULT: u32 = 10;
    let percent = config.max_ejection_percent.unwrap_or(PERCENT_DEFAULT).min(100);
    let by_percent = (hosts as u64 * u64::from(percent) / 100) as u32;
    let least = u32::from(config.max_ejection_percent.is_none() || config.always_eject_one_host);
    by_percent.max(least)
}

pub(super) fn enforcing(config: &OutlierDetection, cause: Cause) -> u32 {
    match cause {
        Cause::Consecutive5xx => config.enforcing_consecutive_5xx,
        Cause::ConsecutiveGateway => config.enforcing_consecutive_gateway_failure,
        Cause::ConsecutiveLocalOrigin => config.enforcing_consecutive_local_origin_failure,
        Cause::SuccessRate => config.enforcing_success_rate,
        Cause::LocalOriginSuccessRate => config.enforcing_local_origin_success_rate,
        Cause::FailurePercentage => config.enforcing_failure_percentage,
        Cause::LocalOriginFailurePercentage => config.enforcing_failure_percentage_local_origin,
    }
}

pub(super) fn is_ejected(live: &EndpointLive) -> bool {
    live.unhealthy.load(Acquire) & EndpointLive::FAILED_OUTLIER != 0
}

/// None: it is out already, or not the cluster's to take out.
pub(super) fn try_eject(
    cluster: &Cluster,
    config: &OutlierDetection,
    endpoint: &Endpoint,
    cause: Cause,
    now_ns: u64,
    rng: &mut Rng,
) -> Option<Ejection> {
    let live = &endpoint.live;
    // one that left the set, or was never in it (ORIGINAL_DST), would never be let back in
    let is_member = || cluster.endpoints.endpoints.iter().any(|member| member.id == endpoint.id);
    if is_ejected(live) || !is_member() {
        return None;
    }
    let max = hosts_ejected_max(config, cluster.endpoints.endpoints.len());
    if !breaker::take(&cluster.live.ejected, max) {
        return Some(Ejection { cause, outcome: Outcome::OverLimit });
    }
    if !rng.percent(enforcing(config, cause)) {
        breaker::give_back(&cluster.live.ejected);
        return Some(Ejection { cause, outcome: Outcome::NotEnforced });
    }
    // two rules or two cores may get here at once: the bit decides whose ejection it is
    if live.unhealthy.fetch_or(EndpointLive::FAILED_OUTLIER, AcqRel) & EndpointLive::FAILED_OUTLIER != 0 {
        breaker::give_back(&cluster.live.ejected);
        return None;
    }
    let times = live.ejections.fetch_add(1, Relaxed) + 1;
    let until_ns = now_ns.saturating_add(ejection_ns(config, times, rng)).max(1);
    live.ejected_until_ns.store(until_ns, Release);
    cluster.live.health_epoch.fetch_add(1, Release);
    Some(Ejection { cause, outcome: Outcome::Ejected { times, until_ns } })
}

/// base * times, at most `max_ejection_time` (never below base), plus jitter.
fn ejection_ns(config: &OutlierDetection, times: u32, rng: &mut Rng) -> u64 {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let base = ns(config.base_ejection_time);
    let length = base.saturating_mul(u64::from(times)).min(ns(config.max_ejection_time).max(base));
    length.saturating_add(rng.up_to(ns(config.max_ejection_time_jitter)))
}

/// Lets an ejected endpoint back in, its counts in a row at zero. False: it was not out.
///
/// Called by the sweep, and where an active health check passes
/// (`successful_active_health_check_uneject_host`).
pub fn uneject(cluster: &ClusterLive, live: &EndpointLive, now_ns: u64) -> bool {
    if live.unhealthy.fetch_and(!EndpointLive::FAILED_OUTLIER, AcqRel) & EndpointLive::FAILED_OUTLIER == 0 {
        return false;
    }
    live.consecutive_5xx.store(0, Relaxed);
    live.consecutive_gateway.store(0, Relaxed);
    live.consecutive_local.store(0, Relaxed);
    live.ejected_until_ns.store(0, Relaxed);
    live.usable_since_ns.store(now_ns.max(1), Relaxed);
    // the sweep may have corrected the count to below ours
    let _ = cluster.ejected.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    cluster.health_epoch.fetch_add(1, Release);
    true
}
