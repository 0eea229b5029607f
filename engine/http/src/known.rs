//! The field names that the proxy itself acts on, recognised once when a head is parsed so that every later
//! look-up is a comparison of one byte.

macro_rules! known_names {
    ($($variant:ident = $name:literal,)*) => {
        /// A field name known to the proxy; `Other` is every other name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known { $($variant,)* Other }

        impl Known {
            /// Every known name, in declaration order, without `Other`.
            pub const ALL: &'static [Known] = &[$(Known::$variant,)*];

            /// The name in lower case; empty for `Other`.
            pub const fn name(self) -> &'static str {
                match self { $(Known::$variant => $name,)* Known::Other => "" }
            }

            /// Recognises a name that is already in lower case.
            pub(crate) fn of_lower(name: &[u8]) -> Known {
                $(const $variant: &[u8] = $name.as_bytes();)*
                match name { $($variant => Known::$variant,)* _ => Known::Other }
            }
        }
    };
}

#[allow(non_upper_case_globals)]
mod names {
    known_names! {
        // RFC 9110 and RFC 9112: what frames a message and what belongs to one connection
        Host = "host",
        Connection = "connection",
        ContentLength = "content-length",
        TransferEncoding = "transfer-encoding",
        Upgrade = "upgrade",
        Te = "te",
        Trailer = "trailer",
        Expect = "expect",
        KeepAlive = "keep-alive",
        ProxyConnection = "proxy-connection",
        Http2Settings = "http2-settings",
        // RFC 9110: what a proxy reads or writes
        Via = "via",
        Date = "date",
        Server = "server",
        Location = "location",
        UserAgent = "user-agent",
        Accept = "accept",
        AcceptEncoding = "accept-encoding",
        Authorization = "authorization",
        ProxyAuthorization = "proxy-authorization",
        ContentType = "content-type",
        ContentEncoding = "content-encoding",
        ContentRange = "content-range",
        CacheControl = "cache-control",
        MaxForwards = "max-forwards",
        RetryAfter = "retry-after",
        Vary = "vary",
        Referer = "referer",
        Cookie = "cookie",
        SetCookie = "set-cookie",
        Range = "range",
        // Fetch standard: CORS
        Origin = "origin",
        AccessControlRequestMethod = "access-control-request-method",
        AccessControlRequestHeaders = "access-control-request-headers",
        AccessControlRequestPrivateNetwork = "access-control-request-private-network",
        AccessControlAllowOrigin = "access-control-allow-origin",
        AccessControlAllowCredentials = "access-control-allow-credentials",
        AccessControlAllowMethods = "access-control-allow-methods",
        AccessControlAllowHeaders = "access-control-allow-headers",
        AccessControlAllowPrivateNetwork = "access-control-allow-private-network",
        AccessControlExposeHeaders = "access-control-expose-headers",
        AccessControlMaxAge = "access-control-max-age",
        // gRPC over HTTP/2
        GrpcStatus = "grpc-status",
        GrpcMessage = "grpc-message",
        GrpcTimeout = "grpc-timeout",
        GrpcEncoding = "grpc-encoding",
        GrpcAcceptEncoding = "grpc-accept-encoding",
        GrpcStatusDetails = "grpc-status-details-bin",
        // tracing
        Traceparent = "traceparent",
        Tracestate = "tracestate",
        Baggage = "baggage",
        B3 = "b3",
        XB3TraceId = "x-b3-traceid",
        XB3SpanId = "x-b3-spanid",
        XB3ParentSpanId = "x-b3-parentspanid",
        XB3Sampled = "x-b3-sampled",
        XB3Flags = "x-b3-flags",
        XOtSpanContext = "x-ot-span-context",
        XRequestId = "x-request-id",
        XClientTraceId = "x-client-trace-id",
        // forwarding
        Forwarded = "forwarded",
        XForwardedFor = "x-forwarded-for",
        XForwardedProto = "x-forwarded-proto",
        XForwardedHost = "x-forwarded-host",
        XForwardedPort = "x-forwarded-port",
        XForwardedClientCert = "x-forwarded-client-cert",
        // Envoy: "HTTP header manipulation" and "Router"
        XEnvoyAttemptCount = "x-envoy-attempt-count",
        XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
        XEnvoyDegraded = "x-envoy-degraded",
        XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
        XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
        XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
        XEnvoyExternalAddress = "x-envoy-external-address",
        XEnvoyForceTrace = "x-envoy-force-trace",
        XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
        XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
        XEnvoyInternal = "x-envoy-internal",
        XEnvoyIpTags = "x-envoy-ip-tags",
        XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
        XEnvoyLocalOverloaded = "x-envoy-local-overloaded",
        XEnvoyMaxRetries = "x-envoy-max-retries",
        XEnvoyOriginalDstHost = "x-envoy-original-dst-host",
        XEnvoyOriginalHost = "x-envoy-original-host",
        XEnvoyOriginalMethod = "x-envoy-original-method",
        XEnvoyOriginalPath = "x-envoy-original-path",
        XEnvoyOriginalUrl = "x-envoy-original-url",
        XEnvoyOverloaded = "x-envoy-overloaded",
        XEnvoyPeerMetadata = "x-envoy-peer-metadata",
        XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
        XEnvoyRateLimited = "x-envoy-ratelimited",
        XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
        XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
        XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
        XEnvoyRetryOn = "x-envoy-retry-on",
        XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
        XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
        XEnvoyUpstreamHealthcheckedCluster = "x-envoy-upstream-healthchecked-cluster",
        XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
        XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
        XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
        XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
        XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
        // Envoy fault filter
        XEnvoyFaultAbortRequest = "x-envoy-fault-abort-request",
        XEnvoyFaultAbortRequestPercentage = "x-envoy-fault-abort-request-percentage",
        XEnvoyFaultAbortGrpcRequest = "x-envoy-fault-abort-grpc-request",
        XEnvoyFaultDelayRequest = "x-envoy-fault-delay-request",
        XEnvoyFaultDelayRequestPercentage = "x-envoy-fault-delay-request-percentage",
        ProxyStatus = "proxy-status",
    }
}
pub use names::Known;

/// Longest known name; a longer one needs no look-up.
const NAME_BYTES_MAX: usize = 48;

// The presence set of `Fields` has one bit a name.
const _: () = assert!(Known::ALL.len() < 128);

/// Lower case in place, eight bytes at a step, the last step over bytes already done: names are too short for
/// the standard library's loop to pay.
pub(crate) fn lower_in_place(name: &mut [u8]) {
    let (words, rest) = name.as_chunks_mut::<8>();
    words.iter_mut().for_each(lower_chunk);
    if rest.is_empty() {
        return;
    }
    match name.last_chunk_mut::<8>() {
        Some(last) => lower_chunk(last),
        None => name.make_ascii_lowercase(),
    }
}

fn lower_chunk(chunk: &mut [u8; 8]) {
    *chunk = lower_word(u64::from_le_bytes(*chunk)).to_le_bytes();
}

/// Sets bit 5 of every byte that is `A` to `Z`.
const fn lower_word(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let ascii = word & (ONES * 0x7f);
    // The high bit of a byte is set from `A` on, and from `[` on; it is `A` to `Z` where only the first is, and
    // the byte was ASCII.
    let from_a = ascii + ONES * (0x80 - b'A' as u64);
    let from_bracket = ascii + ONES * (0x80 - b'[' as u64);
    let upper = (from_a ^ from_bracket) & !word & (ONES * 0x80);
    word | upper >> 2
}

impl Known {
    /// Recognises a name in any case.
    pub fn of(name: &[u8]) -> Known {
        if name.len() > NAME_BYTES_MAX {
            return Known::Other;
        }
        let mut lower = [0u8; NAME_BYTES_MAX];
        let lower = &mut lower[..name.len()];
        lower.copy_from_slice(name);
        lower_in_place(lower);
        Known::of_lower(lower)
    }

    /// Whether the field belongs to one connection and is never forwarded as it came.
    ///
    /// RFC 9110 section 7.6.1 lists Proxy-Connection, Keep-Alive, TE, Transfer-Encoding and Upgrade, besides
    /// Connection itself; RFC 7540 section 3.2.1 adds HTTP2-Settings.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Http2Settings
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_in_any_case() {
        for &known in Known::ALL {
            let name = known.name();
            assert!(name.len() <= NAME_BYTES_MAX, "{name}");
            assert_eq!(Known::of(name.as_bytes()), known);
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), known);
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn words_are_lowered_as_the_standard_library_does() {
        for byte in 0..=u8::MAX {
            for other in [0, b'A', b'Z', b'@', b'[', 0xff] {
                let mut name = [other, byte, other, byte, byte, other, other, byte, byte, other];
                let expected = name.to_ascii_lowercase();
                lower_in_place(&mut name);
                assert_eq!(name.as_slice(), expected);
            }
        }
    }

    #[test]
    fn near_misses_are_other() {
        for name in
            ["", "hos", "hostt", "content-lengt", "content_length", "x-envoy-", "conten\u{17f}-length"]
        {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
        assert_eq!(Known::of(&[b'a'; 300]), Known::Other);
        assert_eq!(Known::Other.name(), "");
    }
}
