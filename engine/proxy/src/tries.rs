//! What is remembered between the tries of one request, and what follows from each result: for the endpoint
//! (outlier detection), and for the request (again, or not).

use crate::{
    attempt::{Try, TryEnd},
    connect,
    ejection::count_ejection,
    guard::{Progress, Sent},
    pick,
    prepare::Forward,
    record::Record,
    state::CoreState,
    upstream::Lease,
};
use corelane_http::{Known, Method, RequestHead, ResponseHead};
use corelane_snapshot::{Cluster, Endpoint, EndpointId, RetryPolicy};
use corelane_telemetry::{Block, ClusterHealthCheckStat, HttpStat};
use corelane_traffic::{
    Failure, Side, breaker, health,
    outlier::{self, Observation},
    retry::{
        self, Attempt, DoneReason, End, LostRace, RetryDecision, RetryState, may_repeat_on_fresh_connection,
    },
};
use std::{sync::Arc, time::Duration};

/// Endpoints remembered as tried; later ones are not avoided.
const TRIED_MAX: usize = 16;
/// Fresh connections tried because an idle one was closed under the request.
const LOST_RACES_MAX: u32 = 3;

/// What is done with an upstream's head.
pub(crate) enum Verdict {
    Keep,
    Again { after: Duration },
}

pub(crate) struct Tries<'a> {
    /// Of the try under way; 1 is the first.
    pub number: u32,
    cluster: &'a Cluster,
    policy: Option<&'a RetryPolicy>,
    retry: RetryState,
    tried: Vec<EndpointId>,
    /// Priorities tried, and those of them that are avoided by now, as bits.
    priorities: (u64, u64),
    retries: u32,
    lost_races: u32,
    /// The same endpoint once more, on a fresh connection.
    same: Option<Arc<Endpoint>>,
    /// The try under way is such a one.
    fresh: bool,
    active: Option<Arc<Endpoint>>,
    exhausted: bool,
}

impl<'a> Tries<'a> {
    pub fn new(forward: &'a Forward<'a>, request: &mut RequestHead) -> Self {
        let mut retry = RetryState::new(forward.retry, request, forward.is_internal);
        retry.priority = forward.action.priority;
        for consumed in retry::CONSUMED {
            request.fields.remove(consumed);
        }
        Tries {
            number: 0,
            cluster: forward.cluster,
            policy: forward.retry,
            retry,
            tried: Vec::new(),
            priorities: (0, 0),
            retries: 0,
            lost_races: 0,
            same: None,
            fresh: false,
            active: None,
            exhausted: false,
        }
    }

    pub fn may_retry(&self) -> bool {
        self.retry.may_retry()
    }

    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Whether nothing was begun before it: what lost a race counts here, though it is no attempt.
    pub fn is_first(&self) -> bool {
        self.number == 1 && self.lost_races == 0
    }

    /// Whether an idle connection, which may be closed as the last one was, is no good for this try.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub fn tried(&self) -> &[EndpointId] {
        &self.tried
    }

    /// Bit p: priority p was tried (previous_priorities). 0 where the policy does not ask for it.
    pub fn avoided_priorities(&self) -> u64 {
        self.priorities.1
    }

    /// "update_frequency: How often the priority load should be updated based on previously attempted priorities."
    fn note_priority(&mut self, endpoint: &Endpoint) {
        let Some(frequency) = self.policy.and_then(|policy| policy.avoid_previous_priorities) else { return };
        self.priorities.0 |= 1u64.checked_shl(endpoint.priority).unwrap_or(0);
        self.retries += 1;
        if self.retries.is_multiple_of(frequency.max(1)) {
            self.priorities.1 = self.priorities.0;
        }
    }

    /// Where the next try goes. None: nobody is healthy.
    pub fn next_endpoint(&mut self, cx: &Try<'_>, request: &RequestHead) -> Option<Arc<Endpoint>> {
        let same = self.same.take();
        self.fresh = same.is_some();
        same.or_else(|| pick::endpoint(cx.state, cx.link, cx.forward, request, self))
    }

    pub fn begin(&mut self, endpoint: &Arc<Endpoint>) {
        self.end_active();
        self.number += 1;
        breaker::begin_request(&endpoint.live);
        self.active = Some(endpoint.clone());
    }

    fn end_active(&mut self) {
        if let Some(endpoint) = self.active.take() {
            breaker::end_request(&endpoint.live);
        }
    }

    /// The try has a connection.
    pub fn connected(&mut self, cx: &Try<'_>, endpoint: &Endpoint) {
        self.retry.on_sent(self.cluster, cx.state.now().as_u64());
        if self.cluster.config.outlier.is_some() {
            observe(cx.state, self.cluster, endpoint, Observation::ConnectSuccess);
        }
    }

    /// A head has come: for good, or to be tried again.
    pub fn judge(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Arc<Endpoint>,
        head: &ResponseHead,
        progress: &Progress<'_>,
    ) -> Verdict {
        observe(cx.state, self.cluster, endpoint, observation_of(head));
        // the cluster's checks let it in again
        if !self.cluster.config.health_checks.is_empty()
            && head.fields.contains(Known::XEnvoyImmediateHealthCheckFail)
        {
            let stats = Block::from_raw(self.cluster.config.stats.health_check.0);
            cx.state.shard.inc(stats, ClusterHealthCheckStat::PassiveFailure);
            health::fail_endpoint(&self.cluster.live, &endpoint.live);
        }
        record.endpoint_result(cx.state, head.status < 500, false);
        let attempt = Attempt {
            end: End::Response(head),
            request_sent: true,
            response_begun: false,
            body_replayable: progress.replayable.get(),
        };
        match self.decide(cx, record, endpoint, &attempt) {
            Some(after) => {
                record.retried_status(cx.state, head.status);
                Verdict::Again { after }
            }
            None => Verdict::Keep,
        }
    }

    /// No head came: the connection failed, or time ran out.
    pub fn failed(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        progress: &Progress<'_>,
    ) -> TryEnd {
        if let Some(observation) = Observation::of_failure(failure) {
            observe(cx.state, self.cluster, endpoint, observation);
            record.endpoint_result(cx.state, false, failure.is_timeout());
        }
        record.attempt_failed(cx.state, failure);
        let attempt = Attempt {
            end: End::Failed(failure),
            request_sent: progress.sent.get() != Sent::Nothing,
            response_begun: false,
            body_replayable: progress.replayable.get(),
        };
        match self.decide(cx, record, endpoint, &attempt) {
            Some(after) => TryEnd::Again { after },
            None => TryEnd::Failed(failure),
        }
    }

    /// As [`Tries::failed`], on a connection: one that was idle may have been closed in the moment it was chosen.
    #[allow(clippy::too_many_arguments)]
    pub fn lost(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        lease: &Lease,
        progress: &Progress<'_>,
        method: Method,
    ) -> TryEnd {
        lease.broke_off(failure);
        if failure == Failure::TlsHandshake {
            connect::refused(cx.state, self.cluster, endpoint);
        }
        let failure = lease.as_seen(progress.as_seen(failure), progress.heard.get());
        let race = LostRace {
            failure,
            reused: lease.is_reused(),
            request_sent: progress.sent.get() != Sent::Nothing,
            response_seen: progress.heard.get(),
            body_replayable: progress.replayable.get(),
        };
        if self.lost_races < LOST_RACES_MAX && may_repeat_on_fresh_connection(&race, method) {
            self.lost_races += 1;
            self.number -= 1;
            record.lost_race();
            self.same = Some(endpoint.clone());
            return TryEnd::Again { after: Duration::ZERO };
        }
        self.failed(cx, record, endpoint, failure, progress)
    }

    /// The answer was not passed on whole: too late for another try, not for learning from it. `shown`: the client has
    /// a part of it. As what it is told.
    pub fn broke_off(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Endpoint,
        lease: &Lease,
        failure: Failure,
        shown: bool,
    ) -> Failure {
        lease.broke_off(failure);
        let failure = lease.as_seen(failure, true);
        if let Some(observation) = Observation::of_failure(failure) {
            observe(cx.state, self.cluster, endpoint, observation);
        }
        if shown && failure.side() == Side::Upstream {
            let http = Block::from_raw(cx.hcm.stats.http.0);
            cx.state.shard.inc(http, HttpStat::RqResetAfterDownstreamResponseStarted);
        }
        record.attempt_failed(cx.state, failure);
        failure
    }

    fn decide(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Endpoint,
        attempt: &Attempt<'_>,
    ) -> Option<Duration> {
        let now_ns = cx.state.now().as_u64();
        let rng = &mut cx.state.rng.borrow_mut();
        let reason = match self.retry.decide(self.policy, attempt, self.cluster, now_ns, rng) {
            RetryDecision::Retry { after_ns } => {
                if self.tried.len() < TRIED_MAX {
                    self.tried.push(endpoint.id);
                }
                self.note_priority(endpoint);
                record.retry(cx.state, after_ns > 0);
                return Some(Duration::from_nanos(after_ns));
            }
            RetryDecision::Done(reason) => reason,
        };
        self.exhausted = reason == DoneReason::LimitExceeded;
        let answered = matches!(attempt.end, End::Response(_));
        record.no_retry(cx.state, reason, self.number > 1 && answered);
        None
    }
}

impl Drop for Tries<'_> {
    fn drop(&mut self) {
        self.end_active();
        self.retry.finish(&self.cluster.live);
    }
}

/// gRPC failures come as 200 with a status in the head (trailers-only).
fn observation_of(head: &ResponseHead) -> Observation {
    let Some(status) = head.fields.get(Known::GrpcStatus) else { return Observation::Status(head.status) };
    match status {
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's doing
        b"2" | b"4" | b"13" | b"14" | b"15" => Observation::ExternalFailure,
        _ => Observation::Status(head.status),
    }
}

fn observe(state: &CoreState, cluster: &Cluster, endpoint: &Endpoint, observation: Observation) {
    let now_ns = state.now().as_u64();
    let found = outlier::observe(cluster, endpoint, observation, now_ns, &mut state.rng.borrow_mut());
    for ejection in found.into_iter().flatten() {
        count_ejection(&state.shard, cluster, ejection);
    }
}
