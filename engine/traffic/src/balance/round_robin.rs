//! Round robin: everybody's turn in order; with weights or in slow start, turns by deadline.

use super::{edf::Edf, hosts::Weights};
use crate::Rng;

#[derive(Debug)]
pub(super) enum RoundRobin {
    Even { next: usize },
    Weighted(Edf),
}

impl RoundRobin {
    /// Starts at a random turn: cores that all begin with the first endpoint would overrun it.
    pub fn new(weights: &Weights<'_>, rng: &mut Rng) -> RoundRobin {
        let hosts = weights.len();
        let start = rng.below(hosts as u64) as usize;
        if weights.are_even() {
            return RoundRobin::Even { next: start };
        }
        let mut edf = Edf::new((0..hosts as u32).map(|member| weights.of(member)));
        for _ in 0..start {
            edf.next(|member| weights.of(member));
        }
        RoundRobin::Weighted(edf)
    }

    #[inline]
    pub fn pick(&mut self, weights: &Weights<'_>) -> Option<u32> {
        match self {
            RoundRobin::Even { next } => {
                let hosts = weights.len();
                let turn = *next;
                *next = if turn + 1 >= hosts { 0 } else { turn + 1 };
                (turn < hosts).then_some(turn as u32)
            }
            RoundRobin::Weighted(edf) => edf.next(|member| weights.of(member)),
        }
    }
}
