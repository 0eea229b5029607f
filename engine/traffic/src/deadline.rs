//! How long a request and each of its tries may take, and what of it the next hop is told. Reference: Envoy,
//! "Router": timeouts and the headers x-envoy-upstream-rq-timeout-ms, -per-try-timeout-ms,
//! x-envoy-expected-rq-timeout-ms; gRPC over HTTP/2, "Timeout".
//!
//! A deadline travels: what the caller has left bounds the route's own timeout.

use crate::matching::is_grpc;
use corelane_http::{Known, RequestHead};
use corelane_snapshot::{Forward, RetryPolicy};
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the end of the request to the end of the response, over all tries; None: none.
    pub timeout: Option<Duration>,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    /// grpc-timeout is to be written too.
    pub grpc: bool,
}

/// Headers that were meant for this proxy: not passed on.
pub const CONSUMED: [Known; 2] = [Known::XEnvoyUpstreamRqTimeoutMs, Known::XEnvoyUpstreamRqPerTryTimeoutMs];

/// `trusted`: the request came from inside, and its x-envoy-* headers count.
pub fn effective(
    forward: &Forward,
    retry: Option<&RetryPolicy>,
    head: &RequestHead,
    trusted: bool,
) -> Limits {
    let grpc = is_grpc(head);
    let caller_grpc = head.fields.get(Known::GrpcTimeout).filter(|_| grpc).and_then(parse_grpc);
    let mut timeout = match forward.grpc_timeout_max {
        // set: it takes the place of the route's timeout, and Some(None) lets the caller decide
        Some(max) if grpc => least(caller_grpc, max),
        _ => least(forward.timeout, caller_grpc),
    };
    let sent = |known: Known| head.fields.get(known).filter(|_| trusted).and_then(milliseconds);
    match (sent(Known::XEnvoyExpectedRqTimeoutMs), sent(Known::XEnvoyUpstreamRqTimeoutMs)) {
        // written by the hop before us: what is left there
        (Some(left), _) => timeout = least(timeout, nonzero(left)),
        // the caller's choice instead of the route's
        (None, Some(asked)) => timeout = nonzero(asked),
        (None, None) => {}
    }
    let per_try = match sent(Known::XEnvoyUpstreamRqPerTryTimeoutMs) {
        Some(asked) => nonzero(asked),
        None => retry.and_then(|policy| policy.per_try_timeout),
    };
    Limits {
        timeout,
        // one that is not shorter than the whole says nothing
        per_try_timeout: per_try.filter(|per_try| timeout.is_none_or(|whole| *per_try < whole)),
        per_try_idle_timeout: retry.and_then(|policy| policy.per_try_idle_timeout),
        grpc: grpc && (forward.grpc_timeout_max.is_some() || caller_grpc.is_some()),
    }
}

/// What the next hop has for a try that starts `elapsed` after the request; None: no limit to tell. Never zero,
/// which would be "no limit".
pub fn expected(limits: &Limits, elapsed: Duration) -> Option<Duration> {
    let left = limits.timeout.map(|whole| whole.saturating_sub(elapsed));
    least(limits.per_try_timeout, left).map(|left| left.max(Duration::from_millis(1)))
}

fn least(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Envoy: 0 is no limit.
fn nonzero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?;
    value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse().ok().map(Duration::from_millis))?
}

/// `Timeout -> TimeoutValue TimeoutUnit`, "TimeoutValue: positive integer as ASCII string of at most 8 digits".
pub fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The longest text of [`write_ms`] and [`write_grpc`], in bytes.
pub const TEXT_BYTES_MAX: usize = 20;

/// Whole milliseconds, rounded up.
pub fn write_ms(duration: Duration, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
    decimal(u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX), text)
}

/// In milliseconds where eight digits hold them, else in seconds.
pub fn write_grpc(duration: Duration, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
    const VALUE_MAX: u64 = 99_999_999;
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1);
    let (value, unit) = if ms <= VALUE_MAX { (ms, b'm') } else { ((ms / 1000).min(VALUE_MAX), b'S') };
    let len = decimal(value, text).len();
    let start = text.len() - len;
    text.copy_within(start.., start - 1);
    text[TEXT_BYTES_MAX - 1] = unit;
    &text[start - 1..]
}

/// At the end of `text`.
fn decimal(mut value: u64, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 || at == 0 {
            return &text[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{forward, retry_policy};
    use corelane_snapshot::RetryOn;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
        head
    }

    fn timeouts(forward: &Forward, fields: &[(&str, &str)]) -> (Option<Duration>, Option<Duration>) {
        let policy = RetryPolicy { per_try_timeout: Some(ms(250)), ..retry_policy(RetryOn::RESET, 2) };
        let limits = effective(forward, Some(&policy), &head(fields), true);
        (limits.timeout, limits.per_try_timeout)
    }

    #[test]
    fn the_route_the_caller_and_the_hop_before() {
        let route = Forward { timeout: Some(ms(1000)), ..forward() };
        let tries = Some(ms(250));
        for (fields, timeout) in [
            (&[][..], Some(ms(1000))),
            (&[("x-envoy-upstream-rq-timeout-ms", "5000")], Some(ms(5000))),
            (&[("x-envoy-upstream-rq-timeout-ms", "0")], None),
            (&[("x-envoy-upstream-rq-timeout-ms", "soon")], Some(ms(1000))),
            (&[("x-envoy-expected-rq-timeout-ms", "600")], Some(ms(600))),
            (&[("x-envoy-expected-rq-timeout-ms", "6000")], Some(ms(1000))),
            (&[("grpc-timeout", "400m")], Some(ms(1000))),
            (&[("content-type", "application/grpc"), ("grpc-timeout", "400m")], Some(ms(400))),
        ] {
            assert_eq!(timeouts(&route, fields), (timeout, tries), "{fields:?}");
        }
        let short = Forward { timeout: Some(ms(100)), ..forward() };
        assert_eq!(timeouts(&short, &[]), (Some(ms(100)), None));
        assert_eq!(timeouts(&route, &[("x-envoy-upstream-rq-per-try-timeout-ms", "70")]).1, Some(ms(70)));
    }

    #[test]
    fn a_stranger_sets_nothing() {
        let route = Forward { timeout: Some(ms(1000)), ..forward() };
        let head =
            head(&[("x-envoy-upstream-rq-timeout-ms", "5000"), ("x-envoy-expected-rq-timeout-ms", "1")]);
        assert_eq!(effective(&route, None, &head, false).timeout, Some(ms(1000)));
    }

    #[test]
    fn grpc_timeout_is_capped() {
        let grpc = ("content-type", "application/grpc");
        let capped =
            Forward { timeout: Some(ms(15_000)), grpc_timeout_max: Some(Some(ms(2000))), ..forward() };
        assert_eq!(timeouts(&capped, &[grpc, ("grpc-timeout", "1S")]).0, Some(ms(1000)));
        assert_eq!(timeouts(&capped, &[grpc, ("grpc-timeout", "1M")]).0, Some(ms(2000)));
        assert_eq!(timeouts(&capped, &[grpc]).0, Some(ms(2000)));
        let free = Forward { grpc_timeout_max: Some(None), ..capped };
        assert_eq!(timeouts(&free, &[grpc, ("grpc-timeout", "1M")]).0, Some(ms(60_000)));
        assert_eq!(timeouts(&free, &[grpc]).0, None);
    }

    #[test]
    fn the_next_hop_is_told_what_is_left() {
        let limits = Limits { timeout: Some(ms(1000)), per_try_timeout: Some(ms(250)), ..Limits::default() };
        assert_eq!(expected(&limits, ms(0)), Some(ms(250)));
        assert_eq!(expected(&limits, ms(900)), Some(ms(100)));
        assert_eq!(expected(&limits, ms(2000)), Some(ms(1)));
        assert_eq!(expected(&Limits::default(), ms(5)), None);
    }

    #[test]
    fn texts() {
        let mut text = [0; TEXT_BYTES_MAX];
        assert_eq!(write_ms(ms(250), &mut text), b"250");
        assert_eq!(write_ms(Duration::from_micros(1), &mut text), b"1");
        assert_eq!(write_ms(Duration::MAX, &mut text).len(), 20);
        assert_eq!(write_grpc(ms(250), &mut text), b"250m");
        assert_eq!(write_grpc(Duration::from_secs(100_000), &mut text), b"100000S");
        for (value, parsed) in [
            (&b"1H"[..], Some(Duration::from_secs(3600))),
            (b"99999999n", Some(Duration::from_nanos(99_999_999))),
            (b"123456789m", None),
            (b"m", None),
            (b"1", None),
            (b"-1S", None),
            (b"", None),
        ] {
            assert_eq!(parse_grpc(value), parsed, "{value:?}");
        }
    }
}
