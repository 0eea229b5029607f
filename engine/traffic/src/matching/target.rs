//! Which cluster a forwarding route means.

use corelane_http::RequestHead;
use corelane_snapshot::{ClusterId, ClusterSpecifier, Forward, Snapshot, WeightedCluster};

/// A cluster, and the part of a weighted route that named it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'r> {
    pub cluster: ClusterId,
    pub weighted: Option<&'r WeightedCluster>,
}

/// `draw` (uniform over u64, or from [`crate::EvenDraws`]) chooses among weights. None: the header that names the
/// cluster is absent or names none (NC).
pub fn target<'r>(
    forward: &'r Forward,
    snapshot: &Snapshot,
    head: &RequestHead,
    draw: u64,
) -> Option<Target<'r>> {
    match &forward.target {
        ClusterSpecifier::Cluster(cluster) => Some(Target { cluster: *cluster, weighted: None }),
        ClusterSpecifier::Header(name) => {
            let named = std::str::from_utf8(head.get_name(name.as_bytes())?).ok()?;
            let cluster = *snapshot.cluster_names.get(named)?;
            Some(Target { cluster, weighted: None })
        }
        ClusterSpecifier::Weighted { clusters, total } => weighted(clusters, *total, draw)
            .map(|part| Target { cluster: part.cluster, weighted: Some(part) }),
    }
}

/// None: no cluster has a weight, which a validated configuration does not allow.
pub fn weighted(clusters: &[WeightedCluster], total: u32, draw: u64) -> Option<&WeightedCluster> {
    by_weight(clusters, |part| part.weight, total, draw)
}

/// As [`weighted`], of a TCP proxy.
pub fn weighted_id(clusters: &[(ClusterId, u32)], total: u32, draw: u64) -> Option<ClusterId> {
    by_weight(clusters, |part| part.1, total, draw).map(|part| part.0)
}

fn by_weight<T>(parts: &[T], weight: impl Fn(&T) -> u32, total: u32, draw: u64) -> Option<&T> {
    // the high bits of a draw are the evenly spread ones
    let mut at = ((u128::from(draw) * u128::from(total)) >> 64) as u32;
    parts.iter().find(|part| match at.checked_sub(weight(part)) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvenDraws;

    #[test]
    fn one_percent_is_one_percent() {
        let parts = [(ClusterId(1), 99), (ClusterId(2), 0), (ClusterId(3), 1)];
        let mut draws = EvenDraws::new(3);
        let mut seen = [0u32; 4];
        for _ in 0..100_000 {
            seen[weighted_id(&parts, 100, draws.next_u64()).unwrap().0 as usize] += 1;
        }
        assert_eq!((seen[0], seen[2]), (0, 0));
        assert!((998..=1002).contains(&seen[3]), "{seen:?}");
        assert_eq!(weighted_id(&parts, 100, 0), Some(ClusterId(1)));
        assert_eq!(weighted_id(&parts, 100, u64::MAX), Some(ClusterId(3)));
        assert_eq!(weighted_id(&[], 0, 7), None);
    }
}
