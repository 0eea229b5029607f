//! Ring hash (ketama): every endpoint has points on a ring in proportion to its weight; a key belongs to the first
//! point at or after its hash. An endpoint that may not be used is passed over, so only its own keys move.
//! Points are those of Envoy: XXH64 of `<address>_<number>`.

use super::{Entry, xxhash::xxh64};
use corelane_snapshot::{EndpointSet, HashLb};
use std::io::Write;

/// Points on a ring, whatever is configured; Envoy's own bound.
pub const RING_POINTS_MAX: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Ring {
    /// (hash, index into the set), sorted.
    points: Vec<(u64, u32)>,
}

/// What an endpoint is called in keys: its address, or its hostname.
pub(super) fn key_of(set: &EndpointSet, config: &HashLb, index: u32, key: &mut Vec<u8>) {
    let endpoint = &set.endpoints[index as usize];
    key.clear();
    if config.use_hostname {
        key.extend_from_slice(endpoint.hostname.as_bytes());
    } else {
        // a Vec takes all that is written
        let _ = write!(key, "{}", endpoint.address);
    }
}

impl Ring {
    /// `entries` with weights that sum to 1.
    pub fn new(set: &EndpointSet, config: &HashLb, entries: &[Entry]) -> Ring {
        let least = entries.iter().map(|entry| entry.weight).fold(f64::INFINITY, f64::min);
        if !least.is_finite() {
            return Ring { points: Vec::new() };
        }
        let size_max = config.ring_size_max.clamp(1, RING_POINTS_MAX) as f64;
        // so many points that the lightest endpoint has a whole number of them
        let scale = ((least * config.ring_size_min as f64).ceil() / least).min(size_max);
        let mut points = Vec::with_capacity(scale.ceil() as usize + 1);
        let (mut key, mut target) = (Vec::new(), 0.0);
        for entry in entries {
            key_of(set, config, entry.index, &mut key);
            key.push(b'_');
            let named = key.len();
            target += scale * entry.weight;
            let mut number = 0u64;
            while (points.len() as f64) < target {
                key.truncate(named);
                let _ = write!(key, "{number}");
                points.push((xxh64(&key, 0), entry.index));
                number += 1;
            }
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The endpoints in the order in which the ring offers them to a key, each maybe more than once.
    pub fn order(&self, hash: u64) -> impl Iterator<Item = u32> {
        let at = self.points.partition_point(|point| point.0 < hash);
        self.points[at..].iter().chain(&self.points[..at]).map(|point| point.1)
    }
}
