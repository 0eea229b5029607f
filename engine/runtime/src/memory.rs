//! The general allocator's memory, as a whole.

/// From here on an allocation has pages of its own, which go back to the kernel with it, and which it takes only where
/// they are touched. The allocator's default too, but it raises it, up to 32 MiB, to whatever was freed last.
#[cfg(target_env = "gnu")]
const OWN_PAGES_FROM: libc::c_int = 128 << 10;

/// Keeps large allocations apart from small ones for good. First thing in the process, while it has one thread.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it stores a number that only the choice between two ways of allocating depends on, under the
    // allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_FROM);
    }
}

/// Gives pages that hold no allocation back to the kernel, on every thread's heap. It walks all of them: milliseconds,
/// so not for a core. For the control thread, after work that left much behind, such as reading a configuration.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and touches no memory that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that are allocated now, by all threads; None where the allocator does not say. Pooled buffers and frames are
/// not among them. It looks at every heap: not for a core.
pub fn allocated() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes the allocator's own locks, and returns numbers.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks as u64 + info.hblkhd as u64)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    const LARGE: usize = 8 << 20;

    #[test]
    fn what_is_allocated_is_counted_and_large_blocks_have_their_own_pages() {
        prepare();
        drop(vec![1u8; LARGE]);
        let before = allocated().expect("glibc says");
        let held = vec![1u8; LARGE];
        let with = allocated().expect("glibc says");
        drop(held);
        trim();
        let after = allocated().expect("glibc says");
        // other tests allocate beside this one, but not megabytes
        assert!(with >= before + LARGE as u64 / 2, "{before} {with}");
        assert!(after <= with - LARGE as u64 / 2, "{with} {after}");
    }
}
