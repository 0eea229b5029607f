//! Makes snapshots, on the control thread. It hands out ids and live state by name, so that what cores keep
//! survives a swap, and takes over every resource that did not change from the snapshot before.

use crate::{
    AccessLogSink, Cluster, ClusterConfig, ClusterId, EndpointId, EndpointSet, Error, FilterChain,
    GRPC_METHODS_MAX, GrpcBlocks, Listener, ListenerId, RouteTable, RouteTableId, StatBlock, StatScope,
    Terminal, TlsContextId, UpstreamProtocol,
    live::{ClusterLive, EndpointLive, ListenerLive},
};
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

pub const CLUSTERS_MAX: usize = 100_000;
pub const LISTENERS_MAX: usize = 10_000;
pub const ROUTE_TABLES_MAX: usize = 100_000;
pub const ACCESS_LOG_SINKS_MAX: usize = 1024;
pub const ENDPOINTS_PER_CLUSTER_MAX: usize = 100_000;

/// Where blocks of counters come from; the same scope gives the same block.
pub trait StatAllocator {
    fn block(&mut self, scope: StatScope) -> StatBlock;
}

/// One whole configuration. Shared by all cores, never changed.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub version: u64,
    pub listeners: Vec<Arc<Listener>>,
    /// By `ClusterId`; None: not defined (now).
    pub clusters: Vec<Option<Cluster>>,
    /// By `RouteTableId`.
    pub(crate) route_tables: Vec<Option<Arc<RouteTable>>>,
    pub cluster_names: Arc<HashMap<String, ClusterId>>,
    pub grpc: Arc<GrpcBlocks>,
}

impl Snapshot {
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.clusters.get(id.0 as usize)?.as_ref()
    }

    pub fn cluster_by_name(&self, name: &str) -> Option<&Cluster> {
        self.cluster(*self.cluster_names.get(name)?)
    }

    pub fn route_table(&self, id: RouteTableId) -> Option<&Arc<RouteTable>> {
        self.route_tables.get(id.0 as usize)?.as_ref()
    }

    pub fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.id == id)
    }
}

/// Endpoint live state kept by (cluster, address); dropped when no snapshot has the endpoint any more.
type EndpointTable = HashMap<(ClusterId, SocketAddr), (EndpointId, Arc<EndpointLive>)>;

pub struct Builder {
    stats: Box<dyn StatAllocator + Send>,
    version: u64,
    cluster_ids: HashMap<String, ClusterId>,
    /// Shared with snapshots; made anew only when a name is added.
    cluster_names: Arc<HashMap<String, ClusterId>>,
    listener_ids: HashMap<String, ListenerId>,
    route_table_ids: HashMap<String, RouteTableId>,
    sinks: Vec<AccessLogSink>,
    /// Service, as metrics name it, and method.
    grpc_methods: Vec<(String, String)>,
    grpc: Arc<GrpcBlocks>,
    /// A listener or a cluster's configuration has changed since `grpc` was made.
    grpc_is_stale: bool,
    tls_contexts: u32,
    endpoints_made: u32,
    live: HashMap<ClusterId, Arc<ClusterLive>>,
    listener_live: HashMap<ListenerId, Arc<ListenerLive>>,
    endpoint_table: EndpointTable,
    clusters: Vec<Option<Cluster>>,
    listeners: Vec<Arc<Listener>>,
    route_tables: Vec<Option<Arc<RouteTable>>>,
}

impl Builder {
    pub fn new(stats: Box<dyn StatAllocator + Send>) -> Self {
        Builder {
            stats,
            version: 0,
            cluster_ids: HashMap::new(),
            cluster_names: Arc::default(),
            listener_ids: HashMap::new(),
            route_table_ids: HashMap::new(),
            sinks: Vec::new(),
            grpc_methods: Vec::new(),
            grpc: Arc::default(),
            grpc_is_stale: false,
            tls_contexts: 0,
            endpoints_made: 0,
            live: HashMap::new(),
            listener_live: HashMap::new(),
            endpoint_table: HashMap::new(),
            clusters: Vec::new(),
            listeners: Vec::new(),
            route_tables: Vec::new(),
        }
    }

    pub fn stat_block(&mut self, scope: StatScope) -> StatBlock {
        self.stats.block(scope)
    }

    /// The id of a name, defined or not yet: routes may point at a cluster that comes later, or never.
    pub fn cluster_id(&mut self, name: &str) -> ClusterId {
        if let Some(id) = self.cluster_ids.get(name) {
            return *id;
        }
        let id = ClusterId(self.cluster_ids.len() as u32);
        self.cluster_ids.insert(name.to_owned(), id);
        self.clusters.push(None);
        id
    }

    pub fn listener_id(&mut self, name: &str) -> ListenerId {
        let next = ListenerId(self.listener_ids.len() as u32);
        *self.listener_ids.entry(name.to_owned()).or_insert(next)
    }

    /// What cores count together for a listener; the same for the same listener.
    pub fn listener_live(&mut self, id: ListenerId) -> Arc<ListenerLive> {
        self.listener_live.entry(id).or_default().clone()
    }

    pub fn route_table_id(&mut self, name: &str) -> RouteTableId {
        if let Some(id) = self.route_table_ids.get(name) {
            return *id;
        }
        let id = RouteTableId(self.route_table_ids.len() as u32);
        self.route_table_ids.insert(name.to_owned(), id);
        self.route_tables.push(None);
        id
    }

    /// The number of an access log's sink; one file named twice is one sink.
    ///
    /// # Errors
    /// `TooMany`: there are [`ACCESS_LOG_SINKS_MAX`] others already.
    pub fn sink_id(&mut self, sink: &AccessLogSink) -> Result<u16, Error> {
        if let Some(known) = self.sinks.iter().position(|known| known == sink) {
            return Ok(known as u16);
        }
        bounded("files that access logs are written to", self.sinks.len() + 1, ACCESS_LOG_SINKS_MAX)?;
        self.sinks.push(sink.clone());
        Ok((self.sinks.len() - 1) as u16)
    }

    /// The number of a gRPC method that is counted by itself; the same for the same names.
    ///
    /// # Errors
    /// `TooMany`: there are [`GRPC_METHODS_MAX`] others already.
    pub fn grpc_method(&mut self, service: &str, method: &str) -> Result<u32, Error> {
        let is = |(known, name): &(String, String)| known == service && name == method;
        if let Some(known) = self.grpc_methods.iter().position(is) {
            return Ok(known as u32);
        }
        bounded("gRPC methods with counters of their own", self.grpc_methods.len() + 1, GRPC_METHODS_MAX)?;
        self.grpc_methods.push((service.to_owned(), method.to_owned()));
        Ok((self.grpc_methods.len() - 1) as u32)
    }

    /// Where gRPC calls are counted, if a filter says that they are.
    fn count_grpc(&mut self) {
        if !std::mem::take(&mut self.grpc_is_stale) {
            return;
        }
        let counts = |chain: &Arc<FilterChain>| match &chain.terminal {
            Terminal::Http(manager) => manager.filters.grpc_stats.is_some(),
            Terminal::Tcp(_) => false,
        };
        let mut chains = self.listeners.iter().flat_map(|l| l.chains.iter().chain(&l.default_chain));
        if !chains.any(counts) {
            return;
        }
        let mut blocks = HashMap::new();
        for cluster in self.clusters.iter().flatten() {
            if cluster.config.protocol == UpstreamProtocol::Http1 {
                continue;
            }
            let name = || cluster.config.stat_name.clone();
            let whole = self.stats.block(StatScope::ClusterGrpc { name: name() });
            let of_methods = self.grpc_methods.iter().map(|(service, method)| {
                let (service, method) = (service.clone(), method.clone());
                self.stats.block(StatScope::GrpcMethod { name: name(), service, method })
            });
            blocks.insert(cluster.config.id, std::iter::once(whole).chain(of_methods).collect());
        }
        self.grpc = Arc::new(GrpcBlocks(blocks));
    }

    /// By sink id.
    pub fn sinks(&self) -> &[AccessLogSink] {
        &self.sinks
    }

    /// A fresh slot of the TLS context table. Every call is a new context.
    pub fn tls_context_id(&mut self) -> TlsContextId {
        let id = TlsContextId(self.tls_contexts);
        self.tls_contexts += 1;
        id
    }

    /// Identity and live state of an endpoint: the same for the same cluster and address.
    pub fn endpoint(&mut self, cluster: ClusterId, address: SocketAddr) -> (EndpointId, Arc<EndpointLive>) {
        let made = &mut self.endpoints_made;
        let (id, live) = self.endpoint_table.entry((cluster, address)).or_insert_with(|| {
            let id = EndpointId(*made);
            *made += 1;
            (id, Arc::default())
        });
        (*id, live.clone())
    }

    pub fn put_cluster(&mut self, config: Arc<ClusterConfig>, endpoints: Arc<EndpointSet>) {
        let id = config.id;
        self.grpc_is_stale = true;
        let live = self.live.entry(id).or_default().clone();
        self.clusters[id.0 as usize] = Some(Cluster { config, endpoints, live });
    }

    /// Replaces the endpoints of a defined cluster. False: no such cluster.
    pub fn put_endpoints(&mut self, id: ClusterId, endpoints: Arc<EndpointSet>) -> bool {
        let Some(Some(cluster)) = self.clusters.get_mut(id.0 as usize) else { return false };
        cluster.endpoints = endpoints;
        true
    }

    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.clusters.get(id.0 as usize)?.as_ref()
    }

    pub fn remove_cluster(&mut self, name: &str) {
        if let Some(id) = self.cluster_ids.get(name) {
            self.clusters[id.0 as usize] = None;
        }
    }

    /// Adds a listener or replaces the one of that id.
    pub fn put_listener(&mut self, listener: Arc<Listener>) {
        self.grpc_is_stale = true;
        match self.listeners.iter_mut().find(|known| known.id == listener.id) {
            Some(known) => *known = listener,
            None => self.listeners.push(listener),
        }
    }

    pub fn remove_listener(&mut self, id: ListenerId) {
        self.listeners.retain(|listener| listener.id != id);
    }

    pub fn put_route_table(&mut self, table: Arc<RouteTable>) {
        let slot = table.id.0 as usize;
        self.route_tables[slot] = Some(table);
    }

    /// The next snapshot: a table of pointers, every unchanged resource shared with the one before.
    ///
    /// # Errors
    /// A table beyond its bound.
    pub fn build(&mut self) -> Result<Snapshot, Error> {
        bounded("clusters", self.clusters.len(), CLUSTERS_MAX)?;
        bounded("listeners", self.listeners.len(), LISTENERS_MAX)?;
        bounded("route tables", self.route_tables.len(), ROUTE_TABLES_MAX)?;
        for cluster in self.clusters.iter().flatten() {
            bounded("endpoints of a cluster", cluster.endpoints.endpoints.len(), ENDPOINTS_PER_CLUSTER_MAX)?;
        }
        // only the table itself still holds these: their endpoints are gone from every snapshot
        self.endpoint_table.retain(|_, (_, live)| Arc::strong_count(live) > 1);
        if self.cluster_names.len() != self.cluster_ids.len() {
            self.cluster_names = Arc::new(self.cluster_ids.clone());
        }
        self.count_grpc();
        self.version += 1;
        Ok(Snapshot {
            version: self.version,
            listeners: self.listeners.clone(),
            clusters: self.clusters.clone(),
            route_tables: self.route_tables.clone(),
            cluster_names: self.cluster_names.clone(),
            grpc: self.grpc.clone(),
        })
    }
}

fn bounded(what: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count > max { Err(Error::TooMany { what, count, max }) } else { Ok(()) }
}
