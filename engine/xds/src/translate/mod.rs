//! A checked configuration becomes resources of a snapshot.
//!
//! [`bootstrap`] does it for a file. Every function here takes protobuf and gives the snapshot's type, or None after
//! it has reported why; it never stops at the first fault. What the check has refused already (a field that is not
//! implemented, a value out of bounds) is not reported again, but is still read: nothing here may rely on bounds.

mod access_log;
mod bootstrap;
mod cluster;
mod context;
mod endpoint;
mod filter_chain;
mod headers;
mod health_check;
mod http_connection_manager;
mod http_filters;
mod listener;
mod load_balancing;
mod matcher;
mod outlier_detection;
mod rate_limit;
mod rbac;
mod retry;
mod route;
mod route_action;
mod tls;
mod upstream_protocol;
mod uri_template;
mod values;

pub use bootstrap::{Admin, Dns, Node, Translation, bootstrap};
use context::Context;
pub use context::Origin;
pub use endpoint::{Assignment, DnsCluster};
pub use retry::RETRIES_MAX;
pub use upstream_protocol::IDLE_PER_ENDPOINT_MAX;

/// The API's packages under short names.
mod api {
    pub use crate::proto::envoy::{
        config::{
            accesslog::v3 as accesslog, bootstrap::v3 as bootstrap, cluster::v3 as cluster, core::v3 as core,
            endpoint::v3 as endpoint, listener::v3 as listener, rbac::v3 as rbac, route::v3 as route,
        },
        extensions::{
            access_loggers::{file::v3 as file_log, stream::v3 as stream_log},
            common::ratelimit::v3 as ratelimit,
            filters::{
                common::fault::v3 as fault_common,
                http::{
                    cors::v3 as cors, fault::v3 as fault, grpc_stats::v3 as grpc_stats,
                    local_ratelimit::v3 as http_rate_limit, rbac::v3 as http_rbac, router::v3 as router,
                },
                listener::proxy_protocol::v3 as proxy_protocol,
                network::{
                    http_connection_manager::v3 as hcm, local_ratelimit::v3 as network_rate_limit,
                    rbac::v3 as network_rbac, tcp_proxy::v3 as tcp_proxy,
                },
            },
            load_balancing_policies as lb,
            network::dns_resolver::cares::v3 as cares,
            path::r#match::uri_template::v3 as uri_template,
            rbac::principals::mtls_authenticated::v3 as mtls_authenticated,
            request_id::uuid::v3 as uuid,
            retry::priority::previous_priorities::v3 as previous_priorities,
            transport_sockets::tls::v3 as tls,
            upstreams::http::v3 as upstream_http,
        },
        r#type::{matcher::v3 as matcher, v3 as types},
    };
}

/// Full names of the extensions that are implemented, as they stand in `@type`.
mod extension {
    pub const HTTP_CONNECTION_MANAGER: &str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    pub const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    pub const NETWORK_RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
    pub const NETWORK_RATE_LIMIT: &str = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
    pub const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    pub const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    pub const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    pub const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    pub const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
    pub const HTTP_RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
    pub const RBAC_PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    pub const UPSTREAM_IP_PORT: &str =
        "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher";
    pub const MTLS_AUTHENTICATED: &str = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
    pub const URI_TEMPLATE: &str = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
    pub const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    pub const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
    pub const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
    pub const GRPC_STATS: &str = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
    pub const HTTP_RATE_LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    pub const UUID: &str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";
    pub const PRESERVE_CASE: &str =
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
    pub const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    pub const OMIT_CANARY_HOSTS: &str =
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
    pub const PREVIOUS_PRIORITIES: &str =
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    pub const FILE_LOG: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
    pub const STDOUT_LOG: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
    pub const STDERR_LOG: &str = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";
    pub const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    pub const DOWNSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    pub const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    pub const UPSTREAM_HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    pub const CARES: &str = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
    pub const GETADDRINFO: &str =
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig";
    pub const ROUND_ROBIN: &str = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
    pub const LEAST_REQUEST: &str = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
    pub const RANDOM: &str = "envoy.extensions.load_balancing_policies.random.v3.Random";
    pub const RING_HASH: &str = "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash";
    pub const MAGLEV: &str = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev";
    pub const CLUSTER_PROVIDED: &str =
        "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided";
}
