//! The server's own statistics and the managers that the control thread drives (Envoy: "server", "listener manager", "cluster manager").

use crate::stat::stats;

stats! {
    /// What the process as a whole says about itself; written by the control thread.
    ServerStat = Server, scope server(), text "server.", metric "envoy_server_", labels [] {
        gauge Concurrency "concurrency" "cores that serve requests",
        gauge DaysUntilFirstCertExpiring "days_until_first_cert_expiring" "days until the first certificate expires",
        gauge Live "live" "1 while the server takes requests, 0 while it drains",
        gauge MemoryAllocated "memory_allocated" "bytes in use by the allocator",
        gauge MemoryHeapSize "memory_heap_size" "bytes reserved by the allocator",
        gauge MemoryPhysicalSize "memory_physical_size" "resident bytes",
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
    /// The same over all cores.
    WorkersStat = Workers, scope workers(), text "workers.", metric "envoy_workers_", labels [] {
        counter WatchdogMegaMiss "watchdog_mega_miss" "turns of a loop longer than the second stall limit",
        counter WatchdogMiss "watchdog_miss" "turns of a loop longer than the first stall limit",
    }
}

stats! {
    /// Listeners added, changed and drained.
    ListenerManagerStat = ListenerManager, scope listener_manager(), text "listener_manager.", metric "envoy_listener_manager_", labels [] {
        counter ListenerAdded "listener_added" "listeners added",
        counter ListenerCreateFailure "listener_create_failure" "listeners that could not be bound on some core",
        counter ListenerCreateSuccess "listener_create_success" "listeners bound on every core",
        counter ListenerStopped "listener_stopped" "listeners stopped",
        gauge TotalListenersActive "total_listeners_active" "listeners that accept",
        gauge WorkersStarted "workers_started" "1 once the cores serve",
    }
}

stats! {
    /// Clusters added, changed and removed.
    ClusterManagerStat = ClusterManager, scope cluster_manager(), text "cluster_manager.", metric "envoy_cluster_manager_", labels [] {
        counter ClusterAdded "cluster_added" "clusters added",
        counter ClusterUpdated "cluster_updated" "updates of a cluster's endpoints",
        gauge ActiveClusters "active_clusters" "clusters ready for traffic",
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
    }
}
