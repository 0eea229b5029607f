//! How a [`Buf`] is shown to the event loop. Private, so that no caller sees the event loop's traits.

use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};

use crate::buffer::Buf;

/// A read appends to the buffer's spare room.
pub(super) struct Append(pub(super) Buf);

// SAFETY: the pointer is to the buffer's own heap block, which does not move while the event loop owns the value;
// bytes_total is the room behind it; set_init only counts bytes within that room.
unsafe impl IoBufMut for Append {
    #[inline]
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.spare_ptr()
    }

    #[inline]
    fn bytes_total(&mut self) -> usize {
        self.0.spare_len()
    }

    #[inline]
    unsafe fn set_init(&mut self, read: usize) {
        self.0.commit(read);
    }
}

/// A write sends the filled bytes from `sent` on.
pub(super) struct Rest {
    pub(super) buf: Buf,
    pub(super) sent: usize,
}

// SAFETY: the pointer is to the buffer's own heap block, which does not move while the event loop owns the value;
// `sent` never exceeds the filled length, so the bytes counted are initialised.
unsafe impl IoBuf for Rest {
    #[inline]
    fn read_ptr(&self) -> *const u8 {
        self.buf.filled()[self.sent..].as_ptr()
    }

    #[inline]
    fn bytes_init(&self) -> usize {
        self.buf.len() - self.sent
    }
}

/// A write sends what `head` holds and then what `body` holds. The two iovecs live in head's scratch area: the event
/// loop moves this value, so they cannot live here.
pub(super) struct Pair {
    head: Buf,
    body: Buf,
    iovecs: usize,
}

impl Pair {
    /// `sent` bytes of both together have been sent already.
    pub(super) fn new(head: Buf, body: Buf, sent: usize) -> Pair {
        let head_sent = sent.min(head.len());
        let body_sent = (sent - head_sent).min(body.len());
        let mut iovecs = 0;
        let slots: *mut libc::iovec = head.scratch().cast();
        for rest in [&head.filled()[head_sent..], &body.filled()[body_sent..]] {
            if !rest.is_empty() {
                let iovec = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
                // SAFETY: the scratch area is aligned for iovecs and has room for three; nothing else uses it, and
                // `head` is owned by us.
                unsafe { slots.add(iovecs).write(iovec) };
                iovecs += 1;
            }
        }
        Pair { head, body, iovecs }
    }

    pub(super) fn into_parts(self) -> (Buf, Buf) {
        (self.head, self.body)
    }
}

// SAFETY: the iovecs lie in head's heap block and point into the blocks of head and body; all three stay where they
// are while the event loop owns the value, and the filled ranges are initialised.
unsafe impl IoVecBuf for Pair {
    #[inline]
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.head.scratch().cast()
    }

    #[inline]
    fn read_iovec_len(&self) -> usize {
        self.iovecs
    }
}
