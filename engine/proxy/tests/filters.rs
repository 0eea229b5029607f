//! The optional stages, on the way of whole requests.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_snapshot::{
    CorsPolicy, Descriptor, Fraction, HeaderAppend, HeaderEdit, HeaderMatch, HeaderMatcher,
    HttpConnectionManager, LocalRateLimit, Metadata, MetadataMatcher, MetadataSource, PerRouteFilters,
    Permission, Principal, RateLimit, RateLimitAction, RateLimitValue, Rbac, RbacAction, RbacPolicy,
    RbacRules, StatBlock, StringMatcher, TokenBuckets, Value, ValueMatcher, VirtualHostRateLimits,
    live::TokenBucket, template::Template,
};
use std::sync::{Arc, atomic::AtomicU64};
use support::*;

const MINUTE_NS: u64 = 60_000_000_000;

fn bucket(tokens_max: u32) -> TokenBucket {
    TokenBucket { tokens_max, tokens_per_fill: 1, fill_interval_ns: MINUTE_NS, state: AtomicU64::new(0) }
}

fn limit(tokens_max: u32) -> LocalRateLimit {
    LocalRateLimit {
        buckets: TokenBuckets { default: bucket(tokens_max), descriptors: Box::default() },
        per_connection: false,
        always_default: true,
        enabled: Fraction::ALL,
        enforced: Fraction::ALL,
        status: 429,
        response_headers: Vec::new(),
        unenforced_request_headers: Vec::new(),
        grpc_resource_exhausted: false,
        rate_limit_headers: true,
        retry_after: true,
        descriptors: Vec::new(),
        rate_limits: Vec::new(),
        stage: 0,
        virtual_host: VirtualHostRateLimits::Override,
        stats: StatBlock::default(),
    }
}

fn field(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit {
        name: name.into(),
        value: Template::parse(value).unwrap(),
        append: HeaderAppend::AppendIfExistsOrAdd,
        keep_empty_value: false,
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// limit, remaining and reset.
fn told(answer: &Answer) -> [Option<&str>; 3] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.field(name))
}

/// What Envoy 1.40 wrote on these answers, the upstream's and its own.
#[test]
fn every_answer_says_what_is_left() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        let mut limit = limit(2);
        limit.response_headers = vec![field("x-rl", "of %PROTOCOL%")];
        manager.filters.local_rate_limit = Some(Arc::new(limit));
    };
    let proxy = setup.start();
    let first = proxy.ask(GET);
    assert_eq!((first.status, told(&first)), (200, [Some("2"), Some("1"), Some("0")]));
    let second = proxy.ask(GET);
    assert_eq!((second.status, told(&second)), (200, [Some("2"), Some("0"), Some("60")]));
    assert_eq!(second.field("retry-after"), None);
    let third = proxy.ask(GET);
    assert_eq!((third.status, told(&third)), (429, [Some("2"), Some("0"), Some("60")]));
    assert_eq!((third.field("retry-after"), third.field("x-rl")), (Some("60"), Some("of HTTP/1.1")));
}

#[test]
fn a_request_over_a_limit_that_is_not_enforced_says_so_upstream() {
    let upstream = Upstream::answering(|head, _| match head.contains("x-limited: yes") {
        true => ok("over"),
        false => ok("within"),
    });
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        let mut limit = LocalRateLimit { enforced: Fraction::NONE, ..limit(1) };
        limit.unenforced_request_headers = vec![field("x-limited", "yes")];
        manager.filters.local_rate_limit = Some(Arc::new(limit));
    };
    let proxy = setup.start();
    assert_eq!([proxy.ask(GET).text(), proxy.ask(GET).text()], ["within", "over"]);
}

#[test]
fn a_connection_has_tokens_of_its_own_where_the_limit_says_so() {
    for (per_connection, expected) in [(true, [200, 200]), (false, [200, 429])] {
        let upstream = Upstream::answering(|_, _| ok("x"));
        let mut setup = Setup::to(&[upstream.address]);
        setup.manager = match per_connection {
            true => |manager| {
                let own = LocalRateLimit { per_connection: true, ..limit(1) };
                manager.filters.local_rate_limit = Some(Arc::new(own));
            },
            false => |manager| manager.filters.local_rate_limit = Some(Arc::new(limit(1))),
        };
        let proxy = setup.start();
        // each is asked on a connection of its own
        assert_eq!([proxy.ask(GET).status, proxy.ask(GET).status], expected, "{per_connection}");
        let mut client = proxy.connect();
        let twice = [(); 2].map(|()| {
            client.send(GET.as_bytes());
            client.answer().status
        });
        assert_eq!(twice, [expected[1], 429], "{per_connection}");
    }
}

#[test]
fn a_descriptor_of_the_route_has_a_bucket_of_its_own() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        let mut limit = limit(9);
        limit.descriptors = vec![Descriptor { entries: vec![("user".into(), "a".into())] }];
        limit.buckets.descriptors = Box::new([bucket(1)]);
        manager.filters.local_rate_limit = Some(Arc::new(limit));
        let value = RateLimitValue::RequestHeader { name: "x-user".into(), skip_if_absent: false };
        let actions = vec![RateLimitAction { key: "user".into(), value }];
        routes::route(manager).filters.rate_limits = vec![RateLimit { stage: 0, actions }];
    };
    let proxy = setup.start();
    let by = |user: &str| proxy.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n"));
    let answers = [by("a"), by("a"), by("b")];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 429, 200]);
    assert_eq!(answers.each_ref().map(|answer| told(answer)[0]), [Some("1"), Some("1"), Some("9")]);
}

fn deny(permission: Permission) -> Arc<Rbac> {
    let policy =
        RbacPolicy { name: "p".into(), permissions: vec![permission], principals: vec![Principal::Any] };
    Arc::new(Rbac {
        rules: Some(RbacRules { action: RbacAction::Deny, policies: vec![policy] }),
        shadow_rules: None,
        stats: StatBlock::default(),
        shadow_stats: StatBlock::default(),
    })
}

/// A field sent twice is no way past a rule that denies one of its values: Envoy 1.40 answers 403 to both.
#[test]
fn a_repeated_header_is_still_denied() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        manager.filters.rbac = vec![deny(Permission::Header(HeaderMatcher {
            name: "x-role".into(),
            matcher: HeaderMatch::Text(StringMatcher::exact("admin")),
            invert: false,
            treat_missing_as_empty: false,
        }))];
    };
    let proxy = setup.start();
    for (roles, status) in
        [("x-role: user\r\n", 200), ("x-role: admin\r\n", 403), ("x-role: user\r\nx-role: admin\r\n", 403)]
    {
        assert_eq!(proxy.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{roles}\r\n")).status, status, "{roles}");
    }
}

#[test]
fn rules_may_ask_for_the_routes_metadata() {
    for (value, status) in [(true, 403), (false, 200)] {
        let upstream = Upstream::answering(|_, _| ok("x"));
        let mut setup = Setup::to(&[upstream.address]);
        fn with(manager: &mut HttpConnectionManager, value: bool) {
            let fields = Value::Struct([("closed".into(), Value::Bool(value))].into());
            routes::route(manager).filters.metadata = Some(Arc::new(Metadata([("x".into(), fields)].into())));
            manager.filters.rbac = vec![deny(Permission::Metadata(MetadataMatcher {
                source: MetadataSource::Route,
                filter: "x".into(),
                path: vec!["closed".into()],
                matcher: ValueMatcher::Bool(true),
                invert: false,
            }))];
        }
        setup.manager = if value { |manager| with(manager, true) } else { |manager| with(manager, false) };
        assert_eq!(setup.start().ask(GET).status, status);
    }
}

/// Envoy 1.40 takes each field from the most specific level that has it, and a preflight's answer has the exposed ones.
#[test]
fn a_routes_cors_policy_completes_its_virtual_hosts() {
    let upstream = Upstream::answering(|_, _| ok("x"));
    let mut setup = Setup::to(&[upstream.address]);
    setup.manager = |manager| {
        manager.filters.cors = true;
        let filters = |policy| PerRouteFilters { cors: Some(Arc::new(policy)), ..PerRouteFilters::default() };
        routes::host(manager).filters = filters(CorsPolicy {
            allow_origins: vec![StringMatcher::exact("https://a.example")],
            allow_methods: "GET".into(),
            expose_headers: "x-shown".into(),
            allow_credentials: Some(true),
            ..CorsPolicy::default()
        });
        routes::route(manager).filters = filters(CorsPolicy {
            allow_methods: "PUT".into(),
            allow_credentials: Some(false),
            ..CorsPolicy::default()
        });
    };
    let proxy = setup.start();
    let preflight = "OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: https://a.example\r\naccess-control-request-method: PUT\r\n\r\n";
    let answer = proxy.ask(preflight);
    let of = |name: &str| answer.field(&format!("access-control-{name}"));
    assert_eq!((answer.status, of("allow-origin")), (200, Some("https://a.example")));
    assert_eq!((of("allow-methods"), of("expose-headers")), (Some("PUT"), Some("x-shown")));
    assert_eq!(of("allow-credentials"), None);
}
