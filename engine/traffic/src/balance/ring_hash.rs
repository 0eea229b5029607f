//! Ring hash (ketama): every endpoint has points on a ring in proportion to its weight; a key belongs to the first
//! point at or after its hash. An endpoint that may not be used is passed over, so only its own keys move.
//! Points are named as Envoy names them (XXH64 of `<address>_<number>`), but each endpoint's number of them does
//! not follow the number of endpoints: when one comes or goes, only its own share of the keys moves.

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

/// Points of the lightest endpoint. Envoy divides the least ring size by the number of endpoints, so that every
/// endpoint that comes or goes changes the points of all others; here they change at two sizes only.
fn points_each(config: &HashLb, units: f64) -> f64 {
    let least = config.ring_size_min.clamp(1, RING_POINTS_MAX) as f64;
    let divisor = match units {
        ..=16.0 => 1.0,
        ..=1024.0 => 8.0,
        _ => 64.0,
    };
    let each = (least / divisor).ceil();
    // as much as fits, and at least one
    each.min(config.ring_size_max.clamp(1, RING_POINTS_MAX) as f64 / units).max(1.0)
}

impl Ring {
    pub fn new(set: &EndpointSet, config: &HashLb, entries: &[Entry]) -> Ring {
        let lightest = entries.iter().map(|entry| entry.weight).fold(f64::INFINITY, f64::min);
        let units: f64 = entries.iter().map(|entry| entry.weight / lightest).sum();
        let each = points_each(config, units);
        let mut points = Vec::new();
        let mut key = Vec::new();
        for entry in entries {
            key_of(set, config, entry.index, &mut key);
            key.push(b'_');
            let named = key.len();
            for number in 0..(each * entry.weight / lightest).round() as u64 {
                key.truncate(named);
                // a Vec takes all that is written
                let _ = write!(key, "{number}");
                points.push((xxh64(&key, 0), entry.index));
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
