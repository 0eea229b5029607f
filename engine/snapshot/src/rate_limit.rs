//! envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit and the network filter of that name.

use crate::{Fraction, HeaderEdit, HeaderMatcher, QueryMatcher, StatBlock, live::TokenBucket};

/// Descriptors of one filter; each is asked of every request.
pub const DESCRIPTORS_MAX: usize = 1024;

#[derive(Debug)]
pub struct LocalRateLimit {
    /// Exact over all cores.
    pub buckets: TokenBuckets,
    /// Every connection has buckets of its own, made from these.
    pub per_connection: bool,
    /// The default bucket is drawn from too where a descriptor matched.
    pub always_default: bool,
    pub enabled: Fraction,
    pub enforced: Fraction,
    /// 429 unless configured.
    pub status: u16,
    pub response_headers: Vec<HeaderEdit>,
    /// For requests that are over the limit and pass all the same.
    pub unenforced_request_headers: Vec<HeaderEdit>,
    /// gRPC requests get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub grpc_resource_exhausted: bool,
    pub rate_limit_headers: bool,
    /// Answers of refused requests say when to come again.
    pub retry_after: bool,
    /// By the rate of its bucket, the lowest first, as Envoy tries them.
    pub descriptors: Vec<Descriptor>,
    /// The filter's own; where it has some, those of routes and virtual hosts are not asked.
    pub rate_limits: Vec<RateLimit>,
    /// Of the routes' rate limits those of this stage are asked.
    pub stage: u32,
    pub virtual_host: VirtualHostRateLimits,
    pub stats: StatBlock,
}

/// The default one, and one for each descriptor.
#[derive(Debug)]
pub struct TokenBuckets {
    pub default: TokenBucket,
    pub descriptors: Box<[TokenBucket]>,
}

impl TokenBuckets {
    /// Of the same sizes and rates, all full.
    pub fn fresh(&self) -> TokenBuckets {
        TokenBuckets {
            default: self.default.fresh(),
            descriptors: self.descriptors.iter().map(TokenBucket::fresh).collect(),
        }
    }
}

/// The key and the value of each entry, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    pub entries: Vec<(Box<str>, Box<str>)>,
}

/// Which rate limits of a virtual host are asked (VhRateLimitsOptions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VirtualHostRateLimits {
    /// Where the route has none.
    #[default]
    Override,
    Include,
    Ignore,
}

/// envoy.config.route.v3.RateLimit: what is made of a request to compare with the descriptors.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub stage: u32,
    pub actions: Vec<RateLimitAction>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitAction {
    /// Of the entry that the action makes.
    pub key: Box<str>,
    pub value: RateLimitValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RateLimitValue {
    Generic(Box<str>),
    RequestHeader {
        name: Box<str>,
        /// Without the header there is no entry; else no descriptor.
        skip_if_absent: bool,
    },
    QueryParameter {
        name: Box<str>,
        skip_if_absent: bool,
    },
    /// The client's address, as far as x-forwarded-for is trusted.
    RemoteAddress,
    /// Where all match, or with `expect: false` not all.
    HeadersMatch {
        value: Box<str>,
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    QueryMatches {
        value: Box<str>,
        expect: bool,
        parameters: Vec<QueryMatcher>,
    },
}
