//! Where the futures of busy connections live.
//!
//! A future that serves a request is many kilobytes, and a connection that is idle has no use for one. From the
//! general allocator, each would leave a hole between small allocations that live on, and the hole would stay
//! resident. So frames lie in blocks with pages of their own, which are given back when the rush is over, and a busy
//! core takes and returns them without the allocator.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::buffer::{BLOCK_ALIGN, BUF_BYTES_MAX, Buf, BufferPool};

/// Bytes of a pooled frame; a larger future gets memory for this one use.
pub const FRAME_BYTES: usize = 16 << 10;
/// Free frames kept with their memory.
pub const FRAMES_KEPT_MAX: usize = 256;

/// A core's frames.
pub struct FramePool(BufferPool);

impl FramePool {
    pub(crate) fn new() -> FramePool {
        FramePool(BufferPool::new(FRAME_BYTES, FRAMES_KEPT_MAX))
    }

    /// Moves a future to memory of its own, where it is pinned.
    pub fn place<F: Future>(&self, future: F) -> Frame<F> {
        const { assert!(align_of::<F>() <= BLOCK_ALIGN && size_of::<F>() <= BUF_BYTES_MAX) };
        let memory = self.0.take_sized(size_of::<F>());
        let place = memory.block().cast::<F>();
        // SAFETY: the block has room for a buffer of F's size and more, is aligned for F, and is owned by the frame
        // alone: no other code sees a buffer of this pool.
        unsafe { place.write(future) };
        Frame { future: place, _memory: memory, _owns: PhantomData }
    }

    pub(crate) fn pool(&self) -> &BufferPool {
        &self.0
    }
}

/// A future in a frame.
pub struct Frame<F> {
    /// Initialised and never moved until it is dropped with the frame.
    future: NonNull<F>,
    _memory: Buf,
    _owns: PhantomData<F>,
}

/// The future does not move with the frame.
impl<F> Unpin for Frame<F> {}

impl<F: Future> Future for Frame<F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: it is initialised, and exclusively borrowed through self.
        let future = unsafe { self.future.as_mut() };
        // SAFETY: it stays where it is until the frame drops it.
        unsafe { Pin::new_unchecked(future) }.poll(cx)
    }
}

impl<F> Drop for Frame<F> {
    fn drop(&mut self) {
        // SAFETY: initialised by `place`, dropped here once; its memory is returned after this, as a field.
        unsafe { self.future.drop_in_place() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::rc::Rc;

    struct Dropped(Rc<Cell<u32>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn poll<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_frame_runs_its_future_and_drops_it_once() {
        let frames = FramePool::new();
        let drops = Rc::new(Cell::new(0));
        let inside = Dropped(drops.clone());
        let mut frame = frames.place(async move {
            let held = [7u8; 5_000];
            ready(()).await;
            drop(inside);
            u32::from(held[4_999])
        });
        assert_eq!(poll(&mut frame), Poll::Ready(7));
        assert_eq!(drops.get(), 1);
        drop(frame);
        assert_eq!((drops.get(), frames.pool().stats().in_use), (1, 0));
    }

    #[test]
    fn a_frame_that_is_given_up_drops_what_it_holds() {
        let frames = FramePool::new();
        let drops = Rc::new(Cell::new(0));
        for round in 1..=3 {
            let inside = Dropped(drops.clone());
            let mut frame = frames.place(async move {
                pending::<()>().await;
                drop(inside);
            });
            assert!(poll(&mut frame).is_pending());
            drop(frame);
            assert_eq!(drops.get(), round);
        }
        // one block served them all
        assert_eq!(frames.pool().stats().allocations, 1);
    }

    #[test]
    fn a_future_larger_than_a_frame_has_memory_of_its_own() {
        let frames = FramePool::new();
        let large = [1u8; 3 * FRAME_BYTES];
        let mut frame = frames.place(async move {
            ready(()).await;
            large.iter().map(|byte| usize::from(*byte)).sum::<usize>()
        });
        assert_eq!(poll(&mut frame), Poll::Ready(3 * FRAME_BYTES));
        drop(frame);
        assert_eq!(frames.pool().stats().kept, 0);
    }
}
