//! Maglev: a table of prime size that endpoints fill in turns, each in its own order; a key's slot names its
//! endpoint at once. Fairer than a ring and quicker to ask, with a little more disruption when endpoints change.
//! Reference: Eisenbud et al., "Maglev", NSDI 2016, section 3.4; slots and weights as in Envoy.

use super::{Entry, ring_hash::key_of, xxhash::xxh64};
use corelane_snapshot::{EndpointSet, HashLb};

/// Slots of a table, whatever is configured; Envoy's own bound.
pub const MAGLEV_SLOTS_MAX: u64 = 5_000_011;
const VACANT: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Maglev {
    /// Index into the set.
    slots: Vec<u32>,
}

/// The least prime that is not below `size`: in a table of another size some slots would never be filled.
fn prime_from(size: u64) -> u64 {
    let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (size..).find(is_prime).unwrap_or(size)
}

struct Turn {
    index: u32,
    weight: f64,
    target: f64,
    offset: u64,
    skip: u64,
    next: u64,
}

impl Maglev {
    pub fn new(set: &EndpointSet, config: &HashLb, entries: &[Entry]) -> Maglev {
        let size = prime_from(config.maglev_table_size.clamp(2, MAGLEV_SLOTS_MAX));
        let greatest = entries.iter().map(|entry| entry.weight).fold(0.0, f64::max);
        if greatest <= 0.0 {
            return Maglev::empty();
        }
        let mut key = Vec::new();
        let mut turns: Vec<Turn> = Vec::with_capacity(entries.len());
        for entry in entries {
            key_of(set, config, entry.index, &mut key);
            let (offset, skip) = (xxh64(&key, 0) % size, xxh64(&key, 1) % (size - 1) + 1);
            turns.push(Turn { index: entry.index, weight: entry.weight, target: 0.0, offset, skip, next: 0 });
        }
        let mut slots = vec![VACANT; size as usize];
        let mut filled = 0;
        let mut round = 1.0;
        while filled < size {
            for turn in &mut turns {
                // lighter endpoints sit out rounds
                if round * turn.weight < turn.target {
                    continue;
                }
                turn.target += greatest;
                // a prime size and a skip below it visit every slot once in `size` steps
                while slots[((turn.offset + turn.skip * turn.next) % size) as usize] != VACANT {
                    turn.next += 1;
                }
                slots[((turn.offset + turn.skip * turn.next) % size) as usize] = turn.index;
                turn.next += 1;
                filled += 1;
                if filled == size {
                    break;
                }
            }
            round += 1.0;
        }
        Maglev { slots }
    }

    pub fn at(&self, hash: u64) -> Option<u32> {
        self.slots.get((hash % self.slots.len().max(1) as u64) as usize).copied()
    }

    pub fn empty() -> Maglev {
        Maglev { slots: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_sizes_are_prime() {
        assert_eq!(
            [2, 4, 65536, 65537, MAGLEV_SLOTS_MAX].map(prime_from),
            [2, 5, 65537, 65537, MAGLEV_SLOTS_MAX]
        );
    }
}
