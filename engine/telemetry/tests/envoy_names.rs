//! Our metrics are named, typed and labelled as Envoy's are.
//!
//! `fixtures/envoy_1.40_metrics.txt` holds kind, name and label names of every metric on the Prometheus page of an Envoy 1.40 that ran
//! `fixtures/envoy.yaml` and was sent the requests named there. For another Envoy, take the page again and keep names alone.

mod every_scope;

use std::collections::BTreeSet;

use corelane_telemetry::exposition::{Format, Query, Scrape};
use corelane_telemetry::{FAMILIES, Registry};

const ENVOY: &str = include_str!("fixtures/envoy_1.40_metrics.txt");

/// What our page has beyond the fixture, and why.
const NOT_IN_SCRAPE: &[(&str, &str)] = &[
    ("envoy_cluster_endpoint_rq_time{", "ours: Envoy has no latency per endpoint"),
    ("{envoy_rbac_network_prefix,", "ours: Envoy puts the prefix into the metric's name"),
    ("envoy_local_rate_limit_rate_limited{", "the fixture has no such network filter"),
    ("envoy_http_rbac_shadow_allowed{envoy_rbac_http_prefix,", "made only with a shadow_rules_stat_prefix"),
    ("envoy_http_rbac_shadow_denied{envoy_rbac_http_prefix,", "made only with a shadow_rules_stat_prefix"),
];

/// `counter envoy_x{label,label}` for every metric on `page`.
fn signatures(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut typed = ("", "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed = rest.split_once(' ').expect("name and kind");
            continue;
        }
        let (_, labels) = line.split_once('{').expect("labels");
        let (labels, _) = labels.rsplit_once('}').expect("labels");
        let names: Vec<&str> =
            labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| *name != "le").collect();
        found.insert(format!("{} {}{{{}}}", typed.1, typed.0, names.join(",")));
    }
    found
}

fn page() -> String {
    let mut registry = Registry::new(1);
    every_scope::touch(&mut registry);
    let page = Scrape::new(Query { format: Format::Prometheus, ..Query::default() }).render(&registry);
    String::from_utf8(page).expect("UTF-8")
}

#[test]
fn every_metric_is_one_of_envoys_or_is_named_as_ours() {
    let envoy: BTreeSet<&str> = ENVOY.lines().collect();
    let page = page();
    let unknown: Vec<String> = signatures(&page)
        .into_iter()
        .filter(|ours| !ours.contains(" corelane_") && !envoy.contains(ours.as_str()))
        .filter(|ours| !NOT_IN_SCRAPE.iter().any(|(known, _)| ours.contains(known)))
        .collect();
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn a_metric_has_one_type_line_with_all_its_lines_under_it() {
    let page = page();
    let typed: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let distinct: BTreeSet<&str> = typed.iter().copied().collect();
    assert_eq!(distinct.len(), typed.len());
    let mut metric = "";
    for line in page.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => metric = rest.split_once(' ').expect("name and kind").0,
            None => assert!(line.starts_with(metric), "{line} under {metric}"),
        }
    }
}

#[test]
fn every_family_is_on_the_page() {
    let page = page();
    for family in FAMILIES {
        assert!(page.contains(family.metric), "{:?}", family.family);
    }
}
