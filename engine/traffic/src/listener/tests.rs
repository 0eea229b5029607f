//! The precedence of filter chain criteria, step by step.

use super::*;
use corelane_snapshot::{
    Cidr, ClusterId, FilterChain, FilterChainMatch, Listener, ListenerFilters, ListenerId, ListenerStats,
    SourceType, StatBlock, TcpProxy, TcpTarget, Terminal, TrafficDirection, TransportProtocol,
};
use std::{net::SocketAddr, sync::Arc};

fn chain(name: &str, matches: FilterChainMatch) -> Arc<FilterChain> {
    let proxy = TcpProxy {
        target: TcpTarget::Cluster(ClusterId(0)),
        idle_timeout: None,
        connect_attempts_max: 1,
        connection_duration_max: None,
        hash_policy: Vec::new(),
        access_log: Vec::new(),
        stats: StatBlock::default(),
    };
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        handshake_timeout: None,
        network_filters: Vec::new(),
        terminal: Terminal::Tcp(Arc::new(proxy)),
    })
}

fn listener(chains: Vec<(&str, FilterChainMatch)>, default: bool) -> Listener {
    Listener {
        id: ListenerId(0),
        name: "inbound".into(),
        address: addr("0.0.0.0:15006"),
        bind_to_port: true,
        use_original_dst: true,
        transparent: false,
        freebind: false,
        ipv4_compat: false,
        backlog: 1024,
        tcp_keepalive: None,
        direction: TrafficDirection::Inbound,
        filters: ListenerFilters::default(),
        filters_timeout: None,
        continue_on_filters_timeout: false,
        chains: chains.into_iter().map(|(name, matches)| chain(name, matches)).collect(),
        default_chain: default.then(|| chain("default", FilterChainMatch::default())),
        connections_max: None,
        access_log: Vec::new(),
        live: Arc::default(),
        stats: ListenerStats::default(),
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Vec<Cidr> {
    vec![Cidr(text.parse().unwrap())]
}

fn facts() -> ConnectionFacts<'static> {
    ConnectionFacts {
        destination: addr("10.0.0.5:8080"),
        source: addr("10.1.0.7:40000"),
        direct_source: addr("10.1.0.7:40000"),
        server_name: None,
        transport: None,
        application_protocols: &[],
    }
}

fn picked(chains: Vec<(&str, FilterChainMatch)>, facts: &ConnectionFacts<'_>) -> String {
    let listener = listener(chains, true);
    pick_chain(&listener, facts).unwrap().name.clone()
}

fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

/// Each criterion in turn, against a chain that asks for all criteria after it and none before.
#[test]
fn an_earlier_criterion_outweighs_all_later_ones() {
    let protocols = [b"h2".to_vec()];
    let facts = ConnectionFacts {
        server_name: Some("a.example"),
        transport: Some(TransportProtocol::Tls),
        application_protocols: &protocols,
        ..facts()
    };
    let set: [fn(&mut FilterChainMatch); 9] = [
        |m| m.destination_port = Some(8080),
        |m| m.destination = cidr("10.0.0.0/24"),
        |m| m.server_names = vec!["a.example".into()],
        |m| m.transport_protocol = Some(TransportProtocol::Tls),
        |m| m.application_protocols = vec![b"h2".to_vec()],
        |m| m.direct_source = cidr("10.1.0.0/16"),
        |m| m.source_type = SourceType::External,
        |m| m.source = cidr("10.1.0.7/32"),
        |m| m.source_ports = vec![40000],
    ];
    for step in 0..set.len() {
        let (mut one, mut rest) = (any(), any());
        set[step](&mut one);
        set[step + 1..].iter().for_each(|set| set(&mut rest));
        let name = picked(vec![("rest", rest), ("one", one)], &facts);
        assert_eq!(name, "one", "criterion {step}");
    }
}

#[test]
fn the_most_specific_of_one_criterion_wins() {
    let ranges = || {
        vec![
            ("any", any()),
            ("all", FilterChainMatch { destination: cidr("0.0.0.0/0"), ..any() }),
            ("net", FilterChainMatch { destination: cidr("10.0.0.0/8"), ..any() }),
            ("host", FilterChainMatch { destination: cidr("10.0.0.5/32"), ..any() }),
        ]
    };
    for (destination, name) in [
        ("10.0.0.5:1", "host"),
        ("10.9.9.9:1", "net"),
        ("11.0.0.1:1", "all"),
        ("[fd00::1]:1", "any"),
        ("[::ffff:10.0.0.5]:1", "host"),
    ] {
        assert_eq!(picked(ranges(), &ConnectionFacts { destination: addr(destination), ..facts() }), name);
    }
    let names = |names: &[&str]| FilterChainMatch {
        server_names: names.iter().map(|n| n.to_string()).collect(),
        ..any()
    };
    let by_name = || {
        vec![
            ("none", any()),
            ("wide", names(&["*.com"])),
            ("narrow", names(&["*.example.com"])),
            ("exact", names(&["a.example.com", "b.org"])),
        ]
    };
    for (name, chain) in [
        (Some("a.example.com"), "exact"),
        (Some("A.Example.COM"), "exact"),
        (Some("b.org"), "exact"),
        (Some("x.y.example.com"), "narrow"),
        (Some("example.com"), "wide"),
        (Some("c.org"), "none"),
        (None, "none"),
    ] {
        assert_eq!(picked(by_name(), &ConnectionFacts { server_name: name, ..facts() }), chain, "{name:?}");
    }
}

#[test]
fn there_is_no_way_back() {
    let chains = vec![
        (
            "port",
            FilterChainMatch {
                destination_port: Some(8080),
                server_names: vec!["a.example".into()],
                ..any()
            },
        ),
        ("other", any()),
    ];
    assert_eq!(
        picked(chains.clone(), &ConnectionFacts { server_name: Some("a.example"), ..facts() }),
        "port"
    );
    assert_eq!(
        picked(chains.clone(), &ConnectionFacts { server_name: Some("b.example"), ..facts() }),
        "default"
    );
    assert_eq!(picked(chains, &ConnectionFacts { destination: addr("10.0.0.5:81"), ..facts() }), "other");
}

/// Istio's inbound listener: mTLS, plaintext and pass-through on the same port.
#[test]
fn permissive_mode_tells_plaintext_from_tls() {
    let protocol = |transport, alpn: &[&str]| FilterChainMatch {
        destination_port: Some(8080),
        transport_protocol: Some(transport),
        application_protocols: alpn.iter().map(|a| a.as_bytes().to_vec()).collect(),
        ..any()
    };
    let chains = || {
        vec![
            ("mtls", protocol(TransportProtocol::Tls, &["istio", "istio-http/1.1", "istio-h2"])),
            ("tls", protocol(TransportProtocol::Tls, &[])),
            ("plain", protocol(TransportProtocol::RawBuffer, &[])),
        ]
    };
    for (transport, alpn, name) in [
        (Some(TransportProtocol::Tls), &["istio-h2", "h2"][..], "mtls"),
        (Some(TransportProtocol::Tls), &["h2"], "tls"),
        (Some(TransportProtocol::RawBuffer), &["http/1.1"], "plain"),
        (None, &[], "plain"),
    ] {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
        let facts = ConnectionFacts { transport, application_protocols: &alpn, ..facts() };
        assert_eq!(picked(chains(), &facts), name);
    }
}

#[test]
fn the_first_protocol_of_the_client_counts() {
    let alpn = |p: &str| FilterChainMatch { application_protocols: vec![p.as_bytes().to_vec()], ..any() };
    let offered = [b"b".to_vec(), b"a".to_vec()];
    let facts = ConnectionFacts { application_protocols: &offered, ..facts() };
    assert_eq!(picked(vec![("a", alpn("a")), ("b", alpn("b"))], &facts), "b");
}

#[test]
fn where_it_comes_from() {
    let source = |source_type| FilterChainMatch { source_type, ..any() };
    let chains =
        || vec![("local", source(SourceType::SameIpOrLoopback)), ("external", source(SourceType::External))];
    for (from, name) in
        [("127.0.0.1:1", "local"), ("10.0.0.5:1", "local"), ("10.0.0.6:1", "external"), ("[::1]:1", "local")]
    {
        assert_eq!(picked(chains(), &ConnectionFacts { source: addr(from), ..facts() }), name, "{from}");
    }
}

#[test]
fn nothing_matches() {
    let port = |port| FilterChainMatch { destination_port: Some(port), ..any() };
    assert!(pick_chain(&listener(vec![("a", port(1))], false), &facts()).is_none());
    assert_eq!(pick_chain(&listener(vec![("a", port(1))], true), &facts()).unwrap().name, "default");
}
