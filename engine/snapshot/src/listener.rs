//! envoy.config.listener.v3.Listener: where connections come in, and which filter chain takes each.

use crate::{
    AccessLog, Cidr, DownstreamTls, HttpConnectionManager, ListenerId, ListenerStats, LocalRateLimit, Rbac,
    TcpProxy, live::ListenerLive,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

#[derive(Debug)]
pub struct Listener {
    pub id: ListenerId,
    pub name: String,
    pub address: SocketAddr,
    /// A listener that is not bound gets its connections from one with `use_original_dst`.
    pub bind_to_port: bool,
    pub use_original_dst: bool,
    pub transparent: bool,
    pub freebind: bool,
    /// An IPv6 address takes IPv4 connections too, as mapped addresses.
    pub ipv4_compat: bool,
    pub backlog: u32,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub direction: TrafficDirection,
    pub filters: ListenerFilters,
    /// None: wait for ever (listener_filters_timeout 0 s). Envoy's default is 15 s.
    pub filters_timeout: Option<Duration>,
    /// After the timeout go on without what the filters would have found, instead of closing.
    pub continue_on_filters_timeout: bool,
    pub chains: Vec<Arc<FilterChain>>,
    pub default_chain: Option<Arc<FilterChain>>,
    /// Connections at once on this listener over all cores; None: unlimited but for the process's cap.
    pub connections_max: Option<u32>,
    pub live: Arc<ListenerLive>,
    pub access_log: Vec<Arc<AccessLog>>,
    pub stats: ListenerStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time_s: Option<u32>,
    pub interval_s: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// Which listener filters run, in Envoy's order: addresses first, then sniffing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerFilters {
    pub original_dst: bool,
    pub proxy_protocol: bool,
    /// Accept connections without a PROXY header (allow_requests_without_proxy_protocol).
    pub proxy_protocol_optional: bool,
    pub tls_inspector: bool,
    /// Destination ports on which the inspector stays off (filter_disabled): the first and last of each range.
    pub tls_inspector_off: Vec<(u16, u16)>,
    pub http_inspector: bool,
    pub http_inspector_off: Vec<(u16, u16)>,
}

#[derive(Debug)]
pub struct FilterChain {
    pub name: String,
    pub matches: FilterChainMatch,
    pub tls: Option<Arc<DownstreamTls>>,
    /// TLS handshake or other transport set-up; Envoy's transport_socket_connect_timeout. None: 15 s default of ours.
    pub handshake_timeout: Option<Duration>,
    /// In configured order, before the terminal filter.
    pub network_filters: Vec<NetworkFilter>,
    pub terminal: Terminal,
}

#[derive(Debug)]
pub enum NetworkFilter {
    Rbac(Arc<Rbac>),
    LocalRateLimit(Arc<LocalRateLimit>),
}

#[derive(Debug)]
pub enum Terminal {
    Http(Arc<HttpConnectionManager>),
    Tcp(Arc<TcpProxy>),
}

/// envoy.config.listener.v3.FilterChainMatch; an empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterChainMatch {
    pub destination_port: Option<u16>,
    pub destination: Vec<Cidr>,
    /// Lower case; `*.example.com` is a suffix.
    pub server_names: Vec<String>,
    pub transport_protocol: Option<TransportProtocol>,
    pub application_protocols: Vec<Vec<u8>>,
    pub direct_source: Vec<Cidr>,
    pub source_type: SourceType,
    pub source: Vec<Cidr>,
    pub source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportProtocol {
    RawBuffer,
    Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}
