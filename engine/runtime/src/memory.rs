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

/// Lets go of the program's own code and constants, which the kernel maps again from the file as they are used: what
/// only the start needed, such as the reading of a configuration, is several megabytes. Costs a few hundred minor
/// page faults once.
pub fn forget_code() {
    // SAFETY: the callback is given valid headers, keeps nothing of them, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut()) };
}

/// The first object is the program itself; a value other than 0 ends the walk there.
///
/// # Safety
/// `object` must be as `dl_iterate_phdr` gives it.
unsafe extern "C" fn forget_segments(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const PAGE: usize = 4096;
    // SAFETY: see above; the headers are mapped as long as the object is.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    // What may be written at any time holds more than the file: relocated addresses, variables.
    let constant =
        |segment: &&libc::Elf64_Phdr| segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_W == 0;
    for segment in segments.iter().filter(constant) {
        let start = (base + segment.p_vaddr) as usize;
        let (first, end) = (start & !(PAGE - 1), (start + segment.p_memsz as usize) & !(PAGE - 1));
        // SAFETY: the pages are the file's, private and never written, so they come back as they are. The last one
        // is left, because a page may be shared with the next segment.
        unsafe { libc::madvise(first as *mut _, end.saturating_sub(first), libc::MADV_DONTNEED) };
    }
    1
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

    /// Resident KiB of the mappings of this program's file that nobody may write.
    fn resident_constants() -> u64 {
        let program = std::fs::read_link("/proc/self/exe").expect("proc");
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("proc");
        let mut ours = false;
        let mut sum = 0;
        for line in maps.lines() {
            if let Some(size) = line.strip_prefix("Rss:") {
                let size = size.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
                sum += if ours { size } else { 0 };
            } else if !line.split_whitespace().next().is_some_and(|word| word.ends_with(':')) {
                ours = line.ends_with(program.to_str().expect("a path in UTF-8")) && !line.contains(" rw");
            }
        }
        sum
    }

    #[test]
    fn code_and_constants_that_are_let_go_of_come_back_as_they_were() {
        const KIB: usize = 4 << 10;
        static CONSTANT: [u8; KIB << 10] = [7; KIB << 10];
        let sum = || std::hint::black_box(&CONSTANT).iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let expected = 7 * (KIB << 10) as u64;
        assert_eq!(sum(), expected);
        let before = resident_constants();
        forget_code();
        let after = resident_constants();
        // other tests run beside this one, but not over these constants
        assert!(after + KIB as u64 / 2 < before, "{before} {after}");
        assert_eq!(sum(), expected);
    }

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
