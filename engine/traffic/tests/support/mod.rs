//! Clusters and endpoints for tests: everything at its default, made without a configuration file.
#![allow(dead_code)]

use corelane_snapshot::{
    Action, BackOff, CircuitBreakers, Cluster, ClusterConfig, ClusterId, ClusterKind, ClusterSpecifier,
    ClusterStats, CommonLb, Endpoint, EndpointId, EndpointSet, Forward, HeaderRules, HealthCheck,
    HealthCheckKind, HealthStatus, Http2Options, LbPolicy, Locality, OutlierDetection, PathMatch,
    PerRouteFilters, PoolLimits, RetryBudget, RetryOn, RetryPolicy, Route, RouteIndex, RouteMatch, StatBlock,
    StatusRange, TransportSocket, UpstreamProtocol, UpstreamTransport, VirtualHost, live::EndpointLive,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

pub const SECOND: u64 = 1_000_000_000;
pub const MS: u64 = 1_000_000;

pub fn cluster_config() -> ClusterConfig {
    ClusterConfig {
        id: ClusterId(0),
        name: "payments".into(),
        stat_name: "payments".into(),
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
        http2: Http2Options::default(),
        transport: UpstreamTransport { sockets: vec![TransportSocket::Plain], matches: Vec::new() },
        pool: PoolLimits {
            idle_timeout: None,
            requests_per_connection_max: 0,
            connection_duration_max: None,
            stream_duration_max: None,
            idle_per_endpoint_max: 16,
            header_fields_max: 100,
        },
        breakers: CircuitBreakers::default(),
        retry_budget: RetryBudget::default(),
        high: Default::default(),
        outlier: None,
        health_checks: Vec::new(),
        bind: None,
        tcp_keepalive: None,
        close_connections_on_host_health_failure: false,
        stats: ClusterStats::default(),
    }
}

/// Envoy's defaults.
pub fn outlier() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        enforcing_local_origin_success_rate: 100,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: None,
        always_eject_one_host: false,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_success_rate: 100,
        failure_percentage_threshold: 85,
        enforcing_failure_percentage: 0,
        enforcing_failure_percentage_local_origin: 0,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        successful_active_health_check_uneject_host: true,
    }
}

pub fn retry_policy(on: RetryOn, retries_max: u32) -> RetryPolicy {
    RetryPolicy {
        on,
        retries_max,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        back_off: BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
        avoid_previous_hosts: true,
        omit_canary_hosts: false,
        host_selection_attempts_max: 1,
        avoid_previous_priorities: None,
    }
}

#[derive(Clone, Debug)]
pub struct Host {
    pub number: u32,
    pub weight: u32,
    pub priority: u32,
    pub locality: u32,
    pub health: HealthStatus,
    pub canary: bool,
}

pub fn host(number: u32) -> Host {
    Host { number, weight: 1, priority: 0, locality: 0, health: HealthStatus::Healthy, canary: false }
}

pub fn endpoint(host: &Host) -> Endpoint {
    let [_, b, c, d] = host.number.to_be_bytes();
    Endpoint {
        id: EndpointId(host.number),
        address: SocketAddr::from(([10, b, c, d], 8080)),
        hostname: Box::default(),
        weight: host.weight,
        priority: host.priority,
        locality: host.locality,
        health: host.health,
        canary: host.canary,
        health_check_port: None,
        transport: 0,
        live: Arc::new(EndpointLive::default()),
        stats: StatBlock::default(),
    }
}

pub fn set(hosts: &[Host]) -> EndpointSet {
    let localities = hosts.iter().map(|h| h.locality + 1).max().unwrap_or(0);
    EndpointSet {
        endpoints: hosts.iter().map(|host| Arc::new(endpoint(host))).collect(),
        localities: vec![Locality::default(); localities as usize],
        priorities: hosts.iter().map(|h| h.priority + 1).max().unwrap_or(0),
        overprovisioning_factor: 140,
    }
}

/// Replaces the endpoints; those that stay keep their live state, as the builder has it.
pub fn with_hosts(cluster: &Cluster, hosts: &[Host]) -> Cluster {
    let mut next = set(hosts);
    for slot in &mut next.endpoints {
        if let Some(old) = cluster.endpoints.endpoints.iter().find(|old| old.id == slot.id) {
            *slot = old.clone();
        }
    }
    Cluster { endpoints: Arc::new(next), ..cluster.clone() }
}

pub fn cluster(config: ClusterConfig, hosts: &[Host]) -> Cluster {
    Cluster { config: Arc::new(config), endpoints: Arc::new(set(hosts)), live: Arc::default() }
}

pub fn hosts(count: u32) -> Vec<Host> {
    (0..count).map(host).collect()
}

/// The seed of a simulation: `SIM_SEED` replays one.
pub fn seed() -> u64 {
    let seed = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_801);
    println!("replay with SIM_SEED={seed}");
    seed
}

pub fn forward() -> Forward {
    Forward {
        target: ClusterSpecifier::Cluster(ClusterId(0)),
        cluster_not_found_status: 503,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: None,
        stream_duration_max: None,
        grpc_timeout_max: None,
        retry: None,
        hash_policy: Vec::new(),
        upgrades: Vec::new(),
        priority: Default::default(),
    }
}

pub fn route(name: &str, path: PathMatch) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            path,
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
            grpc: false,
            tls_presented: None,
            tls_validated: None,
        },
        action: Action::None,
        headers: HeaderRules::default(),
        filters: PerRouteFilters::default(),
        stats: StatBlock::default(),
    }
}

pub fn virtual_host(name: &str, routes: Vec<Route>) -> VirtualHost {
    let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
    VirtualHost {
        name: name.into(),
        index: RouteIndex::of(&routes),
        routes,
        require_tls: false,
        headers: HeaderRules::default(),
        retry: None,
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        filters: PerRouteFilters::default(),
    }
}

/// Every 5 s, 7 s while unhealthy, 60 s without traffic; out after 3, in after 2.
pub fn health_check() -> HealthCheck {
    HealthCheck {
        kind: HealthCheckKind::Http {
            host: "payments".into(),
            path: "/healthz".into(),
            method: "GET".into(),
            request_headers_add: Vec::new(),
            request_headers_remove: Vec::new(),
            expected_statuses: vec![StatusRange { start: 200, end: 201 }],
            retriable_statuses: Vec::new(),
            service_name: None,
            http2: false,
        },
        timeout: Duration::from_secs(1),
        interval: Duration::from_secs(5),
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        interval_jitter_percent: 0,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        unhealthy_interval: Duration::from_secs(7),
        no_traffic_interval: Duration::from_secs(60),
        reuse_connection: true,
    }
}
