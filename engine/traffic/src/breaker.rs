//! Circuit breakers: how much of a cluster may be in use at once, over all cores. A permit is one atomic
//! compare-and-swap on the shared count, so the limit holds exactly however many cores ask.
//!
//! Whoever acquires releases, once: by [`release`], or by letting a [`Permit`] go.

use corelane_snapshot::{
    CircuitBreakers, Cluster, ClusterConfig, RoutingPriority,
    live::{ClusterLive, EndpointLive, InUse},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    Connections,
    Pending,
    Requests,
    Retries,
}

/// The limits of one priority.
#[inline]
pub fn limits(config: &ClusterConfig, priority: RoutingPriority) -> &CircuitBreakers {
    match priority {
        RoutingPriority::Default => &config.breakers,
        RoutingPriority::High => &config.high.breakers,
    }
}

/// The limit is reached: Envoy's `overflow`, flag UO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open: {0:?} at their limit")]
pub struct Overflow(pub Limit);

impl From<Overflow> for crate::Failure {
    fn from(overflow: Overflow) -> Self {
        crate::Failure::Overflow(overflow.0)
    }
}

impl Limit {
    fn count(self, live: &InUse) -> &AtomicU32 {
        match self {
            Limit::Connections => &live.connections,
            Limit::Pending => &live.pending,
            Limit::Requests => &live.requests,
            Limit::Retries => &live.retries,
        }
    }

    pub fn max(self, breakers: &CircuitBreakers) -> u32 {
        match self {
            Limit::Connections => breakers.connections_max,
            Limit::Pending => breakers.pending_max,
            Limit::Requests => breakers.requests_max,
            Limit::Retries => breakers.retries_max.unwrap_or(u32::MAX),
        }
    }
}

/// One more in use, unless that would pass the limit.
///
/// # Errors
/// `Overflow`: the limit is reached and nothing was taken.
#[inline]
pub fn acquire(live: &InUse, breakers: &CircuitBreakers, limit: Limit) -> Result<(), Overflow> {
    if take(limit.count(live), limit.max(breakers)) { Ok(()) } else { Err(Overflow(limit)) }
}

/// Gives back what one [`acquire`] took.
#[inline]
pub fn release(live: &InUse, limit: Limit) {
    give_back(limit.count(live));
}

/// In use now, over all cores.
pub fn in_use(live: &InUse, limit: Limit) -> u32 {
    limit.count(live).load(Ordering::Relaxed)
}

/// For the `remaining_*` gauges (track_remaining).
pub fn remaining(live: &InUse, breakers: &CircuitBreakers, limit: Limit) -> u32 {
    limit.max(breakers).saturating_sub(in_use(live, limit))
}

/// A connection to one endpoint: counted on the endpoint and bounded by per_host_thresholds.
///
/// # Errors
/// `Overflow(Connections)`, as Envoy counts it too: nothing was taken.
pub fn acquire_host_connection(live: &EndpointLive, breakers: &CircuitBreakers) -> Result<(), Overflow> {
    let max = breakers.host_connections_max.unwrap_or(u32::MAX);
    if take(&live.connections_active, max) { Ok(()) } else { Err(Overflow(Limit::Connections)) }
}

pub fn release_host_connection(live: &EndpointLive) {
    give_back(&live.connections_active);
}

/// A request begins on an endpoint; what least request weighs. End it with [`end_request`].
#[inline]
pub fn begin_request(live: &EndpointLive) {
    live.requests_active.fetch_add(1, Ordering::Relaxed);
}

#[inline]
pub fn end_request(live: &EndpointLive) {
    give_back(&live.requests_active);
}

/// A permit that is given back when it is let go of.
#[derive(Debug)]
pub struct Permit {
    live: Arc<ClusterLive>,
    priority: RoutingPriority,
    limit: Limit,
}

impl Permit {
    /// # Errors
    /// As [`acquire`].
    pub fn acquire(cluster: &Cluster, priority: RoutingPriority, limit: Limit) -> Result<Permit, Overflow> {
        acquire(cluster.live.of(priority), limits(&cluster.config, priority), limit)?;
        Ok(Permit { live: cluster.live.clone(), priority, limit })
    }

    pub fn limit(&self) -> Limit {
        self.limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        release(self.live.of(self.priority), self.limit);
    }
}

/// A request waits at the cap on connections as long as this lives; who gives one up looks whether anybody does.
#[derive(Debug)]
pub struct Waiting(Arc<ClusterLive>, RoutingPriority);

impl Waiting {
    pub fn begin(live: &Arc<ClusterLive>, priority: RoutingPriority) -> Waiting {
        live.of(priority).waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(live.clone(), priority)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        give_back(&self.0.of(self.1).waiting);
    }
}

/// Whether a request waits at the cap on connections, on any core.
pub fn anyone_waits(live: &InUse) -> bool {
    live.waiting.load(Ordering::Acquire) > 0
}

/// Counts are the whole state: nothing else is published through them, so relaxed order is enough.
#[inline]
pub(crate) fn take(count: &AtomicU32, max: u32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).is_ok()
}

#[inline]
pub(crate) fn give_back(count: &AtomicU32) {
    let before = count.fetch_sub(1, Ordering::Relaxed);
    debug_assert!(before > 0, "released more often than acquired");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakers(max: u32) -> CircuitBreakers {
        CircuitBreakers {
            connections_max: max,
            pending_max: max,
            requests_max: max,
            retries_max: Some(max),
            ..CircuitBreakers::default()
        }
    }

    #[test]
    fn each_limit_holds_and_frees_by_itself() {
        let (live, breakers) = (InUse::default(), breakers(2));
        for limit in [Limit::Connections, Limit::Pending, Limit::Requests, Limit::Retries] {
            assert_eq!(acquire(&live, &breakers, limit), Ok(()));
            assert_eq!(acquire(&live, &breakers, limit), Ok(()));
            assert_eq!(acquire(&live, &breakers, limit), Err(Overflow(limit)));
            assert_eq!(remaining(&live, &breakers, limit), 0);
            release(&live, limit);
            assert_eq!((in_use(&live, limit), remaining(&live, &breakers, limit)), (1, 1));
            assert_eq!(acquire(&live, &breakers, limit), Ok(()));
        }
    }

    #[test]
    fn zero_means_never() {
        let live = InUse::default();
        assert_eq!(acquire(&live, &breakers(0), Limit::Requests), Err(Overflow(Limit::Requests)));
        assert_eq!(in_use(&live, Limit::Requests), 0);
    }

    #[test]
    fn a_host_has_its_own_limit() {
        let live = EndpointLive::default();
        let one = CircuitBreakers { host_connections_max: Some(1), ..CircuitBreakers::default() };
        assert_eq!(acquire_host_connection(&live, &one), Ok(()));
        assert_eq!(acquire_host_connection(&live, &one), Err(Overflow(Limit::Connections)));
        release_host_connection(&live);
        assert_eq!(acquire_host_connection(&live, &one), Ok(()));
    }

    #[test]
    fn a_permit_gives_back_to_its_priority() {
        let mut config = crate::testing::cluster_config();
        config.breakers = breakers(1);
        config.high.breakers = breakers(2);
        let cluster = crate::testing::cluster(config, &[]);
        let acquire = |priority| Permit::acquire(&cluster, priority, Limit::Requests);
        let held = |priority| in_use(cluster.live.of(priority), Limit::Requests);
        let (default, high) = (RoutingPriority::Default, RoutingPriority::High);
        let one = acquire(default).unwrap();
        assert!(acquire(default).is_err());
        let two = [acquire(high).unwrap(), acquire(high).unwrap()];
        assert!(acquire(high).is_err());
        assert_eq!((held(default), held(high)), (1, 2));
        drop(two);
        assert_eq!((held(default), held(high)), (1, 0));
        drop(one);
        assert_eq!((held(default), held(high)), (0, 0));
    }

    #[test]
    fn four_threads_never_pass_the_limit_and_leak_nothing() {
        const MAX: u32 = 3;
        let (live, breakers) = (InUse::default(), breakers(MAX));
        let (inside, highest, admitted) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if acquire(&live, &breakers, Limit::Requests).is_ok() {
                            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                            highest.fetch_max(now, Ordering::SeqCst);
                            admitted.fetch_add(1, Ordering::Relaxed);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            release(&live, Limit::Requests);
                        }
                    }
                });
            }
        });
        assert!(highest.load(Ordering::SeqCst) <= MAX);
        assert!(admitted.load(Ordering::Relaxed) >= 20_000, "one thread at least is always admitted");
        assert_eq!(in_use(&live, Limit::Requests), 0);
    }
}
