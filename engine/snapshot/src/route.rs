//! envoy.config.route.v3: which cluster a request goes to, and what happens to it on the way.

use crate::{
    ClusterId, CorsPolicy, Fault, Fraction, HeaderMatcher, LocalRateLimit, Metadata, QueryMatcher, RateLimit,
    Rbac, Regex, RetryPolicy, RouteIndex, RouteTableId, StatBlock, template::Template,
};
use std::{collections::HashMap, sync::Arc, time::Duration};

#[derive(Debug)]
pub struct RouteTable {
    pub id: RouteTableId,
    pub name: String,
    pub hosts: VirtualHostIndex,
    pub headers: HeaderRules,
    pub most_specific_header_mutations_wins: bool,
    pub ignore_port_in_host_matching: bool,
    pub internal_only_headers: Vec<Box<str>>,
    pub filters: PerRouteFilters,
}

/// Search order (VirtualHost.domains): exact, longest suffix wildcard, longest prefix wildcard, `*`.
#[derive(Debug, Default)]
pub struct VirtualHostIndex {
    pub hosts: Vec<Arc<VirtualHost>>,
    /// Lower case domain -> index into `hosts`.
    pub exact: HashMap<Box<[u8]>, u32>,
    /// `*.example.com` stored as `.example.com`, by length, longest first.
    pub suffixes: Vec<(Box<[u8]>, u32)>,
    /// `example.*` stored as `example.`, longest first.
    pub prefixes: Vec<(Box<[u8]>, u32)>,
    pub any: Option<u32>,
}

#[derive(Debug)]
pub struct VirtualHost {
    pub name: String,
    pub routes: Vec<Arc<Route>>,
    /// `RouteIndex::of(&routes)`.
    pub index: Option<RouteIndex>,
    pub require_tls: bool,
    pub headers: HeaderRules,
    pub retry: Option<Arc<RetryPolicy>>,
    pub include_request_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub filters: PerRouteFilters,
}

#[derive(Debug)]
pub struct Route {
    /// The configured name, or `` where there is none.
    pub name: String,
    pub matches: RouteMatch,
    pub action: Action,
    pub headers: HeaderRules,
    pub filters: PerRouteFilters,
    /// Default (counts nothing) unless the route has a stat_prefix.
    pub stats: StatBlock,
}

/// All parts must match.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub headers: Vec<HeaderMatcher>,
    pub query: Vec<QueryMatcher>,
    /// runtime_fraction.default_value.
    pub fraction: Option<Fraction>,
    pub grpc: bool,
    /// TlsContextMatchOptions: presented, validated.
    pub tls_presented: Option<bool>,
    pub tls_validated: Option<bool>,
}

/// Paths are compared without query and fragment. With `ignore_case` the stored text is lower case.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    Prefix {
        text: Box<str>,
        ignore_case: bool,
    },
    Exact {
        text: Box<str>,
        ignore_case: bool,
    },
    /// `/foo` matches `/foo` and `/foo/…`, not `/foobar` (path_separated_prefix).
    SeparatedPrefix {
        text: Box<str>,
        ignore_case: bool,
    },
    Regex(Regex),
    /// connect_matcher.
    Connect,
}

#[derive(Debug)]
pub enum Action {
    Forward(Box<Forward>),
    Redirect(Box<Redirect>),
    Direct(Box<DirectResponse>),
    /// non_forwarding_action and empty actions: 404.
    None,
}

/// envoy.config.route.v3.RouteAction.
#[derive(Debug)]
pub struct Forward {
    pub target: ClusterSpecifier,
    /// Status when the cluster does not exist: 503 by default.
    pub cluster_not_found_status: u16,
    pub path_rewrite: Option<PathRewrite>,
    pub host_rewrite: Option<HostRewrite>,
    pub append_x_forwarded_host: bool,
    /// None: no timeout (0 s). Envoy's default is 15 s.
    pub timeout: Option<Duration>,
    /// Overrides the manager's stream_idle_timeout; Some(None): off.
    pub idle_timeout: Option<Option<Duration>>,
    pub stream_duration_max: Option<Option<Duration>>,
    pub grpc_timeout_max: Option<Option<Duration>>,
    pub retry: Option<Arc<RetryPolicy>>,
    pub hash_policy: Vec<HashPolicy>,
    pub upgrades: Vec<crate::UpgradeConfig>,
    pub priority: crate::RoutingPriority,
}

#[derive(Debug)]
pub enum ClusterSpecifier {
    Cluster(ClusterId),
    /// Named by a request header (lower case).
    Header(Box<str>),
    Weighted {
        clusters: Vec<WeightedCluster>,
        total: u32,
    },
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub cluster: ClusterId,
    pub weight: u32,
    pub headers: HeaderRules,
    pub host_rewrite: Option<Box<str>>,
    pub filters: PerRouteFilters,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// Replaces what the route's prefix or exact path matched.
    Prefix(Box<str>),
    /// Replaces the whole path, keeping the query (path_rewrite without variables).
    Full(Box<str>),
    Regex {
        pattern: Regex,
        substitution: Box<[u8]>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum HostRewrite {
    Literal(Box<str>),
    /// The chosen endpoint's hostname.
    Auto,
    Header(Box<str>),
    PathRegex {
        pattern: Regex,
        substitution: Box<[u8]>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum HashPolicy {
    Header { name: Box<str>, terminal: bool },
    Cookie { name: Box<str>, ttl: Option<Duration>, path: Box<str>, terminal: bool },
    SourceIp { terminal: bool },
    Query { name: Box<str>, terminal: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub https: bool,
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    pub path: Option<Box<str>>,
    pub prefix: Option<Box<str>>,
    pub regex: Option<(Regex, Box<[u8]>)>,
    pub strip_query: bool,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Box<[u8]>,
}

/// What happens to headers at one level (weighted cluster, route, virtual host, table).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderRules {
    pub request_add: Vec<HeaderEdit>,
    /// Lower case names.
    pub request_remove: Vec<Box<str>>,
    pub response_add: Vec<HeaderEdit>,
    pub response_remove: Vec<Box<str>>,
}

impl HeaderRules {
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct HeaderEdit {
    pub name: Box<str>,
    pub value: Template,
    pub append: HeaderAppend,
    pub keep_empty_value: bool,
}

/// envoy.config.core.v3.HeaderValueOption.HeaderAppendAction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderAppend {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

/// typed_per_filter_config; the most specific level that is set wins.
#[derive(Clone, Debug, Default)]
pub struct PerRouteFilters {
    pub cors: Option<Arc<CorsPolicy>>,
    pub fault: Option<Arc<Fault>>,
    /// Some(None): RBACPerRoute without rules switches the filter off.
    pub rbac: Option<Option<Arc<Rbac>>>,
    pub local_rate_limit: Option<Arc<LocalRateLimit>>,
    /// Route.metadata, for rules that ask for it; at no other level.
    pub metadata: Option<Arc<Metadata>>,
    /// Of the route and of the virtual host; at no other level.
    pub rate_limits: Vec<RateLimit>,
}
