//! When requests are meant to leave. Times depend on the rate and the seed alone, never on answers.

use serde::{Deserialize, Serialize};

/// How intended send times are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Equal gaps.
    Constant,
    /// Exponential gaps, as independent callers have them.
    Poisson,
}

/// An endless sequence of intended send times in nanoseconds.
pub struct Schedule {
    arrivals: Arrivals,
    gap_ns: f64,
    next_ns: f64,
    random: Random,
}

impl Schedule {
    /// `rate` is in requests a second; the first is due at `from_ns`.
    pub fn new(arrivals: Arrivals, rate: f64, seed: u64, from_ns: u64) -> Self {
        Schedule { arrivals, gap_ns: 1e9 / rate, next_ns: from_ns as f64, random: Random::new(seed) }
    }

    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    pub fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Constant => self.gap_ns,
            Arrivals::Poisson => -self.gap_ns * (1.0 - self.random.unit()).ln(),
        };
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): seeded, replayable, good enough for gaps and coin tosses.
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seed: u64, count: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(arrivals, 1_000.0, seed, 0);
        (0..count)
            .map(|_| {
                let at = schedule.next_ns();
                schedule.advance();
                at
            })
            .collect()
    }

    #[test]
    fn constant_gaps_do_not_drift() {
        let times = times(Arrivals::Constant, 0, 10_001);
        assert_eq!(times[..3], [0, 1_000_000, 2_000_000]);
        assert_eq!(times[10_000], 10_000_000_000);
    }

    #[test]
    fn poisson_gaps_replay_from_their_seed_and_keep_the_rate() {
        let first = times(Arrivals::Poisson, 7, 100_001);
        assert_eq!(first, times(Arrivals::Poisson, 7, 100_001));
        assert_ne!(first[1..10], times(Arrivals::Poisson, 8, 10)[1..]);
        let mean_gap_ns = first[100_000] as f64 / 100_000.0;
        assert!((mean_gap_ns - 1e6).abs() < 2e4, "mean gap {mean_gap_ns} ns");
        // an exponential distribution's deviation equals its mean
        let variance =
            first.windows(2).map(|w| ((w[1] - w[0]) as f64 - mean_gap_ns).powi(2)).sum::<f64>() / 1e5;
        assert!((variance.sqrt() / mean_gap_ns - 1.0).abs() < 0.02);
    }

    #[test]
    fn unit_stays_below_one() {
        let mut random = Random::new(1);
        assert!((0..100_000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
