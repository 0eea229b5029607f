//! Route tables and the matchers that routes, RBAC rules and filters share.

use super::{ANNOTATION, NO_RUNTIME, Supported, accepts, reads};

const NO_STATE: &str = "no filter here stores such an object, and an absent one never matches";

pub(super) const TABLE: &[Supported] = &[
    accepts(
        "envoy.config.route.v3.RouteConfiguration",
        "name virtual_hosts internal_only_headers response_headers_to_add response_headers_to_remove \
         request_headers_to_add request_headers_to_remove most_specific_header_mutations_wins validate_clusters \
         max_direct_response_body_size_bytes ignore_port_in_host_matching \
         typed_per_filter_config",
        &[("metadata", ANNOTATION)],
    ),
    accepts(
        "envoy.config.route.v3.VirtualHost",
        "name domains routes require_tls request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove typed_per_filter_config include_request_attempt_count \
         include_attempt_count_in_response retry_policy rate_limits",
        &[("metadata", ANNOTATION)],
    ),
    accepts(
        "envoy.config.route.v3.Route",
        "name match route redirect direct_response non_forwarding_action typed_per_filter_config \
         request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove \
         stat_prefix metadata",
        &[("decorator", "it names a span, and the header that says so goes with a span: none are made yet")],
    ),
    reads(
        "envoy.config.route.v3.RouteMatch",
        "prefix path safe_regex connect_matcher path_separated_prefix case_sensitive runtime_fraction headers \
         query_parameters grpc tls_context",
    ),
    reads("envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions", ""),
    reads("envoy.config.route.v3.RouteMatch.TlsContextMatchOptions", "presented validated"),
    reads("envoy.config.route.v3.RouteMatch.ConnectMatcher", ""),
    reads(
        "envoy.config.route.v3.RouteAction",
        "cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite \
         regex_rewrite path_rewrite host_rewrite_literal auto_host_rewrite host_rewrite_header \
         host_rewrite_path_regex append_x_forwarded_host timeout idle_timeout retry_policy \
         hash_policy upgrade_configs max_stream_duration max_grpc_timeout priority rate_limits",
    ),
    reads(
        "envoy.config.route.v3.RouteAction.HashPolicy",
        "header cookie connection_properties query_parameter terminal",
    ),
    reads("envoy.config.route.v3.RouteAction.HashPolicy.Header", "header_name"),
    reads("envoy.config.route.v3.RouteAction.HashPolicy.Cookie", "name ttl path"),
    reads("envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties", "source_ip"),
    reads("envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter", "name"),
    reads("envoy.config.route.v3.RouteAction.UpgradeConfig", "upgrade_type enabled"),
    reads(
        "envoy.config.route.v3.RouteAction.MaxStreamDuration",
        "max_stream_duration grpc_timeout_header_max",
    ),
    accepts(
        "envoy.config.route.v3.WeightedCluster",
        "clusters total_weight",
        &[("runtime_key_prefix", NO_RUNTIME)],
    ),
    reads(
        "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        "name weight request_headers_to_add request_headers_to_remove response_headers_to_add \
         response_headers_to_remove typed_per_filter_config host_rewrite_literal",
    ),
    reads(
        "envoy.config.route.v3.RetryPolicy",
        "retry_on num_retries per_try_timeout per_try_idle_timeout retry_priority retry_host_predicate \
         host_selection_retry_max_attempts retriable_status_codes retry_back_off retriable_headers \
         retriable_request_headers",
    ),
    reads("envoy.config.route.v3.RetryPolicy.RetryPriority", "name typed_config"),
    reads("envoy.config.route.v3.RetryPolicy.RetryHostPredicate", "name typed_config"),
    reads("envoy.config.route.v3.RetryPolicy.RetryBackOff", "base_interval max_interval"),
    reads("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", ""),
    reads("envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate", ""),
    reads(
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency",
    ),
    reads(
        "envoy.config.route.v3.RedirectAction",
        "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite \
         response_code strip_query",
    ),
    reads("envoy.config.route.v3.DirectResponseAction", "status body"),
    reads("envoy.config.route.v3.NonForwardingAction", ""),
    reads("envoy.config.core.v3.HeaderValueOption", "header append append_action keep_empty_value"),
    reads("envoy.config.core.v3.HeaderValue", "key value"),
    // matchers
    reads(
        "envoy.config.route.v3.HeaderMatcher",
        "name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match \
         string_match invert_match treat_missing_header_as_empty",
    ),
    reads("envoy.config.route.v3.QueryParameterMatcher", "name string_match present_match"),
    reads("envoy.type.matcher.v3.StringMatcher", "exact prefix suffix safe_regex contains ignore_case"),
    accepts(
        "envoy.type.matcher.v3.RegexMatcher",
        "regex",
        &[("google_re2", "the engine's name; every expression runs in linear time")],
    ),
    reads("envoy.type.matcher.v3.RegexMatchAndSubstitute", "pattern substitution"),
    reads("envoy.type.matcher.v3.PathMatcher", "path"),
    reads("envoy.type.matcher.v3.MetadataMatcher", "filter path value invert"),
    reads("envoy.type.matcher.v3.MetadataMatcher.PathSegment", "key"),
    reads(
        "envoy.type.matcher.v3.ValueMatcher",
        "null_match double_match string_match bool_match present_match list_match or_match",
    ),
    reads("envoy.type.matcher.v3.ValueMatcher.NullMatch", ""),
    reads("envoy.type.matcher.v3.DoubleMatcher", "range exact"),
    reads("envoy.type.v3.DoubleRange", "start end"),
    reads("envoy.type.matcher.v3.OrMatcher", "value_matchers"),
    reads("envoy.type.matcher.v3.ListMatcher", "one_of"),
    reads("envoy.type.matcher.v3.FilterStateMatcher", "key string_match address_match"),
    accepts("envoy.type.matcher.v3.AddressMatcher", "", &[("ranges", NO_STATE), ("invert_match", NO_STATE)]),
];
