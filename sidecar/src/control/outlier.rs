//! The part of outlier detection that runs once an interval: endpoints whose time is over come back, success rates are
//! compared. What fails in a row is ejected at once, on the cores.

use super::process::Process;
use corelane_proxy::count_ejection;
use corelane_runtime::Nanos;
use corelane_snapshot::Cluster;
use corelane_traffic::{
    Rng,
    outlier::{Cause, Outcome, SweepReport, sweep},
};
use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep_until};

/// A shorter interval is stretched to this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Until clusters with outlier detection come, if they come.
const LOOK_FOR_CLUSTERS: Duration = Duration::from_secs(10);

/// Sweeps each cluster at its interval, for ever; clusters with the same interval together.
pub async fn sweep_clusters(process: Rc<Process>) {
    let mut rng =
        Rng::new(SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64));
    let mut due: BTreeMap<Duration, Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let snapshot = process.configuration.current();
        let intervals: Vec<Duration> = snapshot.clusters.iter().flatten().filter_map(interval).collect();
        due.retain(|interval, _| intervals.contains(interval));
        for interval in intervals {
            due.entry(interval).or_insert(now + interval);
        }
        for (interval, due) in due.iter_mut().filter(|(_, due)| **due <= now) {
            *due = now + *interval;
            let group = snapshot
                .clusters
                .iter()
                .flatten()
                .filter(|cluster| self::interval(cluster) == Some(*interval));
            for cluster in group {
                let report = sweep(cluster, Nanos::read().as_u64(), &mut rng);
                account(&process, cluster, &report);
            }
        }
        // not over the wait: a snapshot held here could not be freed
        drop(snapshot);
        sleep_until(due.values().min().copied().unwrap_or(now + LOOK_FOR_CLUSTERS)).await;
    }
}

fn interval(cluster: &Cluster) -> Option<Duration> {
    cluster.config.outlier.as_ref().map(|outlier| outlier.interval.max(INTERVAL_MIN))
}

fn account(process: &Process, cluster: &Cluster, report: &SweepReport) {
    let name = cluster.config.name.as_str();
    let address = |index: usize| cluster.endpoints.endpoints.get(index).map(|endpoint| endpoint.address);
    for address in report.unejected.iter().filter_map(|index| address(*index)) {
        tracing::info!(cluster = name, "{address}: takes traffic again; its ejection is over");
    }
    for (index, ejection) in &report.ejections {
        process.stats.with(|registry| count_ejection(registry.control(), cluster, *ejection));
        if let (Some(address), Outcome::Ejected { times, .. }) = (address(*index), ejection.outcome) {
            tracing::warn!(
                cluster = name,
                times = u64::from(times),
                "{address}: ejected: {}",
                why(ejection.cause)
            );
        }
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Consecutive5xx => "too many 5xx in a row",
        Cause::ConsecutiveGateway => "too many gateway failures in a row",
        Cause::ConsecutiveLocalOrigin => "too many failed connections in a row",
        Cause::SuccessRate => "its success rate is far below that of its peers",
        Cause::LocalOriginSuccessRate => "its connections succeed far less often than those of its peers",
        Cause::FailurePercentage => "too large a share of failures",
        Cause::LocalOriginFailurePercentage => "too large a share of failed connections",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;
    use corelane_snapshot::live::EndpointLive;
    use corelane_telemetry::{Block, ClusterOutlierStat as Stat};
    use corelane_traffic::outlier::Ejection;
    use std::sync::atomic::Ordering::Relaxed;
    use tokio::task::LocalSet;

    const CONFIG: &str = "\
static_resources:
  clusters:
  - name: payments
    outlier_detection: {interval: 0.1s}
    load_assignment:
      cluster_name: payments
      endpoints:
      - lb_endpoints:
        - {endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 80}}}}
        - {endpoint: {address: {socket_address: {address: 192.0.2.2, port_value: 80}}}}
";

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_whose_time_is_over_comes_back_at_the_next_sweep() {
        let process = testing::process(CONFIG);
        let snapshot = process.configuration.current();
        let cluster = snapshot.cluster_by_name("payments").expect("cluster");
        let live = &cluster.endpoints.endpoints[0].live;
        live.unhealthy.store(EndpointLive::FAILED_OUTLIER, Relaxed);
        live.ejected_until_ns.store(1, Relaxed);
        cluster.live.ejected.store(1, Relaxed);
        let local = LocalSet::new();
        local.spawn_local(sweep_clusters(process.clone()));
        local.run_until(tokio::time::sleep(Duration::from_millis(50))).await;
        assert_eq!(live.unhealthy.load(Relaxed), EndpointLive::FAILED_OUTLIER, "not before its interval");
        local.run_until(tokio::time::sleep(Duration::from_millis(100))).await;
        assert_eq!(live.unhealthy.load(Relaxed), 0);
        assert_eq!(cluster.live.ejected.load(Relaxed), 0);
    }

    /// Envoy, "Outlier detection statistics", and what its detector does with the two deprecated totals.
    #[test]
    fn what_is_found_is_counted_and_what_is_enforced_beside_it() {
        use Cause::{Consecutive5xx, FailurePercentage, LocalOriginSuccessRate, SuccessRate};
        let enforced = Outcome::Ejected { times: 1, until_ns: 1 };
        for (cause, outcome, deprecated, total, over) in [
            (Consecutive5xx, enforced, [1, 0], 1, 0),
            (Consecutive5xx, Outcome::NotEnforced, [1, 0], 1, 0),
            (Consecutive5xx, Outcome::OverLimit, [1, 0], 0, 1),
            (SuccessRate, Outcome::NotEnforced, [0, 1], 1, 0),
            (LocalOriginSuccessRate, enforced, [0, 1], 0, 0),
            (FailurePercentage, enforced, [0, 0], 0, 0),
        ] {
            let process = testing::process(CONFIG);
            let snapshot = process.configuration.current();
            let cluster = snapshot.cluster_by_name("payments").expect("cluster");
            let ejections = vec![(0, Ejection { cause, outcome })];
            account(&process, cluster, &SweepReport { ejections, ..SweepReport::default() });
            let of = |stat| process.stats.value(Block::from_raw(cluster.config.stats.outlier.0), stat);
            let case = format!("{cause:?} {outcome:?}");
            assert_eq!(
                [of(Stat::EjectionsConsecutive5xx), of(Stat::EjectionsSuccessRate)],
                deprecated,
                "{case}"
            );
            assert_eq!((of(Stat::EjectionsTotal), of(Stat::EjectionsOverflow)), (total, over), "{case}");
            assert_eq!(of(Stat::EjectionsEnforcedTotal), u64::from(outcome == enforced), "{case}");
        }
    }
}
