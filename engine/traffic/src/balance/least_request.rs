//! Least request. With even weights the least busy of a few drawn at random (power of choices); otherwise turns by
//! deadline, a member's weight being weight / (active requests + 1) ^ bias. Requests are counted over all cores.
//! Reference: Envoy, "Weighted least request".

use super::{edf::Edf, hosts::Weights};
use crate::Rng;

#[derive(Debug)]
pub(super) struct LeastRequest {
    choices: u32,
    bias: f64,
    weighted: Option<Edf>,
}

impl LeastRequest {
    pub fn new(choices: u32, bias: f64, weights: &Weights<'_>, rng: &mut Rng) -> LeastRequest {
        let weighted = (!weights.are_even()).then(|| {
            let hosts = weights.len() as u32;
            let mut edf = Edf::new((0..hosts).map(|member| biased(weights, member, bias)));
            for _ in 0..rng.below(u64::from(hosts)) {
                edf.next(|member| biased(weights, member, bias));
            }
            edf
        });
        LeastRequest { choices: choices.max(1), bias, weighted }
    }

    pub fn pick(&mut self, weights: &Weights<'_>, rng: &mut Rng) -> Option<u32> {
        let bias = self.bias;
        if let Some(edf) = &mut self.weighted {
            return edf.next(|member| biased(weights, member, bias));
        }
        let hosts = weights.len() as u32;
        if hosts == 0 {
            return None;
        }
        let mut best = rng.below(u64::from(hosts)) as u32;
        let mut drawn = best;
        let all = self.choices >= hosts;
        for _ in 1..self.choices.min(hosts) {
            // never the one just drawn, so that two choices are two endpoints
            let skip = if all { 1 } else { 1 + rng.below(u64::from(hosts - 1)) as u32 };
            drawn = (drawn + skip) % hosts;
            if weights.active(drawn) < weights.active(best) {
                best = drawn;
            }
        }
        Some(best)
    }
}

fn biased(weights: &Weights<'_>, member: u32, bias: f64) -> f64 {
    let busy = f64::from(weights.active(member)) + 1.0;
    // Envoy's default; a division is a tenth of a power's cost
    if bias == 1.0 { weights.of(member) / busy } else { weights.of(member) / busy.powf(bias) }
}
