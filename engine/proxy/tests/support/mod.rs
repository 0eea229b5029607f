//! A proxy in this process over a hand-made snapshot, with scripted peers on loopback. No sleeps: what must
//! happen is awaited with a bound.
#![allow(dead_code)]

use corelane_proxy::{Limits, Shared, Worker, WorkerEnv};
use corelane_runtime::{CoreConfig, Cores, DriverChoice, launch};
use corelane_snapshot::{
    Action, Builder, CircuitBreakers, ClientCertDetails, ClusterConfig, ClusterKind, ClusterSpecifier, Codec, CommonLb,
    Endpoint, EndpointSet, EscapedSlashes, FilterChain, FilterChainMatch, Forward, ForwardClientCert, HeaderRules,
    HealthStatus, Http1Options, HttpConnectionManager, HttpFilters, LbPolicy, Listener, ListenerFilters, ListenerId,
    OutlierDetection, PathMatch, PathRules, PerRouteFilters, PoolLimits, Publisher, RequestId, RetryBudget, RetryPolicy,
    Route, RouteMatch, RouteSource, RouteTable, ServerHeader, Snapshot, StatAllocator, StatBlock, StatScope, TcpProxy,
    TcpTarget, Terminal, TransportSocket, UpgradeConfig, UpstreamProtocol, UpstreamTransport, VirtualHost,
    VirtualHostIndex,
};
use corelane_telemetry::{Registry, access_log::log_ring};
use corelane_tls::{ContextEnvironment, ContextTable};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
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
    pub tcp: bool,
    pub upgrades: Vec<&'static str>,
    pub manager: fn(&mut HttpConnectionManager),
}

impl Setup {
    pub fn to(endpoints: &[SocketAddr]) -> Self {
        Setup {
            endpoints: endpoints.to_vec(),
            retry: None,
            timeout: Some(Duration::from_secs(15)),
            outlier: None,
            breakers: CircuitBreakers::default(),
            tcp: false,
            upgrades: vec!["websocket"],
            manager: |_| {},
        }
    }

    pub fn start(self) -> Proxy {
        Proxy::start(self)
    }

    fn snapshot(self) -> (Builder, Snapshot, ListenerId) {
        let mut builder = Builder::new(Box::new(Blocks));
        let cluster = builder.cluster_id("upstream");
        let config = ClusterConfig {
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
                close_connections_on_host_set_change: false,
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
            outlier: self.outlier.clone(),
            health_checks: Vec::new(),
            bind: None,
            tcp_keepalive: None,
            buffer_limit_bytes: 1 << 20,
            close_connections_on_host_health_failure: false,
            ignore_health_on_host_removal: false,
            stats: Default::default(),
        };
        let endpoints = self.endpoints.iter().map(|address| {
            let (id, live) = builder.endpoint(cluster, *address);
            Arc::new(Endpoint {
                id,
                address: *address,
                hostname: "".into(),
                weight: 1,
                priority: 0,
                locality: 0,
                health: HealthStatus::Healthy,
                canary: false,
                health_check_port: None,
                transport: 0,
                labels: Vec::new(),
                live,
                stats: StatBlock::default(),
            })
        });
        let set = EndpointSet {
            endpoints: endpoints.collect(),
            localities: vec![Default::default()],
            priorities: 1,
            overprovisioning_factor: 140,
            uniform_weight: true,
        };
        builder.put_cluster(Arc::new(config), Arc::new(set));
        let terminal = if self.tcp {
            Terminal::Tcp(Arc::new(TcpProxy {
                target: TcpTarget::Cluster(cluster),
                idle_timeout: None,
                connect_attempts_max: 1,
                connection_duration_max: None,
                hash_policy: Vec::new(),
                access_log: Vec::new(),
                stats: StatBlock::default(),
            }))
        } else {
            Terminal::Http(Arc::new(self.manager(&mut builder, cluster)))
        };
        let id = builder.listener_id("in");
        let listener = Listener {
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
            buffer_limit_bytes: 1 << 20,
            connections_max: None,
            live: builder.listener_live(id),
            access_log: Vec::new(),
            stats: Default::default(),
        };
        builder.put_listener(Arc::new(listener));
        let snapshot = builder.build().expect("snapshot");
        (builder, snapshot, id)
    }

    fn manager(&self, builder: &mut Builder, cluster: corelane_snapshot::ClusterId) -> HttpConnectionManager {
        let forward = Forward {
            target: ClusterSpecifier::Cluster(cluster),
            cluster_not_found_status: 503,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout: self.timeout,
            idle_timeout: None,
            stream_duration_max: None,
            grpc_timeout_max: None,
            retry: self.retry.clone().map(Arc::new),
            mirrors: Vec::new(),
            hash_policy: Vec::new(),
            upgrades: Vec::new(),
            subset: Vec::new(),
        };
        let route = Route {
            name: "all".into(),
            matches: RouteMatch {
                path: PathMatch::Prefix { text: "/".into(), ignore_case: false },
                headers: Vec::new(),
                query: Vec::new(),
                fraction: None,
                grpc: false,
                tls_presented: None,
                tls_validated: None,
            },
            action: Action::Forward(Box::new(forward)),
            headers: HeaderRules::default(),
            filters: PerRouteFilters::default(),
            decorator: None,
            stats: StatBlock::default(),
        };
        let host = VirtualHost {
            name: "any".into(),
            domains: vec!["*".into()],
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
            direct_response_bytes_max: 4096,
            filters: PerRouteFilters::default(),
        };
        let upgrade = |kind: &&str| UpgradeConfig { kind: (*kind).into(), enabled: true };
        let mut manager = HttpConnectionManager {
            stat_prefix: "test".into(),
            codec: Codec::Auto,
            routes: RouteSource::Inline(Arc::new(table)),
            filters: HttpFilters::default(),
            server_name: "corelane".into(),
            server_header: ServerHeader::Overwrite,
            via: None,
            use_remote_address: false,
            skip_xff_append: false,
            xff_trusted_hops: 0,
            request_id: RequestId {
                generate: true,
                preserve_external: false,
                always_set_in_response: false,
                pack_trace_reason: true,
            },
            forward_client_cert: ForwardClientCert::Sanitize,
            client_cert_details: ClientCertDetails::default(),
            path: PathRules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::KeepUnchanged },
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
            drain_timeout: Duration::from_secs(5),
            delayed_close_timeout: Duration::from_secs(1),
            request_head_bytes_max: 60 << 10,
            header_fields_max: 100,
            requests_per_connection_max: 0,
            upgrades: self.upgrades.iter().map(upgrade).collect(),
            http1: Http1Options { accept_http_10: true, allow_absolute_url: true, ..Default::default() },
            http2_streams_max: 100,
            http2_stream_window: 1 << 20,
            http2_connection_window: 1 << 20,
            generate_proxy_status: false,
            suppress_envoy_headers: false,
            access_log: Vec::new(),
            stats: Default::default(),
        };
        (self.manager)(&mut manager);
        manager
    }
}

/// Runs until dropped.
pub struct Proxy {
    pub address: SocketAddr,
    cores: Option<Cores>,
    _publisher: Publisher,
    _registry: Registry,
}

impl Proxy {
    fn start(setup: Setup) -> Proxy {
        let (_builder, snapshot, listener) = setup.snapshot();
        let publisher = Publisher::new(snapshot);
        let mut registry = Registry::new(1);
        let shared = Arc::new(Shared::new(Limits::default()));
        let (log, _lines) = log_ring();
        let env = WorkerEnv {
            subscription: publisher.seed(),
            tls: ContextTable::new(ContextEnvironment::new().expect("randomness")),
            shard: registry.shard(0).expect("shard"),
            stats: StatBlock::default(),
            log,
            shared: shared.clone(),
            seed: 7,
        };
        let env = Arc::new(Mutex::new(Some(env)));
        let (started, ready) = mpsc::channel();
        let config = CoreConfig { driver: driver(), ..CoreConfig::default() };
        let cores = launch(vec![config], move |core| {
            let env = env.lock().expect("env").take();
            let started = started.clone();
            async move {
                let worker = Worker::start(&core, env.expect("one core")).map_err(|errors| errors[0].to_string());
                started.send(worker.map(drop)).expect("test waits");
                std::future::pending::<()>().await;
            }
        })
        .expect("core");
        ready.recv_timeout(PATIENCE).expect("worker").expect("bound");
        let address = shared.bound(listener).expect("bound");
        Proxy { address, cores: Some(cores), _publisher: publisher, _registry: registry }
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Client { stream, read: Vec::new() }
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
            let _ = cores.stop();
            let _ = cores.join();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// A client that reads messages one by one.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Client { stream, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// More bytes; false at the end of the stream.
    pub fn more(&mut self) -> bool {
        self.try_read().expect("read") > 0
    }

    fn try_read(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 65536];
        loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => {
                    let n = read?;
                    self.read.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
            }
        }
    }

    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).expect("head");
            }
            assert!(self.more(), "connection ended within a head: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.read.len() < n {
            assert!(self.more(), "connection ended {} bytes early", n - self.read.len());
        }
        self.read.drain(..n).collect()
    }

    pub fn to_end(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.more(), "connection ended within a line");
        }
    }

    pub fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line().split(';').next().unwrap_or(""), 16).expect("chunk size");
            if size == 0 {
                while !self.line().is_empty() {}
                return body;
            }
            body.extend(self.exactly(size));
            self.exactly(2);
        }
    }

    /// A whole response.
    pub fn answer(&mut self) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().expect("status");
        let mut answer = Answer { status, head, body: Vec::new() };
        answer.body = match (answer.field("content-length"), answer.field("transfer-encoding")) {
            _ if status == 101 || status == 204 || status == 304 => Vec::new(),
            (Some(length), _) => self.exactly(length.parse().expect("length")),
            (_, Some(_)) => self.chunked(),
            _ => self.to_end(),
        };
        answer
    }

    /// A whole request: its head and body.
    pub fn request(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let answer = Answer { status: 0, head: head.clone(), body: Vec::new() };
        let body = match (answer.field("content-length"), answer.field("transfer-encoding")) {
            (Some(length), _) => self.exactly(length.parse().expect("length")),
            (_, Some(_)) => self.chunked(),
            _ => Vec::new(),
        };
        (head, body)
    }

    pub fn half_close(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    }

    /// Ends with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// A scripted upstream: each accepted connection is served by `script(number, client)` on a thread of its own.
pub struct Upstream {
    pub address: SocketAddr,
    _thread: JoinHandle<()>,
}

impl Upstream {
    pub fn start(script: impl Fn(usize, Client) + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let script = script.clone();
                std::thread::spawn(move || script(number, Client::of(stream)));
            }
        });
        Upstream { address, _thread: thread }
    }

    /// Answers every request on every connection like this, until the peer ends.
    pub fn answering(answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> Upstream {
        Upstream::start(move |_, mut client| {
            loop {
                if client.read.is_empty() && !client.try_more() {
                    return;
                }
                let (head, body) = client.request();
                if client.stream.write_all(answer(&head, &body).as_bytes()).is_err() {
                    return;
                }
            }
        })
    }
}

impl Client {
    /// More bytes; false at the end of the stream or a reset.
    pub fn try_more(&mut self) -> bool {
        self.try_read().is_ok_and(|n| n > 0)
    }
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
