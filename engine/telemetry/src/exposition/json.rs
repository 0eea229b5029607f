//! `/stats?format=json`: counters and gauges as an array, whose last member holds the quantiles of all histograms.

use super::{QUANTILES, Query, ScopeCursor, Value, write_quantile};
use crate::access_log::{write_escaped_json, write_uint};
use crate::histogram::Histogram;
use crate::registry::Registry;

#[derive(Default)]
pub(super) struct Cursor {
    scopes: ScopeCursor,
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
            Value::Scalar(value) => write_scalar(out, name, value, written),
            Value::Histogram(histogram) => write_histogram(out, name, histogram, written),
        });
        if !more {
            let end: &[u8] = if self.written == Written::Histograms { b"]}}]}" } else { b"]}" };
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

fn write_histogram(out: &mut Vec<u8>, name: &str, histogram: &Histogram, written: &mut Written) {
    match *written {
        Written::Histograms => out.push(b','),
        Written::Scalars => out.extend_from_slice(b","),
        Written::Nothing | Written::Opened => {}
    }
    if *written != Written::Histograms {
        out.extend_from_slice(b"{\"histograms\":{\"supported_quantiles\":[");
        for (i, (_, quantile)) in QUANTILES.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(quantile.as_bytes());
        }
        out.extend_from_slice(b"],\"computed_quantiles\":[");
        *written = Written::Histograms;
    }
    write_name(out, name);
    out.extend_from_slice(b",\"values\":[");
    for (i, (per_mille, _)) in QUANTILES.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        // Envoy's other value is over the last interval, which we do not keep
        out.extend_from_slice(b"{\"cumulative\":");
        match histogram.quantile(*per_mille) {
            Some(quantile) => write_quantile(out, histogram, quantile),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"interval\":null}");
    }
    out.extend_from_slice(b"]}");
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"{\"name\":\"");
    write_escaped_json(out, name.as_bytes());
    out.push(b'"');
}
