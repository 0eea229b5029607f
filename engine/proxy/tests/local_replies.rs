//! The proxy's own answers: whose header rules hold for them, what they and the log say. Statuses, texts, details and
//! the order of flags are what Envoy 1.40 was seen to give with the same configuration.

mod support;

use corelane_snapshot::{
    AccessLog, AccessLogSink, Action, Cidr, ClusterId, ClusterSpecifier, CorsPolicy, DirectResponse,
    Fraction, HeaderAppend, HeaderRules, HostRewrite, HttpConnectionManager, LogFormat, PathMatch,
    PerRouteFilters, Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules, Redirect, RetryOn,
    StringMatcher, TraceSampling, UpgradeConfig, WeightedCluster, template::Template,
};
use std::{net::TcpListener, sync::Arc, time::Duration};
use support::{
    Proxy, Setup, Upstream, ok,
    routes::{add, host, route, table},
};

fn adds(name: &str, value: &str) -> HeaderRules {
    let edit = add(name, value, HeaderAppend::AppendIfExistsOrAdd);
    HeaderRules { response_add: vec![edit], ..HeaderRules::default() }
}

const LINE: &str = "%RESPONSE_CODE%|%RESPONSE_FLAGS%|%RESPONSE_CODE_DETAILS%|%UPSTREAM_CLUSTER%|%ROUTE_NAME%";

/// A rule at each level of the tree, and a log line.
fn ruled(manager: &mut HttpConnectionManager) {
    table(manager).headers = adds("x-level", "table");
    host(manager).headers = adds("x-level", "host");
    host(manager).include_attempt_count_in_response = true;
    route(manager).headers = adds("x-line", LINE);
    let format = LogFormat::Text(
        Template::parse(&format!("{LINE}|%UPSTREAM_TRANSPORT_FAILURE_REASON%")).expect("format"),
    );
    let log = AccessLog { sink: AccessLogSink::Stdout, sink_id: 0, format, filter: None };
    manager.access_log.push(Arc::new(log));
}

#[track_caller]
fn logged(proxy: &Proxy) -> String {
    let line = std::cell::RefCell::new(None);
    proxy.until("a line", || {
        proxy.log.drain(|_, text| *line.borrow_mut() = Some(String::from_utf8_lossy(text).into_owned()));
        line.borrow().is_some()
    });
    line.into_inner().expect("a line")
}

/// What the rules made of the answer to a plain request.
#[track_caller]
fn assert_ruled(proxy: &Proxy, request: &str, status: u16, line: &str) {
    let answer = proxy.ask(request);
    assert_eq!((answer.status, answer.field("x-line")), (status, Some(line)));
    let levels: Vec<_> = answer.head.lines().filter(|line| line.starts_with("x-level")).collect();
    assert_eq!(levels, ["x-level: host", "x-level: table"]);
}

const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";

fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address")
}

#[test]
fn the_rules_of_the_route_hold_for_what_an_upstream_says_and_see_its_status() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = ruled;
    assert_ruled(&setup.start(), GET, 200, "200|-|via_upstream|upstream|all");
}

#[test]
fn the_rules_of_the_route_hold_for_direct_responses_and_redirects() {
    let mut setup = Setup::to(&[nobody()]);
    setup.manager = |manager| {
        ruled(manager);
        route(manager).action =
            Action::Direct(Box::new(DirectResponse { status: 418, body: (*b"tea").into() }));
    };
    let proxy = setup.start();
    assert_ruled(&proxy, GET, 418, "0|-|direct_response||all");
    assert_eq!(logged(&proxy), "418|-|direct_response|-|all|-");

    let mut setup = Setup::to(&[nobody()]);
    setup.manager = |manager| {
        ruled(manager);
        // Envoy's router writes where to before the rules: they may say it better
        let location = add("location", "/mine", HeaderAppend::OverwriteIfExistsOrAdd);
        route(manager).headers.response_add.push(location);
        route(manager).action = Action::Redirect(Box::new(Redirect {
            https: false,
            scheme: None,
            host: None,
            port: None,
            path: Some("/new".into()),
            prefix: None,
            regex: None,
            strip_query: false,
            status: 301,
        }));
    };
    let proxy = setup.start();
    assert_ruled(&proxy, GET, 301, "0|-|direct_response||all");
    assert_eq!(proxy.ask(GET).field("location"), Some("/mine"));
}

#[test]
fn the_rules_of_the_route_hold_where_there_is_no_cluster() {
    for action in [0, 1] {
        let mut setup = Setup::to(&[nobody()]);
        setup.manager = match action {
            0 => |manager| {
                ruled(manager);
                let Action::Forward(forward) = &mut route(manager).action else { panic!("forward") };
                forward.target = ClusterSpecifier::Cluster(ClusterId(4_000));
            },
            _ => |manager| {
                ruled(manager);
                route(manager).action = Action::None;
            },
        };
        assert_ruled(&setup.start(), GET, 503, "0|NC|cluster_not_found||all");
    }
}

const REFUSED: &str = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_\
                       Connection_refused}";

#[test]
fn a_refused_connection_is_told_with_its_reason_and_the_count_of_tries() {
    let mut setup = Setup::to(&[nobody()]);
    setup.manager = ruled;
    let proxy = setup.start();
    let line = format!("UF|{REFUSED}|upstream|all");
    assert_ruled(&proxy, GET, 503, &format!("0|{line}"));
    assert_eq!(logged(&proxy), format!("503|{line}|delayed_connect_error:_Connection_refused"));
    let answer = proxy.ask(GET);
    assert_eq!(
        answer.text(),
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    );
    assert_eq!(answer.field("x-envoy-attempt-count"), Some("1"));
}

#[test]
fn a_failed_retry_says_so_and_its_flag_comes_first() {
    let mut setup = Setup::to(&[nobody()]);
    let mut policy = support::policy();
    policy.on = RetryOn::CONNECT_FAILURE;
    policy.retries_max = 1;
    setup.retry = Some(policy);
    setup.manager = ruled;
    let proxy = setup.start();
    let answer = proxy.ask(GET);
    assert_eq!(
        answer.text(),
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote \
         connection failure"
    );
    assert_eq!(answer.field("x-envoy-attempt-count"), Some("2"));
    assert_eq!(answer.field("x-line"), Some(&*format!("0|URX,UF|{REFUSED}|upstream|all")));
}

#[test]
fn the_rules_of_a_weighted_cluster_hold_for_its_failures() {
    let mut setup = Setup::to(&[nobody()]);
    setup.manager = |manager| {
        ruled(manager);
        let Action::Forward(forward) = &mut route(manager).action else { panic!("forward") };
        let ClusterSpecifier::Cluster(cluster) = forward.target else { panic!("plain") };
        let part = WeightedCluster {
            cluster,
            weight: 1,
            headers: adds("x-part", "w"),
            host_rewrite: None,
            filters: PerRouteFilters::default(),
        };
        forward.target = ClusterSpecifier::Weighted { clusters: vec![part], total: 1 };
    };
    assert_eq!(setup.start().ask(GET).field("x-part"), Some("w"));
}

#[test]
fn the_rules_of_the_route_hold_for_what_a_filter_refuses_and_for_timeouts() {
    let mut setup = Setup::to(&[nobody()]);
    setup.manager = |manager| {
        ruled(manager);
        let policy = RbacPolicy {
            name: "p".into(),
            permissions: vec![Permission::UrlPath(StringMatcher::prefix("/a"))],
            principals: vec![Principal::Any],
        };
        manager.filters.rbac = vec![Arc::new(Rbac {
            rules: Some(RbacRules { action: RbacAction::Deny, policies: vec![policy] }),
            shadow_rules: None,
            stats: Default::default(),
            shadow_stats: Default::default(),
        })];
    };
    assert_ruled(&setup.start(), GET, 403, "0|-|rbac_access_denied_matched_policy[p]|upstream|all");

    let upstream = Upstream::start(|_, mut client| drop(client.read_to_end()));
    let mut setup = Setup::to(&[upstream.address]);
    setup.timeout = Some(Duration::from_millis(20));
    setup.manager = ruled;
    assert_ruled(&setup.start(), GET, 504, "0|UT|response_timeout|upstream|all");
}

#[test]
fn a_preflight_passes_the_rules_by_as_in_envoy() {
    let mut setup = Setup::to(&[nobody()]);
    setup.manager = |manager| {
        ruled(manager);
        manager.filters.cors = true;
        table(manager).filters.cors = Some(Arc::new(CorsPolicy {
            allow_origins: vec![StringMatcher::exact("https://a.example")],
            allow_methods: "GET".into(),
            allow_headers: "".into(),
            expose_headers: "".into(),
            max_age: "".into(),
            allow_credentials: Some(false),
            allow_private_network_access: Some(false),
            forward_not_matching_preflights: Some(false),
            enabled: Some(Fraction::ALL),
            shadow_enabled: Some(Fraction::NONE),
        }));
    };
    let answer = setup.start().ask(
        "OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: https://a.example\r\naccess-control-request-method: GET\r\n\r\n",
    );
    assert_eq!((answer.status, answer.field("x-line"), answer.field("x-level")), (200, None, None));
    assert_eq!(answer.field("access-control-allow-methods"), Some("GET"));
}

#[test]
fn no_route_has_no_rules() {
    let mut setup = Setup::to(&[nobody()]);
    setup.manager = |manager| {
        ruled(manager);
        route(manager).matches.path = PathMatch::Prefix { text: "/b".into(), ignore_case: false };
    };
    let answer = setup.start().ask(GET);
    assert_eq!((answer.status, answer.field("x-level")), (404, None));
}

#[test]
fn an_answer_that_breaks_off_is_malformed_over_http1() {
    // (what the upstream says before it closes, what the log says): Envoy's codec, for a reset and an orderly end alike
    for (said, line) in [
        ("", "503|UC|upstream_reset_before_response_started{connection_termination}"),
        ("HTTP/1.1 200 OK\r\nconte", "502|UPE|upstream_reset_before_response_started{protocol_error}"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart",
            "200|UPE|upstream_reset_after_response_started{protocol_error}",
        ),
    ] {
        let upstream = Upstream::start(move |_, mut client| {
            client.head();
            client.send(said.as_bytes());
        });
        let mut setup = Setup::to(&[upstream.address]);
        setup.manager = ruled;
        let proxy = setup.start();
        let mut client = proxy.connect();
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        client.read_to_end_or_reset();
        assert_eq!(logged(&proxy), format!("{line}|upstream|all|-"));
    }
}

#[test]
fn an_answer_before_the_end_of_its_request_says_that_the_connection_ends() {
    let upstream = Upstream::start(|_, mut client| {
        client.head();
        client.send(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno");
        client.read_to_end();
    });
    let proxy = Setup::to(&[upstream.address]).start();
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
}

#[test]
fn a_request_whose_method_expects_content_says_that_there_is_none() {
    let upstream =
        Upstream::answering(|head, _| ok(if head.contains("content-length: 0\r\n") { "0" } else { "-" }));
    let proxy = Setup::to(&[upstream.address]).start();
    for (method, said) in
        [("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("OPTIONS", "0"), ("GET", "-"), ("DELETE", "-")]
    {
        assert_eq!(proxy.ask(&format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).text(), said, "{method}");
    }
}

#[test]
fn the_host_that_came_is_kept_where_it_is_rewritten() {
    let upstream = Upstream::answering(|head, _| ok(head));
    let mut setup = Setup::to(&[upstream.address]);
    setup.forward = |forward| {
        forward.host_rewrite = Some(HostRewrite::Literal("rewritten".into()));
        forward.append_x_forwarded_host = true;
    };
    let proxy = setup.start();
    let answer =
        proxy.ask("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-host: q\r\nx-envoy-original-host: a-lie\r\n\r\n");
    let line = |name: &str| {
        let mut lines = answer.text().lines().filter(|line| line.starts_with(name));
        (lines.next().unwrap_or_default().to_owned(), lines.count())
    };
    assert_eq!(line("host"), ("host: rewritten".to_owned(), 0));
    assert_eq!(line("x-envoy-original-host"), ("x-envoy-original-host: a".to_owned(), 0));
    assert_eq!(line("x-forwarded-host"), ("x-forwarded-host: q,a".to_owned(), 0));
}

/// The id that goes upstream.
fn id_upstream(sampling: TraceSampling, fields: &str) -> String {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    static SAMPLING: std::sync::Mutex<Option<TraceSampling>> = std::sync::Mutex::new(None);
    let upstream = Upstream::answering(|head, _| ok(head));
    let mut setup = Setup::to(&[upstream.address]);
    *SAMPLING.lock().expect("sampling") = Some(sampling);
    setup.manager = |manager| manager.trace_sampling = *SAMPLING.lock().expect("sampling");
    let answer = setup.start().ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
    let id = answer.text().lines().find_map(|line| line.strip_prefix("x-request-id: ").map(str::to_owned));
    id.expect("an id")
}

#[test]
fn an_id_tells_whether_to_trace_its_request() {
    let all = TraceSampling { client: Fraction::ALL, random: Fraction::ALL, overall: Fraction::ALL };
    let none = Fraction::NONE;
    let theirs = "x-request-id: 11111111-2222-4333-8444-555555555555\r\n";
    for (sampling, fields, reason) in [
        (all, "", '9'),
        (all, "x-client-trace-id: x\r\n", 'b'),
        (TraceSampling { random: none, ..all }, "", '4'),
        (TraceSampling { random: none, ..all }, "x-client-trace-id: x\r\n", 'b'),
        (TraceSampling { overall: none, ..all }, "x-client-trace-id: x\r\n", '4'),
        (all, theirs, '9'),
        (all, "x-request-id: 11111111-2222-a333-8444-555555555555\r\n", 'a'),
    ] {
        assert_eq!(id_upstream(sampling, fields).chars().nth(14), Some(reason), "{sampling:?} {fields}");
    }
    assert_eq!(id_upstream(all, "x-request-id: abc\r\n"), "abc");
}

#[test]
fn only_whom_the_configuration_names_is_internal() {
    fn internal(manager: &mut HttpConnectionManager) {
        manager.use_remote_address = true;
        manager.internal_addresses = vec![Cidr("127.0.0.0/8".parse().expect("range"))];
    }
    let nobody: fn(&mut HttpConnectionManager) = |manager| manager.use_remote_address = true;
    for (configured, trusted) in [(internal as fn(&mut HttpConnectionManager), true), (nobody, false)] {
        let upstream = Upstream::answering(|head, _| ok(head));
        let mut setup = Setup::to(&[upstream.address]);
        setup.manager = configured;
        let answer = setup.start().ask("GET / HTTP/1.1\r\nhost: a\r\nx-envoy-force-trace: 1\r\n\r\n");
        assert_eq!(answer.text().contains("x-envoy-internal: true"), trusted);
        assert_eq!(answer.text().contains("x-envoy-force-trace"), trusted);
        assert_eq!(answer.text().contains("x-envoy-external-address: 127.0.0.1"), !trusted);
    }
}

#[test]
fn a_route_may_allow_a_protocol_that_the_manager_forbids_and_the_other_way_round() {
    for (of_route, status) in [(Some(true), 101), (Some(false), 403), (None, 403)] {
        let upstream = Upstream::start(|_, mut client| {
            client.head();
            client.send(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            );
        });
        let mut setup = Setup::to(&[upstream.address]);
        setup.upgrades = Vec::new();
        setup.forward = match of_route {
            Some(true) => |forward| forward.upgrades = vec![websocket(true)],
            Some(false) => |forward| forward.upgrades = vec![websocket(false)],
            None => |_| {},
        };
        setup.manager = |manager| manager.upgrades = vec![websocket(false)];
        let answer = setup
            .start()
            .ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        assert_eq!(answer.status, status, "{of_route:?}");
    }
}

fn websocket(enabled: bool) -> UpgradeConfig {
    UpgradeConfig { kind: "websocket".into(), enabled }
}
