//! Reading, encoding and dumping a file gives back what it said.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_xds::{Document, Error, Schema, config_dump, to_json};
use support::{fixture, read, tree};

const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";

#[test]
fn a_dump_reads_back_as_the_same_configuration() {
    let schema = Schema::load().unwrap();
    for name in ["minimal.yaml", "first_example.yaml", "istio_like_inbound.yaml"] {
        let document = read(&fixture(name));
        let json = to_json(&schema, BOOTSTRAP, &document.encoded).unwrap();
        let again = Document::read(&schema, &tree(&json)).unwrap();
        assert!(again.is_sound(), "{name}: {:?}", again.findings());
        let json_again = to_json(&schema, BOOTSTRAP, &again.encoded).unwrap();
        assert_eq!(json_again, json, "{name}");
    }
}

#[test]
fn values_are_written_as_the_protobuf_json_mapping_says() {
    let schema = Schema::load().unwrap();
    let text = "node: { id: \"a\\\"\\n\\u0001\", metadata: { f: 1.5, b: true, n: ~, l: [1, x], o: {} } }\n\
                stats_flush_interval: 0.250s\n\
                admin: { address: { socket_address: { address: ::1, port_value: 0 } } }";
    let document = read(text);
    assert_eq!(
        to_json(&schema, BOOTSTRAP, &document.encoded).unwrap(),
        "{\"node\":{\"id\":\"a\\\"\\n\\u0001\",\"metadata\":{\"b\":true,\"f\":1.5,\"l\":[1,\"x\"],\"n\":null,\"o\":{}}},\
         \"stats_flush_interval\":\"0.25s\",\
         \"admin\":{\"address\":{\"socket_address\":{\"address\":\"::1\",\"port_value\":0}}}}"
    );
}

#[test]
fn private_keys_are_redacted() {
    let schema = Schema::load().unwrap();
    let document = read(&fixture("istio_like_inbound.yaml"));
    let json = to_json(&schema, BOOTSTRAP, &document.encoded).unwrap();
    // base64 of "secret" and of "[redacted]"
    assert!(!json.contains("c2VjcmV0") && json.contains("W3JlZGFjdGVkXQ=="));
    assert!(json.contains("-----BEGIN CERTIFICATE-----"), "the chain is no secret");
}

#[test]
fn the_config_dump_has_envoys_shape() {
    let schema = Schema::load().unwrap();
    let document = read(&fixture("first_example.yaml"));
    let dump = config_dump(&schema, &document.encoded, "2026-01-02T03:04:05.000Z").unwrap();
    tree(&dump);
    for part in [
        "{\"configs\":[{\"@type\":\"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump\",\"bootstrap\":{\"node\":{",
        "\"static_clusters\":[{\"cluster\":{\"@type\":\"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\"name\":\"payments-v1\"",
        "\"static_listeners\":[{\"listener\":{\"@type\":\"type.googleapis.com/envoy.config.listener.v3.Listener\",\"name\":\"outbound\"",
        "\"static_route_configs\":[{\"route_config\":{\"@type\":\"type.googleapis.com/envoy.config.route.v3.RouteConfiguration\",\"name\":\"outbound\"",
        "\"static_secrets\":[{\"name\":\"default\",\"secret\":{\"@type\":\"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\",\"name\":\"default\"",
        "},\"last_updated\":\"2026-01-02T03:04:05.000Z\"}]}]}",
    ] {
        assert!(dump.contains(part), "{part}\n{dump}");
    }
}

#[test]
fn an_empty_bootstrap_dumps_too() {
    let schema = Schema::load().unwrap();
    let dump = config_dump(&schema, &[], "now").unwrap();
    tree(&dump);
    assert!(dump.contains("\"static_listeners\":[]"));
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let schema = Schema::load().unwrap();
    assert!(matches!(to_json(&schema, "a/b.C", &[]), Err(Error::UnknownType(name)) if name == "b.C"));
    assert!(matches!(to_json(&schema, BOOTSTRAP, &[0xff]), Err(Error::Decode { .. })));
}
