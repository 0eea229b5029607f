//! Local rate limits: a token bucket that all cores draw from, exactly.
//!
//! `TokenBucket::state` is the moment, in units of [`Pace`], at which the bucket will be full again (the
//! "theoretical arrival time" of the generic cell rate algorithm). Taking a token moves it by one token's time;
//! a draw that would move it further ahead of now than a whole bucket's time is refused. One word, one
//! compare-and-swap, fractions of a token kept, and zero is a full bucket.

mod descriptor;

pub use descriptor::Asked;

use crate::Rng;
use corelane_snapshot::{LocalRateLimit, TokenBuckets, live::TokenBucket};
use std::sync::atomic::Ordering::Relaxed;

/// Finest units of `state` in a nanosecond; with [`WHOLE_BITS_MAX`] ahead, 27 years of uptime fit.
const UNITS_PER_NS: u64 = 16;
/// Bits of a whole bucket's time. A bucket that takes longer to fill (9 years) counts in coarser units.
const WHOLE_BITS_MAX: u32 = 62;
const NS_PER_S: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Judged<'b> {
    pub verdict: RateVerdict,
    /// The bucket to tell the client of: the one that refused, else that of the first descriptor that matched, else the
    /// default one. None: not sampled.
    pub bucket: Option<&'b TokenBucket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// Outside the `filter_enabled` share: not counted, not limited.
    NotSampled,
    Allowed,
    /// No token was left. Counted as `rate_limited`; a reply is due only where it is enforced.
    Limited {
        enforced: bool,
    },
}

/// The decision for one request, or with `asked` None for a connection. `buckets` are the limit's, or the
/// connection's own.
pub fn check<'b>(
    limit: &LocalRateLimit,
    buckets: &'b TokenBuckets,
    asked: Option<&Asked<'_>>,
    now_ns: u64,
    rng: &mut Rng,
) -> Judged<'b> {
    if !limit.enabled.selects(rng.next_u64()) {
        return Judged { verdict: RateVerdict::NotSampled, bucket: None };
    }
    let mut first = None;
    let refused = asked.and_then(|asked| {
        limit.descriptors.iter().zip(&buckets.descriptors).find_map(|(descriptor, bucket)| {
            if !descriptor::matches(limit, descriptor, asked) {
                return None;
            }
            first.get_or_insert(bucket);
            (!take(bucket, 1, now_ns)).then_some(bucket)
        })
    });
    let by_default = || {
        let asks = first.is_none() || limit.always_default;
        (asks && !take(&buckets.default, 1, now_ns)).then_some(&buckets.default)
    };
    match refused.or_else(by_default) {
        Some(bucket) => {
            let enforced = limit.enforced.selects(rng.next_u64());
            Judged { verdict: RateVerdict::Limited { enforced }, bucket: Some(bucket) }
        }
        None => Judged { verdict: RateVerdict::Allowed, bucket: Some(first.unwrap_or(&buckets.default)) },
    }
}

/// The unit of a bucket's `state`, 2^`shift` / [`UNITS_PER_NS`] ns, and what a token is in it.
struct Pace {
    shift: u32,
    /// Time of one token; rounded up, so that a bucket never gives more than its rate. Times `tokens_max` it is at
    /// most 2^62 + 2^32.
    token: u64,
}

impl Pace {
    fn of(bucket: &TokenBucket) -> Self {
        let interval = u128::from(bucket.fill_interval_ns) * u128::from(UNITS_PER_NS);
        let token = interval.div_ceil(u128::from(bucket.tokens_per_fill.max(1))).max(1);
        let whole = token * u128::from(bucket.tokens_max.max(1));
        let shift = (u128::BITS - whole.leading_zeros()).saturating_sub(WHOLE_BITS_MAX);
        // `whole` is no less than `token`: it fits once `whole` does
        let token = u64::try_from(token.div_ceil(1 << shift)).unwrap_or(u64::MAX);
        Self { shift, token }
    }

    fn moment(&self, now_ns: u64) -> u64 {
        now_ns.saturating_mul(UNITS_PER_NS) >> self.shift
    }

    fn tokens(&self, tokens: u32) -> u64 {
        self.token.saturating_mul(u64::from(tokens))
    }
}

/// Takes `tokens` or none.
pub fn take(bucket: &TokenBucket, tokens: u32, now_ns: u64) -> bool {
    if tokens > bucket.tokens_max {
        return false;
    }
    let pace = Pace::of(bucket);
    let (now, cost, whole) = (pace.moment(now_ns), pace.tokens(tokens), pace.tokens(bucket.tokens_max));
    bucket
        .state
        .fetch_update(Relaxed, Relaxed, |full_at| {
            // no sum may saturate: a bucket that is never further ahead than the largest number never refuses
            let next = full_at.max(now).checked_add(cost)?;
            (next - now <= whole).then_some(next)
        })
        .is_ok()
}

/// Whole tokens left (`x-ratelimit-remaining`).
pub fn remaining(bucket: &TokenBucket, now_ns: u64) -> u32 {
    let pace = Pace::of(bucket);
    let missing = bucket.state.load(Relaxed).saturating_sub(pace.moment(now_ns)).div_ceil(pace.token);
    bucket.tokens_max.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
}

/// Seconds, rounded up, until there is a token; 0 where there is one (`x-ratelimit-reset`, as Envoy has it).
pub fn reset_s(bucket: &TokenBucket, now_ns: u64) -> u64 {
    let pace = Pace::of(bucket);
    let others = pace.tokens(bucket.tokens_max.saturating_sub(1));
    let missing = bucket.state.load(Relaxed).saturating_sub(others).saturating_sub(pace.moment(now_ns));
    let units_per_s = u128::from(UNITS_PER_NS * NS_PER_S);
    u64::try_from((u128::from(missing) << pace.shift).div_ceil(units_per_s)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_http::RequestHead;
    use corelane_snapshot::{
        Descriptor, Fraction, HeaderMatch, HeaderMatcher, QueryMatch, QueryMatcher, RateLimit,
        RateLimitAction, RateLimitValue, StatBlock, VirtualHostRateLimits,
    };
    use std::sync::atomic::{AtomicU32, AtomicU64};

    fn bucket(tokens_max: u32, tokens_per_fill: u32, fill_interval_ns: u64) -> TokenBucket {
        TokenBucket { tokens_max, tokens_per_fill, fill_interval_ns, state: AtomicU64::new(0) }
    }

    fn taken(bucket: &TokenBucket, now_ns: u64, asked: u32) -> u32 {
        (0..asked).filter(|_| take(bucket, 1, now_ns)).count() as u32
    }

    #[test]
    fn starts_full_and_refills_at_its_rate() {
        let bucket = bucket(10, 2, NS_PER_S);
        assert_eq!((remaining(&bucket, 0), reset_s(&bucket, 0)), (10, 0));
        assert_eq!(taken(&bucket, 0, 50), 10);
        assert_eq!((remaining(&bucket, 0), reset_s(&bucket, 0)), (0, 1));
        assert_eq!(taken(&bucket, NS_PER_S / 2 - 1, 50), 0);
        assert_eq!(taken(&bucket, NS_PER_S / 2, 50), 1);
        assert_eq!(taken(&bucket, 3 * NS_PER_S, 50), 5);
        // never more than the bucket holds
        assert_eq!(taken(&bucket, 3600 * NS_PER_S, 50), 10);
    }

    #[test]
    fn a_rate_that_does_not_divide_is_never_passed() {
        let bucket = bucket(3, 3, NS_PER_S);
        let over_a_minute: u32 = (0..60_000u64).map(|ms| taken(&bucket, ms * 1_000_000, 5)).sum();
        assert_eq!(over_a_minute, 3 + 179);
    }

    /// The time of a whole bucket need not fit in a word.
    #[test]
    fn a_slow_bucket_is_never_unlimited() {
        let up = 30 * 86_400 * NS_PER_S;
        for (tokens_max, interval_s) in [(2, 1_000_000_000), (1_000_000, 3600), (1, 18_000_000_000)] {
            let bucket = bucket(tokens_max, 1, interval_s * NS_PER_S);
            assert_eq!(taken(&bucket, up, tokens_max + 10), tokens_max, "{bucket:?}");
            assert_eq!(remaining(&bucket, up), 0);
            let wait = reset_s(&bucket, up);
            assert!((interval_s..=interval_s + 1 + interval_s / 1_000_000).contains(&wait), "{wait} s");
        }
        let slow = bucket(1_000_000, 1, 3600 * NS_PER_S);
        assert!(take(&slow, 1_000_000, up) && !take(&slow, 1, up + 3599 * NS_PER_S));
        assert_eq!(taken(&slow, up + 3601 * NS_PER_S, 9), 1);
        let most = bucket(u32::MAX, 1, u64::MAX);
        assert!(take(&most, u32::MAX, up) && !take(&most, 1, up));
        assert!(!take(&bucket(0, 1, u64::MAX), 1, up));
    }

    #[test]
    fn takes_all_or_nothing() {
        let bucket = bucket(5, 1, NS_PER_S);
        assert!(!take(&bucket, 6, 0));
        assert!(take(&bucket, 5, 0));
        assert!(!take(&bucket, 1, 0));
    }

    #[test]
    fn four_threads_get_exactly_the_bucket() {
        let bucket = bucket(1000, 1, 3600 * NS_PER_S);
        let won = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| won.fetch_add(taken(&bucket, 7, 2000), Relaxed));
            }
        });
        assert_eq!(won.load(Relaxed), 1000);
    }

    fn limit(descriptors: &[(&str, &str, u32)], rate_limits: Vec<RateLimit>) -> LocalRateLimit {
        LocalRateLimit {
            buckets: TokenBuckets {
                default: bucket(4, 1, 60 * NS_PER_S),
                descriptors: descriptors.iter().map(|of| bucket(of.2, 1, 60 * NS_PER_S)).collect(),
            },
            per_connection: false,
            always_default: true,
            enabled: Fraction::ALL,
            enforced: Fraction::ALL,
            status: 429,
            response_headers: Vec::new(),
            unenforced_request_headers: Vec::new(),
            grpc_resource_exhausted: false,
            rate_limit_headers: false,
            retry_after: false,
            descriptors: descriptors
                .iter()
                .map(|(key, value, _)| Descriptor { entries: vec![((*key).into(), (*value).into())] })
                .collect(),
            rate_limits,
            stage: 0,
            virtual_host: VirtualHostRateLimits::Override,
            stats: StatBlock::default(),
        }
    }

    fn by_header(name: &str, key: &str) -> RateLimit {
        let value = RateLimitValue::RequestHeader { name: name.into(), skip_if_absent: false };
        RateLimit { stage: 0, actions: vec![RateLimitAction { key: key.into(), value }] }
    }

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_path(b"/?tier=gold").unwrap();
        fields.iter().for_each(|(n, v)| head.fields.append(n.as_bytes(), v.as_bytes()).unwrap());
        head
    }

    /// Whether it passes, and the size of the bucket that it is told of.
    fn ask(limit: &LocalRateLimit, asked: &Asked<'_>) -> (bool, u32) {
        let judged = check(limit, &limit.buckets, Some(asked), 0, &mut Rng::new(1));
        (judged.verdict == RateVerdict::Allowed, judged.bucket.unwrap().tokens_max)
    }

    fn asked<'a>(head: &'a RequestHead, route: &'a [RateLimit], host: &'a [RateLimit]) -> Asked<'a> {
        Asked { head, client: "10.0.0.9".parse().unwrap(), route, virtual_host: host }
    }

    #[test]
    fn shares_decide_who_is_counted_and_who_is_refused() {
        let one = |enabled, enforced| LocalRateLimit { enabled, enforced, ..limit(&[], Vec::new()) };
        let mut rng = Rng::new(1);
        let mut verdict = |limit: &LocalRateLimit| check(limit, &limit.buckets, None, 0, &mut rng).verdict;
        let off = one(Fraction::NONE, Fraction::ALL);
        assert_eq!(verdict(&off), RateVerdict::NotSampled);
        for (enforced, refused) in [(Fraction::ALL, true), (Fraction::NONE, false)] {
            let limit = one(Fraction::ALL, enforced);
            (0..4).for_each(|_| assert_eq!(verdict(&limit), RateVerdict::Allowed));
            assert_eq!(verdict(&limit), RateVerdict::Limited { enforced: refused });
        }
    }

    /// The same requests in the same order as Envoy 1.40 was asked, and what it answered.
    #[test]
    fn a_descriptor_has_a_bucket_of_its_own() {
        let route = [by_header("x-u", "u"), by_header("x-v", "v")];
        let limit = |always_default| LocalRateLimit {
            always_default,
            ..limit(&[("u", "a", 1), ("v", "b", 2)], Vec::new())
        };
        let (u, v): (&[_], &[_]) = (&[("x-u", "a")], &[("x-v", "b")]);
        for (limit, left) in [(&limit(true), 2), (&limit(false), 4)] {
            for (fields, answer) in [
                (&[u[0], v[0]][..], (true, 1)),
                (v, (true, 2)),
                (v, (false, 2)),
                (u, (false, 1)),
                (&[("x-u", "other")], (true, 4)),
            ] {
                assert_eq!(ask(limit, &asked(&head(fields), &route, &[])), answer, "{fields:?}");
            }
            // refused requests cost the default bucket nothing
            assert_eq!(remaining(&limit.buckets.default, 0), left - 1);
        }
    }

    #[test]
    fn whose_rate_limits_are_asked() {
        let (route, host) = ([by_header("x-v", "v")], [by_header("x-u", "u")]);
        let (u, v) = (head(&[("x-u", "a")]), head(&[("x-v", "b")]));
        let both = || limit(&[("u", "a", 9), ("v", "b", 8)], Vec::new());
        let size = |limit: &LocalRateLimit, head: &RequestHead, route: &[RateLimit]| {
            ask(limit, &asked(head, route, &host)).1
        };
        assert_eq!((size(&both(), &u, &route), size(&both(), &u, &[]), size(&both(), &v, &route)), (4, 9, 8));
        let include = LocalRateLimit { virtual_host: VirtualHostRateLimits::Include, ..both() };
        assert_eq!(size(&include, &u, &route), 9);
        let ignore = LocalRateLimit { virtual_host: VirtualHostRateLimits::Ignore, ..both() };
        assert_eq!(size(&ignore, &u, &[]), 4);
        let own = LocalRateLimit { rate_limits: host.to_vec(), ..both() };
        assert_eq!((size(&own, &u, &route), size(&own, &v, &route)), (9, 4));
        let later = LocalRateLimit { stage: 1, ..both() };
        assert_eq!(size(&later, &v, &route), 4);
    }

    #[test]
    fn an_escaped_parameter_is_counted_under_what_it_says() {
        let by_query =
            |value| [RateLimit { stage: 0, actions: vec![RateLimitAction { key: "k".into(), value }] }];
        let tier = RateLimitValue::QueryParameter { name: "tier".into(), skip_if_absent: false };
        let text = QueryMatch::Text(corelane_snapshot::StringMatcher::exact("free"));
        let parameters = vec![QueryMatcher { name: "tier".into(), matcher: text }];
        let is_free = RateLimitValue::QueryMatches { value: "free".into(), expect: true, parameters };
        for route in [by_query(tier), by_query(is_free)] {
            for (path, size) in
                [("/?tier=free", 9), ("/?tier=%66ree", 9), ("/?ti%65r=fre%65", 9), ("/?tier=%67ree", 4)]
            {
                let mut head = head(&[]);
                head.set_path(path.as_bytes()).unwrap();
                let limit = limit(&[("k", "free", 9)], Vec::new());
                assert_eq!(ask(&limit, &asked(&head, &route, &[])).1, size, "{path} {route:?}");
            }
        }
    }

    #[test]
    fn entries_are_made_of_what_a_request_is() {
        let head = head(&[("x-u", "a")]);
        let matcher = |name: &str| HeaderMatcher {
            name: name.into(),
            matcher: HeaderMatch::Present(true),
            invert: false,
            treat_missing_as_empty: false,
        };
        let headers = |name, expect| RateLimitValue::HeadersMatch {
            value: "yes".into(),
            expect,
            headers: vec![matcher(name)],
        };
        let query = |name: &str| QueryMatcher { name: name.into(), matcher: QueryMatch::Present(true) };
        let queries = |name, expect| RateLimitValue::QueryMatches {
            value: "yes".into(),
            expect,
            parameters: vec![query(name)],
        };
        let parameter =
            |name: &str| RateLimitValue::QueryParameter { name: name.into(), skip_if_absent: false };
        for (value, made) in [
            (RateLimitValue::Generic("g".into()), Some("g")),
            (RateLimitValue::RemoteAddress, Some("10.0.0.9")),
            (parameter("tier"), Some("gold")),
            (parameter("none"), None),
            (headers("x-u", true), Some("yes")),
            (headers("x-v", true), None),
            (headers("x-v", false), Some("yes")),
            (queries("tier", true), Some("yes")),
            (queries("tier", false), None),
        ] {
            let actions = vec![RateLimitAction { key: "k".into(), value }];
            let route = [RateLimit { stage: 0, actions }];
            let limit = limit(&[("k", made.unwrap_or("yes"), 9)], Vec::new());
            let matched = ask(&limit, &asked(&head, &route, &[])).1 == 9;
            assert_eq!(matched, made.is_some(), "{route:?}");
        }
        // an entry that may be left out is left out; the descriptor is what the others make
        let absent = RateLimitValue::RequestHeader { name: "none".into(), skip_if_absent: true };
        let mut route = [by_header("x-u", "u")];
        route[0].actions.push(RateLimitAction { key: "none".into(), value: absent });
        let limit = limit(&[("u", "a", 9)], Vec::new());
        assert_eq!(ask(&limit, &asked(&head, &route, &[])).1, 9);
    }
}
