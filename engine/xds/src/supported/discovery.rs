//! The control stream's own messages, and where configuration comes from.

use super::{Supported, accepts, reads};

pub(super) const TABLE: &[Supported] = &[
    accepts(
        "envoy.config.core.v3.ConfigSource",
        "api_config_source ads self",
        &[
            (
                "initial_fetch_timeout",
                "a listener waits for its secrets and routes, requests for their timeout",
            ),
            ("resource_api_version", "there is only v3"),
        ],
    ),
    reads("envoy.config.core.v3.AggregatedConfigSource", ""),
    reads("envoy.config.core.v3.SelfConfigSource", ""),
    accepts(
        "envoy.config.core.v3.ApiConfigSource",
        "api_type grpc_services",
        &[
            ("transport_api_version", "there is only v3"),
            ("set_node_on_first_message_only", "the node is sent once a stream"),
        ],
    ),
    reads("envoy.config.core.v3.GrpcService", "envoy_grpc"),
    reads("envoy.config.core.v3.GrpcService.EnvoyGrpc", "cluster_name"),
    reads(
        "envoy.service.discovery.v3.DiscoveryRequest",
        "version_info node resource_names type_url response_nonce error_detail",
    ),
    reads(
        "envoy.service.discovery.v3.DiscoveryResponse",
        "version_info resources type_url nonce control_plane",
    ),
    reads(
        "envoy.service.discovery.v3.DeltaDiscoveryRequest",
        "node type_url resource_names_subscribe resource_names_unsubscribe initial_resource_versions \
         response_nonce error_detail",
    ),
    reads(
        "envoy.service.discovery.v3.DeltaDiscoveryResponse",
        "system_version_info resources type_url removed_resources nonce control_plane",
    ),
    reads("envoy.service.discovery.v3.Resource", "name aliases version resource ttl"),
    reads("envoy.config.core.v3.ControlPlane", "identifier"),
    reads("google.rpc.Status", "code message details"),
];
