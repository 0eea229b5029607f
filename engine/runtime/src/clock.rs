//! Time on a core: at most one clock read per turn of the event loop.
//!
//! The first `now()` of a turn reads the clock, marks the reading fresh and wakes the permanent turn-end task. That
//! task runs behind everything that was queued by then and marks the reading stale. So the work of one turn sees one
//! instant, and a turn without time-keeping costs nothing.

use std::cell::{Cell, RefCell};
use std::ops::{Add, Sub};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::stall::Heartbeat;

/// How long a wall-clock reading is extrapolated from the monotonic clock before it is read again.
const WALL_RESYNC_NS: u64 = 1_000_000_000;

/// Monotonic nanoseconds since this process first looked at its clock. `u64` lasts 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Nanos(u64);

impl Nanos {
    pub const ZERO: Nanos = Nanos(0);
    pub const MAX: Nanos = Nanos(u64::MAX);

    pub const fn from_u64(ns: u64) -> Nanos {
        Nanos(ns)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Reads the clock now. On a core prefer [`TurnClock::now`]; this is for other threads and latency samples.
    pub fn read() -> Nanos {
        Nanos(nanos_of(epoch().elapsed()))
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub const fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub const fn saturating_add(self, by: Duration) -> Nanos {
        Nanos(self.0.saturating_add(nanos_of(by)))
    }

    /// The first instant at or after `self` that is a multiple of `grain`, which must not be zero.
    pub const fn next_multiple_of(self, grain: Duration) -> Nanos {
        match self.0.checked_next_multiple_of(nanos_of(grain)) {
            Some(multiple) => Nanos(multiple),
            None => Nanos::MAX,
        }
    }

    pub const fn saturating_sub(self, by: Duration) -> Nanos {
        Nanos(self.0.saturating_sub(nanos_of(by)))
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;
    fn add(self, by: Duration) -> Nanos {
        self.saturating_add(by)
    }
}

impl Sub<Nanos> for Nanos {
    type Output = Duration;
    fn sub(self, earlier: Nanos) -> Duration {
        self.since(earlier)
    }
}

const fn nanos_of(d: Duration) -> u64 {
    d.as_secs().saturating_mul(1_000_000_000).saturating_add(d.subsec_nanos() as u64)
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos_of)
}

/// The clock of one core. See the module's head for how a turn is delimited.
pub struct TurnClock {
    now: Cell<u64>,
    fresh: Cell<bool>,
    turns: Cell<u64>,
    /// Unix nanoseconds minus monotonic nanoseconds, and when that was last measured.
    wall_offset: Cell<u64>,
    wall_synced: Cell<u64>,
    turn_end: RefCell<Option<Waker>>,
    epoch: Instant,
    heartbeat: Arc<Heartbeat>,
}

impl TurnClock {
    pub(crate) fn new(heartbeat: Arc<Heartbeat>) -> TurnClock {
        let epoch = epoch();
        let now = nanos_of(epoch.elapsed());
        TurnClock {
            now: Cell::new(now),
            fresh: Cell::new(false),
            turns: Cell::new(0),
            wall_offset: Cell::new(unix_now().saturating_sub(now)),
            wall_synced: Cell::new(now),
            turn_end: RefCell::new(None),
            epoch,
            heartbeat,
        }
    }

    /// The time of this turn.
    #[inline]
    pub fn now(&self) -> Nanos {
        if !self.fresh.get() {
            self.open_turn();
        }
        Nanos(self.now.get())
    }

    /// Reads the clock; for latency samples, where the turn's time is too coarse.
    #[inline]
    pub fn now_exact(&self) -> Nanos {
        Nanos(nanos_of(self.epoch.elapsed()))
    }

    /// The turn's time as nanoseconds since 1970-01-01 UTC, for log lines and headers. Follows clock adjustments
    /// within a second.
    pub fn unix_nanos(&self) -> u64 {
        let now = self.now().as_u64();
        if now.saturating_sub(self.wall_synced.get()) > WALL_RESYNC_NS {
            self.wall_offset.set(unix_now().saturating_sub(now));
            self.wall_synced.set(now);
        }
        now.saturating_add(self.wall_offset.get())
    }

    /// Turns that looked at the clock so far.
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    #[cold]
    fn open_turn(&self) {
        let now = nanos_of(self.epoch.elapsed());
        self.now.set(now);
        if let Some(turn_end) = self.turn_end.borrow().as_ref() {
            turn_end.wake_by_ref();
            self.fresh.set(true);
            self.heartbeat.open(now);
        }
    }

    /// A turn was opened and its end is still to run.
    pub(crate) fn in_turn(&self) -> bool {
        self.fresh.get()
    }

    /// Called by the turn-end task.
    pub(crate) fn close_turn(&self) {
        self.fresh.set(false);
        let turns = self.turns.get() + 1;
        self.turns.set(turns);
        self.heartbeat.close(turns);
    }

    /// Until this is set every `now()` reads the clock; it is unset again before the loop ends, because a task must
    /// not be woken outside its loop.
    pub(crate) fn set_turn_end(&self, waker: Option<Waker>) {
        self.fresh.set(false);
        let previous = self.turn_end.replace(waker);
        drop(previous);
    }

    pub(crate) fn has_turn_end(&self) -> bool {
        self.turn_end.borrow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rounded_up_to_a_grain() {
        let grain = Duration::from_nanos(64);
        let rounded = [0, 1, 63, 64, 65].map(|ns| Nanos(ns).next_multiple_of(grain).as_u64());
        assert_eq!(rounded, [0, 64, 64, 64, 128]);
        assert_eq!(Nanos::MAX.next_multiple_of(grain), Nanos::MAX);
    }
}
