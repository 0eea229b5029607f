//! What filters and transport sockets can't mean, each with what their author is told.

#![allow(clippy::unwrap_used)]

mod support;

use support::refusal::{MARK, refused, route};

/// A TCP listener whose one filter chain begins like this, and ends with a relay to `c` that has these fields too.
fn tcp_listener(chain: &str, filters: &str, relay: &str) -> String {
    const PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    format!(
        "static_resources:
  clusters: [{{ name: c }}]
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: 80 }} }}
    default_filter_chain:
      {chain}
      filters: [{filters}{{ name: t, typed_config: {{ '@type': {PROXY}, stat_prefix: s, cluster: c{relay} }} }}]
"
    )
}

#[test]
fn a_session_timeout_beyond_the_tickets_keys_is_pointed_at() {
    const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let tls = "common_tls_context: { tls_certificates: [{ certificate_chain: { filename: a }, private_key: { filename: b } }] }";
    let socket = format!(
        "transport_socket: {{ name: t, typed_config: {{ '@type': {TLS}, §session_timeout: 21601s, {tls} }} }}"
    );
    let text = tcp_listener(&socket, "", "");
    let place =
        "static_resources.listeners[0].default_filter_chain.transport_socket.typed_config.session_timeout";
    let reason = "the keys of tickets change every 21600s: no session lasts much longer";
    refused(&text, &[format!("warning: {place}: {reason}")]);
    refused(&text.replace("§", "").replace("21601s", "21600s"), &[]);
}

#[test]
fn a_rule_that_matches_nothing_is_not_left_out() {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
    let rules = "policies: { p: { permissions: [{ §any: false }], principals: [{ §any: false }] } }";
    let rbac =
        format!("{{ name: r, typed_config: {{ '@type': {RBAC}, stat_prefix: s, rules: {{ {rules} }} }} }}, ");
    let text = tcp_listener("", &rbac, "");
    let place =
        "static_resources.listeners[0].default_filter_chain.filters[0].typed_config.rules.policies[p]";
    let finding = |list: &str| format!("{place}.{list}[0].any: must be true where it is set");
    refused(&text, &[finding("permissions"), finding("principals")]);
}

#[test]
fn grpc_methods_with_counters_of_their_own_are_listed_and_few() {
    const ROUTER: &str = "http_filters: [";
    let config = |fields: &str| {
        let kind = "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
        let filter = format!("{ROUTER}{{ name: g, typed_config: {{ '@type': {kind}, {fields} }} }}, ");
        route("{ match: { prefix: / }, route: { cluster: c } }").replacen(ROUTER, &filter, 1)
    };
    let place = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.";
    let all = "stats_for_all_methods: whatever a client names would get counters: list the methods in \
               `individual_method_stats_allowlist`";
    refused(&config("§stats_for_all_methods: true"), &[format!("{place}{all}")]);
    refused(&config("stats_for_all_methods: false"), &[]);
    let list = |methods: &str| {
        config(&format!(
            "individual_method_stats_allowlist: {{ services: [{{ name: p.S, method_names: [{methods}] }}] }}"
        ))
    };
    let names: Vec<String> = (0..256).map(|n| format!("M{n}")).collect();
    refused(&list(&names.join(", ")), &[]);
    let reason = "individual_method_stats_allowlist.services[0].method_names[256]: too many gRPC methods with \
                  counters of their own: 257, the limit is 256";
    refused(&list(&format!("{}, {MARK}M256", names.join(", "))), &[format!("{place}{reason}")]);
}

#[test]
fn files_of_access_logs_have_a_limit_that_is_named() {
    const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    let log =
        |n: usize| format!("{{ name: l, typed_config: {{ '@type': {FILE}, path: /var/log/{n}.log }} }}");
    let logs = |count: usize| (0..count).map(log).collect::<Vec<_>>().join(", ");
    let text = |logs: &str| tcp_listener("", "", &format!(", access_log: [{logs}]"));
    // a file that is named again is not one more
    refused(&text(&format!("{}, {}", logs(1024), log(7))), &[]);
    let place = "static_resources.listeners[0].default_filter_chain.filters[0].typed_config.access_log[1024]";
    let over = format!("{}, {MARK}{}", logs(1024), log(1024));
    let reason = "too many files that access logs are written to: 1025, the limit is 1024";
    refused(&text(&over), &[format!("{place}: {reason}")]);
}

#[test]
fn managers() {
    const MANAGER: &str = "stat_prefix: s,";
    for (fields, message) in [
        (
            "http_protocol_options: { §allow_absolute_url: false },",
            "http_protocol_options.allow_absolute_url: false is not implemented: absolute URLs are always taken",
        ),
        (
            "common_http_protocol_options: { §max_headers_count: 1025 },",
            "common_http_protocol_options.max_headers_count: must be at most 1024, is 1025",
        ),
        (
            "§proxy_status_config: {},",
            "proxy_status_config: field `proxy_status_config` of HttpConnectionManager is not implemented",
        ),
    ] {
        let text = route("{ match: { prefix: / }, route: { cluster: c } }");
        let text = text.replacen(MANAGER, &format!("{MANAGER} {fields}"), 1);
        let place = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.";
        refused(&text, &[format!("{place}{message}")]);
    }
}
