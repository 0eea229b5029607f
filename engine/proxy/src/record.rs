//! What is noted of a request on its way, and written once at its end: counters, latencies, the access log.
//! Exactly one record per request, finished by `exchange`.

use crate::{
    conn::Conn,
    exchange::LocalReply,
    failure, grpc,
    guard::Progress,
    link::Link,
    prepare::Matched,
    render,
    reply::Reply,
    state::CoreState,
    upstream::{Answer, BodyIn, Lease, ReceiveHalf},
};
use corelane_http::{Fields, Known, RequestHead, ResponseHead, Version};
use corelane_runtime::Nanos;
use corelane_snapshot::{Cluster, Endpoint, HttpConnectionManager, TrafficDirection};
use corelane_telemetry::{
    Block, ClusterStat, Details, Direction, EndpointStat, FailureSide, FaultStat, HopStat, HttpStat, Outcome,
    ResponseFlags, RouteStat,
};
use corelane_traffic::{Failure, Side, breaker::Limit, fault, retry::DoneReason};
use std::{rc::Rc, sync::Arc, time::Duration};

pub(crate) struct Record {
    state: Rc<CoreState>,
    finished: bool,
    pub outcome: Outcome,
    /// A delay that fault injection asks for before the request goes on.
    pub fault_delay: Option<FaultDelay>,
    /// For the access log only, where there is one.
    pub logged: Option<Box<Logged>>,
    cluster: Block<ClusterStat>,
    endpoint: Option<Arc<Endpoint>>,
    /// Of sampled requests: when they came, were sent on, and were answered, by the exact clock.
    sampled: Option<Sampled>,
    /// Bytes from and to downstream through an upgraded stream.
    tunnel: (u64, u64),
    /// The try that follows is the one before, on a fresh connection.
    repeats: bool,
    /// The try under way is among the requests sent.
    is_counted: bool,
    /// It has a connection, and is among the active ones.
    is_active: bool,
    /// The try's connection is HTTP/2.
    is_multiplexed: bool,
    grpc: Option<grpc::Call>,
}

#[derive(Clone, Copy)]
struct Sampled {
    start: Nanos,
    sent: Nanos,
    heard: Nanos,
}

/// Fault injection holds the request back; counted as active while it does.
pub(crate) struct FaultDelay {
    pub length: Duration,
    state: Rc<CoreState>,
    stats: Block<FaultStat>,
}

impl Drop for FaultDelay {
    fn drop(&mut self) {
        self.state.shard.gauge_sub(self.stats, FaultStat::ActiveFaults, 1);
        fault::end(&self.state.shared.faults_active);
    }
}

/// What an access log may show beyond the outcome.
#[derive(Default)]
pub(crate) struct Logged {
    pub response: Option<Box<ResponseHead>>,
    pub route: String,
    pub cluster: String,
    /// The configured name of the last endpoint, where it has one.
    pub endpoint: String,
    /// Of the answer, where it has any.
    pub trailers: Option<Fields>,
    /// On the wire from and to downstream, heads and framing included.
    pub wire_bytes: (u64, u64),
    /// What carried the last try, where that was TLS.
    pub upstream: Option<Rc<Conn>>,
    pub upstream_version: Version,
    /// Why the last handshake with an endpoint failed.
    pub transport_failure: String,
}

impl Record {
    pub fn start(
        state: &Rc<CoreState>,
        link: &Link,
        hcm: &HttpConnectionManager,
        head: &RequestHead,
    ) -> Self {
        let now = state.now();
        let http = Block::from_raw(hcm.stats.http.0);
        state.shard.inc(http, HttpStat::DownstreamRqTotal);
        state.shard.gauge_add(http, HttpStat::DownstreamRqActive, 1);
        let by_version = if head.version == Version::H2 {
            HttpStat::DownstreamRqHttp2Total
        } else {
            HttpStat::DownstreamRqHttp1Total
        };
        state.shard.inc(http, by_version);
        let mut outcome = Outcome {
            direction: match link.listener.direction {
                TrafficDirection::Unspecified => Direction::Unspecified,
                TrafficDirection::Inbound => Direction::Inbound,
                TrafficDirection::Outbound => Direction::Outbound,
            },
            ..Outcome::default()
        };
        outcome.timings.start = now.as_u64();
        outcome.blocks.http = http;
        outcome.blocks.listener_http = Block::from_raw(hcm.stats.listener_http.0);
        let logged = (!hcm.access_log.is_empty()).then(|| {
            outcome.start_unix_ns = state.core.clock().unix_nanos();
            Box::new(Logged { wire_bytes: (head_wire_bytes(head), 0), ..Logged::default() })
        });
        let sampled = state.added_time.borrow_mut().pick().then(|| {
            let start = state.core.clock().now_exact();
            Sampled { start, sent: start, heard: start }
        });
        Record {
            state: state.clone(),
            finished: false,
            outcome,
            fault_delay: None,
            logged,
            cluster: Block::default(),
            endpoint: None,
            sampled,
            tunnel: (0, 0),
            grpc: hcm.filters.grpc_stats.as_deref().and_then(|stats| grpc::Call::of(stats, head)),
            repeats: false,
            is_counted: false,
            is_active: false,
            is_multiplexed: false,
        }
    }

    /// A fault is under way until what this returns is dropped.
    pub fn fault(&self, stats: Block<FaultStat>, length: Duration) -> FaultDelay {
        self.state.shard.gauge_add(stats, FaultStat::ActiveFaults, 1);
        FaultDelay { length, state: self.state.clone(), stats }
    }

    pub fn matched(&mut self, matched: &Matched<'_>) {
        self.outcome.blocks.route = Block::from_raw(matched.route.stats.0);
        if let Some(logged) = &mut self.logged {
            logged.route.push_str(&matched.route.name);
            logged.cluster.push_str(matched.cluster.map_or("", |cluster| &cluster.config.name));
        }
    }

    pub fn cluster(&mut self, cluster: &Cluster) {
        self.cluster = Block::from_raw(cluster.config.stats.cluster.0);
        self.outcome.blocks.cluster = self.cluster;
        if let Some(call) = &mut self.grpc {
            call.cluster = Some(cluster.config.id);
        }
    }

    /// A circuit breaker refused the request.
    pub fn overflow(&mut self, state: &CoreState, limit: Limit) {
        let stat = match limit {
            Limit::Requests => ClusterStat::UpstreamRqActiveOverflow,
            Limit::Pending => ClusterStat::UpstreamRqPendingOverflow,
            Limit::Retries => ClusterStat::UpstreamRqRetryOverflow,
            Limit::Connections => ClusterStat::UpstreamCxOverflow,
        };
        state.shard.inc(self.cluster, stat);
        // Envoy's router counts the attempt before the pool refuses it
        self.outcome.attempts = self.outcome.attempts.max(1);
    }

    /// A try begins at this endpoint.
    pub fn attempt(&mut self, state: &CoreState, endpoint: &Arc<Endpoint>) {
        self.end_attempt(state);
        self.is_counted = std::mem::take(&mut self.repeats);
        self.outcome.attempts += u16::from(!self.is_counted);
        self.outcome.blocks.endpoint = Block::from_raw(endpoint.stats.0);
        if let Some(logged) = &mut self.logged {
            logged.endpoint.clear();
            logged.endpoint.push_str(&endpoint.hostname);
        }
        self.outcome.upstream_address = Some(endpoint.address);
        self.outcome.timings.upstream_rx_start = 0;
        self.outcome.timings.upstream_rx_end = 0;
        self.endpoint = Some(endpoint.clone());
    }

    /// The connection was closed in the moment it was chosen: the endpoint has not been tried.
    pub fn lost_race(&mut self) {
        self.repeats = true;
    }

    fn end_attempt(&mut self, state: &CoreState) {
        self.endpoint = None;
        if std::mem::take(&mut self.is_active) {
            state.shard.gauge_sub(self.cluster, ClusterStat::UpstreamRqActive, 1);
            state.shard.gauge_sub(self.outcome.blocks.endpoint, EndpointStat::RqActive, 1);
        }
    }

    /// The try has a connection. Only now it counts as a request, as in Envoy's pool (`attachStreamToClient`).
    pub fn connected(&mut self, state: &CoreState, lease: &Lease) {
        let (shard, endpoint) = (&state.shard, self.outcome.blocks.endpoint);
        if !std::mem::replace(&mut self.is_counted, true) {
            shard.inc(self.cluster, ClusterStat::UpstreamRqTotal);
            shard.inc(self.outcome.blocks.route, RouteStat::UpstreamRqTotal);
            shard.inc(endpoint, EndpointStat::RqTotal);
        }
        self.is_active = true;
        self.is_multiplexed = lease.version() == Version::H2;
        shard.gauge_add(self.cluster, ClusterStat::UpstreamRqActive, 1);
        shard.gauge_add(endpoint, EndpointStat::RqActive, 1);
        self.outcome.timings.upstream_tx_start = state.now().as_u64();
        if let Some(sampled) = &mut self.sampled {
            sampled.sent = state.core.clock().now_exact();
            sampled.heard = sampled.sent;
        }
        if let Some(logged) = &mut self.logged {
            logged.upstream_version = lease.version();
            logged.upstream = lease.conn().tls().is_some().then(|| lease.conn().clone());
            self.outcome.upstream_local_address = lease.conn().local_addr();
        }
    }

    pub fn none_healthy(&mut self, state: &CoreState) {
        state.shard.inc(self.cluster, ClusterStat::UpstreamCxNoneHealthy);
        // as for a request that a breaker refuses
        self.outcome.attempts = self.outcome.attempts.max(1);
    }

    /// The final head of the last try has come.
    pub fn answered(&mut self, state: &CoreState, answer: &Answer, progress: &Progress<'_>) {
        let sent_at = progress.sent_at.get();
        self.outcome.upstream_bytes_sent = progress.wire_bytes.get();
        let timings = &mut self.outcome.timings;
        timings.upstream_rx_start = state.now().as_u64();
        timings.upstream_tx_end = sent_at.as_u64();
        timings.request_end = sent_at.as_u64();
        if let Some(sampled) = &mut self.sampled {
            sampled.heard = state.core.clock().now_exact();
        }
        self.outcome.upstream_bytes_received = answer.wire_bytes;
        self.outcome.details = Details::VIA_UPSTREAM;
    }

    /// What the endpoint made of a try, for its own counters.
    pub fn endpoint_result(&mut self, state: &CoreState, success: bool, timeout: bool) {
        let block = self.outcome.blocks.endpoint;
        state.shard.inc(block, if success { EndpointStat::RqSuccess } else { EndpointStat::RqError });
        if timeout {
            state.shard.inc(block, EndpointStat::RqTimeout);
        }
    }

    /// A try failed without an answer.
    pub fn attempt_failed(&mut self, state: &CoreState, failure: Failure) {
        let stat = match failure {
            Failure::PerTryTimeout => ClusterStat::UpstreamRqPerTryTimeout,
            Failure::PerTryIdleTimeout => ClusterStat::UpstreamRqPerTryIdleTimeout,
            Failure::RouteTimeout => {
                state.shard.inc(self.outcome.blocks.route, RouteStat::UpstreamRqTimeout);
                ClusterStat::UpstreamRqTimeout
            }
            Failure::UpstreamDurationMax => ClusterStat::UpstreamRqMaxDurationReached,
            Failure::ProtocolError => ClusterStat::UpstreamCxProtocolError,
            Failure::ConnectFailure | Failure::ConnectTimeout | Failure::TlsHandshake => {
                ClusterStat::UpstreamRqPendingFailureEject
            }
            // Envoy counts these in its pool for multiplexed connections alone (`MultiplexedActiveClientBase::
            // onStreamReset`): HTTP/1 has no stream to reset
            Failure::Reset if self.is_multiplexed => ClusterStat::UpstreamRqRxReset,
            Failure::UpstreamTermination | Failure::ResetBeforeRequest if self.is_multiplexed => {
                ClusterStat::UpstreamRqPendingFailureEject
            }
            _ if failure.side() == Side::Upstream => return,
            // not the endpoint's doing: what it was sent is called back
            _ => return self.called_back(state),
        };
        state.shard.inc(self.cluster, stat);
        if let (Failure::TlsHandshake | Failure::ConnectFailure, Some(logged)) = (failure, &mut self.logged) {
            let endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.id);
            logged.transport_failure.clear();
            logged.transport_failure.push_str(state.transport_failure.borrow().of(endpoint));
        }
        if failure.is_timeout() || failure == Failure::UpstreamDurationMax {
            self.called_back(state);
        }
    }

    /// A request that is under way upstream is reset by us.
    pub fn called_back(&self, state: &CoreState) {
        if self.is_active {
            state.shard.inc(self.cluster, ClusterStat::UpstreamRqTxReset);
        }
    }

    pub fn retry(&mut self, state: &CoreState, backed_off: bool) {
        self.end_attempt(state);
        // it closes now, not when the next one is there
        if let Some(logged) = &mut self.logged {
            logged.upstream = None;
        }
        state.shard.inc(self.cluster, ClusterStat::UpstreamRqRetry);
        state.shard.inc(self.outcome.blocks.route, RouteStat::UpstreamRqRetry);
        if backed_off {
            state.shard.inc(self.cluster, ClusterStat::UpstreamRqRetryBackoffExponential);
        }
    }

    /// An answer that is not passed on, because the request is tried again.
    pub fn retried_status(&mut self, state: &CoreState, status: u16) {
        state.shard.inc(self.cluster, ClusterStat::RetryUpstreamRqCompleted);
        state.shard.code(self.cluster, ClusterStat::RetryUpstreamRq, status);
    }

    /// Why there is no further try. `after_retry`: this one was a retry itself, and was answered.
    pub fn no_retry(&mut self, state: &CoreState, reason: DoneReason, after_retry: bool) {
        let (cluster, route) = match reason {
            DoneReason::NotRetriable if after_retry => {
                (ClusterStat::UpstreamRqRetrySuccess, RouteStat::UpstreamRqRetrySuccess)
            }
            DoneReason::LimitExceeded => {
                (ClusterStat::UpstreamRqRetryLimitExceeded, RouteStat::UpstreamRqRetryLimitExceeded)
            }
            DoneReason::BreakerOpen | DoneReason::BudgetExhausted => {
                (ClusterStat::UpstreamRqRetryOverflow, RouteStat::UpstreamRqRetryOverflow)
            }
            DoneReason::BodyTooLarge => {
                return state.shard.inc(self.cluster, ClusterStat::RetryOrShadowAbandoned);
            }
            DoneReason::NotRetriable | DoneReason::ResponseBegun => return,
        };
        state.shard.inc(self.cluster, cluster);
        state.shard.inc(self.outcome.blocks.route, route);
        // Envoy's router: RetryStatus::NoRetryLimitExceeded and NoOverflow, whether an answer or a failure is shown
        self.outcome.flags |= match reason {
            DoneReason::LimitExceeded => ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED,
            DoneReason::BreakerOpen | DoneReason::BudgetExhausted => ResponseFlags::UPSTREAM_OVERFLOW,
            _ => ResponseFlags::NONE,
        };
    }

    /// The answer has gone downstream whole.
    pub fn relayed(&mut self, state: &CoreState, body: &ReceiveHalf) {
        self.outcome.timings.upstream_rx_end = state.now().as_u64();
        self.outcome.upstream_bytes_received += body.received();
        if let Some(call) = &mut self.grpc {
            call.answered_messages = body.messages();
        }
        if let Some(trailers) = body.trailers() {
            self.grpc_status(trailers);
            if let Some(logged) = self.logged.as_mut().filter(|_| !trailers.is_empty()) {
                logged.trailers = Some(trailers.clone());
            }
        }
    }

    /// What went through an upgraded stream.
    pub fn carried(&mut self, up: u64, down: u64) {
        self.tunnel = (up, down);
    }

    /// The head that goes downstream, as it goes.
    pub fn response_head(&mut self, state: &CoreState, head: &ResponseHead) {
        self.outcome.response_code = head.status;
        self.outcome.timings.response_start = state.now().as_u64();
        self.grpc_status(&head.fields);
        if let Some(logged) = &mut self.logged {
            logged.response = Some(Box::new(head.clone()));
        }
    }

    /// In the trailers of a gRPC answer, or in the head of one that has nothing else.
    fn grpc_status(&mut self, fields: &Fields) {
        if let Some(status) = fields.get(Known::GrpcStatus) {
            self.outcome.grpc_status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        }
    }

    pub fn local(&mut self, local: &LocalReply) {
        self.outcome.details = local.details;
        self.outcome.flags |= local.flags;
        if self.outcome.failure_side == FailureSide::None && local.status >= 500 {
            self.outcome.failure_side = FailureSide::Local;
        }
    }

    /// No further try is made.
    pub fn failed(&mut self, reason: Failure, retries_exhausted: bool) {
        let (details, flags) = failure::describe(reason);
        self.outcome.details = details;
        self.outcome.flags |= flags;
        self.outcome.failure_side = failure::side(reason);
        if retries_exhausted {
            self.outcome.flags |= ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        }
    }

    /// More than [`Record::failed`] knows: whether the answer had begun, and why there was no connection.
    pub fn say_how(&mut self, reason: Failure, begun: bool) {
        if begun {
            self.outcome.details = failure::after_start(reason).unwrap_or(self.outcome.details);
        } else if reason == Failure::ConnectFailure {
            let why = self.state.transport_failure.borrow();
            let endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.id);
            let why = Some(why.of(endpoint)).filter(|why| !why.is_empty());
            self.outcome.details = why.map_or(self.outcome.details, failure::connect_details);
        }
    }

    /// A policy refused the request.
    pub fn denied(&mut self) {
        self.outcome.failure_side = FailureSide::Local;
    }

    pub fn downstream_gone(&mut self) {
        self.failed(Failure::DownstreamDisconnect, false);
    }

    pub fn finish(
        &mut self,
        state: &CoreState,
        link: &Link,
        hcm: &HttpConnectionManager,
        request: &RequestHead,
        body: &BodyIn,
        reply: &Reply,
    ) {
        self.finished = true;
        self.end_attempt(state);
        let shard = &state.shard;
        self.outcome.timings.end = state.now().as_u64();
        self.outcome.bytes_received = body.received() + self.tunnel.0;
        self.outcome.bytes_sent = reply.body_bytes() + self.tunnel.1;
        shard.gauge_sub(self.outcome.blocks.http, HttpStat::DownstreamRqActive, 1);
        self.outcome.record(shard);
        if let Some(call) = &self.grpc {
            call.count(state, &self.outcome, body.messages());
        }
        if let Some(sampled) = self.sampled {
            let hop = Block::from_raw(hcm.stats.hop.0);
            let end = state.core.clock().now_exact();
            let added = sampled.sent.since(sampled.start) + end.since(sampled.heard);
            shard.inc(hop, HopStat::RequestsSampled);
            shard.record(hop, HopStat::AddedTimeUs, added.as_micros() as u64);
        }
        if let Some(logged) = &mut self.logged {
            logged.wire_bytes.0 += self.outcome.bytes_received;
            logged.wire_bytes.1 = match reply {
                Reply::H1(_) => reply.wire_bytes() + self.tunnel.1,
                // a connection counts for all its streams: what a stream's own is without compression
                Reply::H2(_) => self.outcome.bytes_sent + response_bytes(logged),
            };
            render::access_log(state, link, hcm, request, self);
            if let Some(response) = self.logged.as_mut().and_then(|logged| logged.response.take()) {
                state.keep_response_head(response);
            }
        }
    }
}

/// Of a head as it came. HTTP/2 compresses: there it is what the fields say.
fn head_wire_bytes(head: &RequestHead) -> u64 {
    let target = head.authority().len() + head.path().len() + head.method_bytes().len();
    let fields = head.fields.total_bytes() + target;
    if head.version == Version::H2 {
        return (fields + head.scheme().len()) as u64;
    }
    // "GET / HTTP/1.1", "host: a", ": " and line ends
    let line = "  HTTP/1.1\r\n".len() + "host: \r\n".len() + "\r\n".len();
    (fields + line + head.fields.count() * ": \r\n".len()) as u64
}

fn response_bytes(logged: &Logged) -> u64 {
    logged.response.as_ref().map_or(0, |head| head.fields.total_bytes() as u64)
}

impl Drop for Record {
    /// A request whose task ended in the middle (the core stops, or a panic was caught) is under way no more.
    fn drop(&mut self) {
        if !self.finished {
            let state = self.state.clone();
            self.end_attempt(&state);
            state.shard.gauge_sub(self.outcome.blocks.http, HttpStat::DownstreamRqActive, 1);
        }
    }
}
