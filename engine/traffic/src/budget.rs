//! The retry budget of a cluster: retries may add a share to the load, over a sliding window, plus a few that
//! are allowed whatever the load, so that a quiet service still gets its retries.
//!
//! What counts is what was sent: a request counts once, when its first try is put on the wire
//! ([`count_request`]), and a retry whose earlier tries never reached the wire adds no load and is not charged.
//!
//! Exact over cores: the window's slots are words of (period, count). All retries of one moment go into one
//! slot, so a compare-and-swap on that slot admits exactly as many as fit; around the turn of a slot a second
//! look takes back what two cores admitted at once, and the share is never passed.

use corelane_snapshot::{
    ClusterConfig, RetryBudget, RoutingPriority,
    live::{BUDGET_SLOTS, BudgetWindow},
};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The budget of one priority.
#[inline]
pub fn of(config: &ClusterConfig, priority: RoutingPriority) -> &RetryBudget {
    match priority {
        RoutingPriority::Default => &config.retry_budget,
        RoutingPriority::High => &config.high.retry_budget,
    }
}

/// Periods are counted from 1, so that a word of zero is always stale.
fn period(budget: &RetryBudget, now_ns: u64) -> u64 {
    let slot_ns = (budget.window.as_nanos() as u64 / BUDGET_SLOTS as u64).max(1);
    (now_ns / slot_ns + 1) & COUNT_MASK
}

fn slot_of(period: u64) -> usize {
    (period % BUDGET_SLOTS as u64) as usize
}

/// A request was put on the wire for the first time.
pub fn count_request(window: &BudgetWindow, budget: &RetryBudget, now_ns: u64) {
    let period = period(budget, now_ns);
    let word = &window.slots[slot_of(period)].requests;
    if word.load(SeqCst) >> COUNT_BITS == period {
        word.fetch_add(1, SeqCst);
    } else {
        // stale: the first of its period replaces it; a core that is behind adds to the newer one
        let _ = word.fetch_update(SeqCst, SeqCst, |old| Some(grown(old, period)));
    }
}

/// One retry more, unless it would pass the budget.
pub fn try_retry(window: &BudgetWindow, budget: &RetryBudget, now_ns: u64) -> bool {
    let period = period(budget, now_ns);
    let word = &window.slots[slot_of(period)].retries;
    loop {
        let seen = word.load(SeqCst);
        let (requests, retries) = totals(window, period);
        if retries + 1 > allowed(budget, requests) {
            return false;
        }
        if word.compare_exchange(seen, grown(seen, period), SeqCst, SeqCst).is_err() {
            continue;
        }
        let (requests, retries) = totals(window, period);
        if retries <= allowed(budget, requests) {
            return true;
        }
        shrink(word);
        return false;
    }
}

/// Gives back a retry that was admitted and then not made.
pub fn refund(window: &BudgetWindow, budget: &RetryBudget, now_ns: u64) {
    shrink(&window.slots[slot_of(period(budget, now_ns))].retries);
}

/// Requests and retries now in the window, over all cores.
pub fn in_window(window: &BudgetWindow, budget: &RetryBudget, now_ns: u64) -> (u64, u64) {
    totals(window, period(budget, now_ns))
}

/// Whether a retry that asks now would pass the budget.
pub fn is_exhausted(window: &BudgetWindow, budget: &RetryBudget, now_ns: u64) -> bool {
    let (requests, retries) = in_window(window, budget, now_ns);
    retries + 1 > allowed(budget, requests)
}

fn allowed(budget: &RetryBudget, requests: u64) -> u64 {
    let share = (requests as f64 * budget.percent / 100.0).ceil();
    // Envoy's RetryBudgetImpl::max: "never allowed to go below the min_retry_concurrency, even if the configured
    // percent of the current active requests yields a value that is smaller"
    u64::from(budget.retries_extra).saturating_add(share as u64).max(budget.retries_min.into())
}

fn totals(window: &BudgetWindow, period: u64) -> (u64, u64) {
    let fresh = |word: &AtomicU64| {
        let word = word.load(SeqCst);
        // a core that is ahead may have opened the next period already; it counts
        let age = period.wrapping_sub(word >> COUNT_BITS) & COUNT_MASK;
        let is_fresh = age < BUDGET_SLOTS as u64 || age >= COUNT_MASK - 1;
        if word >> COUNT_BITS != 0 && is_fresh { word & COUNT_MASK } else { 0 }
    };
    window.slots.iter().fold((0, 0), |(requests, retries), slot| {
        (requests + fresh(&slot.requests), retries + fresh(&slot.retries))
    })
}

fn grown(word: u64, period: u64) -> u64 {
    let of = word >> COUNT_BITS;
    if of >= period && of != 0 { word + 1 } else { period << COUNT_BITS | 1 }
}

fn shrink(word: &AtomicU64) {
    let _ = word.fetch_update(SeqCst, SeqCst, |old| (old & COUNT_MASK > 0).then(|| old - 1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const SECOND: u64 = 1_000_000_000;

    fn granted(window: &BudgetWindow, budget: &RetryBudget, now_ns: u64, asked: u32) -> u32 {
        (0..asked).filter(|_| try_retry(window, budget, now_ns)).count() as u32
    }

    #[test]
    fn a_share_of_requests_and_a_few_more() {
        let (window, budget) = (BudgetWindow::default(), RetryBudget::default());
        assert!(!is_exhausted(&window, &budget, 0));
        assert_eq!(granted(&window, &budget, 0, 50), 3);
        assert!(is_exhausted(&window, &budget, 0));
        for _ in 0..100 {
            count_request(&window, &budget, SECOND);
        }
        assert_eq!(granted(&window, &budget, SECOND, 50), 20, "20 % of 100, the 3 are gone");
        assert_eq!(in_window(&window, &budget, SECOND), (100, 23));
    }

    /// circuit_breakers.proto: min_retry_concurrency is a floor, not something on top.
    #[test]
    fn a_configured_budget_is_its_share_and_never_less_than_its_least() {
        for (requests, expected) in [(0, 3), (5, 3), (15, 3), (20, 4), (100, 20)] {
            let (window, budget) = (BudgetWindow::default(), RetryBudget::configured());
            (0..requests).for_each(|_| count_request(&window, &budget, SECOND));
            assert_eq!(granted(&window, &budget, SECOND, 50), expected, "{requests} requests");
        }
    }

    #[test]
    fn the_window_slides() {
        let (window, budget) = (BudgetWindow::default(), RetryBudget::default());
        for _ in 0..100 {
            count_request(&window, &budget, 0);
        }
        assert_eq!(granted(&window, &budget, 0, 100), 23);
        assert_eq!(granted(&window, &budget, 9 * SECOND, 100), 0);
        // both the requests and the retries of the first second have left
        assert_eq!(in_window(&window, &budget, 10 * SECOND), (0, 0));
        assert_eq!(granted(&window, &budget, 10 * SECOND, 100), 3);
    }

    #[test]
    fn zero_percent_and_none_allowed_turns_retries_off() {
        let window = BudgetWindow::default();
        let off = RetryBudget { percent: 0.0, retries_min: 0, ..RetryBudget::configured() };
        count_request(&window, &off, 0);
        assert_eq!(granted(&window, &off, 0, 5), 0);
    }

    #[test]
    fn a_refund_makes_room() {
        let (window, budget) = (BudgetWindow::default(), RetryBudget::default());
        assert_eq!(granted(&window, &budget, 0, 9), 3);
        refund(&window, &budget, 0);
        assert_eq!(granted(&window, &budget, 0, 9), 1);
    }

    #[test]
    fn four_threads_get_exactly_the_budget() {
        let (window, budget) = (BudgetWindow::default(), RetryBudget::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| count_request(&window, &budget, 5 * SECOND)));
            }
        });
        let won = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| won.fetch_add(granted(&window, &budget, 5 * SECOND, 1000), SeqCst));
            }
        });
        assert_eq!(won.load(SeqCst), 203, "20 % of 1000 and 3");
    }

    #[test]
    fn cores_on_both_sides_of_a_slot_never_pass_the_budget() {
        let (window, budget) = (BudgetWindow::default(), RetryBudget::default());
        let won = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for core in 0..4u64 {
                let (window, budget, won) = (&window, &budget, &won);
                scope.spawn(move || {
                    won.fetch_add(granted(window, budget, SECOND - 1 + core % 2, 1000), SeqCst)
                });
            }
        });
        assert!(won.load(SeqCst) <= 3, "{won:?}");
    }
}
