//! A connection that is being made, for all who need it.

use corelane_traffic::Failure;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// A connection on its way.
#[derive(Default)]
pub(super) struct Opening {
    pub(super) result: Cell<Option<Result<(), Failure>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Opening {
    pub fn finish(&self, result: Result<(), Failure>) {
        self.result.set(Some(result));
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub async fn wait(&self) -> Result<(), Failure> {
        let mut listed = false;
        poll_fn(|context| match self.result.get() {
            Some(result) => Poll::Ready(result),
            None => {
                // as many as the requests breaker lets in; a task lists itself once
                if !std::mem::replace(&mut listed, true) {
                    self.waiting.borrow_mut().push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}
