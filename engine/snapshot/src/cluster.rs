//! envoy.config.cluster.v3.Cluster: a named set of endpoints and how to talk to it.

use crate::{
    ClusterId, ClusterStats, EndpointSet, HealthCheck, OutlierDetection, RetryBudget, TcpKeepalive,
    UpstreamTls, live::ClusterLive,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Configuration and endpoints change apart: a DNS answer or EDS update replaces only `endpoints`.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub config: Arc<ClusterConfig>,
    pub endpoints: Arc<EndpointSet>,
    pub live: Arc<ClusterLive>,
}

#[derive(Clone, Debug)]
pub struct ClusterConfig {
    pub id: ClusterId,
    pub name: String,
    /// Name in metrics (alt_stat_name).
    pub stat_name: String,
    pub kind: ClusterKind,
    pub connect_timeout: Duration,
    pub lb: LbPolicy,
    pub common_lb: CommonLb,
    pub protocol: UpstreamProtocol,
    pub http2: Http2Options,
    pub transport: UpstreamTransport,
    pub pool: PoolLimits,
    /// Of the default priority; `high` has the other's.
    pub breakers: CircuitBreakers,
    pub retry_budget: RetryBudget,
    pub high: Box<HighPriority>,
    pub outlier: Option<OutlierDetection>,
    pub health_checks: Vec<HealthCheck>,
    pub bind: Option<SocketAddr>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Close connections of a host that health checks declare unhealthy.
    pub close_connections_on_host_health_failure: bool,
    pub stats: ClusterStats,
}

/// envoy.config.core.v3.RoutingPriority of a request, by its route. Each has breakers, a budget and connections of its
/// own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoutingPriority {
    #[default]
    Default,
    High,
}

impl RoutingPriority {
    pub const ALL: [RoutingPriority; 2] = [RoutingPriority::Default, RoutingPriority::High];
}

/// For requests of the high priority.
#[derive(Clone, Debug, Default)]
pub struct HighPriority {
    pub breakers: CircuitBreakers,
    pub retry_budget: RetryBudget,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ClusterKind {
    Static,
    StrictDns {
        refresh: Duration,
        respect_ttl: bool,
        family: DnsFamily,
    },
    LogicalDns {
        refresh: Duration,
        respect_ttl: bool,
        family: DnsFamily,
    },
    /// The address the client meant; `port` overrides; `header` names it (x-envoy-original-dst-host) where allowed.
    OriginalDst {
        port: Option<u16>,
        http_header: Option<Box<str>>,
    },
    Eds {
        service_name: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFamily {
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicy {
    RoundRobin {
        slow_start: Option<SlowStart>,
    },
    LeastRequest {
        choices: u32,
        active_request_bias: f64,
        slow_start: Option<SlowStart>,
    },
    Random,
    RingHash(HashLb),
    Maglev(HashLb),
    /// The cluster kind decides (ORIGINAL_DST).
    ClusterProvided,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    pub aggression: f64,
    pub min_weight_percent: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HashLb {
    pub ring_size_min: u64,
    pub ring_size_max: u64,
    pub maglev_table_size: u64,
    pub use_hostname: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CommonLb {
    /// Below this share of healthy hosts all are used; percent, 50 by default, 0: off.
    pub healthy_panic_threshold: f64,
    pub fail_traffic_on_panic: bool,
    pub locality_weighted: bool,
    pub ignore_new_hosts_until_first_hc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// As the downstream request came.
    UseDownstream,
    /// By ALPN (auto_config).
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Options {
    pub streams_max: u32,
    pub stream_window: u32,
    pub connection_window: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Http2Options { streams_max: 1024, stream_window: 16 << 20, connection_window: 24 << 20 }
    }
}

/// `sockets[0]` is the default (`transport_socket`, else plain); each endpoint carries its index.
#[derive(Clone, Debug)]
pub struct UpstreamTransport {
    pub sockets: Vec<TransportSocket>,
    pub matches: Vec<TransportSocketMatch>,
}

#[derive(Clone, Debug)]
pub enum TransportSocket {
    Plain,
    Tls(Arc<UpstreamTls>),
}

/// First match over the endpoint's envoy.transport_socket_match metadata wins.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportSocketMatch {
    pub name: String,
    pub labels: Vec<(Box<str>, Box<str>)>,
    pub socket: u32,
}

/// Limits on upstream connections; the bounds of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolLimits {
    /// An idle upstream connection is closed after this; Envoy's default is 1 h, None: never.
    pub idle_timeout: Option<Duration>,
    /// 0: no limit.
    pub requests_per_connection_max: u32,
    pub connection_duration_max: Option<Duration>,
    pub stream_duration_max: Option<Duration>,
    /// Idle connections kept per endpoint and core.
    pub idle_per_endpoint_max: u32,
    pub header_fields_max: u32,
}

/// envoy.config.cluster.v3.CircuitBreakers, one set a priority; exact over all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreakers {
    pub connections_max: u32,
    pub pending_max: u32,
    pub requests_max: u32,
    /// Only where a budget is not configured: a fixed cap on retries at once.
    pub retries_max: Option<u32>,
    /// connections per endpoint (per_host_thresholds).
    pub host_connections_max: Option<u32>,
}

impl Default for CircuitBreakers {
    /// Envoy's defaults.
    fn default() -> Self {
        CircuitBreakers {
            connections_max: 1024,
            pending_max: 1024,
            requests_max: 1024,
            retries_max: None,
            host_connections_max: None,
        }
    }
}
