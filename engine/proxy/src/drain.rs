//! Wakes the connections that must hear of a drain: HTTP/2 says goodbye while nothing else happens.

use std::{
    cell::RefCell,
    collections::HashMap,
    task::{Context, Waker},
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
