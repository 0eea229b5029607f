//! What a route does: forward, redirect, answer.

use super::{
    Context, api,
    headers::{self, Lists},
    http_filters,
    matcher::substitution,
    retry,
    route::Scope,
    values::{duration, override_timeout, port_number, timeout},
};
use api::route::{
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    route::Action as Specifier,
    route_action::{
        ClusterNotFoundResponseCode, ClusterSpecifier as Target, HostRewriteSpecifier,
        hash_policy::PolicySpecifier,
    },
    weighted_cluster::{ClusterWeight, cluster_weight},
};
use corelane_snapshot::{
    Action, ClusterSpecifier, DirectResponse, Forward, HashPolicy, HostRewrite, PathRewrite, Redirect,
    RoutingPriority, UpgradeConfig, WeightedCluster,
};
use std::time::Duration;

/// route_components.proto: "If not specified, the default is 15s."
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn action(
    cx: &mut Context<'_>,
    route: &api::route::Route,
    is_regex: bool,
    scope: &Scope,
) -> Option<Action> {
    Some(match route.action.as_ref()? {
        Specifier::Route(action) => {
            Action::Forward(Box::new(cx.within("route", |cx| forward(cx, action, is_regex, scope))?))
        }
        Specifier::Redirect(action) => {
            Action::Redirect(Box::new(cx.within("redirect", |cx| redirect(cx, action))?))
        }
        Specifier::DirectResponse(action) => {
            Action::Direct(Box::new(cx.within("direct_response", |cx| direct(cx, action, scope))?))
        }
        Specifier::NonForwardingAction(_) => Action::None,
    })
}

fn forward(
    cx: &mut Context<'_>,
    action: &api::route::RouteAction,
    is_regex: bool,
    scope: &Scope,
) -> Option<Forward> {
    let stream = action.max_stream_duration.unwrap_or_default();
    let (stream_duration_max, grpc_header_max) = cx.within("max_stream_duration", |cx| {
        (
            override_timeout(cx, "max_stream_duration", &stream.max_stream_duration),
            override_timeout(cx, "grpc_timeout_header_max", &stream.grpc_timeout_header_max),
        )
    });
    let target = target(cx, action, scope);
    Some(Forward {
        target: target?,
        cluster_not_found_status: match action.cluster_not_found_response_code() {
            ClusterNotFoundResponseCode::ServiceUnavailable => 503,
            ClusterNotFoundResponseCode::NotFound => 404,
            ClusterNotFoundResponseCode::InternalServerError => 500,
        },
        path_rewrite: path_rewrite(cx, action, is_regex),
        host_rewrite: host_rewrite(cx, action),
        append_x_forwarded_host: action.append_x_forwarded_host,
        timeout: timeout(cx, "timeout", &action.timeout, Some(TIMEOUT)),
        idle_timeout: override_timeout(cx, "idle_timeout", &action.idle_timeout),
        stream_duration_max,
        grpc_timeout_max: grpc_header_max
            .or_else(|| override_timeout(cx, "max_grpc_timeout", &action.max_grpc_timeout)),
        retry: cx.optional("retry_policy", &action.retry_policy, retry::retry_policy),
        hash_policy: cx.each("hash_policy", &action.hash_policy, hash_policy),
        upgrades: cx.each("upgrade_configs", &action.upgrade_configs, |_, upgrade| {
            Some(UpgradeConfig {
                kind: upgrade.upgrade_type.to_ascii_lowercase().into(),
                enabled: upgrade.enabled.unwrap_or(true),
            })
        }),
        priority: match action.priority() {
            api::core::RoutingPriority::Default => RoutingPriority::Default,
            api::core::RoutingPriority::High => RoutingPriority::High,
        },
    })
}

fn target(cx: &mut Context<'_>, action: &api::route::RouteAction, scope: &Scope) -> Option<ClusterSpecifier> {
    Some(match action.cluster_specifier.as_ref()? {
        Target::Cluster(name) => ClusterSpecifier::Cluster(cx.cluster("cluster", name, scope.must_exist)),
        Target::ClusterHeader(name) => ClusterSpecifier::Header(name.to_ascii_lowercase().into()),
        Target::WeightedClusters(weighted) => cx.within("weighted_clusters", |cx| {
            let clusters =
                cx.each("clusters", &weighted.clusters, |cx, entry| weighted_cluster(cx, entry, scope));
            // "The sum of weights across all entries must be greater than 0" and fit in 32 bits
            let total: u64 = clusters.iter().map(|entry| u64::from(entry.weight)).sum();
            if let Some(expected) = weighted.total_weight.filter(|expected| u64::from(*expected) != total) {
                cx.error_at("total_weight", format!("is {expected}, but the weights sum to {total}"));
            }
            match u32::try_from(total) {
                Ok(total) if total > 0 => Some(ClusterSpecifier::Weighted { clusters, total }),
                _ => {
                    cx.error_at("clusters", format!("the weights sum to {total}: must be 1 to {}", u32::MAX));
                    None
                }
            }
        })?,
    })
}

fn weighted_cluster(cx: &mut Context<'_>, entry: &ClusterWeight, scope: &Scope) -> Option<WeightedCluster> {
    if entry.name.is_empty() {
        cx.error_at("name", "must not be empty");
    }
    Some(WeightedCluster {
        cluster: cx.cluster("name", &entry.name, scope.must_exist && !entry.name.is_empty()),
        weight: entry.weight.unwrap_or(0),
        headers: headers::rules(
            cx,
            Lists {
                request_add: &entry.request_headers_to_add,
                request_remove: &entry.request_headers_to_remove,
                response_add: &entry.response_headers_to_add,
                response_remove: &entry.response_headers_to_remove,
            },
        ),
        host_rewrite: entry.host_rewrite_specifier.as_ref().map(|specifier| match specifier {
            cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) => host.as_str().into(),
        }),
        filters: http_filters::per_route(cx, &entry.typed_per_filter_config),
    })
}

/// "Only one of regex_rewrite, path_rewrite_policy, path_rewrite or prefix_rewrite may be specified."
fn path_rewrite(
    cx: &mut Context<'_>,
    action: &api::route::RouteAction,
    is_regex: bool,
) -> Option<PathRewrite> {
    let set =
        [!action.prefix_rewrite.is_empty(), !action.path_rewrite.is_empty(), action.regex_rewrite.is_some()];
    if set.iter().filter(|set| **set).count() > 1 {
        cx.error("only one of `prefix_rewrite`, `path_rewrite` and `regex_rewrite` may be set");
    }
    if let Some(rewrite) = &action.regex_rewrite {
        let (pattern, substitution) = cx.within("regex_rewrite", |cx| substitution(cx, rewrite))?;
        return Some(PathRewrite::Regex { pattern, substitution });
    }
    if !action.path_rewrite.is_empty() {
        if action.path_rewrite.contains('%') {
            cx.error_at("path_rewrite", "operators are not implemented here");
        }
        return Some(PathRewrite::Full(action.path_rewrite.as_str().into()));
    }
    if action.prefix_rewrite.is_empty() {
        return None;
    }
    let text = action.prefix_rewrite.as_str().into();
    // a regular expression matches the whole path, so the whole path is what is replaced
    Some(if is_regex { PathRewrite::Full(text) } else { PathRewrite::Prefix(text) })
}

fn host_rewrite(cx: &mut Context<'_>, action: &api::route::RouteAction) -> Option<HostRewrite> {
    Some(match action.host_rewrite_specifier.as_ref()? {
        HostRewriteSpecifier::HostRewriteLiteral(host) => HostRewrite::Literal(host.as_str().into()),
        HostRewriteSpecifier::AutoHostRewrite(true) => HostRewrite::Auto,
        HostRewriteSpecifier::AutoHostRewrite(false) => return None,
        HostRewriteSpecifier::HostRewriteHeader(name) => {
            HostRewrite::Header(name.to_ascii_lowercase().into())
        }
        HostRewriteSpecifier::HostRewritePathRegex(rewrite) => {
            let found = cx.within("host_rewrite_path_regex", |cx| substitution(cx, rewrite))?;
            HostRewrite::PathRegex { pattern: found.0, substitution: found.1 }
        }
    })
}

fn hash_policy(cx: &mut Context<'_>, policy: &api::route::route_action::HashPolicy) -> Option<HashPolicy> {
    let terminal = policy.terminal;
    Some(match policy.policy_specifier.as_ref()? {
        PolicySpecifier::Header(header) => {
            HashPolicy::Header { name: header.header_name.to_ascii_lowercase().into(), terminal }
        }
        PolicySpecifier::Cookie(cookie) => HashPolicy::Cookie {
            name: cookie.name.as_str().into(),
            ttl: cx.within("cookie", |cx| duration(cx, "ttl", &cookie.ttl)),
            path: cookie.path.as_str().into(),
            terminal,
        },
        PolicySpecifier::ConnectionProperties(properties) => {
            // without source_ip there is nothing to hash
            return properties.source_ip.then_some(HashPolicy::SourceIp { terminal });
        }
        PolicySpecifier::QueryParameter(query) => {
            HashPolicy::Query { name: query.name.as_str().into(), terminal }
        }
    })
}

fn redirect(cx: &mut Context<'_>, action: &api::route::RedirectAction) -> Option<Redirect> {
    let text = |text: &str| (!text.is_empty()).then(|| Box::<str>::from(text));
    let mut out = Redirect {
        https: false,
        scheme: None,
        host: text(&action.host_redirect),
        port: None,
        path: None,
        prefix: None,
        regex: None,
        strip_query: action.strip_query,
        status: match action.response_code() {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
    };
    if action.port_redirect != 0 {
        out.port = port_number(cx, "port_redirect", action.port_redirect);
    }
    match action.scheme_rewrite_specifier.as_ref() {
        Some(SchemeRewriteSpecifier::HttpsRedirect(https)) => out.https = *https,
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            out.scheme = text(&scheme.to_ascii_lowercase())
        }
        None => {}
    }
    match action.path_rewrite_specifier.as_ref() {
        Some(PathRewriteSpecifier::PathRedirect(path)) => out.path = text(path),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => out.prefix = Some(prefix.as_str().into()),
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            out.regex = Some(cx.within("regex_rewrite", |cx| substitution(cx, rewrite))?);
        }
        None => {}
    }
    Some(out)
}

fn direct(
    cx: &mut Context<'_>,
    action: &api::route::DirectResponseAction,
    scope: &Scope,
) -> Option<DirectResponse> {
    use api::core::data_source::Specifier;
    let body: Box<[u8]> = match action.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => Box::default(),
        Some(Specifier::InlineString(text)) => text.as_bytes().into(),
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice().into(),
        Some(Specifier::Filename(_)) => {
            cx.error_at("body", "a body in a file is not implemented; put it inline");
            return None;
        }
    };
    if body.len() > scope.direct_response_bytes_max as usize {
        let limit = scope.direct_response_bytes_max;
        cx.error_at("body", format!("{} bytes are more than the table's limit of {limit}", body.len()));
    }
    Some(DirectResponse { status: u16::try_from(action.status).ok()?, body })
}
