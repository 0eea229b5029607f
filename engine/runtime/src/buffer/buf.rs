//! The owned buffer itself.

use std::ptr::NonNull;
use std::rc::Rc;

use super::{HEADROOM, Pool, SCRATCH, TAILROOM};

/// An owned buffer; see the folder's module for its layout. Returns to its pool when dropped.
///
/// Invariant: `start <= end <= span` and `limit <= span`.
pub struct Buf {
    memory: NonNull<u8>,
    pool: Rc<Pool>,
    start: u32,
    end: u32,
    /// Where reading and appending stop: the end of the payload, or of the tailroom once that was opened.
    limit: u32,
    span: u32,
}

impl Buf {
    /// The whole block, for what is no buffer: see [`crate::frame`].
    pub(crate) fn block(&self) -> NonNull<u8> {
        self.memory
    }

    /// The bytes it holds.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        // SAFETY: start..end lies inside the block, which is initialised and owned by self.
        unsafe { std::slice::from_raw_parts(self.base().add(self.start as usize), self.len()) }
    }

    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        // SAFETY: start..end lies inside the block, which is initialised and exclusively borrowed through self.
        unsafe { std::slice::from_raw_parts_mut(self.base().add(self.start as usize), self.len()) }
    }

    /// The room behind the filled bytes. Fill it and say so with [`Buf::commit`]. Its old content is arbitrary.
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        // SAFETY: end..end+spare_len() lies inside the block, which is initialised and exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.base().add(self.end as usize), self.spare_len()) }
    }

    #[inline]
    pub fn spare_len(&self) -> usize {
        self.limit.saturating_sub(self.end) as usize
    }

    /// Counts `n` bytes of the spare room as filled; at most all of it. Returns how many were counted.
    #[inline]
    pub fn commit(&mut self, n: usize) -> usize {
        let n = n.min(self.spare_len());
        self.end += n as u32;
        n
    }

    /// Forgets the first `n` bytes (at most all). The range starts afresh when nothing is left.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        self.start += n.min(self.len()) as u32;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Appends what fits and returns how much that was.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.spare_len());
        self.spare_mut()[..n].copy_from_slice(&bytes[..n]);
        self.end += n as u32;
        n
    }

    /// Shortens it to `n` bytes, if it is longer.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.end = self.start + n.min(self.len()) as u32;
    }

    /// Empties it and restores headroom and tailroom.
    #[inline]
    pub fn clear(&mut self) {
        self.start = HEADROOM as u32;
        self.end = HEADROOM as u32;
        self.limit = self.span - TAILROOM as u32;
    }

    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Payload bytes it can hold when empty.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.span as usize - HEADROOM - TAILROOM
    }

    /// Where the filled range lies, counted from the start of the headroom.
    #[inline]
    pub fn range(&self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }

    /// Sets the filled range to positions counted from the start of the headroom, tailroom included. A range outside
    /// the buffer is refused.
    #[inline]
    #[must_use]
    pub fn set_filled(&mut self, start: usize, end: usize) -> bool {
        let fits = start <= end && end <= self.span as usize;
        if fits {
            self.start = start as u32;
            self.end = end as u32;
        }
        fits
    }

    /// Bytes in front of the filled range: the headroom and what was consumed.
    #[inline]
    pub fn front_len(&self) -> usize {
        self.start as usize
    }

    /// Bytes behind the filled range, tailroom included.
    #[inline]
    pub fn back_len(&self) -> usize {
        (self.span - self.end) as usize
    }

    /// Grows the filled range by `n` bytes at the front and returns them to be written; None if they do not fit.
    #[inline]
    pub fn grow_front(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.front_len() {
            return None;
        }
        self.start -= n as u32;
        Some(&mut self.filled_mut()[..n])
    }

    /// Grows the filled range by `n` bytes at the back, into the tailroom if need be, and returns them to be
    /// written; None if they do not fit.
    #[inline]
    pub fn grow_back(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.back_len() {
            return None;
        }
        let old = self.len();
        self.end += n as u32;
        Some(&mut self.filled_mut()[old..])
    }

    /// Lets reads and appends use the tailroom too, until the buffer is cleared: a received TLS record that started
    /// at the front then fits whole.
    #[inline]
    pub fn open_tailroom(&mut self) {
        self.limit = self.span;
    }

    /// Moves the filled bytes to the front of the payload, to make room behind them.
    pub fn compact(&mut self) {
        let (start, end) = self.range();
        if start == HEADROOM {
            return;
        }
        let len = end - start;
        // A range that fills headroom and tailroom wholly is longer than what lies behind the headroom.
        if HEADROOM + len > self.span as usize {
            return;
        }
        // SAFETY: source and target lie inside the block (checked above), and `copy` allows them to overlap.
        unsafe { std::ptr::copy(self.base().add(start), self.base().add(HEADROOM), len) };
        self.start = HEADROOM as u32;
        self.end = (HEADROOM + len) as u32;
    }

    /// Wraps a block of the pool, or an oversized one, of `SCRATCH + span` bytes.
    #[inline]
    pub(super) fn new(memory: NonNull<u8>, pool: Rc<Pool>, span: u32) -> Buf {
        let start = HEADROOM as u32;
        Buf { memory, pool, start, end: start, limit: span - TAILROOM as u32, span }
    }

    /// The start of the headroom.
    #[inline]
    fn base(&self) -> *mut u8 {
        // SAFETY: every block is at least SCRATCH bytes long.
        unsafe { self.memory.as_ptr().add(SCRATCH) }
    }

    /// The scratch area: SCRATCH bytes, aligned to ALIGN, at an address that is stable while the buffer lives.
    #[inline]
    pub(crate) fn scratch(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    #[inline]
    pub(crate) fn spare_ptr(&mut self) -> *mut u8 {
        // SAFETY: end <= span.
        unsafe { self.base().add(self.end as usize) }
    }
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        self.pool.put(self.memory, self.span);
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buf").field("range", &self.range()).field("capacity", &self.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::BufferPool;
    use super::*;

    #[test]
    fn a_record_grows_around_its_payload() {
        let pool = BufferPool::new(8, 1);
        let mut buf = pool.take();
        assert_eq!(buf.extend_from_slice(b"payload!more"), 8);
        buf.grow_front(5).expect("headroom").copy_from_slice(b"head:");
        buf.grow_back(17).expect("tailroom").fill(b't');
        assert_eq!(buf.filled(), b"head:payload!ttttttttttttttttt");
        assert!(buf.grow_front(HEADROOM - 5 + 1).is_none());
        assert!(buf.grow_back(TAILROOM - 17 + 1).is_none());
        buf.clear();
        assert_eq!((buf.len(), buf.spare_len(), buf.front_len()), (0, 8, HEADROOM));
    }

    #[test]
    fn consuming_and_compacting_keep_the_rest() {
        let pool = BufferPool::new(8, 1);
        let mut buf = pool.take();
        buf.extend_from_slice(b"abcdefgh");
        buf.advance(5);
        assert_eq!((buf.filled(), buf.spare_len()), (&b"fgh"[..], 0));
        buf.compact();
        assert_eq!((buf.filled(), buf.spare_len()), (&b"fgh"[..], 5));
        buf.truncate(1);
        assert_eq!(buf.filled(), b"f");
        buf.advance(1);
        assert_eq!(buf.range(), (HEADROOM, HEADROOM));
        assert!(buf.set_filled(0, 3) && buf.len() == 3);
        buf.compact();
        assert_eq!(buf.range(), (HEADROOM, HEADROOM + 3));
        assert!(!buf.set_filled(4, 3) && !buf.set_filled(0, 8 + HEADROOM + TAILROOM + 1));
    }

    #[test]
    fn an_opened_tailroom_takes_reads_until_cleared() {
        let pool = BufferPool::new(8, 1);
        let mut buf = pool.take();
        buf.open_tailroom();
        assert_eq!(buf.extend_from_slice(&[1; 100]), 8 + TAILROOM);
        assert_eq!(buf.spare_mut().len(), 0);
        assert_eq!(buf.commit(1), 0);
        buf.clear();
        assert_eq!(buf.spare_len(), 8);
    }
}
