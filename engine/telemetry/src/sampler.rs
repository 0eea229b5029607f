//! Picks one request in so many, for measurements that cost a clock read.

/// One per core. The first request is picked, then every `every`-th.
#[derive(Debug, Clone)]
pub struct Sampler {
    every: u32,
    left: u32,
}

/// Of how many requests one has its added time measured.
pub const ADDED_TIME_SAMPLED_EVERY: u32 = 64;

impl Default for Sampler {
    fn default() -> Self {
        Self::new(ADDED_TIME_SAMPLED_EVERY)
    }
}

impl Sampler {
    /// `every` of 0 picks none.
    pub fn new(every: u32) -> Self {
        Self { every, left: 0 }
    }

    #[inline]
    pub fn pick(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.left = self.every.saturating_sub(1);
        self.every > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_first_and_then_one_in_every() {
        let mut sampler = Sampler::new(3);
        let picks: Vec<bool> = (0..7).map(|_| sampler.pick()).collect();
        assert_eq!(picks, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn zero_picks_none_and_one_picks_all() {
        let (mut none, mut all) = (Sampler::new(0), Sampler::new(1));
        assert!((0..5).all(|_| !none.pick() && all.pick()));
    }
}
