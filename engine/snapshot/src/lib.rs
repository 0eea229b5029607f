//! The configuration a request sees: immutable, indexed, validated once.
//!
//! A [`Snapshot`] is a table of shared resources (listeners, route tables, clusters). The control thread
//! makes one with a [`Builder`], hands it to all cores at once with a [`Publisher`], and each core follows
//! it through a [`Subscription`]. Nothing in a snapshot is ever changed; what several cores must count
//! exactly together (circuit breakers, outlier state, retry budgets, rate limits) hangs off it as atomics
//! in [`live`] and survives the swap.
//!
//! Architecture invariant: no runtime, clock, file or environment variable here, and no protobuf.

mod access_log;
mod builder;
mod cluster;
mod cors;
mod endpoint;
mod error;
mod fault;
mod grpc_stats;
mod http_connection_manager;
mod id;
mod listener;
pub mod live;
mod matcher;
mod metadata;
mod publish;
mod rate_limit;
mod rbac;
mod resilience;
mod route;
mod route_index;
mod tcp_proxy;
pub mod template;
mod tls;

pub use access_log::{AccessLog, AccessLogFilter, AccessLogSink, JsonField, JsonTemplate, LogFormat};
pub use builder::{Builder, Snapshot, StatAllocator};
pub use cluster::{
    CircuitBreakers, Cluster, ClusterConfig, ClusterKind, CommonLb, DnsFamily, HashLb, HighPriority,
    Http2Options, LbPolicy, PoolLimits, RoutingPriority, SlowStart, TransportSocket, TransportSocketMatch,
    UpstreamProtocol, UpstreamTransport,
};
pub use cors::CorsPolicy;
pub use endpoint::{Endpoint, EndpointSet, HealthStatus, Locality};
pub use error::Error;
pub use fault::{Fault, FaultAbort, FaultDelay};
pub use grpc_stats::{GRPC_METHODS_MAX, GrpcBlocks, GrpcStats};
pub use http_connection_manager::{
    ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, HeaderCasing, Http1Options,
    HttpConnectionManager, HttpFilters, PathRules, RequestId, RouteSource, ServerHeader, TraceSampling,
    UpgradeConfig,
};
pub use id::{
    ClusterId, ClusterStats, EndpointId, HttpStats, ListenerId, ListenerStats, RouteTableId, StatBlock,
    StatScope, TlsContextId,
};
pub use listener::{
    FilterChain, FilterChainMatch, Listener, ListenerFilters, NetworkFilter, SourceType, TcpKeepalive,
    Terminal, TrafficDirection, TransportProtocol,
};
pub use matcher::{
    Cidr, Fraction, HeaderMatch, HeaderMatcher, QueryMatch, QueryMatcher, RangeI64, Regex, StringMatcher,
};
pub use metadata::{Metadata, MetadataMatcher, MetadataSource, Value, ValueMatcher};
pub use publish::{Pinned, Publisher, Subscription, SubscriptionSeed};
pub use rate_limit::{
    DESCRIPTORS_MAX, Descriptor, LocalRateLimit, RateLimit, RateLimitAction, RateLimitValue, TokenBuckets,
    VirtualHostRateLimits,
};
pub use rbac::{Permission, Principal, Rbac, RbacAction, RbacPolicy, RbacRules};
pub use resilience::{
    BackOff, HealthCheck, HealthCheckKind, OutlierDetection, RetryBudget, RetryOn, RetryPolicy, StatusRange,
};
pub use route::{
    Action, ClusterSpecifier, DirectResponse, Forward, HashPolicy, HeaderAppend, HeaderEdit, HeaderRules,
    HostRewrite, PathMatch, PathRewrite, PerRouteFilters, Redirect, Route, RouteMatch, RouteTable,
    VirtualHost, VirtualHostIndex, WeightedCluster,
};
pub use route_index::{Candidates, INDEXED_ROUTES_MIN, RouteIndex};
pub use tcp_proxy::{TcpProxy, TcpTarget};
pub use tls::{
    DataSource, DownstreamTls, SanKind, SanMatcher, TlsCertificate, TlsParams, TlsValidation, TlsVersion,
    UpstreamTls,
};
