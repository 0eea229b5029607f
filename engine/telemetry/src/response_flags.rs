//! Response flags: why a request ended as it did, with Envoy's short and long names.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of response flags. The default is empty, which is written `-`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseFlags(u32);

macro_rules! response_flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal, $long:literal;)+) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)+

            /// (flag, short name, long name) of every flag, in the order in which Envoy writes them.
            pub const TABLE: &'static [(Self, &'static str, &'static str)] = &[$((Self::$name, $short, $long)),+];
        }
    };
}

// Order and names: Envoy's CoreResponseFlag and CORE_RESPONSE_FLAGS.
response_flags! {
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// We reset the stream.
    LOCAL_RESET = 3, "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// The connection could not be opened.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The connection closed before the response was complete.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker refused.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    RATE_LIMITED = 11, "RL", "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE = 12, "UAEX", "UnauthorizedExternalService";
    RATELIMIT_SERVICE_ERROR = 13, "RLSE", "RateLimitServiceError";
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE_FILTER = 20, "RFCF", "ResponseFromCacheFilter";
    NO_FILTER_CONFIG_FOUND = 21, "NFCF", "NoFilterConfigFound";
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    DNS_RESOLUTION_FAILED = 26, "DF", "DnsResolutionFailed";
    DROP_OVERLOAD = 27, "DO", "DropOverload";
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD = 29, "UDO", "UnconditionalDropOverload";
}

impl ResponseFlags {
    pub const NONE: Self = Self(0);

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Those that are in `other` too, and those that are not.
    pub const fn split(self, other: Self) -> (Self, Self) {
        (Self(self.0 & other.0), Self(self.0 & !other.0))
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The flag with this short name.
    pub fn from_short(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, short, _)| *short == name).map(|(flag, ..)| *flag)
    }

    /// Short names joined by commas; `-` for none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |(_, short, _)| short);
    }

    /// Long names joined by commas; `-` for none.
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |(_, _, long)| long);
    }

    fn write(self, out: &mut Vec<u8>, name: impl Fn(&(Self, &'static str, &'static str)) -> &'static str) {
        if self.is_empty() {
            out.push(b'-');
            return;
        }
        let mut separator: &[u8] = b"";
        for entry in Self::TABLE.iter().filter(|(flag, ..)| self.contains(*flag)) {
            out.extend_from_slice(separator);
            out.extend_from_slice(name(entry).as_bytes());
            separator = b",";
        }
    }
}

impl BitOr for ResponseFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        self.write_short(&mut names);
        f.write_str(&String::from_utf8_lossy(&names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_in_table_order_whatever_the_order_of_setting() {
        let mut flags = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        flags |= ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        let (mut short, mut long) = (Vec::new(), Vec::new());
        flags.write_short(&mut short);
        flags.write_long(&mut long);
        assert_eq!(short, b"UF,URX");
        assert_eq!(long, b"UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
        assert_eq!(format!("{:?}", ResponseFlags::NONE), "-");
    }

    #[test]
    fn bits_are_the_positions_in_the_table_and_names_are_unique() {
        for (i, (flag, short, _)) in ResponseFlags::TABLE.iter().enumerate() {
            assert_eq!(flag.bits(), 1 << i);
            assert_eq!(ResponseFlags::from_short(short), Some(*flag));
        }
        assert_eq!(ResponseFlags::from_short("nope"), None);
    }
}
