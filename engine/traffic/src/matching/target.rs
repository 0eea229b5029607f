//! Which cluster a forwarding route means.

use corelane_http::RequestHead;
use corelane_snapshot::{ClusterId, ClusterSpecifier, Forward, Mirror, Snapshot, WeightedCluster};

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
        ClusterSpecifier::Weighted { clusters, total } => weighted(clusters, *total, draw),
    }
}

fn weighted(clusters: &[WeightedCluster], total: u32, draw: u64) -> Option<Target<'_>> {
    // the high bits of a draw are the evenly spread ones
    let mut at = ((u128::from(draw) * u128::from(total)) >> 64) as u32;
    let part = clusters.iter().find(|part| match at.checked_sub(part.weight) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })?;
    Some(Target { cluster: part.cluster, weighted: Some(part) })
}

/// Whether this request goes to the mirror too.
pub fn pick_mirror(mirror: &Mirror, draw: u64) -> bool {
    mirror.fraction.selects(draw)
}
