//! The buffers of a core.
//!
//! A [`Buf`] is owned memory with a filled range. It moves into an operation and comes back with it, so the kernel
//! and the program never hold it at once. Around the payload there is room for what TLS 1.3 puts around a record
//! (RFC 8446 section 5.2: a 5 byte header in front; content type and tag behind), so that a record can be sealed
//! and opened in place:
//!
//! ```text
//! | scratch 48 | headroom 16 | payload: capacity bytes | tailroom 64 |
//!              0            16                          16+capacity
//! ```
//!
//! Positions count from the start of the headroom. The scratch area belongs to [`crate::net`] (iovecs of a pair
//! write). Memory is zeroed when it is allocated and stays initialised for ever.

mod arena;
mod buf;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use arena::Arena;
pub use buf::Buf;

/// Bytes in front of the payload: a TLS record header is 5.
pub const HEADROOM: usize = 16;
/// Bytes behind the payload: TLS 1.3's content type and tag are 17; TLS 1.2 with a block cipher needs at most 64.
pub const TAILROOM: usize = 64;
/// Payload bytes of a bulk buffer: five of TLS's largest records with what surrounds each, or a body of 64 KiB with its
/// head in one piece.
pub const BULK_BYTES: usize = 84 << 10;
/// Bulk buffers that a core has in use at once (21 MiB); beyond them bytes move in ordinary ones.
pub const BULK_BUFFERS_MAX: usize = 256;
/// Free bulk buffers kept for reuse.
pub const BULK_BUFFERS_KEPT_MAX: usize = 64;
/// The largest capacity that [`BufferPool::take_sized`] gives.
pub const BUF_BYTES_MAX: usize = 16 << 20;

const SCRATCH: usize = 48;
/// What the scratch area needs. More than the allocator gives by itself would make it clear large blocks by hand.
pub(crate) const BLOCK_ALIGN: usize = 16;
/// Buffers whose pages are given back in one go: about half a millisecond of work.
const TRIM_BATCH_MAX: usize = 256;

/// Counts of one pool; bytes are those usable as payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Buffers held by the program or the kernel now.
    pub in_use: usize,
    /// The largest `in_use` so far.
    pub peak: usize,
    /// Free buffers kept for reuse, with their memory, now.
    pub kept: usize,
    /// Times that memory was asked of the system so far: flat in steady state.
    pub allocations: u64,
}

/// Where a core's buffers come from and return to. Cloning shares the pool.
#[derive(Clone)]
pub struct BufferPool(Rc<Pool>);

struct Pool {
    /// Bytes from the start of the headroom to the end of the tailroom of a pooled buffer.
    span: u32,
    kept_max: usize,
    free: RefCell<Vec<NonNull<u8>>>,
    arena: RefCell<Arena>,
    in_use: Cell<usize>,
    peak: Cell<usize>,
    /// The largest `in_use` since the last trim.
    recent_peak: Cell<usize>,
    allocations: Cell<u64>,
}

impl BufferPool {
    /// A pool of buffers of `buffer_bytes` usable bytes that keeps at most `kept_max` free ones.
    pub fn new(buffer_bytes: usize, kept_max: usize) -> BufferPool {
        let span = span_of(buffer_bytes);
        BufferPool(Rc::new(Pool {
            span,
            kept_max,
            free: RefCell::new(Vec::new()),
            arena: RefCell::new(Arena::new(SCRATCH + span as usize)),
            in_use: Cell::new(0),
            peak: Cell::new(0),
            recent_peak: Cell::new(0),
            allocations: Cell::new(0),
        }))
    }

    /// Usable bytes of a pooled buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.0.span as usize - HEADROOM - TAILROOM
    }

    /// An empty buffer.
    #[inline]
    pub fn take(&self) -> Buf {
        let free = self.0.free.borrow_mut().pop();
        let memory = free.unwrap_or_else(|| self.0.more());
        self.wrap(memory, self.0.span)
    }

    /// An empty buffer with room for at least `bytes`, but never for more than [`BUF_BYTES_MAX`]. Beyond the pool's
    /// own size it is allocated for this one use.
    pub fn take_sized(&self, bytes: usize) -> Buf {
        if bytes <= self.buffer_bytes() {
            return self.take();
        }
        let span = span_of(bytes);
        self.wrap(self.0.oversized(span), span)
    }

    pub fn stats(&self) -> BufferStats {
        BufferStats {
            in_use: self.0.in_use.get(),
            peak: self.0.peak.get(),
            kept: self.0.free.borrow().len(),
            allocations: self.0.allocations.get(),
        }
    }

    /// How many free buffers the busiest moment since the last call did not need. The core asks about once a second.
    pub(crate) fn surplus(&self) -> usize {
        let pool = &self.0;
        let keep = pool.recent_peak.replace(pool.in_use.get()).saturating_sub(pool.in_use.get());
        pool.free.borrow().len().saturating_sub(keep)
    }

    /// Gives back the memory of so many free buffers, but not of all in one go; how many are left to do.
    pub(crate) fn give_back(&self, surplus: usize) -> usize {
        let pool = &self.0;
        let mut free = pool.free.borrow_mut();
        let surplus = surplus.min(free.len());
        let batch = surplus.min(TRIM_BATCH_MAX);
        let mut arena = pool.arena.borrow_mut();
        // The oldest: those at the end are the ones in use most of the time.
        for memory in free.drain(..batch) {
            // SAFETY: the free list holds blocks of the arena that nobody else points to.
            unsafe { arena.put(memory) };
        }
        surplus - batch
    }

    /// Whether there could be a surplus, now or after the next quiet second.
    pub(crate) fn holds_surplus(&self) -> bool {
        !self.0.free.borrow().is_empty()
    }

    fn wrap(&self, memory: NonNull<u8>, span: u32) -> Buf {
        let pool = &self.0;
        let in_use = pool.in_use.get() + 1;
        pool.in_use.set(in_use);
        if in_use > pool.recent_peak.get() {
            pool.recent_peak.set(in_use);
            pool.peak.set(pool.peak.get().max(in_use));
        }
        Buf::new(memory, pool.clone(), span)
    }
}

impl Pool {
    #[cold]
    fn more(&self) -> NonNull<u8> {
        self.allocations.set(self.allocations.get() + 1);
        match self.arena.borrow_mut().take() {
            Some(memory) => memory,
            None => handle_alloc_error(layout_of(self.span)),
        }
    }

    #[cold]
    fn oversized(&self, span: u32) -> NonNull<u8> {
        self.allocations.set(self.allocations.get() + 1);
        let layout = layout_of(span);
        // SAFETY: the layout's size is not zero: it holds at least the scratch area.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(memory) => memory,
            None => handle_alloc_error(layout),
        }
    }

    #[inline]
    fn put(&self, memory: NonNull<u8>, span: u32) {
        self.in_use.set(self.in_use.get() - 1);
        let mut free = self.free.borrow_mut();
        if span == self.span && free.len() < self.kept_max {
            free.push(memory);
        } else {
            self.put_beyond(memory, span);
        }
    }

    #[cold]
    fn put_beyond(&self, memory: NonNull<u8>, span: u32) {
        if span == self.span {
            // SAFETY: a block of the pool's own span is from its arena; the caller is its one owner.
            unsafe { self.arena.borrow_mut().put(memory) };
        } else {
            // SAFETY: any other span was allocated by `oversized` with this layout; the caller is its one owner.
            unsafe { dealloc(memory.as_ptr(), layout_of(span)) };
        }
    }
}

fn span_of(bytes: usize) -> u32 {
    (bytes.clamp(1, BUF_BYTES_MAX) + HEADROOM + TAILROOM) as u32
}

fn layout_of(span: u32) -> Layout {
    match Layout::from_size_align(SCRATCH + span as usize, BLOCK_ALIGN) {
        Ok(layout) => layout,
        // Unreachable: the size is at most BUF_BYTES_MAX and a few bytes.
        Err(_) => Layout::new::<[u8; SCRATCH]>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_reused() {
        let pool = BufferPool::new(1024, 4);
        for round in 0..10u8 {
            let mut buf = pool.take();
            assert!(buf.is_empty() && buf.capacity() == 1024 && buf.spare_len() == 1024);
            assert_eq!(buf.extend_from_slice(&[round; 2000]), 1024);
        }
        assert_eq!(pool.stats(), BufferStats { in_use: 0, peak: 1, kept: 1, allocations: 1 });
    }

    #[test]
    fn no_more_than_the_maximum_is_kept() {
        let pool = BufferPool::new(64, 3);
        let bufs: Vec<_> = (0..8).map(|_| pool.take()).collect();
        assert_eq!((pool.stats().in_use, pool.stats().peak), (8, 8));
        drop(bufs);
        assert_eq!((pool.stats().in_use, pool.stats().kept), (0, 3));
    }

    #[test]
    fn what_the_last_period_did_not_need_is_given_back() {
        let pool = BufferPool::new(64, 100);
        drop((0..50).map(|_| pool.take()).collect::<Vec<_>>());
        assert_eq!(pool.surplus(), 0);
        drop((0..5).map(|_| pool.take()).collect::<Vec<_>>());
        let surplus = pool.surplus();
        assert_eq!((surplus, pool.give_back(surplus)), (45, 0));
        assert_eq!(pool.stats().kept, 5);
        assert_eq!(pool.give_back(pool.surplus()), 0);
        assert_eq!(pool.stats().kept, 0);
        assert!(!pool.holds_surplus());
    }

    #[test]
    fn a_large_surplus_goes_in_batches() {
        let pool = BufferPool::new(64, 1_000);
        drop((0..TRIM_BATCH_MAX + 10).map(|_| pool.take()).collect::<Vec<_>>());
        pool.surplus();
        assert_eq!(pool.give_back(pool.surplus()), 10);
        assert_eq!((pool.stats().kept, pool.give_back(10), pool.stats().kept), (10, 0, 0));
        assert_eq!(pool.give_back(5), 0);
    }

    #[test]
    fn larger_buffers_are_not_kept_and_are_bounded() {
        let pool = BufferPool::new(64, 8);
        let large = pool.take_sized(100_000);
        assert_eq!(large.capacity(), 100_000);
        drop(large);
        assert_eq!(pool.stats().kept, 0);
        assert_eq!(pool.take_sized(usize::MAX).capacity(), BUF_BYTES_MAX);
        assert_eq!(pool.take_sized(10).capacity(), 64);
    }

    #[test]
    fn a_buffer_may_outlive_every_other_handle_of_its_pool() {
        let pool = BufferPool::new(16, 1);
        let mut buf = pool.take();
        drop(pool);
        buf.extend_from_slice(b"still here");
        assert_eq!(buf.filled(), b"still here");
    }
}
