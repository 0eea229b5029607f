//! The server's own statistics and the managers that the control thread drives (Envoy: "server", "listener manager", "cluster manager").

use crate::stat::stats;

stats! {
    /// What the process as a whole says about itself; written by the control thread.
    ServerStat = Server, scope server(), text "server.", metric "envoy_server_", labels [] {
        counter DebugAssertionFailures "debug_assertion_failures" "assertions that failed in a build that checks them",
        counter DroppedStatFlushes "dropped_stat_flushes" "flushes of statistics that were skipped",
        counter DynamicUnknownFields "dynamic_unknown_fields" "messages from the control stream with fields we do not know",
        counter StaticUnknownFields "static_unknown_fields" "messages in the configuration file with fields we do not know",
        gauge Concurrency "concurrency" "cores that serve requests",
        gauge DaysUntilFirstCertExpiring "days_until_first_cert_expiring" "days until the first certificate expires",
        gauge HotRestartEpoch "hot_restart_epoch" "restarts in place; always 0, kept for dashboards",
        gauge Live "live" "1 while the server takes requests, 0 while it drains",
        gauge MemoryAllocated "memory_allocated" "bytes in use by the allocator",
        gauge MemoryHeapSize "memory_heap_size" "bytes reserved by the allocator",
        gauge MemoryPhysicalSize "memory_physical_size" "resident bytes",
        gauge ParentConnections "parent_connections" "connections of the process before this one; always 0, kept for dashboards",
        gauge State "state" "0 live, 1 draining, 2 pre-initialising, 3 initialising",
        gauge TotalConnections "total_connections" "connections open over all listeners",
        gauge Uptime "uptime" "seconds since start",
        gauge Version "version" "build version as an integer",
        millis InitializationTimeMs "initialization_time_ms" "time from start to the first accept",
    }
}

stats! {
    /// Stalls of one core's loop, under the names Envoy gives its watchdog.
    WorkerStat = Worker, scope worker(core), text "server.worker_{0}.", metric "envoy_server_worker_", labels ["envoy_worker_id" = 0] {
        counter WatchdogMegaMiss "watchdog_mega_miss" "turns of the loop longer than the second stall limit",
        counter WatchdogMiss "watchdog_miss" "turns of the loop longer than the first stall limit",
    }
}

stats! {
    /// Listeners added, changed and drained.
    ListenerManagerStat = ListenerManager, scope listener_manager(), text "listener_manager.", metric "envoy_listener_manager_", labels [] {
        counter ListenerAdded "listener_added" "listeners added",
        counter ListenerCreateFailure "listener_create_failure" "listeners that could not be bound on some core",
        counter ListenerCreateSuccess "listener_create_success" "listeners bound on every core",
        counter ListenerInPlaceUpdated "listener_in_place_updated" "listeners whose filter chains changed without a new socket",
        counter ListenerModified "listener_modified" "listeners replaced",
        counter ListenerRemoved "listener_removed" "listeners removed",
        counter ListenerStopped "listener_stopped" "listeners stopped",
        gauge TotalFilterChainsDraining "total_filter_chains_draining" "filter chains that only serve old connections",
        gauge TotalListenersActive "total_listeners_active" "listeners that accept",
        gauge TotalListenersDraining "total_listeners_draining" "listeners that only serve old connections",
        gauge TotalListenersWarming "total_listeners_warming" "listeners that wait for secrets or routes",
        gauge WorkersStarted "workers_started" "1 once the cores serve",
    }
}

stats! {
    /// Clusters added, changed and removed.
    ClusterManagerStat = ClusterManager, scope cluster_manager(), text "cluster_manager.", metric "envoy_cluster_manager_", labels [] {
        counter ClusterAdded "cluster_added" "clusters added",
        counter ClusterModified "cluster_modified" "clusters replaced",
        counter ClusterRemoved "cluster_removed" "clusters removed",
        counter ClusterUpdated "cluster_updated" "updates of a cluster's endpoints",
        counter ClusterUpdatedViaMerge "cluster_updated_via_merge" "updates applied as one merged update",
        counter UpdateMergeCancelled "update_merge_cancelled" "merged updates delivered early",
        counter UpdateOutOfMergeWindow "update_out_of_merge_window" "updates outside a merge window",
        gauge ActiveClusters "active_clusters" "clusters ready for traffic",
        gauge WarmingClusters "warming_clusters" "clusters that wait for endpoints or secrets",
    }
}

stats! {
    /// Writing of access log files, done on the control thread.
    FilesystemStat = Filesystem, scope filesystem(), text "filesystem.", metric "envoy_filesystem_", labels [] {
        counter FlushedByTimer "flushed_by_timer" "flushes because the interval passed",
        counter ReopenFailed "reopen_failed" "files that could not be opened again",
        counter WriteBuffered "write_buffered" "lines handed over by the cores",
        counter WriteCompleted "write_completed" "writes to a file",
        counter WriteFailed "write_failed" "writes that failed",
        gauge WriteTotalBuffered "write_total_buffered" "bytes waiting to be written",
    }
}
