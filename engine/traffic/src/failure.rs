//! Why a request or a try ended without the upstream's own response: whose side it was, what the client gets,
//! and the flag and details that access logs show. Flags and details are Envoy's, so that users' dashboards and
//! alerts go on working.

use crate::breaker::Limit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    /// A decision of this proxy.
    Local,
    Upstream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    #[error("upstream refused the connection or was unreachable")]
    ConnectFailure,
    #[error("upstream did not accept the connection within connect_timeout")]
    ConnectTimeout,
    #[error("tls handshake with the upstream failed, or it was reset; certificate or tls mode mismatch")]
    TlsHandshake,
    /// The connection was lost before a byte of the request was written to it.
    #[error("upstream connection was reset before the request was sent")]
    ResetBeforeRequest,
    /// RST_STREAM by the upstream, after the request was sent.
    #[error("upstream reset the stream")]
    Reset,
    /// The connection closed or was reset after the request was sent and before the response was complete.
    #[error("upstream closed the connection before the response was complete")]
    UpstreamTermination,
    /// RFC 9113 section 8.7: the request was not processed.
    #[error("upstream refused the stream; the request was not processed")]
    RefusedStream,
    #[error("upstream sent a malformed response")]
    ProtocolError,
    #[error("a try got no response within per_try_timeout")]
    PerTryTimeout,
    #[error("a try made no progress within per_try_idle_timeout")]
    PerTryIdleTimeout,
    #[error("no complete response within the route's timeout")]
    RouteTimeout,
    #[error("the upstream stream reached max_stream_duration")]
    UpstreamDurationMax,
    #[error("circuit breaker open")]
    Overflow(Limit),
    #[error("no healthy upstream endpoint")]
    NoHealthyUpstream,
    #[error("the route's cluster is not defined")]
    NoCluster,
    #[error("no route matched")]
    NoRoute,
    #[error("upstream name did not resolve")]
    DnsFailure,
    #[error("client went away")]
    DownstreamDisconnect,
    #[error("client sent a malformed request")]
    DownstreamProtocolError,
    #[error("no byte on the stream within stream_idle_timeout")]
    StreamIdleTimeout,
    #[error("the request was not complete within request_timeout")]
    RequestTimeout,
    #[error("the stream reached max_stream_duration")]
    DurationMax,
    #[error("request body larger than what may be kept")]
    PayloadTooLarge,
    #[error("denied by policy")]
    Denied,
    #[error("rate limited")]
    RateLimited,
    #[error("aborted by fault injection")]
    FaultAbort,
    #[error("proxy overloaded")]
    Overloaded,
}

impl Failure {
    pub const fn side(self) -> Side {
        use Failure::*;
        match self {
            DownstreamDisconnect | DownstreamProtocolError | StreamIdleTimeout | RequestTimeout => {
                Side::Downstream
            }
            Overflow(_) | NoHealthyUpstream | NoCluster | NoRoute | DnsFailure | PayloadTooLarge | Denied
            | RateLimited | FaultAbort | Overloaded | DurationMax => Side::Local,
            ConnectFailure | ConnectTimeout | TlsHandshake | ResetBeforeRequest | Reset
            | UpstreamTermination | RefusedStream | ProtocolError | PerTryTimeout | PerTryIdleTimeout
            | RouteTimeout | UpstreamDurationMax => Side::Upstream,
        }
    }

    /// Envoy's short response flag; `` where it has none. Reference: Envoy, "Access logging", RESPONSE_FLAGS.
    pub const fn response_flag(self) -> &'static str {
        use Failure::*;
        match self {
            ConnectFailure | ConnectTimeout | TlsHandshake => "UF",
            Reset | RefusedStream => "UR",
            ResetBeforeRequest | UpstreamTermination => "UC",
            ProtocolError => "UPE",
            PerTryTimeout | PerTryIdleTimeout | RouteTimeout => "UT",
            UpstreamDurationMax => "UMSDR",
            Overflow(_) => "UO",
            NoHealthyUpstream => "UH",
            NoCluster => "NC",
            NoRoute => "NR",
            DnsFailure => "DF",
            DownstreamDisconnect => "DC",
            DownstreamProtocolError => "DPE",
            StreamIdleTimeout => "SI",
            DurationMax => "DT",
            RateLimited => "RL",
            FaultAbort => "FI",
            Overloaded => "OM",
            RequestTimeout | PayloadTooLarge | Denied => "",
        }
    }

    /// Status of the local reply where the configuration names no other.
    pub const fn status(self) -> u16 {
        use Failure::*;
        match self {
            ProtocolError => 502,
            PerTryTimeout | PerTryIdleTimeout | RouteTimeout | UpstreamDurationMax => 504,
            NoRoute => 404,
            DownstreamProtocolError => 400,
            StreamIdleTimeout | RequestTimeout | DurationMax => 408,
            PayloadTooLarge => 413,
            Denied => 403,
            RateLimited => 429,
            // nobody is left to read it; access logs show 0
            DownstreamDisconnect => 0,
            _ => 503,
        }
    }

    /// %RESPONSE_CODE_DETAILS%.
    pub const fn details(self) -> &'static str {
        use Failure::*;
        match self {
            ConnectFailure => "upstream_reset_before_response_started{remote_connection_failure}",
            ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            TlsHandshake => "upstream_reset_before_response_started{remote_connection_failure|TLS_error}",
            ResetBeforeRequest | UpstreamTermination => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            Reset => "upstream_reset_before_response_started{remote_reset}",
            RefusedStream => "upstream_reset_before_response_started{remote_refused_stream_reset}",
            ProtocolError => "upstream_reset_before_response_started{protocol_error}",
            PerTryTimeout => "upstream_per_try_timeout",
            PerTryIdleTimeout => "upstream_per_try_idle_timeout",
            RouteTimeout => "response_timeout",
            UpstreamDurationMax => "upstream_max_stream_duration_reached",
            Overflow(_) => "upstream_reset_before_response_started{overflow}",
            NoHealthyUpstream => "no_healthy_upstream",
            NoCluster => "cluster_not_found",
            NoRoute => "route_not_found",
            DnsFailure => "dns_resolution_failure",
            DownstreamDisconnect => "downstream_remote_disconnect",
            DownstreamProtocolError => "http1.codec_error",
            StreamIdleTimeout => "stream_idle_timeout",
            RequestTimeout => "request_overall_timeout",
            DurationMax => "max_duration_timeout",
            PayloadTooLarge => "request_payload_too_large",
            Denied => "rbac_access_denied",
            RateLimited => "request_rate_limited",
            FaultAbort => "fault_filter_abort",
            Overloaded => "overload",
        }
    }

    /// Whether the endpoint's connection never came to carry the request: retrying puts nothing at risk.
    pub const fn is_connect(self) -> bool {
        matches!(self, Failure::ConnectFailure | Failure::ConnectTimeout | Failure::TlsHandshake)
    }

    pub const fn is_timeout(self) -> bool {
        matches!(
            self,
            Failure::ConnectTimeout
                | Failure::PerTryTimeout
                | Failure::PerTryIdleTimeout
                | Failure::RouteTimeout
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_and_logs_see() {
        for (failure, flag, status) in [
            (Failure::ConnectFailure, "UF", 503),
            (Failure::TlsHandshake, "UF", 503),
            (Failure::Reset, "UR", 503),
            (Failure::UpstreamTermination, "UC", 503),
            (Failure::ProtocolError, "UPE", 502),
            (Failure::PerTryTimeout, "UT", 504),
            (Failure::RouteTimeout, "UT", 504),
            (Failure::Overflow(Limit::Pending), "UO", 503),
            (Failure::NoHealthyUpstream, "UH", 503),
            (Failure::NoCluster, "NC", 503),
            (Failure::NoRoute, "NR", 404),
            (Failure::DownstreamDisconnect, "DC", 0),
        ] {
            assert_eq!((failure.response_flag(), failure.status()), (flag, status), "{failure:?}");
        }
    }
}
