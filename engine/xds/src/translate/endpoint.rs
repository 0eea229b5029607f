//! envoy.config.endpoint.v3: where a cluster's requests can go, before and after its names are resolved.

use super::{
    Context, api,
    values::{labels, port, port_number},
};
use corelane_snapshot::{
    Builder, ClusterConfig, ClusterId, ClusterKind, Endpoint, EndpointSet, HealthStatus, Locality, StatScope,
    UpstreamTransport,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// endpoint.proto, overprovisioning_factor: "Defaults to 140".
const OVERPROVISIONING_FACTOR: u32 = 140;
/// Metadata namespaces (endpoint_components.proto, cluster.proto).
const LB: &str = "envoy.lb";
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// A cluster whose endpoints are given by name: whoever resolves names keeps one and asks it for endpoints.
#[derive(Clone, Debug)]
pub struct DnsCluster {
    pub config: Arc<ClusterConfig>,
    pub assignment: Assignment,
    /// Added to the refresh time, drawn anew each time.
    pub jitter: Duration,
    /// After a failed look-up: first and longest wait, doubling; None: at the refresh rate.
    pub failure_refresh: Option<(Duration, Duration)>,
}

impl DnsCluster {
    /// The names to resolve, each once.
    pub fn names(&self) -> BTreeSet<&str> {
        self.assignment.names().map(|(_, name)| name).collect()
    }

    /// The cluster's endpoints under these answers; a name without an answer has none. Of a LOGICAL_DNS cluster the
    /// first address counts.
    pub fn endpoints(&self, builder: &mut Builder, answers: &HashMap<String, Vec<IpAddr>>) -> EndpointSet {
        let is_logical = matches!(self.config.kind, ClusterKind::LogicalDns { .. });
        self.assignment.endpoints(builder, self.config.id, &self.config.stat_name, |name| {
            let addresses = answers.get(name).map(Vec::as_slice).unwrap_or_default();
            addresses.iter().take(if is_logical { 1 } else { usize::MAX }).copied().collect()
        })
    }
}

/// Endpoints as configured, by address or name.
#[derive(Clone, Debug)]
pub struct Assignment {
    targets: Vec<Target>,
    localities: Vec<Locality>,
    overprovisioning_factor: u32,
}

impl Default for Assignment {
    fn default() -> Self {
        Assignment {
            targets: Vec::new(),
            localities: Vec::new(),
            overprovisioning_factor: OVERPROVISIONING_FACTOR,
        }
    }
}

#[derive(Clone, Debug)]
struct Target {
    host: Host,
    port: u16,
    /// Field path below the load assignment, for findings about the host.
    place: String,
    hostname: Box<str>,
    weight: u32,
    priority: u32,
    locality: u32,
    health: HealthStatus,
    canary: bool,
    health_check_port: Option<u16>,
    transport: u32,
}

#[derive(Clone, Debug)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Assignment {
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Hosts that are no addresses, with the field that says so.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.targets.iter().filter_map(|target| match &target.host {
            Host::Name(name) => Some((target.place.as_str(), name.as_str())),
            Host::Ip(_) => None,
        })
    }

    /// A health check's `alt_port` is the port of every endpoint that has none of its own.
    pub(super) fn with_health_check_port(mut self, cx: &mut Context<'_>, port: Option<u32>) -> Self {
        if let Some(port) = port.and_then(|port| port_number(cx, "health_checks", port)) {
            for target in &mut self.targets {
                target.health_check_port.get_or_insert(port);
            }
        }
        self
    }

    /// The set, sorted as the snapshot wants it. One address counts once: the first target that names it.
    pub(super) fn endpoints(
        &self,
        builder: &mut Builder,
        cluster: ClusterId,
        stat_name: &str,
        resolve: impl Fn(&str) -> Vec<IpAddr>,
    ) -> EndpointSet {
        let mut seen: HashSet<SocketAddr> = HashSet::new();
        let mut placed: Vec<(SocketAddr, &Target)> = Vec::new();
        for target in &self.targets {
            let addresses = match &target.host {
                Host::Ip(ip) => vec![*ip],
                Host::Name(name) => resolve(name),
            };
            for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, target.port)) {
                if seen.insert(address) {
                    placed.push((address, target));
                }
            }
        }
        placed.sort_by_key(|(address, target)| (target.priority, target.locality, *address));
        let priorities = placed.last().map_or(0, |(_, target)| target.priority.saturating_add(1));
        EndpointSet {
            endpoints: placed
                .into_iter()
                .map(|(address, target)| Arc::new(target.endpoint(builder, cluster, stat_name, address)))
                .collect(),
            localities: self.localities.clone(),
            priorities,
            overprovisioning_factor: self.overprovisioning_factor,
        }
    }
}

impl Target {
    fn endpoint(
        &self,
        builder: &mut Builder,
        cluster: ClusterId,
        stat_name: &str,
        address: SocketAddr,
    ) -> Endpoint {
        let (id, live) = builder.endpoint(cluster, address);
        let scope = StatScope::Endpoint { cluster: stat_name.to_owned(), address: address.to_string() };
        let stats = builder.stat_block(scope);
        Endpoint {
            id,
            address,
            hostname: match (&self.host, self.hostname.is_empty()) {
                (Host::Name(name), true) => name.as_str().into(),
                _ => self.hostname.clone(),
            },
            weight: self.weight,
            priority: self.priority,
            locality: self.locality,
            health: self.health,
            canary: self.canary,
            health_check_port: self.health_check_port,
            transport: self.transport,
            live,
            stats,
        }
    }
}

pub(super) fn assignment(
    cx: &mut Context<'_>,
    load: &api::endpoint::ClusterLoadAssignment,
    transport: &UpstreamTransport,
) -> Assignment {
    let mut out = Assignment::default();
    if let Some(factor) = load.policy.as_ref().and_then(|policy| policy.overprovisioning_factor) {
        out.overprovisioning_factor = factor;
    }
    let mut place = (0, 0);
    cx.each("endpoints", &load.endpoints, |cx, group| {
        let locality = out.localities.len() as u32;
        let name = group.locality.clone().unwrap_or_default();
        out.localities.push(Locality {
            region: name.region.into(),
            zone: name.zone.into(),
            sub_zone: name.sub_zone.into(),
            weight: group.load_balancing_weight,
            priority: group.priority,
        });
        place.1 = 0;
        let default = choose(transport, &labels(cx, &group.metadata, TRANSPORT_SOCKET_MATCH)).unwrap_or(0);
        let targets = cx.each("lb_endpoints", &group.lb_endpoints, |cx, endpoint| {
            let found = target(cx, endpoint, transport, default).map(|target| Target {
                locality,
                priority: group.priority,
                place: format!(
                    "endpoints[{}].lb_endpoints[{}].endpoint.address.socket_address.address",
                    place.0, place.1
                ),
                ..target
            });
            place.1 += 1;
            found
        });
        out.targets.extend(targets);
        place.0 += 1;
        Some(())
    });
    out
}

fn target(
    cx: &mut Context<'_>,
    endpoint: &api::endpoint::LbEndpoint,
    transport: &UpstreamTransport,
    default: u32,
) -> Option<Target> {
    use api::{core::address::Address, endpoint::lb_endpoint::HostIdentifier};
    let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else {
        cx.error_at("endpoint", "must be set");
        return None;
    };
    let labels_lb = labels(cx, &endpoint.metadata, LB);
    let canary = labels_lb.iter().any(|(key, value)| &**key == "canary" && &**value == "true");
    let transport =
        choose(transport, &labels(cx, &endpoint.metadata, TRANSPORT_SOCKET_MATCH)).unwrap_or(default);
    cx.within("endpoint", |cx| {
        let Some(Address::SocketAddress(address)) = host.address.as_ref().and_then(|a| a.address.as_ref())
        else {
            cx.error_at("address", "must be set");
            return None;
        };
        let port = cx.within("address", |cx| cx.within("socket_address", |cx| port(cx, address)))?;
        let host_name = || Host::Name(address.address.clone());
        Some(Target {
            host: address.address.parse().map_or_else(|_| host_name(), Host::Ip),
            port,
            place: String::new(),
            hostname: host.hostname.as_str().into(),
            weight: endpoint.load_balancing_weight.unwrap_or(1),
            priority: 0,
            locality: 0,
            health: health(endpoint.health_status()),
            canary,
            health_check_port: host
                .health_check_config
                .as_ref()
                .filter(|config| config.port_value != 0)
                .and_then(|config| port_number(cx, "health_check_config", config.port_value)),
            transport,
        })
    })
}

fn health(status: api::core::HealthStatus) -> HealthStatus {
    use api::core::HealthStatus as Status;
    match status {
        Status::Unknown | Status::Healthy => HealthStatus::Healthy,
        // health_check.proto: TIMEOUT "is interpreted by Envoy as UNHEALTHY"
        Status::Unhealthy | Status::Timeout => HealthStatus::Unhealthy,
        Status::Draining => HealthStatus::Draining,
        Status::Degraded => HealthStatus::Degraded,
    }
}

/// cluster.proto, transport_socket_matches: the first entry of which every label is on the endpoint, or else on its
/// locality; else the cluster's own socket.
fn choose(transport: &UpstreamTransport, labels: &[(Box<str>, Box<str>)]) -> Option<u32> {
    let fits = |wanted: &[(Box<str>, Box<str>)]| wanted.iter().all(|label| labels.contains(label));
    transport.matches.iter().find(|entry| fits(&entry.labels)).map(|entry| entry.socket)
}
