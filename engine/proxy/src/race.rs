//! Waiting for one of two things, and not waiting at all, without allocation.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::Poll,
};

pub(crate) enum First<A, B> {
    Left(A),
    Right(B),
}

/// The first to finish; `left` where both are ready. The other is dropped: pass a pinned `&mut` future that must
/// go on, and one that is large, for a future passed by value is copied.
pub(crate) async fn race<A: Future, B: Future>(left: A, right: B) -> First<A::Output, B::Output> {
    let mut left = pin!(left);
    let mut right = pin!(right);
    std::future::poll_fn(move |context| {
        if let Poll::Ready(done) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(done));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}

/// What is there without waiting; None: it must be waited for, and has begun.
pub(crate) async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(move |context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
}
