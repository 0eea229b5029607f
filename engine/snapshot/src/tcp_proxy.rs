//! envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy: bytes both ways.

use crate::{AccessLog, ClusterId, HashPolicy, StatBlock};
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
pub struct TcpProxy {
    pub target: TcpTarget,
    /// No byte either way for this long closes both sides; Envoy's default is 1 h, None: never.
    pub idle_timeout: Option<Duration>,
    pub connect_attempts_max: u32,
    pub connection_duration_max: Option<Duration>,
    pub hash_policy: Vec<HashPolicy>,
    pub access_log: Vec<Arc<AccessLog>>,
    pub stats: StatBlock,
}

#[derive(Debug)]
pub enum TcpTarget {
    Cluster(ClusterId),
    /// Weights as configured; their sum is above zero.
    Weighted {
        clusters: Vec<(ClusterId, u32)>,
        total: u32,
    },
}
