//! Slow start: an endpoint that came (back) into use gets its share little by little. Reference: Envoy, "Slow
//! start mode": weight * max(min_weight_percent, (time / window) ^ (1 / aggression)).

use corelane_snapshot::{SlowStart, live::EndpointLive};
use std::sync::atomic::Ordering::Relaxed;

/// Ticks until which the endpoint starts slowly; 0: it does not.
pub(super) fn until_ns(config: &SlowStart, live: &EndpointLive) -> u64 {
    match live.usable_since_ns.load(Relaxed) {
        0 => 0,
        since => since.saturating_add(config.window.as_nanos() as u64),
    }
}

/// What the endpoint's weight is multiplied by: above 0, at most 1.
pub(super) fn factor(config: &SlowStart, live: &EndpointLive, now_ns: u64) -> f64 {
    const SECOND_NS: u64 = 1_000_000_000;
    let until = until_ns(config, live);
    let window = config.window.as_nanos() as u64;
    if now_ns >= until || window == 0 {
        return 1.0;
    }
    let age = now_ns.saturating_sub(until - window).max(SECOND_NS.min(window));
    let time = (age as f64 / window as f64).min(1.0);
    let aggression = if config.aggression > 0.0 { config.aggression } else { 1.0 };
    time.powf(1.0 / aggression).max(config.min_weight_percent / 100.0).clamp(0.001, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn config(aggression: f64) -> SlowStart {
        SlowStart { window: Duration::from_secs(100), aggression, min_weight_percent: 10.0 }
    }

    #[test]
    fn the_weight_grows_to_full() {
        let live = EndpointLive::default();
        let at = |config: &SlowStart, s: u64| (factor(config, &live, s * SECOND) * 1000.0).round() as u32;
        assert_eq!(at(&config(1.0), 5), 1000, "there from the start");
        live.usable_since_ns.store(1000 * SECOND, Relaxed);
        assert_eq!(at(&config(1.0), 1000), 100, "min_weight_percent");
        assert_eq!(at(&config(1.0), 1050), 500);
        assert_eq!(at(&config(2.0), 1025), 500, "aggression 2: square root");
        assert_eq!(at(&config(1.0), 1099), 990);
        assert_eq!(at(&config(1.0), 1100), 1000);
    }
}
