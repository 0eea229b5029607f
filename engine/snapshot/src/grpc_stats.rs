//! envoy.extensions.filters.http.grpc_stats.v3.FilterConfig: counters of gRPC calls by cluster, and by method where
//! methods are named.

use crate::{ClusterId, StatBlock};
use std::collections::HashMap;

/// Methods that are counted by themselves, over all filters.
pub const GRPC_METHODS_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcStats {
    /// Path of each call that is counted by itself -> its number, from [`crate::Builder::grpc_method`].
    pub methods: HashMap<Box<[u8]>, u32>,
    /// Also how long upstream takes (enable_upstream_stats).
    pub upstream_time: bool,
}

/// Counters of every cluster that speaks HTTP/2: first those of the calls that have none of their own, then those of
/// each method. A call over HTTP/1.1 cannot carry its status, and is none.
#[derive(Debug, Default)]
pub struct GrpcBlocks(pub(crate) HashMap<ClusterId, Box<[StatBlock]>>);

impl GrpcBlocks {
    /// A block that counts nothing where the cluster has none.
    pub fn of(&self, cluster: ClusterId, method: Option<u32>) -> StatBlock {
        let at = method.map_or(0, |method| method as usize + 1);
        self.0.get(&cluster).and_then(|blocks| blocks.get(at)).copied().unwrap_or_default()
    }
}
