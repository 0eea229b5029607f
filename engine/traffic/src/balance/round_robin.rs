//! Round robin: everybody's turn in order. With weights that stay, the turns of one round are laid out once; while
//! weights change (slow start), or a round would be long, turns are taken by deadline.

use super::{edf::Edf, hosts::Weights};
use crate::Rng;

/// Turns of a round that are laid out.
const ROUND_MAX: u64 = 4096;

#[derive(Debug)]
pub(super) enum RoundRobin {
    Even { next: usize },
    Round { turns: Box<[u32]>, next: usize },
    ByDeadline(Edf),
}

impl RoundRobin {
    /// Starts at a random turn: cores that all begin with the first endpoint would overrun it.
    pub fn new(weights: &Weights<'_>, rng: &mut Rng) -> RoundRobin {
        let hosts = weights.len();
        if weights.are_even() {
            return RoundRobin::Even { next: rng.below(hosts as u64) as usize };
        }
        let mut edf = Edf::new((0..hosts as u32).map(|member| weights.of(member)));
        if let Some(round) = round_of(weights) {
            let turns: Box<[u32]> =
                (0..round).filter_map(|_| edf.next(|member| weights.of(member))).collect();
            let next = rng.below(turns.len() as u64) as usize;
            return RoundRobin::Round { turns, next };
        }
        for _ in 0..rng.below(hosts as u64) {
            edf.next(|member| weights.of(member));
        }
        RoundRobin::ByDeadline(edf)
    }

    #[inline]
    pub fn pick(&mut self, weights: &Weights<'_>) -> Option<u32> {
        match self {
            RoundRobin::Even { next } => {
                let turn = step(next, weights.len());
                (turn < weights.len()).then_some(turn as u32)
            }
            RoundRobin::Round { turns, next } => turns.get(step(next, turns.len())).copied(),
            RoundRobin::ByDeadline(edf) => edf.next(|member| weights.of(member)),
        }
    }
}

/// The turn it is; the next one after it.
fn step(next: &mut usize, turns: usize) -> usize {
    let turn = *next;
    *next = if turn + 1 >= turns { 0 } else { turn + 1 };
    turn
}

/// After how many turns weights that stay come round; None: they change, or it takes too long.
fn round_of(weights: &Weights<'_>) -> Option<u64> {
    if weights.are_changing() {
        return None;
    }
    let each = || (0..weights.len() as u32).map(|member| weights.of(member) as u64);
    let divisor = each().fold(0, gcd).max(1);
    let round = each().sum::<u64>() / divisor;
    (round <= ROUND_MAX).then_some(round)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
