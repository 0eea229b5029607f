//! The route table of a [`super::Setup`] while it is made: what a test's `manager` changes, and routes to add to it.

use corelane_snapshot::{
    Action, ClusterId, ClusterSpecifier, Forward, HeaderAppend, HeaderEdit, HeaderRules,
    HttpConnectionManager, PathMatch, PerRouteFilters, Route, RouteMatch, RouteSource, RouteTable, StatBlock,
    VirtualHost, template::Template,
};
use std::sync::Arc;

pub fn table(manager: &mut HttpConnectionManager) -> &mut RouteTable {
    let RouteSource::Inline(table) = &mut manager.routes else { panic!("inline") };
    Arc::get_mut(table).expect("ours alone")
}

pub fn host(manager: &mut HttpConnectionManager) -> &mut VirtualHost {
    Arc::get_mut(&mut table(manager).hosts.hosts[0]).expect("ours alone")
}

pub fn route(manager: &mut HttpConnectionManager) -> &mut Route {
    Arc::get_mut(&mut host(manager).routes[0]).expect("ours alone")
}

/// A field that a rule adds.
pub fn add(name: &str, value: &str, append: HeaderAppend) -> HeaderEdit {
    let value = Template::parse(value).expect("template");
    HeaderEdit { name: name.into(), value, append, keep_empty_value: false }
}

/// To the cluster, with nothing else set.
pub fn forward_to(cluster: ClusterId) -> Forward {
    Forward {
        target: ClusterSpecifier::Cluster(cluster),
        cluster_not_found_status: 503,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        stream_duration_max: None,
        grpc_timeout_max: None,
        retry: None,
        hash_policy: Vec::new(),
        upgrades: Vec::new(),
        priority: Default::default(),
    }
}

/// All below a path.
pub fn route_to(name: &str, prefix: &str, forward: Forward) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            path: PathMatch::Prefix { text: prefix.into(), ignore_case: false },
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
            grpc: false,
            tls_presented: None,
            tls_validated: None,
        },
        action: Action::Forward(Box::new(forward)),
        headers: HeaderRules::default(),
        filters: PerRouteFilters::default(),
        stats: StatBlock::default(),
    }
}
