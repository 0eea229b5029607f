//! What a core knows of itself, shown where a scrape reads it: once a second, not per event.

use crate::state::CoreState;
use corelane_telemetry::CoreStat;

/// Brings the core's own block up to date.
pub(crate) fn publish(state: &CoreState) {
    let (shard, block) = (&state.shard, state.stats.core);
    let core = state.core.stats();
    let tls = state.tls_core.stats();
    for (stat, total) in [
        (CoreStat::MailboxOverflow, core.mails_refused),
        (CoreStat::TlsBytesCopied, tls.payload_bytes_copied),
        (CoreStat::TlsSessionsResumed, tls.resumed),
    ] {
        // the total is the core's since it started, and only this core writes here
        shard.add(block, stat, total.saturating_sub(shard.value(block, stat)));
    }
    let bytes = (core.buffers.in_use + core.buffers.kept) * state.core.buffers().buffer_bytes();
    for (stat, now) in [
        (CoreStat::BuffersInUse, (core.buffers.in_use + core.bulk.in_use) as u64),
        (CoreStat::BufferBytes, bytes as u64),
        (CoreStat::ConnectionsActive, state.core.placement().load(state.core.id) as u64),
        (CoreStat::TimersActive, core.deadlines as u64),
        (CoreStat::SnapshotGeneration, state.pin().version),
    ] {
        shard.gauge_set(block, stat, now);
    }
}
