//! Wakes the connections that must hear of a drain: HTTP/2 says goodbye while nothing else happens; idle connections
//! and tunnels end with it.

use crate::{conn::Conn, shared::Shared};
use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// Connections of this core by id, at most as many as it serves.
#[derive(Default)]
pub(crate) struct Drain {
    waiting: RefCell<HashMap<u64, Waker>>,
}

impl Drain {
    pub fn enter(&self, connection: u64) -> Entered<'_> {
        Entered { drain: self, connection }
    }

    /// Resolves when the drain is over. Not for a connection that watches already.
    pub async fn over(&self, shared: &Shared, connection: u64) {
        let entered = self.enter(connection);
        poll_fn(|context| if entered.is_over(shared, context) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    /// As [`Drain::over`], for a connection that waits for a request: one that is there already is served.
    pub async fn over_unasked(&self, shared: &Shared, connection: u64, conn: &Conn) {
        let entered = self.enter(connection);
        let over = |context: &Context<'_>| entered.is_over(shared, context) && !conn.is_asked();
        poll_fn(|context| if over(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Every connection looks again whether it should go on.
    pub fn ring(&self) {
        for waker in self.waiting.borrow().values() {
            waker.wake_by_ref();
        }
    }
}

pub(crate) struct Entered<'a> {
    drain: &'a Drain,
    connection: u64,
}

impl Entered<'_> {
    /// Whether the drain is over; if not, this task is woken when it is.
    pub fn is_over(&self, shared: &Shared, context: &Context<'_>) -> bool {
        let over = shared.is_closing();
        if !over {
            self.watch(context);
        }
        over
    }

    /// This task is to be woken.
    pub fn watch(&self, context: &Context<'_>) {
        let mut waiting = self.drain.waiting.borrow_mut();
        if !waiting.get(&self.connection).is_some_and(|waker| waker.will_wake(context.waker())) {
            waiting.insert(self.connection, context.waker().clone());
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.drain.waiting.borrow_mut().remove(&self.connection);
    }
}
