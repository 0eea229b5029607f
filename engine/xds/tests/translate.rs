//! Whole files into snapshots: what an operator writes is what a request will see.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_snapshot::*;
use corelane_xds::translate::{self, Translation};
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use support::{fixture, lines, read};

/// Numbers scopes in the order in which they come.
#[derive(Default)]
struct Counted(HashMap<StatScope, u32>);

impl StatAllocator for Counted {
    fn block(&mut self, scope: StatScope) -> StatBlock {
        let next = self.0.len() as u32;
        StatBlock(*self.0.entry(scope).or_insert(next))
    }
}

fn builder() -> Builder {
    Builder::new(Box::new(Counted::default()))
}

fn translate(text: &str) -> (Snapshot, Translation, Builder) {
    let mut builder = builder();
    let translation = translate::bootstrap(&read(text), &mut builder);
    (builder.build().unwrap(), translation, builder)
}

fn manager(chain: &FilterChain) -> &HttpConnectionManager {
    match &chain.terminal {
        Terminal::Http(manager) => manager,
        Terminal::Tcp(_) => panic!("not HTTP"),
    }
}

fn table(manager: &HttpConnectionManager) -> &RouteTable {
    match &manager.routes {
        RouteSource::Inline(table) => table,
        RouteSource::Named(_) => panic!("not inline"),
    }
}

#[test]
fn the_minimal_file_has_envoys_defaults() {
    let (snapshot, translation, _) = translate(&fixture("minimal.yaml"));
    assert_eq!(lines(&translation.findings), Vec::<String>::new());
    assert_eq!(translation.admin.unwrap().address, "127.0.0.1:9901".parse::<SocketAddr>().unwrap());
    let listener = &snapshot.listeners[0];
    assert_eq!((listener.name.as_str(), listener.address.port()), ("listener_0", 10000));
    assert!(listener.bind_to_port);
    assert_eq!(listener.filters_timeout, Some(Duration::from_secs(15)));
    let manager = manager(&listener.chains[0]);
    assert_eq!(manager.codec, Codec::Auto);
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(manager.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(manager.request_timeout, None);
    assert_eq!((manager.request_head_bytes_max, manager.header_fields_max), (60 << 10, 100));
    assert!(manager.request_id.generate);
    assert_eq!(&*manager.server_name, "envoy");
    let host = &table(manager).hosts.hosts[table(manager).hosts.any.unwrap() as usize];
    let Action::Forward(forward) = &host.routes[0].action else { panic!("no forward") };
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    assert!(forward.retry.is_none());
    let ClusterSpecifier::Cluster(id) = forward.target else { panic!("no cluster") };
    let cluster = snapshot.cluster(id).unwrap();
    assert_eq!(cluster.config.name, "some_service");
    assert_eq!(cluster.config.connect_timeout, Duration::from_millis(250));
    assert_eq!(cluster.config.breakers.connections_max, 1024);
    assert_eq!(cluster.config.retry_budget, RetryBudget::default());
    assert_eq!(cluster.endpoints.endpoints[0].address, "127.0.0.1:1234".parse::<SocketAddr>().unwrap());
    assert!(matches!(cluster.config.transport.sockets[..], [TransportSocket::Plain]));
}

#[test]
fn the_first_example_of_the_mission() {
    let (snapshot, translation, mut builder) = translate(&fixture("first_example.yaml"));
    assert_eq!(lines(&translation.findings), Vec::<String>::new());
    assert_eq!(translation.node.cluster, "orders.prod");
    assert_eq!(&*translation.node.locality.zone, "a");
    let manager = manager(&snapshot.listeners[0].chains[0]);
    assert_eq!(manager.access_log[0].sink, AccessLogSink::Stdout);
    let hosts = &table(manager).hosts;
    assert_eq!(hosts.exact.len(), 3);
    assert_eq!(&*hosts.suffixes[0].0, b".payments.example");
    assert_eq!(&*hosts.prefixes[0].0, b"payments.");
    let route = &hosts.hosts[0].routes[0];
    let Action::Forward(forward) = &route.action else { panic!("no forward") };
    let ClusterSpecifier::Weighted { clusters, total } = &forward.target else { panic!("not weighted") };
    assert_eq!((clusters[0].weight, clusters[1].weight, *total), (95, 5, 100));
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!(retry.on, RetryOn::CONNECT_FAILURE.with(RetryOn::SERVER_ERROR).with(RetryOn::RESET));
    assert_eq!((retry.retries_max, retry.host_selection_attempts_max), (2, 5));
    assert_eq!(retry.per_try_timeout, Some(Duration::from_millis(250)));
    assert!(retry.avoid_previous_hosts);
    assert_eq!(retry.back_off, BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) });

    let v1 = snapshot.cluster_by_name("payments-v1").unwrap();
    let outlier = v1.config.outlier.as_ref().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.max_ejection_percent), (5, None));
    assert_eq!(outlier.max_ejection_time, Duration::from_secs(300));
    assert_eq!(v1.config.breakers.connections_max, 100);
    assert_eq!(v1.config.breakers.host_connections_max, Some(20));
    assert_eq!((v1.config.high.breakers.connections_max, v1.config.high.breakers.requests_max), (7, 1024));
    assert_eq!((v1.config.retry_budget.percent, v1.config.retry_budget.retries_min), (25.0, 5));
    let addresses: Vec<String> = v1.endpoints.endpoints.iter().map(|e| e.address.to_string()).collect();
    assert_eq!(
        addresses,
        ["127.0.0.2:8080", "127.0.0.3:8080", "127.0.0.4:8080"],
        "by priority, then address"
    );
    assert_eq!(v1.endpoints.priorities, 2);
    assert!(v1.endpoints.endpoints[0].canary);
    assert_eq!(v1.endpoints.localities[1].weight, Some(3));
    let HealthCheckKind::Http { path, expected_statuses, .. } = &v1.config.health_checks[0].kind else {
        panic!("no HTTP check")
    };
    assert_eq!((&**path, expected_statuses[0]), ("/healthz", RangeI64 { start: 200, end: 300 }));
    let TransportSocket::Tls(tls) = &v1.config.transport.sockets[0] else { panic!("no TLS") };
    assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.payments.prod.svc.cluster.local"));
    let certificate = tls.certificate.as_ref().unwrap();
    assert_eq!(certificate.key, DataSource::File("/etc/certs/key.pem".into()));
    let validation = tls.validation.as_ref().unwrap();
    assert_eq!(validation.trusted_ca, Some(DataSource::File("/etc/certs/root-cert.pem".into())));
    assert_eq!(validation.sans[0].kind, Some(SanKind::Uri));
    assert_eq!(
        validation.sans[0].matcher,
        StringMatcher::exact("spiffe://cluster.local/ns/prod/sa/payments")
    );

    let v2 = snapshot.cluster_by_name("payments-v2").unwrap();
    assert_eq!(v2.config.protocol, UpstreamProtocol::Http2);
    assert_eq!((v2.config.http2.streams_max, v2.config.pool.requests_per_connection_max), (50, 1000));
    assert_eq!(v2.endpoints.endpoints.len(), 1, "the address, not yet the name");
    let dns = &translation.dns_clusters[0];
    assert_eq!(dns.names().into_iter().collect::<Vec<_>>(), ["payments-v2.prod"]);
    let answers = HashMap::from([(
        "payments-v2.prod".to_owned(),
        vec!["127.0.0.8".parse().unwrap(), "127.0.0.7".parse().unwrap()],
    )]);
    let set = dns.endpoints(&mut builder, &answers);
    let resolved: Vec<_> =
        set.endpoints.iter().map(|e| (e.address.to_string(), e.hostname.to_string())).collect();
    let expected = [
        ("127.0.0.7:8080", "payments-v2.prod"),
        ("127.0.0.8:8080", "payments-v2.prod"),
        ("127.0.0.9:8081", ""),
    ];
    assert_eq!(resolved, expected.map(|(a, h)| (a.to_owned(), h.to_owned())));
    assert_eq!(
        set.endpoints[2].id, v2.endpoints.endpoints[0].id,
        "an endpoint that stays keeps its identity"
    );
}

#[test]
fn an_istio_like_inbound_listener() {
    let (snapshot, translation, _) = translate(&fixture("istio_like_inbound.yaml"));
    assert_eq!(lines(&translation.findings), Vec::<String>::new());
    let listener = &snapshot.listeners[0];
    assert_eq!(listener.direction, TrafficDirection::Inbound);
    assert_eq!(listener.filters_timeout, None, "0 s: wait for ever");
    assert!(listener.filters.original_dst && listener.filters.tls_inspector);
    assert_eq!(listener.filters.tls_inspector_off, [(15020, 15020)]);
    assert_eq!(listener.filters.http_inspector_off, [(3306, 3306), (6379, 6379)]);
    let chain = &listener.chains[0];
    assert_eq!(chain.matches.transport_protocol, Some(TransportProtocol::Tls));
    assert_eq!(chain.matches.application_protocols[2], b"istio-h2");
    let tls = chain.tls.as_ref().unwrap();
    assert!(tls.require_client_certificate && tls.session_tickets);
    assert_eq!(tls.session_timeout_s, Some(600));
    assert_eq!(tls.params.curves, ["X25519", "P-256"]);
    assert_eq!(tls.certificates[0].key, DataSource::Inline(b"secret".to_vec()));
    let [NetworkFilter::Rbac(rbac)] = &chain.network_filters[..] else { panic!("no network RBAC") };
    let rules = rbac.rules.as_ref().unwrap();
    assert_eq!(rules.action, RbacAction::Deny);
    let Principal::And(ids) = &rules.policies[0].principals[0] else { panic!("no and") };
    let Principal::DirectRemoteIp(cidr) = &ids[0] else { panic!("no address") };
    assert!(cidr.contains("10.1.255.1".parse().unwrap()) && !cidr.contains("10.2.0.1".parse().unwrap()));
    http_filters(manager(chain));
    routes(table(manager(chain)));
    let Terminal::Tcp(tcp) = &listener.chains[1].terminal else { panic!("no TCP proxy") };
    assert_eq!(tcp.idle_timeout, None);
    assert!(matches!(&tcp.target, TcpTarget::Weighted { total: 3, .. }));
    let passthrough = snapshot.cluster_by_name("InboundPassthroughCluster").unwrap();
    assert_eq!(passthrough.config.bind, Some("127.0.0.6:0".parse().unwrap()));
    assert_eq!(passthrough.config.protocol, UpstreamProtocol::UseDownstream);
    assert_eq!(passthrough.config.breakers.retries_max, Some(u32::MAX));
    assert!(matches!(passthrough.config.kind, ClusterKind::OriginalDst { port: Some(8080), .. }));
}

fn http_filters(manager: &HttpConnectionManager) {
    assert_eq!(manager.forward_client_cert, ForwardClientCert::AppendForward);
    assert!(manager.client_cert_details.uri && !manager.client_cert_details.cert);
    assert_eq!(manager.stream_idle_timeout, None);
    assert_eq!(&*manager.upgrades[0].kind, "websocket");
    assert!(manager.filters.cors);
    let grpc = manager.filters.grpc_stats.as_ref().unwrap();
    assert!(grpc.methods.is_empty() && !grpc.upstream_time);
    let rbac = &manager.filters.rbac[0];
    assert_eq!(rbac.shadow_rules.as_ref().unwrap().action, RbacAction::Deny);
    let policy = &rbac.rules.as_ref().unwrap().policies[0];
    let Permission::And(rules) = &policy.permissions[0] else { panic!("no and") };
    assert_eq!(rules[1], Permission::Not(Box::new(Permission::DestinationPort(15020))));
    assert_eq!(rules[2], Permission::DestinationPortRange(1, 65535));
    let limit = manager.filters.local_rate_limit.as_ref().unwrap();
    assert_eq!((limit.enabled, limit.enforced, limit.status), (Fraction::ALL, Fraction(500), 503));
    let bucket = &limit.buckets.default;
    assert_eq!((bucket.tokens_max, bucket.fill_interval_ns), (100, 1_000_000_000));
}

fn routes(table: &RouteTable) {
    let routes = &table.hosts.hosts[0].routes;
    let first = &routes[0];
    let PathMatch::Regex(regex) = &first.matches.path else { panic!("no regex") };
    assert!(regex.is_match(b"/api/v12/x") && !regex.is_match(b"/api/v12"));
    assert_eq!(&*first.matches.headers[0].name, "x-canary");
    assert_eq!(first.matches.headers[1].matcher, HeaderMatch::Range(RangeI64 { start: 1, end: 10 }));
    assert_eq!(first.matches.fraction, Some(Fraction(10_000)));
    let Action::Forward(forward) = &first.action else { panic!("no forward") };
    assert_eq!(forward.timeout, None, "0 s switches the timeout off");
    assert_eq!(forward.stream_duration_max, Some(None));
    assert_eq!(forward.path_rewrite, Some(PathRewrite::Full("/".into())), "a regex matched the whole path");
    assert_eq!(first.headers.request_add[0].append, HeaderAppend::OverwriteIfExistsOrAdd);
    assert_eq!(&*first.headers.response_remove[0], "server");
    let cors = first.filters.cors.as_ref().unwrap();
    assert_eq!((cors.allow_credentials, cors.enabled), (Some(true), None));
    let fault = first.filters.fault.as_ref().unwrap();
    assert_eq!(fault.delay.unwrap().fixed, Some(Duration::from_secs(5)));
    assert_eq!(fault.abort, Some(FaultAbort::Http { status: 503, fraction: Fraction(2500) }));
    let Action::Redirect(redirect) = &routes[1].action else { panic!("no redirect") };
    assert_eq!((redirect.status, redirect.https), (308, true));
    assert_eq!(routes[1].matches.path, PathMatch::Exact { text: "/old".into(), ignore_case: true });
    let Action::Direct(direct) = &routes[2].action else { panic!("no direct response") };
    assert_eq!((direct.status, &*direct.body), (404, &b"gone"[..]));
}

#[test]
fn an_endpoints_labels_choose_its_transport_socket_and_else_its_localitys() {
    let label = |value: &str| {
        format!("metadata: {{ filter_metadata: {{ envoy.transport_socket_match: {{ mode: {value} }} }} }}")
    };
    let endpoint = |port: u16, more: &str| {
        format!(
            "{{ endpoint: {{ address: {{ socket_address: {{ address: 10.0.0.1, port_value: {port} }} }} }}, {more} }}"
        )
    };
    let text = format!(
        "static_resources:
  clusters:
  - name: c
    transport_socket_matches:
    - {{ name: a, match: {{ mode: a }} }}
    - {{ name: b, match: {{ mode: b }} }}
    load_assignment:
      cluster_name: c
      endpoints:
      - lb_endpoints: [{}, {}]
        {}
      - lb_endpoints: [{}]
",
        endpoint(1, &label("a")),
        endpoint(2, ""),
        label("b"),
        endpoint(3, &label("other")),
    );
    let (snapshot, translation, _) = translate(&text);
    assert_eq!(lines(&translation.findings), Vec::<String>::new());
    let cluster = snapshot.cluster_by_name("c").unwrap();
    let chosen = cluster.endpoints.endpoints.iter().map(|e| (e.address.port(), e.transport));
    assert_eq!(chosen.collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 0)]);
}

/// The minimal file with a further line for its connection manager.
fn minimal_with(line: &str) -> String {
    let known = "stat_prefix: ingress_http";
    fixture("minimal.yaml").replace(known, &format!("{known}\n                {line}"))
}

#[test]
fn nobody_is_internal_unless_the_manager_says_who() {
    let internal = |text: &str| {
        let (snapshot, translation, _) = translate(text);
        assert_eq!(lines(&translation.findings), Vec::<String>::new());
        manager(&snapshot.listeners[0].chains[0]).internal_addresses.clone()
    };
    assert_eq!(internal(&fixture("minimal.yaml")), []);
    let ten = "cidr_ranges: [{ address_prefix: 10.1.2.3, prefix_len: 8 }]";
    let named = internal(&minimal_with(&format!("internal_address_config: {{ unix_sockets: true, {ten} }}")));
    assert_eq!(named, [Cidr("10.0.0.0/8".parse().unwrap())]);
}

#[test]
fn tracing_without_a_provider_samples_ids_and_a_provider_is_refused_by_name() {
    let sampling = |text: &str| {
        let (snapshot, translation, _) = translate(text);
        assert_eq!(lines(&translation.findings), Vec::<String>::new());
        manager(&snapshot.listeners[0].chains[0]).trace_sampling
    };
    assert_eq!(sampling(&fixture("minimal.yaml")), None);
    let tags = "custom_tags: [{ tag: a, literal: { value: b } }]";
    let set = sampling(&minimal_with(&format!("tracing: {{ random_sampling: {{ value: 0.5 }}, {tags} }}")));
    let all = Fraction::ALL;
    assert_eq!(set, Some(TraceSampling { client: all, random: Fraction(5_000), overall: all }));
    let uuid = "request_id_extension: { typed_config: { '@type': \
                type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, pack_trace_reason: \
                false } }";
    assert_eq!(sampling(&minimal_with(&format!("tracing: {{}}\n                {uuid}"))), None);
    let (_, translation, _) = translate(&minimal_with("tracing: { provider: { name: zipkin } }"));
    let refused = lines(&translation.findings);
    assert!(
        refused.len() == 1 && refused[0].contains("field `provider` of Tracing is not implemented"),
        "{refused:?}"
    );
}
