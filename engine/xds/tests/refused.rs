//! Configurations that are well-formed and can't work, each with what its author is told.

#![allow(clippy::unwrap_used)]

mod support;

use support::refusal::{MARK, refused, route};

/// A cluster `c` with these further fields, one a line, at line 4 and on.
fn cluster(fields: &str) -> String {
    format!("static_resources:\n  clusters:\n  - name: c\n    {}\n", fields.replace('\n', "\n    "))
}

const CLUSTER: &str = "static_resources.clusters[0]";

#[test]
fn clusters() {
    let table: &[(&str, &[&str])] = &[
        ("§type: EDS", &["C.type: EDS needs a control stream, which a static file does not have"]),
        (
            "§lb_policy: RANDOM\ntype: ORIGINAL_DST",
            &["C.lb_policy: must be CLUSTER_PROVIDED for an ORIGINAL_DST cluster"],
        ),
        (
            "§lb_policy: CLUSTER_PROVIDED",
            &["C.lb_policy: CLUSTER_PROVIDED is for ORIGINAL_DST clusters only"],
        ),
        (
            "type: LOGICAL_DNS\n§load_assignment: { cluster_name: c }",
            &["C.load_assignment: a LOGICAL_DNS cluster must have exactly one endpoint"],
        ),
        (
            "load_assignment: { cluster_name: c, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { §address: host, port_value: 1 } } } }] }] }",
            &[
                "C.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: `host` is no IP address; a cluster of type STRICT_DNS resolves names",
            ],
        ),
        (
            "lb_policy: MAGLEV\nmaglev_lb_config: { §table_size: 1000 }",
            &["C.maglev_lb_config.table_size: 1000 is no prime number"],
        ),
        (
            "lb_policy: RING_HASH\nring_hash_lb_config: { §minimum_ring_size: 10, maximum_ring_size: 5 }",
            &["C.ring_hash_lb_config.minimum_ring_size: 10 is above the maximum of 5"],
        ),
        (
            "lb_policy: MAGLEV\nmaglev_lb_config: { §table_size: 18446744073709551615 }",
            &["C.maglev_lb_config.table_size: must be at most 5000011, is 18446744073709551615"],
        ),
        (
            "load_assignment: { cluster_name: c, endpoints: [{ §priority: 4294967295, lb_endpoints: [{ endpoint: { address: { socket_address: { address: 1.2.3.4, port_value: 1 } } } }] }] }",
            &["C.load_assignment.endpoints[0].priority: must be at most 128, is 4294967295"],
        ),
        (
            "outlier_detection: { base_ejection_time: 10s, §max_ejection_time: 1s, §enforcing_success_rate: 101 }",
            &[
                "C.outlier_detection.max_ejection_time: must not be below `base_ejection_time`",
                "C.outlier_detection.enforcing_success_rate: must be at most 100, is 101",
            ],
        ),
        (
            "common_lb_config: { §close_connections_on_host_set_change: true }",
            &[
                "C.common_lb_config.close_connections_on_host_set_change: field `close_connections_on_host_set_change` of CommonLbConfig is not implemented",
            ],
        ),
        (
            "§lb_subset_config: {}",
            &["C.lb_subset_config: field `lb_subset_config` of Cluster is not implemented"],
        ),
        (
            "circuit_breakers: { per_host_thresholds: [{ §max_requests: 1 }] }",
            &["C.circuit_breakers.per_host_thresholds[0].max_requests: is not implemented per host"],
        ),
        (
            "health_checks: [{ timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, §grpc_health_check: {} }]",
            &[
                "C.health_checks[0].grpc_health_check: field `grpc_health_check` of HealthCheck is not implemented",
            ],
        ),
        (
            "transport_socket_matches: [{ name: m, match: { a: b, §c: [d] } }]",
            &["C.transport_socket_matches[0].match.c: must be a string, a number or a bool"],
        ),
        (
            "§health_checks: [{ timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {} }, { timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}, alt_port: 8080 }]",
            &["C.health_checks: several checks must have the same `alt_port`, or none"],
        ),
        (
            "health_checks: [{ timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: { send: { §text: 0x } } }]",
            &["C.health_checks[0].tcp_health_check.send.text: must be hexadecimal, two digits a byte"],
        ),
        (
            "health_checks: [§§{ timeout: 1s, §interval: 0s, http_health_check: { path: / } }]",
            &[
                "C.health_checks[0].unhealthy_threshold: must be set",
                "C.health_checks[0].healthy_threshold: must be set",
                "C.health_checks[0].interval: must be above 0s, is 0s",
            ],
        ),
        (
            "transport_socket: { name: t, §typed_config: { '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext } }",
            &[
                "C.transport_socket.typed_config: `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext` is no upstream transport socket that is implemented",
            ],
        ),
        (
            "transport_socket: { name: t, typed_config: { '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: { tls_certificate_sds_secret_configs: [{ §name: x }], tls_params: { §tls_maximum_protocol_version: TLSv1_1 }, validation_context: { trust_chain_verification: ACCEPT_UNTRUSTED } } } }",
            &[
                "C.transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs[0].name: unknown secret `x`: none of that name is defined",
                "C.transport_socket.typed_config.common_tls_context.tls_params.tls_maximum_protocol_version: TLS 1.0 and 1.1 are not implemented (RFC 8996)",
            ],
        ),
        (
            "transport_socket: { name: t, typed_config: { '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, §enforce_rsa_key_usage: true, common_tls_context: { validation_context: { trust_chain_verification: ACCEPT_UNTRUSTED } } } }",
            &[
                "C.transport_socket.typed_config.enforce_rsa_key_usage: true is not implemented: the key usage extension is not looked at",
            ],
        ),
        (
            "transport_socket: { name: t, §typed_config: { '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, §common_tls_context: { validation_context: { match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: a } }] } } } }",
            &[
                "warning: C.transport_socket.typed_config: without a `trusted_ca` the server's certificate is not verified",
                "C.transport_socket.typed_config.common_tls_context: names can only be verified against a `trusted_ca`",
            ],
        ),
    ];
    for (fields, messages) in table {
        let messages: Vec<String> =
            messages.iter().map(|message| message.replacen("C.", &format!("{CLUSTER}."), 1)).collect();
        refused(&cluster(fields), &messages);
    }
}

/// A connection manager whose one virtual host has this route, at line 9.
const ROUTE: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0]";

#[test]
fn routes() {
    let table = [
        (
            "{ match: { prefix: / }, route: { §cluster: x } }",
            "R.route.cluster: unknown cluster `x`: no cluster of that name is defined",
        ),
        (
            "§{ match: { prefix: / } }",
            "R: one of `route`, `redirect`, `direct_response`, `non_forwarding_action` must be set",
        ),
        (
            "{ §match: {}, route: { cluster: c } }",
            "R.match: one of `prefix`, `path`, `safe_regex`, `connect_matcher`, `path_separated_prefix` must be set",
        ),
        (
            "{ match: { safe_regex: { §regex: '(' } }, route: { cluster: c } }",
            "R.match.safe_regex.regex: bad regular expression: unclosed group",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, retry_policy: { §retry_on: '5xx,sometimes' } } }",
            "R.route.retry_policy.retry_on: `sometimes` is no condition that is implemented",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, retry_policy: { §num_retries: 101 } } }",
            "R.route.retry_policy.num_retries: must be at most 100, is 101",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, retry_policy: { retry_back_off: { base_interval: 1s, §max_interval: 0.5s } } } }",
            "R.route.retry_policy.retry_back_off.max_interval: must not be below `base_interval`",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, §timeout: -1s } }",
            "R.route.timeout: must not be negative",
        ),
        (
            "{ match: { prefix: / }, route: { weighted_clusters: { §clusters: [{ name: c, weight: 0 }] } } }",
            "R.route.weighted_clusters.clusters: the weights sum to 0: must be 1 to 4294967295",
        ),
        (
            "{ match: { prefix: / }, §route: { cluster: c, prefix_rewrite: /a, regex_rewrite: { pattern: { regex: a }, substitution: b } } }",
            "R.route: only one of `prefix_rewrite`, `path_rewrite` and `regex_rewrite` may be set",
        ),
        (
            "{ match: { prefix: / }, direct_response: { status: 200, §body: { filename: /x } } }",
            "R.direct_response.body: a body in a file is not implemented; put it inline",
        ),
        (
            "{ match: { prefix: / }, direct_response: { §status: 99 } }",
            "R.direct_response.status: must be at least 200, is 99",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c }, request_headers_to_add: [{ header: { §key: ':path', value: x } }] }",
            "R.request_headers_to_add[0].header.key: `:path` can't be changed by a header rule",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c }, request_headers_to_add: [{ header: { §key: 'a b', value: x } }] }",
            "R.request_headers_to_add[0].header.key: must be a header name (RFC 9110: letters, digits and !#$%&'*+-.^_`|~)",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c }, request_headers_to_add: [{ header: { key: a, §value: '%NOPE%' } }] }",
            "R.request_headers_to_add[0].header.value: bad format string at byte 0: unknown operator `%NOPE%`",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c }, request_headers_to_add: [{ header: { key: a, value: x }, §append: false, append_action: ADD_IF_ABSENT }] }",
            "R.request_headers_to_add[0].append: contradicts `append_action`",
        ),
        (
            "{ match: { prefix: /, runtime_fraction: { default_value: { §numerator: 101 } } }, route: { cluster: c } }",
            "R.match.runtime_fraction.default_value.numerator: 101 is more than the whole",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c }, typed_per_filter_config: { §f: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } } }",
            "R.typed_per_filter_config[f]: `envoy.extensions.filters.http.router.v3.Router` is no per-route filter configuration that is implemented",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, §cors: {} } }",
            "R.route.cors: field `cors` of RouteAction is not implemented",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, §request_mirror_policies: [{ cluster: c }] } }",
            "R.route.request_mirror_policies: field `request_mirror_policies` of RouteAction is not implemented",
        ),
        (
            "{ match: { prefix: / }, route: { cluster: c, §metadata_match: {} } }",
            "R.route.metadata_match: field `metadata_match` of RouteAction is not implemented",
        ),
        (
            "{ match: { prefix: / }, route: { weighted_clusters: { clusters: [{ name: c, weight: 1, §metadata_match: {} }] } } }",
            "R.route.weighted_clusters.clusters[0].metadata_match: field `metadata_match` of ClusterWeight is not implemented",
        ),
    ];
    for (text, message) in table {
        refused(&route(text), &[message.replacen('R', ROUTE, 1)]);
    }
}

#[test]
fn listeners() {
    let table: &[(&str, &[&str])] = &[
        (
            "static_resources:\n  listeners:\n  - §§name: a",
            &[
                "static_resources.listeners[0].address: must be set",
                "static_resources.listeners[0].filter_chains: must have at least 1 entry, or there must be a `default_filter_chain`",
            ],
        ),
        (
            "static_resources:
  listeners:
  - name: a
    address: { socket_address: { §address: localhost, port_value: 1 } }
    filter_chains:
    - §{}",
            &[
                "static_resources.listeners[0].address.socket_address.address: `localhost` is no IP address",
                "static_resources.listeners[0].filter_chains[0].filters: must end with the HTTP connection manager or the TCP proxy",
            ],
        ),
        (
            "static_resources:
  clusters: [{ name: c }, { §name: c }]
  listeners:
  - name: a
    address: { socket_address: { address: '::', port_value: 1, §protocol: UDP } }
    listener_filters: [{ name: x, §typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }]
    filter_chains:
    - filters: [{ name: t, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c } }]
    - filter_chain_match: { server_names: [§'*bad'], prefix_ranges: [{ address_prefix: 1.2.3.4, §prefix_len: 33 }], §transport_protocol: quic }
      filters: [{ name: t, §typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c } }, §{ name: n }]
  - §name: a
    address: { socket_address: { address: '::', port_value: 1 } }
    default_filter_chain: { filters: [{ name: t, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, §cluster: nope } }] }",
            &[
                "static_resources.clusters[1].name: a second cluster `c`",
                "static_resources.listeners[0].address.socket_address.protocol: UDP is not implemented",
                "static_resources.listeners[0].listener_filters[0].typed_config: `envoy.extensions.filters.http.router.v3.Router` is no listener filter that is implemented",
                "static_resources.listeners[0].filter_chains[1].filter_chain_match.server_names[0]: `*bad`: a wildcard is `*.` at the beginning",
                "static_resources.listeners[0].filter_chains[1].filter_chain_match.prefix_ranges[0].prefix_len: 33 bits are more than the address has",
                "static_resources.listeners[0].filter_chains[1].filter_chain_match.transport_protocol: `quic` is not implemented (raw_buffer or tls)",
                "static_resources.listeners[0].filter_chains[1].filters[0].typed_config: must be the last filter of its chain",
                "static_resources.listeners[0].filter_chains[1].filters[1].typed_config: must be set",
                "static_resources.listeners[1].name: a second listener `a`",
                "static_resources.listeners[1].default_filter_chain.filters[0].typed_config.cluster: unknown cluster `nope`: no cluster of that name is defined",
            ],
        ),
        (
            "admin: { §access_log_path: /tmp/log, address: { socket_address: { address: ::1, port_value: 1 } } }",
            &["admin.access_log_path: only /dev/null is implemented: admin requests are not logged"],
        ),
    ];
    for (text, messages) in table {
        let messages: Vec<String> = messages.iter().map(|message| (*message).to_owned()).collect();
        refused(text, &messages);
    }
}

#[test]
fn filters_that_would_act_in_another_order_are_pointed_at() {
    let filter = |name: &str, kind: &str| {
        format!(
            "          - {{ name: {name}, §typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.http.{kind} }} }}\n"
        )
    };
    let text = format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: 80 }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config: {{}}
          http_filters:
{}{}{}",
        filter("cors", "cors.v3.Cors").replace(MARK, ""),
        filter("rbac", "rbac.v3.RBAC"),
        filter("router", "router.v3.Router").replace(MARK, ""),
    );
    let path =
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[1].typed_config";
    refused(
        &text,
        &[format!("warning: {path}: `rbac` acts before `cors` here, whatever their order in the file")],
    );
}

#[test]
fn form_and_meaning_are_reported_in_one_run_and_each_fault_once() {
    let text = "static_resources:
  clusters:
  - name: c
    lb_policy: §NONE
    dns_lookup_family: v4_only
    §type: EDS
    connect_timeout: §5
  - name: c2
    §tpye: STATIC";
    let messages = [
        "static_resources.clusters[0].lb_policy: `NONE` is no value of LbPolicy (one of ROUND_ROBIN, LEAST_REQUEST, RING_HASH, RANDOM, MAGLEV, CLUSTER_PROVIDED, LOAD_BALANCING_POLICY_CONFIG)",
        "static_resources.clusters[0].type: EDS needs a control stream, which a static file does not have",
        "static_resources.clusters[0].connect_timeout: expected a duration such as `0.25s`, found an integer",
        "static_resources.clusters[1].tpye: unknown field `tpye` (did you mean `type`?)",
    ];
    refused(text, &messages.map(str::to_owned));
}
