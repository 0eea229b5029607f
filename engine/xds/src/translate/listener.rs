//! envoy.config.listener.v3.Listener.

use super::{
    Context,
    access_log::access_log,
    api,
    cluster::tcp_keepalive,
    extension,
    filter_chain::filter_chain,
    values::{any_type, decode, misplaced, port_range, socket_address, timeout},
};
use api::listener::listener_filter_chain_match_predicate::Rule;
use api::listener::{ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter};
use corelane_snapshot::{FilterChain, Listener, ListenerFilters, ListenerStats, StatScope, TrafficDirection};
use prost::Message;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// listener.proto: "If not specified, a default timeout of 15s is used."
const FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// listener.proto, tcp_backlog_size: net.core.somaxconn, which this is on every current kernel; the kernel caps it.
const BACKLOG: u32 = 4096;
/// Predicates inside each other.
const DEPTH_MAX: usize = 32;

/// Puts the listener into the builder.
pub(super) fn listener(cx: &mut Context<'_>, listener: &api::listener::Listener) -> Option<()> {
    let address = cx.optional("address", &listener.address, socket_address);
    if listener.address.is_none() {
        cx.error_at("address", "must be set");
    }
    // a listener's statistics go by its address unless it has a prefix of its own
    let stat_address = match (listener.stat_prefix.as_str(), address) {
        ("", Some(address)) => address.to_string(),
        ("", None) => listener.name.clone(),
        (prefix, _) => prefix.to_owned(),
    };
    let chains =
        cx.each("filter_chains", &listener.filter_chains, |cx, chain| filter_chain(cx, chain, &stat_address));
    let default_chain = cx.optional("default_filter_chain", &listener.default_filter_chain, |cx, chain| {
        filter_chain(cx, chain, &stat_address)
    });
    if listener.filter_chains.is_empty() && listener.default_filter_chain.is_none() {
        cx.error_at("filter_chains", "must have at least 1 entry, or there must be a `default_filter_chain`");
    }
    check_unambiguous(cx, &listener.filter_chains);
    let filters = listener_filters(cx, listener, &chains);
    let name = if listener.name.is_empty() { stat_address.clone() } else { listener.name.clone() };
    let stats = ListenerStats {
        listener: cx.stats(StatScope::Listener { address: stat_address.clone() }),
        ssl: cx.stats(StatScope::ListenerSsl { address: stat_address }),
    };
    let id = cx.builder.listener_id(&name);
    let built = Listener {
        id,
        live: cx.builder.listener_live(id),
        name,
        address: address?,
        bind_to_port: bind_to_port(listener),
        use_original_dst: listener.use_original_dst.unwrap_or(false),
        transparent: listener.transparent.unwrap_or(false),
        freebind: listener.freebind.unwrap_or(false),
        ipv4_compat: ipv4_compat(listener),
        backlog: listener.tcp_backlog_size.unwrap_or(BACKLOG),
        tcp_keepalive: listener.tcp_keepalive.as_ref().map(tcp_keepalive),
        direction: direction(listener),
        filters,
        filters_timeout: timeout(
            cx,
            "listener_filters_timeout",
            &listener.listener_filters_timeout,
            Some(FILTERS_TIMEOUT),
        ),
        continue_on_filters_timeout: listener.continue_on_listener_filters_timeout,
        chains,
        default_chain,
        connections_max: None,
        access_log: cx.each("access_log", &listener.access_log, access_log),
        stats,
    };
    cx.builder.put_listener(Arc::new(built));
    Some(())
}

/// listener.proto: `deprecated_v1.bind_to_port` is the older form of `bind_to_port`; the default is true.
fn bind_to_port(listener: &api::listener::Listener) -> bool {
    let older = listener.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port);
    listener.bind_to_port.or(older).unwrap_or(true)
}

fn ipv4_compat(listener: &api::listener::Listener) -> bool {
    use api::core::address::Address;
    match listener.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(Address::SocketAddress(address)) => address.ipv4_compat,
        None => false,
    }
}

fn direction(listener: &api::listener::Listener) -> TrafficDirection {
    match listener.traffic_direction() {
        api::core::TrafficDirection::Unspecified => TrafficDirection::Unspecified,
        api::core::TrafficDirection::Inbound => TrafficDirection::Inbound,
        api::core::TrafficDirection::Outbound => TrafficDirection::Outbound,
    }
}

/// Envoy: "multiple filter chains with the same matching rules are defined".
fn check_unambiguous(cx: &mut Context<'_>, chains: &[api::listener::FilterChain]) {
    let mut seen = HashMap::with_capacity(chains.len());
    let mut number = 0;
    cx.each("filter_chains", chains, |cx, chain| {
        let encoded = chain.filter_chain_match.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        if let Some(first) = seen.insert(encoded, number) {
            cx.error_at("filter_chain_match", format!("is the same as that of filter chain {first}"));
        }
        number += 1;
        Some(())
    });
}

fn listener_filters(
    cx: &mut Context<'_>,
    listener: &api::listener::Listener,
    chains: &[Arc<FilterChain>],
) -> ListenerFilters {
    let mut out = ListenerFilters::default();
    cx.each("listener_filters", &listener.listener_filters, |cx, filter| {
        listener_filter(cx, filter, &mut out)
    });
    let needs_tls = |chain: &Arc<FilterChain>| {
        !chain.matches.server_names.is_empty() || chain.matches.transport_protocol.is_some()
    };
    if !out.tls_inspector && chains.iter().any(needs_tls) {
        // Envoy injects the inspector and says so
        cx.warn("a filter chain matches on TLS properties: the tls_inspector is added");
        out.tls_inspector = true;
    }
    out
}

fn listener_filter(cx: &mut Context<'_>, filter: &ListenerFilter, out: &mut ListenerFilters) -> Option<()> {
    let off = match &filter.filter_disabled {
        Some(predicate) => cx.within("filter_disabled", |cx| off_ports(cx, predicate, 0)),
        None => Vec::new(),
    };
    let Some(listener_filter::ConfigType::TypedConfig(any)) = filter.config_type.as_ref() else {
        cx.error_at("typed_config", "must be set");
        return None;
    };
    let can_be_off = matches!(any_type(any), extension::TLS_INSPECTOR | extension::HTTP_INSPECTOR);
    if filter.filter_disabled.is_some() && !can_be_off {
        cx.error_at("filter_disabled", "is only implemented for the inspectors");
    }
    cx.within("typed_config", |cx| {
        match any_type(any) {
            extension::TLS_INSPECTOR => (out.tls_inspector, out.tls_inspector_off) = (true, off),
            extension::HTTP_INSPECTOR => (out.http_inspector, out.http_inspector_off) = (true, off),
            extension::ORIGINAL_DST => out.original_dst = true,
            extension::PROXY_PROTOCOL => {
                let config: api::proxy_protocol::ProxyProtocol = decode(cx, any)?;
                out.proxy_protocol = true;
                out.proxy_protocol_optional = config.allow_requests_without_proxy_protocol;
            }
            _ => misplaced(cx, any, "listener filter"),
        }
        Some(())
    })
}

/// Ranges of destination ports, each by its first and last.
fn off_ports(
    cx: &mut Context<'_>,
    predicate: &ListenerFilterChainMatchPredicate,
    depth: usize,
) -> Vec<(u16, u16)> {
    if depth >= DEPTH_MAX {
        cx.error(format!("nested deeper than {DEPTH_MAX}"));
        return Vec::new();
    }
    match predicate.rule.as_ref() {
        None => Vec::new(),
        Some(Rule::AnyMatch(true)) => vec![(0, u16::MAX)],
        Some(Rule::AnyMatch(false)) => {
            cx.error_at("any_match", "must be true where it is set");
            Vec::new()
        }
        Some(Rule::OrMatch(set)) => cx.within("or_match", |cx| {
            let ranges = cx.each("rules", &set.rules, |cx, rule| Some(off_ports(cx, rule, depth + 1)));
            ranges.into_iter().flatten().collect()
        }),
        Some(Rule::DestinationPortRange(range)) => {
            cx.within("destination_port_range", |cx| port_range(cx, range)).into_iter().collect()
        }
    }
}
