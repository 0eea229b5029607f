//! What istiod sends is understood but for the extensions that are named.

#![allow(clippy::unwrap_used)]

mod support;

use corelane_snapshot::Builder;
use corelane_xds::{
    Document, Schema, Severity, translate,
    tree::{Node, Spanned},
};
use std::collections::BTreeSet;
use support::NoStats;

type Tree = Spanned<Node>;

fn map(fields: Vec<(&str, Tree)>) -> Tree {
    let spanned = |(key, value): (&str, Tree)| (Spanned::new(key.to_owned(), 1, 1), value);
    Spanned::new(Node::Map(fields.into_iter().map(spanned).collect()), 1, 1)
}

/// The resources of a file, without the `@type` that says what they are.
fn resources(name: &str) -> Vec<Tree> {
    let Node::Seq(list) = support::tree(&support::fixture(&format!("istiod/{name}"))).value else {
        panic!("{name}")
    };
    let strip = |tree: Tree| match tree.value {
        Node::Map(fields) => {
            let kept = fields.into_iter().filter(|(key, _)| key.value != "@type").collect();
            Spanned::new(Node::Map(kept), tree.line, tree.column)
        }
        other => panic!("{other:?}"),
    };
    list.into_iter().map(strip).collect()
}

fn seq(list: Vec<Tree>) -> Tree {
    Spanned::new(Node::Seq(list), 1, 1)
}

fn text(text: &str) -> Tree {
    Spanned::new(Node::Str(text.to_owned()), 1, 1)
}

/// Last part of the path and message of each error, and of each warning, once.
fn faults(resources: Tree) -> (BTreeSet<String>, BTreeSet<String>) {
    let schema = Schema::load().unwrap();
    let tree = map(vec![("static_resources", resources)]);
    let document = Document::read(&schema, &tree).unwrap();
    let mut builder = Builder::new(Box::new(NoStats));
    let translation = translate::bootstrap(&document, &mut builder);
    let of = |severity| {
        let found = translation.findings.iter().filter(move |finding| finding.severity == severity);
        found.map(|f| format!("{}: {}", f.path.rsplit('.').next().unwrap(), f.message)).collect()
    };
    (of(Severity::Error), of(Severity::Warning))
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn listeners() {
    let clusters = seq(resources("clusters.json"));
    let (errors, warnings) =
        faults(map(vec![("listeners", seq(resources("listeners.json"))), ("clusters", clusters)]));
    let expected = set(&[
        "cluster: unknown cluster `outbound|6379||gamma.demo.svc.cluster.local`: no cluster of that name is defined",
        "filters: field `filters` of Cluster is not implemented",
        "rds: RDS needs a control stream, which a static file does not have",
        "sds_config: SDS needs a control stream, which a static file does not have",
        "type: EDS needs a control stream, which a static file does not have",
        "typed_config: extension type `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication` is not implemented",
        "typed_config: extension type `envoy.tcp.metadataexchange.config.MetadataExchange` (in a udpa.type.v1.TypedStruct) is not implemented",
        "typed_config: extension type `io.istio.http.peer_metadata.Config` (in a udpa.type.v1.TypedStruct) is not implemented",
        "typed_config: extension type `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig` is not implemented",
        "typed_config: extension type `stats.PluginConfig` is not implemented",
    ]);
    assert_eq!(errors, expected);
    assert_eq!(warnings, set(&[]));
}

#[test]
fn clusters() {
    let (errors, _) = faults(map(vec![("clusters", seq(resources("clusters.json")))]));
    let expected = set(&[
        "filters: field `filters` of Cluster is not implemented",
        "sds_config: SDS needs a control stream, which a static file does not have",
        "type: EDS needs a control stream, which a static file does not have",
    ]);
    assert_eq!(errors, expected);
}

#[test]
fn endpoints_are_understood_whole_and_routes_but_for_mirrors() {
    let mut clusters = Vec::new();
    for (number, assignment) in resources("endpoints.json").into_iter().enumerate() {
        clusters.push(map(vec![("name", text(&format!("c{number}"))), ("load_assignment", assignment)]));
    }
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let listeners = resources("routes.json").into_iter().enumerate().map(|(number, table)| {
        let port = Spanned::new(Node::Int(8000 + number as i128), 1, 1);
        let address =
            map(vec![("socket_address", map(vec![("address", text("0.0.0.0")), ("port_value", port)]))]);
        let router =
            map(vec![("name", text("router")), ("typed_config", map(vec![("@type", text(router))]))]);
        let config = map(vec![
            ("@type", text(manager)),
            ("stat_prefix", text("outbound")),
            ("route_config", table),
            ("http_filters", seq(vec![router])),
        ]);
        let filter = map(vec![("name", text("hcm")), ("typed_config", config)]);
        let chain = map(vec![("filters", seq(vec![filter]))]);
        map(vec![("address", address), ("filter_chains", seq(vec![chain]))])
    });
    let (errors, warnings) =
        faults(map(vec![("listeners", seq(listeners.collect())), ("clusters", seq(clusters))]));
    let mirrors =
        "request_mirror_policies: field `request_mirror_policies` of RouteAction is not implemented";
    assert_eq!((errors, warnings), (set(&[mirrors]), set(&[])));
}
