//! Which ends of a try are retriable (`retry_on`). The order and the exceptions are Envoy's.

use crate::{Failure, failure::Side, matching::header};
use corelane_http::{Known, ResponseHead, list::elements};
use corelane_snapshot::{RetryOn, RetryPolicy};

/// Codes that one request may name in x-envoy-retriable-status-codes.
pub const STATUS_CODES_MAX: usize = 8;
/// Names that one request may name in x-envoy-retriable-header-names.
pub const HEADER_NAMES_MAX: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StatusCodes([u16; STATUS_CODES_MAX]);

impl StatusCodes {
    pub fn parse(list: &[u8]) -> StatusCodes {
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let mut codes = StatusCodes::default();
        codes.0.iter_mut().zip(elements(list).filter_map(number)).for_each(|(slot, code)| *slot = code);
        codes
    }

    fn has(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

/// Rare: only requests that name headers pay for the memory.
#[derive(Debug, Default)]
pub(super) struct HeaderNames(Vec<Box<[u8]>>);

impl HeaderNames {
    pub fn parse(list: &[u8]) -> HeaderNames {
        HeaderNames(elements(list).take(HEADER_NAMES_MAX).map(Into::into).collect())
    }
}

pub(super) fn after_failure(on: RetryOn, failure: Failure, request_sent: bool) -> bool {
    // never: what this proxy itself decided, what the client did, and when all time is used up
    if failure.side() != Side::Upstream
        || matches!(failure, Failure::RouteTimeout | Failure::UpstreamDurationMax)
    {
        return false;
    }
    // "5xx ... or does not respond at all (disconnect/reset/read timeout). Includes connect-failure and
    // refused-stream"; gateway-error goes along with it in Envoy's router
    let any = RetryOn::SERVER_ERROR.with(RetryOn::GATEWAY_ERROR).with(RetryOn::RESET);
    on.has(any)
        || (on.has(RetryOn::CONNECT_FAILURE) && failure.is_connect())
        || (on.has(RetryOn::RESET_BEFORE_REQUEST) && !request_sent)
        || (on.has(RetryOn::REFUSED_STREAM) && failure == Failure::RefusedStream)
}

pub(super) fn after_response(
    on: RetryOn,
    policy: Option<&RetryPolicy>,
    codes: &StatusCodes,
    names: Option<&HeaderNames>,
    head: &ResponseHead,
) -> bool {
    // a proxy upstream limits the rate: more requests are wanted only where the policy says so
    if head.fields.contains(Known::XEnvoyRateLimited) {
        return on.has(RetryOn::ENVOY_RATE_LIMITED);
    }
    let status = head.status;
    (on.has(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
        || (on.has(RetryOn::GATEWAY_ERROR) && matches!(status, 502..=504))
        || (on.has(RetryOn::RETRIABLE_4XX) && status == 409)
        || (on.has(RetryOn::RETRIABLE_STATUS_CODES)
            && (codes.has(status) || policy.is_some_and(|p| p.retriable_status_codes.contains(&status))))
        || (on.has(RetryOn::RETRIABLE_HEADERS) && has_retriable_header(policy, names, head))
        || grpc(on, head)
}

fn has_retriable_header(
    policy: Option<&RetryPolicy>,
    names: Option<&HeaderNames>,
    head: &ResponseHead,
) -> bool {
    let named = || names.is_some_and(|names| names.0.iter().any(|name| head.fields.get_name(name).is_some()));
    let configured = policy.map_or(&[][..], |policy| &policy.retriable_headers);
    configured.iter().any(|matcher| header::matches_response(matcher, head)) || named()
}

/// A response that is only trailers carries its grpc-status in the head.
fn grpc(on: RetryOn, head: &ResponseHead) -> bool {
    let condition = match head.fields.get(Known::GrpcStatus) {
        Some(b"1") => RetryOn::GRPC_CANCELLED,
        Some(b"4") => RetryOn::GRPC_DEADLINE_EXCEEDED,
        Some(b"8") => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        Some(b"13") => RetryOn::GRPC_INTERNAL,
        Some(b"14") => RetryOn::GRPC_UNAVAILABLE,
        _ => return false,
    };
    on.has(condition)
}
