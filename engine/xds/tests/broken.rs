//! Every fault of a file is found in one pass, with line, column and field path.

mod support;

use support::{lines, read};

/// Indentation of two, so that columns can be counted.
fn findings(text: &str) -> Vec<String> {
    lines(read(text).findings())
}

#[test]
fn a_sound_file_has_no_findings() {
    let document = read(&support::fixture("minimal.yaml"));
    assert_eq!(lines(document.findings()), Vec::<String>::new());
    assert!(document.is_sound());
}

#[test]
fn each_fault_is_named_and_located() {
    let table: &[(&str, &[&str])] = &[
        ("[]", &["1:1: expected a mapping (Bootstrap), found a list"]),
        (
            "sttaic_resources: {}",
            &["1:1: sttaic_resources: unknown field `sttaic_resources` (did you mean `static_resources`?)"],
        ),
        ("zebra: 1", &["1:1: zebra: unknown field `zebra` of Bootstrap"]),
        ("admin: {}\nadmin: {}", &["2:1: admin: duplicate field, first set in line 1"]),
        ("node: { id: 7 }", &["1:13: node.id: expected a string, found an integer: put it in quotes"]),
        (
            "node: { id: a, locality: [] }",
            &["1:26: node.locality: expected a mapping (Locality), found a list"],
        ),
        (
            "admin: { address: { socket_address: { address: ::1, port_value: 70000 } } }",
            &["1:53: admin.address.socket_address.port_value: must be at most 65535, is 70000"],
        ),
        (
            "admin: { address: { socket_address: { address: ::1, port_value: -1 } } }",
            &["1:65: admin.address.socket_address.port_value: -1 is out of range (0 to 4294967295)"],
        ),
        (
            "admin: { address: { socket_address: { address: ::1, port_value: 1, named_port: http } } }",
            &[
                "1:68: admin.address.socket_address.named_port: field `named_port` of SocketAddress is not implemented",
            ],
        ),
        (
            "static_resources: { secrets: [{ name: a, tls_certificate: {}, validation_context: {} }] }",
            &[
                "1:63: static_resources.secrets[0].validation_context: only one of `tls_certificate` and `validation_context` may be set",
            ],
        ),
        (
            "static_resources: { listeners: [{ metadata: { typed_filter_metadata: { x: { '@type': a/b.C, q: 1 } }, z: 1 } }] }",
            &["1:103: static_resources.listeners[0].metadata.z: unknown field `z` of Metadata"],
        ),
        (
            "overload_manager: { actions: [{ anything: [goes, here] }], resource: 1 }",
            &["1:1: overload_manager: field `overload_manager` of Bootstrap is not implemented"],
        ),
        (
            "admin: { address: { pipe: { path: /x } } }",
            &["1:21: admin.address.pipe: field `pipe` of Address is not implemented"],
        ),
        ("admin: { address: {} }", &["1:10: admin.address: one of `socket_address` must be set"]),
        (
            "overload_manager: {}\nstats_flush_interval: 5s",
            &["1:1: overload_manager: field `overload_manager` of Bootstrap is not implemented"],
        ),
        (
            "stats_flush_interval: 250ms",
            &[
                "1:23: stats_flush_interval: `250ms` is no duration: write seconds with the suffix `s`, such as `0.25s`",
            ],
        ),
        (
            "static_resources:\n  clusters:\n  - name: ''\n    lb_policy: ROUND_ROBBIN\n    connectTimeout: 0s",
            &[
                "4:16: static_resources.clusters[0].lb_policy: `ROUND_ROBBIN` is no value of LbPolicy (did you mean `ROUND_ROBIN`?)",
                "3:5: static_resources.clusters[0].name: must not be empty",
                "5:5: static_resources.clusters[0].connect_timeout: must be above 0s, is 0s",
            ],
        ),
        (
            "static_resources:\n  listeners:\n  - listener_filters:\n    - name: x\n      typed_config:\n        '@type': a/b.C\n    - name: y\n      typed_config: {}\n    - name: z\n      typed_config: { '@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: x/stats.PluginConfig }",
            &[
                "6:18: static_resources.listeners[0].listener_filters[0].typed_config: extension type `b.C` is not implemented",
                "8:21: static_resources.listeners[0].listener_filters[1].typed_config: `@type` is missing",
                "10:32: static_resources.listeners[0].listener_filters[2].typed_config: extension type `stats.PluginConfig` (in a udpa.type.v1.TypedStruct) is not implemented",
            ],
        ),
        (
            "static_resources:\n  listeners:\n  - filter_chains:\n    - filters:\n      - name: tcp\n        typed_config:\n          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n          cluster: a\n          tunneling_config: { hostname: h }",
            &[
                "9:11: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.tunneling_config: field `tunneling_config` of TcpProxy is not implemented",
                "6:9: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefix: must not be empty",
            ],
        ),
        (
            "static_resources:\n  clusters:\n  - name: a\n    typed_extension_protocol_options:\n      k:\n        '@type': envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        explicit_http_config: {}\n      k: {}",
            &["8:7: static_resources.clusters[0].typed_extension_protocol_options[k]: duplicate key"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(findings(text), *expected, "{text}");
    }
}
