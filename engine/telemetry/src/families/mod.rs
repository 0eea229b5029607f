//! The tables of statistics: one family a kind of scope, each an enum with a name, a kind and a line of help per entry.
//!
//! Names, and the labels that tags become, are Envoy's (checked against a scrape of Envoy in `tests/envoy_names.rs`), so that
//! dashboards and alerts written for Envoy read this proxy too. Families of our own are in `own` and are prefixed `corelane`.
//! A new statistic is a line in a table; a new family is a table and a line in the list below.

mod downstream;
mod own;
mod server;
mod upstream;

pub use downstream::*;
pub use own::*;
pub use server::*;
pub use upstream::*;

use crate::stat::families;

families! {
    Server = ServerStat,
    Worker = WorkerStat,
    Workers = WorkersStat,
    ListenerManager = ListenerManagerStat,
    ClusterManager = ClusterManagerStat,
    Filesystem = FilesystemStat,
    Listener = ListenerStat,
    ListenerSsl = ListenerSslStat,
    ListenerCertificate = ListenerCertificateStat,
    ListenerHttp = ListenerHttpStat,
    ListenerWorker = ListenerWorkerStat,
    TlsInspector = TlsInspectorStat,
    HttpInspector = HttpInspectorStat,
    Http = HttpStat,
    HttpRbac = HttpRbacStat,
    HttpRbacRules = HttpRbacRulesStat,
    NetworkRbac = NetworkRbacStat,
    NetworkRbacRules = NetworkRbacRulesStat,
    Fault = FaultStat,
    Cors = CorsStat,
    LocalRateLimit = LocalRateLimitStat,
    NetworkRateLimit = NetworkRateLimitStat,
    Tcp = TcpStat,
    Http2 = Http2Stat,
    Route = RouteStat,
    Cluster = ClusterStat,
    ClusterSsl = ClusterSslStat,
    ClusterCertificate = ClusterCertificateStat,
    ClusterHealthCheck = ClusterHealthCheckStat,
    ClusterOutlier = ClusterOutlierStat,
    ClusterCircuit = ClusterCircuitStat,
    ClusterRemaining = ClusterRemainingStat,
    ClusterHttp2 = ClusterHttp2Stat,
    ClusterGrpc = ClusterGrpcStat,
    GrpcMethod = GrpcMethodStat,
    Endpoint = EndpointStat,
    Process = ProcessStat,
    Core = CoreStat,
    Driver = DriverStat,
    Hop = HopStat,
}
