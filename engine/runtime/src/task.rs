//! The tasks of a core: counted, bounded, fenced against panics, and dropped in good order when the core stops.
//!
//! The event loop below neither catches panics nor drops waiting tasks when it ends. So every task is wrapped: a
//! panic ends the task alone, and a stopping core wakes all tasks, each of which then drops its future, which cancels
//! its operations while the loop still runs and can hand their buffers back.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Tasks alive on one core at a time. One beyond it is dropped unpolled, which closes the connection it served.
pub const TASKS_MAX: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct TaskSet {
    /// One slot per live task; None while its task has not been polled yet, or is free.
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<u32>>,
    live: Cell<usize>,
    stopping: Cell<bool>,
    pub(crate) panicked: Cell<u64>,
    pub(crate) refused: Cell<u64>,
}

impl TaskSet {
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Hands `future` to the event loop. False if the set is full or stopping.
    pub(crate) fn spawn(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) -> bool {
        if self.stopping.get() || self.live.get() >= TASKS_MAX {
            self.refused.set(self.refused.get() + 1);
            return false;
        }
        self.live.set(self.live.get() + 1);
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut wakers = self.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() as u32 - 1
        });
        // Dropping the join handle detaches the task.
        drop(monoio::spawn(Fenced { future: Some(future), set: self.clone(), slot, seen: false }));
        true
    }

    /// Makes every task drop its future at its next poll, and asks for that poll.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        let wakers: Vec<_> = self.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        for waker in wakers {
            waker.wake();
        }
    }
}

struct Fenced<F> {
    /// None once it has ended; never moved while Some.
    future: Option<F>,
    set: Rc<TaskSet>,
    slot: u32,
    /// Whether its waker is in the set.
    seen: bool,
}

impl<F: Future<Output = ()>> Future for Fenced<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is only reached through the pinned reference below and never moved; the other fields are
        // not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: `future` is pinned because self is.
        let mut future = unsafe { Pin::new_unchecked(&mut this.future) };
        if this.set.stopping.get() {
            future.set(None);
            return Poll::Ready(());
        }
        if !this.seen {
            this.seen = true;
            this.set.wakers.borrow_mut()[this.slot as usize] = Some(cx.waker().clone());
        }
        let Some(inner) = future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                future.set(None);
                Poll::Ready(())
            }
            Err(_) => {
                // The panic hook has printed the message. A future that panics again in its drop is lost for good.
                this.set.panicked.set(this.set.panicked.get() + 1);
                if catch_unwind(AssertUnwindSafe(|| future.set(None))).is_err() {
                    this.set.panicked.set(this.set.panicked.get() + 1);
                }
                Poll::Ready(())
            }
        }
    }
}

impl<F> Drop for Fenced<F> {
    fn drop(&mut self) {
        let set = &self.set;
        let waker = set.wakers.borrow_mut()[self.slot as usize].take();
        drop(waker);
        set.free.borrow_mut().push(self.slot);
        set.live.set(set.live.get() - 1);
    }
}

/// Lets the tasks that are queued now run first.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself while it runs goes to the front of the loop's queue; through another task it
        // goes to the back.
        let waker = cx.waker().clone();
        drop(monoio::spawn(async move { waker.wake() }));
        Poll::Pending
    })
    .await;
}

/// As [`yield_now`], without a task for each time: one of the core's own wakes those that wait.
#[derive(Default)]
pub(crate) struct Turnstile {
    waiting: RefCell<Vec<Waker>>,
    service: RefCell<Option<Waker>>,
}

impl Turnstile {
    pub(crate) async fn pass(&self) {
        let Some(service) = self.service.borrow().clone() else { return yield_now().await };
        let mut waited = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            service.wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// The core's own task.
    pub(crate) async fn serve(&self) {
        std::future::poll_fn(|cx| -> Poll<()> {
            if self.service.borrow().is_none() {
                self.service.replace(Some(cx.waker().clone()));
            }
            for waker in self.waiting.borrow_mut().drain(..) {
                waker.wake();
            }
            Poll::Pending
        })
        .await;
    }
}
