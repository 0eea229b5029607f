//! What a failure looks like from outside: the text of the answer, and Envoy's flags and details for logs.

use corelane_telemetry::{Details, FailureSide, ResponseFlags};
use corelane_traffic::{Failure, Side};

/// Details and flags as access logs show them.
pub(crate) fn describe(failure: Failure) -> (Details, ResponseFlags) {
    (Details::new(failure.details()), flags(failure))
}

fn flags(failure: Failure) -> ResponseFlags {
    let short = failure.response_flag();
    let known = ResponseFlags::TABLE.iter().find(|(_, name, _)| *name == short);
    known.map_or(ResponseFlags::NONE, |(flag, ..)| *flag)
}

pub(crate) fn side(failure: Failure) -> FailureSide {
    match failure.side() {
        Side::Downstream => FailureSide::Downstream,
        Side::Local => FailureSide::Local,
        Side::Upstream => FailureSide::Upstream,
    }
}

/// The body of the answer: Envoy's texts, which people search for.
pub(crate) fn text(failure: Failure) -> &'static str {
    match failure {
        Failure::NoHealthyUpstream => "no healthy upstream",
        Failure::NoCluster | Failure::NoRoute => "",
        Failure::PerTryTimeout | Failure::PerTryIdleTimeout | Failure::RouteTimeout => {
            "upstream request timeout"
        }
        Failure::UpstreamDurationMax => "upstream max stream duration reached",
        Failure::StreamIdleTimeout => "stream timeout",
        Failure::RequestTimeout => "request timeout",
        Failure::PayloadTooLarge => "Payload Too Large",
        Failure::Denied => "RBAC: access denied",
        Failure::RateLimited => "local_rate_limited",
        Failure::FaultAbort => "fault filter abort",
        Failure::DurationMax => "downstream duration timeout",
        Failure::DownstreamProtocolError | Failure::DownstreamDisconnect => "",
        Failure::Overloaded => "envoy overloaded",
        Failure::DnsFailure => "dns resolution failure",
        Failure::ConnectFailure | Failure::TlsHandshake => {
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        }
        Failure::ConnectTimeout => {
            "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
        }
        Failure::ResetBeforeRequest | Failure::UpstreamTermination => {
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        }
        Failure::Reset => {
            "upstream connect error or disconnect/reset before headers. reset reason: remote reset"
        }
        Failure::RefusedStream => {
            "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset"
        }
        Failure::ProtocolError => {
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
        }
        Failure::Overflow(_) => {
            "upstream connect error or disconnect/reset before headers. reset reason: overflow"
        }
    }
}
