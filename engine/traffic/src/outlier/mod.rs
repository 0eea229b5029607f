//! Outlier detection: an endpoint that fails where others do not gets no traffic for a while.
//!
//! [`observe`] is called by every core for every result and counts failures in a row in shared atomics, so that
//! "five in a row" means five, whichever cores saw them. [`sweep`] runs once an interval in one place: it lets
//! endpoints back in, compares success rates and forgives old ejections. Reference: Envoy, "Outlier detection".

mod eject;
mod observe;
mod sweep;
#[cfg(test)]
mod tests;

pub use eject::{hosts_ejected_max, uneject};
pub use observe::{Found, observe};
pub use sweep::{SweepReport, sweep};

use crate::Failure;

/// What became of a try or of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The upstream's own response.
    Status(u16),
    /// gRPC: the mapping of a non-OK status to "server error" is the caller's.
    ExternalFailure,
    /// Nothing or nothing complete came back.
    Local(LocalFailure),
    /// A connection was made on which a request follows.
    ConnectSuccess,
    /// A connection was made and that is all there is to see (TCP proxy).
    ConnectSuccessFinal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalFailure {
    Connect,
    Reset,
    Timeout,
}

impl Observation {
    /// None: not the endpoint's doing.
    pub const fn of_failure(failure: Failure) -> Option<Observation> {
        use Failure::*;
        Some(match failure {
            ConnectFailure | TlsHandshake => Observation::Local(LocalFailure::Connect),
            ConnectTimeout | PerTryTimeout | PerTryIdleTimeout | RouteTimeout => {
                Observation::Local(LocalFailure::Timeout)
            }
            ResetBeforeRequest | Reset | UpstreamTermination | RefusedStream => {
                Observation::Local(LocalFailure::Reset)
            }
            ProtocolError => Observation::ExternalFailure,
            _ => return None,
        })
    }
}

/// Which rule detected it; names the `ejections_detected_*` and `ejections_enforced_*` counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGateway,
    ConsecutiveLocalOrigin,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Times this endpoint was ejected and not forgiven, this one included; and until when, in ticks.
    Ejected { times: u32, until_ns: u64 },
    /// The `enforcing_*` percentage let it pass.
    NotEnforced,
    /// `max_ejection_percent` is reached (`ejections_overflow`).
    OverLimit,
}

/// A rule found an outlier. What was done about it is in `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub cause: Cause,
    pub outcome: Outcome,
}
