//! The pause before a retry: exponential with full jitter, so that requests that failed together do not come back
//! together.

use crate::Rng;
use corelane_snapshot::{BackOff, RetryPolicy};
use std::time::Duration;

/// Envoy's defaults, where only request headers ask for retries.
const DEFAULT: BackOff = BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) };

/// Nanoseconds before retry number `retry` (from 1): uniform in 0..min(base * 2^(retry-1), max).
pub(super) fn draw(policy: Option<&RetryPolicy>, retry: u32, rng: &mut Rng) -> u64 {
    let back_off = policy.map_or(DEFAULT, |policy| policy.back_off);
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let doubled = 1u64.checked_shl(retry.saturating_sub(1)).unwrap_or(u64::MAX);
    rng.below(ns(back_off.base).saturating_mul(doubled).min(ns(back_off.max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_greatest() {
        let mut rng = Rng::new(1);
        for (retry, bound_ms) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (64, 250), (200, 250)] {
            let longest = (0..2000).map(|_| draw(None, retry, &mut rng)).max().unwrap();
            assert!(longest < bound_ms * 1_000_000, "{retry}: {longest}");
            assert!(longest > bound_ms * 980_000, "{retry}: {longest} is not spread over the whole range");
        }
    }
}
