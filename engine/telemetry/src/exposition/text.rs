//! `/stats`: a line per counter and gauge, then a line of quantiles or of buckets per histogram.

use super::by_name::{self, Value};
use super::{Buckets, QUANTILES, Query, write_quantile};
use crate::access_log::write_uint;
use crate::histogram::{BOUNDS, Histogram};
use crate::registry::Registry;

#[derive(Default)]
pub(super) struct Cursor(by_name::Cursor);

impl Cursor {
    pub(super) fn step(&mut self, registry: &Registry, query: &Query, out: &mut Vec<u8>) -> bool {
        self.0.step(registry, query, out, |out, name, value| {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            match value {
                Value::Scalar(value) => {
                    out.push(b' ');
                    write_uint(out, *value);
                }
                Value::Histogram(histogram) => write_histogram(out, histogram, query.buckets),
            }
            out.push(b'\n');
        })
    }
}

fn write_histogram(out: &mut Vec<u8>, histogram: &Histogram, buckets: Buckets) {
    if histogram.count() == 0 {
        return out.extend_from_slice(b" No recorded values");
    }
    match buckets {
        Buckets::Summary => {
            out.push(b' ');
            write_quantiles(out, histogram);
        }
        Buckets::Cumulative => write_buckets(out, histogram, histogram.cumulative()),
        Buckets::Disjoint => write_buckets(out, histogram, histogram.buckets),
        Buckets::Detailed => {
            out.extend_from_slice(b"\n  totals=");
            write_totals(out, histogram);
            out.extend_from_slice(b"\n  intervals=\n  summary=");
            write_quantiles(out, histogram);
        }
    }
}

/// ` B0.5(nan,3) B1(nan,4)`: up to the bound, over the last interval and since the start.
fn write_buckets(out: &mut Vec<u8>, histogram: &Histogram, counts: [u64; BOUNDS + 1]) {
    for (bound, count) in histogram.bounds().iter().zip(counts) {
        out.extend_from_slice(b" B");
        write_bound(out, histogram, *bound);
        out.extend_from_slice(b"(nan,");
        write_uint(out, count);
        out.push(b')');
    }
}

/// `lower,width:count` of each bucket that holds something.
fn write_totals(out: &mut Vec<u8>, histogram: &Histogram) {
    for (i, (lower, width, count)) in histogram.held().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write_quantile(out, histogram, lower);
        out.push(b',');
        write_quantile(out, histogram, width);
        out.push(b':');
        write_uint(out, count);
    }
}

/// As C's `%g`: from a million on with an exponent.
fn write_bound(out: &mut Vec<u8>, histogram: &Histogram, bound: u32) {
    const MILLION: u64 = 1_000_000_000;
    let thousandths = u64::from(bound) * histogram.scale();
    if thousandths < MILLION {
        return write_quantile(out, histogram, bound.into());
    }
    crate::access_log::write_thousandths(out, thousandths / 1_000_000);
    out.extend_from_slice(b"e+06");
}

/// `P50(nan,2.05)`: over the last interval, which we do not keep, and since the start.
fn write_quantiles(out: &mut Vec<u8>, histogram: &Histogram) {
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
