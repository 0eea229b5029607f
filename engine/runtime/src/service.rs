//! The tasks that every core runs for itself, from the first turn to the orderly end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::clock::Nanos;
use crate::core::Core;
use crate::event::{Readiness, TimerFd};
use crate::mailbox::MailReceiver;
use crate::timers::Deadline;

/// Letters handled before other tasks get a turn.
const MAIL_BATCH_MAX: usize = 64;
/// How often free buffers are looked at. What a rush took goes back after one to two of these.
const TRIM_PERIOD: Duration = Duration::from_millis(400);
/// A stopping core looks this often, this long apart, whether its cancelled operations have handed their buffers back.
const WIND_DOWN_LOOKS_MAX: usize = 100;
const WIND_DOWN_PAUSE: Duration = Duration::from_millis(2);

/// The root future of a core's thread: starts the core's own tasks, runs `main`, and ends in good order. False if
/// `main` panicked.
pub(crate) async fn run(
    core: Rc<Core>,
    mail: MailReceiver,
    main: impl Future<Output = ()> + 'static,
) -> io::Result<bool> {
    let (tasks, service) = core.task_sets();
    let mail_ready = Readiness::new(mail.wake().try_clone()?)?;
    let timer = Rc::new(TimerFd::new()?);
    let timer_ready = Readiness::new(timer.try_clone()?)?;
    let spin = Rc::new(Spin::default());
    let trim = Rc::new(core.timers().deadline());
    service.spawn(turn_end(core.clone(), timer.clone(), trim.clone(), spin.clone()));
    service.spawn(ring_timer(core.clone(), timer, timer_ready));
    service.spawn(read_mail(core.clone(), mail, mail_ready));
    let burst = core.burst().clone();
    service.spawn(async move { burst.turnstile.serve().await });
    service.spawn(trim_buffers(core.clone(), trim));
    if !core.busy_poll().is_zero() {
        service.spawn(spin_first(core.clone(), spin.clone()));
        service.spawn(spin_second(spin));
    }

    let ended = Rc::new(Ended::default());
    let guard = EndGuard(ended.clone());
    tasks.spawn(async move {
        main.await;
        guard.0.completed.set(true);
    });
    ended.wait().await;
    let orderly = ended.completed.get() || core.is_stopping();
    wind_down(&core).await;
    Ok(orderly)
}

/// Drops all tasks while the loop still runs, so that their operations are cancelled and hand their buffers back.
async fn wind_down(core: &Rc<Core>) {
    let (tasks, service) = core.task_sets();
    core.stop();
    core.forget_adopter();
    for _ in 0..WIND_DOWN_LOOKS_MAX {
        // Sleeping, not yielding: only a waiting loop submits and collects.
        core.timers().sleep(WIND_DOWN_PAUSE).await;
        if tasks.live() == 0 && core.buffers_in_use() == 0 {
            break;
        }
    }
    service.stop();
    core.clock().set_turn_end(None);
    core.yield_now().await;
}

/// Set when main's future is gone, for whatever reason.
#[derive(Default)]
struct Ended {
    gone: Cell<bool>,
    completed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Ended {
    fn wait(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|cx| {
            if self.gone.get() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
    }
}

struct EndGuard(Rc<Ended>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.gone.set(true);
        let waker = self.0.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Runs behind the tasks of each turn that looked at the clock.
async fn turn_end(core: Rc<Core>, timer: Rc<TimerFd>, trim: Rc<Deadline>, spin: Rc<Spin>) {
    poll_fn(|cx| -> Poll<()> {
        let clock = core.clock();
        if !clock.has_turn_end() {
            clock.set_turn_end(Some(cx.waker().clone()));
        }
        core.timers().set_kernel_timer(&timer);
        // Outside a turn the clock must not be asked: that would open one, whose end is this task again.
        if clock.in_turn() {
            if !trim.is_armed() && core.pools().iter().any(|pool| pool.holds_surplus()) {
                trim.arm(clock.now() + TRIM_PERIOD);
                core.timers().set_kernel_timer(&timer);
            }
            if !core.busy_poll().is_zero() {
                spin.begin(clock.now() + core.busy_poll());
            }
            clock.close_turn();
        }
        Poll::Pending
    })
    .await;
}

async fn ring_timer(core: Rc<Core>, timer: Rc<TimerFd>, ready: Readiness) {
    loop {
        if ready.wait().await.is_err() {
            // The descriptor is ours and stays open, so this is the driver refusing for a moment.
            core.yield_now().await;
            continue;
        }
        timer.drain();
        core.timers().kernel_timer_rang();
        core.timers().fire(core.now());
    }
}

async fn read_mail(core: Rc<Core>, mail: MailReceiver, ready: Readiness) {
    loop {
        for _ in 0..MAIL_BATCH_MAX {
            if mail.must_stop() {
                return core.stop();
            }
            let Some(letter) = mail.try_recv() else { break };
            // Opens a turn, so that a letter which never returns shows as a stall.
            core.now();
            if catch_unwind(AssertUnwindSafe(|| core.receive(letter))).is_err() {
                core.count_panic();
            }
        }
        if !mail.prepare_sleep() || ready.wait().await.is_err() {
            core.yield_now().await;
            continue;
        }
        mail.wake().drain();
    }
}

/// Its deadline is armed at the end of a turn that left free buffers, so an idle core is woken twice and then rests.
async fn trim_buffers(core: Rc<Core>, trim: Rc<Deadline>) {
    loop {
        trim.expired().await;
        for pool in core.pools() {
            let mut surplus = pool.surplus();
            while surplus > 0 {
                surplus = pool.give_back(surplus);
                core.yield_now().await;
            }
        }
        trim.disarm();
    }
}

/// Busy-polling: two tasks that wake each other keep the loop from sleeping, and each lap it looks for completions.
/// One task alone would wake itself to the front of the queue and starve the others.
#[derive(Default)]
struct Spin {
    until: Cell<Nanos>,
    first: RefCell<Option<Waker>>,
    second: RefCell<Option<Waker>>,
}

impl Spin {
    fn begin(&self, until: Nanos) {
        self.until.set(until);
        wake(&self.first);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow().as_ref() {
        waker.wake_by_ref();
    }
}

async fn spin_first(core: Rc<Core>, spin: Rc<Spin>) {
    poll_fn(|cx| -> Poll<()> {
        if spin.first.borrow().is_none() {
            spin.first.replace(Some(cx.waker().clone()));
        }
        if core.clock().now_exact() < spin.until.get() {
            wake(&spin.second);
        }
        Poll::Pending
    })
    .await;
}

async fn spin_second(spin: Rc<Spin>) {
    poll_fn(|cx| -> Poll<()> {
        if spin.second.borrow().is_none() {
            spin.second.replace(Some(cx.waker().clone()));
        }
        wake(&spin.first);
        Poll::Pending
    })
    .await;
}
