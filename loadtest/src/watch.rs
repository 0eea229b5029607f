//! CPU time and memory of the processes under test, read by the generator itself at the two ends of its window, so that
//! both are cut at the same instant as the request count.

use std::{fs, io};

use serde::Serialize;

/// One watched process over the window.
#[derive(Debug, Clone, Serialize)]
pub struct Watched {
    pub pid: u32,
    /// CPU time over the window, all threads, user and system, in microseconds; from the scheduler's own account
    /// (`/proc/PID/task/*/schedstat`).
    pub cpu_us: f64,
    /// Resident memory at the window's end, in KiB.
    pub rss_kib: u64,
}

/// A process group's CPU time at one instant.
pub struct Reading {
    cpu_ns: Vec<(u32, u64)>,
}

impl Reading {
    pub fn take(pids: &[u32]) -> Self {
        Reading { cpu_ns: pids.iter().map(|&pid| (pid, cpu_ns(pid).unwrap_or(0))).collect() }
    }

    /// What each process used from `self` to `later`.
    pub fn until(&self, later: &Reading) -> Vec<Watched> {
        self.cpu_ns
            .iter()
            .zip(&later.cpu_ns)
            .map(|(&(pid, from), &(_, to))| Watched {
                pid,
                cpu_us: to.saturating_sub(from) as f64 / 1e3,
                rss_kib: rss_kib(pid).unwrap_or(0),
            })
            .collect()
    }
}

/// Nanoseconds on a CPU since start, summed over the threads alive now (io_uring workers are such threads).
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // a thread may end between the listing and the reading
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

fn rss_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_shows_in_the_account_and_a_missing_process_reads_zero() {
        let me = std::process::id();
        let before = Reading::take(&[me]);
        // the kernel brings the account up to date at its own ticks: work until it has
        const ROUNDS_MAX: u32 = 1_000;
        let mut sum = 0u64;
        let mut used = before.until(&Reading::take(&[me]));
        for _ in 0..ROUNDS_MAX {
            if used[0].cpu_us > 0.0 {
                break;
            }
            for i in 0..1_000_000u64 {
                sum = std::hint::black_box(sum.wrapping_add(i));
            }
            used = before.until(&Reading::take(&[me]));
        }
        assert!(used[0].cpu_us > 0.0, "{used:?}");
        assert!(used[0].rss_kib > 100, "{used:?}");

        let nobody = Reading::take(&[u32::MAX]);
        assert_eq!(nobody.until(&Reading::take(&[u32::MAX]))[0].cpu_us, 0.0);
    }
}
