//! Locality weighted: first the locality by its weight, then the endpoint. A locality that lost endpoints has that
//! much less weight. Reference: Envoy, "Locality weighted load balancing".

use super::{edf::Edf, hosts::Hosts};
use crate::Rng;
use corelane_snapshot::{EndpointSet, LbPolicy};

#[derive(Debug)]
pub(super) struct Localities {
    turns: Edf,
    /// With their effective weights.
    parts: Vec<(f64, Hosts)>,
}

impl Localities {
    /// `available`: indices of usable endpoints, `all`: those of the priority; both sorted by locality. None: no
    /// locality has a weight.
    pub fn new(
        set: &EndpointSet,
        available: &[u32],
        all: &[u32],
        policy: &LbPolicy,
        now_ns: u64,
        rng: &mut Rng,
    ) -> Option<Localities> {
        let locality = |&index: &u32| set.endpoints[index as usize].locality;
        let mut parts = Vec::new();
        for part in available.chunk_by(|a, b| locality(a) == locality(b)) {
            let here = locality(&part[0]);
            let total = all.iter().filter(|index| locality(index) == here).count();
            let configured = set.localities.get(here as usize).and_then(|l| l.weight).unwrap_or(0);
            let weight = effective_weight(configured, part.len(), total, set.overprovisioning_factor);
            if weight > 0.0 {
                parts.push((weight, Hosts::new(set, part.to_vec(), policy, now_ns, rng)));
            }
        }
        if parts.is_empty() {
            return None;
        }
        let mut turns = Edf::new(parts.iter().map(|part| part.0));
        for _ in 0..rng.below(parts.len() as u64) {
            turns.next(|part| parts[part as usize].0);
        }
        Some(Localities { turns, parts })
    }

    pub fn next(&mut self) -> Option<&mut Hosts> {
        let parts = &mut self.parts;
        let part = self.turns.next(|part| parts[part as usize].0)?;
        parts.get_mut(part as usize).map(|part| &mut part.1)
    }
}

/// Envoy: weight * min(1, overprovisioning factor * available / total).
fn effective_weight(weight: u32, available: usize, total: usize, overprovisioning: u32) -> f64 {
    let share = f64::from(overprovisioning) / 100.0 * available as f64 / total.max(1) as f64;
    f64::from(weight) * share.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_loses_weight_with_its_endpoints() {
        let percent = |available| (effective_weight(100, available, 10, 140) + 0.5) as u32;
        assert_eq!([10, 8, 7, 5, 1, 0].map(percent), [100, 100, 98, 70, 14, 0]);
    }
}
