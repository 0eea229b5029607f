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

/// Why there is no connection: `why` is one word.
pub(crate) fn connect_details(why: &str) -> Details {
    Details::concat(&["upstream_reset_before_response_started{remote_connection_failure|", why, "}"])
}

/// Details where the answer broke off. None: they are those of [`describe`].
pub(crate) fn after_start(failure: Failure) -> Option<Details> {
    Some(match failure {
        Failure::ProtocolError => Details::UPSTREAM_RESET_LATE_PROTOCOL_ERROR,
        Failure::Reset => Details::UPSTREAM_RESET_LATE_REMOTE_RESET,
        Failure::ResetBeforeRequest | Failure::UpstreamTermination => {
            Details::UPSTREAM_RESET_LATE_CONNECTION_TERMINATION
        }
        _ => return None,
    })
}

macro_rules! reset_text {
    ($retried:ident, $reason:literal) => {
        if $retried {
            concat!(
                "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: ",
                $reason
            )
        } else {
            concat!("upstream connect error or disconnect/reset before headers. reset reason: ", $reason)
        }
    };
}

/// The body of the answer: Envoy's texts, which people search for. `retried`: it was not the first try.
pub(crate) fn text(failure: Failure, retried: bool) -> &'static str {
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
            reset_text!(retried, "remote connection failure")
        }
        Failure::ConnectTimeout => reset_text!(retried, "connection timeout"),
        Failure::ResetBeforeRequest | Failure::UpstreamTermination => {
            reset_text!(retried, "connection termination")
        }
        Failure::Reset => reset_text!(retried, "remote reset"),
        Failure::RefusedStream => reset_text!(retried, "remote refused stream reset"),
        Failure::ProtocolError => reset_text!(retried, "protocol error"),
        Failure::Overflow(_) => reset_text!(retried, "overflow"),
    }
}
