//! One outcome charges each of its scopes once.

use corelane_telemetry::exposition::{Query, Scrape};
use corelane_telemetry::{
    ClusterStat, EndpointStat, FailureSide, HttpStat, ListenerHttpStat, Outcome, OutcomeBlocks, Registry,
    ResponseFlags, RouteStat, Scope, Timings,
};

fn blocks(registry: &mut Registry) -> OutcomeBlocks {
    OutcomeBlocks {
        http: registry.block(Scope::http("ingress")),
        listener_http: registry.block(Scope::listener_http("0.0.0.0:80", "ingress")),
        route: registry.block(Scope::route("vh", "charge")),
        cluster: registry.block(Scope::cluster("payments")),
        endpoint: registry.block(Scope::endpoint("payments", "10.0.0.1:80")),
    }
}

/// Milliseconds in the clock's nanoseconds.
const MS: u64 = 1_000_000;

#[test]
fn an_answered_request_is_charged_everywhere_once() {
    let mut registry = Registry::new(1);
    let shard = registry.shard(0).expect("core 0");
    let blocks = blocks(&mut registry);
    let outcome = Outcome {
        response_code: 200,
        attempts: 2,
        timings: Timings {
            start: MS,
            upstream_tx_end: 2 * MS,
            upstream_rx_start: 30 * MS,
            upstream_rx_end: 32 * MS,
            end: 33 * MS,
            ..Timings::default()
        },
        blocks,
        ..Outcome::default()
    };
    outcome.record(&shard);
    assert!(outcome.is_success());
    assert_eq!(outcome.class(), 2);
    assert_eq!(outcome.timings.response(), Some(29 * MS));
    assert_eq!(outcome.timings.response_tx(), Some(3 * MS));
    assert_eq!(outcome.timings.request(), None);
    assert_eq!(registry.value(blocks.http, HttpStat::DownstreamRqCompleted), 1);
    assert_eq!(registry.value(blocks.http, HttpStat::DownstreamRq2xx), 1);
    assert_eq!(registry.value(blocks.listener_http, ListenerHttpStat::DownstreamRq2xx), 1);
    assert_eq!(registry.value(blocks.cluster, ClusterStat::UpstreamRqCompleted), 1);
    assert_eq!(registry.code(blocks.cluster, ClusterStat::UpstreamRq, 200), Some(1));
    assert_eq!(registry.code(blocks.route, RouteStat::UpstreamRq, 200), Some(1));
    assert_eq!(registry.histogram(blocks.http, HttpStat::DownstreamRqTime).sum, 32_000);
    assert_eq!(registry.histogram(blocks.cluster, ClusterStat::UpstreamRqTime).sum, 30_000);
    assert_eq!(registry.histogram(blocks.endpoint, EndpointStat::RqTime).sum, 30_000);
}

#[test]
fn a_request_without_a_response_charges_its_time_alone() {
    let mut registry = Registry::new(1);
    let shard = registry.shard(0).expect("core 0");
    let blocks = blocks(&mut registry);
    let outcome = Outcome {
        flags: ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
        failure_side: FailureSide::Downstream,
        timings: Timings { start: MS, end: 2 * MS, ..Timings::default() },
        blocks,
        ..Outcome::default()
    };
    outcome.record(&shard);
    assert!(!outcome.is_success());
    assert_eq!(outcome.class(), 0);
    let page = Scrape::new(Query { used_only: true, ..Query::default() }).render(&registry);
    let page = String::from_utf8(page).expect("UTF-8");
    let names: Vec<&str> =
        page.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(names, ["corelane.stats.scopes", "http.ingress.downstream_rq_time"]);
}

#[test]
fn success_needs_a_code_below_500_a_whole_response_and_grpc_status_0() {
    let ok = Outcome { response_code: 404, ..Outcome::default() };
    assert!(ok.is_success());
    assert!(!Outcome { response_code: 500, ..ok }.is_success());
    assert!(!Outcome { failure_side: FailureSide::Upstream, ..ok }.is_success());
    assert!(!Outcome { response_code: 200, grpc_status: Some(14), ..ok }.is_success());
    assert!(Outcome { response_code: 200, grpc_status: Some(0), ..ok }.is_success());
}
