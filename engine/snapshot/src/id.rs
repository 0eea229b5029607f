//! Small names for things that cross walls: indices into a snapshot, and the handle of a block of counters.

/// Index of a cluster. The same name keeps the same id for the life of the process, so that what a core keeps
/// per cluster survives a swap; an id whose cluster is absent is a dangling reference (flag NC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u32);

/// Unique for a (cluster, address) pair; never reused, so a pool keyed by it can't serve another endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteTableId(pub u32);

/// Slot in the TLS context table; the context behind it is replaced when its secret rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsContextId(pub u32);

/// First slot of a family's counters in every core's shard; resolved once, when the snapshot is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatBlock(pub u32);

impl Default for StatBlock {
    /// Belongs to no chunk of slots: what is counted there is lost.
    fn default() -> Self {
        StatBlock(u32::MAX)
    }
}

/// What a block of counters belongs to: one variant a family of the telemetry crate, which names the statistics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StatScope {
    Listener { address: String },
    ListenerSsl { address: String },
    ListenerHttp { address: String, stat_prefix: String },
    Http { stat_prefix: String },
    Tcp { stat_prefix: String },
    Route { virtual_host: String, route: String },
    Cluster { name: String },
    ClusterSsl { name: String },
    ClusterOutlier { name: String },
    ClusterCircuit { name: String },
    ClusterHealthCheck { name: String },
    ClusterRemaining { name: String },
    ClusterHttp2 { name: String },
    ClusterGrpc { name: String },
    GrpcMethod { name: String, service: String, method: String },
    Endpoint { cluster: String, address: String },
    HttpRbac { stat_prefix: String },
    NetworkRbac { stat_prefix: String },
    HttpRbacRules { stat_prefix: String, rules_prefix: String },
    NetworkRbacRules { stat_prefix: String, rules_prefix: String },
    Fault { stat_prefix: String },
    Cors { stat_prefix: String },
    LocalRateLimit { stat_prefix: String },
    NetworkRateLimit { stat_prefix: String },
    Hop { stat_prefix: String },
}

/// A cluster's blocks, one a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClusterStats {
    pub cluster: StatBlock,
    pub ssl: StatBlock,
    pub outlier: StatBlock,
    pub circuit: StatBlock,
    /// Default (counts nothing) unless the default priority tracks what its circuit breakers still admit.
    pub remaining: StatBlock,
    /// Default (counts nothing) where the cluster has no health check.
    pub health_check: StatBlock,
    /// Default (counts nothing) where the cluster is spoken to in HTTP/1 alone.
    pub http2: StatBlock,
}

/// A listener's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ListenerStats {
    pub listener: StatBlock,
    pub ssl: StatBlock,
}

/// A connection manager's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HttpStats {
    pub http: StatBlock,
    pub listener_http: StatBlock,
    pub fault: StatBlock,
    pub cors: StatBlock,
    /// The proxy's own added time.
    pub hop: StatBlock,
}
