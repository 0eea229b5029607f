//! The HTTP connection manager, its filters, TCP proxy and the other network filters.

use super::{NO_RUNTIME, Supported, accepts, reads};

const NO_SPANS: &str = "without a provider there are no spans, in Envoy either";

pub(super) const TABLE: &[Supported] = &[
    accepts(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type stat_prefix rds route_config http_filters common_http_protocol_options http_protocol_options \
         http2_protocol_options server_name server_header_transformation scheme_header_transformation \
         max_request_headers_kb stream_idle_timeout request_timeout request_headers_timeout \
         delayed_close_timeout access_log use_remote_address xff_num_trusted_hops skip_xff_append via \
         generate_request_id preserve_external_request_id always_set_request_id_in_response \
         forward_client_cert_details set_current_client_cert_details upgrade_configs normalize_path merge_slashes \
         path_with_escaped_slashes_action request_id_extension strip_matching_host_port strip_any_host_port \
         strip_trailing_host_dot proxy_100_continue internal_address_config tracing",
        &[(
            "drain_timeout",
            "the last GOAWAY follows the client's answer to a PING, so that no stream can race with it",
        )],
    ),
    reads(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails",
        "subject cert chain dns uri",
    ),
    accepts(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
        "cidr_ranges",
        &[("unix_sockets", "no listener is a Unix socket")],
    ),
    accepts(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "client_sampling random_sampling overall_sampling",
        &[
            ("verbose", NO_SPANS),
            ("max_path_tag_length", NO_SPANS),
            ("custom_tags", NO_SPANS),
            ("spawn_upstream_span", NO_SPANS),
        ],
    ),
    reads(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        "upgrade_type enabled",
    ),
    reads(
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        "config_source route_config_name",
    ),
    accepts(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        "name typed_config",
        &[("is_optional", "a filter that is not implemented is refused, optional or not")],
    ),
    reads("envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension", "typed_config"),
    accepts(
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
        "pack_trace_reason",
        &[("use_request_id_for_trace_sampling", "a request's id alone carries what was sampled here")],
    ),
    reads(
        "envoy.config.core.v3.HttpProtocolOptions",
        "idle_timeout max_connection_duration max_headers_count max_stream_duration max_requests_per_connection",
    ),
    accepts(
        "envoy.config.core.v3.Http1ProtocolOptions",
        "allow_absolute_url accept_http_10 default_host_for_http_10 header_key_format",
        &[("enable_trailers", "trailers are always passed on")],
    ),
    reads(
        "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat",
        "proper_case_words stateful_formatter",
    ),
    reads("envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords", ""),
    reads("envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig", ""),
    reads(
        "envoy.config.core.v3.Http2ProtocolOptions",
        "max_concurrent_streams initial_stream_window_size initial_connection_window_size",
    ),
    reads("envoy.config.core.v3.SchemeHeaderTransformation", "scheme_to_overwrite"),
    // HTTP filters
    accepts(
        "envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers",
        &[
            ("dynamic_stats", "only governs Envoy's per-code counters"),
            ("start_child_span", "no spans are made yet"),
            ("suppress_grpc_request_failure_code_stats", "only governs counters"),
        ],
    ),
    reads(
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules rules_stat_prefix shadow_rules shadow_rules_stat_prefix",
    ),
    reads("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", "rbac"),
    accepts(
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay abort upstream_cluster headers downstream_nodes max_active_faults",
        &[
            ("delay_percent_runtime", NO_RUNTIME),
            ("abort_percent_runtime", NO_RUNTIME),
            ("delay_duration_runtime", NO_RUNTIME),
            ("abort_http_status_runtime", NO_RUNTIME),
            ("max_active_faults_runtime", NO_RUNTIME),
            ("response_rate_limit_percent_runtime", NO_RUNTIME),
            ("abort_grpc_status_runtime", NO_RUNTIME),
            ("disable_downstream_cluster_stats", "no counters are kept per downstream cluster"),
        ],
    ),
    reads("envoy.extensions.filters.common.fault.v3.FaultDelay", "fixed_delay header_delay percentage"),
    reads("envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay", ""),
    reads(
        "envoy.extensions.filters.http.fault.v3.FaultAbort",
        "http_status grpc_status header_abort percentage",
    ),
    reads("envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort", ""),
    reads("envoy.extensions.filters.http.cors.v3.Cors", ""),
    reads(
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials \
         filter_enabled shadow_enabled allow_private_network_access forward_not_matching_preflights",
    ),
    accepts(
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        "individual_method_stats_allowlist stats_for_all_methods enable_upstream_stats \
         replace_dots_in_grpc_service_name",
        &[("emit_filter_state", "no other filter reads this filter state")],
    ),
    reads("envoy.config.core.v3.GrpcMethodList", "services"),
    reads("envoy.config.core.v3.GrpcMethodList.Service", "name method_names"),
    reads(
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix status token_bucket filter_enabled filter_enforced response_headers_to_add \
         enable_x_ratelimit_headers rate_limited_as_resource_exhausted request_headers_to_add_when_not_enforced \
         descriptors stage local_rate_limit_per_downstream_connection vh_rate_limits \
         always_consume_default_token_bucket rate_limits enable_retry_after_header",
    ),
    reads("envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor", "entries token_bucket"),
    reads("envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry", "key value"),
    reads("envoy.config.route.v3.RateLimit", "stage actions"),
    reads(
        "envoy.config.route.v3.RateLimit.Action",
        "request_headers query_parameters remote_address generic_key header_value_match \
         query_parameter_value_match",
    ),
    reads(
        "envoy.config.route.v3.RateLimit.Action.RequestHeaders",
        "header_name descriptor_key skip_if_absent",
    ),
    reads(
        "envoy.config.route.v3.RateLimit.Action.QueryParameters",
        "query_parameter_name descriptor_key skip_if_absent",
    ),
    reads("envoy.config.route.v3.RateLimit.Action.RemoteAddress", ""),
    reads("envoy.config.route.v3.RateLimit.Action.GenericKey", "descriptor_value descriptor_key"),
    reads(
        "envoy.config.route.v3.RateLimit.Action.HeaderValueMatch",
        "descriptor_value descriptor_key expect_match headers",
    ),
    reads(
        "envoy.config.route.v3.RateLimit.Action.QueryParameterValueMatch",
        "descriptor_value descriptor_key expect_match query_parameters",
    ),
    reads("envoy.type.v3.TokenBucket", "max_tokens tokens_per_fill fill_interval"),
    reads("envoy.type.v3.HttpStatus", "code"),
    // network filters
    reads(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts hash_policy \
         max_downstream_connection_duration",
    ),
    reads("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster", "clusters"),
    reads(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        "name weight",
    ),
    reads("envoy.type.v3.HashPolicy", "source_ip"),
    reads("envoy.type.v3.HashPolicy.SourceIp", ""),
    reads(
        "envoy.extensions.filters.network.rbac.v3.RBAC",
        "rules shadow_rules shadow_rules_stat_prefix stat_prefix",
    ),
    reads(
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix token_bucket runtime_enabled",
    ),
];
