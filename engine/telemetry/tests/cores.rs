//! Cores count while the control thread reads and configures; nothing is lost and nothing is allocated.

use std::sync::Barrier;
use std::thread;

use corelane_telemetry::exposition::{Format, Query, Scrape};
use corelane_telemetry::{
    ClusterStat, HttpStat, Outcome, OutcomeBlocks, Registry, ResponseFlags, Sampler, Scope, Timings,
};

const CORES: usize = 4;
const REQUESTS: u64 = 20_000;

#[test]
fn nothing_is_lost_while_a_scrape_runs_and_scopes_come_and_go() {
    let mut registry = Registry::new(CORES);
    let cluster = registry.block(Scope::cluster("payments"));
    let http = registry.block(Scope::http("ingress"));
    let shards: Vec<_> = (0..CORES).map(|core| registry.shard(core).expect("a core")).collect();
    let start = Barrier::new(CORES + 1);
    thread::scope(|scope| {
        let writers: Vec<_> = shards
            .into_iter()
            .map(|shard| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for i in 0..REQUESTS {
                        shard.gauge_add(http, HttpStat::DownstreamRqActive, 1);
                        shard.inc(cluster, ClusterStat::UpstreamRqTotal);
                        shard.record(cluster, ClusterStat::UpstreamRqTime, i);
                        shard.code(cluster, ClusterStat::UpstreamRq, 200);
                        shard.gauge_sub(http, HttpStat::DownstreamRqActive, 1);
                    }
                })
            })
            .collect();
        start.wait();
        let mut last = 0;
        let mut round = 0;
        while !writers.iter().all(|writer| writer.is_finished()) {
            let page =
                Scrape::new(Query { format: Format::Prometheus, ..Query::default() }).render(&registry);
            assert!(page.ends_with(b"\n"));
            let total = registry.value(cluster, ClusterStat::UpstreamRqTotal);
            assert!(total >= last, "a counter never falls");
            last = total;
            registry.block(Scope::cluster(&format!("passing {round}")));
            let generation = registry.retain(|scope| ["payments", "ingress"].contains(&scope.label(0)));
            registry.reclaim(generation);
            round += 1;
        }
    });
    let expected = REQUESTS * CORES as u64;
    assert_eq!(registry.value(cluster, ClusterStat::UpstreamRqTotal), expected);
    assert_eq!(registry.code(cluster, ClusterStat::UpstreamRq, 200), Some(expected));
    assert_eq!(registry.value(http, HttpStat::DownstreamRqActive), 0);
    let times = registry.histogram(cluster, ClusterStat::UpstreamRqTime);
    assert_eq!(times.count(), expected);
    assert_eq!(times.sum, CORES as u64 * REQUESTS * (REQUESTS - 1) / 2);
}

#[test]
fn a_core_allocates_nothing_to_count_to_record_an_outcome_and_to_sample() {
    let mut registry = Registry::new(1);
    let shard = registry.shard(0).expect("core 0");
    let cluster = registry.block(Scope::cluster("payments"));
    let blocks = OutcomeBlocks {
        http: registry.block(Scope::http("ingress")),
        listener_http: registry.block(Scope::listener_http("0.0.0.0:80", "ingress")),
        route: registry.block(Scope::route("payments", "charge")),
        cluster,
        endpoint: registry.block(Scope::endpoint("payments", "10.0.0.1:80")),
    };
    let mut sampler = Sampler::default();
    let mut sampled = 0;
    let allocations = allocation_counter::measure(|| {
        for i in 0..1_000 {
            shard.inc(cluster, ClusterStat::UpstreamRqTotal);
            shard.gauge_add(cluster, ClusterStat::UpstreamRqActive, 1);
            let outcome = Outcome {
                response_code: 503,
                flags: ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
                timings: Timings {
                    start: i + 1,
                    upstream_tx_end: i + 2,
                    upstream_rx_end: i + 3,
                    end: i + 4,
                    ..Timings::default()
                },
                blocks,
                ..Outcome::default()
            };
            outcome.record(&shard);
            sampled += u32::from(sampler.pick());
        }
    });
    assert_eq!(allocations.count_total, 0);
    assert_eq!(sampled, 16);
    assert_eq!(registry.code(cluster, ClusterStat::UpstreamRq, 503), Some(1_000));
}

#[test]
fn a_core_allocates_nothing_to_log_once_its_buffer_is_there() {
    use corelane_telemetry::access_log::{
        log_ring, write_escaped_json, write_millis, write_rfc3339_millis, write_strftime, write_uint,
    };
    let (mut writer, reader) = log_ring();
    let mut line = |at: u64| {
        writer.line(0, |out| {
            write_rfc3339_millis(out, at);
            write_strftime(out, " %c %s.%6f ", at);
            write_uint(out, 200);
            write_millis(out, Some(at));
            write_escaped_json(out, b"a \"quoted\" \xff path");
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE.write_short(out);
            out.push(b'\n');
        })
    };
    assert!(line(0));
    let allocations = allocation_counter::measure(|| assert!((1..500).all(&mut line)));
    assert_eq!(allocations.count_total, 0);
    writer.flush();
    assert_eq!(reader.drain(|_, line| assert_eq!(line.last(), Some(&b'\n'))), 500);
}
