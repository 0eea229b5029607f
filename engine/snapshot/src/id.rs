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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct StatBlock(pub u32);

/// What a block of counters belongs to. Names are Envoy's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StatScope {
    Listener { name: String, address: String },
    HttpConnectionManager { stat_prefix: String },
    TcpProxy { stat_prefix: String },
    VirtualHost { name: String },
    Route { virtual_host: String, route: String },
    Cluster { name: String },
    Endpoint { cluster: String, address: String },
    Rbac { prefix: String },
    LocalRateLimit { prefix: String },
}
