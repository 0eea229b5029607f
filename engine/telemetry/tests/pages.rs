//! The three pages, whole and in pieces.

mod every_scope;

use std::collections::HashMap;

use corelane_telemetry::exposition::{Format, NameFilter, Query, STEP_BYTES, Scrape};
use corelane_telemetry::{
    ClusterOutlierStat, ClusterStat, CorsStat, EndpointStat, HopStat, HttpRbacRulesStat, HttpRbacStat,
    HttpStat, Registry, Scope, ServerStat,
};

/// Two cores and the control thread, with something of every kind.
fn registry() -> Registry {
    let mut registry = Registry::new(2);
    let (core0, core1) = (registry.shard(0).expect("core 0"), registry.shard(1).expect("core 1"));
    let server = registry.block(Scope::server());
    let http = registry.block(Scope::http("ingress"));
    let cors = registry.block(Scope::cors("ingress"));
    let rbac = registry.block(Scope::http_rbac("ingress"));
    let rules = registry.block(Scope::http_rbac_rules("ingress", "deny"));
    let cluster = registry.block(Scope::cluster("payments"));
    let dotted = registry.block(Scope::cluster("outbound|80||pay\"ments.prod:8080"));
    let outlier = registry.block(Scope::cluster_outlier("payments"));
    let endpoint = registry.block(Scope::endpoint("payments", "10.0.0.1:80"));
    let hop = registry.block(Scope::hop("ingress"));
    let driver = registry.block(Scope::driver("0", "io_uring"));
    registry.control().gauge_set(server, ServerStat::Live, 1);
    registry.control().gauge_set(driver, corelane_telemetry::DriverStat::Info, 1);
    registry.control().gauge_set(cluster, ClusterStat::MembershipTotal, 2);
    registry.control().inc(outlier, ClusterOutlierStat::EjectionsEnforcedTotal);
    core0.inc(http, HttpStat::DownstreamRq2xx);
    core1.add(http, HttpStat::DownstreamRq5xx, 2);
    core0.inc(cors, CorsStat::OriginValid);
    core0.inc(rbac, HttpRbacStat::Allowed);
    core0.inc(rules, HttpRbacRulesStat::Denied);
    core0.add(cluster, ClusterStat::UpstreamRqTotal, 12);
    core1.add(dotted, ClusterStat::UpstreamRqTotal, 3);
    core0.code(cluster, ClusterStat::UpstreamRq, 200);
    core1.code(cluster, ClusterStat::UpstreamRq, 200);
    core1.code(cluster, ClusterStat::UpstreamRq, 503);
    core1.code(cluster, ClusterStat::RetryUpstreamRq, 599);
    core1.gauge_add(endpoint, EndpointStat::CxActive, 1);
    for micros in [350, 2_048, 40_000] {
        core0.record(cluster, ClusterStat::UpstreamRqTime, micros);
    }
    core1.record(cluster, ClusterStat::UpstreamRqPerCx, 7);
    core0.record(hop, HopStat::AddedTimeUs, 18);
    registry
}

fn page(registry: &Registry, query: Query) -> String {
    String::from_utf8(Scrape::new(query).render(registry)).expect("UTF-8")
}

fn used(format: Format) -> Query {
    Query { format, used_only: true, ..Query::default() }
}

/// How often each line is on the page; for JSON, each value.
fn counts(format: Format, page: &str) -> HashMap<&str, usize> {
    let separator = if format == Format::Json { '{' } else { '\n' };
    let mut counts = HashMap::new();
    for line in page.split(separator) {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

/// What `counts` finds of a cluster's `upstream_rq_total` of 0.
fn total(format: Format, cluster: &str) -> String {
    match format {
        Format::Text => format!("cluster.{cluster}.upstream_rq_total: 0"),
        Format::Json => format!("\"name\":\"cluster.{cluster}.upstream_rq_total\",\"value\":0}},"),
        Format::Prometheus => {
            format!("envoy_cluster_upstream_rq_total{{envoy_cluster_name=\"{cluster}\"}} 0")
        }
    }
}

#[test]
fn text() {
    assert_eq!(page(&registry(), used(Format::Text)), include_str!("fixtures/used.txt"));
}

#[test]
fn json() {
    let page = page(&registry(), used(Format::Json));
    assert_eq!(page, include_str!("fixtures/used.json").trim_end());
    serde_json::from_str::<serde_json::Value>(&page).expect("JSON");
}

#[test]
fn prometheus() {
    assert_eq!(page(&registry(), used(Format::Prometheus)), include_str!("fixtures/used.prometheus"));
}

#[test]
fn zeros_show_unless_the_query_says_otherwise() {
    let registry = registry();
    let query = || Query {
        filter: Some(Box::new(|name| name.starts_with("http.ingress.cors."))),
        ..Query::default()
    };
    assert_eq!(
        page(&registry, query()),
        "http.ingress.cors.origin_invalid: 0\nhttp.ingress.cors.origin_valid: 1\n"
    );
    assert_eq!(page(&registry, Query { used_only: true, ..query() }), "http.ingress.cors.origin_valid: 1\n");
    assert_eq!(
        page(&registry, Query { format: Format::Prometheus, ..query() }),
        "# TYPE envoy_http_cors_origin_invalid counter\n\
         envoy_http_cors_origin_invalid{envoy_http_conn_manager_prefix=\"ingress\"} 0\n\
         # TYPE envoy_http_cors_origin_valid counter\n\
         envoy_http_cors_origin_valid{envoy_http_conn_manager_prefix=\"ingress\"} 1\n"
    );
}

#[test]
fn filters_see_envoys_full_name_in_every_format() {
    let registry = registry();
    for (format, expected) in [
        (Format::Text, "cluster.payments.upstream_rq_503: 1\n"),
        (Format::Json, r#"{"stats":[{"name":"cluster.payments.upstream_rq_503","value":1}]}"#),
        (
            Format::Prometheus,
            "# TYPE envoy_cluster_upstream_rq counter\n\
             envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"payments\"} 1\n",
        ),
    ] {
        let filter: Option<NameFilter> = Some(Box::new(|name| name.ends_with("_503")));
        assert_eq!(page(&registry, Query { format, used_only: false, filter }), expected);
    }
}

#[test]
fn nothing_to_show_is_an_empty_page_that_is_still_json() {
    let registry = registry();
    let none = |format| Query { format, used_only: false, filter: Some(Box::new(|_| false)) };
    assert_eq!(page(&registry, none(Format::Text)), "");
    assert_eq!(page(&registry, none(Format::Prometheus)), "");
    assert_eq!(page(&registry, none(Format::Json)), r#"{"stats":[]}"#);
    let histograms: Query = Query {
        format: Format::Json,
        used_only: true,
        filter: Some(Box::new(|name| name.ends_with("per_cx"))),
    };
    let histograms = page(&registry, histograms);
    assert!(histograms.starts_with(r#"{"stats":[{"histograms":{"#), "{histograms}");
    serde_json::from_str::<serde_json::Value>(&histograms).expect("JSON");
}

#[test]
fn a_page_of_many_scopes_comes_in_bounded_pieces_and_is_whole() {
    let mut registry = registry();
    every_scope::touch(&mut registry);
    for i in 0..500 {
        registry.block(Scope::cluster(&format!("c{i}")));
    }
    for format in [Format::Text, Format::Json, Format::Prometheus] {
        let mut scrape = Scrape::new(Query { format, ..Query::default() });
        let (mut whole, mut piece, mut pieces) = (Vec::new(), Vec::new(), 0);
        loop {
            piece.clear();
            let more = scrape.step(&registry, &mut piece);
            // one scope of text may follow the byte that fills a piece
            assert!(piece.len() < STEP_BYTES + (32 << 10), "{format:?}: {}", piece.len());
            whole.extend_from_slice(&piece);
            pieces += 1;
            if !more {
                break;
            }
        }
        assert!(pieces > 10, "{format:?}: {pieces}");
        let page = String::from_utf8(whole).expect("UTF-8");
        let counts = counts(format, &page);
        for i in 0..500 {
            assert_eq!(counts.get(total(format, &format!("c{i}")).as_str()), Some(&1), "{format:?}: c{i}");
        }
        if format == Format::Json {
            serde_json::from_str::<serde_json::Value>(&page).expect("JSON");
        }
    }
}

#[test]
fn scopes_that_come_and_go_between_pieces_do_not_repeat_or_hide_the_others() {
    for format in [Format::Text, Format::Prometheus] {
        let mut registry = Registry::new(1);
        for i in 0..300 {
            registry.block(Scope::cluster(&format!("kept{i:03}")));
            registry.block(Scope::cluster(&format!("gone{i:03}")));
        }
        let mut scrape = Scrape::new(Query { format, ..Query::default() });
        let mut page = Vec::new();
        let mut round = 0;
        while scrape.step(&registry, &mut page) {
            let doomed = format!("gone{round:03}");
            let generation = registry.retain(|scope| scope.label(0) != doomed);
            registry.reclaim(generation);
            registry.block(Scope::cluster(&format!("late{round:03}")));
            round += 1;
        }
        let page = String::from_utf8(page).expect("UTF-8");
        let counts = counts(format, &page);
        for i in 0..300 {
            assert_eq!(
                counts.get(total(format, &format!("kept{i:03}")).as_str()),
                Some(&1),
                "{format:?}: kept{i:03}"
            );
        }
    }
}
