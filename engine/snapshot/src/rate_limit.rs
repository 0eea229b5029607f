//! envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit and the network filter of that name.

use crate::{Fraction, HeaderEdit, StatBlock, live::TokenBucket};
use std::sync::Arc;

#[derive(Debug)]
pub struct LocalRateLimit {
    /// Exact over all cores.
    pub bucket: Arc<TokenBucket>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    /// 429 unless configured.
    pub status: u16,
    pub response_headers: Vec<HeaderEdit>,
    /// gRPC requests get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub grpc_resource_exhausted: bool,
    pub rate_limit_headers: bool,
    pub stats: StatBlock,
}
