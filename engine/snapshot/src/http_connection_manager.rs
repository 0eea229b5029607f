//! envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, resolved: an absent
//! stage is None, so a request only follows it.

use crate::{
    AccessLog, Cidr, Fault, Fraction, GrpcStats, HttpStats, LocalRateLimit, Rbac, RouteTable, RouteTableId,
};
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
pub struct HttpConnectionManager {
    pub codec: Codec,
    pub routes: RouteSource,
    pub filters: HttpFilters,
    pub server_name: Box<str>,
    pub server_header: ServerHeader,
    /// Value of the Via entry to append; None: none.
    pub via: Option<Box<str>>,
    pub use_remote_address: bool,
    pub skip_xff_append: bool,
    pub xff_trusted_hops: u32,
    /// Whose x-envoy-* wishes are heard (internal_address_config); empty: nobody's.
    pub internal_addresses: Vec<Cidr>,
    /// None: request ids say nothing of tracing.
    pub trace_sampling: Option<TraceSampling>,
    pub request_id: RequestId,
    pub forward_client_cert: ForwardClientCert,
    pub client_cert_details: ClientCertDetails,
    pub path: PathRules,
    pub strip_any_host_port: bool,
    pub strip_matching_host_port: bool,
    pub strip_trailing_host_dot: bool,
    pub scheme_overwrite: Option<Box<str>>,
    /// From the first byte of a head to its last; None: off.
    pub request_headers_timeout: Option<Duration>,
    /// From the head to the end of the request's body; None: off.
    pub request_timeout: Option<Duration>,
    /// No byte on the stream either way; Envoy's default is 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// No request on the connection; Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    pub connection_duration_max: Option<Duration>,
    pub stream_duration_max: Option<Duration>,
    pub delayed_close_timeout: Duration,
    pub request_head_bytes_max: u32,
    pub header_fields_max: u32,
    /// 0: no limit.
    pub requests_per_connection_max: u32,
    pub upgrades: Vec<UpgradeConfig>,
    /// `Expect: 100-continue` goes upstream, whose 100 goes back; else the proxy answers it.
    pub proxy_100_continue: bool,
    pub http1: Http1Options,
    /// SETTINGS_MAX_CONCURRENT_STREAMS to announce.
    pub http2_streams_max: u32,
    pub http2_stream_window: u32,
    pub http2_connection_window: u32,
    /// Add `x-envoy-attempt-count` etc. only where the route says so; Envoy's suppress_envoy_headers of the router filter.
    pub suppress_envoy_headers: bool,
    pub access_log: Vec<Arc<AccessLog>>,
    pub stats: HttpStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Auto,
    Http1,
    Http2,
}

#[derive(Debug)]
pub enum RouteSource {
    Inline(Arc<RouteTable>),
    /// Looked up in the snapshot at each request, so that a route edit is in force at once.
    Named(RouteTableId),
}

/// The optional stages in the order in which they act.
#[derive(Debug, Default)]
pub struct HttpFilters {
    pub cors: bool,
    pub fault: Option<Arc<Fault>>,
    /// In configured order (Istio sends DENY before ALLOW).
    pub rbac: Vec<Arc<Rbac>>,
    pub local_rate_limit: Option<Arc<LocalRateLimit>>,
    pub grpc_stats: Option<Arc<GrpcStats>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    pub generate: bool,
    pub preserve_external: bool,
    pub always_set_in_response: bool,
}

/// HttpConnectionManager.Tracing without a provider: no span is made, but a request's id tells the next hops, in its
/// 15th character, whether to trace it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSampling {
    /// Of requests whose client asks for it (x-client-trace-id).
    pub client: Fraction,
    pub random: Fraction,
    pub overall: Fraction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    KeepUnchanged,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// Lower case: `websocket`, `connect`.
    pub kind: Box<str>,
    pub enabled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Option<Box<str>>,
    pub casing: HeaderCasing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeaderCasing {
    #[default]
    Lower,
    ProperCase,
    Preserve,
}
