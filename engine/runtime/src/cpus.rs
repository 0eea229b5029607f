//! How many cores to run and whether to pin them.
//!
//! Default: as many workers as the cgroup's CPU quota rounded up, at most one per usable CPU. Pinned only where the
//! CPUs were named or the CPU set is ours alone: sidecars that all pinned themselves to CPU 0 would be worse than none.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::Error;

/// What this process may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Cpus {
    /// CPU numbers that the scheduler may run us on, ascending.
    pub usable: Vec<usize>,
    /// CPUs online on the machine.
    pub online: usize,
    /// The cgroup's limit in CPUs, if it has one.
    pub quota: Option<f64>,
}

/// One worker to start, pinned or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub cpu: Option<usize>,
}

impl Cpus {
    /// Reads affinity (`sched_getaffinity`), the number of online CPUs and the cgroup's quota.
    pub fn read() -> Result<Cpus, Error> {
        let usable = affinity().map_err(Error::Cpus)?;
        // SAFETY: sysconf takes no pointer.
        let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        let online = usize::try_from(online).unwrap_or(usable.len()).max(usable.len());
        Ok(Cpus { usable, online, quota: quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) })
    }

    /// The CPU set was cut out of the machine for us (a static CPU manager policy, taskset), not merely shared.
    pub fn exclusive(&self) -> bool {
        self.usable.len() < self.online
    }

    /// Workers by default; see the module's head.
    pub fn workers(&self) -> Vec<Worker> {
        let count = match self.quota {
            Some(quota) => (quota.ceil() as usize).clamp(1, self.usable.len().max(1)),
            None => self.usable.len().max(1),
        };
        let pin = self.exclusive() && count == self.usable.len();
        (0..count).map(|at| Worker { cpu: if pin { self.usable.get(at).copied() } else { None } }).collect()
    }
}

fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the size are those of a local set; pid 0 is this thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the index is below CPU_SETSIZE, the number of bits in the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// The tightest CPU limit on the way from our cgroup to the root, in CPUs. Version 2 (`cpu.max`) and version 1
/// (`cpu.cfs_quota_us`); see the kernel's cgroup-v2.rst and sched-bwc.rst.
fn quota(membership: &Path, mount: &Path) -> Option<f64> {
    let text = fs::read_to_string(membership).unwrap_or_default();
    let mut tightest: Option<f64> = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, v2) = match controllers {
            "" => (mount.to_path_buf(), true),
            list if list.split(',').any(|name| name == "cpu") => (mount.join("cpu"), false),
            _ => continue,
        };
        // Inside a container the path may name a group outside the mount: the mount's root is then our group.
        let group = root.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|dir| dir.starts_with(&root));
        let limit = groups.filter_map(|dir| if v2 { quota_v2(dir) } else { quota_v1(dir) });
        tightest = limit.chain(tightest).min_by(f64::total_cmp);
    }
    tightest
}

fn quota_v2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(group: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<f64>().ok();
    ratio(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(usable: usize, online: usize, quota: Option<f64>) -> Cpus {
        Cpus { usable: (0..usable).collect(), online, quota }
    }

    #[test]
    fn a_quota_is_rounded_up_and_never_exceeds_the_cpus() {
        assert_eq!(cpus(8, 8, Some(0.1)).workers().len(), 1);
        assert_eq!(cpus(8, 8, Some(2.5)).workers().len(), 3);
        assert_eq!(cpus(4, 4, Some(64.0)).workers().len(), 4);
        assert_eq!(cpus(4, 4, None).workers().len(), 4);
    }

    #[test]
    fn only_an_exclusive_set_is_pinned() {
        assert!(cpus(8, 8, None).workers().iter().all(|worker| worker.cpu.is_none()));
        let pinned: Vec<_> = cpus(2, 8, None).workers().iter().map(|worker| worker.cpu).collect();
        assert_eq!(pinned, [Some(0), Some(1)]);
        assert!(cpus(4, 8, Some(2.0)).workers().iter().all(|worker| worker.cpu.is_none()));
    }

    #[test]
    fn this_process_may_run_somewhere() {
        let cpus = Cpus::read().expect("affinity");
        assert!(!cpus.usable.is_empty() && cpus.online >= cpus.usable.len());
        assert!(!cpus.workers().is_empty());
    }

    #[test]
    fn the_tightest_limit_on_the_way_to_the_root_counts() {
        let dir = std::env::temp_dir().join(format!("corelane-cpus-{}", std::process::id()));
        let leaf = dir.join("pod/container");
        fs::create_dir_all(&leaf).expect("create");
        fs::create_dir_all(dir.join("cpu/old")).expect("create");
        fs::write(leaf.join("cpu.max"), "max 100000\n").expect("write");
        fs::write(dir.join("pod/cpu.max"), "150000 100000\n").expect("write");
        let membership = dir.join("membership");

        fs::write(&membership, "0::/pod/container\n").expect("write");
        assert_eq!(quota(&membership, &dir), Some(1.5));

        fs::write(dir.join("cpu/old/cpu.cfs_quota_us"), "50000\n").expect("write");
        fs::write(dir.join("cpu/old/cpu.cfs_period_us"), "100000\n").expect("write");
        fs::write(&membership, "5:memory:/x\n4:cpu,cpuacct:/old\n0::/pod/container\n").expect("write");
        assert_eq!(quota(&membership, &dir), Some(0.5));

        fs::write(&membership, "4:cpu:/absent\n").expect("write");
        assert_eq!(quota(&membership, &dir), None);
        fs::remove_dir_all(&dir).expect("remove");
    }
}
