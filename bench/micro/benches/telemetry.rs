//! What a core counts and notes at each request.

use crate::Round;
use corelane_telemetry::{
    Block, ClusterStat, Details, EndpointStat, HttpStat, Outcome, OutcomeBlocks, Registry, Scope, Shard,
    Timings,
    access_log::{log_ring, write_millis, write_or_dash, write_rfc3339_millis, write_uint},
};
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use std::{hint::black_box, io::Write, net::SocketAddr};

/// Scopes that take turns: one alone would make each increment wait for the store before it.
const CLUSTERS: u32 = 64;
/// Lines that the control thread finds each time it looks.
const LINES_DRAINED: u32 = 512;
const MS: u64 = 1_000_000;

pub fn group(criterion: &mut Criterion) {
    let mut registry = Registry::new(1);
    let shard = registry.shard(0).expect("core 0");
    let mut group = criterion.benchmark_group("telemetry");
    counters(&mut group, &mut registry, &shard);
    let outcomes: Vec<Outcome> = (0..CLUSTERS).map(|number| outcome(&mut registry, number)).collect();
    group.bench_function("outcome_record", |b| {
        let mut round = Round::new(&outcomes);
        b.iter(|| black_box(round.turn()).record(&shard));
    });
    access_log_line(&mut group, &outcomes);
    group.finish();
}

fn counters(group: &mut BenchmarkGroup<'_, WallTime>, registry: &mut Registry, shard: &Shard) {
    let block = |number| registry.block(Scope::cluster(&format!("counted-{number}")));
    let blocks: Vec<Block<ClusterStat>> = (0..CLUSTERS).map(block).collect();
    shard.inc(blocks[0], ClusterStat::UpstreamRqTotal);
    assert_eq!(registry.value(blocks[0], ClusterStat::UpstreamRqTotal), 1, "the blocks count");
    group.bench_function("inc", |b| {
        let mut round = Round::new(&blocks);
        b.iter(|| shard.inc(*black_box(round.turn()), ClusterStat::UpstreamRqTotal));
    });
    group.bench_function("code", |b| {
        let mut round = Round::new(&blocks);
        b.iter(|| shard.code(*black_box(round.turn()), ClusterStat::UpstreamRq, black_box(200)));
    });
    // 0.1 ms to 100 ms
    let micros: Vec<u64> = (0..61).map(|n| 100 * 10u64.pow(n % 4) * u64::from(1 + n % 9)).collect();
    group.bench_function("record", |b| {
        let (mut round, mut values) = (Round::new(&blocks), Round::new(&micros));
        b.iter(|| {
            shard.record(*black_box(round.turn()), ClusterStat::UpstreamRqTime, *black_box(values.turn()));
        });
    });
}

/// An answered request, charged to all that it concerns but a virtual cluster.
fn outcome(registry: &mut Registry, number: u32) -> Outcome {
    let cluster = format!("service-{number}");
    let address = SocketAddr::from(([10, 0, 0, number as u8], 8080));
    let endpoint: Block<EndpointStat> = registry.block(Scope::endpoint(&cluster, &address.to_string()));
    let http: Block<HttpStat> = registry.block(Scope::http("inbound"));
    let start = (1 + u64::from(number)) * MS;
    Outcome {
        response_code: 200,
        details: Details::VIA_UPSTREAM,
        attempts: 1,
        bytes_received: 120,
        bytes_sent: 1024,
        start_unix_ns: 1_700_000_000_123 * MS + start,
        timings: Timings {
            start,
            request_end: start + 1,
            upstream_tx_start: start + MS,
            upstream_tx_end: start + MS,
            upstream_rx_start: start + 9 * MS,
            upstream_rx_end: start + 9 * MS,
            response_start: start + 10 * MS,
            end: start + 10 * MS + u64::from(number) * MS,
        },
        upstream_address: Some(address),
        blocks: OutcomeBlocks {
            http,
            listener_http: registry.block(Scope::listener_http("0.0.0.0:15006", "inbound")),
            route: registry.block(Scope::route("inbound", "default")),
            cluster: registry.block(Scope::cluster(&cluster)),
            endpoint,
        },
        ..Outcome::default()
    }
}

/// The values of Envoy's default format, written and handed over; the control thread's part is taken in turn.
fn access_log_line(group: &mut BenchmarkGroup<'_, WallTime>, outcomes: &[Outcome]) {
    let (mut writer, reader) = log_ring();
    let mut lines = 0;
    group.bench_function("access_log_line", |b| {
        let mut round = Round::new(outcomes);
        b.iter(|| {
            let outcome = black_box(round.turn());
            assert!(writer.line(0, |out| write_default_line(outcome, out)));
            lines += 1;
            if lines % LINES_DRAINED == 0 {
                reader.drain(|_, line| _ = black_box(line));
            }
        });
    });
}

fn write_default_line(outcome: &Outcome, out: &mut Vec<u8>) {
    out.push(b'[');
    write_rfc3339_millis(out, outcome.start_unix_ns);
    out.extend_from_slice(b"] \"GET /api/v1/payments/4711 HTTP/1.1\" ");
    write_uint(out, outcome.response_code.into());
    out.push(b' ');
    if outcome.flags.is_empty() {
        out.push(b'-');
    } else {
        outcome.flags.write_short(out);
    }
    for number in [outcome.bytes_received, outcome.bytes_sent] {
        out.push(b' ');
        write_uint(out, number);
    }
    for span in [outcome.timings.total(), outcome.timings.upstream()] {
        out.push(b' ');
        write_millis(out, span);
    }
    for value in [Some(&b"203.0.113.7"[..]), None, Some(b"7c0e4b0a-9f0b-4c1e-8c53-0d8a2d2ff5f1")] {
        out.extend_from_slice(b" \"");
        write_or_dash(out, black_box(value));
        out.push(b'"');
    }
    if let Some(address) = outcome.upstream_address {
        // a vector takes everything
        _ = write!(out, " \"{address}\"");
    }
    out.push(b'\n');
}
