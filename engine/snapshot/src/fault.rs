//! envoy.extensions.filters.http.fault.v3.HTTPFault.

use crate::{ClusterId, Fraction, HeaderMatcher};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    /// All must match, or the fault stays off.
    pub headers: Vec<HeaderMatcher>,
    /// Only for requests to this cluster (upstream_cluster).
    pub upstream_cluster: Option<ClusterId>,
    pub downstream_nodes: Vec<String>,
    /// Faults at once over all cores; further requests pass untouched and are counted.
    pub active_max: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultDelay {
    /// None: from the x-envoy-fault-delay-request header.
    pub fixed: Option<Duration>,
    pub fraction: Fraction,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultAbort {
    Http {
        status: u16,
        fraction: Fraction,
    },
    Grpc {
        status: u32,
        fraction: Fraction,
    },
    /// From x-envoy-fault-abort-request and -grpc-request.
    Header {
        fraction: Fraction,
    },
}
