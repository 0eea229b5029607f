//! The examples of "x-forwarded-for" in Envoy's documentation, and the rules around them.

use super::*;

const RANDOM: [u8; 16] = [9; 16];

/// internal_address_config with 10.0.0.0/8.
fn is_ours(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10)
}

fn rules() -> ForwardedRules<'static> {
    ForwardedRules {
        use_remote_address: false,
        skip_xff_append: false,
        xff_trusted_hops: 0,
        via: None,
        generate_request_id: true,
        preserve_external_request_id: false,
        scheme_overwrite: None,
        node_address: None,
        is_internal: &is_ours,
    }
}

struct Outcome {
    origin: Origin,
    head: RequestHead,
}

impl Outcome {
    fn get(&self, known: Known) -> Option<&str> {
        self.head.fields.get(known).map(|v| std::str::from_utf8(v).unwrap())
    }
}

fn apply(rules: ForwardedRules<'_>, peer: &str, lines: &[(Known, &str)]) -> Outcome {
    let mut head = RequestHead::new();
    for (known, value) in lines {
        head.fields.append_known(*known, value.as_bytes());
    }
    let peer = Peer { address: peer.parse().unwrap(), is_tls: false };
    let origin = apply_forwarded_rules(&mut head, &rules, &peer, RANDOM).unwrap();
    Outcome { origin, head }
}

const THREE: &str = "203.0.113.128, 203.0.113.10, 203.0.113.1";
const FOUR: &str = "203.0.113.128, 203.0.113.10, 203.0.113.1, 192.0.2.5";

#[test]
fn example_1_edge_proxy() {
    let rules = ForwardedRules { use_remote_address: true, ..rules() };
    let out = apply(rules, "192.0.2.5", &[(Known::XForwardedFor, THREE), (Known::XEnvoyInternal, "true")]);
    assert_eq!(out.origin, Origin { client: "192.0.2.5".parse().unwrap(), is_internal: false });
    assert_eq!(out.get(Known::XEnvoyExternalAddress), Some("192.0.2.5"));
    assert_eq!(out.get(Known::XForwardedFor), Some("203.0.113.128, 203.0.113.10, 203.0.113.1,192.0.2.5"));
    assert_eq!(out.get(Known::XEnvoyInternal), None);
}

#[test]
fn example_2_internal_proxy_behind_it() {
    let out = apply(rules(), "10.11.12.13", &[(Known::XForwardedFor, FOUR), (Known::XEnvoyInternal, "true")]);
    assert_eq!(out.origin, Origin { client: "192.0.2.5".parse().unwrap(), is_internal: false });
    assert_eq!(out.get(Known::XEnvoyExternalAddress), None);
    assert_eq!(out.get(Known::XForwardedFor), Some(FOUR));
    assert_eq!(out.get(Known::XEnvoyInternal), None);
}

#[test]
fn example_3_edge_proxy_behind_two_trusted() {
    let rules = ForwardedRules { use_remote_address: true, xff_trusted_hops: 2, ..rules() };
    let out = apply(rules, "192.0.2.5", &[(Known::XForwardedFor, THREE)]);
    assert_eq!(out.origin, Origin { client: "203.0.113.10".parse().unwrap(), is_internal: false });
    assert_eq!(out.get(Known::XEnvoyExternalAddress), Some("203.0.113.10"));
    assert_eq!(out.get(Known::XEnvoyInternal), None);
}

#[test]
fn example_4_internal_proxy_behind_that() {
    let rules = ForwardedRules { xff_trusted_hops: 2, ..rules() };
    let out = apply(rules, "10.11.12.13", &[(Known::XForwardedFor, FOUR)]);
    assert_eq!(out.origin, Origin { client: "203.0.113.10".parse().unwrap(), is_internal: false });
    assert_eq!(out.get(Known::XEnvoyInternal), None);
}

#[test]
fn example_5_internal_client_without_xff() {
    let out = apply(rules(), "10.20.30.40", &[]);
    assert_eq!(out.origin, Origin { client: "10.20.30.40".parse().unwrap(), is_internal: false });
    assert_eq!(out.get(Known::XEnvoyExternalAddress), None);
    assert_eq!(out.get(Known::XEnvoyInternal), None);
}

#[test]
fn example_6_internal_client_behind_another_proxy() {
    let lines = [(Known::XForwardedFor, "10.20.30.40"), (Known::XEnvoyRetryOn, "5xx")];
    let out = apply(rules(), "10.20.30.50", &lines);
    assert_eq!(out.origin, Origin { client: "10.20.30.40".parse().unwrap(), is_internal: true });
    assert_eq!(out.get(Known::XEnvoyExternalAddress), None);
    assert_eq!(out.get(Known::XEnvoyInternal), Some("true"));
    assert_eq!(out.get(Known::XEnvoyRetryOn), Some("5xx"));
}

#[test]
fn too_few_or_broken_addresses_fall_back_to_the_peer() {
    for (hops, xff) in [(3, THREE), (0, "unknown"), (0, ""), (0, "203.0.113.1:80"), (9, THREE)] {
        let rules = ForwardedRules { xff_trusted_hops: hops, ..rules() };
        let out = apply(rules, "10.0.0.1", &[(Known::XForwardedFor, xff)]);
        assert_eq!(out.origin, Origin { client: "10.0.0.1".parse().unwrap(), is_internal: false }, "{xff}");
    }
}

#[test]
fn several_lines_are_one_list() {
    let lines = [(Known::XForwardedFor, "10.0.0.1"), (Known::XForwardedFor, "10.0.0.2")];
    let out = apply(rules(), "10.0.0.3", &lines);
    assert_eq!(out.origin, Origin { client: "10.0.0.2".parse().unwrap(), is_internal: false });
}

#[test]
fn wishes_of_strangers_are_removed() {
    let wishes = [
        Known::XEnvoyRetryOn,
        Known::XEnvoyMaxRetries,
        Known::XEnvoyUpstreamRqTimeoutMs,
        Known::XEnvoyForceTrace,
        Known::XEnvoyDecoratorOperation,
        Known::XEnvoyInternal,
    ];
    let lines = wishes.map(|known| (known, "1"));
    let edge = ForwardedRules { use_remote_address: true, ..rules() };
    let out = apply(edge, "203.0.113.7", &lines);
    wishes.iter().for_each(|&known| assert_eq!(out.get(known), None, "{known:?}"));
    let out = apply(rules(), "10.0.0.1", &lines);
    assert_eq!(out.get(Known::XEnvoyDecoratorOperation), Some("1"), "only the edge removes it");
    assert_eq!(out.get(Known::XEnvoyRetryOn), None);
    let inside = apply(edge, "10.0.0.1", &lines);
    assert_eq!(inside.get(Known::XEnvoyRetryOn), Some("1"));
    assert_eq!(inside.get(Known::XEnvoyInternal), Some("true"));
}

#[test]
fn proto_is_trusted_from_trusted_hops_only() {
    let edge = ForwardedRules { use_remote_address: true, ..rules() };
    let lines = [(Known::XForwardedProto, "https")];
    let out = apply(edge, "203.0.113.7", &lines);
    assert_eq!((out.get(Known::XForwardedProto), out.head.scheme()), (Some("http"), &b"http"[..]));
    let out = apply(ForwardedRules { xff_trusted_hops: 1, ..edge }, "203.0.113.7", &lines);
    assert_eq!((out.get(Known::XForwardedProto), out.head.scheme()), (Some("https"), &b"https"[..]));
    let out = apply(rules(), "10.0.0.1", &lines);
    assert_eq!((out.get(Known::XForwardedProto), out.head.scheme()), (Some("https"), &b"https"[..]));
    let over = ForwardedRules { scheme_overwrite: Some(b"https"), ..rules() };
    let out = apply(over, "10.0.0.1", &[]);
    assert_eq!((out.get(Known::XForwardedProto), out.head.scheme()), (Some("https"), &b"https"[..]));
}

#[test]
fn https_is_not_believed_without_tls() {
    let mut head = RequestHead::new();
    head.set_scheme(b"https").unwrap();
    let peer = Peer { address: "10.0.0.1".parse().unwrap(), is_tls: false };
    assert_eq!(apply_forwarded_rules(&mut head, &rules(), &peer, RANDOM), Err(HttpError::InvalidTarget));
    head.version = Version::H2;
    assert!(apply_forwarded_rules(&mut head, &rules(), &peer, RANDOM).is_ok());
}

#[test]
fn request_ids() {
    let fresh = "09090909-0909-4909-8909-090909090909";
    let given = [(Known::XRequestId, "given")];
    let edge = ForwardedRules { use_remote_address: true, ..rules() };
    for (rules, lines, expected) in [
        (rules(), &[][..], Some(fresh)),
        (rules(), &given[..], Some("given")),
        (edge, &given[..], Some(fresh)),
        (ForwardedRules { preserve_external_request_id: true, ..edge }, &given[..], Some("given")),
        (ForwardedRules { preserve_external_request_id: true, ..edge }, &[][..], Some(fresh)),
        (ForwardedRules { generate_request_id: false, ..edge }, &given[..], Some("given")),
        (ForwardedRules { generate_request_id: false, ..edge }, &[][..], None),
    ] {
        assert_eq!(apply(rules, "203.0.113.7", lines).get(Known::XRequestId), expected);
    }
}

#[test]
fn loopback_peers_and_via() {
    let rules = ForwardedRules {
        use_remote_address: true,
        node_address: Some("10.1.1.1".parse().unwrap()),
        via: Some(b"1.1 corelane"),
        ..rules()
    };
    let out = apply(rules, "127.0.0.1", &[(Known::Via, "1.0 fred")]);
    assert_eq!(out.get(Known::XForwardedFor), Some("10.1.1.1"));
    assert_eq!(out.get(Known::Via), Some("1.0 fred, 1.1 corelane"));
    let out = apply(ForwardedRules { skip_xff_append: true, ..rules }, "203.0.113.7", &[]);
    assert_eq!(out.get(Known::XForwardedFor), None);
    let out = apply(rules, "::ffff:203.0.113.7", &[]);
    assert_eq!(out.get(Known::XForwardedFor), Some("203.0.113.7"));
    assert_eq!(out.get(Known::Via), Some("1.1 corelane"));
}

#[test]
fn addresses_are_written_as_the_standard_library_does() {
    let mut text = AddressText::new();
    for octet in 0..=u8::MAX {
        for address in [IpAddr::from([octet, 0, 10, octet]), IpAddr::from([octet, octet, octet, octet])] {
            assert_eq!(text.write(address), address.to_string().as_bytes());
        }
    }
    for address in ["2001:db8::1", "::", "::ffff:1.2.3.4", "1111:2222:3333:4444:5555:6666:7777:8888"] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(text.write(address), address.to_canonical().to_string().as_bytes());
    }
}

#[test]
fn an_address_that_we_append_is_the_last_of_all_lines() {
    let rules = ForwardedRules { use_remote_address: true, ..rules() };
    let lines = [(Known::XForwardedFor, "1.1.1.1"), (Known::XForwardedFor, "2.2.2.2")];
    let out = apply(rules, "203.0.113.7", &lines);
    let all: Vec<&[u8]> = out.head.fields.get_all(Known::XForwardedFor).collect();
    assert_eq!(all, [&b"1.1.1.1"[..], b"2.2.2.2,203.0.113.7"]);
}

#[test]
fn referers() {
    for (values, kept) in [
        (&["https://a/b?c"][..], true),
        (&["http://a"], true),
        (&["/relative"], false),
        (&["about:blank"], false),
        (&["://a"], false),
        (&["http://"], false),
        (&["ht tp://a"], false),
        (&["http://a", "http://a"], false),
    ] {
        let lines: Vec<(Known, &str)> = values.iter().map(|v| (Known::Referer, *v)).collect();
        assert_eq!(apply(rules(), "10.0.0.1", &lines).get(Known::Referer).is_some(), kept, "{values:?}");
    }
}
