//! What cores must count exactly together. Plain data: the decisions over it are made in the traffic crate.
//! It is keyed by name or address on the control thread and outlives each snapshot that points to it.

use crate::RoutingPriority;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What circuit breakers bound, of one priority of a cluster.
#[derive(Debug, Default)]
pub struct InUse {
    pub connections: AtomicU32,
    /// Requests that wait for a connection: it is made for them, or they are `waiting`.
    pub pending: AtomicU32,
    /// Requests that wait because the cluster is at its cap on connections.
    pub waiting: AtomicU32,
    pub requests: AtomicU32,
    pub retries: AtomicU32,
    pub budget: BudgetWindow,
}

/// Of one cluster. Written by all cores, once a request or connection.
#[derive(Debug, Default)]
pub struct ClusterLive {
    /// By [`RoutingPriority`].
    pub in_use: [InUse; 2],
    /// Endpoints now ejected by outlier detection.
    pub ejected: AtomicU32,
    /// What the last sweep of outlier detection found of all endpoints together: of answers, and of connections where
    /// these are counted apart.
    pub success_rates: SuccessRates,
    pub local_success_rates: SuccessRates,
    /// Times any endpoint's health changed; a core rebuilds its view of the healthy ones when it moves.
    pub health_epoch: AtomicU64,
}

impl ClusterLive {
    #[inline]
    pub fn of(&self, priority: RoutingPriority) -> &InUse {
        &self.in_use[priority as usize]
    }
}

/// Over the endpoints with enough traffic, as of one sweep.
#[derive(Debug, Default)]
pub struct SuccessRates {
    pub average: Percent,
    /// Who is below is ejected.
    pub ejection_threshold: Percent,
}

impl SuccessRates {
    /// Average and threshold; None: too few endpoints had enough traffic.
    pub fn set(&self, rates: Option<(f64, f64)>) {
        self.average.set(rates.map(|(average, _)| average));
        self.ejection_threshold.set(rates.map(|(_, threshold)| threshold));
    }
}

/// A share in percent, or none. Written by one thread, and read by whoever shows it.
#[derive(Debug, Default)]
pub struct Percent(AtomicU64);

impl Percent {
    pub fn get(&self) -> Option<f64> {
        // 0 stands for none: the bits of 0.0 are 0 too, hence the one more
        self.0.load(Relaxed).checked_sub(1).map(f64::from_bits)
    }

    pub fn set(&self, percent: Option<f64>) {
        self.0.store(percent.map_or(0, |percent| percent.to_bits() + 1), Relaxed);
    }
}

/// Of one listener, over all cores.
#[derive(Debug, Default)]
pub struct ListenerLive {
    pub connections: AtomicU32,
}

impl ListenerLive {
    /// Counts one more connection, or refuses it at the cap.
    pub fn admit(&self, max: Option<u32>) -> bool {
        let max = max.unwrap_or(u32::MAX);
        self.connections.fetch_update(Relaxed, Relaxed, |now| (now < max).then_some(now + 1)).is_ok()
    }

    pub fn leave(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// Requests and retries over a sliding window of BUDGET_SLOTS slots; slot = (tick / slot length) mod slots.
#[derive(Debug, Default)]
pub struct BudgetWindow {
    pub slots: [BudgetSlot; BUDGET_SLOTS],
}

pub const BUDGET_SLOTS: usize = 10;

/// Each word holds the number of the slot's period in its high half and the count in its low half, so that a
/// stale count is told and replaced in one step; packed by the traffic crate.
#[derive(Debug, Default)]
pub struct BudgetSlot {
    pub requests: AtomicU64,
    pub retries: AtomicU64,
}

/// Of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointLive {
    /// Bits of [`EndpointLive::FAILED_ACTIVE_HC`] and following; 0: usable.
    pub unhealthy: AtomicU32,
    pub requests_active: AtomicU32,
    pub connections_active: AtomicU32,
    pub consecutive_5xx: AtomicU32,
    pub consecutive_gateway: AtomicU32,
    pub consecutive_local: AtomicU32,
    /// Times ejected and not yet forgiven; the ejection's length is base * this.
    pub ejections: AtomicU32,
    /// Ticks in nanoseconds since the process started; 0: not ejected.
    pub ejected_until_ns: AtomicU64,
    /// When it became usable, in ticks, for slow start; 0: from the start.
    pub usable_since_ns: AtomicU64,
    /// Over the current interval, for success rate and failure percentage.
    pub interval_success: AtomicU32,
    pub interval_total: AtomicU32,
    pub interval_local_success: AtomicU32,
    pub interval_local_total: AtomicU32,
    /// Of the interval before, as the last sweep found it.
    pub success_rate: Percent,
    pub local_success_rate: Percent,
    /// Active checks in a row: failed in the high half, passed in the low.
    pub health_streak: AtomicU32,
}

impl EndpointLive {
    pub const FAILED_ACTIVE_HC: u32 = 1;
    pub const FAILED_OUTLIER: u32 = 1 << 1;
    /// Not yet passed its first active check.
    pub const PENDING_ACTIVE_HC: u32 = 1 << 2;
    /// Beside FAILED_ACTIVE_HC: its last check had no answer in time.
    pub const ACTIVE_HC_TIMEOUT: u32 = 1 << 3;
    /// All that active checks set.
    pub const ACTIVE_HC: u32 = Self::FAILED_ACTIVE_HC | Self::PENDING_ACTIVE_HC | Self::ACTIVE_HC_TIMEOUT;
}

/// envoy.type.v3.TokenBucket.
#[derive(Debug)]
pub struct TokenBucket {
    pub tokens_max: u32,
    pub tokens_per_fill: u32,
    pub fill_interval_ns: u64,
    /// Packed by the traffic crate; see there.
    pub state: AtomicU64,
}

impl TokenBucket {
    /// Of the same size and rate, and full.
    pub fn fresh(&self) -> TokenBucket {
        let TokenBucket { tokens_max, tokens_per_fill, fill_interval_ns, .. } = *self;
        TokenBucket { tokens_max, tokens_per_fill, fill_interval_ns, state: AtomicU64::new(0) }
    }
}
