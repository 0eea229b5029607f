//! What a route adds: weights, affinity cookies, CORS, priorities.

mod support;

use corelane_snapshot::{
    ClusterSpecifier, CorsPolicy, Forward, HashLb, HashPolicy, HeaderAppend, HeaderEdit, HeaderRules,
    HttpConnectionManager, LbPolicy, PathMatch, PerRouteFilters, Permission, Principal, Rbac, RbacAction,
    RbacPolicy, RbacRules, RetryOn, StringMatcher, WeightedCluster,
    template::{Part, Template},
};
use corelane_telemetry::HttpStat;
use std::{sync::Arc, time::Duration};
use support::{Setup, Upstream, ok, routes};

fn literal(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit {
        name: name.into(),
        value: Template { parts: vec![Part::Literal(value.as_bytes().into())], omit_empty: false },
        append: HeaderAppend::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    }
}

fn in_parts(forward: &mut Forward, weights: &[(&str, u32)]) {
    let ClusterSpecifier::Cluster(cluster) = forward.target else { panic!("plain") };
    let part = |(name, weight): &(&str, u32)| WeightedCluster {
        cluster,
        weight: *weight,
        headers: HeaderRules { request_add: vec![literal("x-part", name)], ..HeaderRules::default() },
        host_rewrite: None,
        filters: PerRouteFilters::default(),
    };
    let total = weights.iter().map(|(_, weight)| weight).sum();
    forward.target = ClusterSpecifier::Weighted { clusters: weights.iter().map(part).collect(), total };
}

#[test]
fn five_percent_of_two_hundred_requests_are_ten() {
    let upstream = Upstream::answering(|head, _| {
        ok(if head.contains("x-part: canary\r\n") { "canary" } else { "stable" })
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.forward = |forward| in_parts(forward, &[("stable", 95), ("canary", 5)]);
    let proxy = setup.start();
    let mut client = proxy.connect();
    let mut canaries = 0;
    for _ in 0..200 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        canaries += u32::from(client.answer().text() == "canary");
    }
    assert!((9..=11).contains(&canaries), "{canaries}");
}

fn ring() -> LbPolicy {
    LbPolicy::RingHash(HashLb {
        ring_size_min: 1024,
        ring_size_max: 8 << 20,
        maglev_table_size: 65_537,
        use_hostname: false,
    })
}

#[test]
fn a_client_without_the_cookie_gets_one_that_leads_it_back() {
    let upstreams = ["a", "b", "c"].map(|name| Upstream::answering(move |_, _| ok(name)));
    let mut setup = Setup::to(&upstreams.each_ref().map(|upstream| upstream.address));
    setup.cluster = |cluster| cluster.lb = ring();
    setup.forward = |forward| {
        let ttl = Some(Duration::from_secs(60));
        forward.hash_policy =
            vec![HashPolicy::Cookie { name: "sid".into(), ttl, path: "/app".into(), terminal: false }];
    };
    let proxy = setup.start();
    for _ in 0..8 {
        let first = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let cookie = first.field("set-cookie").expect("a cookie");
        let value = cookie
            .strip_prefix("sid=\"")
            .and_then(|rest| rest.strip_suffix("\"; Max-Age=60; Path=/app; HttpOnly"));
        let value = value.unwrap_or_else(|| panic!("{cookie}"));
        assert!(value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{cookie}");
        let again = proxy.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: x=1; sid=\"{value}\"\r\n\r\n"));
        assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
    }
}

#[test]
fn a_policy_that_does_not_hash_sets_no_cookie() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.forward = |forward| {
        let ttl = Some(Duration::ZERO);
        forward.hash_policy =
            vec![HashPolicy::Cookie { name: "sid".into(), ttl, path: "".into(), terminal: false }];
    };
    let proxy = setup.start();
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").field("set-cookie"), None);
}

#[test]
fn cors_is_judged_once_and_answered_with_the_origin_that_came() {
    let upstream = Upstream::answering(|head, _| {
        assert!(head.contains("\r\norigin: changed\r\n"), "{head}");
        ok("shared")
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        manager.filters.cors = true;
        let table = routes::table(manager);
        table.headers.request_add.push(literal("origin", "changed"));
        table.filters.cors = Some(Arc::new(CorsPolicy {
            allow_origins: vec![StringMatcher::exact("https://a.example")],
            allow_methods: "GET".into(),
            expose_headers: "x-shown".into(),
            ..CorsPolicy::default()
        }));
    };
    let proxy = setup.start();
    let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\norigin: https://a.example\r\n\r\n");
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(answer.field("access-control-expose-headers"), Some("x-shown"));
    let other = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\norigin: https://b.example\r\n\r\n");
    assert_eq!((other.status, other.field("access-control-allow-origin")), (200, None));
}

#[test]
fn a_retry_leaves_the_priority_that_failed() {
    let broken = Upstream::answering(|_, _| {
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
    });
    let also_broken = Upstream::answering(|_, _| {
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
    });
    let good = Upstream::answering(|_, _| ok("second priority"));
    let mut setup = Setup::to(&[broken.address, also_broken.address, good.address]);
    setup.priorities = vec![0, 0, 1];
    let mut policy = support::policy();
    policy.on = RetryOn::SERVER_ERROR;
    policy.retries_max = 1;
    policy.avoid_previous_priorities = Some(1);
    setup.retry = Some(policy);
    let proxy = setup.start();
    for _ in 0..4 {
        let answer = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((answer.status, answer.text()), (200, "second priority"));
    }
}

/// Nobody may go to /private, and no route leads anywhere but /public.
fn guarded(manager: &mut HttpConnectionManager) {
    let policy = RbacPolicy {
        name: "private".into(),
        permissions: vec![Permission::UrlPath(StringMatcher::prefix("/private"))],
        principals: vec![Principal::Any],
    };
    manager.filters.rbac = vec![Arc::new(Rbac {
        rules: Some(RbacRules { action: RbacAction::Deny, policies: vec![policy] }),
        shadow_rules: None,
        stats: Default::default(),
        shadow_stats: Default::default(),
    })];
    routes::route(manager).matches.path = PathMatch::Prefix { text: "/public".into(), ignore_case: false };
}

#[test]
fn whom_a_filter_denies_does_not_learn_whether_there_is_a_route() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = guarded;
    let proxy = setup.start();
    for (path, status) in [("/public", 200), ("/nowhere", 404), ("/private", 403)] {
        assert_eq!(proxy.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).status, status, "{path}");
    }
    assert_eq!(proxy.http_count(HttpStat::NoRoute), 1);
}
