//! Naming a core that no longer turns.
//!
//! Each core writes when it opened its current turn and how many turns it closed. The control thread asks its
//! [`Watchdog`] from time to time. A core is stalled when one turn has been open for longer than the limit, or when
//! mail has been waiting for that long while no turn was closed. An idle core has neither and is never named.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Nanos;
use crate::mailbox::MailSender;

/// Written by one core, read by anyone. Aligned so that two cores never write to one cache line.
#[repr(align(128))]
#[derive(Default, Debug)]
pub struct Heartbeat {
    /// When the current turn was opened, in [`Nanos`]; 0 between turns.
    opened: AtomicU64,
    turns: AtomicU64,
}

impl Heartbeat {
    #[inline]
    pub(crate) fn open(&self, now: u64) {
        self.opened.store(now.max(1), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn close(&self, turns: u64) {
        self.turns.store(turns, Ordering::Relaxed);
        self.opened.store(0, Ordering::Relaxed);
    }

    /// Turns closed so far.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// When the turn in progress began, if one is.
    pub fn turn_opened(&self) -> Option<Nanos> {
        match self.opened.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Nanos::from_u64(at)),
        }
    }
}

/// A core that has not turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub core: usize,
    /// How long it has been stuck, as far as the watchdog can tell.
    pub lasting: Duration,
}

struct Watched {
    heartbeat: Arc<Heartbeat>,
    mail: MailSender,
    /// When mail was first seen waiting, and the turn count at that moment.
    waiting: Option<(Nanos, u64)>,
}

/// Held by the control thread; see the module's head.
pub struct Watchdog {
    cores: Vec<Watched>,
    limit: Duration,
}

impl Watchdog {
    pub(crate) fn new(
        cores: impl Iterator<Item = (Arc<Heartbeat>, MailSender)>,
        limit: Duration,
    ) -> Watchdog {
        let cores = cores.map(|(heartbeat, mail)| Watched { heartbeat, mail, waiting: None }).collect();
        Watchdog { cores, limit }
    }

    /// The cores stuck for longer than the limit at `now` (from [`Nanos::read`]). Call it a few times per limit.
    pub fn check(&mut self, now: Nanos) -> impl Iterator<Item = Stall> + '_ {
        let limit = self.limit;
        self.cores.iter_mut().enumerate().filter_map(move |(core, watched)| {
            let turns = watched.heartbeat.turns();
            let in_turn = watched.heartbeat.turn_opened().map(|at| now.since(at));
            watched.waiting = match watched.waiting {
                _ if watched.mail.waiting() == 0 => None,
                Some((since, at_turn)) if at_turn == turns => Some((since, at_turn)),
                _ => Some((now, turns)),
            };
            let unread = watched.waiting.map(|(since, _)| now.since(since));
            let lasting = in_turn.max(unread)?;
            (lasting > limit).then_some(Stall { core, lasting })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Mail, mailbox};

    fn at(ms: u64) -> Nanos {
        Nanos::from_u64(ms * 1_000_000)
    }

    fn watch() -> (Watchdog, Arc<Heartbeat>, MailSender, crate::mailbox::MailReceiver) {
        let heartbeat = Arc::new(Heartbeat::default());
        let (tx, rx) = mailbox(8).expect("eventfd");
        let dog = Watchdog::new([(heartbeat.clone(), tx.clone())].into_iter(), Duration::from_millis(100));
        (dog, heartbeat, tx, rx)
    }

    #[test]
    fn an_idle_core_is_never_named() {
        let (mut dog, _beat, _tx, _rx) = watch();
        assert_eq!(dog.check(at(1)).count(), 0);
        assert_eq!(dog.check(at(100_000)).count(), 0);
    }

    #[test]
    fn a_turn_that_does_not_end_is_named() {
        let (mut dog, beat, _tx, _rx) = watch();
        beat.open(at(10).as_u64());
        assert_eq!(dog.check(at(110)).count(), 0);
        let stalls: Vec<_> = dog.check(at(111)).collect();
        assert_eq!(stalls, [Stall { core: 0, lasting: Duration::from_millis(101) }]);
        beat.close(1);
        assert_eq!(dog.check(at(112)).count(), 0);
    }

    #[test]
    fn unread_mail_without_a_turn_is_named_and_a_turn_clears_it() {
        let (mut dog, beat, tx, _rx) = watch();
        tx.try_send(Mail::task(|_| ())).expect("room");
        assert_eq!(dog.check(at(10)).count(), 0);
        assert_eq!(dog.check(at(111)).map(|s| s.core).collect::<Vec<_>>(), [0]);
        beat.close(1);
        assert_eq!(dog.check(at(112)).count(), 0);
        assert_eq!(dog.check(at(200)).count(), 0);
        assert_eq!(dog.check(at(213)).count(), 1);
    }
}
