//! Local rate limits as an operator writes them.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_snapshot::*;
use corelane_xds::translate;
use support::{
    NoStats, lines, read,
    refusal::{refused, route},
};

const PLACE: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.";

/// A file whose filter has these fields besides its token bucket.
fn file(fields: &str) -> String {
    const LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let bucket = "token_bucket: { max_tokens: 5, fill_interval: 1s }";
    let filter = format!(
        "http_filters: [{{ name: l, typed_config: {{ '@type': {LIMIT}, stat_prefix: s, {bucket}, {fields} }} }}, "
    );
    let generic = "rate_limits: [{ stage: 2, actions: [{ generic_key: { descriptor_value: v } }] }]";
    let text = route(&format!("{{ match: {{ prefix: / }}, route: {{ cluster: c, {generic} }} }}"));
    text.replacen("http_filters: [", &filter, 1).replacen(
        "name: v,",
        "name: v, rate_limits: [{ actions: [{ remote_address: {} }] }],",
        1,
    )
}

#[test]
fn every_field_arrives() {
    let text = file(
        "stage: 2, local_rate_limit_per_downstream_connection: true, vh_rate_limits: INCLUDE, \
         always_consume_default_token_bucket: false, enable_retry_after_header: true, \
         request_headers_to_add_when_not_enforced: [{ header: { key: x-over, value: y } }], \
         descriptors: [\
           { entries: [{ key: fast, value: f }], token_bucket: { max_tokens: 7, tokens_per_fill: 9, fill_interval: 1s } }, \
           { entries: [{ key: a, value: b }, { key: c, value: d }], token_bucket: { max_tokens: 3, fill_interval: 1s } }], \
         rate_limits: [{ actions: [\
           { request_headers: { header_name: X-User, descriptor_key: user, skip_if_absent: true } }, \
           { header_value_match: { descriptor_value: v, headers: [{ name: x, present_match: true }] } }, \
           { query_parameters: { query_parameter_name: q, descriptor_key: k } }, \
           { query_parameter_value_match: { descriptor_value: w, expect_match: false, query_parameters: [{ name: p }] } }] }]",
    );
    let mut builder = Builder::new(Box::new(NoStats));
    let translation = translate::bootstrap(&read(&text), &mut builder);
    assert_eq!(lines(&translation.findings), Vec::<String>::new());
    let snapshot = builder.build().unwrap();
    let Terminal::Http(manager) = &snapshot.listeners[0].chains[0].terminal else { panic!("not HTTP") };
    let limit = manager.filters.local_rate_limit.as_ref().unwrap();
    assert!(limit.per_connection && !limit.always_default && limit.retry_after);
    assert_eq!((limit.stage, limit.virtual_host), (2, VirtualHostRateLimits::Include));
    assert_eq!(&*limit.unenforced_request_headers[0].name, "x-over");
    // the slowest is tried first, as by Envoy
    assert_eq!(limit.descriptors[0].entries.len(), 2);
    assert_eq!(limit.buckets.descriptors.iter().map(|bucket| bucket.tokens_max).collect::<Vec<_>>(), [3, 7]);
    let actions = &limit.rate_limits[0].actions;
    let keys: Vec<&str> = actions.iter().map(|action| &*action.key).collect();
    assert_eq!(keys, ["user", "header_match", "k", "query_match"]);
    assert_eq!(
        actions[0].value,
        RateLimitValue::RequestHeader { name: "x-user".into(), skip_if_absent: true }
    );
    assert!(matches!(&actions[3].value, RateLimitValue::QueryMatches { expect: false, .. }));
    let RouteSource::Inline(table) = &manager.routes else { panic!("not inline") };
    let host = &table.hosts.hosts[0];
    assert_eq!(host.filters.rate_limits[0].actions[0].value, RateLimitValue::RemoteAddress);
    let of_route = &host.routes[0].filters.rate_limits[0];
    assert_eq!((of_route.stage, &*of_route.actions[0].key), (2, "generic_key"));
}

#[test]
fn what_a_limit_cannot_have() {
    let entry = "descriptors: [{ entries: [{ key: a, §value: '' }], token_bucket: { max_tokens: 1, fill_interval: 1s } }]";
    let message =
        "descriptors[0].entries[0].value: must be set: buckets for whatever value comes are not implemented";
    refused(&file(entry), &[format!("{PLACE}{message}")]);
    let bucket = |interval: &str| format!("token_bucket: {{ max_tokens: 1, fill_interval: {interval} }}");
    let descriptor = |entries: &str| format!("{{ {entries}: [{{ key: a, value: b }}], {} }}", bucket("1s"));
    let other = format!("{{ entries: [{{ key: a, value: c }}], {} }}", bucket("1s"));
    let twice = format!("descriptors: [{}, {other}, {}]", descriptor("entries"), descriptor("§entries"));
    let message = "descriptors[2].entries: same as those of an earlier descriptor";
    refused(&file(&twice), &[format!("{PLACE}{message}")]);
    let slow = bucket("18446744074s").replace("fill_interval", "§fill_interval");
    let message = "descriptors[0].token_bucket.fill_interval: must be less than 584 years";
    refused(
        &file(&format!("descriptors: [{{ entries: [{{ key: a, value: b }}], {slow} }}]")),
        &[format!("{PLACE}{message}")],
    );
    let text = file("rate_limits: [{ actions: [{ §source_cluster: {} }] }]");
    let message =
        "rate_limits[0].actions[0].source_cluster: field `source_cluster` of Action is not implemented";
    refused(&text, &[format!("{PLACE}{message}")]);
    let text = file(
        "descriptors: [{ entries: [{ key: a, value: b }], token_bucket: { max_tokens: 1, fill_interval: 1s } }]",
    );
    let without = text.replacen("token_bucket: { max_tokens: 5, fill_interval: 1s }, ", "", 1).replacen(
        "typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.local",
        "§typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.local",
        1,
    );
    refused(&without, &[format!("{PLACE}token_bucket: must be set")]);
}
