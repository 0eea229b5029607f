//! A proxy in this process over a hand-made snapshot, with scripted peers on loopback. No sleeps: what must
//! happen is awaited with a bound.
#![allow(dead_code, unused_imports)] // each test program uses a part

mod peers;
mod publish;
pub mod routes;
pub mod tls;

use corelane_proxy::{CoreBlocks, Shared, Worker, WorkerEnv};
pub use corelane_proxy::{Drained, Limits};
use corelane_runtime::{Core, CoreConfig, Cores, DriverChoice, Mail, launch};
use corelane_snapshot::{
    Action, Builder, CircuitBreakers, ClientCertDetails, Cluster, ClusterConfig, ClusterId, ClusterKind,
    ClusterSpecifier, ClusterStats, Codec, CommonLb, EscapedSlashes, FilterChain, FilterChainMatch, Forward,
    ForwardClientCert, HeaderRules, Http1Options, HttpConnectionManager, HttpFilters, LbPolicy, Listener,
    ListenerFilters, ListenerId, OutlierDetection, PathMatch, PathRules, PerRouteFilters, PoolLimits,
    Publisher, RequestId, RetryBudget, RetryPolicy, Route, RouteMatch, RouteSource, RouteTable, ServerHeader,
    Snapshot, StatAllocator, StatBlock, StatScope, TcpProxy, TcpTarget, Terminal, TlsContextId,
    TransportSocket, UpgradeConfig, UpstreamProtocol, UpstreamTransport, VirtualHost, VirtualHostIndex,
};
use corelane_telemetry::{
    Block, Registry, Scope, Stat,
    access_log::{LogReader, log_ring},
};
use corelane_tls::{ClientSpec, ContextEnvironment, ContextTable};
pub use peers::{Answer, Client, Upstream, ok, outlier, policy};
use std::{
    cell::OnceCell,
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

/// Longer than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn driver() -> DriverChoice {
    match std::env::var("CORELANE_TEST_DRIVER").as_deref() {
        Ok("epoll") => DriverChoice::Epoll,
        Ok("io_uring") => DriverChoice::IoUring,
        _ => DriverChoice::Auto,
    }
}

struct Blocks;

impl StatAllocator for Blocks {
    fn block(&mut self, _: StatScope) -> StatBlock {
        StatBlock::default()
    }
}

/// What a test changes of the ordinary: one listener, one route, one cluster.
pub struct Setup {
    pub endpoints: Vec<SocketAddr>,
    pub retry: Option<RetryPolicy>,
    pub timeout: Option<Duration>,
    pub outlier: Option<OutlierDetection>,
    pub breakers: CircuitBreakers,
    /// Of the endpoints, in their order; empty: all 0.
    pub priorities: Vec<u32>,
    pub tcp: bool,
    pub upgrades: Vec<&'static str>,
    pub manager: fn(&mut HttpConnectionManager),
    pub cluster: fn(&mut ClusterConfig),
    pub forward: fn(&mut Forward),
    pub listener: fn(&mut Listener),
    /// Seconds without a byte after which an idle connection gives its buffer back, and so on.
    pub limits: Limits,
    pub cores: usize,
}

impl Setup {
    pub fn to(endpoints: &[SocketAddr]) -> Self {
        Setup {
            endpoints: endpoints.to_vec(),
            retry: None,
            timeout: Some(Duration::from_secs(15)),
            outlier: None,
            breakers: CircuitBreakers::default(),
            priorities: Vec::new(),
            tcp: false,
            upgrades: vec!["websocket"],
            manager: |_| {},
            cluster: |_| {},
            forward: |_| {},
            listener: |_| {},
            limits: Limits::default(),
            cores: 1,
        }
    }

    pub fn start(self) -> Proxy {
        Proxy::start(self)
    }

    fn snapshot(&self, registry: &mut Registry) -> (Builder, Snapshot, ListenerId) {
        let mut builder = Builder::new(Box::new(Blocks));
        let cluster = builder.cluster_id("upstream");
        let mut config = ClusterConfig {
            id: cluster,
            name: "upstream".into(),
            stat_name: "upstream".into(),
            kind: ClusterKind::Static,
            connect_timeout: Duration::from_secs(5),
            lb: LbPolicy::RoundRobin { slow_start: None },
            common_lb: CommonLb {
                healthy_panic_threshold: 50.0,
                fail_traffic_on_panic: false,
                locality_weighted: false,
                ignore_new_hosts_until_first_hc: false,
            },
            protocol: UpstreamProtocol::Http1,
            http2: Default::default(),
            transport: UpstreamTransport { sockets: vec![TransportSocket::Plain], matches: Vec::new() },
            pool: PoolLimits {
                idle_timeout: None,
                requests_per_connection_max: 0,
                connection_duration_max: None,
                stream_duration_max: None,
                idle_per_endpoint_max: 100,
                header_fields_max: 100,
            },
            breakers: self.breakers,
            retry_budget: RetryBudget::default(),
            high: Default::default(),
            outlier: self.outlier.clone(),
            health_checks: Vec::new(),
            bind: None,
            tcp_keepalive: None,
            close_connections_on_host_health_failure: false,
            stats: ClusterStats {
                cluster: StatBlock(registry.block(Scope::cluster("upstream")).raw()),
                outlier: StatBlock(registry.block(Scope::cluster_outlier("upstream")).raw()),
                health_check: StatBlock(registry.block(Scope::cluster_health_check("upstream")).raw()),
                http2: StatBlock(registry.block(Scope::cluster_http2("upstream")).raw()),
                ..ClusterStats::default()
            },
        };
        (self.cluster)(&mut config);
        let set = publish::endpoints(&mut builder, cluster, &self.endpoints, &self.priorities, 0);
        builder.put_cluster(Arc::new(config), Arc::new(set));
        let terminal = if self.tcp {
            Terminal::Tcp(Arc::new(TcpProxy {
                target: TcpTarget::Cluster(cluster),
                idle_timeout: None,
                connect_attempts_max: 1,
                connection_duration_max: None,
                hash_policy: Vec::new(),
                access_log: Vec::new(),
                stats: StatBlock(registry.block(Scope::tcp("relay")).raw()),
            }))
        } else {
            Terminal::Http(Arc::new(self.manager(&mut builder, registry, cluster)))
        };
        let id = builder.listener_id("in");
        let mut listener = Listener {
            id,
            name: "in".into(),
            address: "127.0.0.1:0".parse().expect("address"),
            bind_to_port: true,
            use_original_dst: false,
            transparent: false,
            freebind: false,
            ipv4_compat: false,
            backlog: 128,
            tcp_keepalive: None,
            direction: Default::default(),
            filters: ListenerFilters::default(),
            filters_timeout: None,
            continue_on_filters_timeout: false,
            chains: vec![Arc::new(FilterChain {
                name: "only".into(),
                matches: FilterChainMatch::default(),
                tls: None,
                handshake_timeout: None,
                network_filters: Vec::new(),
                terminal,
            })],
            default_chain: None,
            connections_max: None,
            live: builder.listener_live(id),
            access_log: Vec::new(),
            stats: Default::default(),
        };
        (self.listener)(&mut listener);
        builder.put_listener(Arc::new(listener));
        let snapshot = builder.build().expect("snapshot");
        (builder, snapshot, id)
    }

    fn manager(
        &self,
        builder: &mut Builder,
        registry: &mut Registry,
        cluster: ClusterId,
    ) -> HttpConnectionManager {
        let mut forward = Forward {
            timeout: self.timeout,
            retry: self.retry.clone().map(Arc::new),
            ..routes::forward_to(cluster)
        };
        (self.forward)(&mut forward);
        let route = routes::route_to("all", "/", forward);
        let host = VirtualHost {
            name: "any".into(),
            routes: vec![Arc::new(route)],
            index: None,
            require_tls: false,
            headers: HeaderRules::default(),
            retry: None,
            include_request_attempt_count: true,
            include_attempt_count_in_response: false,
            filters: PerRouteFilters::default(),
        };
        let table = RouteTable {
            id: builder.route_table_id("routes"),
            name: "routes".into(),
            hosts: VirtualHostIndex { hosts: vec![Arc::new(host)], any: Some(0), ..Default::default() },
            headers: HeaderRules::default(),
            most_specific_header_mutations_wins: false,
            ignore_port_in_host_matching: false,
            internal_only_headers: Vec::new(),
            filters: PerRouteFilters::default(),
        };
        let upgrade = |kind: &&str| UpgradeConfig { kind: (*kind).into(), enabled: true };
        let mut manager = HttpConnectionManager {
            codec: Codec::Auto,
            routes: RouteSource::Inline(Arc::new(table)),
            filters: HttpFilters::default(),
            server_name: "corelane".into(),
            server_header: ServerHeader::Overwrite,
            via: None,
            use_remote_address: false,
            skip_xff_append: false,
            xff_trusted_hops: 0,
            internal_addresses: Vec::new(),
            trace_sampling: None,
            request_id: RequestId { generate: true, preserve_external: false, always_set_in_response: false },
            forward_client_cert: ForwardClientCert::Sanitize,
            client_cert_details: ClientCertDetails::default(),
            path: PathRules {
                normalize: true,
                merge_slashes: false,
                escaped_slashes: EscapedSlashes::KeepUnchanged,
            },
            strip_any_host_port: false,
            strip_matching_host_port: false,
            strip_trailing_host_dot: false,
            scheme_overwrite: None,
            request_headers_timeout: None,
            request_timeout: None,
            stream_idle_timeout: Some(Duration::from_secs(300)),
            idle_timeout: Some(Duration::from_secs(3600)),
            connection_duration_max: None,
            stream_duration_max: None,
            delayed_close_timeout: Duration::from_secs(1),
            request_head_bytes_max: 60 << 10,
            header_fields_max: 100,
            requests_per_connection_max: 0,
            upgrades: self.upgrades.iter().map(upgrade).collect(),
            proxy_100_continue: false,
            http1: Http1Options { accept_http_10: true, ..Default::default() },
            http2_streams_max: 100,
            http2_stream_window: 1 << 20,
            http2_connection_window: 1 << 20,
            suppress_envoy_headers: false,
            access_log: Vec::new(),
            stats: Default::default(),
        };
        manager.stats.http = StatBlock(registry.block(Scope::http("test")).raw());
        manager.stats.fault = StatBlock(registry.block(Scope::fault("test")).raw());
        (self.manager)(&mut manager);
        manager
    }
}

thread_local! {
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// The number of the TLS context of a client that presents nothing and believes everything.
pub const TRUSTING_CLIENT: TlsContextId = TlsContextId(0);

fn tls_contexts() -> Arc<ContextTable> {
    let contexts = ContextTable::new(ContextEnvironment::new().expect("randomness"));
    let id = contexts.reserve().expect("a number");
    assert_eq!(id.0, TRUSTING_CLIENT.0);
    contexts.set_client(id, &ClientSpec::new("upstream")).expect("context");
    tls::put_server(&contexts);
    contexts
}

/// Runs until dropped.
pub struct Proxy {
    pub address: SocketAddr,
    /// What the access logs say.
    pub log: LogReader,
    pub shared: Arc<Shared>,
    cores: Option<Cores>,
    builder: Mutex<Builder>,
    publisher: Publisher,
    registry: Registry,
    another: Snapshot,
    /// Of the first core.
    pub core_stats: CoreBlocks,
    cores_stats: Vec<CoreBlocks>,
}

impl Proxy {
    fn start(setup: Setup) -> Proxy {
        let mut registry = Registry::new(setup.cores);
        let shared = Arc::new(Shared::new(setup.limits.clone()));
        let (builder, snapshot, listener) = setup.snapshot(&mut registry);
        let (_, another, _) = setup.snapshot(&mut registry);
        let publisher = Publisher::new(snapshot);
        let tls = tls_contexts();
        let mut logs = Vec::new();
        let cores_stats: Vec<_> = (0..setup.cores).map(|core| CoreBlocks::of(&mut registry, core)).collect();
        let mut env = |core: usize| {
            let (log, lines) = log_ring();
            logs.push(lines);
            Some(WorkerEnv {
                subscription: publisher.seed(),
                tls: tls.clone(),
                shard: registry.shard(core).expect("shard"),
                stats: cores_stats[core],
                log,
                shared: shared.clone(),
                seed: 7,
            })
        };
        let envs = Arc::new(Mutex::new((0..setup.cores).map(&mut env).collect::<Vec<_>>()));
        let (started, ready) = mpsc::channel();
        let config = CoreConfig { driver: driver(), ..CoreConfig::default() };
        let cores = launch(vec![config; setup.cores], move |core| {
            let env = envs.lock().expect("env")[core.id].take();
            let started = started.clone();
            async move {
                let worker =
                    Worker::start(&core, env.expect("one each")).map_err(|errors| errors[0].to_string());
                let kept = worker.map(|worker| WORKER.with(|slot| slot.set(worker).is_ok()));
                started.send(kept.map(drop)).expect("test waits");
                std::future::pending::<()>().await;
            }
        })
        .expect("core");
        for _ in 0..setup.cores {
            ready.recv_timeout(PATIENCE).expect("worker").expect("bound");
        }
        let address = shared.bound(listener).expect("bound");
        Proxy {
            address,
            shared,
            log: logs.swap_remove(0),
            cores: Some(cores),
            builder: Mutex::new(builder),
            publisher,
            registry,
            another,
            core_stats: cores_stats[0],
            cores_stats,
        }
    }

    /// The cluster as it was published last.
    pub fn cluster(&self) -> Cluster {
        self.publisher.current().cluster_by_name("upstream").expect("cluster").clone()
    }

    /// Over all cores, now.
    pub fn count<S: Stat>(&self, block: StatBlock, stat: S) -> u64 {
        self.registry.value(Block::<S>::from_raw(block.0), stat)
    }

    pub fn cluster_count<S: Stat>(&self, pick: fn(&ClusterStats) -> StatBlock, stat: S) -> u64 {
        self.count(pick(&self.cluster().config.stats), stat)
    }

    /// Of the TCP proxy.
    pub fn tcp_count(&self, stat: corelane_telemetry::TcpStat) -> u64 {
        let snapshot = self.publisher.current();
        let Terminal::Tcp(proxy) = &snapshot.listeners[0].chains[0].terminal else { panic!("tcp") };
        self.count(proxy.stats, stat)
    }

    /// Of the first core.
    pub fn core_count(&self, stat: corelane_telemetry::CoreStat) -> u64 {
        self.count_of_core(0, stat)
    }

    pub fn count_of_core(&self, core: usize, stat: corelane_telemetry::CoreStat) -> u64 {
        self.registry.value(self.cores_stats[core].core, stat)
    }

    /// Of the connection manager.
    pub fn http_count(&self, stat: corelane_telemetry::HttpStat) -> u64 {
        let snapshot = self.publisher.current();
        let Terminal::Http(manager) = &snapshot.listeners[0].chains[0].terminal else { panic!("http") };
        self.count(manager.stats.http, stat)
    }

    /// Of the connection manager's fault filter.
    pub fn fault_count(&self, stat: corelane_telemetry::FaultStat) -> u64 {
        let snapshot = self.publisher.current();
        let Terminal::Http(manager) = &snapshot.listeners[0].chains[0].terminal else { panic!("http") };
        self.count(manager.stats.fault, stat)
    }

    /// Runs on the first core and returns what came of it.
    pub fn on_core<T: Send + 'static>(&self, run: impl FnOnce(&Rc<Worker>) -> T + Send + 'static) -> T {
        self.on_core_of(0, run)
    }

    pub fn on_core_of<T: Send + 'static>(
        &self,
        core: usize,
        run: impl FnOnce(&Rc<Worker>) -> T + Send + 'static,
    ) -> T {
        let (done, result) = mpsc::channel();
        let task = Mail::task(move |_: &Rc<Core>| {
            WORKER.with(|slot| done.send(run(slot.get().expect("worker"))).expect("test waits"));
        });
        let cores = self.cores.as_ref().expect("running");
        cores.mail()[core].try_send(task).unwrap_or_else(|_| panic!("mailbox"));
        result.recv_timeout(PATIENCE).expect("ran")
    }

    /// Waits until it is so; a test that waits longer than [`PATIENCE`] has failed.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !is() {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}");
            std::thread::yield_now();
        }
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Client::of(stream)
    }

    /// One request on its own connection; what came back.
    pub fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request.as_bytes());
        client.answer()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.take() {
            cores.stop();
            let _ = cores.join();
        }
    }
}
