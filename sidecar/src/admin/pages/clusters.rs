//! /clusters: envoy.admin.v3.Clusters, a few clusters a step.

use super::super::{Query, Reply};
use crate::{control::process::Process, stats::Stats};
use corelane_snapshot::{
    Cluster, Endpoint, EndpointSet, HealthStatus, Locality, Regex, RoutingPriority, Snapshot,
    live::{EndpointLive, Percent},
};
use corelane_telemetry::{Block, EndpointStat, exposition::STEP_BYTES};
use corelane_traffic::{breaker, budget};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

pub fn clusters(process: &Rc<Process>, query: &Query) -> Reply {
    let filter = match super::filter(query.get("filter")) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    let stats = process.stats.clone();
    let mut walk = Walk { snapshot: process.configuration.current(), filter, next: 0 };
    if query.get("format") == Some("json") {
        let mut first = true;
        let step = move |out: &mut Vec<u8>| {
            if first {
                out.extend_from_slice(b"{\"cluster_statuses\":[");
            }
            let more = walk.step(out, |out, cluster| {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                out.extend_from_slice(status(cluster, &stats).to_string().as_bytes());
            });
            // no cluster at all is a step too
            first = false;
            if !more {
                out.extend_from_slice(b"]}\n");
            }
            more
        };
        return Reply::steps("application/json", Box::new(step));
    }
    let step = move |out: &mut Vec<u8>| {
        walk.step(out, |out, cluster| {
            let mut text = String::new();
            lines(&mut text, cluster, &stats);
            out.extend_from_slice(text.as_bytes());
        })
    };
    Reply::steps("text/plain; charset=UTF-8", Box::new(step))
}

struct Walk {
    snapshot: Arc<Snapshot>,
    filter: Option<Regex>,
    next: usize,
}

impl Walk {
    /// Writes clusters until the step is full; false when there are no more.
    fn step(&mut self, out: &mut Vec<u8>, mut write: impl FnMut(&mut Vec<u8>, &Cluster)) -> bool {
        while let Some(slot) = self.snapshot.clusters.get(self.next) {
            self.next += 1;
            let Some(cluster) = slot else { continue };
            let name = cluster.config.name.as_bytes();
            if self.filter.as_ref().is_none_or(|filter| filter.is_match(name)) {
                write(out, cluster);
            }
            if out.len() >= STEP_BYTES {
                return true;
            }
        }
        false
    }
}

/// The counters of an endpoint that both forms show, in Envoy's order.
const COUNTERS: [(&str, EndpointStat); 6] = [
    ("cx_connect_fail", EndpointStat::CxConnectFail),
    ("cx_total", EndpointStat::CxTotal),
    ("rq_error", EndpointStat::RqError),
    ("rq_success", EndpointStat::RqSuccess),
    ("rq_timeout", EndpointStat::RqTimeout),
    ("rq_total", EndpointStat::RqTotal),
];

/// The two gauges that are exact over the cores; waiting requests belong to a cluster here, not to an endpoint.
fn gauges(endpoint: &Endpoint) -> [(&'static str, u64); 3] {
    [
        ("cx_active", endpoint.live.connections_active.load(Relaxed).into()),
        ("rq_active", endpoint.live.requests_active.load(Relaxed).into()),
        ("rq_pending_active", 0),
    ]
}

fn retries_max(cluster: &Cluster, priority: RoutingPriority) -> u32 {
    // with a budget, what it always allows
    let budget = budget::of(&cluster.config, priority);
    breaker::limits(&cluster.config, priority)
        .retries_max
        .unwrap_or(budget.retries_min.max(budget.retries_extra))
}

fn lines(out: &mut String, cluster: &Cluster, stats: &Stats) {
    let name = &cluster.config.name;
    let _ = writeln!(out, "{name}::observability_name::{}", cluster.config.stat_name);
    if cluster.config.outlier.is_some() {
        let live = &cluster.live;
        for (rate, found) in
            [("success_rate", &live.success_rates), ("local_origin_success_rate", &live.local_success_rates)]
        {
            let _ = writeln!(out, "{name}::outlier::{rate}_average::{}", short(&found.average));
            let threshold = short(&found.ejection_threshold);
            let _ = writeln!(out, "{name}::outlier::{rate}_ejection_threshold::{threshold}");
        }
    }
    for (priority, of) in [("default", RoutingPriority::Default), ("high", RoutingPriority::High)] {
        let breakers = breaker::limits(&cluster.config, of);
        let _ = writeln!(out, "{name}::{priority}_priority::max_connections::{}", breakers.connections_max);
        let _ = writeln!(out, "{name}::{priority}_priority::max_pending_requests::{}", breakers.pending_max);
        let _ = writeln!(out, "{name}::{priority}_priority::max_requests::{}", breakers.requests_max);
        let _ = writeln!(out, "{name}::{priority}_priority::max_retries::{}", retries_max(cluster, of));
    }
    let _ = writeln!(out, "{name}::added_via_api::false");
    for endpoint in &cluster.endpoints.endpoints {
        endpoint_lines(out, name, endpoint, &locality(&cluster.endpoints, endpoint), stats);
    }
}

fn endpoint_lines(out: &mut String, cluster: &str, endpoint: &Endpoint, locality: &Locality, stats: &Stats) {
    let address = endpoint.address;
    let mut counts: Vec<(&str, u64)> = gauges(endpoint).into();
    let block = Block::from_raw(endpoint.stats.0);
    counts.extend(COUNTERS.map(|(name, stat)| (name, stats.value(block, stat))));
    counts.sort_unstable_by_key(|(name, _)| *name);
    for (name, value) in counts {
        let _ = writeln!(out, "{cluster}::{address}::{name}::{value}");
    }
    let _ = writeln!(out, "{cluster}::{address}::hostname::{}", endpoint.hostname);
    let _ = writeln!(out, "{cluster}::{address}::health_flags::{}", health_flags(endpoint));
    let _ = writeln!(out, "{cluster}::{address}::weight::{}", endpoint.weight);
    let _ = writeln!(out, "{cluster}::{address}::region::{}", locality.region);
    let _ = writeln!(out, "{cluster}::{address}::zone::{}", locality.zone);
    let _ = writeln!(out, "{cluster}::{address}::sub_zone::{}", locality.sub_zone);
    let _ = writeln!(out, "{cluster}::{address}::canary::{}", endpoint.canary);
    let _ = writeln!(out, "{cluster}::{address}::priority::{}", endpoint.priority);
    for (name, rate) in success_rates(endpoint) {
        let _ = writeln!(out, "{cluster}::{address}::{name}::{}", rate.get().unwrap_or(NONE));
    }
}

/// A rate that the last sweep of outlier detection did not find.
const NONE: f64 = -1.0;

fn success_rates(endpoint: &Endpoint) -> [(&'static str, &Percent); 2] {
    let live = &endpoint.live;
    [("success_rate", &live.success_rate), ("local_origin_success_rate", &live.local_success_rate)]
}

/// Six digits at most, as C's `%g` has them.
fn short(percent: &Percent) -> String {
    let percent = percent.get().unwrap_or(NONE);
    let whole = if percent.abs() < 10.0 {
        1
    } else if percent.abs() < 100.0 {
        2
    } else {
        3
    };
    let digits = format!("{percent:.*}", 6 - whole);
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn locality(set: &EndpointSet, endpoint: &Endpoint) -> Locality {
    set.localities.get(endpoint.locality as usize).cloned().unwrap_or_default()
}

/// Envoy's names, each with its slash; `healthy` where there is none.
fn health_flags(endpoint: &Endpoint) -> String {
    let live = endpoint.live.unhealthy.load(Relaxed);
    let mut flags = String::new();
    for (is_set, flag) in [
        (live & EndpointLive::FAILED_ACTIVE_HC != 0, "/failed_active_hc"),
        (live & EndpointLive::FAILED_OUTLIER != 0, "/failed_outlier_check"),
        (endpoint.health == HealthStatus::Unhealthy, "/failed_eds_health"),
        (endpoint.health == HealthStatus::Degraded, "/degraded_eds_health"),
        (endpoint.health == HealthStatus::Draining, "/eds_status_draining"),
        (live & EndpointLive::PENDING_ACTIVE_HC != 0, "/pending_active_hc"),
        (live & EndpointLive::ACTIVE_HC_TIMEOUT != 0, "/active_hc_timeout"),
    ] {
        if is_set {
            flags.push_str(flag);
        }
    }
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

fn status(cluster: &Cluster, stats: &Stats) -> Value {
    let threshold = |priority: &str, of: RoutingPriority| {
        let breakers = breaker::limits(&cluster.config, of);
        let mut threshold = json!({
            "max_connections": breakers.connections_max,
            "max_pending_requests": breakers.pending_max,
            "max_requests": breakers.requests_max,
            "max_retries": retries_max(cluster, of),
        });
        if priority != "DEFAULT" {
            threshold["priority"] = json!(priority);
        }
        threshold
    };
    let thresholds =
        [threshold("DEFAULT", RoutingPriority::Default), threshold("HIGH", RoutingPriority::High)];
    let hosts: Vec<Value> =
        cluster.endpoints.endpoints.iter().map(|e| host(&cluster.endpoints, e, stats)).collect();
    let mut status = json!({
        "name": cluster.config.name,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": thresholds },
        "observability_name": cluster.config.stat_name,
    });
    for (name, found) in [
        ("success_rate_ejection_threshold", &cluster.live.success_rates),
        ("local_origin_success_rate_ejection_threshold", &cluster.live.local_success_rates),
    ] {
        if let Some(threshold) = found.ejection_threshold.get().filter(|threshold| *threshold > 0.0) {
            status[name] = json!({ "value": threshold });
        }
    }
    status
}

/// proto3 JSON: a value of zero and an empty text are left out, a 64 bit number is text.
fn host(set: &EndpointSet, endpoint: &Endpoint, stats: &Stats) -> Value {
    let number = |name: &str, value: u64, gauge: bool| {
        let mut stat = json!({ "name": name });
        if value > 0 {
            stat["value"] = json!(value.to_string());
        }
        if gauge {
            stat["type"] = json!("GAUGE");
        }
        stat
    };
    let mut numbers: Vec<Value> = {
        let block = Block::from_raw(endpoint.stats.0);
        COUNTERS.iter().map(|(name, stat)| number(name, stats.value(block, *stat), false)).collect()
    };
    numbers.extend(gauges(endpoint).map(|(name, value)| number(name, value, true)));
    let live = endpoint.live.unhealthy.load(Relaxed);
    let mut health = json!({ "eds_health_status": match endpoint.health {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Degraded => "DEGRADED",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
    } });
    for (flag, name) in [
        (EndpointLive::FAILED_ACTIVE_HC, "failed_active_health_check"),
        (EndpointLive::FAILED_OUTLIER, "failed_outlier_check"),
        (EndpointLive::PENDING_ACTIVE_HC, "pending_active_hc"),
        (EndpointLive::ACTIVE_HC_TIMEOUT, "active_hc_timeout"),
    ] {
        if live & flag != 0 {
            health[name] = json!(true);
        }
    }
    let place = locality(set, endpoint);
    let parts = [("region", &place.region), ("zone", &place.zone), ("sub_zone", &place.sub_zone)];
    let locality: serde_json::Map<String, Value> = parts
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| ((*name).to_owned(), json!(text)))
        .collect();
    let mut host = json!({
        "address": super::address(endpoint.address),
        "stats": numbers,
        "health_status": health,
        "weight": endpoint.weight,
        "locality": locality,
    });
    for (name, rate) in success_rates(endpoint) {
        if let Some(rate) = rate.get() {
            host[name] = json!({ "value": rate });
        }
    }
    if !endpoint.hostname.is_empty() {
        host["hostname"] = json!(endpoint.hostname);
    }
    if endpoint.priority > 0 {
        host["priority"] = json!(endpoint.priority);
    }
    host
}
