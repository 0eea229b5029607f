//! Clusters, endpoints, load balancing, health, DNS.

use super::{ANNOTATION, Supported, accepts, reads};

const NO_LOCAL_CLUSTER: &str =
    "zones are only preferred where a local cluster is configured, which is refused";

pub(super) const TABLE: &[Supported] = &[
    accepts(
        "envoy.config.cluster.v3.Cluster",
        "transport_socket_matches name alt_stat_name type eds_cluster_config connect_timeout \
         lb_policy load_assignment health_checks max_requests_per_connection \
         circuit_breakers common_http_protocol_options http_protocol_options http2_protocol_options \
         typed_extension_protocol_options dns_refresh_rate dns_jitter dns_failure_refresh_rate respect_dns_ttl \
         dns_lookup_family typed_dns_resolver_config outlier_detection upstream_bind_config \
         ring_hash_lb_config maglev_lb_config original_dst_lb_config least_request_lb_config \
         round_robin_lb_config common_lb_config transport_socket upstream_connection_options \
         close_connections_on_host_health_failure load_balancing_policy",
        &[
            ("metadata", ANNOTATION),
            ("per_connection_buffer_limit_bytes", super::BUFFERS),
            ("cleanup_interval", "a destination without connections is forgotten within a second or so"),
            (
                "ignore_health_on_host_removal",
                "an endpoint that is no longer named gets no new requests, whatever its health",
            ),
            ("wait_for_warm_on_init", "start-up waits a bounded time for the first answers of every name"),
        ],
    ),
    reads("envoy.config.cluster.v3.Cluster.EdsClusterConfig", "eds_config service_name"),
    reads("envoy.config.cluster.v3.Cluster.TransportSocketMatch", "name match transport_socket"),
    reads(
        "envoy.config.cluster.v3.Cluster.SlowStartConfig",
        "slow_start_window aggression min_weight_percent",
    ),
    reads("envoy.config.cluster.v3.Cluster.RoundRobinLbConfig", "slow_start_config"),
    reads(
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        "choice_count active_request_bias slow_start_config",
    ),
    reads(
        "envoy.config.cluster.v3.Cluster.RingHashLbConfig",
        "minimum_ring_size hash_function maximum_ring_size",
    ),
    reads("envoy.config.cluster.v3.Cluster.MaglevLbConfig", "table_size"),
    reads(
        "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig",
        "use_http_header http_header_name upstream_port_override",
    ),
    accepts(
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        "healthy_panic_threshold zone_aware_lb_config locality_weighted_lb_config ignore_new_hosts_until_first_hc \
         consistent_hashing_lb_config",
        &[("update_merge_window", "updates are applied as they come, at the cost of one pointer swap")],
    ),
    accepts(
        "envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig",
        "fail_traffic_on_panic",
        &[("routing_enabled", NO_LOCAL_CLUSTER), ("min_cluster_size", NO_LOCAL_CLUSTER)],
    ),
    reads("envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig", ""),
    reads(
        "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig",
        "use_hostname_for_hashing",
    ),
    reads("envoy.config.cluster.v3.Cluster.RefreshRate", "base_interval max_interval"),
    reads("envoy.config.cluster.v3.CircuitBreakers", "thresholds per_host_thresholds"),
    reads(
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
        "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining",
    ),
    reads(
        "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget",
        "budget_percent budget_interval min_retry_concurrency",
    ),
    reads(
        "envoy.config.cluster.v3.OutlierDetection",
        "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx \
         enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor \
         consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors \
         consecutive_local_origin_failure enforcing_consecutive_local_origin_failure \
         enforcing_local_origin_success_rate failure_percentage_threshold enforcing_failure_percentage \
         enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts \
         failure_percentage_request_volume max_ejection_time max_ejection_time_jitter \
         successful_active_health_check_uneject_host always_eject_one_host",
    ),
    reads("envoy.config.cluster.v3.UpstreamConnectionOptions", "tcp_keepalive"),
    reads("envoy.config.cluster.v3.LoadBalancingPolicy", "policies"),
    reads("envoy.config.cluster.v3.LoadBalancingPolicy.Policy", "typed_extension_config"),
    reads("envoy.config.core.v3.BindConfig", "source_address"),
    // endpoints
    reads("envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name endpoints policy"),
    reads("envoy.config.endpoint.v3.ClusterLoadAssignment.Policy", "overprovisioning_factor"),
    reads(
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        "locality lb_endpoints load_balancing_weight priority metadata",
    ),
    reads("envoy.config.endpoint.v3.LbEndpoint", "endpoint health_status metadata load_balancing_weight"),
    reads("envoy.config.endpoint.v3.Endpoint", "address health_check_config hostname"),
    reads("envoy.config.endpoint.v3.Endpoint.HealthCheckConfig", "port_value"),
    // active health checks
    accepts(
        "envoy.config.core.v3.HealthCheck",
        "timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold \
         healthy_threshold alt_port reuse_connection http_health_check tcp_health_check no_traffic_interval \
         unhealthy_interval",
        &[(
            "always_log_health_check_failures",
            "there is no event log of checks; `/clusters` shows their state",
        )],
    ),
    reads(
        "envoy.config.core.v3.HealthCheck.HttpHealthCheck",
        "host path request_headers_to_add request_headers_to_remove expected_statuses retriable_statuses \
         codec_client_type service_name_matcher method",
    ),
    reads("envoy.config.core.v3.HealthCheck.TcpHealthCheck", "send receive"),
    reads("envoy.config.core.v3.HealthCheck.Payload", "text binary"),
    // upstream protocol
    reads(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config",
    ),
    reads(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    reads(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    reads(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig",
        "http_protocol_options http2_protocol_options",
    ),
    // load balancing policies as extensions
    reads("envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided", ""),
    reads(
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        "slow_start_config locality_lb_config",
    ),
    reads(
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        "choice_count active_request_bias slow_start_config locality_lb_config",
    ),
    reads("envoy.extensions.load_balancing_policies.random.v3.Random", "locality_lb_config"),
    reads(
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
        "hash_function minimum_ring_size maximum_ring_size use_hostname_for_hashing consistent_hashing_lb_config \
         locality_weighted_lb_config",
    ),
    reads(
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
        "table_size consistent_hashing_lb_config locality_weighted_lb_config",
    ),
    reads(
        "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig",
        "zone_aware_lb_config locality_weighted_lb_config",
    ),
    accepts(
        "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig",
        "fail_traffic_on_panic",
        &[("routing_enabled", NO_LOCAL_CLUSTER), ("min_cluster_size", NO_LOCAL_CLUSTER)],
    ),
    reads("envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.LocalityWeightedLbConfig", ""),
    reads(
        "envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig",
        "slow_start_window aggression min_weight_percent",
    ),
    reads(
        "envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig",
        "use_hostname_for_hashing",
    ),
    // DNS
    accepts(
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers dns_resolver_options",
        &[
            ("udp_max_queries", "tunes c-ares"),
            ("query_timeout_seconds", "tunes c-ares"),
            ("query_tries", "tunes c-ares"),
            ("rotate_nameservers", "tunes c-ares"),
            ("edns0_max_payload_size", "tunes c-ares"),
            ("qcache_max_ttl", "tunes c-ares; answers are kept for the cluster's refresh rate"),
        ],
    ),
    reads("envoy.config.core.v3.DnsResolverOptions", "use_tcp_for_dns_lookups no_default_search_domain"),
    accepts(
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
        "",
        &[
            ("num_retries", "a failed look-up is tried again at the failure refresh rate"),
            ("num_resolver_threads", "look-ups are asynchronous"),
        ],
    ),
];
