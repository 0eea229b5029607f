//! Route tables: virtual hosts by domain, routes in order, and what a route matches.

use super::{
    Context, api,
    headers::{self, Lists},
    http_filters, matcher, rate_limit, retry, route_action,
    values::{metadata, runtime_fraction},
};
use api::route::{route_match::PathSpecifier, virtual_host::TlsRequirementType};
use corelane_snapshot::{
    Action, Fraction, HeaderRules, PathMatch, PerRouteFilters, Route, RouteIndex, RouteMatch, RouteTable,
    StatBlock, StatScope, VirtualHost, VirtualHostIndex,
};
use std::{collections::HashMap, sync::Arc};

/// route.proto: "If not specified, the default is 4096."
const DIRECT_RESPONSE_BYTES_MAX: u32 = 4096;
/// Of one table; beyond it a file is a mistake.
const VIRTUAL_HOSTS_MAX: usize = 100_000;
const ROUTES_PER_HOST_MAX: usize = 100_000;

/// What routes take from the tables around them.
pub(super) struct Scope {
    /// Clusters that routes name must be defined (validate_clusters).
    pub must_exist: bool,
    pub direct_response_bytes_max: u32,
}

/// `id_name`: what the table is known by, which for an inline one need not be its own name.
pub(super) fn route_table(
    cx: &mut Context<'_>,
    id_name: &str,
    table: &api::route::RouteConfiguration,
) -> Arc<RouteTable> {
    let limit = table.max_direct_response_body_size_bytes.unwrap_or(DIRECT_RESPONSE_BYTES_MAX);
    let scope = Scope {
        // route.proto: "This setting defaults to true if the route table is statically defined"
        must_exist: table.validate_clusters.unwrap_or(true),
        direct_response_bytes_max: limit,
    };
    let headers = headers::rules(
        cx,
        Lists {
            request_add: &table.request_headers_to_add,
            request_remove: &table.request_headers_to_remove,
            response_add: &table.response_headers_to_add,
            response_remove: &table.response_headers_to_remove,
        },
    );
    if table.virtual_hosts.len() > VIRTUAL_HOSTS_MAX {
        cx.error_at("virtual_hosts", format!("more than {VIRTUAL_HOSTS_MAX} virtual hosts"));
    }
    let hosts = cx.each("virtual_hosts", &table.virtual_hosts, |cx, host| virtual_host(cx, host, &scope));
    Arc::new(RouteTable {
        id: cx.builder.route_table_id(id_name),
        name: table.name.clone(),
        hosts: index(cx, table, hosts),
        headers,
        most_specific_header_mutations_wins: table.most_specific_header_mutations_wins,
        ignore_port_in_host_matching: table.ignore_port_in_host_matching,
        internal_only_headers: table
            .internal_only_headers
            .iter()
            .map(|n| n.to_ascii_lowercase().into())
            .collect(),
        filters: http_filters::per_route(cx, &table.typed_per_filter_config),
    })
}

/// Files the hosts under their domains. Order of hosts in `hosts` and in the table is the same: none is left out.
fn index(
    cx: &mut Context<'_>,
    table: &api::route::RouteConfiguration,
    hosts: Vec<Arc<VirtualHost>>,
) -> VirtualHostIndex {
    let mut out = VirtualHostIndex { hosts, ..VirtualHostIndex::default() };
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut number = 0;
    cx.each("virtual_hosts", &table.virtual_hosts, |cx, host| {
        if let Some(first) = names.insert(&host.name, number) {
            cx.error_at("name", format!("`{}` is the name of virtual host {first} already", host.name));
        }
        cx.each("domains", &host.domains, |cx, domain| {
            let domain = domain.to_ascii_lowercase();
            file_domain(cx, &mut out, &domain, number as u32);
            if let Some(first) = seen.insert(domain.clone(), number) {
                cx.error(format!("`{domain}` is a domain of virtual host {first} already"));
            }
            Some(())
        });
        number += 1;
        Some(())
    });
    // "the longest wildcards match first"
    out.suffixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    out.prefixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    out
}

fn file_domain(cx: &mut Context<'_>, out: &mut VirtualHostIndex, domain: &str, host: u32) {
    let text = |text: &str| text.as_bytes().into();
    match (domain, domain.strip_prefix('*'), domain.strip_suffix('*')) {
        ("*", ..) => out.any = Some(host),
        (_, Some(suffix), None) if !suffix.contains('*') => out.suffixes.push((text(suffix), host)),
        (_, None, Some(prefix)) if !prefix.contains('*') => out.prefixes.push((text(prefix), host)),
        (exact, None, None) if !exact.contains('*') => {
            out.exact.insert(text(exact), host);
        }
        _ => cx.error(format!("`{domain}`: a `*` stands at the beginning or at the end, once")),
    }
}

fn virtual_host(
    cx: &mut Context<'_>,
    host: &api::route::VirtualHost,
    scope: &Scope,
) -> Option<Arc<VirtualHost>> {
    let require_tls = match host.require_tls() {
        TlsRequirementType::None => false,
        TlsRequirementType::All => true,
        TlsRequirementType::ExternalOnly => {
            cx.error_at("require_tls", "EXTERNAL_ONLY is not implemented");
            true
        }
    };
    if host.routes.len() > ROUTES_PER_HOST_MAX {
        cx.error_at("routes", format!("more than {ROUTES_PER_HOST_MAX} routes"));
    }
    let routes = cx.each("routes", &host.routes, |cx, found| route(cx, found, host, scope));
    Some(Arc::new(VirtualHost {
        name: host.name.clone(),
        index: RouteIndex::of(&routes),
        routes,
        require_tls,
        headers: headers::rules(
            cx,
            Lists {
                request_add: &host.request_headers_to_add,
                request_remove: &host.request_headers_to_remove,
                response_add: &host.response_headers_to_add,
                response_remove: &host.response_headers_to_remove,
            },
        ),
        retry: cx.optional("retry_policy", &host.retry_policy, retry::retry_policy),
        include_request_attempt_count: host.include_request_attempt_count,
        include_attempt_count_in_response: host.include_attempt_count_in_response,
        filters: PerRouteFilters {
            rate_limits: rate_limit::rate_limits(cx, &host.rate_limits),
            ..http_filters::per_route(cx, &host.typed_per_filter_config)
        },
    }))
}

fn route(
    cx: &mut Context<'_>,
    route: &api::route::Route,
    host: &api::route::VirtualHost,
    scope: &Scope,
) -> Option<Arc<Route>> {
    let matches = cx.optional("match", &route.r#match, route_match);
    let headers = route_headers(cx, route);
    let mut filters = http_filters::per_route(cx, &route.typed_per_filter_config);
    if let Some(api::route::route::Action::Route(action)) = &route.action {
        filters.rate_limits = cx.within("route", |cx| rate_limit::rate_limits(cx, &action.rate_limits));
    }
    filters.metadata = route.metadata.as_ref().and_then(metadata).map(Arc::new);
    let is_regex =
        matches.as_ref().is_some_and(|m| matches!(m.path, PathMatch::Regex(_) | PathMatch::Connect));
    let action = route_action::action(cx, route, is_regex, scope);
    let stats = match route.stat_prefix.is_empty() {
        true => StatBlock::default(),
        false => {
            cx.stats(StatScope::Route { virtual_host: host.name.clone(), route: route.stat_prefix.clone() })
        }
    };
    Some(Arc::new(Route {
        name: route.name.clone(),
        matches: matches?,
        action: action.unwrap_or(Action::None),
        headers,
        filters,
        stats,
    }))
}

fn route_headers(cx: &mut Context<'_>, route: &api::route::Route) -> HeaderRules {
    headers::rules(
        cx,
        Lists {
            request_add: &route.request_headers_to_add,
            request_remove: &route.request_headers_to_remove,
            response_add: &route.response_headers_to_add,
            response_remove: &route.response_headers_to_remove,
        },
    )
}

fn route_match(cx: &mut Context<'_>, found: &api::route::RouteMatch) -> Option<RouteMatch> {
    // "Indicates that prefix/path matching should be case sensitive. The default is true."
    let ignore_case = !found.case_sensitive.unwrap_or(true);
    let text =
        |text: &str| -> Box<str> { if ignore_case { text.to_ascii_lowercase().into() } else { text.into() } };
    let path = match found.path_specifier.as_ref()? {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix { text: text(prefix), ignore_case },
        PathSpecifier::Path(path) => PathMatch::Exact { text: text(path), ignore_case },
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            PathMatch::SeparatedPrefix { text: text(prefix), ignore_case }
        }
        PathSpecifier::SafeRegex(regex) => {
            PathMatch::Regex(cx.within("safe_regex", |cx| matcher::regex(cx, regex))?)
        }
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
    };
    let fraction = found
        .runtime_fraction
        .is_some()
        .then(|| runtime_fraction(cx, "runtime_fraction", &found.runtime_fraction, Fraction::ALL));
    Some(RouteMatch {
        path,
        headers: cx.each("headers", &found.headers, matcher::header),
        query: cx.each("query_parameters", &found.query_parameters, matcher::query),
        fraction,
        grpc: found.grpc.is_some(),
        tls_presented: found.tls_context.as_ref().and_then(|tls| tls.presented),
        tls_validated: found.tls_context.as_ref().and_then(|tls| tls.validated),
    })
}
