//! Virtual hosts, routes in order, with and without an index.

use super::*;
use crate::testing::{route as new_route, virtual_host as new_host};
use corelane_http::RequestHead;
use corelane_snapshot::{
    Fraction, HeaderMatch, HeaderMatcher, HeaderRules, PathMatch, PerRouteFilters, QueryMatch, QueryMatcher,
    Route, RouteTable, RouteTableId, StringMatcher, VirtualHostIndex,
};
use std::{collections::HashMap, sync::Arc};

fn table(ignore_port: bool) -> RouteTable {
    let names = ["exact", "long suffix", "suffix", "prefix", "any", "port"];
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    RouteTable {
        id: RouteTableId(0),
        name: "outbound".into(),
        hosts: VirtualHostIndex {
            hosts: names.iter().map(|name| Arc::new(new_host(name, Vec::new()))).collect(),
            exact: HashMap::from([(bytes("a.example.com"), 0), (bytes("payments:8080"), 5)]),
            suffixes: vec![(bytes(".api.example.com"), 1), (bytes(".example.com"), 2)],
            prefixes: vec![(bytes("www."), 3)],
            any: Some(4),
        },
        headers: HeaderRules::default(),
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: ignore_port,
        internal_only_headers: Vec::new(),
        filters: PerRouteFilters::default(),
    }
}

#[test]
fn hosts_in_search_order() {
    let table = table(false);
    for (authority, host) in [
        ("a.example.com", "exact"),
        ("A.Example.Com", "exact"),
        ("x.api.example.com", "long suffix"),
        ("b.example.com", "suffix"),
        ("B.EXAMPLE.COM", "suffix"),
        (".example.com", "any"),
        ("www.foo", "prefix"),
        ("www.", "any"),
        ("www.example.com", "suffix"),
        ("payments:8080", "port"),
        ("payments", "any"),
        ("a.example.com:80", "any"),
        ("", "any"),
    ] {
        assert_eq!(virtual_host(&table, authority.as_bytes()).unwrap().name, host, "{authority}");
    }
    let none = RouteTable { hosts: VirtualHostIndex::default(), ..self::table(false) };
    assert!(virtual_host(&none, b"a.example.com").is_none());
}

#[test]
fn the_port_may_be_left_out() {
    let table = table(true);
    assert_eq!(virtual_host(&table, b"A.example.com:80").unwrap().name, "exact");
    assert_eq!(virtual_host(&table, b"x.example.com:80").unwrap().name, "suffix");
}

#[test]
fn an_endless_authority_is_no_domain() {
    let long = [b"x".repeat(5000), b".example.com".to_vec()].concat();
    assert_eq!(virtual_host(&table(false), &long).unwrap().name, "suffix");
}

fn head(path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_path(path.as_bytes()).unwrap();
    fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
    head
}

fn prefix(name: &str, text: &str) -> Route {
    new_route(name, PathMatch::Prefix { text: text.into(), ignore_case: false })
}

fn name_of<'h>(host: &'h corelane_snapshot::VirtualHost, head: &RequestHead, draw: u64) -> Option<&'h str> {
    route(host, head, &RequestFacts::default(), draw).map(|(number, route)| {
        assert!(Arc::ptr_eq(route, &host.routes[number]));
        route.name.as_str()
    })
}

#[test]
fn all_parts_of_a_route_must_match_and_the_first_wins() {
    let mut canary = prefix("canary", "/");
    canary.matches.headers.push(HeaderMatcher {
        name: "x-user".into(),
        matcher: HeaderMatch::Text(StringMatcher::exact("jason")),
        invert: false,
        treat_missing_as_empty: false,
    });
    canary
        .matches
        .query
        .push(QueryMatcher { name: "v".into(), matcher: QueryMatch::Text(StringMatcher::exact("2")) });
    let mut grpc = prefix("grpc", "/");
    grpc.matches.grpc = true;
    let mut tls = prefix("tls", "/");
    tls.matches.tls_validated = Some(true);
    let host = new_host("h", vec![canary, grpc, tls, prefix("api", "/api"), prefix("api too", "/api")]);
    let jason = ("x-user", "jason");
    for (path, fields, name) in [
        ("/api?v=2", &[jason][..], Some("canary")),
        ("/api?v=1", &[jason], Some("api")),
        ("/api?v=2", &[], Some("api")),
        ("/s/M", &[("content-type", "application/grpc")], Some("grpc")),
        ("/s/M", &[("content-type", "application/grpc+proto")], Some("grpc")),
        ("/s/M", &[("content-type", "application/grpc-web")], None),
        ("/s/M", &[], None),
    ] {
        assert_eq!(name_of(&host, &head(path, fields), 0), name, "{path} {fields:?}");
    }
    let validated = RequestFacts { tls_presented: true, tls_validated: true };
    assert_eq!(route(&host, &head("/x", &[]), &validated, 0).unwrap().0, 2);
}

#[test]
fn a_fraction_of_requests() {
    let mut tenth = prefix("tenth", "/");
    tenth.matches.fraction = Some(Fraction(100_000));
    let host = new_host("h", vec![tenth, prefix("rest", "/")]);
    let request = head("/", &[]);
    assert_eq!(name_of(&host, &request, 99_999), Some("tenth"));
    assert_eq!(name_of(&host, &request, 100_000), Some("rest"));
}

/// The index leaves out only what cannot match.
#[test]
fn an_index_finds_what_a_scan_finds() {
    let mut rng = crate::Rng::new(crate::testing::seed());
    for _ in 0..50 {
        let routes: Vec<Route> = (0..64).map(|n| random_route(n, &mut rng)).collect();
        let indexed = new_host("h", routes);
        assert!(indexed.index.is_some());
        for _ in 0..200 {
            let path = random_path(&mut rng);
            let request = head(&path, &[]);
            let bare = request.path_without_query();
            let facts = RequestFacts::default();
            let scanned = indexed.routes.iter().position(|r| route_matches(r, &request, bare, &facts, 0));
            assert_eq!(route(&indexed, &request, &facts, 0).map(|found| found.0), scanned, "{path}");
        }
    }
}

fn random_path(rng: &mut crate::Rng) -> String {
    let segment = |rng: &mut crate::Rng| ["a", "b", "ab", "A"][rng.below(4) as usize];
    let mut path = String::new();
    for _ in 0..1 + rng.below(3) {
        path.push('/');
        path.push_str(segment(rng));
    }
    if rng.percent(20) {
        path.push('/');
    }
    path
}

fn random_route(number: usize, rng: &mut crate::Rng) -> Route {
    let text: Box<str> = random_path(rng).into();
    let lower: Box<str> = text.to_lowercase().into();
    let path = match rng.below(6) {
        0 => PathMatch::Prefix { text, ignore_case: false },
        1 => PathMatch::Exact { text, ignore_case: false },
        2 => PathMatch::SeparatedPrefix { text, ignore_case: false },
        3 => PathMatch::Prefix { text: lower, ignore_case: true },
        4 => PathMatch::Exact { text: lower, ignore_case: true },
        _ => PathMatch::Regex(corelane_snapshot::Regex::new(&format!("{text}/.*")).unwrap()),
    };
    new_route(&number.to_string(), path)
}
