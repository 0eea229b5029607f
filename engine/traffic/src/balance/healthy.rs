//! Which endpoints of a cluster may be used, and how load spreads over priorities. Computed when the endpoints or
//! their health change, not when one is picked. Reference: Envoy, "Priority levels", "Panic threshold",
//! "Degraded endpoints", "Overprovisioning factor".

use corelane_snapshot::{ClusterConfig, Endpoint, HealthStatus, live::EndpointLive};
use std::sync::atomic::Ordering::Acquire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usability {
    Healthy,
    Degraded,
    Unhealthy,
    /// Not yet checked and not to be counted before (ignore_new_hosts_until_first_hc).
    Excluded,
}

pub(super) fn usability(config: &ClusterConfig, endpoint: &Endpoint) -> Usability {
    let bits = endpoint.live.unhealthy.load(Acquire);
    if bits & (EndpointLive::FAILED_ACTIVE_HC | EndpointLive::FAILED_OUTLIER) != 0 {
        return Usability::Unhealthy;
    }
    if bits & EndpointLive::PENDING_ACTIVE_HC != 0 {
        let excluded = config.common_lb.ignore_new_hosts_until_first_hc;
        return if excluded { Usability::Excluded } else { Usability::Unhealthy };
    }
    match endpoint.health {
        HealthStatus::Healthy => Usability::Healthy,
        HealthStatus::Degraded => Usability::Degraded,
        HealthStatus::Unhealthy | HealthStatus::Draining => Usability::Unhealthy,
    }
}

/// Which endpoints of a priority a request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Healthy,
    Degraded,
    /// Panic: all, since so few are healthy that they would be overrun.
    All,
}

impl Source {
    pub fn admits(self, usability: Usability) -> bool {
        match self {
            Source::Healthy => usability == Usability::Healthy,
            Source::Degraded => usability == Usability::Degraded,
            Source::All => usability != Usability::Excluded,
        }
    }
}

/// Endpoints of one priority, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub healthy: u32,
    pub degraded: u32,
    /// Without the excluded ones.
    pub total: u32,
}

/// A share of the load: draws below `below` (of 100) and not below the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub below: u32,
    pub priority: usize,
    /// None: fail_traffic_on_panic, nobody is picked.
    pub source: Option<Source>,
}

/// How load spreads; empty: there is nobody.
pub(super) fn loads(config: &ClusterConfig, overprovisioning: u32, counts: &[Counts]) -> Vec<Load> {
    let share = |part: u32, total: u32| {
        let percent = u64::from(overprovisioning) * u64::from(part) / u64::from(total.max(1));
        percent.min(100) as u32
    };
    let healthy: Vec<u32> = counts.iter().map(|c| share(c.healthy, c.total)).collect();
    let degraded: Vec<u32> = counts.iter().map(|c| share(c.degraded, c.total)).collect();
    let available = (healthy.iter().sum::<u32>() + degraded.iter().sum::<u32>()).min(100);
    let threshold = config.common_lb.healthy_panic_threshold.min(100.0);
    let panics: Vec<bool> = counts.iter().map(|c| available < 100 && is_panic(c, threshold)).collect();
    let in_panic = if config.common_lb.fail_traffic_on_panic { None } else { Some(Source::All) };
    let hosts: u32 = counts.iter().map(|c| c.total).sum();
    if hosts == 0 {
        return Vec::new();
    }
    let mut shares: Vec<(usize, u32, Option<Source>)> = Vec::new();
    if panics.iter().all(|&panic| panic) {
        // Envoy: in total panic load follows the number of hosts
        let by_hosts = |(p, c): (usize, &Counts)| (p, c.total * 100 / hosts, in_panic);
        shares.extend(counts.iter().enumerate().map(by_hosts));
    } else {
        let mut left = 100;
        for (source, parts) in [(Source::Healthy, &healthy), (Source::Degraded, &degraded)] {
            for (priority, &part) in parts.iter().enumerate() {
                let load = (part * 100).checked_div(available).unwrap_or(0).min(left);
                left -= load;
                let source = if panics[priority] { in_panic } else { Some(source) };
                shares.push((priority, load, source));
            }
        }
    }
    shares.retain(|&(_, load, _)| load > 0);
    cumulative(shares)
}

fn is_panic(counts: &Counts, threshold: f64) -> bool {
    let usable = f64::from(counts.healthy + counts.degraded);
    let percent = if counts.total == 0 { 0.0 } else { usable * 100.0 / f64::from(counts.total) };
    percent < threshold
}

/// What rounding left over goes to the first.
fn cumulative(shares: Vec<(usize, u32, Option<Source>)>) -> Vec<Load> {
    let left = 100 - shares.iter().map(|share| share.1).sum::<u32>();
    let mut below = left;
    let add = |(priority, load, source)| {
        below += load;
        Load { below, priority, source }
    };
    shares.into_iter().map(add).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// (priority, percent, source), in order of draws.
    fn spread(panic: f64, counts: &[(u32, u32, u32)]) -> Vec<(usize, u32, Option<Source>)> {
        let mut config = testing::cluster_config();
        config.common_lb.healthy_panic_threshold = panic;
        let counts: Vec<Counts> =
            counts.iter().map(|&(healthy, degraded, total)| Counts { healthy, degraded, total }).collect();
        let mut from = 0;
        let loads = loads(&config, 140, &counts);
        loads
            .iter()
            .map(|l| (l.priority, l.below - std::mem::replace(&mut from, l.below), l.source))
            .collect()
    }

    #[test]
    fn one_priority_takes_all() {
        assert_eq!(spread(50.0, &[(4, 0, 4)]), [(0, 100, Some(Source::Healthy))]);
        assert_eq!(spread(50.0, &[(3, 0, 4)]), [(0, 100, Some(Source::Healthy))]);
        assert_eq!(spread(50.0, &[(1, 0, 2)]), [(0, 100, Some(Source::Healthy))], "half is not below 50 %");
        assert_eq!(spread(50.0, &[]), []);
        assert_eq!(spread(50.0, &[(0, 0, 0)]), []);
    }

    /// The table of Envoy's "Priority levels" page: P0 and P1, two levels, factor 1.4.
    #[test]
    fn load_spills_to_the_next_priority() {
        let healthy = |p0: u32, p1: u32| spread(0.0, &[(p0, 0, 100), (p1, 0, 100)]);
        let share = |p0, p1| healthy(p0, p1).iter().map(|&(p, n, _)| (p, n)).collect::<Vec<_>>();
        assert_eq!(share(100, 100), [(0, 100)]);
        assert_eq!(share(72, 72), [(0, 100)]);
        assert_eq!(share(71, 71), [(0, 99), (1, 1)]);
        assert_eq!(share(50, 50), [(0, 70), (1, 30)]);
        assert_eq!(share(25, 100), [(0, 35), (1, 65)]);
        assert_eq!(share(25, 25), [(0, 50), (1, 50)]);
        assert_eq!(share(0, 100), [(1, 100)]);
    }

    #[test]
    fn few_healthy_hosts_are_not_overrun() {
        assert_eq!(spread(50.0, &[(1, 0, 4)]), [(0, 100, Some(Source::All))]);
        assert_eq!(spread(50.0, &[(0, 0, 4)]), [(0, 100, Some(Source::All))]);
        assert_eq!(spread(0.0, &[(1, 0, 4)]), [(0, 100, Some(Source::Healthy))], "0 turns panic off");
        assert_eq!(spread(0.0, &[(0, 0, 4)]), []);
    }

    #[test]
    fn no_panic_while_another_priority_can_take_it() {
        assert_eq!(
            spread(50.0, &[(1, 0, 10), (10, 0, 10)]),
            [(0, 14, Some(Source::Healthy)), (1, 86, Some(Source::Healthy))]
        );
        assert_eq!(
            spread(50.0, &[(0, 0, 30), (0, 0, 10)]),
            [(0, 75, Some(Source::All)), (1, 25, Some(Source::All))]
        );
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_cannot() {
        assert_eq!(
            spread(50.0, &[(2, 2, 4)]),
            [(0, 70, Some(Source::Healthy)), (0, 30, Some(Source::Degraded))]
        );
        assert_eq!(spread(50.0, &[(0, 4, 4)]), [(0, 100, Some(Source::Degraded))]);
    }

    #[test]
    fn panic_can_be_made_to_fail() {
        let mut config = testing::cluster_config();
        config.common_lb.fail_traffic_on_panic = true;
        let loads = loads(&config, 140, &[Counts { healthy: 1, degraded: 0, total: 4 }]);
        assert_eq!(loads, [Load { below: 100, priority: 0, source: None }]);
    }
}
