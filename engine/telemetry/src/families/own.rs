//! Statistics that only this proxy has; their metric names start with `corelane_`.

use crate::stat::stats;

stats! {
    /// The process: configuration swaps, access log hand-over, scrapes.
    ProcessStat = Process, scope process(), text "corelane.", metric "corelane_", labels [] {
        counter AccessLogBytesWritten "access_log.bytes_written" "bytes of access log written",
        counter ConfigPublished "config.published" "configurations published to the cores",
        counter ConfigRefused "config.refused" "configurations refused",
        counter CertificatesRefused "certificates.refused" "changes of certificate, key, bundle or revocation list files that were not taken because they can't be used; what was in use stays",
        counter CertificatesRotated "certificates.rotated" "TLS contexts made anew because their files changed",
        counter StatsScopesOverflowed "stats.scopes_overflowed" "statistics scopes that share the overflow scope because the table was full",
        counter StatsScrapes "stats.scrapes" "scrapes served",
        gauge ConfigGeneration "config.generation" "number of the configuration in force",
        gauge ConfigSnapshotsLive "config.snapshots_live" "configurations in force, or still held by some core, request or connection",
        gauge StatsScopes "stats.scopes" "scopes in the table",
    }
}

stats! {
    /// One core's loop, buffers and mailbox.
    CoreStat = Core, scope core(core), text "corelane.core.{0}.", metric "corelane_core_", labels ["core" = 0] {
        counter AccessLogLines "access_log_lines" "lines handed to the control thread",
        counter AccessLogLinesDropped "access_log_lines_dropped" "lines lost because the buffer was full",
        counter AcceptFailures "accept_failures" "accepts that failed for want of descriptors or memory; the listener paused after each",
        counter ConnectionsAccepted "connections_accepted" "connections accepted here",
        counter ConnectionsHandedOver "connections_handed_over" "connections accepted here and given to another core",
        counter ConnectionsReceived "connections_received" "connections accepted elsewhere and served here",
        counter MailboxOverflow "mailbox_overflow" "messages refused because the mailbox was full",
        counter TlsBytesCopied "tls_bytes_copied" "payload bytes that TLS copied besides the cipher's own pass",
        counter TlsSessionsResumed "tls_sessions_resumed" "TLS sessions resumed, in either role",
        gauge BufferBytes "buffer_bytes" "bytes of the pooled buffers of ordinary size, lent out or kept",
        gauge BuffersInUse "buffers_in_use" "pooled buffers lent out",
        gauge ConnectionsActive "connections_active" "connections served here",
        gauge SnapshotGeneration "snapshot_generation" "number of the configuration that new requests see",
        gauge TimersActive "timers_active" "timers armed",
    }
}

stats! {
    /// The I/O driver in use on a core.
    DriverStat = Driver, scope driver(core, driver), text "corelane.driver.{0}.{1}", metric "corelane_driver", labels ["core" = 0, "driver" = 1] {
        gauge Info "" "1 for the driver in use",
    }
}

stats! {
    /// What this proxy adds to the requests of one connection manager or TCP proxy.
    HopStat = Hop, scope hop(stat_prefix), text "corelane.hop.{0}.", metric "corelane_hop_", labels ["hop" = 0] {
        counter RequestsSampled "requests_sampled" "requests whose added time was measured",
        micros AddedTimeUs "added_time_us" "time in this proxy: the request's total less the wait for upstream and for the peer, sampled",
    }
}
