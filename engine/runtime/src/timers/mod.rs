//! Deadlines of a core: coarse, cheap to move, and free while nothing is armed.
//!
//! A connection or request slot registers one [`Deadline`] for its life and arms it again and again. Resolution is
//! about 1 ms; instants more than 128 ms away are rounded up by at most 1.6 %. A deadline never fires early. One kernel
//! timer per core drives the wheel, set at most once per turn and only when it would ring too late.

mod wheel;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::{Nanos, TurnClock};
use crate::event::TimerFd;
use wheel::{Armed, NEVER, Wheel};

/// Deadlines that one core can hold. One beyond it counts as expired as soon as it is armed, which sheds the work
/// that asked for it; see [`Timers::refused`].
pub const DEADLINES_MAX: usize = 1 << 21;

const TICK_BITS: u32 = 20;

/// The instant of a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

/// The timers of one core. Cloning shares them.
#[derive(Clone)]
pub struct Timers(Rc<Shared>);

struct Shared {
    wheel: RefCell<Wheel>,
    clock: Rc<TurnClock>,
    /// The tick for which the kernel timer is set; NEVER if it is not.
    kernel_tick: Cell<u64>,
    /// Something was filed since the kernel timer was last compared with the wheel.
    filed: Cell<bool>,
    refused: Cell<u64>,
}

impl Timers {
    pub(crate) fn new(clock: Rc<TurnClock>) -> Timers {
        let now = tick_before(clock.now_exact());
        Timers(Rc::new(Shared {
            wheel: RefCell::new(Wheel::new(now)),
            clock,
            kernel_tick: Cell::new(NEVER),
            filed: Cell::new(false),
            refused: Cell::new(0),
        }))
    }

    /// Registers a deadline, disarmed.
    pub fn deadline(&self) -> Deadline {
        let mut wheel = self.0.wheel.borrow_mut();
        let id = if wheel.live() < DEADLINES_MAX {
            Some(wheel.insert())
        } else {
            self.0.refused.set(self.0.refused.get() + 1);
            None
        };
        drop(wheel);
        Deadline { shared: self.0.clone(), id }
    }

    /// Waits for `fut` until `at` at the latest.
    pub fn timeout<F: Future>(&self, at: Nanos, fut: F) -> Timeout<F> {
        let deadline = self.deadline();
        deadline.arm(at);
        Timeout { deadline, fut }
    }

    pub async fn sleep_until(&self, at: Nanos) {
        let deadline = self.deadline();
        deadline.arm(at);
        deadline.expired().await;
    }

    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.0.clock.now() + duration).await;
    }

    /// Ticks every `period`, first after one period. A late tick is not made up for.
    pub fn interval(&self, period: Duration) -> Interval {
        let next = self.0.clock.now() + period;
        Interval { deadline: self.deadline(), clock: self.0.clock.clone(), next, period }
    }

    /// Deadlines registered now.
    pub fn registered(&self) -> usize {
        self.0.wheel.borrow().live()
    }

    /// Deadlines refused because there were [`DEADLINES_MAX`].
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Wakes whom a deadline has come for.
    pub(crate) fn fire(&self, now: Nanos) {
        let now_tick = tick_before(now);
        loop {
            // Not in the loop's head: the borrow must end before the waker runs.
            let fired = self.0.wheel.borrow_mut().fire_next(now_tick);
            match fired {
                Some(Some(waker)) => waker.wake(),
                Some(None) => {}
                None => return,
            }
        }
    }

    /// Sets the kernel timer if the wheel must be looked at earlier than it would ring.
    #[inline]
    pub(crate) fn set_kernel_timer(&self, timer: &TimerFd) {
        if self.0.filed.replace(false) {
            self.compare_kernel_timer(timer);
        }
    }

    fn compare_kernel_timer(&self, timer: &TimerFd) {
        let next = self.0.wheel.borrow().next_tick().unwrap_or(NEVER);
        if next < self.0.kernel_tick.get() {
            self.0.kernel_tick.set(next);
            timer.set(Some(Nanos::from_u64(next << TICK_BITS)), self.0.clock.now_exact());
        }
    }

    /// The kernel timer rang.
    pub(crate) fn kernel_timer_rang(&self) {
        self.0.kernel_tick.set(NEVER);
        self.0.filed.set(true);
    }
}

impl Shared {
    fn arm(&self, id: u32, at: Nanos) {
        let now = self.clock.now();
        if at <= now {
            let waker = self.wheel.borrow_mut().expire(id);
            if let Some(waker) = waker {
                waker.wake();
            }
            return;
        }
        // `now` opened the turn, whose end looks at the kernel timer.
        let mut wheel = self.wheel.borrow_mut();
        wheel.catch_up(tick_before(now));
        if wheel.arm(id, coarse_tick(at, now)) == Armed::Filed {
            self.filed.set(true);
        }
    }
}

/// The last tick that has begun at `now`.
fn tick_before(now: Nanos) -> u64 {
    now.as_u64() >> TICK_BITS
}

/// The first tick at or after `at`, rounded up such that far instants share ticks, each of which wakes the core: by
/// at most a 64th of the time until then.
fn coarse_tick(at: Nanos, now: Nanos) -> u64 {
    if at == Nanos::MAX {
        return NEVER;
    }
    let tick = at.as_u64().saturating_add((1 << TICK_BITS) - 1) >> TICK_BITS;
    let ahead = tick.saturating_sub(tick_before(now)).max(1);
    let grain = 1u64 << ahead.ilog2().saturating_sub(6);
    tick.saturating_add(grain - 1) & !(grain - 1)
}

/// One registered deadline; see the module's head. Arming and disarming are a few stores.
pub struct Deadline {
    shared: Rc<Shared>,
    /// None if it could not be registered: then it is always expired.
    id: Option<u32>,
}

impl Deadline {
    /// Sets or moves it. An instant that has passed expires at once; [`Nanos::MAX`] disarms.
    #[inline]
    pub fn arm(&self, at: Nanos) {
        if let Some(id) = self.id {
            if at == Nanos::MAX {
                self.disarm();
            } else {
                self.shared.arm(id, at);
            }
        }
    }

    #[inline]
    pub fn disarm(&self) {
        if let Some(id) = self.id {
            self.shared.wheel.borrow_mut().disarm(id);
        }
    }

    /// Armed, expired or not.
    pub fn is_armed(&self) -> bool {
        self.id.is_none_or(|id| self.shared.wheel.borrow().armed(id))
    }

    /// Armed and expired since.
    pub fn is_expired(&self) -> bool {
        self.id.is_none_or(|id| self.shared.wheel.borrow().fired(id))
    }

    /// Ready once it has expired; pending while it is disarmed. Wakes only the last task that asked.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(id) = self.id else { return Poll::Ready(()) };
        let mut wheel = self.shared.wheel.borrow_mut();
        if wheel.fired(id) {
            return Poll::Ready(());
        }
        let replaced = wheel.watch(id, cx.waker());
        drop(wheel);
        drop(replaced);
        Poll::Pending
    }

    /// Waits until it expires: for ever while it is disarmed.
    pub fn expired(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|cx| self.poll_expired(cx))
    }

    /// Waits for `fut` while this deadline has not expired. It stays armed.
    pub fn limit<F: Future>(&self, fut: F) -> Limited<'_, F> {
        Limited { deadline: self, fut }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.shared.wheel.borrow_mut().remove(id);
            drop(waker);
        }
    }
}

/// Polls the future first: what is ready in time counts, even if the deadline was noticed in the same turn.
fn poll_limited<F: Future>(
    deadline: &Deadline,
    fut: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Elapsed>> {
    if let Poll::Ready(output) = fut.poll(cx) {
        return Poll::Ready(Ok(output));
    }
    deadline.poll_expired(cx).map(|()| Err(Elapsed))
}

/// Of [`Timers::timeout`].
pub struct Timeout<F> {
    deadline: Deadline,
    fut: F,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `fut` is never moved out of the pinned self, and Timeout has no Drop that could move it.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above: `fut` is pinned because self is.
        poll_limited(&this.deadline, unsafe { Pin::new_unchecked(&mut this.fut) }, cx)
    }
}

/// Of [`Deadline::limit`].
pub struct Limited<'a, F> {
    deadline: &'a Deadline,
    fut: F,
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `fut` is never moved out of the pinned self, and Limited has no Drop that could move it.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above: `fut` is pinned because self is.
        poll_limited(this.deadline, unsafe { Pin::new_unchecked(&mut this.fut) }, cx)
    }
}

/// Of [`Timers::interval`].
pub struct Interval {
    deadline: Deadline,
    clock: Rc<TurnClock>,
    next: Nanos,
    period: Duration,
}

impl Interval {
    pub async fn tick(&mut self) {
        self.deadline.arm(self.next);
        self.deadline.expired().await;
        self.next = self.clock.now() + self.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Nanos {
        Nanos::from_u64(ms * 1_000_000)
    }

    #[test]
    fn ticks_never_lie_before_their_instant() {
        for now in [0, 1, 999, 12_345] {
            for after in [0, 1, 2, 1_000, 4_000, 5_000, 60_000, 300_000, 86_400_000] {
                let (now, at) = (ms(now), ms(now + after));
                let fires = coarse_tick(at, now) << TICK_BITS;
                assert!(fires >= at.as_u64(), "{after} ms");
                let late = fires - at.as_u64();
                assert!(late <= (1 << TICK_BITS) + at.since(now).as_nanos() as u64 / 60, "{after} ms");
            }
        }
    }

    #[test]
    fn the_last_instant_means_never() {
        assert_eq!(coarse_tick(Nanos::MAX, ms(5)), NEVER);
    }
}
