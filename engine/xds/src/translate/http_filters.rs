//! The HTTP filters, at the connection manager and per route.

use super::{
    Context, api, extension,
    matcher::{header, string},
    rate_limit, rbac,
    values::{any_type, decode, duration, fraction, misplaced, runtime_fraction},
};
use api::{
    fault::{HttpFault, fault_abort::ErrorType},
    fault_common::fault_delay::FaultDelaySecifier,
    hcm::{HttpFilter, http_filter},
};
use corelane_snapshot::{
    CorsPolicy, Fault, FaultAbort, FaultDelay, Fraction, GrpcStats, HttpFilters, PerRouteFilters, Rbac,
    RbacRules, StatScope,
};
use std::{collections::BTreeMap, sync::Arc};

/// What the router filter says, which ends the chain.
pub(super) struct Router {
    pub suppress_envoy_headers: bool,
}

pub(super) fn http_filters(cx: &mut Context<'_>, filters: &[HttpFilter]) -> Option<(HttpFilters, Router)> {
    let mut out = HttpFilters::default();
    let mut router = None;
    let mut order = Order::default();
    let last = filters.len().saturating_sub(1);
    let mut at = 0;
    cx.each("http_filters", filters, |cx, filter| {
        let is_last = at == last;
        at += 1;
        let Some(http_filter::ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
            cx.error_at("typed_config", "must be set");
            return None;
        };
        cx.within("typed_config", |cx| {
            order.note(cx, any_type(any));
            if any_type(any) == extension::ROUTER {
                if !is_last {
                    cx.error("the router must be the last filter");
                }
                let config: api::router::Router = decode(cx, any)?;
                router = Some(Router { suppress_envoy_headers: config.suppress_envoy_headers });
                return Some(());
            }
            one(cx, any, &mut out)
        })
    });
    if router.is_none() {
        cx.error_at("http_filters", format!("the last filter must be the router ({})", extension::ROUTER));
    }
    Some((out, router?))
}

/// Filters act in a fixed order; a file that asks for another is told so.
#[derive(Default)]
struct Order {
    highest: Option<(usize, &'static str)>,
}

impl Order {
    /// The order of the pipeline, which is Istio's. Statistics have no place in it.
    const FIXED: [(&'static str, &'static str); 4] = [
        (extension::HTTP_RBAC, "rbac"),
        (extension::HTTP_RATE_LIMIT, "local_ratelimit"),
        (extension::FAULT, "fault"),
        (extension::CORS, "cors"),
    ];

    fn note(&mut self, cx: &mut Context<'_>, name: &str) {
        let Some((rank, short)) = Self::FIXED
            .iter()
            .enumerate()
            .find(|(_, (full, _))| *full == name)
            .map(|(i, (_, short))| (i, *short))
        else {
            return;
        };
        match self.highest {
            Some((highest, earlier)) if highest > rank => {
                cx.warn(format!("`{short}` acts before `{earlier}` here, whatever their order in the file"));
            }
            _ => self.highest = Some((rank, short)),
        }
    }
}

fn one(cx: &mut Context<'_>, any: &prost_types::Any, out: &mut HttpFilters) -> Option<()> {
    match any_type(any) {
        extension::CORS => out.cors = true,
        extension::FAULT => {
            let config: HttpFault = decode(cx, any)?;
            if out.fault.replace(Arc::new(fault(cx, &config))).is_some() {
                cx.error("a second fault filter is not implemented");
            }
        }
        extension::HTTP_RBAC => {
            let config: api::http_rbac::Rbac = decode(cx, any)?;
            let built = http_rbac(cx, &config);
            out.rbac.push(built);
        }
        extension::HTTP_RATE_LIMIT => {
            let config: api::http_rate_limit::LocalRateLimit = decode(cx, any)?;
            // without a token bucket the filter only makes room for per-route limits
            if config.token_bucket.is_some() || !config.descriptors.is_empty() {
                let limit = rate_limit::http(cx, &config)?;
                if out.local_rate_limit.replace(limit).is_some() {
                    cx.error("a second local rate limit is not implemented");
                }
            }
        }
        extension::GRPC_STATS => {
            let config: api::grpc_stats::FilterConfig = decode(cx, any)?;
            if out.grpc_stats.replace(Arc::new(grpc_stats(cx, &config))).is_some() {
                cx.error("a second gRPC statistics filter is not implemented");
            }
        }
        _ => misplaced(cx, any, "HTTP filter"),
    }
    Some(())
}

fn grpc_stats(cx: &mut Context<'_>, config: &api::grpc_stats::FilterConfig) -> GrpcStats {
    use api::grpc_stats::filter_config::PerMethodStatSpecifier as Methods;
    let mut out = GrpcStats { upstream_time: config.enable_upstream_stats, ..GrpcStats::default() };
    let list = match &config.per_method_stat_specifier {
        // config.proto: "If neither ... is set, the behavior will default to stats_for_all_methods=false"
        None | Some(Methods::StatsForAllMethods(false)) => return out,
        Some(Methods::StatsForAllMethods(true)) => {
            let message = "whatever a client names would get counters: list the methods in \
                           `individual_method_stats_allowlist`";
            cx.error_at("stats_for_all_methods", message);
            return out;
        }
        Some(Methods::IndividualMethodStatsAllowlist(list)) => list,
    };
    cx.within("individual_method_stats_allowlist", |cx| {
        cx.each("services", &list.services, |cx, service| {
            let shown = match config.replace_dots_in_grpc_service_name {
                true => service.name.replace('.', "_"),
                false => service.name.clone(),
            };
            cx.each("method_names", &service.method_names, |cx, method| {
                match cx.builder.grpc_method(&shown, method) {
                    Ok(number) => {
                        let path = format!("/{}/{method}", service.name).into_bytes();
                        out.methods.insert(path.into(), number);
                    }
                    Err(error) => cx.error(error.to_string()),
                }
                Some(())
            });
            Some(())
        });
    });
    out
}

/// `typed_per_filter_config`: keyed by the filter's name, told apart by type.
pub(super) fn per_route(
    cx: &mut Context<'_>,
    configs: &BTreeMap<String, prost_types::Any>,
) -> PerRouteFilters {
    let mut out = PerRouteFilters::default();
    for (key, any) in configs {
        cx.entry("typed_per_filter_config", key, |cx| {
            if per_route_one(cx, any, &mut out) == Some(true) {
                cx.error("a second configuration of the same filter is not implemented");
            }
        });
    }
    out
}

/// Some(true): the filter was configured before.
fn per_route_one(cx: &mut Context<'_>, any: &prost_types::Any, out: &mut PerRouteFilters) -> Option<bool> {
    Some(match any_type(any) {
        extension::CORS_POLICY => {
            let config: api::cors::CorsPolicy = decode(cx, any)?;
            out.cors.replace(Arc::new(cors_policy(cx, &config))).is_some()
        }
        extension::FAULT => {
            let config: HttpFault = decode(cx, any)?;
            out.fault.replace(Arc::new(fault(cx, &config))).is_some()
        }
        extension::RBAC_PER_ROUTE => {
            let config: api::http_rbac::RbacPerRoute = decode(cx, any)?;
            // rbac.proto: "If absent, no RBAC filter will be applied to this route"
            let rbac = cx.optional("rbac", &config.rbac, |cx, rbac| Some(http_rbac(cx, rbac)));
            out.rbac.replace(rbac).is_some()
        }
        extension::HTTP_RATE_LIMIT => {
            let config: api::http_rate_limit::LocalRateLimit = decode(cx, any)?;
            out.local_rate_limit.replace(rate_limit::http(cx, &config)?).is_some()
        }
        _ => {
            misplaced(cx, any, "per-route filter configuration");
            return None;
        }
    })
}

fn cors_policy(cx: &mut Context<'_>, config: &api::cors::CorsPolicy) -> CorsPolicy {
    CorsPolicy {
        allow_origins: cx.each("allow_origin_string_match", &config.allow_origin_string_match, string),
        allow_methods: config.allow_methods.as_str().into(),
        allow_headers: config.allow_headers.as_str().into(),
        expose_headers: config.expose_headers.as_str().into(),
        max_age: config.max_age.as_str().into(),
        allow_credentials: config.allow_credentials,
        allow_private_network_access: config.allow_private_network_access,
        forward_not_matching_preflights: config.forward_not_matching_preflights,
        enabled: share(cx, "filter_enabled", &config.filter_enabled),
        shadow_enabled: share(cx, "shadow_enabled", &config.shadow_enabled),
    }
}

fn share(
    cx: &mut Context<'_>,
    field: &str,
    found: &Option<api::core::RuntimeFractionalPercent>,
) -> Option<Fraction> {
    found.is_some().then(|| runtime_fraction(cx, field, found, Fraction::NONE))
}

fn fault(cx: &mut Context<'_>, config: &HttpFault) -> Fault {
    let upstream_cluster = match config.upstream_cluster.is_empty() {
        true => None,
        false => Some(cx.cluster("upstream_cluster", &config.upstream_cluster, false)),
    };
    Fault {
        delay: cx.optional("delay", &config.delay, delay),
        abort: cx.optional("abort", &config.abort, abort),
        headers: cx.each("headers", &config.headers, header),
        upstream_cluster,
        downstream_nodes: config.downstream_nodes.clone(),
        active_max: config.max_active_faults,
    }
}

fn delay(cx: &mut Context<'_>, delay: &api::fault_common::FaultDelay) -> Option<FaultDelay> {
    let fraction = cx.optional("percentage", &delay.percentage, fraction).unwrap_or(Fraction::NONE);
    let fixed = match delay.fault_delay_secifier.as_ref()? {
        FaultDelaySecifier::FixedDelay(fixed) => Some(duration(cx, "fixed_delay", &Some(*fixed))?),
        FaultDelaySecifier::HeaderDelay(_) => None,
    };
    Some(FaultDelay { fixed, fraction })
}

fn abort(cx: &mut Context<'_>, abort: &api::fault::FaultAbort) -> Option<FaultAbort> {
    let fraction = cx.optional("percentage", &abort.percentage, fraction).unwrap_or(Fraction::NONE);
    Some(match abort.error_type.as_ref()? {
        ErrorType::HttpStatus(status) => FaultAbort::Http { status: u16::try_from(*status).ok()?, fraction },
        ErrorType::GrpcStatus(status) => FaultAbort::Grpc { status: *status, fraction },
        ErrorType::HeaderAbort(_) => FaultAbort::Header { fraction },
    })
}

fn http_rbac(cx: &mut Context<'_>, config: &api::http_rbac::Rbac) -> Arc<Rbac> {
    let rules = optional_rules(cx, "rules", &config.rules);
    let shadow_rules = optional_rules(cx, "shadow_rules", &config.shadow_rules);
    let stat_prefix = cx.http_stat_prefix.clone();
    // rbac.proto: "If specified, rules will emit stats with the given prefix"; a dot at its end is implied
    let mut stats = |rules_prefix: &str| match rules_prefix.trim_end_matches('.') {
        "" => cx.stats(StatScope::HttpRbac { stat_prefix: stat_prefix.clone() }),
        prefix => cx.stats(StatScope::HttpRbacRules {
            stat_prefix: stat_prefix.clone(),
            rules_prefix: prefix.to_owned(),
        }),
    };
    let (stats, shadow_stats) = (stats(&config.rules_stat_prefix), stats(&config.shadow_rules_stat_prefix));
    Arc::new(Rbac { rules, shadow_rules, stats, shadow_stats })
}

pub(super) fn optional_rules(
    cx: &mut Context<'_>,
    field: &str,
    config: &Option<api::rbac::Rbac>,
) -> Option<RbacRules> {
    cx.optional(field, config, rbac::rules)
}
