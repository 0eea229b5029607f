//! envoy.config.endpoint.v3: where a cluster's requests can go.

use crate::{EndpointId, StatBlock, live::EndpointLive};
use std::{net::SocketAddr, sync::Arc};

/// One version of a cluster's endpoints. `endpoints` is sorted by (priority, locality, address).
#[derive(Clone, Debug, Default)]
pub struct EndpointSet {
    pub endpoints: Vec<Arc<Endpoint>>,
    pub localities: Vec<Locality>,
    /// Highest priority number + 1.
    pub priorities: u32,
    /// Percent; 140 by default.
    pub overprovisioning_factor: u32,
}

#[derive(Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub address: SocketAddr,
    /// As configured (DNS name) or empty; for auto host rewrite and health checks.
    pub hostname: Box<str>,
    pub weight: u32,
    pub priority: u32,
    /// Index into the set's localities.
    pub locality: u32,
    pub health: HealthStatus,
    pub canary: bool,
    pub health_check_port: Option<u16>,
    /// Index into the cluster's transport sockets; resolved from transport_socket_match metadata.
    pub transport: u32,
    pub live: Arc<EndpointLive>,
    pub stats: StatBlock,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Locality {
    pub region: Box<str>,
    pub zone: Box<str>,
    pub sub_zone: Box<str>,
    pub weight: Option<u32>,
    pub priority: u32,
}

/// envoy.config.core.v3.HealthStatus, as the control plane or file sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HealthStatus {
    #[default]
    Healthy,
    Degraded,
    Unhealthy,
    Draining,
}
