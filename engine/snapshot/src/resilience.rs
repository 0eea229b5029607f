//! What is done about failure: retries, budgets, outlier detection, active health checks.

use crate::{HeaderEdit, HeaderMatcher, RangeI64, StringMatcher};
use std::time::Duration;

/// envoy.config.route.v3.RetryPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    pub on: RetryOn,
    /// Tries after the first.
    pub retries_max: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub retriable_status_codes: Vec<u16>,
    /// Any one on the response makes it retriable (retry_on retriable-headers).
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Where not empty, only requests that match one are retried at all.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    pub back_off: BackOff,
    /// envoy.retry_host_predicates.previous_hosts.
    pub avoid_previous_hosts: bool,
    pub omit_canary_hosts: bool,
    pub host_selection_attempts_max: u32,
    /// previous_priorities: update_frequency; None: off.
    pub avoid_previous_priorities: Option<u32>,
}

/// Conditions as bits; names in comments are Envoy's `retry_on` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RetryOn(pub u32);

impl RetryOn {
    pub const SERVER_ERROR: RetryOn = RetryOn(1); // 5xx
    pub const GATEWAY_ERROR: RetryOn = RetryOn(1 << 1); // gateway-error: 502, 503, 504
    pub const RESET: RetryOn = RetryOn(1 << 2); // reset
    pub const RESET_BEFORE_REQUEST: RetryOn = RetryOn(1 << 3); // reset-before-request
    pub const CONNECT_FAILURE: RetryOn = RetryOn(1 << 4); // connect-failure
    pub const RETRIABLE_4XX: RetryOn = RetryOn(1 << 5); // retriable-4xx: 409
    pub const REFUSED_STREAM: RetryOn = RetryOn(1 << 6); // refused-stream
    pub const RETRIABLE_STATUS_CODES: RetryOn = RetryOn(1 << 7); // retriable-status-codes
    pub const RETRIABLE_HEADERS: RetryOn = RetryOn(1 << 8); // retriable-headers
    pub const ENVOY_RATE_LIMITED: RetryOn = RetryOn(1 << 9); // envoy-ratelimited
    pub const GRPC_CANCELLED: RetryOn = RetryOn(1 << 10); // cancelled
    pub const GRPC_DEADLINE_EXCEEDED: RetryOn = RetryOn(1 << 11); // deadline-exceeded
    pub const GRPC_INTERNAL: RetryOn = RetryOn(1 << 12); // internal
    pub const GRPC_RESOURCE_EXHAUSTED: RetryOn = RetryOn(1 << 13); // resource-exhausted
    pub const GRPC_UNAVAILABLE: RetryOn = RetryOn(1 << 14); // unavailable
    pub const HTTP3_POST_CONNECT_FAILURE: RetryOn = RetryOn(1 << 15); // http3-post-connect-failure

    pub fn has(self, condition: RetryOn) -> bool {
        self.0 & condition.0 != 0
    }

    #[must_use]
    pub fn with(self, condition: RetryOn) -> RetryOn {
        RetryOn(self.0 | condition.0)
    }

    /// One token of `retry_on`; None: unknown.
    pub fn token(token: &str) -> Option<RetryOn> {
        Some(match token {
            "5xx" => Self::SERVER_ERROR,
            "gateway-error" => Self::GATEWAY_ERROR,
            "reset" => Self::RESET,
            "reset-before-request" => Self::RESET_BEFORE_REQUEST,
            "connect-failure" => Self::CONNECT_FAILURE,
            "retriable-4xx" => Self::RETRIABLE_4XX,
            "refused-stream" => Self::REFUSED_STREAM,
            "retriable-status-codes" => Self::RETRIABLE_STATUS_CODES,
            "retriable-headers" => Self::RETRIABLE_HEADERS,
            "envoy-ratelimited" => Self::ENVOY_RATE_LIMITED,
            "cancelled" => Self::GRPC_CANCELLED,
            "deadline-exceeded" => Self::GRPC_DEADLINE_EXCEEDED,
            "internal" => Self::GRPC_INTERNAL,
            "resource-exhausted" => Self::GRPC_RESOURCE_EXHAUSTED,
            "unavailable" => Self::GRPC_UNAVAILABLE,
            "http3-post-connect-failure" => Self::HTTP3_POST_CONNECT_FAILURE,
            _ => return None,
        })
    }
}

/// Exponential with full jitter: uniform in 0..min(base * 2^(n-1), max) (Envoy: base 25 ms, max 10 x base).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    pub base: Duration,
    pub max: Duration,
}

/// How many retries may run at once, as a share of requests (CircuitBreakers.Thresholds.RetryBudget).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// 20.0 by default.
    pub percent: f64,
    /// Allowed whatever the share is: min_retry_concurrency, 3 where a budget is configured that does not say.
    pub retries_min: u32,
    /// Allowed beside the share: 3 where no budget is configured, 0 where one is (ADR 0005).
    pub retries_extra: u32,
    /// Requests and retries are counted over this window.
    pub window: Duration,
}

impl Default for RetryBudget {
    /// Of a cluster for which none is configured.
    fn default() -> Self {
        RetryBudget { percent: 20.0, retries_min: 0, retries_extra: 3, window: Duration::from_secs(10) }
    }
}

impl RetryBudget {
    /// `retry_budget: {}`, with Envoy's defaults.
    pub fn configured() -> Self {
        RetryBudget { retries_min: 3, retries_extra: 0, ..RetryBudget::default() }
    }
}

/// envoy.config.cluster.v3.OutlierDetection with its defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// 0: off. Default 5.
    pub consecutive_5xx: u32,
    /// Percent 0..=100 of detections that eject.
    pub enforcing_consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    /// Local failures (connect, reset, timeout) are counted apart from status codes.
    pub split_external_local_origin_errors: bool,
    pub consecutive_local_origin_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub enforcing_local_origin_success_rate: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    /// None: unset; then at least one host may go (ADR: Envoy's 10 % never ejects one of two).
    pub max_ejection_percent: Option<u32>,
    pub always_eject_one_host: bool,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    /// Thousandths: 1900 is 1.9 standard deviations.
    pub success_rate_stdev_factor: u32,
    pub enforcing_success_rate: u32,
    pub failure_percentage_threshold: u32,
    pub enforcing_failure_percentage: u32,
    pub enforcing_failure_percentage_local_origin: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
    pub successful_active_health_check_uneject_host: bool,
}

/// envoy.config.core.v3.HealthCheck.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    pub timeout: Duration,
    pub interval: Duration,
    pub initial_jitter: Duration,
    pub interval_jitter: Duration,
    pub interval_jitter_percent: u32,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
    pub unhealthy_interval: Duration,
    pub no_traffic_interval: Duration,
    pub reuse_connection: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HealthCheckKind {
    Http {
        host: Box<str>,
        path: Box<str>,
        method: Box<str>,
        request_headers_add: Vec<HeaderEdit>,
        request_headers_remove: Vec<Box<str>>,
        /// Half-open; default 200..201.
        expected_statuses: Vec<StatusRange>,
        retriable_statuses: Vec<StatusRange>,
        service_name: Option<StringMatcher>,
        http2: bool,
    },
    Tcp {
        send: Box<[u8]>,
        /// Each must appear in order.
        receive: Vec<Box<[u8]>>,
    },
}

pub type StatusRange = RangeI64;
