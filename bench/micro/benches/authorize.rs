//! May this peer do this: ALLOW policies as a mesh writes them, of which the last one matches, or none.

use corelane_http::RequestHead;
use corelane_snapshot::{
    HeaderMatch, HeaderMatcher, Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules, StatBlock,
    StringMatcher,
};
use corelane_traffic::authorize::{Facts, Peer, verdict};
use criterion::{BenchmarkId, Criterion};
use std::{hint::black_box, net::SocketAddr};

pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authorize");
    for policies in [10, 1000] {
        let rbac = rbac(policies);
        for (id, caller, allowed) in [("by_the_last", policies - 1, true), ("by_none", policies, false)] {
            let uri_sans = [principal(caller)];
            let head = head(caller);
            let facts = facts(&head, &uri_sans);
            assert_eq!(verdict(&rbac, &facts).is_allowed(), allowed);
            group.bench_function(BenchmarkId::new(id, policies), |b| {
                b.iter(|| black_box(verdict(black_box(&rbac), black_box(&facts))));
            });
        }
    }
    group.finish();
}

fn principal(caller: u32) -> String {
    format!("spiffe://cluster.local/ns/default/sa/caller-{caller}")
}

/// Every policy: one caller, one method, the paths of that caller.
fn rbac(policies: u32) -> Rbac {
    let get = HeaderMatcher {
        name: ":method".into(),
        matcher: HeaderMatch::Text(StringMatcher::exact("GET")),
        invert: false,
        treat_missing_as_empty: false,
    };
    let policy = |number: u32| RbacPolicy {
        name: format!("policy-{number:04}"),
        permissions: vec![Permission::And(vec![
            Permission::Header(get.clone()),
            Permission::UrlPath(StringMatcher::prefix(format!("/of-caller-{number}/"))),
            Permission::DestinationPort(8080),
        ])],
        principals: vec![Principal::Authenticated(Some(StringMatcher::exact(principal(number))))],
    };
    Rbac {
        rules: Some(RbacRules { action: RbacAction::Allow, policies: (0..policies).map(policy).collect() }),
        shadow_rules: None,
        shadow_stats: StatBlock::default(),
        stats: StatBlock::default(),
    }
}

fn head(caller: u32) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_authority(b"payments").expect("an authority");
    head.set_path(format!("/of-caller-{caller}/items?page=2").as_bytes()).expect("a path");
    head
}

fn facts<'a>(head: &'a RequestHead, uri_sans: &'a [String]) -> Facts<'a> {
    let source = SocketAddr::from(([10, 0, 0, 1], 40_000));
    Facts {
        head: Some(head),
        destination: SocketAddr::from(([10, 0, 0, 2], 8080)),
        direct_source: source,
        source,
        remote: source.ip(),
        server_name: None,
        peer: Some(Peer { uri_sans, ..Peer::default() }),
        route_metadata: None,
    }
}
