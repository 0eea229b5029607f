//! What this process takes, in bytes: as the allocator counts it, and as the kernel does in /proc/self/status.

/// Zero where nobody says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// VmRSS.
    pub resident: u64,
    /// Given out by the allocator and not freed; without it RssAnon, what is neither file nor shared.
    pub allocated: u64,
    /// VmData: what was mapped, touched or not.
    pub data: u64,
}

pub fn read() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = parse(&status);
    Memory { allocated: corelane_runtime::memory::allocated().unwrap_or(memory.allocated), ..memory }
}

fn parse(status: &str) -> Memory {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.unwrap_or(0) << 10
    };
    Memory { resident: bytes("VmRSS"), allocated: bytes("RssAnon"), data: bytes("VmData") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_count_are_read() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\nVmData:\t 4 kB\n";
        assert_eq!(parse(status), Memory { resident: 2 << 20, allocated: 1 << 20, data: 4 << 10 });
        assert_eq!(parse(""), Memory::default());
        assert!(read().resident > 0);
    }
}
