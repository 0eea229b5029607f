//! What is remembered between the tries of one request, and what follows from each result: for the endpoint
//! (outlier detection), and for the request (again, or not).

use crate::{
    attempt::{Try, TryEnd},
    guard::{Progress, Sent},
    pick,
    prepare::Forward,
    record::Record,
    state::CoreState,
};
use corelane_http::{RequestHead, ResponseHead};
use corelane_snapshot::{Cluster, Endpoint, EndpointId};
use corelane_telemetry::{Block, ClusterOutlierStat};
use corelane_traffic::{
    Failure, breaker, budget,
    outlier::{self, Cause, Ejection, Observation, Outcome},
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

pub(crate) struct Tries {
    /// Of the try under way; 1 is the first.
    pub number: u32,
    tried: Vec<EndpointId>,
    lost_races: u32,
    /// The same endpoint once more, on a fresh connection.
    same: Option<Arc<Endpoint>>,
    active: Option<Arc<Endpoint>>,
    exhausted: bool,
}

impl Tries {
    pub fn new(_state: &CoreState, _forward: &Forward<'_>, _request: &RequestHead) -> Self {
        Tries { number: 0, tried: Vec::new(), lost_races: 0, same: None, active: None, exhausted: false }
    }

    pub fn may_retry(&self) -> bool {
        true
    }

    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    pub fn tried(&self) -> &[EndpointId] {
        &self.tried
    }

    /// Where the next try goes. None: nobody is healthy.
    pub fn next_endpoint(&mut self, cx: &Try<'_>, request: &RequestHead) -> Option<Arc<Endpoint>> {
        self.same.take().or_else(|| pick::endpoint(cx.state, cx.link, cx.forward, request, self))
    }

    pub fn begin(&mut self, cx: &Try<'_>, endpoint: &Arc<Endpoint>) {
        self.done(cx);
        self.number += 1;
        breaker::begin_request(&endpoint.live);
        self.active = Some(endpoint.clone());
    }

    /// The try under way is over, however it ended.
    pub fn done(&mut self, _cx: &Try<'_>) {
        if let Some(endpoint) = self.active.take() {
            breaker::end_request(&endpoint.live);
        }
    }

    /// The try has a connection.
    pub fn connected(&mut self, cx: &Try<'_>, endpoint: &Arc<Endpoint>) {
        let cluster = cx.forward.cluster;
        if self.number == 1 {
            budget::count_request(&cluster.live.budget, &cluster.config.retry_budget, cx.state.now().as_u64());
        }
        observe(cx.state, cluster, endpoint, Observation::ConnectSuccess);
    }

    pub fn judge(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Arc<Endpoint>,
        _request: &RequestHead,
        head: &ResponseHead,
        _progress: &Progress,
    ) -> Verdict {
        observe(cx.state, cx.forward.cluster, endpoint, Observation::Status(head.status));
        record.endpoint_result(cx.state, head.status < 500, false);
        Verdict::Keep
    }

    /// There was no connection to try on.
    pub fn failed(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        _replayable: bool,
        _request: &RequestHead,
    ) -> TryEnd {
        if let Some(observation) = Observation::of_failure(failure) {
            observe(cx.state, cx.forward.cluster, endpoint, observation);
            record.endpoint_result(cx.state, false, failure.is_timeout());
        }
        if self.tried.len() < TRIED_MAX {
            self.tried.push(endpoint.id);
        }
        TryEnd::Failed(failure)
    }

    /// The connection, or time, ran out before a head came.
    pub fn lost(
        &mut self,
        cx: &Try<'_>,
        record: &mut Record,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        lost_race: bool,
        progress: &Progress,
        request: &RequestHead,
    ) -> TryEnd {
        let repeatable = request.method().is_idempotent() || progress.sent.get() == Sent::Nothing;
        if lost_race && repeatable && progress.replayable.get() && self.lost_races < LOST_RACES_MAX {
            // RFC 9110 section 9.2.2, RFC 9112 section 9.3.1: an idle connection was closed while the request was
            // on its way; nobody has answered, and the request may be repeated
            self.lost_races += 1;
            self.number -= 1;
            self.same = Some(endpoint.clone());
            return TryEnd::Again { after: Duration::ZERO };
        }
        self.failed(cx, record, endpoint, failure, progress.replayable.get(), request)
    }
}

fn observe(state: &CoreState, cluster: &Cluster, endpoint: &Endpoint, observation: Observation) {
    let now_ns = state.now().as_u64();
    let ejection = outlier::observe(cluster, endpoint, observation, now_ns, &mut state.rng.borrow_mut());
    count_ejection(state, cluster, ejection);
}

pub(crate) fn count_ejection(state: &CoreState, cluster: &Cluster, ejection: Option<Ejection>) {
    let Some(Ejection { cause, outcome }) = ejection else { return };
    use ClusterOutlierStat as Stat;
    let (detected, enforced) = match cause {
        Cause::Consecutive5xx => (Stat::EjectionsDetectedConsecutive5xx, Stat::EjectionsEnforcedConsecutive5xx),
        Cause::ConsecutiveGateway => {
            (Stat::EjectionsDetectedConsecutiveGatewayFailure, Stat::EjectionsEnforcedConsecutiveGatewayFailure)
        }
        Cause::ConsecutiveLocalOrigin => {
            (Stat::EjectionsDetectedConsecutiveLocalOriginFailure, Stat::EjectionsEnforcedConsecutiveLocalOriginFailure)
        }
        Cause::SuccessRate => (Stat::EjectionsDetectedSuccessRate, Stat::EjectionsEnforcedSuccessRate),
        Cause::LocalOriginSuccessRate => {
            (Stat::EjectionsDetectedLocalOriginSuccessRate, Stat::EjectionsEnforcedLocalOriginSuccessRate)
        }
        Cause::FailurePercentage => (Stat::EjectionsDetectedFailurePercentage, Stat::EjectionsEnforcedFailurePercentage),
        Cause::LocalOriginFailurePercentage => {
            (Stat::EjectionsDetectedLocalOriginFailurePercentage, Stat::EjectionsEnforcedLocalOriginFailurePercentage)
        }
    };
    let block = Block::from_raw(cluster.config.stats.outlier.0);
    state.shard.inc(block, detected);
    match outcome {
        Outcome::Ejected { .. } => {
            state.shard.inc(block, enforced);
            state.shard.inc(block, Stat::EjectionsEnforcedTotal);
        }
        Outcome::OverLimit => state.shard.inc(block, Stat::EjectionsOverflow),
        Outcome::NotEnforced => {}
    }
}

