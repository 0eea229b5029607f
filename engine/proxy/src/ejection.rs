//! What is counted when outlier detection finds an endpoint: by the cores for failures in a row, by the control thread
//! for what it finds at each interval.

use corelane_snapshot::Cluster;
use corelane_telemetry::{Block, ClusterOutlierStat as Stat, Shard};
use corelane_traffic::outlier::{Cause, Ejection, Outcome};

/// Counts an ejection, enforced or not, with whoever found it.
pub fn count_ejection(shard: &Shard, cluster: &Cluster, ejection: Ejection) {
    let block = Block::from_raw(cluster.config.stats.outlier.0);
    let (detected, enforced) = stats_of(ejection.cause);
    shard.inc(block, detected);
    // Envoy's deprecated names count what is found, enforced or not; ejections_success_rate of either origin
    match ejection.cause {
        Cause::Consecutive5xx => shard.inc(block, Stat::EjectionsConsecutive5xx),
        Cause::SuccessRate | Cause::LocalOriginSuccessRate => shard.inc(block, Stat::EjectionsSuccessRate),
        _ => {}
    }
    // and ejections_total, of two causes alone, what max_ejection_percent has room for
    let in_total = matches!(ejection.cause, Cause::Consecutive5xx | Cause::SuccessRate);
    if in_total && ejection.outcome != Outcome::OverLimit {
        shard.inc(block, Stat::EjectionsTotal);
    }
    match ejection.outcome {
        Outcome::Ejected { .. } => {
            shard.inc(block, enforced);
            shard.inc(block, Stat::EjectionsEnforcedTotal);
        }
        Outcome::OverLimit => shard.inc(block, Stat::EjectionsOverflow),
        Outcome::NotEnforced => {}
    }
}

/// Found, and put into effect.
fn stats_of(cause: Cause) -> (Stat, Stat) {
    match cause {
        Cause::Consecutive5xx => {
            (Stat::EjectionsDetectedConsecutive5xx, Stat::EjectionsEnforcedConsecutive5xx)
        }
        Cause::ConsecutiveGateway => (
            Stat::EjectionsDetectedConsecutiveGatewayFailure,
            Stat::EjectionsEnforcedConsecutiveGatewayFailure,
        ),
        Cause::ConsecutiveLocalOrigin => (
            Stat::EjectionsDetectedConsecutiveLocalOriginFailure,
            Stat::EjectionsEnforcedConsecutiveLocalOriginFailure,
        ),
        Cause::SuccessRate => (Stat::EjectionsDetectedSuccessRate, Stat::EjectionsEnforcedSuccessRate),
        Cause::LocalOriginSuccessRate => {
            (Stat::EjectionsDetectedLocalOriginSuccessRate, Stat::EjectionsEnforcedLocalOriginSuccessRate)
        }
        Cause::FailurePercentage => {
            (Stat::EjectionsDetectedFailurePercentage, Stat::EjectionsEnforcedFailurePercentage)
        }
        Cause::LocalOriginFailurePercentage => (
            Stat::EjectionsDetectedLocalOriginFailurePercentage,
            Stat::EjectionsEnforcedLocalOriginFailurePercentage,
        ),
    }
}
