//! The general allocator's memory, as a whole.

/// Gives pages that hold no allocation back to the kernel, on every thread's heap. It walks all of them: milliseconds,
/// so not for a core. For the control thread, after work that left much behind, such as reading a configuration.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and touches no memory that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
