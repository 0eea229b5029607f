//! Once an interval, in one place: endpoints whose time is over come back, success rates are compared, and one
//! ejection is forgiven each endpoint that behaved. Reference: Envoy, "Outlier detection", "Success rate" and
//! "Failure percentage".

use super::{
    Cause, Ejection,
    eject::{is_ejected, try_eject, uneject},
};
use crate::Rng;
use corelane_snapshot::{
    Cluster, Endpoint, OutlierDetection,
    live::{EndpointLive, Percent},
};
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed},
};

/// What one sweep did, by index into the cluster's endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    pub unejected: Vec<usize>,
    pub ejections: Vec<(usize, Ejection)>,
}

/// Runs every `interval`; not on the request path.
pub fn sweep(cluster: &Cluster, now_ns: u64, rng: &mut Rng) -> SweepReport {
    let mut report = SweepReport::default();
    let Some(config) = &cluster.config.outlier else { return report };
    reconcile(cluster);
    let endpoints = &cluster.endpoints.endpoints;
    for (index, endpoint) in endpoints.iter().enumerate() {
        if is_ejected(&endpoint.live) && now_ns >= endpoint.live.ejected_until_ns.load(Acquire) {
            uneject(&cluster.live, &endpoint.live, now_ns);
            report.unejected.push(index);
        }
    }
    let external = rates(cluster, |live| (&live.interval_success, &live.interval_total));
    let local = rates(cluster, |live| (&live.interval_local_success, &live.interval_local_total));
    show(cluster, config, &external, |live| &live.success_rate);
    show(cluster, config, &local, |live| &live.local_success_rate);
    cluster.live.local_success_rates.set(None);
    compare(cluster, config, &external, Kind::External, now_ns, rng, &mut report);
    if config.split_external_local_origin_errors {
        compare(cluster, config, &local, Kind::Local, now_ns, rng, &mut report);
    }
    for endpoint in endpoints {
        forgive(config, &endpoint.live, now_ns);
    }
    report
}

/// Endpoints that left the set while they were ejected took their place in the count with them.
fn reconcile(cluster: &Cluster) {
    let counted = cluster.live.ejected.load(Acquire);
    let flagged = cluster.endpoints.endpoints.iter().filter(|e| is_ejected(&e.live)).count() as u32;
    if counted != flagged {
        // lost to a core that ejects at this moment: the next sweep sees to it
        let _ = cluster.live.ejected.compare_exchange(counted, flagged, Relaxed, Relaxed);
    }
}

/// One less for each interval since it came back.
fn forgive(config: &OutlierDetection, live: &EndpointLive, now_ns: u64) {
    let interval_ns = config.interval.as_nanos() as u64;
    let since = live.usable_since_ns.load(Relaxed);
    if !is_ejected(live) && now_ns.saturating_sub(since) >= interval_ns {
        let _ = live.ejections.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }
}

#[derive(Clone, Copy)]
enum Kind {
    External,
    Local,
}

/// Successes in percent over the interval that ends now, and how many results that is.
struct Rate {
    index: usize,
    percent: f64,
    volume: u32,
}

fn rates(cluster: &Cluster, counts: impl Fn(&EndpointLive) -> (&AtomicU32, &AtomicU32)) -> Vec<Rate> {
    let rate = |(index, endpoint): (usize, &std::sync::Arc<Endpoint>)| {
        let (success, total) = counts(&endpoint.live);
        let (success, volume) = (success.swap(0, Relaxed), total.swap(0, Relaxed));
        let percent = f64::from(success.min(volume)) * 100.0 / f64::from(volume);
        (volume > 0 && !is_ejected(&endpoint.live)).then_some(Rate { index, percent, volume })
    };
    cluster.endpoints.endpoints.iter().enumerate().filter_map(rate).collect()
}

/// Each endpoint's rate of the interval, where it had enough traffic for one of the rules.
fn show(
    cluster: &Cluster,
    config: &OutlierDetection,
    rates: &[Rate],
    shown: impl Fn(&EndpointLive) -> &Percent,
) {
    let volume_min = config.success_rate_request_volume.min(config.failure_percentage_request_volume);
    cluster.endpoints.endpoints.iter().for_each(|endpoint| shown(&endpoint.live).set(None));
    for rate in rates.iter().filter(|rate| rate.volume >= volume_min) {
        shown(&cluster.endpoints.endpoints[rate.index].live).set(Some(rate.percent));
    }
}

fn compare(
    cluster: &Cluster,
    config: &OutlierDetection,
    rates: &[Rate],
    kind: Kind,
    now_ns: u64,
    rng: &mut Rng,
    report: &mut SweepReport,
) {
    let live = &cluster.live;
    let (by_rate, by_percentage, shown) = match kind {
        Kind::External => (Cause::SuccessRate, Cause::FailurePercentage, &live.success_rates),
        Kind::Local => {
            (Cause::LocalOriginSuccessRate, Cause::LocalOriginFailurePercentage, &live.local_success_rates)
        }
    };
    let mut eject = |index: usize, cause| {
        let endpoint = &cluster.endpoints.endpoints[index];
        report.ejections.extend(try_eject(cluster, config, endpoint, cause, now_ns, rng).map(|e| (index, e)));
    };
    let together = success_rates(config, rates);
    shown.set(together);
    if let Some((_, threshold)) = together {
        let valid = rates.iter().filter(|rate| rate.volume >= config.success_rate_request_volume);
        valid.filter(|rate| rate.percent < threshold).for_each(|rate| eject(rate.index, by_rate));
    }
    let volume_min = config.failure_percentage_request_volume;
    let valid = || rates.iter().filter(move |rate| rate.volume >= volume_min);
    let hosts = valid().count();
    if hosts > 0 && hosts >= config.failure_percentage_minimum_hosts as usize {
        let failing = |rate: &&Rate| 100.0 - rate.percent >= f64::from(config.failure_percentage_threshold);
        valid().filter(failing).for_each(|rate| eject(rate.index, by_percentage));
    }
}

/// The mean, and mean - factor * standard deviation, over the hosts with enough requests; None: too few of them.
fn success_rates(config: &OutlierDetection, rates: &[Rate]) -> Option<(f64, f64)> {
    let valid = || rates.iter().filter(|rate| rate.volume >= config.success_rate_request_volume);
    let hosts = valid().count();
    if hosts == 0 || hosts < config.success_rate_minimum_hosts as usize {
        return None;
    }
    let mean = valid().map(|rate| rate.percent).sum::<f64>() / hosts as f64;
    let variance = valid().map(|rate| (rate.percent - mean).powi(2)).sum::<f64>() / hosts as f64;
    Some((mean, mean - f64::from(config.success_rate_stdev_factor) / 1000.0 * variance.sqrt()))
}
