//! Waiting for one of two things, and for both, without allocation.

use std::{future::Future, pin::pin, task::Poll};

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
