//! Histograms of fixed buckets: twenty counters and a sum in a block, cheap to add to and to sum over the cores.
//!
//! Envoy keeps log-linear histograms and shows them in these buckets; we keep the buckets. Quantiles are interpolated inside a
//! bucket, so they are estimates as coarse as the bucket.

use crate::stat::Kind;

/// Upper bounds; one more bucket holds what lies above them all.
pub const BOUNDS: usize = 19;
pub const BUCKETS: usize = BOUNDS + 1;

/// Slots of a histogram: the sum, then the buckets.
pub const HISTOGRAM_SLOTS: u16 = 1 + BUCKETS as u16;

/// Envoy's default buckets (`ConstSupportedBuckets`, milliseconds), here in thousandths.
pub const MILLIS_BOUNDS: [u32; BOUNDS] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Microseconds; for what the proxy itself adds, which lies under Envoy's first bucket.
pub const MICROS_BOUNDS: [u32; BOUNDS] =
    [5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 5_000, 10_000, 100_000];

/// The bounds of a set of buckets with, per power of two, how many of them lie below it.
struct Lookup {
    below_octave: [u8; 32],
    /// Padded, so that the two comparisons of `bucket` need no check.
    bounds: [u32; BOUNDS + 2],
}

static MILLIS: Lookup = Lookup::new(&MILLIS_BOUNDS);
static MICROS: Lookup = Lookup::new(&MICROS_BOUNDS);

/// Comparisons that `bucket` makes; no octave may hold more bounds.
const BOUNDS_PER_OCTAVE_MAX: usize = 2;

impl Lookup {
    const fn new(bounds: &[u32; BOUNDS]) -> Self {
        let mut below_octave = [0; 32];
        let mut octave = 0;
        while octave < 32 {
            let mut below = 0;
            let mut inside = 0;
            let mut i = 0;
            while i < BOUNDS {
                if (bounds[i] as u64) < 1 << octave {
                    below += 1;
                } else if (bounds[i] as u64) < 1 << (octave + 1) {
                    inside += 1;
                }
                i += 1;
            }
            assert!(
                inside <= BOUNDS_PER_OCTAVE_MAX,
                "an octave holds more bounds than a lookup compares with"
            );
            below_octave[octave] = below;
            octave += 1;
        }
        let mut padded = [u32::MAX; BOUNDS + 2];
        let mut i = 0;
        while i < BOUNDS {
            padded[i] = bounds[i];
            i += 1;
        }
        Self { below_octave, bounds: padded }
    }

    /// The first bucket whose bound is not below `value`: Prometheus's `le` holds the bound itself.
    #[inline]
    fn bucket(&self, value: u32) -> usize {
        let octave = (value | 1).ilog2() as usize;
        let first = usize::from(self.below_octave[octave]);
        // below_octave counts at most BOUNDS, so that both indices are inside the padded array.
        first + usize::from(value > self.bounds[first]) + usize::from(value > self.bounds[first + 1])
    }
}

/// Slots to add to for `value`, counted from the histogram's first: (bucket, what the sum grows by).
#[inline]
pub(crate) fn place(kind: Kind, value: u64) -> (u32, u64) {
    let (lookup, value) = match kind {
        Kind::Micros => (&MICROS, value),
        // kept in thousandths, as milliseconds are
        Kind::Number => (&MILLIS, value.saturating_mul(1_000)),
        _ => (&MILLIS, value),
    };
    let bucket = lookup.bucket(u32::try_from(value).unwrap_or(u32::MAX));
    (1 + bucket as u32, value)
}

/// A histogram summed over the cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    pub kind: Kind,
    /// In the recorded unit: microseconds, or thousandths of a number.
    pub sum: u64,
    /// Not cumulative.
    pub buckets: [u64; BUCKETS],
}

impl Histogram {
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket))
    }

    /// Each bucket with all below it.
    pub fn cumulative(&self) -> [u64; BUCKETS] {
        let mut sum = 0_u64;
        self.buckets.map(|bucket| {
            sum = sum.wrapping_add(bucket);
            sum
        })
    }

    /// Lower bound, width and count of the buckets that hold something; the last has no width.
    pub fn held(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let bounds = self.bounds();
        let lower = move |i: usize| i.checked_sub(1).map_or(0, |below| u64::from(bounds[below]));
        let upper = move |i: usize| bounds.get(i).map_or(lower(i), |bound| u64::from(*bound));
        let buckets = self.buckets.into_iter().enumerate().filter(|(_, count)| *count > 0);
        buckets.map(move |(i, count)| (lower(i), upper(i) - lower(i), count))
    }

    /// Upper bounds in the recorded unit.
    pub fn bounds(&self) -> &'static [u32; BOUNDS] {
        if self.kind == Kind::Micros { &MICROS_BOUNDS } else { &MILLIS_BOUNDS }
    }

    /// Thousandths of the shown unit in one of the recorded unit.
    pub(crate) fn scale(&self) -> u64 {
        if self.kind == Kind::Micros { 1_000 } else { 1 }
    }

    /// The value under which `per_mille` thousandths of the records lie, in the recorded unit; `None` without records.
    ///
    /// Interpolates evenly inside the bucket; what lies above the last bound is taken to be the last bound.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let bounds = self.bounds();
        // in thousandths of a record, so that P99.9 of a few records is not rounded to P100
        let rank = u128::from(count) * u128::from(per_mille.min(1_000));
        let mut below: u128 = 0;
        let mut lower = 0;
        for (i, records) in self.buckets.iter().enumerate() {
            let upper = u64::from(bounds[i.min(BOUNDS - 1)]);
            let records = u128::from(*records) * 1_000;
            if records > 0 && below + records >= rank {
                let inside = u128::from(upper - lower) * (rank - below) / records;
                return Some(lower + inside as u64);
            }
            below += records;
            lower = upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(bounds: &[u32; BOUNDS], value: u32) -> usize {
        bounds.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS)
    }

    #[test]
    fn lookup_agrees_with_a_search_around_every_bound_and_octave() {
        for (lookup, bounds) in [(&MILLIS, &MILLIS_BOUNDS), (&MICROS, &MICROS_BOUNDS)] {
            let octaves = (0..32).map(|octave| 1_u32 << octave);
            for point in bounds.iter().copied().chain(octaves).chain([0, u32::MAX]) {
                for value in [point.saturating_sub(1), point, point.saturating_add(1)] {
                    assert_eq!(lookup.bucket(value), linear(bounds, value), "{value}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_kept_in_thousandths_and_durations_as_they_are() {
        assert_eq!(place(Kind::Number, 1), (2, 1_000));
        assert_eq!(place(Kind::Millis, 1_000), (2, 1_000));
        assert_eq!(place(Kind::Micros, 1_000), (14, 1_000));
        assert_eq!(place(Kind::Millis, u64::MAX), (BUCKETS as u32, u64::MAX));
    }

    #[test]
    fn quantiles_interpolate_inside_the_bucket() {
        let mut buckets = [0; BUCKETS];
        buckets[1] = 10; // 0.5 to 1 ms
        buckets[2] = 10; // 1 to 5 ms
        let histogram = Histogram { kind: Kind::Millis, sum: 0, buckets };
        assert_eq!(histogram.quantile(0), Some(500));
        assert_eq!(histogram.quantile(250), Some(750));
        assert_eq!(histogram.quantile(500), Some(1_000));
        assert_eq!(histogram.quantile(750), Some(3_000));
        assert_eq!(histogram.quantile(1_000), Some(5_000));
    }

    #[test]
    fn quantiles_of_nothing_and_of_the_last_bucket() {
        let mut buckets = [0; BUCKETS];
        let empty = Histogram { kind: Kind::Millis, sum: 0, buckets };
        assert_eq!(empty.quantile(500), None);
        buckets[BOUNDS] = 1;
        let over = Histogram { kind: Kind::Millis, sum: 0, buckets };
        assert_eq!(over.quantile(500), Some(3_600_000_000));
    }
}
