//! Filter chains: which connections they take, their transport socket and network filters.

use super::{
    Context,
    access_log::access_log,
    api, extension, http_connection_manager,
    http_filters::optional_rules,
    rate_limit, tls,
    values::{any_type, cidr, decode, duration, misplaced, port_number, timeout},
};
use api::{
    listener::{filter, filter_chain_match::ConnectionSourceType},
    tcp_proxy::tcp_proxy::ClusterSpecifier,
};
use corelane_snapshot::{
    DownstreamTls, FilterChain, FilterChainMatch, HashPolicy, NetworkFilter, Rbac, SourceType, StatScope,
    TcpProxy, TcpTarget, Terminal, TransportProtocol,
};
use std::{sync::Arc, time::Duration};

/// tcp_proxy.proto, idle_timeout: "If not set, the default idle timeout is 1 hour."
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) fn filter_chain(
    cx: &mut Context<'_>,
    chain: &api::listener::FilterChain,
    address: &str,
) -> Option<Arc<FilterChain>> {
    let matches = cx.optional("filter_chain_match", &chain.filter_chain_match, chain_match);
    let tls = cx.optional("transport_socket", &chain.transport_socket, transport_socket).flatten();
    let field = "transport_socket_connect_timeout";
    let handshake_timeout = timeout(cx, field, &chain.transport_socket_connect_timeout, None);
    let mut found = Found::default();
    let last = chain.filters.len().saturating_sub(1);
    let mut at = 0;
    cx.each("filters", &chain.filters, |cx, entry| {
        let is_last = at == last;
        at += 1;
        let Some(filter::ConfigType::TypedConfig(any)) = entry.config_type.as_ref() else {
            cx.error_at("typed_config", "must be set");
            return None;
        };
        cx.within("typed_config", |cx| network_filter(cx, any, address, is_last, &mut found))
    });
    if !found.has_terminal {
        cx.error_at("filters", "must end with the HTTP connection manager or the TCP proxy");
    }
    Some(Arc::new(FilterChain {
        name: chain.name.clone(),
        matches: matches.unwrap_or_default(),
        tls,
        handshake_timeout,
        network_filters: found.before,
        terminal: found.terminal?,
    }))
}

#[derive(Default)]
struct Found {
    before: Vec<NetworkFilter>,
    /// There is one, however faulty.
    has_terminal: bool,
    terminal: Option<Terminal>,
}

fn network_filter(
    cx: &mut Context<'_>,
    any: &prost_types::Any,
    address: &str,
    is_last: bool,
    found: &mut Found,
) -> Option<()> {
    let is_terminal = matches!(any_type(any), extension::HTTP_CONNECTION_MANAGER | extension::TCP_PROXY);
    if is_terminal {
        found.has_terminal = true;
        if !is_last {
            cx.error("must be the last filter of its chain");
        }
    }
    match any_type(any) {
        extension::HTTP_CONNECTION_MANAGER => {
            found.terminal = http_connection_manager::manager(cx, any, address).map(Terminal::Http);
        }
        extension::TCP_PROXY => found.terminal = tcp_proxy(cx, any).map(Terminal::Tcp),
        extension::NETWORK_RBAC => {
            let config: api::network_rbac::Rbac = decode(cx, any)?;
            let rbac = network_rbac(cx, &config);
            found.before.push(NetworkFilter::Rbac(rbac));
        }
        extension::NETWORK_RATE_LIMIT => {
            let config: api::network_rate_limit::LocalRateLimit = decode(cx, any)?;
            found.before.push(NetworkFilter::LocalRateLimit(rate_limit::network(cx, &config)?));
        }
        _ => misplaced(cx, any, "network filter"),
    }
    Some(())
}

fn network_rbac(cx: &mut Context<'_>, config: &api::network_rbac::Rbac) -> Arc<Rbac> {
    let rules = optional_rules(cx, "rules", &config.rules);
    let shadow_rules = optional_rules(cx, "shadow_rules", &config.shadow_rules);
    // Istio writes `tcp.`; the dot is implied
    let stat_prefix = || config.stat_prefix.trim_end_matches('.').to_owned();
    let stats = cx.stats(StatScope::NetworkRbac { stat_prefix: stat_prefix() });
    let shadow_stats = match config.shadow_rules_stat_prefix.trim_end_matches('.') {
        "" => stats,
        prefix => cx.stats(StatScope::NetworkRbacRules {
            stat_prefix: stat_prefix(),
            rules_prefix: prefix.to_owned(),
        }),
    };
    Arc::new(Rbac { rules, shadow_rules, stats, shadow_stats })
}

fn tcp_proxy(cx: &mut Context<'_>, any: &prost_types::Any) -> Option<Arc<TcpProxy>> {
    let config: api::tcp_proxy::TcpProxy = decode(cx, any)?;
    let target = match config.cluster_specifier.as_ref()? {
        ClusterSpecifier::Cluster(name) => Some(TcpTarget::Cluster(cx.cluster("cluster", name, true))),
        ClusterSpecifier::WeightedClusters(weighted) => cx.within("weighted_clusters", |cx| {
            let clusters = cx.each("clusters", &weighted.clusters, |cx, entry| {
                Some((cx.cluster("name", &entry.name, true), entry.weight))
            });
            let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
            match u32::try_from(total) {
                Ok(total) if total > 0 => Some(TcpTarget::Weighted { clusters, total }),
                _ => {
                    cx.error_at("clusters", format!("the weights sum to {total}: must be 1 to {}", u32::MAX));
                    None
                }
            }
        }),
    };
    Some(Arc::new(TcpProxy {
        target: target?,
        idle_timeout: timeout(cx, "idle_timeout", &config.idle_timeout, Some(TCP_IDLE_TIMEOUT)),
        // "If not specified, defaults to 1"
        connect_attempts_max: config.max_connect_attempts.unwrap_or(1),
        connection_duration_max: duration(
            cx,
            "max_downstream_connection_duration",
            &config.max_downstream_connection_duration,
        ),
        hash_policy: cx.each("hash_policy", &config.hash_policy, |_, policy| {
            policy.policy_specifier.as_ref().map(|_| HashPolicy::SourceIp { terminal: false })
        }),
        access_log: cx.each("access_log", &config.access_log, access_log),
        stats: cx.stats(StatScope::Tcp { stat_prefix: config.stat_prefix.clone() }),
    }))
}

/// None inside: plain text.
fn transport_socket(
    cx: &mut Context<'_>,
    socket: &api::core::TransportSocket,
) -> Option<Option<Arc<DownstreamTls>>> {
    use api::core::transport_socket::ConfigType;
    let Some(ConfigType::TypedConfig(any)) = socket.config_type.as_ref() else {
        cx.error_at("typed_config", "must be set");
        return None;
    };
    cx.within("typed_config", |cx| match any_type(any) {
        extension::RAW_BUFFER => Some(None),
        extension::DOWNSTREAM_TLS => tls::downstream(cx, any).map(Some),
        _ => {
            misplaced(cx, any, "downstream transport socket");
            None
        }
    })
}

fn chain_match(cx: &mut Context<'_>, found: &api::listener::FilterChainMatch) -> Option<FilterChainMatch> {
    Some(FilterChainMatch {
        destination_port: found.destination_port.and_then(|port| port_number(cx, "destination_port", port)),
        destination: cx.each("prefix_ranges", &found.prefix_ranges, cidr),
        server_names: cx.each("server_names", &found.server_names, server_name),
        transport_protocol: match found.transport_protocol.as_str() {
            "" => None,
            "raw_buffer" => Some(TransportProtocol::RawBuffer),
            "tls" => Some(TransportProtocol::Tls),
            other => {
                cx.error_at(
                    "transport_protocol",
                    format!("`{other}` is not implemented (raw_buffer or tls)"),
                );
                None
            }
        },
        application_protocols: found.application_protocols.iter().map(|p| p.as_bytes().to_vec()).collect(),
        direct_source: cx.each("direct_source_prefix_ranges", &found.direct_source_prefix_ranges, cidr),
        source_type: match found.source_type() {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source: cx.each("source_prefix_ranges", &found.source_prefix_ranges, cidr),
        source_ports: cx.each("source_ports", &found.source_ports, |cx, port| port_number(cx, "", *port)),
    })
}

/// "Partial wildcards are not supported, and values like *w.example.com are invalid."
fn server_name(cx: &mut Context<'_>, name: &String) -> Option<String> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if rest.contains('*') || rest.is_empty() {
        cx.error(format!("`{name}`: a wildcard is `*.` at the beginning"));
        return None;
    }
    Some(name.to_ascii_lowercase())
}
