//! What a request has of an upstream connection, and what is told of the connection when the request is over.

use super::{Answer, streams::Stream};
use crate::{conn::Conn, pool::UpstreamConn, state::CoreState};
use corelane_http::{BodyFraming, Version};
use corelane_telemetry::ClusterStat;
use corelane_traffic::Failure;
use std::rc::Rc;

/// What is given back, or closed, when the request is over.
pub(crate) enum Lease {
    H1(UpstreamConn),
    H2(Rc<Stream>),
}

impl Lease {
    pub fn conn(&self) -> &Rc<Conn> {
        match self {
            Lease::H1(upstream) => &upstream.conn,
            Lease::H2(stream) => stream.conn(),
        }
    }

    pub fn version(&self) -> Version {
        match self {
            Lease::H1(_) => Version::H11,
            Lease::H2(_) => Version::H2,
        }
    }

    /// The connection has carried a request before: it may have been closed in the very moment it was chosen.
    pub fn is_reused(&self) -> bool {
        match self {
            Lease::H1(upstream) => upstream.is_reused(),
            Lease::H2(stream) => stream.is_reused(),
        }
    }

    /// Why the connection, if it was the request's alone, goes no further.
    pub fn broke_off(&self, failure: Failure) {
        use Failure::{RefusedStream, Reset, ResetBeforeRequest, TlsHandshake, UpstreamTermination};
        let by_peer = matches!(
            failure,
            Reset | RefusedStream | UpstreamTermination | ResetBeforeRequest | TlsHandshake
        );
        if let (Lease::H1(upstream), true) = (self, by_peer) {
            upstream.closed_by_peer();
        }
    }

    /// HTTP/1 tells the end of a message by its framing: to Envoy's codec what ends early is malformed.
    pub fn as_seen(&self, failure: Failure, begun: bool) -> Failure {
        match (self, failure) {
            (Lease::H1(_), Failure::Reset | Failure::UpstreamTermination) if begun => Failure::ProtocolError,
            _ => failure,
        }
    }

    /// The response is whole. A connection that the upstream does not keep is not busy when it ends.
    pub fn answered(&self, answer: &Answer) {
        let Lease::H1(upstream) = self else { return };
        upstream.rested();
        if answer.framing == BodyFraming::UntilClose {
            upstream.closed_by_peer();
        } else if !answer.keep_alive {
            upstream.count(ClusterStat::UpstreamCxCloseNotify);
        }
    }

    /// What went through as a tunnel, which is at its end.
    pub fn carried(&self, state: &CoreState, up: u64, down: u64, by_peer: bool) {
        let Lease::H1(upstream) = self else { return };
        upstream.rested();
        upstream.relayed(state, up, down, by_peer);
    }

    /// Back to the pool, where nothing was sent on it.
    pub fn give_back_unused(self, state: &CoreState) {
        if let Lease::H1(upstream) = &self {
            upstream.rested();
        }
        self.give_back(state);
    }

    /// Back to the pool; only after a whole response to a whole request.
    pub fn give_back(self, state: &CoreState) {
        match self {
            Lease::H1(mut upstream) => {
                upstream.requests += 1;
                state.pool.put(state.now(), upstream);
            }
            // the connection was never taken
            Lease::H2(stream) => drop(stream),
        }
    }
}
