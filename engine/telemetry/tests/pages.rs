//! The three pages, whole and in pieces.

mod every_scope;

use std::collections::HashMap;

use corelane_telemetry::exposition::{Buckets, Format, Kinds, NameFilter, Query, STEP_BYTES, Scrape};
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
        assert_eq!(page(&registry, Query { format, filter, ..Query::default() }), expected);
    }
}

/// Envoy sorts its pages by name, whatever scope a name is of.
#[test]
fn scalars_and_histograms_are_each_in_the_order_of_their_names() {
    let mut registry = registry();
    every_scope::touch(&mut registry);
    let names = |kinds| -> Vec<String> {
        let text = page(&registry, Query { kinds, ..Query::default() });
        text.lines().map(|line| line.split(": ").next().expect("a name").to_owned()).collect()
    };
    let [all, counters, gauges, histograms, none] =
        [Kinds::All, Kinds::Counters, Kinds::Gauges, Kinds::Histograms, Kinds::TextReadouts].map(names);
    for sorted in [&counters, &gauges, &histograms] {
        assert!(!sorted.is_empty() && sorted.is_sorted());
    }
    assert!(none.is_empty());
    let (scalars, last) = all.split_at(counters.len() + gauges.len());
    assert!(scalars.is_sorted());
    assert_eq!(last, histograms);
    assert!(counters.iter().any(|name| name == "cluster.payments.upstream_rq_503"));
    assert!(gauges.iter().any(|name| name == "cluster.payments.membership_total"));
}

/// The forms of Envoy's histogram_buckets; the values over the last interval, which we do not keep, are none.
#[test]
fn a_histogram_shows_as_buckets_where_it_is_asked_for() {
    let registry = registry();
    let of = |format, buckets| {
        let filter: Option<NameFilter> = Some(Box::new(|name| name == "cluster.payments.upstream_rq_time"));
        page(&registry, Query { format, buckets, filter, ..Query::default() })
    };
    let line = of(Format::Text, Buckets::Cumulative);
    assert!(
        line.starts_with("cluster.payments.upstream_rq_time: B0.5(nan,1) B1(nan,1) B5(nan,2) ")
            && line.ends_with(" B600000(nan,3) B1.8e+06(nan,3) B3.6e+06(nan,3)\n"),
        "{line}"
    );
    let line = of(Format::Text, Buckets::Disjoint);
    assert!(line.contains(" B1(nan,0) B5(nan,1) B10(nan,0) B25(nan,0) B50(nan,1) "), "{line}");
    let text = of(Format::Text, Buckets::Detailed);
    let start = "cluster.payments.upstream_rq_time:\n  totals=0,0.5:1, 1,4:1, 25,25:1\n  intervals=\n  summary=P0(nan,";
    assert!(text.starts_with(start), "{text}");
    let json = |buckets| serde_json::from_str::<serde_json::Value>(&of(Format::Json, buckets)).expect("JSON");
    let cumulative = &json(Buckets::Cumulative)["stats"][0]["histograms"][0];
    assert_eq!(cumulative["name"], "cluster.payments.upstream_rq_time");
    assert_eq!(
        cumulative["buckets"][2],
        serde_json::json!({ "upper_bound": 5, "interval": null, "cumulative": 2 })
    );
    assert_eq!(json(Buckets::Disjoint)["stats"][0]["histograms"][0]["buckets"][2]["cumulative"], 1);
    let detailed = &json(Buckets::Detailed)["stats"][0]["histograms"];
    assert_eq!(detailed["supported_percentiles"].as_array().map(Vec::len), Some(10));
    assert_eq!(
        detailed["details"][0]["totals"][1],
        serde_json::json!({ "lower_bound": 1, "width": 4, "count": 1 })
    );
    assert_eq!(detailed["details"][0]["percentiles"].as_array().map(Vec::len), Some(10));
}

#[test]
fn nothing_to_show_is_an_empty_page_that_is_still_json() {
    let registry = registry();
    let none = |format| Query { format, filter: Some(Box::new(|_| false)), ..Query::default() };
    assert_eq!(page(&registry, none(Format::Text)), "");
    assert_eq!(page(&registry, none(Format::Prometheus)), "");
    assert_eq!(page(&registry, none(Format::Json)), r#"{"stats":[]}"#);
    let histograms: Query = Query {
        format: Format::Json,
        used_only: true,
        filter: Some(Box::new(|name| name.ends_with("per_cx"))),
        ..Query::default()
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
