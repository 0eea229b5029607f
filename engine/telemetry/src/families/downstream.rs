//! Statistics of the side that accepts: listeners, listener filters, HTTP connection managers, their filters, TCP proxies.

use crate::stat::stats;

stats! {
    /// One listener.
    ListenerStat = Listener, scope listener(address), text "listener.{0}.", metric "envoy_listener_", labels ["envoy_listener_address" = 0] {
        counter DownstreamCxDestroy "downstream_cx_destroy" "connections closed",
        counter DownstreamCxOverflow "downstream_cx_overflow" "connections refused at the listener's limit",
        counter DownstreamCxTotal "downstream_cx_total" "connections accepted",
        counter DownstreamCxTransportSocketConnectTimeout "downstream_cx_transport_socket_connect_timeout" "TLS handshakes that took too long",
        counter DownstreamGlobalCxOverflow "downstream_global_cx_overflow" "connections refused at the process's limit",
        counter DownstreamListenerFilterError "downstream_listener_filter_error" "connections closed by a listener filter",
        counter DownstreamListenerFilterRemoteClose "downstream_listener_filter_remote_close" "connections that the peer closed during the listener filters",
        counter DownstreamPreCxTimeout "downstream_pre_cx_timeout" "listener filters that took too long",
        counter NoFilterChainMatch "no_filter_chain_match" "connections that no filter chain matched",
        gauge DownstreamCxActive "downstream_cx_active" "connections open",
        gauge DownstreamPreCxActive "downstream_pre_cx_active" "connections in the listener filters",
        millis DownstreamCxLengthMs "downstream_cx_length_ms" "how long a connection lived",
    }
}

stats! {
    /// TLS of a listener.
    ListenerSslStat = ListenerSsl, scope listener_ssl(address), text "listener.{0}.ssl.", metric "envoy_listener_ssl_", labels ["envoy_listener_address" = 0] {
        counter ConnectionError "connection_error" "handshakes and records that failed",
        counter FailVerifyCertHash "fail_verify_cert_hash" "certificates with the wrong hash",
        counter FailVerifyError "fail_verify_error" "certificates that did not verify",
        counter FailVerifyNoCert "fail_verify_no_cert" "peers without a certificate that needed one",
        counter FailVerifySan "fail_verify_san" "certificates whose names did not match",
        counter Handshake "handshake" "handshakes completed",
        counter NoCertificate "no_certificate" "handshakes completed without a client certificate",
        counter SessionReused "session_reused" "sessions resumed",
    }
}

stats! {
    /// One certificate that a listener presents.
    ListenerCertificateStat = ListenerCertificate, scope listener_certificate(address, certificate), text "listener.{0}.ssl.certificate.{1}.", metric "envoy_listener_ssl_certificate_", labels ["envoy_tls_certificate" = 1, "envoy_listener_address" = 0] {
        gauge ExpirationUnixTimeSeconds "expiration_unix_time_seconds" "when the certificate expires, in seconds since 1970",
    }
}

stats! {
    /// Responses of one connection manager on one listener.
    ListenerHttpStat = ListenerHttp, scope listener_http(address, stat_prefix), text "listener.{0}.http.{1}.", metric "envoy_listener_http_", labels ["envoy_http_conn_manager_prefix" = 1, "envoy_listener_address" = 0] {
        counter DownstreamRq1xx "downstream_rq_1xx" "responses 1xx",
        counter DownstreamRq2xx "downstream_rq_2xx" "responses 2xx",
        counter DownstreamRq3xx "downstream_rq_3xx" "responses 3xx",
        counter DownstreamRq4xx "downstream_rq_4xx" "responses 4xx",
        counter DownstreamRq5xx "downstream_rq_5xx" "responses 5xx",
        counter DownstreamRqCompleted "downstream_rq_completed" "responses sent",
    }
}

stats! {
    /// How a listener's connections spread over the cores.
    ListenerWorkerStat = ListenerWorker, scope listener_worker(address, core), text "listener.{0}.worker_{1}.", metric "envoy_listener_worker_", labels ["envoy_worker_id" = 1, "envoy_listener_address" = 0] {
        counter DownstreamCxTotal "downstream_cx_total" "connections that this core serves or served",
        gauge DownstreamCxActive "downstream_cx_active" "connections that this core serves",
    }
}

stats! {
    /// The listener filter that looks at the ClientHello.
    TlsInspectorStat = TlsInspector, scope tls_inspector(), text "tls_inspector.", metric "envoy_tls_inspector_", labels [] {
        counter AlpnFound "alpn_found" "ClientHellos with ALPN",
        counter AlpnNotFound "alpn_not_found" "ClientHellos without ALPN",
        counter ClientHelloTooLarge "client_hello_too_large" "ClientHellos over the limit",
        counter SniFound "sni_found" "ClientHellos with a server name",
        counter SniNotFound "sni_not_found" "ClientHellos without a server name",
        counter TlsFound "tls_found" "connections that speak TLS",
        counter TlsNotFound "tls_not_found" "connections that do not speak TLS",
        number BytesProcessed "bytes_processed" "bytes looked at before the decision",
    }
}

stats! {
    /// The listener filter that tells HTTP from other bytes.
    HttpInspectorStat = HttpInspector, scope http_inspector(), text "http_inspector.", metric "envoy_http_inspector_", labels [] {
        counter Http10Found "http10_found" "connections that speak HTTP/1.0",
        counter Http11Found "http11_found" "connections that speak HTTP/1.1",
        counter Http2Found "http2_found" "connections that speak HTTP/2",
        counter HttpNotFound "http_not_found" "connections that do not speak HTTP",
        counter ReadError "read_error" "reads that failed",
    }
}

stats! {
    /// One HTTP connection manager, with its router.
    HttpStat = Http, scope http(stat_prefix), text "http.{0}.", metric "envoy_http_", labels ["envoy_http_conn_manager_prefix" = 0] {
        counter DownstreamCxDelayedCloseTimeout "downstream_cx_delayed_close_timeout" "connections closed because the peer did not close in time",
        counter DownstreamCxDestroy "downstream_cx_destroy" "connections closed",
        counter DownstreamCxDestroyActiveRq "downstream_cx_destroy_active_rq" "connections closed with a request under way",
        counter DownstreamCxDestroyLocal "downstream_cx_destroy_local" "connections we closed",
        counter DownstreamCxDestroyLocalActiveRq "downstream_cx_destroy_local_active_rq" "connections we closed with a request under way",
        counter DownstreamCxDestroyRemote "downstream_cx_destroy_remote" "connections the peer closed",
        counter DownstreamCxDestroyRemoteActiveRq "downstream_cx_destroy_remote_active_rq" "connections the peer closed with a request under way",
        counter DownstreamCxDrainClose "downstream_cx_drain_close" "connections closed because we drain",
        counter DownstreamCxHttp1Total "downstream_cx_http1_total" "HTTP/1 connections",
        counter DownstreamCxHttp2Total "downstream_cx_http2_total" "HTTP/2 connections",
        counter DownstreamCxIdleTimeout "downstream_cx_idle_timeout" "connections closed because they were idle",
        counter DownstreamCxMaxDurationReached "downstream_cx_max_duration_reached" "connections closed because they were old",
        counter DownstreamCxMaxRequestsReached "downstream_cx_max_requests_reached" "connections closed after their last permitted request",
        counter DownstreamCxProtocolError "downstream_cx_protocol_error" "connections with a protocol error",
        counter DownstreamCxRxBytesTotal "downstream_cx_rx_bytes_total" "bytes received",
        counter DownstreamCxSslTotal "downstream_cx_ssl_total" "TLS connections",
        counter DownstreamCxTotal "downstream_cx_total" "connections",
        counter DownstreamCxTxBytesTotal "downstream_cx_tx_bytes_total" "bytes sent",
        counter DownstreamCxUpgradesTotal "downstream_cx_upgrades_total" "upgraded connections",
        counter DownstreamRq1xx "downstream_rq_1xx" "responses 1xx",
        counter DownstreamRq2xx "downstream_rq_2xx" "responses 2xx",
        counter DownstreamRq3xx "downstream_rq_3xx" "responses 3xx",
        counter DownstreamRq4xx "downstream_rq_4xx" "responses 4xx",
        counter DownstreamRq5xx "downstream_rq_5xx" "responses 5xx",
        counter DownstreamRqCompleted "downstream_rq_completed" "responses sent",
        counter DownstreamRqFailedPathNormalization "downstream_rq_failed_path_normalization" "requests refused because the path could not be normalised",
        counter DownstreamRqHeaderTimeout "downstream_rq_header_timeout" "requests whose headers took too long",
        counter DownstreamRqHttp1Total "downstream_rq_http1_total" "HTTP/1 requests",
        counter DownstreamRqHttp2Total "downstream_rq_http2_total" "HTTP/2 requests",
        counter DownstreamRqIdleTimeout "downstream_rq_idle_timeout" "requests that were idle too long",
        counter DownstreamRqMaxDurationReached "downstream_rq_max_duration_reached" "requests that lived too long",
        counter DownstreamRqRedirectedWithNormalizedPath "downstream_rq_redirected_with_normalized_path" "requests redirected to their normalised path",
        counter DownstreamRqResponseBeforeRqComplete "downstream_rq_response_before_rq_complete" "responses sent before the request had ended",
        counter DownstreamRqRxReset "downstream_rq_rx_reset" "requests that the peer reset",
        counter DownstreamRqTimeout "downstream_rq_timeout" "requests that took too long to arrive",
        counter DownstreamRqTooManyPrematureResets "downstream_rq_too_many_premature_resets" "connections closed for too many early resets",
        counter DownstreamRqTotal "downstream_rq_total" "requests",
        counter DownstreamRqTxReset "downstream_rq_tx_reset" "requests that we reset",
        counter DownstreamRqWsOnNonWsRoute "downstream_rq_ws_on_non_ws_route" "upgrades refused by the route",
        counter NoCluster "no_cluster" "requests whose cluster does not exist",
        counter NoRoute "no_route" "requests that no route matched",
        counter RqDirectResponse "rq_direct_response" "requests answered by a direct response",
        counter RqRedirect "rq_redirect" "requests answered by a redirect",
        counter RqResetAfterDownstreamResponseStarted "rq_reset_after_downstream_response_started" "requests reset after their response had started",
        counter RqTotal "rq_total" "requests that reached the router",
        gauge DownstreamCxActive "downstream_cx_active" "connections open",
        gauge DownstreamCxHttp1Active "downstream_cx_http1_active" "HTTP/1 connections open",
        gauge DownstreamCxHttp2Active "downstream_cx_http2_active" "HTTP/2 connections open",
        gauge DownstreamCxSslActive "downstream_cx_ssl_active" "TLS connections open",
        gauge DownstreamCxUpgradesActive "downstream_cx_upgrades_active" "upgraded connections open",
        gauge DownstreamRqActive "downstream_rq_active" "requests under way",
        millis DownstreamCxLengthMs "downstream_cx_length_ms" "how long a connection lived",
        millis DownstreamRqTime "downstream_rq_time" "from the request's first byte to the response's last",
    }
}

stats! {
    /// Authorization of requests.
    HttpRbacStat = HttpRbac, scope http_rbac(stat_prefix), text "http.{0}.rbac.", metric "envoy_http_rbac_", labels ["envoy_http_conn_manager_prefix" = 0] {
        counter Allowed "allowed" "allowed",
        counter Denied "denied" "denied",
        counter ShadowAllowed "shadow_allowed" "allowed by the shadow rules",
        counter ShadowDenied "shadow_denied" "denied by the shadow rules",
    }
}

stats! {
    /// Authorization of requests by rules that carry a prefix of their own.
    HttpRbacRulesStat = HttpRbacRules, scope http_rbac_rules(stat_prefix, rules_prefix), text "http.{0}.rbac.{1}.", metric "envoy_http_rbac_", labels ["envoy_rbac_http_prefix" = 1, "envoy_http_conn_manager_prefix" = 0] {
        counter Allowed "allowed" "allowed",
        counter Denied "denied" "denied",
        counter ShadowAllowed "shadow_allowed" "allowed by the shadow rules",
        counter ShadowDenied "shadow_denied" "denied by the shadow rules",
    }
}

stats! {
    /// Authorization of connections.
    NetworkRbacStat = NetworkRbac, scope network_rbac(stat_prefix), text "{0}.rbac.", metric "envoy_rbac_", labels ["envoy_rbac_prefix" = 0] {
        counter Allowed "allowed" "allowed",
        counter Denied "denied" "denied",
        counter ShadowAllowed "shadow_allowed" "allowed by the shadow rules",
        counter ShadowDenied "shadow_denied" "denied by the shadow rules",
    }
}

stats! {
    /// Authorization of connections by shadow rules that carry a prefix of their own.
    NetworkRbacRulesStat = NetworkRbacRules, scope network_rbac_rules(stat_prefix, rules_prefix), text "{0}.rbac.{1}.", metric "envoy_rbac_", labels ["envoy_rbac_network_prefix" = 1, "envoy_rbac_prefix" = 0] {
        counter Allowed "allowed" "allowed",
        counter Denied "denied" "denied",
        counter ShadowAllowed "shadow_allowed" "allowed by the shadow rules",
        counter ShadowDenied "shadow_denied" "denied by the shadow rules",
    }
}

stats! {
    /// Rate limits of connections.
    NetworkRateLimitStat = NetworkRateLimit, scope network_rate_limit(stat_prefix), text "local_rate_limit.{0}.", metric "envoy_local_rate_limit_", labels ["envoy_local_network_ratelimit_prefix" = 0] {
        counter RateLimited "rate_limited" "connections closed for want of a token",
    }
}

stats! {
    /// Injected faults.
    FaultStat = Fault, scope fault(stat_prefix), text "http.{0}.fault.", metric "envoy_http_fault_", labels ["envoy_http_conn_manager_prefix" = 0] {
        counter AbortsInjected "aborts_injected" "requests aborted",
        counter DelaysInjected "delays_injected" "requests delayed",
        counter FaultsOverflow "faults_overflow" "faults not injected because of max_active_faults",
        gauge ActiveFaults "active_faults" "faults under way",
    }
}

stats! {
    /// Origins as the CORS filter saw them.
    CorsStat = Cors, scope cors(stat_prefix), text "http.{0}.cors.", metric "envoy_http_cors_", labels ["envoy_http_conn_manager_prefix" = 0] {
        counter OriginInvalid "origin_invalid" "requests from an origin that is not allowed",
        counter OriginValid "origin_valid" "requests from an allowed origin",
    }
}

stats! {
    /// Token buckets of the local rate limit filter.
    LocalRateLimitStat = LocalRateLimit, scope local_rate_limit(stat_prefix), text "{0}.http_local_rate_limit.", metric "envoy_http_local_rate_limit_", labels ["envoy_local_http_ratelimit_prefix" = 0] {
        counter Enabled "enabled" "requests that the filter looked at",
        counter Enforced "enforced" "requests answered 429",
        counter Ok "ok" "requests under the limit",
        counter RateLimited "rate_limited" "requests over the limit, refused or not",
    }
}

stats! {
    /// One TCP proxy.
    TcpStat = Tcp, scope tcp(stat_prefix), text "tcp.{0}.", metric "envoy_tcp_", labels ["envoy_tcp_prefix" = 0] {
        counter DownstreamCxDrainClose "downstream_cx_drain_close" "connections closed because we drain",
        counter DownstreamCxNoRoute "downstream_cx_no_route" "connections for which no cluster was found",
        counter DownstreamCxRxBytesTotal "downstream_cx_rx_bytes_total" "bytes received",
        counter DownstreamCxTotal "downstream_cx_total" "connections",
        counter DownstreamCxTxBytesTotal "downstream_cx_tx_bytes_total" "bytes sent",
        counter IdleTimeout "idle_timeout" "connections closed because they were idle",
        counter MaxDownstreamConnectionDuration "max_downstream_connection_duration" "connections closed because they were old",
    }
}

stats! {
    /// HTTP/2 codecs on the downstream side.
    Http2Stat = Http2, scope http2(), text "http2.", metric "envoy_http2_", labels [] {
        counter GoawaySent "goaway_sent" "GOAWAY frames sent",
        counter RxMessagingError "rx_messaging_error" "malformed requests or responses",
        counter RxReset "rx_reset" "RST_STREAM frames received",
        counter Trailers "trailers" "trailers received",
        counter TxReset "tx_reset" "RST_STREAM frames sent",
        gauge StreamsActive "streams_active" "streams open",
    }
}
