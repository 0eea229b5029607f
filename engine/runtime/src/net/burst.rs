//! Whether a write goes out by itself or with the other writes of its turn.
//!
//! Writes that are submitted together cost one system call, and the processes that they wake run after the last of
//! them. A write without company gains nothing from that: sent directly it is done when the call returns, without a
//! completion and another turn of the loop. Whether there will be company is known only afterwards, so the last turn
//! that wrote tells. Large writes keep the kernel busy long enough to be worth a call of their own.

use std::cell::Cell;
use std::rc::Rc;

use crate::clock::TurnClock;
use crate::task::Turnstile;

/// From here on a write is sent directly whatever else there is.
const LARGE_BYTES: usize = 8 * 1024;
/// Large writes of a turn. The next waits for another turn, so that timers and other connections have theirs: a flow
/// whose source is never empty and whose sink is never full would otherwise never wait.
const LARGE_PER_TURN_MAX: u32 = 16;

/// The writes of one core.
pub(crate) struct Burst {
    clock: Rc<TurnClock>,
    /// The turn that `writes` belongs to.
    turn: Cell<u64>,
    writes: Cell<u32>,
    /// Writes of the last turn before it that had any.
    before: Cell<u32>,
    /// Large ones among `writes`.
    large: Cell<u32>,
    /// Where a write that should wait for another turn does.
    pub(crate) turnstile: Turnstile,
}

impl Burst {
    pub(crate) fn new(clock: Rc<TurnClock>) -> Rc<Burst> {
        Rc::new(Burst {
            clock,
            turn: Cell::new(0),
            writes: Cell::new(0),
            before: Cell::new(0),
            large: Cell::new(0),
            turnstile: Turnstile::default(),
        })
    }

    /// Counts a write of so many bytes; whether it should be sent directly.
    pub(crate) fn sends_directly(&self, bytes: usize) -> bool {
        self.look();
        self.writes.set(self.writes.get().saturating_add(1));
        if bytes >= LARGE_BYTES {
            self.large.set(self.large.get().saturating_add(1));
            return true;
        }
        self.writes.get() == 1 && self.before.get() <= 1
    }

    /// Whether a write of so many bytes should wait for another turn.
    pub(crate) fn is_spent(&self, bytes: usize) -> bool {
        bytes >= LARGE_BYTES && {
            self.look();
            self.large.get() >= LARGE_PER_TURN_MAX
        }
    }

    fn look(&self) {
        // looking at the clock is what makes a turn count
        self.clock.now();
        let turn = self.clock.turns();
        if self.turn.replace(turn) != turn {
            self.before.set(self.writes.replace(0));
            self.large.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both_drivers;

    #[test]
    fn a_write_without_company_is_sent_directly_and_a_large_one_always() {
        on_both_drivers(|core| async move {
            let burst = core.burst();
            assert!(burst.sends_directly(100));
            assert!(!burst.sends_directly(100), "two in one turn");
            assert!(burst.sends_directly(LARGE_BYTES));
            core.yield_now().await;
            assert!(!burst.sends_directly(100), "the turn before had company");
            core.yield_now().await;
            assert!(burst.sends_directly(100), "the turn before had none");
            for _ in 0..LARGE_PER_TURN_MAX {
                assert!(!burst.is_spent(LARGE_BYTES) && burst.sends_directly(LARGE_BYTES));
            }
            assert!(burst.is_spent(LARGE_BYTES) && !burst.is_spent(LARGE_BYTES - 1));
            core.yield_now().await;
            assert!(!burst.is_spent(LARGE_BYTES));
        });
    }
}
