//! Names a core whose loop does not turn.

use super::process::Process;
use corelane_telemetry::{WorkerStat, WorkersStat};
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use tokio::time::sleep;

/// Between two looks while nothing turns: an idle core can't stall, but for mail it does not take.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Turns of a core between two looks up to which it counts as idle: its housekeeping takes a few a second.
const IDLE_TURNS: u64 = 16;

/// A stall this many times the limit counts as `watchdog_mega_miss` too.
const MEGA: u32 = 10;

/// Looks a few times per limit while the cores turn, once a second while they don't. For ever.
pub async fn watch(process: Rc<Process>) {
    let limit = process.tuning.stall_limit;
    let mut named = Named::default();
    let mut turns = 0;
    loop {
        let plane = process.plane();
        let now = plane.turns();
        let turned = now.saturating_sub(turns) > IDLE_TURNS * plane.cores().len() as u64;
        turns = now;
        let stalled = plane.stalled();
        named.report(&process, &stalled, limit);
        let busy = turned || !stalled.is_empty();
        sleep(if busy { (limit / 2).min(IDLE_LOOK) } else { IDLE_LOOK }).await;
    }
}

/// The cores that were named and have not turned since: each stall is said once.
#[derive(Default)]
struct Named {
    stalled: BTreeSet<usize>,
    mega: BTreeSet<usize>,
}

impl Named {
    fn report(&mut self, process: &Process, stalled: &[(usize, Duration)], limit: Duration) {
        for (core, lasting) in stalled {
            let block = process.stats.worker(*core);
            if self.stalled.insert(*core) {
                process.stats.inc(block, WorkerStat::WatchdogMiss);
                process.stats.inc(process.stats.workers, WorkersStat::WatchdogMiss);
                tracing::error!(
                    core = *core as u64,
                    "core {core} has not turned for {} ms; is something blocking on it, or is it starved of CPU?",
                    lasting.as_millis()
                );
            }
            if *lasting >= limit * MEGA && self.mega.insert(*core) {
                process.stats.inc(block, WorkerStat::WatchdogMegaMiss);
                process.stats.inc(process.stats.workers, WorkersStat::WatchdogMegaMiss);
            }
        }
        let still = |core: &usize| stalled.iter().any(|(stuck, _)| stuck == core);
        for core in self.stalled.iter().filter(|core| !still(core)) {
            tracing::info!(core = *core as u64, "core {core} turns again");
        }
        self.stalled.retain(still);
        self.mega.retain(still);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    #[test]
    fn a_stall_is_counted_once_until_the_core_turns() {
        let process = testing::process("{}");
        let mut named = Named::default();
        let limit = Duration::from_millis(100);
        let block = process.stats.worker(1);
        let counted = |stat| process.stats.value(block, stat);
        for (lasting, misses, megas) in [(150, 1, 0), (300, 1, 0), (1000, 1, 1), (1100, 1, 1)] {
            named.report(&process, &[(1, Duration::from_millis(lasting))], limit);
            assert_eq!(counted(WorkerStat::WatchdogMiss), misses, "{lasting}");
            assert_eq!(counted(WorkerStat::WatchdogMegaMiss), megas, "{lasting}");
        }
        named.report(&process, &[], limit);
        named.report(&process, &[(1, Duration::from_millis(150))], limit);
        assert_eq!(counted(WorkerStat::WatchdogMiss), 2);
        let all = |stat| process.stats.value(process.stats.workers, stat);
        assert_eq!((all(WorkersStat::WatchdogMiss), all(WorkersStat::WatchdogMegaMiss)), (2, 1));
    }
}
