//! Weighted turns: earliest deadline first. Each member's next turn is due one step (inverse of its weight) after
//! its last, so turns of different weights interleave evenly and repeat exactly. A turn is one sift in a heap
//! of fixed size.

/// Step of weight 1, in virtual time.
const STEP: f64 = (1u64 << 40) as f64;
/// Beyond it all deadlines are moved back.
const DEADLINE_MAX: u64 = 1 << 61;
/// The least weight, so that a step stays far below the range of a deadline.
const WEIGHT_MIN: f64 = 1.0 / 1024.0;

#[derive(Clone, Copy, Debug)]
struct Turn {
    deadline: u64,
    /// Between equal deadlines who waits longest is first.
    order: u64,
    member: u32,
}

impl Turn {
    fn is_before(&self, other: &Turn) -> bool {
        (self.deadline, self.order) < (other.deadline, other.order)
    }
}

#[derive(Debug, Default)]
pub(super) struct Edf {
    heap: Vec<Turn>,
    turns: u64,
}

fn step(weight: f64) -> u64 {
    (STEP / weight.max(WEIGHT_MIN)) as u64
}

impl Edf {
    /// Members are numbered in the order of their weights.
    pub fn new(weights: impl Iterator<Item = f64>) -> Edf {
        let mut heap: Vec<Turn> = (0u32..)
            .zip(weights)
            .map(|(member, weight)| Turn { deadline: step(weight), order: u64::from(member), member })
            .collect();
        // a sorted array is a heap
        heap.sort_by_key(|turn| (turn.deadline, turn.order));
        let turns = heap.len() as u64;
        Edf { heap, turns }
    }

    /// Whose turn it is; `weight` of that member decides when its next one is. None: nobody is here.
    pub fn next(&mut self, weight: impl FnOnce(u32) -> f64) -> Option<u32> {
        let first = self.heap.first_mut()?;
        let member = first.member;
        first.deadline += step(weight(member));
        first.order = self.turns;
        let far = first.deadline > DEADLINE_MAX;
        self.turns += 1;
        self.sift_down();
        if far {
            self.rebase();
        }
        Some(member)
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child].is_before(&self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// All deadlines back by the earliest: their order stays.
    fn rebase(&mut self) {
        let base = self.heap.first().map_or(0, |turn| turn.deadline);
        self.heap.iter_mut().for_each(|turn| turn.deadline -= base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_interleave_and_follow_weights_exactly() {
        let weights = [5.0, 1.0, 2.0];
        let mut edf = Edf::new(weights.into_iter());
        let mut seen = [0; 3];
        let mut longest_run = 0;
        let (mut run, mut last) = (0, 9);
        for _ in 0..8_000 {
            let member = edf.next(|m| weights[m as usize]).unwrap();
            seen[member as usize] += 1;
            run = if member == last { run + 1 } else { 1 };
            last = member;
            longest_run = longest_run.max(run);
        }
        assert_eq!(seen, [5_000, 1_000, 2_000]);
        assert!(longest_run <= 3, "{longest_run}");
    }

    #[test]
    fn equal_weights_take_turns() {
        let mut edf = Edf::new([1.0; 4].into_iter());
        let turns: Vec<u32> = (0..8).map(|_| edf.next(|_| 1.0).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(Edf::default().next(|_| 1.0), None);
    }

    #[test]
    fn goes_on_when_deadlines_are_moved_back() {
        let weights = [WEIGHT_MIN, 2.0 * WEIGHT_MIN];
        let mut edf = Edf::new(weights.into_iter());
        let mut seen = [0u32; 2];
        for _ in 0..9_000 {
            seen[edf.next(|m| weights[m as usize]).unwrap() as usize] += 1;
        }
        assert_eq!(seen, [3_000, 6_000]);
    }
}
