//! Active health checks, without the I/O: when an endpoint is checked next, and what a result means for its health.
//! One [`Checker`] per endpoint and configured check, wherever checks run; the verdict is in the endpoint's shared
//! bits. Reference: envoy.config.core.v3.HealthCheck.

use crate::{Rng, outlier};
use corelane_snapshot::{
    HealthCheck, HealthCheckKind, StatusRange,
    live::{ClusterLive, EndpointLive},
};
use std::{
    sync::atomic::Ordering::{AcqRel, Relaxed, Release},
    time::Duration,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    Pass,
    /// No connection, or a status in `retriable_statuses`: counts towards the threshold.
    Fail,
    /// No answer in time: counts towards the threshold.
    TimedOut,
    /// A status that is neither expected nor retriable: "this threshold is ignored and the host is considered
    /// immediately unhealthy".
    FailAtOnce,
}

/// What a result changed; drives counters, logs and `close_connections_on_host_health_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    None,
    BecameHealthy,
    BecameUnhealthy,
}

/// What one result needs to know besides the check.
#[derive(Clone, Copy, Debug)]
pub struct CheckFacts<'a> {
    pub cluster: &'a ClusterLive,
    pub endpoint: &'a EndpointLive,
    pub now_ns: u64,
    /// The cluster has had traffic; until then `no_traffic_interval` holds.
    pub has_traffic: bool,
    /// outlier_detection.successful_active_health_check_uneject_host.
    pub uneject: bool,
}

/// One endpoint under one check.
#[derive(Clone, Debug)]
pub struct Checker {
    next_at_ns: u64,
    checked: bool,
    passed_in_a_row: u32,
    failed_in_a_row: u32,
}

impl Checker {
    /// An endpoint that was never checked is not used before it passes its first check; one that was (its live state
    /// survived a change of configuration) keeps its health.
    pub fn new(check: &HealthCheck, facts: &CheckFacts<'_>, is_new: bool, rng: &mut Rng) -> Checker {
        if is_new {
            facts.endpoint.unhealthy.fetch_or(EndpointLive::PENDING_ACTIVE_HC, AcqRel);
            facts.cluster.health_epoch.fetch_add(1, Release);
        }
        let jitter = rng.up_to(ns(check.initial_jitter));
        Checker {
            next_at_ns: facts.now_ns.saturating_add(jitter),
            checked: !is_new,
            passed_in_a_row: 0,
            failed_in_a_row: 0,
        }
    }

    /// When the next check starts, in ticks. A check under way does not start another.
    pub fn next_at_ns(&self) -> u64 {
        self.next_at_ns
    }

    pub fn on_result(
        &mut self,
        check: &HealthCheck,
        facts: &CheckFacts<'_>,
        result: CheckResult,
        rng: &mut Rng,
    ) -> Transition {
        let transition = match result {
            CheckResult::Pass => self.pass(check, facts),
            CheckResult::Fail | CheckResult::TimedOut => self.fail(check, facts, false),
            CheckResult::FailAtOnce => self.fail(check, facts, true),
        };
        if result != CheckResult::Pass {
            show_timeout(facts.endpoint, result == CheckResult::TimedOut);
        }
        self.checked = true;
        self.next_at_ns = facts.now_ns.saturating_add(pause_ns(check, facts, rng));
        transition
    }

    fn pass(&mut self, check: &HealthCheck, facts: &CheckFacts<'_>) -> Transition {
        self.failed_in_a_row = 0;
        self.passed_in_a_row = self.passed_in_a_row.saturating_add(1);
        let out = is_out(facts.endpoint);
        // "during startup, only a single successful health check is required to mark a host healthy"
        if out && self.checked && self.passed_in_a_row < check.healthy_threshold {
            return Transition::None;
        }
        let transition = if out { set_in(facts) } else { Transition::None };
        if facts.uneject {
            outlier::uneject(facts.cluster, facts.endpoint, facts.now_ns);
        }
        transition
    }

    fn fail(&mut self, check: &HealthCheck, facts: &CheckFacts<'_>, at_once: bool) -> Transition {
        self.passed_in_a_row = 0;
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        if at_once || !self.checked || self.failed_in_a_row >= check.unhealthy_threshold {
            return fail_endpoint(facts.cluster, facts.endpoint);
        }
        Transition::None
    }
}

/// Takes an endpoint out until its next passed check: a failed check, or a response that carries
/// `x-envoy-immediate-health-check-fail`.
pub fn fail_endpoint(cluster: &ClusterLive, endpoint: &EndpointLive) -> Transition {
    let before = endpoint.unhealthy.fetch_or(EndpointLive::FAILED_ACTIVE_HC, AcqRel);
    endpoint.unhealthy.fetch_and(!EndpointLive::PENDING_ACTIVE_HC, AcqRel);
    if before & EndpointLive::FAILED_ACTIVE_HC != 0 {
        return Transition::None;
    }
    cluster.health_epoch.fetch_add(1, Release);
    Transition::BecameUnhealthy
}

/// Envoy's flag `active_hc_timeout`: only of an endpoint that is out, and as its last check ended.
fn show_timeout(endpoint: &EndpointLive, timed_out: bool) {
    if timed_out && endpoint.unhealthy.load(Relaxed) & EndpointLive::FAILED_ACTIVE_HC != 0 {
        endpoint.unhealthy.fetch_or(EndpointLive::ACTIVE_HC_TIMEOUT, AcqRel);
    } else {
        endpoint.unhealthy.fetch_and(!EndpointLive::ACTIVE_HC_TIMEOUT, AcqRel);
    }
}

fn is_out(endpoint: &EndpointLive) -> bool {
    let bits = EndpointLive::FAILED_ACTIVE_HC | EndpointLive::PENDING_ACTIVE_HC;
    endpoint.unhealthy.load(Relaxed) & bits != 0
}

fn set_in(facts: &CheckFacts<'_>) -> Transition {
    facts.endpoint.unhealthy.fetch_and(!EndpointLive::ACTIVE_HC, AcqRel);
    // slow start begins when an endpoint passes its check
    facts.endpoint.usable_since_ns.store(facts.now_ns.max(1), Relaxed);
    facts.cluster.health_epoch.fetch_add(1, Release);
    Transition::BecameHealthy
}

fn pause_ns(check: &HealthCheck, facts: &CheckFacts<'_>, rng: &mut Rng) -> u64 {
    let base = match (is_out(facts.endpoint), facts.has_traffic) {
        (_, false) => ns(check.no_traffic_interval),
        (true, true) => ns(check.unhealthy_interval),
        (false, true) => ns(check.interval),
    };
    let by_percent = base / 100 * u64::from(check.interval_jitter_percent);
    base.saturating_add(rng.up_to(by_percent)).saturating_add(rng.up_to(ns(check.interval_jitter)))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the status of a check's response means.
pub fn judge_status(check: &HealthCheck, status: u16) -> CheckResult {
    let HealthCheckKind::Http { expected_statuses, retriable_statuses, .. } = &check.kind else {
        return CheckResult::Fail;
    };
    let within =
        |ranges: &[StatusRange]| ranges.iter().any(|r| (r.start..r.end).contains(&i64::from(status)));
    if within(expected_statuses) {
        CheckResult::Pass
    } else if within(retriable_statuses) {
        CheckResult::Fail
    } else {
        CheckResult::FailAtOnce
    }
}

/// Whether what a TCP check received so far holds every block, in order, anything between.
pub fn received_all(blocks: &[Box<[u8]>], received: &[u8]) -> bool {
    let mut rest = received;
    blocks.iter().all(|block| {
        let at = memchr::memmem::find(rest, block);
        rest = at.map_or(&[][..], |at| &rest[at + block.len()..]);
        at.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SECOND, health_check};
    use corelane_snapshot::RangeI64;

    struct Host {
        cluster: ClusterLive,
        endpoint: EndpointLive,
        check: HealthCheck,
        checker: Option<Checker>,
        now_ns: u64,
        rng: Rng,
    }

    impl Host {
        fn new(check: HealthCheck) -> Host {
            let (cluster, endpoint) = (ClusterLive::default(), EndpointLive::default());
            let mut host = Host { cluster, endpoint, check, checker: None, now_ns: 0, rng: Rng::new(1) };
            let facts = host.facts();
            let checker = Checker::new(&host.check, &facts, true, &mut Rng::new(1));
            host.checker = Some(checker);
            host
        }

        fn facts(&self) -> CheckFacts<'_> {
            CheckFacts {
                cluster: &self.cluster,
                endpoint: &self.endpoint,
                now_ns: self.now_ns,
                has_traffic: true,
                uneject: true,
            }
        }

        fn result(&mut self, result: CheckResult) -> Transition {
            let mut checker = self.checker.take().unwrap();
            self.now_ns = checker.next_at_ns();
            let mut rng = self.rng.clone();
            let transition = checker.on_result(&self.check, &self.facts(), result, &mut rng);
            self.checker = Some(checker);
            transition
        }

        fn pause_s(&self) -> u64 {
            (self.checker.as_ref().unwrap().next_at_ns() - self.now_ns) / SECOND
        }

        fn bits(&self) -> u32 {
            self.endpoint.unhealthy.load(Relaxed)
        }
    }

    #[test]
    fn a_new_host_waits_for_one_passed_check() {
        let mut host = Host::new(health_check());
        assert_eq!(host.bits(), EndpointLive::PENDING_ACTIVE_HC);
        assert_eq!(host.result(CheckResult::Pass), Transition::BecameHealthy);
        assert_eq!(host.bits(), 0);
        assert_eq!(host.result(CheckResult::Pass), Transition::None);
    }

    #[test]
    fn a_new_host_that_fails_is_out() {
        let mut host = Host::new(health_check());
        assert_eq!(host.result(CheckResult::Fail), Transition::BecameUnhealthy);
        assert_eq!(host.bits(), EndpointLive::FAILED_ACTIVE_HC);
        assert_eq!(host.result(CheckResult::Pass), Transition::None);
        assert_eq!(host.result(CheckResult::Pass), Transition::BecameHealthy, "healthy_threshold is 2");
    }

    #[test]
    fn thresholds_count_in_a_row() {
        let mut host = Host::new(health_check());
        host.result(CheckResult::Pass);
        let epoch = host.cluster.health_epoch.load(Relaxed);
        assert_eq!(host.result(CheckResult::Fail), Transition::None);
        assert_eq!(host.result(CheckResult::Fail), Transition::None);
        assert_eq!(host.result(CheckResult::Pass), Transition::None);
        assert_eq!(host.result(CheckResult::Fail), Transition::None);
        assert_eq!(host.result(CheckResult::Fail), Transition::None);
        assert_eq!(host.cluster.health_epoch.load(Relaxed), epoch);
        assert_eq!(host.result(CheckResult::Fail), Transition::BecameUnhealthy, "unhealthy_threshold is 3");
        assert_eq!(host.cluster.health_epoch.load(Relaxed), epoch + 1);
        assert_eq!(host.result(CheckResult::Pass), Transition::None);
        assert_eq!(host.result(CheckResult::Fail), Transition::None);
        assert_eq!(host.result(CheckResult::Pass), Transition::None);
        assert_eq!(host.result(CheckResult::Pass), Transition::BecameHealthy);
    }

    /// As Envoy shows them on /clusters, one check after the other.
    #[test]
    fn an_endpoint_that_is_out_shows_whether_its_last_check_had_no_answer() {
        let mut host = Host::new(health_check());
        host.result(CheckResult::Pass);
        let timed_out = EndpointLive::FAILED_ACTIVE_HC | EndpointLive::ACTIVE_HC_TIMEOUT;
        for (result, bits) in [
            (CheckResult::TimedOut, 0),
            (CheckResult::TimedOut, 0),
            (CheckResult::TimedOut, timed_out),
            (CheckResult::Fail, EndpointLive::FAILED_ACTIVE_HC),
            (CheckResult::TimedOut, timed_out),
            (CheckResult::Pass, timed_out),
            (CheckResult::Pass, 0),
        ] {
            host.result(result);
            assert_eq!(host.bits(), bits, "{result:?}");
        }
    }

    #[test]
    fn a_wrong_status_is_final_at_once() {
        let mut host = Host::new(health_check());
        host.result(CheckResult::Pass);
        assert_eq!(host.result(CheckResult::FailAtOnce), Transition::BecameUnhealthy);
    }

    #[test]
    fn intervals_follow_health() {
        let mut host = Host::new(health_check());
        host.result(CheckResult::Pass);
        assert_eq!(host.pause_s(), 5);
        host.result(CheckResult::FailAtOnce);
        assert_eq!(host.pause_s(), 7);
        let quiet = CheckFacts { has_traffic: false, ..host.facts() };
        assert_eq!(pause_ns(&host.check, &quiet, &mut Rng::new(1)), 60 * SECOND);
        let jittered = HealthCheck {
            interval_jitter_percent: 50,
            interval_jitter: Duration::from_secs(1),
            ..health_check()
        };
        let mut rng = Rng::new(1);
        let pauses: Vec<u64> = (0..500).map(|_| pause_ns(&jittered, &host.facts(), &mut rng)).collect();
        assert!(pauses.iter().all(|p| (7 * SECOND..=7 * SECOND + 7 * SECOND / 2 + SECOND).contains(p)));
    }

    #[test]
    fn a_passed_check_lets_an_ejected_host_back_in() {
        let mut host = Host::new(health_check());
        host.result(CheckResult::Pass);
        host.endpoint.unhealthy.fetch_or(EndpointLive::FAILED_OUTLIER, Relaxed);
        host.cluster.ejected.store(1, Relaxed);
        host.result(CheckResult::Pass);
        assert_eq!((host.bits(), host.cluster.ejected.load(Relaxed)), (0, 0));
    }

    #[test]
    fn statuses_and_payloads() {
        let mut check = health_check();
        let HealthCheckKind::Http { expected_statuses, retriable_statuses, .. } = &mut check.kind else {
            panic!()
        };
        *expected_statuses = vec![RangeI64 { start: 200, end: 201 }];
        *retriable_statuses = vec![RangeI64 { start: 500, end: 600 }];
        assert_eq!(
            [200, 201, 503, 404].map(|status| judge_status(&check, status)),
            [CheckResult::Pass, CheckResult::FailAtOnce, CheckResult::Fail, CheckResult::FailAtOnce]
        );
        let blocks: Vec<Box<[u8]>> = vec![(*b"+PO").into(), (*b"NG").into()];
        assert!(received_all(&blocks, b"..+PO..NG"));
        assert!(!received_all(&blocks, b"NG+PO"));
        assert!(received_all(&[], b""));
    }
}
