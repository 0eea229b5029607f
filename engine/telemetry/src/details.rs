//! Response code details: who made the response, and why, in one word (Envoy's `%RESPONSE_CODE_DETAILS%`).

/// Bytes of details that are made for one request; what is longer is cut.
pub const DETAILS_BYTES_MAX: usize = 118;

/// Mostly one of the constants; made for the request only where it names a policy or a reset reason.
#[derive(Clone, Copy)]
pub struct Details(Repr);

#[derive(Clone, Copy)]
enum Repr {
    Static(&'static str),
    Inline { len: u8, bytes: [u8; DETAILS_BYTES_MAX] },
}

impl Default for Details {
    fn default() -> Self {
        Self::NONE
    }
}

// Envoy's ResponseCodeDetailValues, as far as this proxy can give them.
impl Details {
    pub const NONE: Self = Self::new("");
    pub const VIA_UPSTREAM: Self = Self::new("via_upstream");
    pub const REQUEST_PAYLOAD_TOO_LARGE: Self = Self::new("request_payload_too_large");
    pub const STREAM_IDLE_TIMEOUT: Self = Self::new("stream_idle_timeout");
    pub const MAX_DURATION_TIMEOUT: Self = Self::new("max_duration_timeout");
    pub const REQUEST_OVERALL_TIMEOUT: Self = Self::new("request_overall_timeout");
    pub const REQUEST_HEADER_TIMEOUT: Self = Self::new("request_header_timeout");
    pub const OVERLOAD: Self = Self::new("overload");
    pub const LOW_VERSION: Self = Self::new("low_version");
    pub const MISSING_HOST: Self = Self::new("missing_host_header");
    pub const INVALID_ENVOY_REQUEST_HEADERS: Self = Self::new("request_headers_failed_strict_check");
    pub const MISSING_PATH: Self = Self::new("missing_path_rejected");
    pub const ABSOLUTE_PATH: Self = Self::new("absolute_path_rejected");
    pub const PATH_NORMALIZATION_FAILED: Self = Self::new("path_normalization_failed");
    pub const UPGRADE_FAILED: Self = Self::new("upgrade_failed");
    pub const ROUTE_NOT_FOUND: Self = Self::new("route_not_found");
    pub const DIRECT_RESPONSE: Self = Self::new("direct_response");
    pub const CORS_RESPONSE: Self = Self::new("cors_response");
    pub const CLUSTER_NOT_FOUND: Self = Self::new("cluster_not_found");
    pub const NO_HEALTHY_UPSTREAM: Self = Self::new("no_healthy_upstream");
    pub const RESPONSE_TIMEOUT: Self = Self::new("response_timeout");
    pub const UPSTREAM_PER_TRY_TIMEOUT: Self = Self::new("upstream_per_try_timeout");
    pub const UPSTREAM_PER_TRY_IDLE_TIMEOUT: Self = Self::new("upstream_per_try_idle_timeout");
    pub const UPSTREAM_MAX_STREAM_DURATION_REACHED: Self = Self::new("upstream_max_stream_duration_reached");
    pub const FILTER_CHAIN_NOT_FOUND: Self = Self::new("filter_chain_not_found");
    pub const DOWNSTREAM_REMOTE_DISCONNECT: Self = Self::new("downstream_remote_disconnect");
    pub const DURATION_TIMEOUT: Self = Self::new("duration_timeout");
    pub const FAULT_FILTER_ABORT: Self = Self::new("fault_filter_abort");
    pub const LOCAL_RATE_LIMITED: Self = Self::new("local_rate_limited");
    pub const HTTP1_CODEC_ERROR: Self = Self::new("http1.codec_error");

    /// Envoy appends the reason of the reset in braces: `upstream_reset_before_response_started{connection_termination}`.
    pub const UPSTREAM_RESET_EARLY_CONNECTION_FAILURE: Self =
        Self::new("upstream_reset_before_response_started{remote_connection_failure}");
    pub const UPSTREAM_RESET_EARLY_CONNECT_TIMEOUT: Self =
        Self::new("upstream_reset_before_response_started{connection_timeout}");
    pub const UPSTREAM_RESET_EARLY_CONNECTION_TERMINATION: Self =
        Self::new("upstream_reset_before_response_started{connection_termination}");
    pub const UPSTREAM_RESET_EARLY_OVERFLOW: Self =
        Self::new("upstream_reset_before_response_started{overflow}");
    pub const UPSTREAM_RESET_EARLY_REMOTE_RESET: Self =
        Self::new("upstream_reset_before_response_started{remote_reset}");
    pub const UPSTREAM_RESET_EARLY_PROTOCOL_ERROR: Self =
        Self::new("upstream_reset_before_response_started{protocol_error}");
    pub const UPSTREAM_RESET_LATE_CONNECTION_TERMINATION: Self =
        Self::new("upstream_reset_after_response_started{connection_termination}");
    pub const UPSTREAM_RESET_LATE_REMOTE_RESET: Self =
        Self::new("upstream_reset_after_response_started{remote_reset}");
    pub const UPSTREAM_RESET_LATE_PROTOCOL_ERROR: Self =
        Self::new("upstream_reset_after_response_started{protocol_error}");

    pub const fn new(details: &'static str) -> Self {
        Self(Repr::Static(details))
    }

    /// Details made of `parts` put together, such as `rbac_access_denied_matched_policy[`, the policy's name, `]`.
    ///
    /// Whitespace becomes `_`, as in Envoy, so that a log line keeps its fields. Cut at a character after `DETAILS_BYTES_MAX` bytes.
    pub fn concat(parts: &[&str]) -> Self {
        let mut bytes = [0; DETAILS_BYTES_MAX];
        let mut len = 0;
        for char in parts.iter().flat_map(|part| part.chars()) {
            let char = if char.is_whitespace() { '_' } else { char };
            if len + char.len_utf8() > DETAILS_BYTES_MAX {
                break;
            }
            len += char.encode_utf8(&mut bytes[len..]).len();
        }
        Self(Repr::Inline { len: len as u8, bytes })
    }

    /// Empty where there are none.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(details) => details,
            Repr::Inline { len, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
        }
    }
}

impl PartialEq for Details {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Details {}

impl std::fmt::Debug for Details {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_details_equal_written_ones_and_keep_the_line_whole() {
        let made = Details::concat(&["rbac_access_denied_matched_policy[", "ns prod\tx", "]"]);
        assert_eq!(made.as_str(), "rbac_access_denied_matched_policy[ns_prod_x]");
        assert_eq!(Details::concat(&["via_upstream"]), Details::VIA_UPSTREAM);
    }

    #[test]
    fn long_details_are_cut_at_a_character() {
        let made = Details::concat(&["a", &"é".repeat(80)]);
        assert_eq!(made.as_str(), format!("a{}", "é".repeat(58)));
    }
}
