//! Random. Weights count, by drawing again: an endpoint of half the greatest weight is taken half the times it is
//! drawn. Draws are bounded.

use super::hosts::Weights;
use crate::Rng;

/// Draws until one is taken. With it the last is taken whatever its weight.
const DRAWS_MAX: usize = 64;

pub(super) fn pick(weights: &Weights<'_>, rng: &mut Rng) -> Option<u32> {
    const SCALE: f64 = (1u64 << 53) as f64;
    let hosts = weights.len() as u64;
    if hosts == 0 {
        return None;
    }
    let mut member = rng.below(hosts) as u32;
    if weights.are_even() {
        return Some(member);
    }
    for _ in 0..DRAWS_MAX {
        let taken = (rng.next_u64() >> 11) as f64 / SCALE * weights.greatest();
        if taken < weights.of(member) {
            break;
        }
        member = rng.below(hosts) as u32;
    }
    Some(member)
}
