//! Statistics of the side that connects: routes, clusters, endpoints.

use crate::stat::stats;

stats! {
    /// One route that has a stat_prefix.
    RouteStat = Route, scope route(virtual_host, route), text "vhost.{0}.route.{1}.", metric "envoy_vhost_route_", labels ["envoy_virtual_host" = 0, "envoy_route" = 1] {
        counter UpstreamRqCompleted "upstream_rq_completed" "responses",
        counter UpstreamRqRetry "upstream_rq_retry" "retries",
        counter UpstreamRqRetryLimitExceeded "upstream_rq_retry_limit_exceeded" "requests not retried because num_retries was reached",
        counter UpstreamRqRetryOverflow "upstream_rq_retry_overflow" "requests not retried because of the retry budget or circuit breaker",
        counter UpstreamRqRetrySuccess "upstream_rq_retry_success" "retries that succeeded",
        counter UpstreamRqTimeout "upstream_rq_timeout" "requests that took too long",
        counter UpstreamRqTotal "upstream_rq_total" "requests sent, each try counted",
        codes UpstreamRq "upstream_rq" "responses, by class and by code",
        millis UpstreamRqTime "upstream_rq_time" "from the request's last byte to the response's last",
    }
}

stats! {
    /// One cluster: connections, requests, membership, balancing.
    ClusterStat = Cluster, scope cluster(name), text "cluster.{0}.", metric "envoy_cluster_", labels ["envoy_cluster_name" = 0] {
        counter BindErrors "bind_errors" "failures to bind the configured source address",
        counter LbHealthyPanic "lb_healthy_panic" "picks made while too few endpoints were healthy",
        counter MembershipChange "membership_change" "changes of the endpoints",
        counter OriginalDstHostInvalid "original_dst_host_invalid" "original destinations that cannot be used",
        occasional RetryUpstreamRqCompleted "retry.upstream_rq_completed" "responses that were retried",
        counter RetryOrShadowAbandoned "retry_or_shadow_abandoned" "requests too large to keep for a retry",
        counter UpdateAttempt "update_attempt" "attempts to learn the endpoints",
        counter UpdateEmpty "update_empty" "answers without endpoints",
        counter UpdateFailure "update_failure" "attempts that failed",
        counter UpdateNoRebuild "update_no_rebuild" "answers that changed nothing",
        counter UpdateSuccess "update_success" "attempts that succeeded",
        counter UpstreamCxCloseNotify "upstream_cx_close_notify" "connections closed by connection: close or GOAWAY",
        counter UpstreamCxConnectAttemptsExceeded "upstream_cx_connect_attempts_exceeded" "connections given up after the configured attempts",
        counter UpstreamCxConnectFail "upstream_cx_connect_fail" "connections that could not be opened",
        counter UpstreamCxConnectTimeout "upstream_cx_connect_timeout" "connections that took too long to open",
        counter UpstreamCxDestroy "upstream_cx_destroy" "connections closed",
        counter UpstreamCxDestroyLocal "upstream_cx_destroy_local" "connections we closed",
        counter UpstreamCxDestroyLocalWithActiveRq "upstream_cx_destroy_local_with_active_rq" "connections we closed with a request under way",
        counter UpstreamCxDestroyRemote "upstream_cx_destroy_remote" "connections the peer closed",
        counter UpstreamCxDestroyRemoteWithActiveRq "upstream_cx_destroy_remote_with_active_rq" "connections the peer closed with a request under way",
        counter UpstreamCxDestroyWithActiveRq "upstream_cx_destroy_with_active_rq" "connections closed with a request under way",
        counter UpstreamCxHttp1Total "upstream_cx_http1_total" "HTTP/1 connections",
        counter UpstreamCxHttp2Total "upstream_cx_http2_total" "HTTP/2 connections",
        counter UpstreamCxIdleTimeout "upstream_cx_idle_timeout" "connections closed because they were idle",
        counter UpstreamCxMaxDurationReached "upstream_cx_max_duration_reached" "connections closed because they were old",
        counter UpstreamCxMaxRequests "upstream_cx_max_requests" "connections closed after their last permitted request",
        counter UpstreamCxNoneHealthy "upstream_cx_none_healthy" "requests for which no endpoint was healthy",
        counter UpstreamCxOverflow "upstream_cx_overflow" "connections refused by the circuit breaker",
        counter UpstreamCxProtocolError "upstream_cx_protocol_error" "connections with a protocol error",
        counter UpstreamCxRxBytesTotal "upstream_cx_rx_bytes_total" "bytes received",
        counter UpstreamCxTotal "upstream_cx_total" "connections",
        counter UpstreamCxTxBytesTotal "upstream_cx_tx_bytes_total" "bytes sent",
        counter UpstreamRqActiveOverflow "upstream_rq_active_overflow" "requests refused by the request circuit breaker",
        counter UpstreamRqCancelled "upstream_rq_cancelled" "requests cancelled while they waited for a connection",
        counter UpstreamRqCompleted "upstream_rq_completed" "responses received or made up for the caller",
        counter UpstreamRqMaxDurationReached "upstream_rq_max_duration_reached" "requests that lived too long",
        counter UpstreamRqPendingFailureEject "upstream_rq_pending_failure_eject" "requests failed by the failure of the connection they waited for",
        counter UpstreamRqPendingOverflow "upstream_rq_pending_overflow" "requests refused by the pending circuit breaker",
        counter UpstreamRqPendingTotal "upstream_rq_pending_total" "requests that waited for a connection",
        counter UpstreamRqPerTryIdleTimeout "upstream_rq_per_try_idle_timeout" "tries that were idle too long",
        counter UpstreamRqPerTryTimeout "upstream_rq_per_try_timeout" "tries that took too long",
        counter UpstreamRqRetry "upstream_rq_retry" "retries",
        counter UpstreamRqRetryBackoffExponential "upstream_rq_retry_backoff_exponential" "retries after an exponential wait",
        counter UpstreamRqRetryLimitExceeded "upstream_rq_retry_limit_exceeded" "requests not retried because num_retries was reached",
        counter UpstreamRqRetryOverflow "upstream_rq_retry_overflow" "requests not retried because of the retry budget or circuit breaker",
        counter UpstreamRqRetrySuccess "upstream_rq_retry_success" "retries that succeeded",
        counter UpstreamRqRxReset "upstream_rq_rx_reset" "requests that the peer reset",
        counter UpstreamRqRxResetNoError "upstream_rq_rx_reset_no_error" "requests that the peer reset without an error",
        counter UpstreamRqTimeout "upstream_rq_timeout" "requests that took too long",
        counter UpstreamRqTotal "upstream_rq_total" "requests sent, each try counted",
        counter UpstreamRqTxReset "upstream_rq_tx_reset" "requests that we reset",
        gauge MaxHostWeight "max_host_weight" "the largest weight of an endpoint",
        gauge MembershipDegraded "membership_degraded" "degraded endpoints",
        gauge MembershipExcluded "membership_excluded" "endpoints left out of the panic threshold",
        gauge MembershipHealthy "membership_healthy" "healthy endpoints",
        gauge MembershipTotal "membership_total" "endpoints",
        gauge UpstreamCxActive "upstream_cx_active" "connections open",
        gauge UpstreamRqActive "upstream_rq_active" "requests under way",
        gauge UpstreamRqPendingActive "upstream_rq_pending_active" "requests that wait for a connection",
        codes UpstreamRq "upstream_rq" "final responses, by class and by code",
        codes RetryUpstreamRq "retry.upstream_rq" "responses that were retried, by class and by code",
        millis UpstreamCxConnectMs "upstream_cx_connect_ms" "time to open a connection",
        millis UpstreamCxLengthMs "upstream_cx_length_ms" "how long a connection lived",
        number UpstreamRqPerCx "upstream_rq_per_cx" "requests that a connection served",
        millis UpstreamRqTime "upstream_rq_time" "from the request's last byte to the response's last",
    }
}

stats! {
    /// TLS towards a cluster.
    ClusterSslStat = ClusterSsl, scope cluster_ssl(name), text "cluster.{0}.ssl.", metric "envoy_cluster_ssl_", labels ["envoy_cluster_name" = 0] {
        counter ConnectionError "connection_error" "handshakes and records that failed",
        counter FailVerifyCertHash "fail_verify_cert_hash" "certificates with the wrong hash",
        counter FailVerifyError "fail_verify_error" "certificates that did not verify",
        counter FailVerifySan "fail_verify_san" "certificates whose names did not match",
        counter Handshake "handshake" "handshakes completed",
        counter SessionReused "session_reused" "sessions resumed",
    }
}

stats! {
    /// One certificate that we present to a cluster, or trust from it.
    ClusterCertificateStat = ClusterCertificate, scope cluster_certificate(name, certificate), text "cluster.{0}.ssl.certificate.{1}.", metric "envoy_cluster_ssl_certificate_", labels ["envoy_tls_certificate" = 1, "envoy_cluster_name" = 0] {
        gauge ExpirationUnixTimeSeconds "expiration_unix_time_seconds" "when the certificate expires, in seconds since 1970",
    }
}

stats! {
    /// Active health checks of a cluster.
    ClusterHealthCheckStat = ClusterHealthCheck, scope cluster_health_check(name), text "cluster.{0}.health_check.", metric "envoy_cluster_health_check_", labels ["envoy_cluster_name" = 0] {
        counter Attempt "attempt" "checks",
        counter Failure "failure" "checks that failed",
        counter NetworkFailure "network_failure" "checks that failed on the network",
        counter PassiveFailure "passive_failure" "failures reported by traffic",
        counter Success "success" "checks that succeeded",
        counter VerifyCluster "verify_cluster" "checks that verified the service's name",
        gauge Healthy "healthy" "endpoints that pass",
    }
}

stats! {
    /// Outlier detection of a cluster.
    ClusterOutlierStat = ClusterOutlier, scope cluster_outlier(name), text "cluster.{0}.outlier_detection.", metric "envoy_cluster_outlier_detection_", labels ["envoy_cluster_name" = 0] {
        counter EjectionsConsecutive5xx "ejections_consecutive_5xx" "ejections for consecutive 5xx (deprecated name)",
        counter EjectionsDetectedConsecutive5xx "ejections_detected_consecutive_5xx" "endpoints found with too many consecutive 5xx",
        counter EjectionsDetectedConsecutiveGatewayFailure "ejections_detected_consecutive_gateway_failure" "endpoints found with too many consecutive gateway failures",
        counter EjectionsDetectedConsecutiveLocalOriginFailure "ejections_detected_consecutive_local_origin_failure" "endpoints found with too many consecutive connect failures",
        counter EjectionsDetectedFailurePercentage "ejections_detected_failure_percentage" "endpoints found over the failure percentage",
        counter EjectionsDetectedLocalOriginFailurePercentage "ejections_detected_local_origin_failure_percentage" "endpoints found over the percentage of connect failures",
        counter EjectionsDetectedLocalOriginSuccessRate "ejections_detected_local_origin_success_rate" "endpoints found under the success rate of connects",
        counter EjectionsDetectedSuccessRate "ejections_detected_success_rate" "endpoints found under the success rate",
        counter EjectionsEnforcedConsecutive5xx "ejections_enforced_consecutive_5xx" "ejections for consecutive 5xx",
        counter EjectionsEnforcedConsecutiveGatewayFailure "ejections_enforced_consecutive_gateway_failure" "ejections for consecutive gateway failures",
        counter EjectionsEnforcedConsecutiveLocalOriginFailure "ejections_enforced_consecutive_local_origin_failure" "ejections for consecutive connect failures",
        counter EjectionsEnforcedFailurePercentage "ejections_enforced_failure_percentage" "ejections for the failure percentage",
        counter EjectionsEnforcedLocalOriginFailurePercentage "ejections_enforced_local_origin_failure_percentage" "ejections for the percentage of connect failures",
        counter EjectionsEnforcedLocalOriginSuccessRate "ejections_enforced_local_origin_success_rate" "ejections for the success rate of connects",
        counter EjectionsEnforcedSuccessRate "ejections_enforced_success_rate" "ejections for the success rate",
        counter EjectionsEnforcedTotal "ejections_enforced_total" "ejections",
        counter EjectionsOverflow "ejections_overflow" "ejections that max_ejection_percent prevented",
        counter EjectionsSuccessRate "ejections_success_rate" "ejections for the success rate (deprecated name)",
        counter EjectionsTotal "ejections_total" "ejections (deprecated name)",
        gauge EjectionsActive "ejections_active" "endpoints ejected now",
    }
}

stats! {
    /// Circuit breakers of a cluster: 1 while one refuses.
    ClusterCircuitStat = ClusterCircuit, scope cluster_circuit(name), text "cluster.{0}.circuit_breakers.", metric "envoy_cluster_circuit_breakers_", labels ["envoy_cluster_name" = 0] {
        gauge DefaultCxOpen "default.cx_open" "connections at their limit",
        gauge DefaultRqOpen "default.rq_open" "requests at their limit",
        gauge DefaultRqPendingOpen "default.rq_pending_open" "waiting requests at their limit",
        gauge DefaultRqRetryOpen "default.rq_retry_open" "retries at their limit or budget",
        gauge HighCxOpen "high.cx_open" "connections at their limit, of requests of the high priority",
        gauge HighRqOpen "high.rq_open" "requests of the high priority at their limit",
        gauge HighRqPendingOpen "high.rq_pending_open" "waiting requests of the high priority at their limit",
        gauge HighRqRetryOpen "high.rq_retry_open" "retries of requests of the high priority at their limit or budget",
    }
}

stats! {
    /// What the default priority's circuit breakers still admit; only for thresholds with track_remaining.
    ClusterRemainingStat = ClusterRemaining, scope cluster_remaining(name), text "cluster.{0}.circuit_breakers.default.", metric "envoy_cluster_circuit_breakers_default_", labels ["envoy_cluster_name" = 0] {
        gauge RemainingCx "remaining_cx" "connections left",
        gauge RemainingPending "remaining_pending" "waiting requests left",
        gauge RemainingRetries "remaining_retries" "retries left",
        gauge RemainingRq "remaining_rq" "requests left",
    }
}

stats! {
    /// HTTP/2 codecs towards a cluster.
    ClusterHttp2Stat = ClusterHttp2, scope cluster_http2(name), text "cluster.{0}.http2.", metric "envoy_cluster_http2_", labels ["envoy_cluster_name" = 0] {
        counter GoawaySent "goaway_sent" "GOAWAY frames sent",
        counter RxMessagingError "rx_messaging_error" "malformed requests or responses",
        counter RxReset "rx_reset" "RST_STREAM frames received",
        counter Trailers "trailers" "trailers received",
        counter TxReset "tx_reset" "RST_STREAM frames sent",
        gauge StreamsActive "streams_active" "streams open",
    }
}

stats! {
    /// gRPC calls to a cluster, methods not told apart.
    ClusterGrpcStat = ClusterGrpc, scope cluster_grpc(name), text "cluster.{0}.grpc.", metric "envoy_cluster_grpc_", labels ["envoy_cluster_name" = 0] {
        occasional Status0 "0" "calls that ended with status 0",
        occasional Status1 "1" "calls that ended with status 1",
        occasional Status2 "2" "calls that ended with status 2",
        occasional Status3 "3" "calls that ended with status 3",
        occasional Status4 "4" "calls that ended with status 4",
        occasional Status5 "5" "calls that ended with status 5",
        occasional Status6 "6" "calls that ended with status 6",
        occasional Status7 "7" "calls that ended with status 7",
        occasional Status8 "8" "calls that ended with status 8",
        occasional Status9 "9" "calls that ended with status 9",
        occasional Status10 "10" "calls that ended with status 10",
        occasional Status11 "11" "calls that ended with status 11",
        occasional Status12 "12" "calls that ended with status 12",
        occasional Status13 "13" "calls that ended with status 13",
        occasional Status14 "14" "calls that ended with status 14",
        occasional Status15 "15" "calls that ended with status 15",
        occasional Status16 "16" "calls that ended with status 16",
        occasional Failure "failure" "calls that ended with another status than 0",
        occasional RequestMessageCount "request_message_count" "messages sent",
        occasional ResponseMessageCount "response_message_count" "messages received",
        occasional Success "success" "calls that ended with status 0",
        occasional Total "total" "calls",
        millis UpstreamRqTime "upstream_rq_time" "from the request's start to the response's end",
    }
}

impl ClusterGrpcStat {
    /// The counter of calls that ended so; none for what gRPC does not define.
    pub fn of_status(status: u8) -> Option<Self> {
        const ALL: [ClusterGrpcStat; 17] = [
            ClusterGrpcStat::Status0,
            ClusterGrpcStat::Status1,
            ClusterGrpcStat::Status2,
            ClusterGrpcStat::Status3,
            ClusterGrpcStat::Status4,
            ClusterGrpcStat::Status5,
            ClusterGrpcStat::Status6,
            ClusterGrpcStat::Status7,
            ClusterGrpcStat::Status8,
            ClusterGrpcStat::Status9,
            ClusterGrpcStat::Status10,
            ClusterGrpcStat::Status11,
            ClusterGrpcStat::Status12,
            ClusterGrpcStat::Status13,
            ClusterGrpcStat::Status14,
            ClusterGrpcStat::Status15,
            ClusterGrpcStat::Status16,
        ];
        ALL.get(usize::from(status)).copied()
    }
}

stats! {
    /// gRPC calls to a cluster, one method.
    GrpcMethodStat = GrpcMethod, scope grpc_method(name, service, method), text "cluster.{0}.grpc.{1}.{2}.", metric "envoy_cluster_grpc_", labels ["envoy_grpc_bridge_method" = 2, "envoy_grpc_bridge_service" = 1, "envoy_cluster_name" = 0] {
        occasional Status0 "0" "calls that ended with status 0",
        occasional Status1 "1" "calls that ended with status 1",
        occasional Status2 "2" "calls that ended with status 2",
        occasional Status3 "3" "calls that ended with status 3",
        occasional Status4 "4" "calls that ended with status 4",
        occasional Status5 "5" "calls that ended with status 5",
        occasional Status6 "6" "calls that ended with status 6",
        occasional Status7 "7" "calls that ended with status 7",
        occasional Status8 "8" "calls that ended with status 8",
        occasional Status9 "9" "calls that ended with status 9",
        occasional Status10 "10" "calls that ended with status 10",
        occasional Status11 "11" "calls that ended with status 11",
        occasional Status12 "12" "calls that ended with status 12",
        occasional Status13 "13" "calls that ended with status 13",
        occasional Status14 "14" "calls that ended with status 14",
        occasional Status15 "15" "calls that ended with status 15",
        occasional Status16 "16" "calls that ended with status 16",
        occasional Failure "failure" "calls that ended with another status than 0",
        occasional RequestMessageCount "request_message_count" "messages sent",
        occasional ResponseMessageCount "response_message_count" "messages received",
        occasional Success "success" "calls that ended with status 0",
        occasional Total "total" "calls",
        millis UpstreamRqTime "upstream_rq_time" "from the request's start to the response's end",
    }
}

stats! {
    /// One endpoint of a cluster.
    EndpointStat = Endpoint, scope endpoint(cluster, address), text "cluster.{0}.endpoint.{1}.", metric "envoy_cluster_endpoint_", labels ["envoy_cluster_name" = 0, "envoy_endpoint_address" = 1] {
        counter CxConnectFail "cx_connect_fail" "connections that could not be opened",
        counter CxTotal "cx_total" "connections",
        counter RqError "rq_error" "responses 5xx and failures",
        counter RqSuccess "rq_success" "responses other than 5xx",
        counter RqTimeout "rq_timeout" "requests that took too long",
        counter RqTotal "rq_total" "requests",
        gauge CxActive "cx_active" "connections open",
        gauge Healthy "healthy" "1 while the endpoint takes traffic",
        gauge RqActive "rq_active" "requests under way",
        millis RqTime "rq_time" "from the request's last byte to the response's last",
    }
}
