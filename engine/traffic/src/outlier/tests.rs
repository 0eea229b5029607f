//! The rules one by one, and the story of two replicas of which one fails.

use super::*;
use crate::{
    Rng,
    balance::{ClusterView, PickContext, pick},
    testing::{SECOND, cluster, cluster_config, hosts, outlier},
};
use corelane_snapshot::{Cluster, OutlierDetection, live::EndpointLive};
use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

fn with(outlier: OutlierDetection, count: u32) -> Cluster {
    let mut config = cluster_config();
    config.outlier = Some(outlier);
    cluster(config, &hosts(count))
}

fn see(cluster: &Cluster, host: usize, observation: Observation, now_ns: u64) -> Option<Ejection> {
    found(cluster, host, observation, now_ns).into_iter().next_back()
}

fn found(cluster: &Cluster, host: usize, observation: Observation, now_ns: u64) -> Vec<Ejection> {
    let endpoint = &cluster.endpoints.endpoints[host];
    observe(cluster, endpoint, observation, now_ns, &mut Rng::new(1)).into_iter().flatten().collect()
}

fn times(cluster: &Cluster, host: usize, observation: Observation, times: u32) -> Option<Ejection> {
    (0..times).fold(None, |_, _| see(cluster, host, observation, SECOND))
}

fn ejected(cluster: &Cluster) -> Vec<usize> {
    let out = |live: &EndpointLive| live.unhealthy.load(Relaxed) & EndpointLive::FAILED_OUTLIER != 0;
    let endpoints = cluster.endpoints.endpoints.iter().enumerate();
    endpoints.filter(|(_, endpoint)| out(&endpoint.live)).map(|(index, _)| index).collect()
}

const RESET: Observation = Observation::Local(LocalFailure::Reset);

#[test]
fn five_in_a_row_and_not_four() {
    for observation in
        [Observation::Status(500), Observation::Status(503), RESET, Observation::Local(LocalFailure::Connect)]
    {
        let cluster = with(outlier(), 2);
        assert_eq!(times(&cluster, 0, observation, 4), None);
        assert_eq!(see(&cluster, 0, Observation::Status(404), 0), None, "a client's error is a success");
        assert_eq!(times(&cluster, 0, observation, 4), None, "the row starts anew");
        let ejection = see(&cluster, 0, observation, SECOND).unwrap();
        assert_eq!(ejection.cause, Cause::Consecutive5xx);
        assert_eq!(ejection.outcome, Outcome::Ejected { times: 1, until_ns: 31 * SECOND });
        assert_eq!(ejected(&cluster), [0]);
        assert_eq!(cluster.live.health_epoch.load(Relaxed), 1);
    }
}

#[test]
fn connections_count_where_they_are_all_there_is_to_see() {
    let cluster = with(outlier(), 2);
    times(&cluster, 0, RESET, 4);
    see(&cluster, 0, Observation::ConnectSuccess, 0);
    assert!(see(&cluster, 0, RESET, 0).is_some(), "a connection says nothing about the request on it");
    let cluster = with(outlier(), 2);
    times(&cluster, 0, RESET, 4);
    see(&cluster, 0, Observation::ConnectSuccessFinal, 0);
    assert!(see(&cluster, 0, RESET, 0).is_none());
}

#[test]
fn gateway_errors_have_a_row_of_their_own() {
    let gateway = OutlierDetection {
        consecutive_5xx: 0,
        consecutive_gateway_failure: 3,
        enforcing_consecutive_gateway_failure: 100,
        ..outlier()
    };
    let cluster = with(gateway.clone(), 2);
    times(&cluster, 0, Observation::Status(503), 2);
    see(&cluster, 0, Observation::Status(500), 0);
    assert_eq!(times(&cluster, 0, Observation::Status(502), 2), None);
    assert_eq!(times(&cluster, 0, Observation::Status(504), 1).unwrap().cause, Cause::ConsecutiveGateway);
    // both rows are full: the rule that is enforced acts
    let both = OutlierDetection { consecutive_5xx: 3, enforcing_consecutive_5xx: 0, ..gateway };
    let cluster = with(both, 2);
    let ejection = times(&cluster, 0, Observation::Status(503), 3).unwrap();
    assert_eq!(ejection.cause, Cause::ConsecutiveGateway);
    assert_eq!(ejected(&cluster), [0]);
}

/// Envoy's `DetectorHostMonitorImpl::putHttpResponseCode` tells its detector of either row, the gateway's first; each is
/// counted as detected, and as overflow, by itself.
#[test]
fn two_rules_that_trip_at_once_are_each_found() {
    use {Cause::*, Outcome::*};
    for (percent, gateway, expected) in [
        (
            None,
            0,
            vec![
                (ConsecutiveGateway, NotEnforced),
                (Consecutive5xx, Ejected { times: 1, until_ns: 31 * SECOND }),
            ],
        ),
        (Some(10), 100, vec![(ConsecutiveGateway, OverLimit), (Consecutive5xx, OverLimit)]),
        // what is out is not found again
        (None, 100, vec![(ConsecutiveGateway, Ejected { times: 1, until_ns: 31 * SECOND })]),
    ] {
        let rules = OutlierDetection {
            max_ejection_percent: percent,
            enforcing_consecutive_gateway_failure: gateway,
            ..outlier()
        };
        let cluster = with(rules, 2);
        assert_eq!(times(&cluster, 0, Observation::Status(503), 4), None);
        let found = found(&cluster, 0, Observation::Status(503), SECOND);
        assert_eq!(found.iter().map(|e| (e.cause, e.outcome)).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn local_failures_can_be_counted_apart() {
    let split = OutlierDetection { split_external_local_origin_errors: true, ..outlier() };
    let cluster = with(split, 2);
    for _ in 0..4 {
        see(&cluster, 0, RESET, 0);
        see(&cluster, 0, Observation::Status(200), 0);
    }
    let ejection = see(&cluster, 0, RESET, SECOND).unwrap();
    assert_eq!(ejection.cause, Cause::ConsecutiveLocalOrigin, "answers do not end the row of local failures");
    times(&cluster, 1, RESET, 4);
    see(&cluster, 1, Observation::ConnectSuccess, 0);
    assert_eq!(see(&cluster, 1, RESET, 0), None, "a connection does");
}

#[test]
fn detection_may_go_unenforced() {
    let cluster = with(OutlierDetection { enforcing_consecutive_5xx: 0, ..outlier() }, 2);
    let ejection = times(&cluster, 0, RESET, 5).unwrap();
    assert_eq!(ejection.outcome, Outcome::NotEnforced);
    assert_eq!((ejected(&cluster), cluster.live.ejected.load(Relaxed)), (vec![], 0));
    assert_eq!(times(&cluster, 0, RESET, 4), None, "counting starts anew");
    assert!(see(&cluster, 0, RESET, 0).is_some());
}

#[test]
fn how_many_may_go() {
    let max = |percent, always, hosts| {
        let config =
            OutlierDetection { max_ejection_percent: percent, always_eject_one_host: always, ..outlier() };
        hosts_ejected_max(&config, hosts)
    };
    assert_eq!([1, 2, 9, 10, 20, 100].map(|hosts| max(None, false, hosts)), [1, 1, 1, 1, 2, 10]);
    assert_eq!([1, 2, 9, 10, 20].map(|hosts| max(Some(10), false, hosts)), [0, 0, 0, 1, 2]);
    assert_eq!([2, 9, 20].map(|hosts| max(Some(10), true, hosts)), [1, 1, 2]);
    assert_eq!([2, 3, 4].map(|hosts| max(Some(50), false, hosts)), [1, 1, 2]);
    assert_eq!((max(Some(0), false, 10), max(Some(100), false, 3), max(Some(300), false, 3)), (0, 3, 3));
}

#[test]
fn an_explicit_limit_is_obeyed() {
    let cluster = with(OutlierDetection { max_ejection_percent: Some(10), ..outlier() }, 2);
    assert_eq!(times(&cluster, 0, RESET, 5).unwrap().outcome, Outcome::OverLimit);
    assert_eq!(ejected(&cluster), []);
    let cluster = with(outlier(), 2);
    times(&cluster, 0, RESET, 5);
    assert_eq!(times(&cluster, 1, RESET, 5).unwrap().outcome, Outcome::OverLimit, "one of two at most");
    assert_eq!(ejected(&cluster), [0]);
}

/// orders calls payments, two replicas, one of which resets every connection: after five failures it is out for
/// 30 s, then back, and out for longer the second time.
#[test]
fn two_replicas_one_fails() {
    let cluster = with(outlier(), 2);
    let mut rng = Rng::new(crate::testing::seed());
    let mut view = ClusterView::new(&cluster, 0, &mut rng);
    let (mut failures, mut log) = (0, Vec::new());
    for tick in 0..2000u64 {
        let now_ns = tick * SECOND / 10;
        if tick % 100 == 0 {
            log.extend(
                sweep(&cluster, now_ns, &mut rng).unejected.iter().map(|_| ("back", tick / 10, failures)),
            );
        }
        let context = PickContext { now_ns, ..PickContext::default() };
        let endpoint = pick(&mut view, &cluster, &context, &mut rng).endpoint().unwrap();
        let broken = endpoint.id == cluster.endpoints.endpoints[0].id;
        failures += u32::from(broken);
        let seen = if broken { RESET } else { Observation::Status(200) };
        for ejection in observe(&cluster, endpoint, seen, now_ns, &mut rng).into_iter().flatten() {
            let Outcome::Ejected { times, until_ns } = ejection.outcome else {
                assert_eq!(ejection.cause, Cause::ConsecutiveGateway, "found, not enforced by default");
                continue;
            };
            log.push(("out", tick / 10, failures));
            assert_eq!(until_ns - now_ns, 30 * SECOND * u64::from(times));
            assert!(broken);
        }
    }
    let events: Vec<_> = log.iter().map(|event| event.0).collect();
    assert_eq!(events, ["out", "back", "out", "back", "out"]);
    let at: Vec<u64> = log.iter().map(|event| event.1).collect();
    assert_eq!(at, [0, 40, 40, 110, 110], "30 s, then 60 s, each to the next sweep");
    assert_eq!(log.iter().map(|event| event.2).collect::<Vec<_>>(), [5, 5, 10, 10, 15], "five failures each");
}

#[test]
fn good_conduct_is_forgiven_step_by_step() {
    let cluster = with(OutlierDetection { max_ejection_time: Duration::from_secs(45), ..outlier() }, 2);
    let live = &cluster.endpoints.endpoints[0].live;
    let mut rng = Rng::new(1);
    let eject = |now_ns| match (0..5).find_map(|_| see(&cluster, 0, RESET, now_ns)).unwrap().outcome {
        Outcome::Ejected { until_ns, .. } => (until_ns - now_ns) / SECOND,
        other => panic!("{other:?}"),
    };
    assert_eq!(eject(0), 30);
    sweep(&cluster, 30 * SECOND, &mut rng);
    assert_eq!(eject(31 * SECOND), 45, "60 s would pass max_ejection_time");
    sweep(&cluster, 80 * SECOND, &mut rng);
    assert_eq!(live.ejections.load(Relaxed), 2, "not forgiven in the interval in which it came back");
    sweep(&cluster, 90 * SECOND, &mut rng);
    sweep(&cluster, 100 * SECOND, &mut rng);
    sweep(&cluster, 110 * SECOND, &mut rng);
    assert_eq!(live.ejections.load(Relaxed), 0);
    assert_eq!(eject(111 * SECOND), 30);
}

#[test]
fn jitter_is_added_within_its_bound() {
    let cluster =
        with(OutlierDetection { max_ejection_time_jitter: Duration::from_secs(10), ..outlier() }, 50);
    let mut rng = Rng::new(1);
    let mut lengths = Vec::new();
    for host in 0..5 {
        for _ in 0..5 {
            let endpoint = &cluster.endpoints.endpoints[host];
            for ejection in observe(&cluster, endpoint, RESET, 0, &mut rng).into_iter().flatten() {
                if let Outcome::Ejected { until_ns, .. } = ejection.outcome {
                    lengths.push(until_ns);
                }
            }
        }
    }
    assert_eq!(lengths.len(), 5);
    assert!(lengths.iter().all(|length| (30 * SECOND..=40 * SECOND).contains(length)));
    assert!(lengths.windows(2).any(|pair| pair[0] != pair[1]));
}

/// `successes` of `requests` for each host over one interval.
fn interval(cluster: &Cluster, results: &[(u32, u32)]) {
    for (host, &(successes, requests)) in results.iter().enumerate() {
        // failures apart from each other, so that no row of them ejects
        for n in 0..requests {
            let fails = (n + 1) * (requests - successes) / requests > n * (requests - successes) / requests;
            see(cluster, host, Observation::Status(if fails { 500 } else { 200 }), 0);
        }
    }
}

#[test]
fn the_success_rate_of_the_others_is_the_measure() {
    // Envoy's own example: 50, 100, 100, 100, 100 gives a threshold of 52
    let rows_off = OutlierDetection { consecutive_5xx: 0, max_ejection_percent: Some(50), ..outlier() };
    for (results, out) in [
        ([(50, 100), (100, 100), (100, 100), (100, 100), (100, 100)], vec![0]),
        ([(96, 100), (98, 100), (97, 100), (96, 100), (98, 100)], vec![]),
        ([(0, 99), (100, 100), (100, 100), (100, 100), (100, 100)], vec![]),
    ] {
        let cluster = with(rows_off.clone(), 5);
        interval(&cluster, &results);
        let report = sweep(&cluster, SECOND, &mut Rng::new(1));
        assert_eq!(ejected(&cluster), out, "{results:?}");
        // Envoy shows each host's rate, where its volume counts for one of the rules
        let shown = cluster.endpoints.endpoints.iter().map(|e| e.live.success_rate.get());
        let rates = results.iter().map(|(good, all)| Some(f64::from(*good) * 100.0 / f64::from(*all)));
        assert!(shown.eq(rates), "{results:?}");
        let rates = &cluster.live.success_rates;
        assert_eq!(rates.average.get().is_some(), results.iter().all(|(_, all)| *all >= 100), "{results:?}");
        if out == [0] {
            assert_eq!((rates.average.get(), rates.ejection_threshold.get()), (Some(90.0), Some(52.0)));
        }
        let enforced = report.ejections.iter().filter(|(_, e)| e.outcome != Outcome::NotEnforced);
        assert!(enforced.map(|(_, ejection)| ejection.cause).all(|cause| cause == Cause::SuccessRate));
        let again = sweep(&cluster, 2 * SECOND, &mut Rng::new(1));
        assert_eq!(
            (rates.average.get(), cluster.endpoints.endpoints[1].live.success_rate.get()),
            (None, None)
        );
        assert_eq!(again.ejections, [], "an interval's results count once");
    }
    let few = with(rows_off, 4);
    interval(&few, &[(50, 100), (100, 100), (100, 100), (100, 100)]);
    assert_eq!(
        sweep(&few, SECOND, &mut Rng::new(1)),
        SweepReport::default(),
        "success_rate_minimum_hosts is 5"
    );
}

#[test]
fn a_failure_percentage_needs_no_comparison() {
    let percentage = OutlierDetection {
        consecutive_5xx: 0,
        enforcing_success_rate: 0,
        enforcing_failure_percentage: 100,
        max_ejection_percent: Some(100),
        ..outlier()
    };
    let cluster = with(percentage, 6);
    interval(&cluster, &[(15, 100), (16, 100), (0, 49), (7, 50), (50, 50), (50, 50)]);
    sweep(&cluster, SECOND, &mut Rng::new(1));
    assert_eq!(ejected(&cluster), [0, 3], "85 % and above, of 50 requests and more");
}

#[test]
fn an_endpoint_that_left_takes_its_place_with_it() {
    let two = with(outlier(), 2);
    times(&two, 0, RESET, 5);
    let next = crate::testing::with_hosts(&two, &hosts(3)[1..]);
    assert_eq!(next.live.ejected.load(Relaxed), 1);
    sweep(&next, SECOND, &mut Rng::new(1));
    assert_eq!(next.live.ejected.load(Relaxed), 0);
    assert!(matches!(times(&next, 0, RESET, 5).unwrap().outcome, Outcome::Ejected { .. }));
}

#[test]
fn an_endpoint_of_no_set_is_left_alone() {
    let cluster = with(outlier(), 2);
    let passing = crate::testing::endpoint(&crate::testing::host(77));
    for _ in 0..20 {
        assert_eq!(observe(&cluster, &passing, RESET, 0, &mut Rng::new(1)), [None, None]);
    }
    assert_eq!((cluster.live.ejected.load(Relaxed), passing.live.unhealthy.load(Relaxed)), (0, 0));
}

#[test]
fn cores_count_one_row_together() {
    for _ in 0..50 {
        let cluster = with(outlier(), 10);
        let ejections = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for core in 0..4 {
                let (cluster, ejections) = (&cluster, &ejections);
                scope.spawn(move || {
                    let mut rng = Rng::new(core);
                    for host in [0, 1, 0, 1, 0, 1] {
                        let endpoint = &cluster.endpoints.endpoints[host];
                        let found = observe(cluster, endpoint, RESET, SECOND, &mut rng);
                        let out = |e: &Ejection| matches!(e.outcome, Outcome::Ejected { .. });
                        ejections
                            .fetch_add(found.iter().flatten().filter(|e| out(e)).count() as u32, Relaxed);
                    }
                });
            }
        });
        assert_eq!(ejections.load(Relaxed), 1, "both hosts failed twelve times, one of ten may go");
        assert_eq!((ejected(&cluster).len(), cluster.live.ejected.load(Relaxed)), (1, 1));
    }
}
