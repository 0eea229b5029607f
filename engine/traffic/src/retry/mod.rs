//! Another try or not. One [`RetryState`] a request; [`RetryState::decide`] is asked after each try that may be
//! retried, before any byte of its response is passed on. Reference: Envoy, "Router", x-envoy-retry-on and
//! following.
//!
//! The order of the questions decides what is counted: would the policy retry this, are retries left, can the body
//! be sent again, is the breaker closed, is there budget. Nothing is taken unless all say yes.

mod back_off;
mod conditions;
mod replay;
#[cfg(test)]
mod tests;

pub use conditions::{HEADER_NAMES_MAX, STATUS_CODES_MAX};
pub use replay::{LostRace, may_repeat_on_fresh_connection};

use crate::{Failure, Rng, breaker, breaker::Limit, budget, matching::header};
use conditions::{HeaderNames, StatusCodes};
use corelane_http::{Known, RequestHead, ResponseHead, list::elements};
use corelane_snapshot::{Cluster, RetryOn, RetryPolicy, RoutingPriority, live::ClusterLive};

/// Retries that `x-envoy-max-retries` may ask for.
pub const RETRIES_ASKED_MAX: u32 = 100;

/// Headers that were meant for this proxy: not passed on.
pub const CONSUMED: [Known; 6] = [
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyHedgeOnPerTryTimeout,
];

/// How a try ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Failed(Failure),
    Response(&'a ResponseHead),
}

#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub end: End<'a>,
    /// A byte of the request was put on the wire in this try.
    pub request_sent: bool,
    /// A byte of a response was passed on to the client: it is too late.
    pub response_begun: bool,
    /// All of the body is still at hand (no body, or kept within the bound).
    pub body_replayable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Counts `upstream_rq_retry` and `upstream_rq_retry_backoff_exponential`.
    Retry {
        after_ns: u64,
    },
    Done(DoneReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoneReason {
    /// No policy, or a good response. After a retry it counts `upstream_rq_retry_success`.
    NotRetriable,
    /// Part of the response is with the client.
    ResponseBegun,
    /// The policy's number of retries is used up: `upstream_rq_retry_limit_exceeded`, flag URX.
    LimitExceeded,
    /// The body is larger than what is kept for a replay.
    BodyTooLarge,
    /// `upstream_rq_retry_overflow`: the breaker's fixed cap.
    BreakerOpen,
    /// `upstream_rq_retry_overflow`: the budget's share.
    BudgetExhausted,
}

/// What is remembered from try to try.
#[derive(Debug, Default)]
pub struct RetryState {
    on: RetryOn,
    retries_left: u32,
    retries_made: u32,
    status_codes: StatusCodes,
    header_names: Option<Box<HeaderNames>>,
    /// Some try of this request reached the wire.
    sent: bool,
    /// A retry is under way and counted in the breaker.
    holds_permit: bool,
    /// Whose breaker and budget count.
    pub priority: RoutingPriority,
}

impl RetryState {
    /// `trusted`: the request came from inside, and its x-envoy-* headers count.
    pub fn new(policy: Option<&RetryPolicy>, head: &RequestHead, trusted: bool) -> RetryState {
        let mut state = RetryState::default();
        if let Some(policy) = policy {
            state.on = policy.on;
            state.retries_left = policy.retries_max;
        }
        if trusted {
            state.merge_headers(policy, head);
        }
        let only = policy.map_or(&[][..], |policy| &policy.retriable_request_headers);
        if !only.is_empty() && !only.iter().any(|matcher| header::matches_request(matcher, head)) {
            state.on = RetryOn::default();
        }
        state
    }

    fn merge_headers(&mut self, policy: Option<&RetryPolicy>, head: &RequestHead) {
        let fields = &head.fields;
        for known in [Known::XEnvoyRetryOn, Known::XEnvoyRetryGrpcOn] {
            let Some(asked) = fields.get(known) else { continue };
            let tokens = elements(asked).filter_map(|token| std::str::from_utf8(token).ok());
            self.on = tokens.filter_map(RetryOn::token).fold(self.on, RetryOn::with);
            if policy.is_none() {
                // Envoy: "the number of retries defaults to 1"
                self.retries_left = 1;
            }
        }
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u32>().ok();
        if let Some(asked) = fields.get(Known::XEnvoyMaxRetries).and_then(number) {
            self.retries_left = asked.min(RETRIES_ASKED_MAX);
        }
        if let Some(codes) = fields.get(Known::XEnvoyRetriableStatusCodes) {
            self.status_codes = StatusCodes::parse(codes);
        }
        let names = fields.get(Known::XEnvoyRetriableHeaderNames);
        self.header_names = names.map(|names| Box::new(HeaderNames::parse(names)));
    }

    /// Whether any failure could be retried at all: if not, the body need not be kept.
    pub fn may_retry(&self) -> bool {
        self.on != RetryOn::default() && self.retries_left > 0
    }

    /// Retries admitted so far (`x-envoy-attempt-count` is one more).
    pub fn retries_made(&self) -> u32 {
        self.retries_made
    }

    /// A byte of the request is about to be put on the wire: the first time it counts for the budget's share.
    pub fn on_sent(&mut self, cluster: &Cluster, now_ns: u64) {
        if !std::mem::replace(&mut self.sent, true) {
            let budget = budget::of(&cluster.config, self.priority);
            budget::count_request(&cluster.live.of(self.priority).budget, budget, now_ns);
        }
    }

    /// After a try. Gives back what a retry under way held; on `Retry` the next one holds it. In the end call
    /// [`RetryState::finish`].
    pub fn decide(
        &mut self,
        policy: Option<&RetryPolicy>,
        attempt: &Attempt<'_>,
        cluster: &Cluster,
        now_ns: u64,
        rng: &mut Rng,
    ) -> RetryDecision {
        self.finish(&cluster.live);
        if attempt.request_sent {
            self.on_sent(cluster, now_ns);
        }
        if !self.would_retry(policy, attempt) {
            return RetryDecision::Done(DoneReason::NotRetriable);
        }
        if attempt.response_begun {
            return RetryDecision::Done(DoneReason::ResponseBegun);
        }
        if self.retries_left == 0 {
            return RetryDecision::Done(DoneReason::LimitExceeded);
        }
        if !attempt.body_replayable {
            return RetryDecision::Done(DoneReason::BodyTooLarge);
        }
        let live = cluster.live.of(self.priority);
        if breaker::acquire(live, breaker::limits(&cluster.config, self.priority), Limit::Retries).is_err() {
            return RetryDecision::Done(DoneReason::BreakerOpen);
        }
        // a request that never reached the wire adds no load when it does
        let charged = self.sent;
        let budget = budget::of(&cluster.config, self.priority);
        if charged && !budget::try_retry(&live.budget, budget, now_ns) {
            breaker::release(live, Limit::Retries);
            return RetryDecision::Done(DoneReason::BudgetExhausted);
        }
        self.holds_permit = true;
        self.retries_left -= 1;
        self.retries_made += 1;
        RetryDecision::Retry { after_ns: back_off::draw(policy, self.retries_made, rng) }
    }

    /// The request is over, however it ended: what it held is given back. Harmless when called again.
    pub fn finish(&mut self, live: &ClusterLive) {
        if std::mem::take(&mut self.holds_permit) {
            breaker::release(live.of(self.priority), Limit::Retries);
        }
    }

    fn would_retry(&self, policy: Option<&RetryPolicy>, attempt: &Attempt<'_>) -> bool {
        match attempt.end {
            End::Failed(failure) => conditions::after_failure(self.on, failure, attempt.request_sent),
            End::Response(head) => conditions::after_response(
                self.on,
                policy,
                &self.status_codes,
                self.header_names.as_deref(),
                head,
            ),
        }
    }
}
