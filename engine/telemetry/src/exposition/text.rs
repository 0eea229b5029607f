//! `/stats`: a line per counter and gauge, then a line of quantiles per histogram.

use super::{QUANTILES, Query, ScopeCursor, Value, write_quantile};
use crate::access_log::write_uint;
use crate::histogram::Histogram;
use crate::registry::Registry;

#[derive(Default)]
pub(super) struct Cursor(ScopeCursor);

impl Cursor {
    pub(super) fn step(&mut self, registry: &Registry, query: &Query, out: &mut Vec<u8>) -> bool {
        self.0.step(registry, query, out, |out, name, value| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            match value {
                Value::Scalar(value) => write_uint(out, value),
                Value::Histogram(histogram) => write_quantiles(out, histogram),
            }
            out.push(b'\n');
        })
    }
}

/// `P50(nan,2.05)`: over the last interval, which we do not keep, and since the start.
fn write_quantiles(out: &mut Vec<u8>, histogram: &Histogram) {
    if histogram.count() == 0 {
        out.extend_from_slice(b"No recorded values");
        return;
    }
    for (i, (per_mille, name)) in QUANTILES.iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.push(b'P');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"(nan,");
        write_quantile(out, histogram, histogram.quantile(*per_mille).unwrap_or(0));
        out.push(b')');
    }
}
