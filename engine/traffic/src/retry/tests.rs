//! The table of conditions, and the order of the questions.

use super::*;
use crate::testing::{SECOND, cluster, cluster_config, hosts, retry_policy};
use corelane_snapshot::{CircuitBreakers, HeaderMatch, HeaderMatcher, RetryBudget, StringMatcher};
use std::sync::atomic::Ordering::Relaxed;

const ALL_FAILURES: [Failure; 12] = [
    Failure::ConnectFailure,
    Failure::ConnectTimeout,
    Failure::TlsHandshake,
    Failure::ResetBeforeRequest,
    Failure::Reset,
    Failure::UpstreamTermination,
    Failure::RefusedStream,
    Failure::ProtocolError,
    Failure::PerTryTimeout,
    Failure::PerTryIdleTimeout,
    Failure::RouteTimeout,
    Failure::Overflow(Limit::Pending),
];

fn on(tokens: &str) -> RetryOn {
    tokens.split(',').map(|token| RetryOn::token(token).unwrap()).fold(RetryOn::default(), RetryOn::with)
}

fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new();
    head.status = status;
    fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
    head
}

fn request(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new();
    fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
    head
}

fn failed(failure: Failure) -> Attempt<'static> {
    let request_sent = !failure.is_connect() && failure != Failure::ResetBeforeRequest;
    Attempt { end: End::Failed(failure), request_sent, response_begun: false, body_replayable: true }
}

fn answered(head: &ResponseHead) -> Attempt<'_> {
    Attempt { end: End::Response(head), request_sent: true, response_begun: false, body_replayable: true }
}

fn decide(
    state: &mut RetryState,
    policy: &RetryPolicy,
    attempt: &Attempt<'_>,
    cluster: &Cluster,
) -> RetryDecision {
    state.decide(Some(policy), attempt, cluster, SECOND, &mut Rng::new(1))
}

fn first(policy: &RetryPolicy, attempt: &Attempt<'_>) -> RetryDecision {
    let cluster = cluster(cluster_config(), &hosts(2));
    decide(&mut RetryState::new(Some(policy), &request(&[]), true), policy, attempt, &cluster)
}

fn retries(policy: &RetryPolicy, attempt: &Attempt<'_>) -> bool {
    match first(policy, attempt) {
        RetryDecision::Retry { .. } => true,
        RetryDecision::Done(reason) => {
            assert_eq!(reason, DoneReason::NotRetriable);
            false
        }
    }
}

#[test]
fn failures_by_condition() {
    use Failure::*;
    let upstream = [
        ConnectFailure,
        ConnectTimeout,
        TlsHandshake,
        ResetBeforeRequest,
        Reset,
        UpstreamTermination,
        RefusedStream,
        ProtocolError,
        PerTryTimeout,
        PerTryIdleTimeout,
    ];
    for (tokens, retried) in [
        ("5xx", &upstream[..]),
        ("gateway-error", &upstream),
        ("reset", &upstream),
        ("connect-failure", &[ConnectFailure, ConnectTimeout, TlsHandshake]),
        ("reset-before-request", &[ConnectFailure, ConnectTimeout, TlsHandshake, ResetBeforeRequest]),
        ("refused-stream", &[RefusedStream]),
        ("retriable-4xx,retriable-status-codes,retriable-headers,unavailable,envoy-ratelimited", &[]),
    ] {
        let policy = retry_policy(on(tokens), 2);
        let seen: Vec<Failure> =
            ALL_FAILURES.into_iter().filter(|failure| retries(&policy, &failed(*failure))).collect();
        assert_eq!(seen, retried, "{tokens}");
    }
}

#[test]
fn responses_by_condition() {
    let mut policy = retry_policy(RetryOn::default(), 2);
    policy.retriable_status_codes = vec![418];
    policy.retriable_headers = vec![HeaderMatcher {
        name: "x-again".into(),
        matcher: HeaderMatch::Text(StringMatcher::exact("yes")),
        invert: false,
        treat_missing_as_empty: false,
    }];
    let limited = ("x-envoy-ratelimited", "true");
    for (tokens, status, fields, retried) in [
        ("5xx", 500, &[][..], true),
        ("5xx", 503, &[], true),
        ("5xx", 499, &[], false),
        ("5xx", 200, &[], false),
        ("gateway-error", 500, &[], false),
        ("gateway-error", 502, &[], true),
        ("gateway-error", 504, &[], true),
        ("reset,connect-failure", 503, &[], false),
        ("retriable-4xx", 409, &[], true),
        ("retriable-4xx", 404, &[], false),
        ("retriable-status-codes", 418, &[], true),
        ("retriable-status-codes", 500, &[], false),
        ("5xx", 418, &[], false),
        ("retriable-headers", 200, &[("x-again", "yes")], true),
        ("retriable-headers", 200, &[("x-again", "no")], false),
        ("5xx", 503, &[limited], false),
        ("5xx,envoy-ratelimited", 429, &[limited], true),
        ("envoy-ratelimited", 429, &[], false),
        ("cancelled", 200, &[("grpc-status", "1")], true),
        ("deadline-exceeded", 200, &[("grpc-status", "4")], true),
        ("resource-exhausted", 200, &[("grpc-status", "8")], true),
        ("internal", 200, &[("grpc-status", "13")], true),
        ("unavailable", 200, &[("grpc-status", "14")], true),
        ("unavailable", 200, &[("grpc-status", "0")], false),
        ("unavailable", 200, &[("grpc-status", "13")], false),
    ] {
        policy.on = on(tokens);
        let head = response(status, fields);
        assert_eq!(retries(&policy, &answered(&head)), retried, "{tokens} {status} {fields:?}");
    }
}

#[test]
fn a_trusted_request_asks_for_itself() {
    let cluster = cluster(cluster_config(), &hosts(2));
    let head = response(503, &[]);
    let ask = |fields: &[(&str, &str)], trusted, head: &ResponseHead| {
        let mut state = RetryState::new(None, &request(fields), trusted);
        let mut made = 0;
        while let RetryDecision::Retry { .. } =
            state.decide(None, &answered(head), &cluster, made * 100 * SECOND, &mut Rng::new(1))
        {
            made += 1;
        }
        state.finish(&cluster.live);
        made
    };
    assert_eq!(ask(&[("x-envoy-retry-on", "5xx")], true, &head), 1);
    assert_eq!(ask(&[("x-envoy-retry-on", "5xx")], false, &head), 0);
    assert_eq!(
        ask(&[("x-envoy-retry-on", "reset, gateway-error"), ("x-envoy-max-retries", "3")], true, &head),
        3
    );
    assert_eq!(ask(&[("x-envoy-retry-on", "nonsense")], true, &head), 0);
    let teapot = response(418, &[("x-again", "1")]);
    let codes =
        [("x-envoy-retry-on", "retriable-status-codes"), ("x-envoy-retriable-status-codes", "409, 418")];
    assert_eq!(ask(&codes, true, &teapot), 1);
    let names = [("x-envoy-retry-on", "retriable-headers"), ("x-envoy-retriable-header-names", "X-Again")];
    assert_eq!(ask(&names, true, &teapot), 1);
    assert_eq!(
        ask(&[("x-envoy-retry-grpc-on", "unavailable")], true, &response(200, &[("grpc-status", "14")])),
        1
    );
}

#[test]
fn only_requests_that_match_are_retried() {
    let mut policy = retry_policy(on("5xx"), 2);
    policy.retriable_request_headers = vec![HeaderMatcher {
        name: ":method".into(),
        matcher: HeaderMatch::Text(StringMatcher::exact("GET")),
        invert: false,
        treat_missing_as_empty: false,
    }];
    let mut post = request(&[]);
    assert!(RetryState::new(Some(&policy), &post, true).may_retry());
    post.set_method(b"POST").unwrap();
    assert!(!RetryState::new(Some(&policy), &post, true).may_retry());
}

#[test]
fn the_order_of_the_questions() {
    let policy = retry_policy(on("5xx"), 1);
    let attempt = failed(Failure::Reset);
    assert_eq!(
        first(&policy, &Attempt { response_begun: true, ..attempt }),
        RetryDecision::Done(DoneReason::ResponseBegun)
    );
    assert_eq!(
        first(&policy, &Attempt { body_replayable: false, ..attempt }),
        RetryDecision::Done(DoneReason::BodyTooLarge)
    );
    let exhausted = retry_policy(on("5xx"), 0);
    assert_eq!(
        first(&exhausted, &Attempt { body_replayable: false, ..attempt }),
        RetryDecision::Done(DoneReason::LimitExceeded)
    );
}

#[test]
fn the_breaker_is_held_by_the_retry_and_given_back() {
    let mut config = cluster_config();
    config.breakers = CircuitBreakers { retries_max: Some(1), ..CircuitBreakers::default() };
    let cluster = cluster(config, &hosts(2));
    let policy = retry_policy(on("5xx"), 5);
    let attempt = failed(Failure::ConnectFailure);
    let [mut one, mut two] = [(), ()].map(|()| RetryState::new(Some(&policy), &request(&[]), true));
    assert!(matches!(decide(&mut one, &policy, &attempt, &cluster), RetryDecision::Retry { .. }));
    assert_eq!(decide(&mut two, &policy, &attempt, &cluster), RetryDecision::Done(DoneReason::BreakerOpen));
    // the next try of the same request takes the place of the one before
    assert!(matches!(decide(&mut one, &policy, &attempt, &cluster), RetryDecision::Retry { .. }));
    assert_eq!(cluster.live.in_use[0].retries.load(Relaxed), 1);
    one.finish(&cluster.live);
    one.finish(&cluster.live);
    assert_eq!(cluster.live.in_use[0].retries.load(Relaxed), 0);
    assert_eq!((one.retries_made(), two.retries_made()), (2, 0));
}

#[test]
fn an_exhausted_budget_leaves_the_breaker_as_it_was() {
    let mut config = cluster_config();
    config.retry_budget = RetryBudget { percent: 0.0, retries_min: 1, ..RetryBudget::configured() };
    let cluster = cluster(config, &hosts(2));
    let policy = retry_policy(on("5xx"), 5);
    let mut state = RetryState::new(Some(&policy), &request(&[]), true);
    let attempt = failed(Failure::Reset);
    assert!(matches!(decide(&mut state, &policy, &attempt, &cluster), RetryDecision::Retry { .. }));
    assert_eq!(
        decide(&mut state, &policy, &attempt, &cluster),
        RetryDecision::Done(DoneReason::BudgetExhausted)
    );
    assert_eq!(cluster.live.in_use[0].retries.load(Relaxed), 0);
    assert_eq!(state.retries_made(), 1);
}

#[test]
fn what_never_reached_the_wire_is_not_charged() {
    let mut config = cluster_config();
    config.retry_budget = RetryBudget { percent: 0.0, retries_min: 0, ..RetryBudget::configured() };
    let cluster = cluster(config, &hosts(2));
    let policy = retry_policy(on("5xx"), 5);
    let mut state = RetryState::new(Some(&policy), &request(&[]), true);
    for _ in 0..3 {
        let decision = decide(&mut state, &policy, &failed(Failure::ConnectFailure), &cluster);
        assert!(matches!(decision, RetryDecision::Retry { .. }));
    }
    assert_eq!(
        decide(&mut state, &policy, &failed(Failure::Reset), &cluster),
        RetryDecision::Done(DoneReason::BudgetExhausted)
    );
    let (requests, retries) =
        budget::in_window(&cluster.live.in_use[0].budget, &cluster.config.retry_budget, SECOND);
    assert_eq!((requests, retries), (1, 0), "one request was sent, whatever it took");
}
