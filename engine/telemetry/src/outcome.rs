//! The end of a request or of a TCP connection in one value: it feeds the counters, the access log and outlier detection.

use std::net::SocketAddr;

use crate::block::Block;
use crate::details::Details;
use crate::families::{ClusterStat, EndpointStat, HttpStat, ListenerHttpStat, RouteStat};
use crate::response_flags::ResponseFlags;
use crate::shard::Shard;

/// Which way the traffic goes, seen from the application beside the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// Whose failure it was; outlier detection charges an endpoint with `Upstream` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureSide {
    #[default]
    None,
    Downstream,
    /// The proxy itself or what it was told: no route, denied, limited, drained.
    Local,
    Upstream,
}

/// Points in a request's life, in nanoseconds of the core's monotonic clock; 0 is a point that was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// First byte of the request, or the accept of a TCP connection.
    pub start: u64,
    /// Last byte of the request received.
    pub request_end: u64,
    /// First byte of the last attempt sent upstream.
    pub upstream_tx_start: u64,
    pub upstream_tx_end: u64,
    /// First byte of the response received.
    pub upstream_rx_start: u64,
    pub upstream_rx_end: u64,
    /// First byte of the response sent downstream.
    pub response_start: u64,
    /// Last byte of the response sent, or the close.
    pub end: u64,
}

impl Timings {
    /// From `from` to `to` in nanoseconds; `None` where one of them was not reached.
    pub fn between(from: u64, to: u64) -> Option<u64> {
        (from > 0 && to > 0).then(|| to.saturating_sub(from))
    }

    /// `%DURATION%`: first byte in to last byte out, in nanoseconds.
    pub fn total(&self) -> Option<u64> {
        Self::between(self.start, self.end)
    }

    /// `%REQUEST_DURATION%`: first byte in to last byte in.
    pub fn request(&self) -> Option<u64> {
        Self::between(self.start, self.request_end)
    }

    /// `%REQUEST_TX_DURATION%`: first byte in to last byte sent upstream.
    pub fn request_tx(&self) -> Option<u64> {
        Self::between(self.start, self.upstream_tx_end)
    }

    /// `%RESPONSE_DURATION%`: first byte in to first byte from upstream.
    pub fn response(&self) -> Option<u64> {
        Self::between(self.start, self.upstream_rx_start)
    }

    /// `%RESPONSE_TX_DURATION%`: first byte from upstream to last byte out.
    pub fn response_tx(&self) -> Option<u64> {
        Self::between(self.upstream_rx_start, self.end)
    }

    /// `upstream_rq_time`: last byte sent upstream to last byte from upstream.
    pub fn upstream(&self) -> Option<u64> {
        Self::between(self.upstream_tx_end, self.upstream_rx_end)
    }
}

/// The blocks that a request is charged to; default blocks are charged nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutcomeBlocks {
    pub http: Block<HttpStat>,
    pub listener_http: Block<ListenerHttpStat>,
    /// For routes that have a stat_prefix.
    pub route: Block<RouteStat>,
    /// The cluster that was chosen, whether or not an attempt was made.
    pub cluster: Block<ClusterStat>,
    /// The endpoint of the last attempt.
    pub endpoint: Block<EndpointStat>,
}

/// Exactly one per request, made when its last byte is out or its fate is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Sent downstream; 0 where none was begun.
    pub response_code: u16,
    /// `grpc-status` of a gRPC call, where one was seen.
    pub grpc_status: Option<u8>,
    pub flags: ResponseFlags,
    pub details: Details,
    pub failure_side: FailureSide,
    pub direction: Direction,
    /// Tries made upstream; 0 for a response of our own.
    pub attempts: u16,
    /// Body bytes from downstream, and to it.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Bytes of the last attempt to upstream and from it, heads included.
    pub upstream_bytes_sent: u64,
    pub upstream_bytes_received: u64,
    /// Start of the request in nanoseconds since 1970.
    pub start_unix_ns: u64,
    pub timings: Timings,
    pub upstream_address: Option<SocketAddr>,
    pub upstream_local_address: Option<SocketAddr>,
    /// Place of the endpoint in its cluster, where one was picked.
    pub endpoint_index: Option<u32>,
    pub blocks: OutcomeBlocks,
}

impl Outcome {
    /// 2 for 204; 0 without a response.
    pub fn class(&self) -> u8 {
        (self.response_code / 100).min(9) as u8
    }

    /// A response below 500 that arrived whole and was not made up for a failure; for gRPC, status 0 too.
    pub fn is_success(&self) -> bool {
        let code = (100..500).contains(&self.response_code);
        code && self.failure_side == FailureSide::None && self.grpc_status.unwrap_or(0) == 0
    }

    /// Charges the counters that Envoy charges once per request. What it charges per attempt (`upstream_rq_total`, `upstream_rq_retry`,
    /// timeouts) and per connection is counted where it happens.
    pub fn record(&self, shard: &Shard) {
        let blocks = &self.blocks;
        if self.response_code > 0 {
            shard.inc(blocks.http, HttpStat::DownstreamRqCompleted);
            shard.inc(blocks.listener_http, ListenerHttpStat::DownstreamRqCompleted);
            if let Some((http, listener)) = self.class_stats() {
                shard.inc(blocks.http, http);
                shard.inc(blocks.listener_http, listener);
            }
            // Envoy charges the cluster with the final response alone, its own included once a cluster was chosen.
            shard.inc(blocks.cluster, ClusterStat::UpstreamRqCompleted);
            shard.code(blocks.cluster, ClusterStat::UpstreamRq, self.response_code);
            shard.inc(blocks.route, RouteStat::UpstreamRqCompleted);
            shard.code(blocks.route, RouteStat::UpstreamRq, self.response_code);
        }
        if let Some(total) = self.timings.total() {
            shard.record(blocks.http, HttpStat::DownstreamRqTime, total / 1_000);
        }
        if let Some(upstream) = self.timings.upstream() {
            shard.record(blocks.cluster, ClusterStat::UpstreamRqTime, upstream / 1_000);
            shard.record(blocks.route, RouteStat::UpstreamRqTime, upstream / 1_000);
            shard.record(blocks.endpoint, EndpointStat::RqTime, upstream / 1_000);
        }
    }

    fn class_stats(&self) -> Option<(HttpStat, ListenerHttpStat)> {
        Some(match self.class() {
            1 => (HttpStat::DownstreamRq1xx, ListenerHttpStat::DownstreamRq1xx),
            2 => (HttpStat::DownstreamRq2xx, ListenerHttpStat::DownstreamRq2xx),
            3 => (HttpStat::DownstreamRq3xx, ListenerHttpStat::DownstreamRq3xx),
            4 => (HttpStat::DownstreamRq4xx, ListenerHttpStat::DownstreamRq4xx),
            5 => (HttpStat::DownstreamRq5xx, ListenerHttpStat::DownstreamRq5xx),
            _ => return None,
        })
    }
}
