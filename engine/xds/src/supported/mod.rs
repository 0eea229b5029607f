//! What of Envoy's API we understand, message by message: the one table behind three things.
//!
//! - [`crate::check`] refuses by name every field that is set and not listed here;
//! - `examples/regenerate` makes Rust types of exactly these messages and fields, so that translation can't
//!   read a field that the check would refuse;
//! - `docs/compatibility` can be written from it.
//!
//! A field is either *read* by the translation, or *accepted*: setting it changes nothing that we promise, and
//! the reason stands beside it. To support a further field: list it, regenerate, translate it.
//!
//! Pure data: the generator includes this file and its children by path.

mod cluster;
mod discovery;
mod http;
mod listener;
mod route;
mod security;

/// One message of the API.
pub struct Supported {
    /// Full name: `envoy.config.listener.v3.Listener`.
    pub message: &'static str,
    /// Fields that are read, separated by spaces.
    pub read: &'static str,
    /// Fields that may be set to no effect, with the reason. Their contents are not looked at.
    pub accepted: &'static [(&'static str, &'static str)],
}

pub(crate) const fn reads(message: &'static str, read: &'static str) -> Supported {
    Supported { message, read, accepted: &[] }
}

pub(crate) const fn accepts(
    message: &'static str,
    read: &'static str,
    accepted: &'static [(&'static str, &'static str)],
) -> Supported {
    Supported { message, read, accepted }
}

pub(crate) const NO_RUNTIME: &str = "there are no runtime keys here: the default value rules";
pub(crate) const ANNOTATION: &str = "an annotation for people and other filters";
pub(crate) const BUFFERS: &str = "a connection holds one buffer of the pool in each direction, or 168 KiB while a \
     long body moves, an HTTP/2 stream at most its window, a try at most 64 KiB of body to send again";

/// The whole table.
pub fn table() -> impl Iterator<Item = &'static Supported> {
    [listener::TABLE, http::TABLE, route::TABLE, cluster::TABLE, security::TABLE, discovery::TABLE]
        .into_iter()
        .flatten()
}

/// The messages that stand inside an Any, and so are not reached from another message.
pub const ROOTS: &[&str] = &[
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
    "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
    "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
    "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
    "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    "envoy.service.discovery.v3.DiscoveryRequest",
    "envoy.service.discovery.v3.DiscoveryResponse",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_in_the_table_exists_once() {
        let pool =
            prost_reflect::DescriptorPool::decode(include_bytes!("../../proto/descriptors.bin").as_ref())
                .expect("descriptors");
        let mut messages = HashSet::new();
        for entry in table() {
            let descriptor =
                pool.get_message_by_name(entry.message).unwrap_or_else(|| panic!("{}", entry.message));
            assert!(messages.insert(entry.message), "{} is listed twice", entry.message);
            let mut fields = HashSet::new();
            for field in entry.read.split_whitespace().chain(entry.accepted.iter().map(|(field, _)| *field)) {
                assert!(descriptor.get_field_by_name(field).is_some(), "{}.{field}", entry.message);
                assert!(fields.insert(field), "{}.{field} is listed twice", entry.message);
            }
            assert!(entry.accepted.iter().all(|(_, reason)| !reason.is_empty()), "{}", entry.message);
        }
        for root in ROOTS {
            assert!(pool.get_message_by_name(root).is_some(), "{root}");
            assert!(
                messages.contains(root) || root.ends_with("Request") || root.ends_with("Response"),
                "{root}"
            );
        }
    }

    #[test]
    fn every_message_that_is_read_is_listed() {
        let pool =
            prost_reflect::DescriptorPool::decode(include_bytes!("../../proto/descriptors.bin").as_ref())
                .expect("descriptors");
        let listed: HashSet<&str> = table().map(|entry| entry.message).collect();
        for entry in table() {
            let descriptor = pool.get_message_by_name(entry.message).expect("listed");
            for name in entry.read.split_whitespace() {
                let field = descriptor.get_field_by_name(name).expect("listed");
                let mut kind = field.kind();
                if let Some(map) = kind.as_message().filter(|message| message.is_map_entry()) {
                    kind = map.map_entry_value_field().kind();
                }
                if let Some(message) = kind.as_message() {
                    let known =
                        message.full_name().starts_with("google.") || listed.contains(message.full_name());
                    assert!(
                        known,
                        "{}.{name} is read, but {} is not listed",
                        entry.message,
                        message.full_name()
                    );
                }
            }
        }
    }
}
