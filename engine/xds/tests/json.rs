//! Reading, encoding and dumping a file gives back what it said.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_xds::{Document, Error, Schema, to_json};
use support::{fixture, read, tree};

const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";

#[test]
fn a_dump_reads_back_as_the_same_configuration() {
    let schema = Schema::load().unwrap();
    for name in ["minimal.yaml", "first_example.yaml", "istio_like_inbound.yaml"] {
        let document = read(&fixture(name));
        let json = to_json(&schema, BOOTSTRAP, &document.encoded).unwrap();
        let read_again = tree(&json);
        let again = Document::read(&schema, &read_again).unwrap();
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
fn bytes_that_are_no_message_are_refused() {
    let schema = Schema::load().unwrap();
    assert!(matches!(to_json(&schema, "a/b.C", &[]), Err(Error::UnknownType(name)) if name == "b.C"));
    assert!(matches!(to_json(&schema, BOOTSTRAP, &[0xff]), Err(Error::Decode { .. })));
}
