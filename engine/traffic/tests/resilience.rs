//! Seeded simulations of whole requests: pick, try, observe, retry. `SIM_SEED=` replays one.

// helpers of tests are no tests to the lint
#![allow(clippy::unwrap_used)]

mod support;

use corelane_http::RequestHead;
use corelane_snapshot::{
    Cluster, ClusterConfig, EndpointId, OutlierDetection, RetryBudget, RetryOn, RetryPolicy,
};
use corelane_traffic::{
    ClusterView, Failure, PickContext, Rng,
    breaker::{self, Limit},
    budget,
    outlier::{self, Observation, Outcome},
    pick,
    retry::{Attempt, DoneReason, End, RetryDecision, RetryState},
};
use std::sync::atomic::Ordering::Relaxed;
use support::{MS, SECOND, cluster, cluster_config, hosts, outlier as outlier_config, retry_policy, seed};

/// One core's part of a sidecar.
struct Core {
    view: ClusterView,
    rng: Rng,
    head: RequestHead,
}

/// What the caller saw, and what the upstream did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    ok: u32,
    failed: u32,
    tries: u32,
    refused_by_budget: u32,
    ejections: Vec<(u64, u32)>,
}

impl Core {
    fn new(cluster: &Cluster, seed: u64) -> Core {
        let mut rng = Rng::new(seed);
        Core { view: ClusterView::new(cluster, 0, &mut rng), rng, head: RequestHead::new() }
    }

    /// `fails(host, now)`: how a try at that host ends.
    fn call(
        &mut self,
        cluster: &Cluster,
        policy: &RetryPolicy,
        now_ns: u64,
        fails: &dyn Fn(u32, u64) -> Option<Failure>,
        seen: &mut Seen,
    ) {
        breaker::acquire(&cluster.live.in_use[0], &cluster.config.breakers, Limit::Requests).unwrap();
        let mut state = RetryState::new(Some(policy), &self.head, true);
        let mut tried: Vec<EndpointId> = Vec::new();
        let mut now_ns = now_ns;
        loop {
            let context = PickContext { now_ns, tried: &tried, ..PickContext::default() };
            let endpoint = pick(&mut self.view, cluster, &context, &mut self.rng).endpoint().unwrap();
            tried.push(endpoint.id);
            seen.tries += 1;
            let Some(failure) = fails(endpoint.id.0, now_ns) else {
                state.on_sent(cluster, now_ns);
                outlier::observe(cluster, endpoint, Observation::Status(200), now_ns, &mut self.rng);
                seen.ok += 1;
                break;
            };
            let observation = Observation::of_failure(failure).unwrap();
            let found = outlier::observe(cluster, endpoint, observation, now_ns, &mut self.rng);
            for ejection in found.into_iter().flatten() {
                if let Outcome::Ejected { times, .. } = ejection.outcome {
                    seen.ejections.push((now_ns / SECOND, times));
                }
            }
            let attempt = Attempt {
                end: End::Failed(failure),
                request_sent: !failure.is_connect(),
                response_begun: false,
                body_replayable: true,
            };
            match state.decide(Some(policy), &attempt, cluster, now_ns, &mut self.rng) {
                RetryDecision::Retry { after_ns } => now_ns += after_ns,
                RetryDecision::Done(reason) => {
                    seen.refused_by_budget += u32::from(reason == DoneReason::BudgetExhausted);
                    seen.failed += 1;
                    break;
                }
            }
        }
        state.finish(&cluster.live);
        breaker::release(&cluster.live.in_use[0], Limit::Requests);
    }
}

/// mission.md: `retry_on: connect-failure,5xx,reset`, `num_retries: 2`, outlier detection with `consecutive_5xx: 5`,
/// `base_ejection_time: 30s`; nothing else is set. Replica 0 resets everything, from the very first request on:
/// in one run during the handshake, in another after the request is sent. The caller sees only answers.
#[test]
fn the_story_of_the_main_job() {
    for failure in [Failure::TlsHandshake, Failure::UpstreamTermination] {
        for variant in 0..200 {
            let mut config = cluster_config();
            config.outlier = Some(outlier_config());
            let cluster = cluster(config, &hosts(2));
            let on = RetryOn::CONNECT_FAILURE.with(RetryOn::SERVER_ERROR).with(RetryOn::RESET);
            let policy = RetryPolicy { avoid_previous_hosts: false, ..retry_policy(on, 2) };
            let mut cores: Vec<Core> =
                (0..2).map(|core| Core::new(&cluster, seed() + 2 * variant + core)).collect();
            let mut sweeps = Rng::new(variant);
            let mut seen = Seen::default();
            for request in 0..2000u64 {
                let now_ns = request * 50 * MS;
                if request % 200 == 0 {
                    outlier::sweep(&cluster, now_ns, &mut sweeps);
                }
                let core = &mut cores[(request % 2) as usize];
                core.call(&cluster, &policy, now_ns, &|host, _| (host == 0).then_some(failure), &mut seen);
            }
            assert_eq!((seen.ok, seen.failed), (2000, 0), "{failure:?} variant {variant}: {seen:?}");
            let times: Vec<u32> = seen.ejections.iter().map(|ejection| ejection.1).collect();
            assert_eq!(times, [1, 2], "{failure:?} variant {variant}: {seen:?}");
            assert!(seen.ejections[1].0 - seen.ejections[0].0 >= 30);
            // five failures before each ejection, the retried tries on top of the requests
            assert_eq!(seen.tries, 2000 + 10);
            assert_eq!(
                (cluster.live.in_use[0].retries.load(Relaxed), cluster.live.in_use[0].requests.load(Relaxed)),
                (0, 0)
            );
        }
    }
}

/// Everything fails: retries add no more than the budget to the load, however many each request would like.
#[test]
fn a_retry_storm_is_held_to_the_budget() {
    for (retry_budget, expected) in
        [(RetryBudget::default(), 4000 / 5 + 3), (RetryBudget::configured(), 4000 / 5)]
    {
        storm(ClusterConfig { retry_budget, ..cluster_config() }, expected);
    }
}

fn storm(config: ClusterConfig, expected: u32) {
    let cluster = cluster(config, &hosts(3));
    let policy = retry_policy(RetryOn::SERVER_ERROR, 5);
    let mut core = Core::new(&cluster, seed());
    let mut seen = Seen::default();
    // within one window
    for request in 0..4000u64 {
        core.call(&cluster, &policy, request * 2 * MS, &|_, _| Some(Failure::Reset), &mut seen);
    }
    let retries = seen.tries - 4000;
    assert_eq!(retries, expected);
    assert_eq!((seen.failed, seen.refused_by_budget), (4000, 4000));
    let (requests, counted) =
        budget::in_window(&cluster.live.in_use[0].budget, &cluster.config.retry_budget, 9 * SECOND);
    assert_eq!((requests, counted), (4000, u64::from(retries)));
}

/// The same storm over four cores at once: the budget is the cluster's, not each core's.
#[test]
fn the_budget_is_one_over_all_cores() {
    let cluster = cluster(cluster_config(), &hosts(3));
    let policy = retry_policy(RetryOn::SERVER_ERROR, 5);
    let tries: u32 = std::thread::scope(|scope| {
        let cores: Vec<_> = (0..4)
            .map(|core| {
                let (cluster, policy) = (&cluster, &policy);
                scope.spawn(move || {
                    let (mut core, mut seen) = (Core::new(cluster, core), Seen::default());
                    for request in 0..1000u64 {
                        core.call(cluster, policy, request * MS, &|_, _| Some(Failure::Reset), &mut seen);
                    }
                    seen.tries
                })
            })
            .collect();
        cores.into_iter().map(|core| core.join().unwrap()).sum()
    });
    let retries = tries - 4000;
    assert!(retries <= 4000 / 5 + 3, "{retries}");
    assert_eq!(cluster.live.in_use[0].retries.load(Relaxed), 0);
}

/// One of three backends dies for six seconds at 1,000 requests a second: nobody notices.
#[test]
fn one_of_three_dies() {
    let mut config = cluster_config();
    config.outlier = Some(OutlierDetection { max_ejection_percent: Some(50), ..outlier_config() });
    let cluster = cluster(config, &hosts(3));
    let policy = retry_policy(RetryOn::SERVER_ERROR.with(RetryOn::CONNECT_FAILURE), 2);
    let mut core = Core::new(&cluster, seed());
    let mut seen = Seen::default();
    let dead = |host: u32, now_ns: u64| {
        let down = host == 1 && (5 * SECOND..11 * SECOND).contains(&now_ns);
        down.then_some(Failure::ConnectFailure)
    };
    for request in 0..20_000u64 {
        core.call(&cluster, &policy, request * MS, &dead, &mut seen);
    }
    assert_eq!((seen.ok, seen.failed), (20_000, 0), "{seen:?}");
    assert_eq!((seen.tries, seen.ejections.len()), (20_005, 1));
}
