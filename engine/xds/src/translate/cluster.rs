//! envoy.config.cluster.v3.Cluster.

use super::{
    Context, Origin, api,
    endpoint::{self, Assignment, DnsCluster},
    health_check::health_check,
    load_balancing, outlier_detection, tls, upstream_protocol,
    values::{any_type, duration, ip_and_port, labels_of, misplaced, port_number, timeout},
};
use api::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig};
use corelane_snapshot::{
    ClusterConfig, ClusterKind, ClusterStats, DnsFamily, HighPriority, RetryBudget, StatBlock, StatScope,
    TcpKeepalive, TransportSocket, TransportSocketMatch, UpstreamProtocol, UpstreamTransport,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// cluster.proto: "If not set, a default value of 5s will be used."
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// cluster.proto, dns_refresh_rate: "the value defaults to 5000ms".
const DNS_REFRESH: Duration = Duration::from_secs(5);
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

/// Puts the cluster into the builder. Some: its endpoints come from names that are still to be resolved.
pub(super) fn cluster(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<DnsCluster> {
    let id = cx.builder.cluster_id(&cluster.name);
    let kind = kind(cx, cluster);
    let transport = transport(cx, cluster);
    let checks = cx.each("health_checks", &cluster.health_checks, |cx, check| {
        health_check(cx, check).map(|translated| (translated, check.alt_port))
    });
    let check_port = checks.first().and_then(|(_, port)| *port);
    if checks.iter().any(|(_, port)| *port != check_port) {
        cx.error_at("health_checks", "several checks must have the same `alt_port`, or none");
    }
    let assignment = match &cluster.load_assignment {
        Some(load) => cx.within("load_assignment", |cx| endpoint::assignment(cx, load, &transport)),
        None => Assignment::default(),
    };
    let assignment = assignment.with_health_check_port(cx, check_port);
    if let Some(kind) = &kind {
        check_targets(cx, cluster, kind, &assignment);
    }
    let upstream = upstream_protocol::upstream_protocol(cx, cluster);
    let stats = stats(cx, cluster, upstream.protocol);
    let (lb, common_lb) = load_balancing::load_balancing(cx, cluster, kind.as_ref());
    let [default, high] = circuit_breakers(cx, cluster);
    let config = Arc::new(ClusterConfig {
        id,
        name: cluster.name.clone(),
        stat_name: stat_name(cluster).to_owned(),
        connect_timeout: duration(cx, "connect_timeout", &cluster.connect_timeout).unwrap_or(CONNECT_TIMEOUT),
        lb,
        common_lb,
        protocol: upstream.protocol,
        http2: upstream.http2,
        transport,
        pool: upstream.pool,
        breakers: default.breakers,
        retry_budget: default.retry_budget,
        high: Box::new(high),
        outlier: cx.optional(
            "outlier_detection",
            &cluster.outlier_detection,
            outlier_detection::outlier_detection,
        ),
        health_checks: checks.into_iter().map(|(check, _)| check).collect(),
        bind: bind(cx, cluster),
        tcp_keepalive: cluster
            .upstream_connection_options
            .as_ref()
            .and_then(|options| options.tcp_keepalive.as_ref())
            .map(tcp_keepalive),
        close_connections_on_host_health_failure: cluster.close_connections_on_host_health_failure,
        stats,
        // last: a cluster of a type that can't be is still looked through
        kind: kind?,
    });
    put(cx, config, assignment, cluster)
}

fn put(
    cx: &mut Context<'_>,
    config: Arc<ClusterConfig>,
    assignment: Assignment,
    cluster: &api::cluster::Cluster,
) -> Option<DnsCluster> {
    let endpoints = Arc::new(assignment.endpoints(cx.builder, config.id, &config.stat_name, |_| Vec::new()));
    let waits_for_names = assignment.names().next().is_some();
    cx.builder.put_cluster(config.clone(), endpoints);
    waits_for_names.then(|| DnsCluster {
        assignment,
        jitter: duration(cx, "dns_jitter", &cluster.dns_jitter).unwrap_or_default(),
        failure_refresh: failure_refresh(cx, cluster),
        config,
    })
}

/// cluster.proto, dns_failure_refresh_rate: without it, failures are retried at the refresh rate.
fn failure_refresh(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<(Duration, Duration)> {
    cx.optional("dns_failure_refresh_rate", &cluster.dns_failure_refresh_rate, |cx, rate| {
        let base = duration(cx, "base_interval", &rate.base_interval)?;
        let max = duration(cx, "max_interval", &rate.max_interval).unwrap_or(base.saturating_mul(10));
        if max < base {
            cx.error_at("max_interval", "must not be below `base_interval`");
        }
        Some((base, max))
    })
}

fn kind(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<ClusterKind> {
    let Some(ClusterDiscoveryType::Type(number)) = cluster.cluster_discovery_type else {
        // without a type Envoy means STATIC, the enum's first value; a cluster_type is refused by the check
        return Some(ClusterKind::Static);
    };
    let refresh = duration(cx, "dns_refresh_rate", &cluster.dns_refresh_rate).unwrap_or(DNS_REFRESH);
    let respect_ttl = cluster.respect_dns_ttl;
    let family = match cluster.dns_lookup_family() {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    };
    Some(match DiscoveryType::try_from(number).ok()? {
        DiscoveryType::Static => ClusterKind::Static,
        DiscoveryType::StrictDns => ClusterKind::StrictDns { refresh, respect_ttl, family },
        DiscoveryType::LogicalDns => ClusterKind::LogicalDns { refresh, respect_ttl, family },
        DiscoveryType::Eds => eds(cx, cluster)?,
        DiscoveryType::OriginalDst => original_dst(cx, cluster)?,
    })
}

fn eds(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<ClusterKind> {
    if cx.origin == Origin::File {
        cx.error_at("type", "EDS needs a control stream, which a static file does not have");
        return None;
    }
    let service = cluster.eds_cluster_config.as_ref().map_or("", |config| config.service_name.as_str());
    let service_name = if service.is_empty() { &cluster.name } else { service };
    Some(ClusterKind::Eds { service_name: service_name.to_owned() })
}

fn original_dst(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<ClusterKind> {
    let mut port = None;
    let mut http_header = None;
    if let Some(LbConfig::OriginalDstLbConfig(config)) = &cluster.lb_config {
        cx.within("original_dst_lb_config", |cx| {
            port = config
                .upstream_port_override
                .and_then(|port| port_number(cx, "upstream_port_override", port));
            if config.use_http_header {
                let name = &config.http_header_name;
                let name = if name.is_empty() { ORIGINAL_DST_HEADER } else { name };
                http_header = Some(name.to_ascii_lowercase().into());
            }
        });
    }
    Some(ClusterKind::OriginalDst { port, http_header })
}

/// What the kind of a cluster asks of its endpoints.
fn check_targets(
    cx: &mut Context<'_>,
    cluster: &api::cluster::Cluster,
    kind: &ClusterKind,
    assignment: &Assignment,
) {
    match kind {
        ClusterKind::Static => {
            for (place, name) in assignment.names() {
                let message =
                    format!("`{name}` is no IP address; a cluster of type STRICT_DNS resolves names");
                cx.within("load_assignment", |cx| cx.error_at(place, message));
            }
        }
        ClusterKind::LogicalDns { .. } if assignment.len() != 1 => {
            cx.error_at("load_assignment", "a LOGICAL_DNS cluster must have exactly one endpoint");
        }
        ClusterKind::StrictDns { .. } if cluster.load_assignment.is_none() => {
            cx.error_at("load_assignment", "must be set for a STRICT_DNS cluster");
        }
        ClusterKind::OriginalDst { .. } | ClusterKind::Eds { .. } if cluster.load_assignment.is_some() => {
            cx.error_at("load_assignment", "must not be set for a cluster of this type");
        }
        _ => {}
    }
}

fn stat_name(cluster: &api::cluster::Cluster) -> &str {
    if cluster.alt_stat_name.is_empty() { &cluster.name } else { &cluster.alt_stat_name }
}

fn stats(cx: &mut Context<'_>, cluster: &api::cluster::Cluster, protocol: UpstreamProtocol) -> ClusterStats {
    let name = || stat_name(cluster).to_owned();
    let is_checked = !cluster.health_checks.is_empty();
    ClusterStats {
        cluster: cx.stats(StatScope::Cluster { name: name() }),
        ssl: cx.stats(StatScope::ClusterSsl { name: name() }),
        outlier: cx.stats(StatScope::ClusterOutlier { name: name() }),
        circuit: cx.stats(StatScope::ClusterCircuit { name: name() }),
        remaining: match tracks_remaining(cluster) {
            true => cx.stats(StatScope::ClusterRemaining { name: name() }),
            false => StatBlock::default(),
        },
        health_check: match is_checked {
            true => cx.stats(StatScope::ClusterHealthCheck { name: name() }),
            false => StatBlock::default(),
        },
        http2: match protocol {
            UpstreamProtocol::Http1 => StatBlock::default(),
            _ => cx.stats(StatScope::ClusterHttp2 { name: name() }),
        },
    }
}

/// circuit_breaker.proto, track_remaining: "then stats will be published that expose the number of resources
/// remaining until the circuit breakers open". Shown for the default priority.
fn tracks_remaining(cluster: &api::cluster::Cluster) -> bool {
    let thresholds = cluster.circuit_breakers.iter().flat_map(|breakers| &breakers.thresholds);
    thresholds
        .filter(|found| found.priority() == api::core::RoutingPriority::Default)
        .any(|found| found.track_remaining)
}

/// The default socket and those of `transport_socket_matches`, in their order.
fn transport(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> UpstreamTransport {
    let default = cx.optional("transport_socket", &cluster.transport_socket, socket);
    let mut sockets = vec![default.unwrap_or(TransportSocket::Plain)];
    let matches = cx.each("transport_socket_matches", &cluster.transport_socket_matches, |cx, entry| {
        let found = match &entry.transport_socket {
            Some(socket) => cx.within("transport_socket", |cx| self::socket(cx, socket))?,
            None => TransportSocket::Plain,
        };
        let labels = match &entry.r#match {
            Some(fields) => cx.within("match", |cx| match_labels(cx, fields)),
            None => Vec::new(),
        };
        sockets.push(found);
        Some(TransportSocketMatch { name: entry.name.clone(), labels, socket: sockets.len() as u32 - 1 })
    });
    UpstreamTransport { sockets, matches }
}

/// A value that is left out would widen the match.
fn match_labels(cx: &mut Context<'_>, fields: &prost_types::Struct) -> Vec<(Box<str>, Box<str>)> {
    let labels = labels_of(cx, fields);
    for key in fields.fields.keys().filter(|key| !labels.iter().any(|(known, _)| **known == ***key)) {
        cx.error_at(key, "must be a string, a number or a bool");
    }
    labels
}

fn socket(cx: &mut Context<'_>, socket: &api::core::TransportSocket) -> Option<TransportSocket> {
    use api::core::transport_socket::ConfigType;
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else {
        cx.error_at("typed_config", "must be set");
        return None;
    };
    cx.within("typed_config", |cx| match any_type(any) {
        super::extension::RAW_BUFFER => Some(TransportSocket::Plain),
        super::extension::UPSTREAM_TLS => tls::upstream(cx, any).map(TransportSocket::Tls),
        _ => {
            misplaced(cx, any, "upstream transport socket");
            None
        }
    })
}

/// By priority: the default's, and the high one's.
fn circuit_breakers(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> [HighPriority; 2] {
    let mut found = [HighPriority::default(), HighPriority::default()];
    let Some(configured) = &cluster.circuit_breakers else { return found };
    cx.within("circuit_breakers", |cx| {
        cx.each("thresholds", &configured.thresholds, |cx, thresholds| {
            let HighPriority { breakers, retry_budget: budget } = &mut found[thresholds.priority() as usize];
            breakers.connections_max = thresholds.max_connections.unwrap_or(breakers.connections_max);
            breakers.pending_max = thresholds.max_pending_requests.unwrap_or(breakers.pending_max);
            breakers.requests_max = thresholds.max_requests.unwrap_or(breakers.requests_max);
            breakers.retries_max = thresholds.max_retries;
            if let Some(configured) = &thresholds.retry_budget {
                // circuit_breaker.proto: with a budget "max_retries ... will be ignored"
                breakers.retries_max = None;
                *budget = cx.within("retry_budget", |cx| retry_budget(cx, configured));
            }
            Some(())
        });
        cx.each("per_host_thresholds", &configured.per_host_thresholds, |cx, thresholds| {
            // circuit_breaker.proto: "Currently, only max_connections is supported" here
            found[thresholds.priority() as usize].breakers.host_connections_max = thresholds.max_connections;
            let others = [
                ("max_pending_requests", thresholds.max_pending_requests.is_some()),
                ("max_requests", thresholds.max_requests.is_some()),
                ("max_retries", thresholds.max_retries.is_some()),
                ("retry_budget", thresholds.retry_budget.is_some()),
            ];
            for (field, _) in others.into_iter().filter(|(_, set)| *set) {
                cx.error_at(field, "is not implemented per host");
            }
            Some(())
        });
    });
    found
}

fn retry_budget(
    cx: &mut Context<'_>,
    configured: &api::cluster::circuit_breakers::thresholds::RetryBudget,
) -> RetryBudget {
    let default = RetryBudget::configured();
    RetryBudget {
        retries_extra: default.retries_extra,
        percent: configured.budget_percent.as_ref().map_or(default.percent, |percent| percent.value),
        retries_min: configured.min_retry_concurrency.unwrap_or(default.retries_min),
        window: timeout(cx, "budget_interval", &configured.budget_interval, None).unwrap_or(default.window),
    }
}

fn bind(cx: &mut Context<'_>, cluster: &api::cluster::Cluster) -> Option<SocketAddr> {
    let bind = cluster.upstream_bind_config.as_ref()?;
    let source = bind.source_address.as_ref()?;
    cx.within("upstream_bind_config", |cx| cx.within("source_address", |cx| ip_and_port(cx, source)))
}

pub(super) fn tcp_keepalive(keepalive: &api::core::TcpKeepalive) -> TcpKeepalive {
    TcpKeepalive {
        probes: keepalive.keepalive_probes,
        time_s: keepalive.keepalive_time,
        interval_s: keepalive.keepalive_interval,
    }
}
