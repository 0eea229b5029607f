//! `/stats?format=json`: counters and gauges as an array, whose last member holds the quantiles, or buckets, of all
//! histograms.

use super::by_name::{self, Value};
use super::{Buckets, QUANTILES, Query, write_quantile};
use crate::access_log::{write_escaped_json, write_uint};
use crate::histogram::{BUCKETS, Histogram};
use crate::registry::Registry;

#[derive(Default)]
pub(super) struct Cursor {
    scopes: by_name::Cursor,
    written: Written,
}

/// What the next value follows.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Written {
    #[default]
    Nothing,
    Opened,
    Scalars,
    Histograms,
}

impl Cursor {
    pub(super) fn step(&mut self, registry: &Registry, query: &Query, out: &mut Vec<u8>) -> bool {
        if self.written == Written::Nothing {
            out.extend_from_slice(b"{\"stats\":[");
            self.written = Written::Opened;
        }
        let written = &mut self.written;
        let more = self.scopes.step(registry, query, out, |out, name, value| match value {
            Value::Scalar(value) => write_scalar(out, name, *value, written),
            Value::Histogram(histogram) => write_histogram(out, name, histogram, query.buckets, written),
        });
        if !more {
            let end: &[u8] = match (self.written, query.buckets) {
                (Written::Histograms, Buckets::Summary | Buckets::Detailed) => b"]}}]}",
                (Written::Histograms, Buckets::Cumulative | Buckets::Disjoint) => b"]}]}",
                _ => b"]}",
            };
            out.extend_from_slice(end);
        }
        more
    }
}

fn write_scalar(out: &mut Vec<u8>, name: &str, value: u64, written: &mut Written) {
    if *written == Written::Scalars {
        out.push(b',');
    }
    *written = Written::Scalars;
    write_name(out, name);
    out.extend_from_slice(b",\"value\":");
    write_uint(out, value);
    out.push(b'}');
}

fn write_histogram(
    out: &mut Vec<u8>,
    name: &str,
    histogram: &Histogram,
    buckets: Buckets,
    written: &mut Written,
) {
    if matches!(*written, Written::Histograms | Written::Scalars) {
        out.push(b',');
    }
    if *written != Written::Histograms {
        begin_histograms(out, buckets);
        *written = Written::Histograms;
    }
    write_name(out, name);
    match buckets {
        Buckets::Summary => {
            out.extend_from_slice(b",\"values\":[");
            write_quantiles(out, histogram);
        }
        Buckets::Cumulative => write_buckets(out, histogram, histogram.cumulative()),
        Buckets::Disjoint => write_buckets(out, histogram, histogram.buckets),
        Buckets::Detailed => {
            out.extend_from_slice(b",\"totals\":[");
            write_totals(out, histogram);
            out.extend_from_slice(b"],\"intervals\":[],\"percentiles\":[");
            write_quantiles(out, histogram);
        }
    }
    out.extend_from_slice(b"]}");
}

fn begin_histograms(out: &mut Vec<u8>, buckets: Buckets) {
    let (supported, values) = match buckets {
        Buckets::Cumulative | Buckets::Disjoint => return out.extend_from_slice(b"{\"histograms\":["),
        Buckets::Summary => ("supported_quantiles", "computed_quantiles"),
        Buckets::Detailed => ("supported_percentiles", "details"),
    };
    out.extend_from_slice(b"{\"histograms\":{\"");
    out.extend_from_slice(supported.as_bytes());
    out.extend_from_slice(b"\":[");
    for (i, (_, quantile)) in QUANTILES.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(quantile.as_bytes());
    }
    out.extend_from_slice(b"],\"");
    out.extend_from_slice(values.as_bytes());
    out.extend_from_slice(b"\":[");
}

/// Envoy's other value is over the last interval, which we do not keep.
fn write_quantiles(out: &mut Vec<u8>, histogram: &Histogram) {
    for (i, (per_mille, _)) in QUANTILES.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"cumulative\":");
        match histogram.quantile(*per_mille) {
            Some(quantile) => write_quantile(out, histogram, quantile),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"interval\":null}");
    }
}

fn write_buckets(out: &mut Vec<u8>, histogram: &Histogram, counts: [u64; BUCKETS]) {
    out.extend_from_slice(b",\"buckets\":[");
    for (i, (bound, count)) in histogram.bounds().iter().zip(counts).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"upper_bound\":");
        write_quantile(out, histogram, (*bound).into());
        out.extend_from_slice(b",\"interval\":null,\"cumulative\":");
        write_uint(out, count);
        out.push(b'}');
    }
}

fn write_totals(out: &mut Vec<u8>, histogram: &Histogram) {
    for (i, (lower, width, count)) in histogram.held().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"lower_bound\":");
        write_quantile(out, histogram, lower);
        out.extend_from_slice(b",\"width\":");
        write_quantile(out, histogram, width);
        out.extend_from_slice(b",\"count\":");
        write_uint(out, count);
        out.push(b'}');
    }
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"name\":\"");
    write_escaped_json(out, name.as_bytes());
    out.push(b'"');
}
