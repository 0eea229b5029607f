//! What a request asks of this crate allocates nothing, once a core has its views.

// helpers of tests are no tests to the lint
#![allow(clippy::unwrap_used)]

mod support;

use corelane_http::{RequestHead, ResponseHead};
use corelane_snapshot::{
    Cluster, ClusterConfig, EndpointId, HashLb, HashPolicy, HeaderMatch, HeaderMatcher, LbPolicy, PathMatch,
    Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules, RetryOn, StatBlock, StringMatcher,
};
use corelane_traffic::{
    ClusterView, Failure, PickContext, Rng,
    authorize::{self, Facts, Peer},
    breaker::{self, Limit},
    deadline, matching,
    outlier::{self, Observation},
    pick,
    retry::{Attempt, End, RetryState},
};
use std::hint::black_box;
use support::{cluster, cluster_config, forward, hosts, outlier as outlier_config, retry_policy};

fn allocations(work: impl FnMut()) -> u64 {
    let mut work = work;
    allocation_counter::measure(|| (0..1000).for_each(|_| work())).count_total
}

fn head() -> RequestHead {
    let mut head = RequestHead::new();
    head.set_path(b"/api/57/items?user=7").unwrap();
    head.set_authority(b"Payments.Prod").unwrap();
    for (name, value) in
        [("x-role", "admin"), ("x-role", "auditor"), ("cookie", "sid=abc"), ("x-user", "jason")]
    {
        head.fields.append(name.as_bytes(), value.as_bytes()).unwrap();
    }
    head
}

#[test]
fn picks() {
    let hash = HashLb {
        ring_size_min: 1024,
        ring_size_max: 1 << 20,
        maglev_table_size: 65_537,
        use_hostname: false,
    };
    for lb in [
        LbPolicy::RoundRobin { slow_start: None },
        LbPolicy::LeastRequest { choices: 2, active_request_bias: 1.0, slow_start: None },
        LbPolicy::Random,
        LbPolicy::RingHash(hash.clone()),
        LbPolicy::Maglev(hash),
    ] {
        for weighted in [false, true] {
            let hosts: Vec<_> = hosts(50)
                .into_iter()
                .map(|h| support::Host { weight: if weighted { 1 + h.number % 3 } else { 1 }, ..h })
                .collect();
            let cluster = cluster(ClusterConfig { lb: lb.clone(), ..cluster_config() }, &hosts);
            let mut rng = Rng::new(1);
            let mut view = ClusterView::new(&cluster, 0, &mut rng);
            let mut ask = |tried: &[EndpointId]| {
                let context = PickContext { hash: Some(rng.next_u64()), tried, ..PickContext::default() };
                assert!(pick(&mut view, &cluster, &context, &mut rng).endpoint().is_some());
            };
            // tables are built when first asked for
            ask(&[]);
            assert_eq!(allocations(|| ask(&[])), 0, "{lb:?}");
            assert_eq!(allocations(|| ask(&[EndpointId(1), EndpointId(2)])), 0, "{lb:?} retry");
        }
    }
}

#[test]
fn matching_a_route() {
    let rule = |name: &str, text: &str| HeaderMatcher {
        name: name.into(),
        matcher: HeaderMatch::Text(StringMatcher::exact(text)),
        invert: false,
        treat_missing_as_empty: false,
    };
    for count in [10, 1000] {
        let mut routes: Vec<_> = (0..count)
            .map(|n| {
                support::route(
                    "r",
                    PathMatch::Prefix { text: format!("/api/{n}/").into(), ignore_case: false },
                )
            })
            .collect();
        let mut last = support::route("last", PathMatch::Prefix { text: "/".into(), ignore_case: false });
        last.matches.headers = vec![rule("x-role", "auditor"), rule(":method", "GET")];
        routes.push(last);
        let host = support::virtual_host("h", routes);
        let head = head();
        let facts = matching::RequestFacts::default();
        let found = || matching::route(&host, &head, &facts, 0).unwrap().0;
        assert_eq!(found(), if count > 57 { 57 } else { count });
        assert_eq!(allocations(|| _ = black_box(found())), 0);
    }
}

#[test]
fn hashing_and_deadlines() {
    let head = head();
    let policies = [
        HashPolicy::Header { name: "x-role".into(), terminal: false },
        HashPolicy::Cookie { name: "sid".into(), ttl: None, path: "/".into(), terminal: false },
        HashPolicy::Query { name: "user".into(), terminal: false },
        HashPolicy::SourceIp { terminal: false },
    ];
    let source = "fd00::1234:5678".parse().unwrap();
    let (forward, mut rng) = (forward(), Rng::new(1));
    let count = allocations(|| {
        assert!(matching::hash(&policies, &head, source, &mut rng).hash.is_some());
        let limits = deadline::effective(&forward, None, &head, true);
        black_box(deadline::expected(&limits, std::time::Duration::ZERO));
    });
    assert_eq!(count, 0);
}

#[test]
fn authorization() {
    let policy = |n: u32| RbacPolicy {
        name: format!("p{n}"),
        permissions: vec![Permission::And(vec![
            Permission::UrlPath(StringMatcher::prefix(format!("/{n}"))),
            Permission::Not(Box::new(Permission::DestinationPort(1))),
        ])],
        principals: vec![Principal::Authenticated(Some(StringMatcher::prefix("spiffe://")))],
    };
    let rules = || Some(RbacRules { action: RbacAction::Allow, policies: (0..100).map(policy).collect() });
    let rbac = Rbac {
        rules: rules(),
        shadow_rules: rules(),
        shadow_stats: StatBlock::default(),
        stats: StatBlock::default(),
    };
    let (head, uri_sans) = (head(), ["spiffe://cluster.local/ns/prod/sa/orders".to_owned()]);
    let address = "10.0.0.1:80".parse().unwrap();
    let facts = Facts {
        head: Some(&head),
        destination: address,
        direct_source: address,
        source: address,
        remote: address.ip(),
        server_name: None,
        peer: Some(Peer { uri_sans: &uri_sans, ..Peer::default() }),
        route_metadata: None,
    };
    assert_eq!(allocations(|| assert!(!authorize::verdict(&rbac, &facts).is_allowed())), 0);
}

fn resilient() -> Cluster {
    let mut config = cluster_config();
    config.outlier = Some(outlier_config());
    cluster(config, &hosts(10))
}

#[test]
fn results_and_retries() {
    let cluster = resilient();
    let policy = retry_policy(RetryOn::SERVER_ERROR, 2);
    let (head, mut response, mut rng) = (head(), ResponseHead::new(), Rng::new(1));
    response.status = 503;
    let mut now_ns = 0;
    let count = allocations(|| {
        now_ns += 1_000_000;
        breaker::acquire(&cluster.live.in_use[0], &cluster.config.breakers, Limit::Requests).unwrap();
        let mut state = RetryState::new(Some(&policy), &head, true);
        for end in [End::Failed(Failure::Reset), End::Response(&response)] {
            let attempt = Attempt { end, request_sent: true, response_begun: false, body_replayable: true };
            black_box(state.decide(Some(&policy), &attempt, &cluster, now_ns, &mut rng));
        }
        state.finish(&cluster.live);
        let endpoint = &cluster.endpoints.endpoints[0];
        black_box(outlier::observe(&cluster, endpoint, Observation::Status(200), now_ns, &mut rng));
        breaker::release(&cluster.live.in_use[0], Limit::Requests);
    });
    assert_eq!(count, 0);
}
