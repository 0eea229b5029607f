//! What access logs and header values tell of a request, and the fields that the proxy writes into it. What is told is
//! what Envoy 1.40 was seen to tell.

mod support;

use corelane_snapshot::{
    AccessLog, AccessLogSink, Action, ClusterSpecifier, HeaderAppend, HeaderCasing, HeaderRules, HostRewrite,
    LogFormat, PathRewrite, PerRouteFilters, WeightedCluster, template::Template,
};
use std::sync::Arc;
use support::{
    Proxy, Setup, Upstream, ok,
    routes::{add, host, route, table},
};

#[track_caller]
fn logged(proxy: &Proxy) -> String {
    let line = std::cell::RefCell::new(None);
    proxy.until("a line", || {
        proxy.log.drain(|_, text| *line.borrow_mut() = Some(String::from_utf8_lossy(text).into_owned()));
        line.borrow().is_some()
    });
    line.into_inner().expect("a line")
}

const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";

/// One log line of these operators, after a request to an upstream that answers `x` with a field and a trailer.
fn line_of(operators: &'static str, request: &str) -> String {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    static FORMAT: std::sync::Mutex<&str> = std::sync::Mutex::new("");
    let upstream = Upstream::answering(|_, _| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-checked: yes\r\n\r\n"
            .to_owned()
    });
    let mut setup = Setup::to(&[upstream.address]);
    let _alone = ONE_AT_A_TIME.lock();
    *FORMAT.lock().expect("format") = operators;
    setup.manager = |manager| {
        let format = LogFormat::Text(Template::parse(*FORMAT.lock().expect("format")).expect("format"));
        manager.access_log.push(Arc::new(AccessLog {
            sink: AccessLogSink::Stdout,
            sink_id: 0,
            format,
            filter: None,
        }));
    };
    setup.forward = |forward| forward.path_rewrite = Some(PathRewrite::Full("/new".into()));
    let proxy = setup.start();
    assert_eq!(proxy.ask(request).status, 200);
    logged(&proxy)
}

#[test]
fn access_logs_tell_of_a_request_what_envoy_tells() {
    let id = "11111111-2222-4333-8444-555555555555";
    let request = format!("GET /old?a=1&b=2 HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\n\r\n");
    let line = line_of(
        "%STREAM_ID%|%PATH%|%PATH(NQ)%|%PATH(WQ:PATH)%|%PATH(NQ:ORIG)%|%QUERY_PARAM(b)%|%QUERY_PARAM(c)%|\
         %QUERY_PARAMS%|%TRAILER(X-Checked)%|%FILTER_CHAIN_NAME%|%ACCESS_LOG_TYPE%|%TRACE_ID%|\
         %REQUEST_HEADER(HOST?:AUTHORITY)%|%DOWNSTREAM_WIRE_BYTES_RECEIVED%|%UPSTREAM_PEER_SUBJECT%",
        &request,
    );
    let expected = format!(
        "{id}|/old?a=1&b=2|/old|/new?a=1&b=2|/old|2|-|a=1&b=2|yes|only|DownstreamEnd|-|a|{}|-",
        request.len()
    );
    assert_eq!(line, expected);
    let line = line_of(
        "%UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%:%UPSTREAM_REMOTE_PORT%",
        GET,
    );
    let hosts: Vec<_> = line.split(' ').collect();
    assert!(hosts[0] == hosts[1] && hosts[1] == hosts[2] && hosts[0].starts_with("127.0.0.1:"), "{line}");
    let line = line_of("%UNIQUE_ID% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)% %EMIT_TIME(%s)%", GET);
    let parts: Vec<_> = line.split(' ').collect();
    assert!(parts[0].len() == 36 && parts[1..].iter().all(|part| part.parse::<u64>().is_ok()), "{line}");
}

#[test]
fn bytes_of_heads_are_counted_as_envoy_counts_them() {
    // names and values, pseudo-headers among them; what a rule or a rewrite made of them included
    let request = "GET /a HTTP/1.1\r\nhost: a\r\nx-request-id: i\r\n\r\n";
    let line = line_of("%REQUEST_HEADERS_BYTES% %RESPONSE_HEADERS_BYTES%", request);
    let (asked, answered) = line.split_once(' ').expect("two");
    let asked: usize = asked.parse().expect("a number");
    let sent = [
        (":authority", "a"),
        (":path", "/new"),
        (":method", "GET"),
        (":scheme", "http"),
        ("x-request-id", "i"),
        ("x-forwarded-proto", "http"),
        ("x-envoy-original-path", "/a"),
        ("x-envoy-attempt-count", "1"),
        ("x-envoy-expected-rq-timeout-ms", "15000"),
    ];
    assert_eq!(asked, sent.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>());
    assert!(answered.parse::<usize>().expect("a number") > 60, "{line}");
}

#[test]
fn header_values_know_the_request_they_are_written_into() {
    let upstream = Upstream::answering(|head, _| ok(head));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        let value = "%UPSTREAM_CLUSTER% %ROUTE_NAME% %STREAM_ID% %REQUEST_HEADERS_BYTES%";
        let edit = add("x-told", value, HeaderAppend::AppendIfExistsOrAdd);
        route(manager).headers.request_add.push(edit);
    };
    let answer = setup.start().ask("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: i\r\n\r\n");
    let told = answer.text().lines().find_map(|line| line.strip_prefix("x-told: ")).expect("told");
    let parts: Vec<_> = told.split(' ').collect();
    assert_eq!(parts[..3], ["upstream", "all", "i"]);
    assert!(parts[3].parse::<u32>().expect("a number") > 40, "{told}");
}

#[test]
fn tls_is_required_of_who_did_not_come_by_it() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| host(manager).require_tls = true;
    let proxy = setup.start();
    assert_eq!(proxy.ask(GET).status, 301);
    let by_https = "GET /a HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\n\r\n";
    assert_eq!(proxy.ask(by_https).status, 200);
}

#[test]
fn a_router_that_suppresses_its_fields_adds_none() {
    let upstream = Upstream::answering(|head, _| ok(head));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.suppress_envoy_headers = true;
    setup.forward = |forward| {
        forward.host_rewrite = Some(HostRewrite::Literal("rewritten".into()));
        forward.path_rewrite = Some(PathRewrite::Full("/new".into()));
    };
    let answer = setup.start().ask(GET);
    for field in ["x-envoy-expected-rq-timeout-ms", "x-envoy-original-path", "x-envoy-original-host"] {
        assert!(!answer.text().contains(field), "{}", answer.text());
    }
}

#[test]
fn a_weighted_clusters_rules_come_first_even_where_the_most_specific_wins() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        table(manager).most_specific_header_mutations_wins = true;
        let set = |value| HeaderRules {
            response_add: vec![add("x-o", value, HeaderAppend::OverwriteIfExistsOrAdd)],
            ..HeaderRules::default()
        };
        table(manager).headers = set("table");
        route(manager).headers = set("route");
        let Action::Forward(forward) = &mut route(manager).action else { panic!("forward") };
        let ClusterSpecifier::Cluster(cluster) = forward.target else { panic!("plain") };
        let part = WeightedCluster {
            cluster,
            weight: 1,
            headers: set("part"),
            host_rewrite: None,
            filters: PerRouteFilters::default(),
        };
        forward.target = ClusterSpecifier::Weighted { clusters: vec![part], total: 1 };
    };
    assert_eq!(setup.start().ask(GET).field("x-o"), Some("route"));
}

#[test]
fn the_case_of_names_is_kept_towards_the_upstream_where_the_manager_keeps_it() {
    let upstream = Upstream::answering(|head, _| ok(head));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| manager.http1.casing = HeaderCasing::Preserve;
    let answer = setup.start().ask("POST / HTTP/1.1\r\nHost: a\r\nX-CuStom: 1\r\nContent-Length: 1\r\n\r\nx");
    for line in ["X-CuStom: 1", "Content-Length: 1", "x-forwarded-proto: http"] {
        assert!(answer.text().contains(&format!("\r\n{line}\r\n")), "{}", answer.text());
    }
}

#[test]
fn a_request_that_found_no_endpoint_counts_as_one_attempt_as_in_envoy() {
    let mut setup = Setup::to(&[]);
    setup.manager = |manager| {
        let format = LogFormat::Text(
            Template::parse("%RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%").expect("format"),
        );
        let log = AccessLog { sink: AccessLogSink::Stdout, sink_id: 0, format, filter: None };
        manager.access_log.push(Arc::new(log));
    };
    let proxy = setup.start();
    assert_eq!(proxy.ask(GET).status, 503);
    assert_eq!(logged(&proxy), "UH 1");
}
