//! A core: what one pinned thread owns, and the only context that the layers above are given.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::{BULK_BUFFERS_KEPT_MAX, BULK_BUFFERS_MAX, BULK_BYTES, BufferPool, BufferStats};
use crate::clock::{Nanos, TurnClock};
use crate::driver::{Driver, DriverChoice};
use crate::frame::FramePool;
use crate::mailbox::{Adopted, Mail, MailSender};
use crate::net::burst::Burst;
use crate::placement::Placement;
use crate::stall::Heartbeat;
use crate::task::TaskSet;
use crate::timers::Timers;

/// The knobs of one core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Position in the list given to [`crate::launch`]; set there.
    pub id: usize,
    /// Pin the thread to this CPU.
    pub cpu: Option<usize>,
    pub driver: DriverChoice,
    /// Submission queue entries of the ring; at least 256.
    pub ring_entries: u32,
    /// Microseconds to go on polling after the last work before sleeping; 0 sleeps at once.
    pub busy_poll_us: u32,
    /// Usable bytes of a pooled buffer.
    pub buffer_bytes: usize,
    /// Free buffers kept for reuse.
    pub buffers_kept_max: usize,
    /// Letters that can wait in the mailbox.
    pub mails_max: usize,
    /// Ring flag IORING_SETUP_COOP_TASKRUN: completions do not interrupt the core.
    pub coop_taskrun: bool,
    /// Ring flag IORING_SETUP_SINGLE_ISSUER.
    pub single_issuer: bool,
    /// Ring flag IORING_SETUP_DEFER_TASKRUN: completions are processed only when the core waits for them. Implies
    /// single_issuer; ignored while busy-polling. Off by default: over coop_taskrun it gained nothing measurable in
    /// a relay of 1 KiB messages, and tasks that keep yielding to each other would keep completions out.
    pub defer_taskrun: bool,
}

impl Default for CoreConfig {
    fn default() -> Self {
        CoreConfig {
            id: 0,
            cpu: None,
            driver: DriverChoice::Auto,
            ring_entries: 1024,
            busy_poll_us: 0,
            buffer_bytes: 16 * 1024,
            buffers_kept_max: 1024,
            mails_max: 4096,
            coop_taskrun: true,
            single_issuer: true,
            defer_taskrun: false,
        }
    }
}

/// What all cores of one launch share.
pub(crate) struct Peers {
    pub(crate) mail: Vec<MailSender>,
    pub(crate) placement: Arc<Placement>,
}

/// A snapshot of one core's counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreStats {
    pub turns: u64,
    pub tasks: usize,
    pub tasks_panicked: u64,
    pub tasks_refused: u64,
    pub deadlines: usize,
    pub deadlines_refused: u64,
    pub mails_refused: u64,
    pub adoptions_dropped: u64,
    pub buffers: BufferStats,
    pub bulk: BufferStats,
    pub frames: BufferStats,
}

type Adopter = Rc<dyn Fn(&Rc<Core>, Adopted)>;

/// One per thread, `!Send`. See the crate's head.
pub struct Core {
    pub id: usize,
    driver: Driver,
    clock: Rc<TurnClock>,
    burst: Rc<Burst>,
    timers: Timers,
    buffers: BufferPool,
    bulk: BufferPool,
    frames: FramePool,
    tasks: Rc<TaskSet>,
    /// The loop's own tasks, which outlive all others.
    service: Rc<TaskSet>,
    peers: Arc<Peers>,
    adopter: RefCell<Option<Adopter>>,
    adoptions_dropped: Cell<u64>,
    stop: Cell<bool>,
    busy_poll: Duration,
}

impl Core {
    pub(crate) fn new(
        config: &CoreConfig,
        driver: Driver,
        heartbeat: Arc<Heartbeat>,
        peers: Arc<Peers>,
    ) -> Rc<Core> {
        let clock = Rc::new(TurnClock::new(heartbeat));
        Rc::new(Core {
            id: config.id,
            driver,
            timers: Timers::new(clock.clone()),
            burst: Burst::new(clock.clone()),
            clock,
            buffers: BufferPool::new(config.buffer_bytes, config.buffers_kept_max),
            bulk: BufferPool::new(BULK_BYTES, BULK_BUFFERS_KEPT_MAX),
            frames: FramePool::new(),
            tasks: Rc::default(),
            service: Rc::default(),
            peers,
            adopter: RefCell::new(None),
            adoptions_dropped: Cell::new(0),
            stop: Cell::new(false),
            busy_poll: Duration::from_micros(config.busy_poll_us.into()),
        })
    }

    /// The event loop it runs on.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    #[inline]
    pub fn clock(&self) -> &TurnClock {
        &self.clock
    }

    /// The time of this turn.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    pub(crate) fn burst(&self) -> &Rc<Burst> {
        &self.burst
    }

    #[inline]
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    #[inline]
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Larger buffers, of [`BULK_BYTES`], for a long run of bytes; None where they are not larger than the ordinary
    /// ones, or as many are in use as may be.
    pub fn bulk(&self) -> Option<&BufferPool> {
        let larger = self.buffers.buffer_bytes() < BULK_BYTES;
        (larger && self.bulk.stats().in_use < BULK_BUFFERS_MAX).then_some(&self.bulk)
    }

    /// Where futures live that are too large to be held by what is idle.
    #[inline]
    pub fn frames(&self) -> &FramePool {
        &self.frames
    }

    /// Buffers of either size that the program or the kernel holds.
    pub(crate) fn buffers_in_use(&self) -> usize {
        self.buffers.stats().in_use + self.bulk.stats().in_use
    }

    pub(crate) fn pools(&self) -> [&BufferPool; 3] {
        [&self.buffers, &self.bulk, self.frames.pool()]
    }

    /// Runs `future` on this core, detached. When the core stops it is dropped where it waits. A panic ends this
    /// task only and is counted. False if it was refused, and so dropped: the core is stopping or full.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> bool {
        self.tasks.spawn(future)
    }

    /// Sends mail to a core; gives it back if its mailbox is full or there is no such core.
    pub fn post(&self, to: usize, mail: Mail) -> Result<(), Mail> {
        match self.peers.mail.get(to) {
            Some(sender) => sender.try_send(mail),
            None => Err(mail),
        }
    }

    /// How many cores there are; their ids are below it.
    pub fn cores(&self) -> usize {
        self.peers.mail.len()
    }

    /// The connection counts that all cores share.
    pub fn placement(&self) -> &Arc<Placement> {
        &self.peers.placement
    }

    /// Sets what happens with connections that other cores hand over. Until then they are closed and counted.
    pub fn on_adopt(&self, adopter: impl Fn(&Rc<Core>, Adopted) + 'static) {
        self.adopter.replace(Some(Rc::new(adopter)));
    }

    /// Ends this core after its current turn, whether or not its main future has ended.
    pub fn stop(&self) {
        self.stop.set(true);
        self.tasks.stop();
    }

    pub fn stats(&self) -> CoreStats {
        CoreStats {
            turns: self.clock.turns(),
            tasks: self.tasks.live(),
            tasks_panicked: self.tasks.panicked.get(),
            tasks_refused: self.tasks.refused.get(),
            deadlines: self.timers.registered(),
            deadlines_refused: self.timers.refused(),
            mails_refused: self.peers.mail.get(self.id).map_or(0, MailSender::refused),
            adoptions_dropped: self.adoptions_dropped.get(),
            buffers: self.buffers.stats(),
            bulk: self.bulk.stats(),
            frames: self.frames.pool().stats(),
        }
    }

    /// Lets the tasks that are queued now run first.
    pub async fn yield_now(&self) {
        crate::task::yield_now().await;
    }

    pub(crate) fn task_sets(&self) -> (&Rc<TaskSet>, &Rc<TaskSet>) {
        (&self.tasks, &self.service)
    }

    pub(crate) fn busy_poll(&self) -> Duration {
        self.busy_poll
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.get()
    }

    /// Breaks the cycle core -> adopter -> core.
    pub(crate) fn forget_adopter(&self) {
        let adopter = self.adopter.take();
        drop(adopter);
    }

    pub(crate) fn receive(self: &Rc<Self>, mail: Mail) {
        match mail {
            Mail::Task(run) => run(self),
            Mail::Adopt(adopted) => {
                // Not held while it runs: it may set another one.
                let adopter = self.adopter.borrow().clone();
                match adopter {
                    Some(adopter) => adopter(self, adopted),
                    None => self.adoptions_dropped.set(self.adoptions_dropped.get() + 1),
                }
            }
        }
    }

    pub(crate) fn count_panic(&self) {
        self.tasks.panicked.set(self.tasks.panicked.get() + 1);
    }
}
