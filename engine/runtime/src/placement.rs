//! On which core a connection lives.
//!
//! A connection belongs to one core for life, so the choice is made once, at accept, by connection counts that all
//! cores share. The kernel already spread the connections over the cores' listeners; moving one costs a wake-up of
//! the other core, so among many it stays unless this core is clearly ahead of the least loaded one. Few connections may
//! each carry much (HTTP/2): those are spread exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A core keeps what it accepted while it is ahead of the least loaded one by at most this part of its connections.
const SLACK_PART: usize = 16;

#[repr(align(128))]
#[derive(Default)]
struct Load(AtomicUsize);

/// The shared table of connection counts, one cache line per core.
pub struct Placement {
    loads: Box<[Load]>,
}

impl Placement {
    pub fn new(cores: usize) -> Arc<Placement> {
        Arc::new(Placement { loads: (0..cores).map(|_| Load::default()).collect() })
    }

    pub fn cores(&self) -> usize {
        self.loads.len()
    }

    /// Connections that live on `core` now.
    pub fn load(&self, core: usize) -> usize {
        self.loads.get(core).map_or(0, |load| load.0.load(Ordering::Relaxed))
    }

    /// The core for a connection that `from` just accepted. Counts move concurrently: the answer is a good choice,
    /// not an exact one. Follow with [`Placement::claim`], at once, so that a burst of accepts spreads.
    pub fn choose(&self, from: usize) -> usize {
        let own = self.load(from);
        let mut best = (own, from);
        for core in 0..self.loads.len() {
            let load = self.load(core);
            if load < best.0 {
                best = (load, core);
            }
        }
        if own <= best.0 + own / SLACK_PART { from } else { best.1 }
    }

    /// Counts one connection on `core` until the guard is dropped, on whichever thread that happens.
    pub fn claim(self: &Arc<Self>, core: usize) -> LoadGuard {
        if let Some(load) = self.loads.get(core) {
            load.0.fetch_add(1, Ordering::Relaxed);
        }
        LoadGuard { placement: self.clone(), core }
    }
}

/// One connection's share of its core's load.
pub struct LoadGuard {
    placement: Arc<Placement>,
    core: usize,
}

impl LoadGuard {
    pub fn core(&self) -> usize {
        self.core
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        if let Some(load) = self.placement.loads.get(self.core) {
            load.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_spread_exactly() {
        let placement = Placement::new(3);
        let mut guards = Vec::new();
        for round in 0..4 {
            // the kernel gives them all to one core
            let mut cores: Vec<_> = (0..3)
                .map(|_| {
                    guards.push(placement.claim(placement.choose(0)));
                    guards[guards.len() - 1].core()
                })
                .collect();
            cores.sort_unstable();
            assert_eq!(cores, [0, 1, 2], "round {round}");
        }
    }

    #[test]
    fn many_stay_within_the_slack_and_leave_beyond_it() {
        let placement = Placement::new(2);
        let mut guards: Vec<_> = (0..2 * SLACK_PART).map(|n| placement.claim(n % 2)).collect();
        assert_eq!(placement.choose(0), 0);
        guards.push(placement.claim(0));
        assert_eq!(placement.choose(0), 0, "one of 17");
        guards.push(placement.claim(0));
        assert_eq!(placement.choose(0), 1, "two of 18");
        assert_eq!(placement.choose(1), 1);
    }

    #[test]
    fn a_dropped_guard_gives_its_share_back() {
        let placement = Placement::new(2);
        let guard = placement.claim(1);
        assert_eq!((placement.load(0), placement.load(1), guard.core()), (0, 1, 1));
        drop(guard);
        assert_eq!(placement.load(1), 0);
    }

    #[test]
    fn a_burst_on_one_core_spreads_evenly() {
        let placement = Placement::new(4);
        let guards: Vec<_> = (0..400).map(|_| placement.claim(placement.choose(0))).collect();
        for core in 1..4 {
            assert!(placement.load(0) <= placement.load(core) + 400 / 4 / SLACK_PART + 2, "core {core}");
        }
        drop(guards);
    }
}
