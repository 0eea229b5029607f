//! A small seeded generator, one a core. Every random decision takes it as an argument, so a simulation with
//! the same seed makes the same decisions. Not for secrets.

/// wyrand: one multiplication a draw, passes the usual statistical batteries.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// Uniform over u64.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// Uniform in `0..bound`, with a bias below `bound / 2^64`; 0 for a bound of 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `0..=max`.
    pub fn up_to(&mut self, max: u64) -> u64 {
        match max.checked_add(1) {
            Some(bound) => self.below(bound),
            None => self.next_u64(),
        }
    }

    /// True for `percent` of 100 draws; 100 and above: always, without a draw.
    pub fn percent(&mut self, percent: u32) -> bool {
        percent >= 100 || (percent > 0 && self.below(100) < u64::from(percent))
    }
}

/// Draws that spread evenly instead of at random: after n of them every share of the range was met n times its
/// size, give or take a few. For weights, where 1 % of 1,000 requests should be 10.
#[derive(Clone, Debug)]
pub struct EvenDraws(u64);

impl EvenDraws {
    pub const fn new(seed: u64) -> EvenDraws {
        EvenDraws(seed)
    }

    /// The additive recurrence of the golden ratio: of all step sizes the one whose gaps are most even.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(Rng::new(7).next_u64(), Rng::new(8).next_u64());
    }

    #[test]
    fn draws_are_uniform_and_in_bounds() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 10];
        for _ in 0..100_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (9_600..10_400).contains(&n)), "{seen:?}");
        assert_eq!((rng.below(0), rng.below(1), rng.up_to(0)), (0, 0, 0));
    }

    #[test]
    fn even_draws_meet_a_share_exactly() {
        for seed in 0..50 {
            let mut draws = EvenDraws::new(seed * 0x0123_4567_89ab_cdef);
            let hits = (0..100_000).filter(|_| draws.next_u64() < u64::MAX / 100).count();
            assert!((995..=1005).contains(&hits), "seed {seed}: {hits}");
        }
    }

    #[test]
    fn percent_is_exact_at_both_ends() {
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| rng.percent(100) && !rng.percent(0)));
        let hits = (0..100_000).filter(|_| rng.percent(25)).count();
        assert!((24_500..25_500).contains(&hits), "{hits}");
    }
}
