//! How other threads speak to a core: a bounded queue and a wake-up.
//!
//! A sender writes the core's eventfd only when the core said that it is about to wait, so a burst of mail costs one
//! wake-up. The order that makes this safe: the core announces sleep, then looks once more at the queue; a sender
//! enqueues, then looks whether sleep was announced. One of the two sees the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::core::Core;
use crate::event::EventCounter;

/// An accepted connection on its way to the core it was placed on.
#[derive(Debug)]
pub struct Adopted {
    pub fd: OwnedFd,
    /// Chosen by the sender: which listener accepted it.
    pub listener: u64,
    pub peer: SocketAddr,
}

/// Runs on the core it was sent to.
pub type MailTask = Box<dyn FnOnce(&Rc<Core>) + Send>;

/// What a core can be sent.
pub enum Mail {
    /// Goes to the handler set by [`Core::on_adopt`].
    Adopt(Adopted),
    /// Runs on the core, between other tasks: it must be short.
    Task(MailTask),
}

impl Mail {
    pub fn task(run: impl FnOnce(&Rc<Core>) + Send + 'static) -> Mail {
        Mail::Task(Box::new(run))
    }
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mail::Adopt(_) => "Adopt",
            Mail::Task(_) => "Task",
        })
    }
}

#[derive(Debug)]
struct Shared {
    wake: EventCounter,
    asleep: AtomicBool,
    stop: AtomicBool,
    refused: AtomicU64,
}

/// Puts mail into one core's mailbox; for any thread.
#[derive(Clone, Debug)]
pub struct MailSender {
    queue: Sender<Mail>,
    shared: Arc<Shared>,
}

pub(crate) struct MailReceiver {
    queue: Receiver<Mail>,
    shared: Arc<Shared>,
}

/// A mailbox for at most `mails_max` letters.
pub(crate) fn mailbox(mails_max: usize) -> io::Result<(MailSender, MailReceiver)> {
    let (tx, rx) = bounded(mails_max.max(1));
    let shared = Arc::new(Shared {
        wake: EventCounter::new()?,
        asleep: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        refused: AtomicU64::new(0),
    });
    Ok((MailSender { queue: tx, shared: shared.clone() }, MailReceiver { queue: rx, shared }))
}

impl MailSender {
    /// Never waits. A full mailbox, or that of a core which ended, gives the mail back and counts it.
    pub fn try_send(&self, mail: Mail) -> Result<(), Mail> {
        match self.queue.try_send(mail) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(mail) | TrySendError::Disconnected(mail)) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                Err(mail)
            }
        }
    }

    /// Ends the core, even if its mailbox is full: every task is dropped where it waits, then the thread ends.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.shared.wake.notify();
        }
    }

    /// Mail refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Mail waiting now.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

impl MailReceiver {
    pub(crate) fn try_recv(&self) -> Option<Mail> {
        self.queue.try_recv().ok()
    }

    pub(crate) fn must_stop(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Announces sleep. False if mail came meanwhile: then do not sleep.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        if self.queue.is_empty() && !self.must_stop() {
            return true;
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
        false
    }

    pub(crate) fn wake(&self) -> &EventCounter {
        &self.shared.wake
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Mail {
        Mail::task(|_| ())
    }

    fn readable(counter: &EventCounter) -> bool {
        use std::io::Read;
        let fd = counter.try_clone().expect("dup");
        std::fs::File::from(fd).read(&mut [0u8; 8]).is_ok()
    }

    #[test]
    fn a_full_mailbox_gives_the_mail_back_and_counts_it() {
        let (tx, rx) = mailbox(2).expect("eventfd");
        for _ in 0..2 {
            tx.try_send(letter()).expect("room");
        }
        assert!(matches!(tx.try_send(letter()), Err(Mail::Task(_))));
        assert_eq!((tx.refused(), tx.waiting()), (1, 2));
        assert!(rx.try_recv().is_some());
        tx.try_send(letter()).expect("room again");
        drop(rx);
        assert!(tx.try_send(letter()).is_err());
    }

    #[test]
    fn a_burst_wakes_once_and_only_a_sleeper() {
        let (tx, rx) = mailbox(8).expect("eventfd");
        tx.try_send(letter()).expect("room");
        assert!(!readable(rx.wake()));
        assert!(!rx.prepare_sleep(), "mail is waiting");
        assert!(rx.try_recv().is_some());
        assert!(rx.prepare_sleep());
        for _ in 0..3 {
            tx.try_send(letter()).expect("room");
        }
        assert!(readable(rx.wake()));
        assert!(!readable(rx.wake()), "the second letter must not have written again");
    }

    #[test]
    fn stopping_needs_no_room() {
        let (tx, rx) = mailbox(1).expect("eventfd");
        tx.try_send(letter()).expect("room");
        tx.stop();
        assert!(rx.must_stop() && !rx.prepare_sleep());
    }
}
