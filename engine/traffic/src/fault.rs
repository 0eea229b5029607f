//! Fault injection (envoy.extensions.filters.http.fault.v3): delay a share of requests, abort a share of them.

use crate::{Rng, breaker, matching::header};
use corelane_http::{Known, RequestHead};
use corelane_snapshot::{ClusterId, Fault, FaultAbort, FaultDelay, Fraction};
use std::{sync::atomic::AtomicU32, time::Duration};

/// Envoy's runtime default of fault.http.max_active_faults: no limit.
const ACTIVE_UNLIMITED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    Http(u16),
    /// Answered 200 with this grpc-status.
    Grpc(u32),
}

/// What is done to a request, delay first. Both may be set, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Counts `delays_injected`.
    pub delay: Option<Duration>,
    /// Counts `aborts_injected`; flag FI.
    pub abort: Option<Abort>,
    /// Too many faults at once: the request passes untouched. Counts `faults_overflow`.
    pub overflow: bool,
}

impl Injected {
    pub fn is_active(&self) -> bool {
        self.delay.is_some() || self.abort.is_some()
    }
}

/// What is asked of the request besides its head.
#[derive(Clone, Copy, Debug)]
pub struct FaultFacts<'a> {
    pub head: &'a RequestHead,
    /// The route's; None: not known.
    pub cluster: Option<ClusterId>,
}

/// An active fault was counted in `active`; [`end`] gives it back when the delay is over and the abort, if any,
/// answered.
pub fn inject(fault: &Fault, facts: &FaultFacts<'_>, active: &AtomicU32, rng: &mut Rng) -> Injected {
    let none = Injected::default();
    if !applies(fault, facts) {
        return none;
    }
    let delay = fault.delay.and_then(|delay| delay_of(&delay, facts.head, rng));
    let abort = fault.abort.and_then(|abort| abort_of(&abort, facts.head, rng));
    if delay.is_none() && abort.is_none() {
        return none;
    }
    if !breaker::take(active, fault.active_max.unwrap_or(ACTIVE_UNLIMITED)) {
        return Injected { overflow: true, ..none };
    }
    Injected { delay, abort, overflow: false }
}

/// An active fault is over.
pub fn end(active: &AtomicU32) {
    breaker::give_back(active);
}

fn applies(fault: &Fault, facts: &FaultFacts<'_>) -> bool {
    let node = facts.head.fields.get(Known::XEnvoyDownstreamServiceNode);
    let by_node =
        || node.is_some_and(|node| fault.downstream_nodes.iter().any(|known| known.as_bytes() == node));
    fault.upstream_cluster.is_none_or(|cluster| facts.cluster == Some(cluster))
        && (fault.downstream_nodes.is_empty() || by_node())
        && header::all_match(&fault.headers, facts.head)
}

fn delay_of(delay: &FaultDelay, head: &RequestHead, rng: &mut Rng) -> Option<Duration> {
    let by_header = || number(head, b"x-envoy-fault-delay-request").map(Duration::from_millis);
    let length = delay.fixed.or_else(by_header).filter(|length| !length.is_zero())?;
    let fraction = match delay.fixed {
        Some(_) => delay.fraction,
        None => at_most(delay.fraction, number(head, b"x-envoy-fault-delay-request-percentage")),
    };
    fraction.selects(rng.next_u64()).then_some(length)
}

fn abort_of(abort: &FaultAbort, head: &RequestHead, rng: &mut Rng) -> Option<Abort> {
    let (abort, fraction) = match *abort {
        FaultAbort::Http { status, fraction } => (Abort::Http(status), fraction),
        FaultAbort::Grpc { status, fraction } => (Abort::Grpc(status), fraction),
        FaultAbort::Header { fraction } => {
            let http =
                number(head, b"x-envoy-fault-abort-request").filter(|status| (200..600).contains(status));
            let grpc = || {
                number(head, b"x-envoy-fault-abort-grpc-request").and_then(|code| u32::try_from(code).ok())
            };
            let abort = http.map(|status| Abort::Http(status as u16)).or_else(|| grpc().map(Abort::Grpc))?;
            (abort, at_most(fraction, number(head, b"x-envoy-fault-abort-request-percentage")))
        }
    };
    fraction.selects(rng.next_u64()).then_some(abort)
}

/// A header may ask for less than is configured, never for more.
fn at_most(configured: Fraction, percent: Option<u64>) -> Fraction {
    match percent {
        Some(percent) => configured.min(Fraction((percent.min(100) * 10_000) as u32)),
        None => configured,
    }
}

fn number(head: &RequestHead, name: &[u8]) -> Option<u64> {
    std::str::from_utf8(head.fields.get_name(name)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::{HeaderMatch, HeaderMatcher, StringMatcher};
    use std::sync::atomic::Ordering::Relaxed;

    const SECOND: Duration = Duration::from_secs(1);

    fn fault() -> Fault {
        Fault {
            delay: None,
            abort: None,
            headers: Vec::new(),
            upstream_cluster: None,
            downstream_nodes: Vec::new(),
            active_max: None,
        }
    }

    fn injected(fault: &Fault, fields: &[(&str, &str)]) -> Injected {
        let mut head = RequestHead::new();
        fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
        let facts = FaultFacts { head: &head, cluster: Some(ClusterId(1)) };
        inject(fault, &facts, &AtomicU32::new(0), &mut Rng::new(1))
    }

    #[test]
    fn a_share_is_aborted() {
        let abort = |parts| Fault {
            abort: Some(FaultAbort::Http { status: 503, fraction: Fraction(parts) }),
            ..fault()
        };
        let head = RequestHead::new();
        let facts = FaultFacts { head: &head, cluster: None };
        let (active, mut rng) = (AtomicU32::new(0), Rng::new(7));
        let hits =
            (0..10_000).filter(|_| inject(&abort(100_000), &facts, &active, &mut rng).is_active()).count();
        assert!((900..1100).contains(&hits), "{hits}");
        assert_eq!(active.load(Relaxed), hits as u32);
        assert_eq!(injected(&abort(1_000_000), &[]).abort, Some(Abort::Http(503)));
        assert_eq!(injected(&abort(0), &[]), Injected::default());
    }

    #[test]
    fn headers_ask_for_faults_and_for_no_more_than_configured() {
        let fraction = Fraction::ALL;
        let by_header = Fault {
            delay: Some(FaultDelay { fixed: None, fraction }),
            abort: Some(FaultAbort::Header { fraction }),
            ..fault()
        };
        assert_eq!(injected(&by_header, &[]), Injected::default());
        let asked = injected(
            &by_header,
            &[("x-envoy-fault-delay-request", "1000"), ("x-envoy-fault-abort-request", "500")],
        );
        assert_eq!(asked, Injected { delay: Some(SECOND), abort: Some(Abort::Http(500)), overflow: false });
        assert_eq!(
            injected(&by_header, &[("x-envoy-fault-abort-grpc-request", "14")]).abort,
            Some(Abort::Grpc(14))
        );
        assert_eq!(injected(&by_header, &[("x-envoy-fault-abort-request", "99")]).abort, None);
        let never =
            [("x-envoy-fault-delay-request", "1000"), ("x-envoy-fault-delay-request-percentage", "0")];
        assert_eq!(injected(&by_header, &never), Injected::default());
    }

    #[test]
    fn only_for_whom_it_is_meant() {
        let delay = Some(FaultDelay { fixed: Some(SECOND), fraction: Fraction::ALL });
        let here = Fault { delay, upstream_cluster: Some(ClusterId(1)), ..fault() };
        assert_eq!(injected(&here, &[]).delay, Some(SECOND));
        let elsewhere = Fault { upstream_cluster: Some(ClusterId(2)), ..here.clone() };
        assert_eq!(injected(&elsewhere, &[]), Injected::default());
        let nodes = Fault { downstream_nodes: vec!["n1".into()], ..here.clone() };
        assert_eq!(injected(&nodes, &[]).delay, None);
        assert_eq!(injected(&nodes, &[("x-envoy-downstream-service-node", "n1")]).delay, Some(SECOND));
        let matcher = HeaderMatcher {
            name: "x-user".into(),
            matcher: HeaderMatch::Text(StringMatcher::exact("jason")),
            invert: false,
            treat_missing_as_empty: false,
        };
        let users = Fault { headers: vec![matcher], ..here };
        assert_eq!(injected(&users, &[("x-user", "jason")]).delay, Some(SECOND));
        assert_eq!(injected(&users, &[("x-user", "other")]).delay, None);
    }

    #[test]
    fn faults_at_once_are_bounded() {
        let delay = Some(FaultDelay { fixed: Some(SECOND), fraction: Fraction::ALL });
        let bounded = Fault { delay, active_max: Some(1), ..fault() };
        let head = RequestHead::new();
        let facts = FaultFacts { head: &head, cluster: None };
        let (active, mut rng) = (AtomicU32::new(0), Rng::new(1));
        assert!(inject(&bounded, &facts, &active, &mut rng).is_active());
        let second = inject(&bounded, &facts, &active, &mut rng);
        assert_eq!(second, Injected { delay: None, abort: None, overflow: true });
        end(&active);
        assert!(inject(&bounded, &facts, &active, &mut rng).is_active());
    }
}
