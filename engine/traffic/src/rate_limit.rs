//! Local rate limits: a token bucket that all cores draw from, exactly.
//!
//! `TokenBucket::state` is the moment, in units of 1/16 ns, at which the bucket will be full again (the
//! "theoretical arrival time" of the generic cell rate algorithm). Taking a token moves it by one token's time;
//! a draw that would move it further ahead of now than a whole bucket's time is refused. One word, one
//! compare-and-swap, fractions of a token kept, and zero is a full bucket.

use crate::Rng;
use corelane_snapshot::{LocalRateLimit, live::TokenBucket};
use std::sync::atomic::Ordering::Relaxed;

/// Units of `state` in a nanosecond; 36 years of uptime fit.
const UNITS_PER_NS: u64 = 16;
const NS_PER_S: u64 = 1_000_000_000;

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

/// The decision for one request or connection.
pub fn check(limit: &LocalRateLimit, now_ns: u64, rng: &mut Rng) -> RateVerdict {
    if !limit.enabled.selects(rng.next_u64()) {
        return RateVerdict::NotSampled;
    }
    if take(&limit.bucket, 1, now_ns) {
        return RateVerdict::Allowed;
    }
    RateVerdict::Limited { enforced: limit.enforced.selects(rng.next_u64()) }
}

/// Time of one token; rounded up, so that a bucket never gives more than its rate.
fn token_units(bucket: &TokenBucket) -> u64 {
    let interval = bucket.fill_interval_ns.saturating_mul(UNITS_PER_NS);
    interval.div_ceil(u64::from(bucket.tokens_per_fill.max(1))).max(1)
}

/// Takes `tokens` or none.
pub fn take(bucket: &TokenBucket, tokens: u32, now_ns: u64) -> bool {
    let token = token_units(bucket);
    let now = now_ns.saturating_mul(UNITS_PER_NS);
    let cost = token.saturating_mul(u64::from(tokens));
    let latest = now.saturating_add(token.saturating_mul(u64::from(bucket.tokens_max)));
    bucket
        .state
        .fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now).saturating_add(cost);
            (next <= latest).then_some(next)
        })
        .is_ok()
}

/// Whole tokens left (`x-ratelimit-remaining`).
pub fn remaining(bucket: &TokenBucket, now_ns: u64) -> u32 {
    let now = now_ns.saturating_mul(UNITS_PER_NS);
    let missing = bucket.state.load(Relaxed).saturating_sub(now).div_ceil(token_units(bucket));
    bucket.tokens_max.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
}

/// Seconds, rounded up, until the bucket is full again (`x-ratelimit-reset`).
pub fn reset_s(bucket: &TokenBucket, now_ns: u64) -> u64 {
    let missing = bucket.state.load(Relaxed).saturating_sub(now_ns.saturating_mul(UNITS_PER_NS));
    missing.div_ceil(UNITS_PER_NS).div_ceil(NS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_snapshot::{Fraction, StatBlock};
    use std::sync::{Arc, atomic::AtomicU32, atomic::AtomicU64};

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
        assert_eq!((remaining(&bucket, 0), reset_s(&bucket, 0)), (0, 5));
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

    #[test]
    fn shares_decide_who_is_counted_and_who_is_refused() {
        let limit = |enabled, enforced| LocalRateLimit {
            bucket: Arc::new(bucket(1, 1, NS_PER_S)),
            enabled,
            enforced,
            status: 429,
            response_headers: Vec::new(),
            grpc_resource_exhausted: false,
            rate_limit_headers: false,
            stats: StatBlock::default(),
        };
        let mut rng = Rng::new(1);
        let off = limit(Fraction::NONE, Fraction::ALL);
        assert_eq!(check(&off, 0, &mut rng), RateVerdict::NotSampled);
        let on = limit(Fraction::ALL, Fraction::ALL);
        assert_eq!(check(&on, 0, &mut rng), RateVerdict::Allowed);
        assert_eq!(check(&on, 0, &mut rng), RateVerdict::Limited { enforced: true });
        let dry = limit(Fraction::ALL, Fraction::NONE);
        assert_eq!(check(&dry, 0, &mut rng), RateVerdict::Allowed);
        assert_eq!(check(&dry, 0, &mut rng), RateVerdict::Limited { enforced: false });
    }
}
