//! Where the memory of pooled buffers comes from.
//!
//! Blocks are cut from mapped slabs, each block on pages of its own. A block that is not needed gives its pages back
//! to the kernel but keeps its addresses; when it is used again the kernel supplies zeroed pages. The general
//! allocator cannot do this: small allocations between the buffers keep their memory resident for ever (measured:
//! 17 KiB for each of 9,000 connections that once held a 16 KiB buffer).

use std::ptr::NonNull;

const PAGE: usize = 4096;
/// Blocks per slab: with 16 KiB buffers a slab spans 1.25 MiB of addresses.
const SLAB_BLOCKS: usize = 64;
/// Blocks start at different offsets within their first page, so that they do not all compete for the same cache
/// sets. In units of a cache line.
const COLOURS: usize = 16;
const LINE: usize = 64;

pub(super) struct Arena {
    /// Bytes from one block's pages to the next block's.
    stride: usize,
    slabs: Vec<NonNull<u8>>,
    /// Blocks of the last slab that were never used.
    unused: usize,
    /// Blocks whose pages were given back.
    cold: Vec<NonNull<u8>>,
}

impl Arena {
    /// For blocks of `bytes` bytes, which must not be zero.
    pub(super) fn new(bytes: usize) -> Arena {
        let stride = (bytes + (COLOURS - 1) * LINE).next_multiple_of(PAGE);
        Arena { stride, slabs: Vec::new(), unused: 0, cold: Vec::new() }
    }

    /// A block of initialised memory, aligned to a cache line. None if the kernel refuses more memory.
    pub(super) fn take(&mut self) -> Option<NonNull<u8>> {
        if let Some(block) = self.cold.pop() {
            return Some(block);
        }
        if self.unused == 0 {
            self.slabs.push(map(self.stride * SLAB_BLOCKS)?);
            self.unused = SLAB_BLOCKS;
        }
        self.unused -= 1;
        let colour = self.unused % COLOURS * LINE;
        let slab = self.slabs.last()?;
        // SAFETY: the offset lies inside the slab: unused < SLAB_BLOCKS, and a stride has room for every colour.
        Some(unsafe { slab.add(self.unused * self.stride + colour) })
    }

    /// Takes a block back and gives its pages to the kernel.
    ///
    /// # Safety
    /// `block` must be from [`Arena::take`] of this arena, and nobody may use it any more.
    pub(super) unsafe fn put(&mut self, block: NonNull<u8>) {
        let pages = block.as_ptr().map_addr(|addr| addr & !(PAGE - 1));
        // SAFETY: the pages are those of this block alone, because blocks lie a stride apart; they are private and
        // anonymous, so they read as zero afterwards. A refusal only means that they stay resident.
        unsafe { libc::madvise(pages.cast(), self.stride, libc::MADV_DONTNEED) };
        self.cold.push(block);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for slab in self.slabs.drain(..) {
            // SAFETY: mapped by us with this length; every block has come back, because each holds its pool.
            unsafe { libc::munmap(slab.as_ptr().cast(), self.stride * SLAB_BLOCKS) };
        }
    }
}

fn map(bytes: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping touches no memory that exists.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    // A huge page would make 2 MiB resident for one small buffer. Kernels without huge pages refuse; that is fine.
    // SAFETY: the range was just mapped.
    unsafe { libc::madvise(mapped, bytes, libc::MADV_NOHUGEPAGE) };
    NonNull::new(mapped.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_come_back_zeroed() {
        const BYTES: usize = 16_512;
        let mut arena = Arena::new(BYTES);
        let blocks: Vec<_> = (0..SLAB_BLOCKS * 2 + 1).map(|_| arena.take().expect("memory")).collect();
        for (mark, block) in blocks.iter().enumerate() {
            assert_eq!(block.as_ptr() as usize % LINE, 0);
            // SAFETY: the block is ours and BYTES long.
            unsafe { block.as_ptr().write_bytes(mark as u8, BYTES) };
        }
        for (mark, block) in blocks.iter().enumerate() {
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), BYTES) };
            assert!(bytes.iter().all(|byte| *byte == mark as u8), "block {mark}");
        }
        assert_eq!(arena.slabs.len(), 3);
        for block in &blocks {
            // SAFETY: the block is from this arena and not used after this.
            unsafe { arena.put(*block) };
        }
        let again = arena.take().expect("memory");
        // SAFETY: the block is ours and BYTES long.
        let bytes = unsafe { std::slice::from_raw_parts(again.as_ptr(), BYTES) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(arena.slabs.len(), 3);
    }
}
