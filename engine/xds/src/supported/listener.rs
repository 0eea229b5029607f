//! Bootstrap, listeners, listener filters, addresses, access logs.

use super::{ANNOTATION, NO_RUNTIME, Supported, accepts, reads};

pub(super) const TABLE: &[Supported] = &[
    accepts(
        "envoy.config.bootstrap.v3.Bootstrap",
        "node static_resources admin typed_dns_resolver_config",
        &[
            (
                "stats_flush_interval",
                "there are no stats sinks to flush to; the admin pages read live counters",
            ),
            ("enable_dispatcher_stats", "only adds Envoy's own event loop histograms"),
        ],
    ),
    reads("envoy.config.bootstrap.v3.Bootstrap.StaticResources", "listeners clusters secrets"),
    accepts(
        "envoy.config.bootstrap.v3.Admin",
        "address access_log access_log_path",
        &[
            ("profile_path", "there is no profiler endpoint that would write it"),
            ("ignore_global_conn_limit", "admin connections never count against a limit"),
        ],
    ),
    accepts(
        "envoy.config.core.v3.Node",
        "id cluster metadata locality",
        &[
            ("user_agent_name", "the proxy names itself to the control plane"),
            ("user_agent_version", "the proxy names itself to the control plane"),
            ("client_features", "the proxy knows its own features"),
        ],
    ),
    reads("envoy.config.core.v3.Locality", "region zone sub_zone"),
    accepts(
        "envoy.config.listener.v3.Listener",
        "name address stat_prefix filter_chains default_filter_chain use_original_dst \
         listener_filters listener_filters_timeout \
         continue_on_listener_filters_timeout transparent freebind traffic_direction access_log tcp_backlog_size \
         bind_to_port deprecated_v1 tcp_keepalive",
        &[
            ("metadata", ANNOTATION),
            ("per_connection_buffer_limit_bytes", super::BUFFERS),
            ("enable_reuse_port", "every core has a socket of its own either way"),
            ("reuse_port", "every core has a socket of its own either way"),
            ("connection_balance_config", "connections always go to the least loaded core"),
            ("max_connections_to_accept_per_socket_event", "tunes Envoy's accept loop"),
            ("bypass_overload_manager", "there is no overload manager"),
        ],
    ),
    reads("envoy.config.listener.v3.Listener.DeprecatedV1", "bind_to_port"),
    accepts(
        "envoy.config.listener.v3.FilterChain",
        "filter_chain_match filters transport_socket transport_socket_connect_timeout name",
        &[("metadata", ANNOTATION)],
    ),
    reads(
        "envoy.config.listener.v3.FilterChainMatch",
        "destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges source_ports \
         server_names transport_protocol application_protocols",
    ),
    reads("envoy.config.listener.v3.Filter", "name typed_config"),
    reads("envoy.config.listener.v3.ListenerFilter", "name typed_config filter_disabled"),
    reads(
        "envoy.config.listener.v3.ListenerFilterChainMatchPredicate",
        "or_match any_match destination_port_range",
    ),
    reads("envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet", "rules"),
    accepts(
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "",
        &[("initial_read_buffer_size", "the ClientHello is peeked into a buffer of the pool")],
    ),
    reads("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", ""),
    reads("envoy.extensions.filters.listener.original_dst.v3.OriginalDst", ""),
    accepts(
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        "allow_requests_without_proxy_protocol",
        &[("stat_prefix", "counters stand under the listener")],
    ),
    // addresses
    reads("envoy.config.core.v3.Address", "socket_address"),
    reads("envoy.config.core.v3.SocketAddress", "protocol address port_value ipv4_compat"),
    reads("envoy.config.core.v3.TcpKeepalive", "keepalive_probes keepalive_time keepalive_interval"),
    reads("envoy.config.core.v3.CidrRange", "address_prefix prefix_len"),
    reads("envoy.config.core.v3.TransportSocket", "name typed_config"),
    reads("envoy.config.core.v3.TypedExtensionConfig", "name typed_config"),
    accepts(
        "envoy.config.core.v3.Metadata",
        "filter_metadata",
        &[("typed_filter_metadata", "no filter here reads any")],
    ),
    accepts(
        "envoy.config.core.v3.DataSource",
        "filename inline_bytes inline_string",
        &[("watched_directory", "files of certificates are watched, and their directories with them")],
    ),
    reads("envoy.type.v3.Int32Range", "start end"),
    reads("envoy.type.v3.Int64Range", "start end"),
    reads("envoy.type.v3.Percent", "value"),
    reads("envoy.type.v3.FractionalPercent", "numerator denominator"),
    accepts("envoy.config.core.v3.RuntimeFractionalPercent", "default_value", &[("runtime_key", NO_RUNTIME)]),
    accepts("envoy.config.core.v3.RuntimeUInt32", "default_value", &[("runtime_key", NO_RUNTIME)]),
    accepts("envoy.config.core.v3.RuntimeDouble", "default_value", &[("runtime_key", NO_RUNTIME)]),
    accepts("envoy.config.core.v3.RuntimeFeatureFlag", "default_value", &[("runtime_key", NO_RUNTIME)]),
    // access logs
    reads("envoy.config.accesslog.v3.AccessLog", "name filter typed_config"),
    reads(
        "envoy.config.accesslog.v3.AccessLogFilter",
        "status_code_filter duration_filter not_health_check_filter runtime_filter and_filter or_filter \
         header_filter response_flag_filter grpc_status_filter",
    ),
    reads("envoy.config.accesslog.v3.ComparisonFilter", "op value"),
    reads("envoy.config.accesslog.v3.StatusCodeFilter", "comparison"),
    reads("envoy.config.accesslog.v3.DurationFilter", "comparison"),
    reads("envoy.config.accesslog.v3.NotHealthCheckFilter", ""),
    accepts(
        "envoy.config.accesslog.v3.RuntimeFilter",
        "percent_sampled",
        &[
            ("runtime_key", NO_RUNTIME),
            ("use_independent_randomness", "the draw is independent of the request id"),
        ],
    ),
    reads("envoy.config.accesslog.v3.AndFilter", "filters"),
    reads("envoy.config.accesslog.v3.OrFilter", "filters"),
    reads("envoy.config.accesslog.v3.HeaderFilter", "header"),
    reads("envoy.config.accesslog.v3.ResponseFlagFilter", "flags"),
    reads("envoy.config.accesslog.v3.GrpcStatusFilter", "statuses exclude"),
    reads(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path format json_format typed_json_format log_format",
    ),
    reads("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", "log_format"),
    reads("envoy.extensions.access_loggers.stream.v3.StderrAccessLog", "log_format"),
    accepts(
        "envoy.config.core.v3.SubstitutionFormatString",
        "text_format json_format text_format_source omit_empty_values",
        &[
            ("content_type", "an access log line has no content type"),
            ("json_format_options", "fields are always sorted by name"),
        ],
    ),
];
