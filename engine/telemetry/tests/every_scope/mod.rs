//! A scope of every family, and a response in every statistic that shows only what is not zero.

use corelane_telemetry::{ClusterGrpcStat, ClusterStat, GrpcMethodStat, Registry, RouteStat, Scope};

pub fn touch(registry: &mut Registry) {
    registry.block(Scope::server());
    registry.block(Scope::worker("127.0.0.1:80"));
    registry.block(Scope::workers());
    registry.block(Scope::listener_manager());
    registry.block(Scope::cluster_manager());
    registry.block(Scope::filesystem());
    registry.block(Scope::listener("127.0.0.1:80"));
    registry.block(Scope::listener_ssl("127.0.0.1:80"));
    registry.block(Scope::listener_certificate("127.0.0.1:80", "b"));
    registry.block(Scope::listener_http("127.0.0.1:80", "b"));
    registry.block(Scope::listener_worker("127.0.0.1:80", "b"));
    registry.block(Scope::tls_inspector());
    registry.block(Scope::http_inspector());
    registry.block(Scope::http("127.0.0.1:80"));
    registry.block(Scope::http_rbac("127.0.0.1:80"));
    registry.block(Scope::http_rbac_rules("127.0.0.1:80", "b"));
    registry.block(Scope::network_rbac("127.0.0.1:80"));
    registry.block(Scope::fault("127.0.0.1:80"));
    registry.block(Scope::cors("127.0.0.1:80"));
    registry.block(Scope::local_rate_limit("127.0.0.1:80"));
    registry.block(Scope::network_rate_limit("a"));
    registry.block(Scope::network_rbac_rules("a", "b"));
    registry.block(Scope::tcp("127.0.0.1:80"));
    registry.block(Scope::http2());
    registry.block(Scope::cluster_ssl("127.0.0.1:80"));
    registry.block(Scope::cluster_certificate("127.0.0.1:80", "b"));
    registry.block(Scope::cluster_health_check("127.0.0.1:80"));
    registry.block(Scope::cluster_outlier("127.0.0.1:80"));
    registry.block(Scope::cluster_circuit("127.0.0.1:80"));
    registry.block(Scope::cluster_remaining("127.0.0.1:80"));
    registry.block(Scope::cluster_http2("127.0.0.1:80"));
    registry.block(Scope::endpoint("127.0.0.1:80", "b"));
    registry.block(Scope::core("127.0.0.1:80"));
    registry.block(Scope::driver("127.0.0.1:80", "b"));
    registry.block(Scope::hop("127.0.0.1:80"));
    let cluster = registry.block(Scope::cluster("127.0.0.1:80"));
    let route = registry.block(Scope::route("127.0.0.1:80", "b"));
    let grpc = registry.block(Scope::cluster_grpc("127.0.0.1:80"));
    let grpc_method = registry.block(Scope::grpc_method("127.0.0.1:80", "b", "c"));
    let shard = registry.control();
    shard.inc(cluster, ClusterStat::RetryUpstreamRqCompleted);
    shard.inc(grpc, ClusterGrpcStat::Status14);
    shard.inc(grpc, ClusterGrpcStat::Total);
    shard.inc(grpc_method, GrpcMethodStat::Status14);
    shard.inc(grpc_method, GrpcMethodStat::Failure);
    shard.code(cluster, ClusterStat::UpstreamRq, 200);
    shard.code(cluster, ClusterStat::RetryUpstreamRq, 503);
    shard.code(route, RouteStat::UpstreamRq, 200);
}
