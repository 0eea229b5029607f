//! From an authority to its virtual host, and from a path to its route.

use crate::{Round, traffic};
use corelane_http::RequestHead;
use corelane_snapshot::{
    HeaderMatch, HeaderMatcher, HeaderRules, PathMatch, PerRouteFilters, Route, RouteTable, RouteTableId,
    StringMatcher, VirtualHost, VirtualHostIndex,
};
use corelane_traffic::matching::{self, RequestFacts};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use std::{collections::HashMap, hint::black_box, sync::Arc};

const HOSTS: u32 = 1000;
/// Wildcards beside the exact names.
const WILDCARDS: u32 = 100;
/// Different requests that take turns.
const REQUESTS: u32 = 64;

pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matching");
    virtual_hosts(&mut group);
    routes_by_path(&mut group);
    routes_by_header(&mut group);
    group.finish();
}

/// Each service under the names that a mesh gives it, each tenant under a wildcard, and a host for the rest.
fn table() -> RouteTable {
    let mut index = VirtualHostIndex::default();
    let mut exact = HashMap::new();
    for number in 0..HOSTS {
        for name in ["", ".default", ".default.svc", ".default.svc.cluster.local"] {
            exact.insert(format!("service-{number}{name}").into_bytes().into_boxed_slice(), number);
        }
    }
    index.exact = exact;
    let wildcard =
        |tenant: u32| (format!(".tenant-{tenant}.example.com").into_bytes().into(), HOSTS + tenant);
    index.suffixes = (0..WILDCARDS).map(wildcard).collect();
    index.suffixes.sort_by_key(|(text, _): &(Box<[u8]>, u32)| std::cmp::Reverse(text.len()));
    index.any = Some(HOSTS + WILDCARDS);
    let host = |number| Arc::new(traffic::virtual_host(&format!("host-{number}"), Vec::new()));
    index.hosts = (0..=HOSTS + WILDCARDS).map(host).collect();
    RouteTable {
        id: RouteTableId(0),
        name: "outbound".into(),
        hosts: index,
        headers: HeaderRules::default(),
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: true,
        internal_only_headers: Vec::new(),
        filters: PerRouteFilters::default(),
    }
}

/// `REQUESTS` numbers below `count`, spread over all of it.
fn spread(count: u32) -> impl Iterator<Item = u32> {
    (0..REQUESTS).map(move |n| n * count.saturating_sub(1) / (REQUESTS - 1))
}

fn virtual_hosts(group: &mut BenchmarkGroup<'_, WallTime>) {
    let table = table();
    let exact = spread(HOSTS).map(|n| (format!("service-{n}.default.svc.cluster.local:8080"), n));
    let wildcard = spread(WILDCARDS).map(|n| (format!("shop.tenant-{n}.example.com"), HOSTS + n));
    let any = spread(HOSTS).map(|n| (format!("{n}.example.org"), HOSTS + WILDCARDS));
    let kinds: [(_, Vec<_>); 3] =
        [("exact", exact.collect()), ("wildcard_of_100", wildcard.collect()), ("any", any.collect())];
    for (kind, authorities) in &kinds {
        for (authority, expected) in authorities {
            let found = matching::virtual_host(&table, authority.as_bytes());
            assert_eq!(found.expect("there is one for the rest").name, format!("host-{expected}"));
        }
        group.bench_function(format!("virtual_host_of_1000/{kind}"), |b| {
            let mut round = Round::new(authorities);
            b.iter(|| black_box(matching::virtual_host(&table, black_box(round.turn().0.as_bytes()))));
        });
    }
}

fn head(path: &str, version: u32) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_authority(b"payments").expect("an authority");
    head.set_path(path.as_bytes()).expect("a path");
    for (name, value) in [("accept", "*/*"), ("user-agent", "curl"), ("x-request-id", "1")] {
        head.fields.append(name.as_bytes(), value.as_bytes()).expect("a field");
    }
    head.fields.append(b"x-version", version.to_string().as_bytes()).expect("a field");
    head
}

fn prefix(text: String) -> PathMatch {
    PathMatch::Prefix { text: text.into(), ignore_case: false }
}

/// Finds the route of each head in turn, after making sure that it is the expected one.
fn find(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    host: &VirtualHost,
    heads: &[(RequestHead, u32)],
) {
    let facts = RequestFacts::default();
    for (head, expected) in heads {
        let found = matching::route(host, head, &facts, 0).expect("a route");
        assert_eq!(found.0, *expected as usize);
    }
    group.bench_function(id, |b| {
        let mut round = Round::new(heads);
        b.iter(|| black_box(matching::route(black_box(host), &round.turn().0, black_box(&facts), 0)));
    });
}

fn routes_by_path(group: &mut BenchmarkGroup<'_, WallTime>) {
    for count in [10u32, 1000, 10_000] {
        let mut routes: Vec<Route> =
            (0..count - 1).map(|n| traffic::route("r", prefix(format!("/api/v1/resource-{n}/")))).collect();
        routes.push(traffic::route("rest", prefix("/".into())));
        let host = traffic::virtual_host("payments", routes);
        let heads: Vec<_> =
            spread(count - 1).map(|n| (head(&format!("/api/v1/resource-{n}/items?page=2"), 0), n)).collect();
        find(group, BenchmarkId::new("route_by_prefix", count), &host, &heads);
    }
}

/// As canaries are chosen: one path, a route a version.
fn routes_by_header(group: &mut BenchmarkGroup<'_, WallTime>) {
    let versioned = |version: u32| {
        let mut route = traffic::route("r", prefix("/".into()));
        route.matches.headers.push(HeaderMatcher {
            name: "x-version".into(),
            matcher: HeaderMatch::Text(StringMatcher::exact(version.to_string())),
            invert: false,
            treat_missing_as_empty: false,
        });
        route
    };
    let host = traffic::virtual_host("payments", (0..10).map(versioned).collect());
    let heads: Vec<_> = spread(10).map(|n| (head("/api/v1/resource-7/items", n), n)).collect();
    find(group, BenchmarkId::new("route_by_header", 10), &host, &heads);
}
