//! The statistics of the process, as the control thread holds them: the registry, and the blocks that a snapshot's
//! resources get from it.

use corelane_snapshot::{StatAllocator, StatBlock, StatScope};
use corelane_telemetry::{
    Block, ClusterManagerStat, FilesystemStat, ListenerManagerStat, ProcessStat, Registry, Scope, ServerStat,
    Stat, WorkerStat, WorkersStat,
};
use std::sync::{Arc, Mutex, PoisonError};

/// The registry and the blocks that the control thread counts in. Cores never touch it.
#[derive(Clone)]
pub struct Stats {
    registry: Arc<Mutex<Registry>>,
    pub server: Block<ServerStat>,
    pub workers: Block<WorkersStat>,
    pub listeners: Block<ListenerManagerStat>,
    pub clusters: Block<ClusterManagerStat>,
    pub files: Block<FilesystemStat>,
    pub process: Block<ProcessStat>,
}

impl Stats {
    pub fn new(cores: usize) -> Stats {
        let mut registry = Registry::new(cores);
        Stats {
            server: registry.block(Scope::server()),
            workers: registry.block(Scope::workers()),
            listeners: registry.block(Scope::listener_manager()),
            clusters: registry.block(Scope::cluster_manager()),
            files: registry.block(Scope::filesystem()),
            process: registry.process(),
            registry: Arc::new(Mutex::new(registry)),
        }
    }

    /// Works on the registry itself. Only the control thread locks it, so that this never waits; `work` must not come
    /// back here.
    pub fn with<T>(&self, work: impl FnOnce(&mut Registry) -> T) -> T {
        work(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn value<S: Stat>(&self, block: Block<S>, stat: S) -> u64 {
        self.with(|registry| registry.value(block, stat))
    }

    pub fn add<S: Stat>(&self, block: Block<S>, stat: S, n: u64) {
        self.with(|registry| registry.control().add(block, stat, n));
    }

    pub fn inc<S: Stat>(&self, block: Block<S>, stat: S) {
        self.add(block, stat, 1);
    }

    pub fn set<S: Stat>(&self, block: Block<S>, stat: S, value: u64) {
        self.with(|registry| registry.control().gauge_set(block, stat, value));
    }

    pub fn worker(&self, core: usize) -> Block<WorkerStat> {
        self.with(|registry| registry.block(Scope::worker(&core.to_string())))
    }

    /// Hands out blocks while snapshots are built.
    pub fn allocator(&self) -> Box<dyn StatAllocator + Send> {
        Box::new(Allocator(self.registry.clone()))
    }
}

struct Allocator(Arc<Mutex<Registry>>);

impl StatAllocator for Allocator {
    fn block(&mut self, scope: StatScope) -> StatBlock {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        StatBlock(raw_block(&mut registry, &scope))
    }
}

fn raw_block(registry: &mut Registry, scope: &StatScope) -> u32 {
    match scope {
        StatScope::Listener { address } => registry.block(Scope::listener(address)).raw(),
        StatScope::ListenerSsl { address } => registry.block(Scope::listener_ssl(address)).raw(),
        StatScope::ListenerHttp { address, stat_prefix } => {
            registry.block(Scope::listener_http(address, stat_prefix)).raw()
        }
        StatScope::Http { stat_prefix } => registry.block(Scope::http(stat_prefix)).raw(),
        StatScope::Tcp { stat_prefix } => registry.block(Scope::tcp(stat_prefix)).raw(),
        StatScope::Route { virtual_host, route } => registry.block(Scope::route(virtual_host, route)).raw(),
        StatScope::Cluster { name } => registry.block(Scope::cluster(name)).raw(),
        StatScope::ClusterSsl { name } => registry.block(Scope::cluster_ssl(name)).raw(),
        StatScope::ClusterOutlier { name } => registry.block(Scope::cluster_outlier(name)).raw(),
        StatScope::ClusterCircuit { name } => registry.block(Scope::cluster_circuit(name)).raw(),
        StatScope::ClusterHealthCheck { name } => registry.block(Scope::cluster_health_check(name)).raw(),
        StatScope::ClusterRemaining { name } => registry.block(Scope::cluster_remaining(name)).raw(),
        StatScope::ClusterHttp2 { name } => registry.block(Scope::cluster_http2(name)).raw(),
        StatScope::ClusterGrpc { name } => registry.block(Scope::cluster_grpc(name)).raw(),
        StatScope::GrpcMethod { name, service, method } => {
            registry.block(Scope::grpc_method(name, service, method)).raw()
        }
        StatScope::Endpoint { cluster, address } => registry.block(Scope::endpoint(cluster, address)).raw(),
        StatScope::HttpRbac { stat_prefix } => registry.block(Scope::http_rbac(stat_prefix)).raw(),
        StatScope::NetworkRbac { stat_prefix } => registry.block(Scope::network_rbac(stat_prefix)).raw(),
        StatScope::HttpRbacRules { stat_prefix, rules_prefix } => {
            registry.block(Scope::http_rbac_rules(stat_prefix, rules_prefix)).raw()
        }
        StatScope::NetworkRbacRules { stat_prefix, rules_prefix } => {
            registry.block(Scope::network_rbac_rules(stat_prefix, rules_prefix)).raw()
        }
        StatScope::Fault { stat_prefix } => registry.block(Scope::fault(stat_prefix)).raw(),
        StatScope::Cors { stat_prefix } => registry.block(Scope::cors(stat_prefix)).raw(),
        StatScope::NetworkRateLimit { stat_prefix } => {
            registry.block(Scope::network_rate_limit(stat_prefix)).raw()
        }
        StatScope::Hop { stat_prefix } => registry.block(Scope::hop(stat_prefix)).raw(),
        StatScope::LocalRateLimit { stat_prefix } => {
            registry.block(Scope::local_rate_limit(stat_prefix)).raw()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_telemetry::ClusterStat;

    #[test]
    fn the_same_scope_is_the_same_block_and_a_core_can_count_in_it() {
        let stats = Stats::new(1);
        let mut allocator = stats.allocator();
        let scope = StatScope::Cluster { name: "payments".to_owned() };
        let block = allocator.block(scope.clone());
        assert_eq!(allocator.block(scope), block);
        assert_ne!(allocator.block(StatScope::ClusterSsl { name: "payments".to_owned() }), block);
        let core = stats.with(|registry| registry.shard(0)).expect("core 0");
        core.inc(Block::from_raw(block.0), ClusterStat::UpstreamRqTotal);
        let counted = stats.value(Block::from_raw(block.0), ClusterStat::UpstreamRqTotal);
        assert_eq!(counted, 1);
    }
}
