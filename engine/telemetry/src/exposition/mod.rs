//! Writes the statistics as Envoy's admin pages do: text, JSON, and Prometheus's text format.
//!
//! A `Scrape` is written in steps of bounded work and remembers where it stopped by the last scope it wrote, so the control thread
//! serves its other duties between two steps, and scopes may come and go meanwhile.

mod by_name;
mod json;
mod prometheus;
mod text;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::block::Labels;
use crate::histogram::Histogram;
use crate::registry::Registry;
use crate::stat::{FamilyMeta, Kind};

/// A step ends with the scope that brings it over this many bytes.
pub const STEP_BYTES: usize = 64 << 10;

/// A step ends after this many values, written or passed over by the query.
pub const STEP_VALUES_MAX: usize = 16 << 10;

/// Envoy's quantiles, in thousandths, with the names it gives them.
const QUANTILES: [(u64, &str); 10] = [
    (0, "0"),
    (250, "25"),
    (500, "50"),
    (750, "75"),
    (900, "90"),
    (950, "95"),
    (990, "99"),
    (995, "99.5"),
    (999, "99.9"),
    (1_000, "100"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `/stats`
    #[default]
    Text,
    /// `/stats?format=json`
    Json,
    /// `/stats/prometheus`
    Prometheus,
}

impl Format {
    /// The value of the response's content-type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text | Format::Prometheus => "text/plain; charset=UTF-8",
            Format::Json => "application/json",
        }
    }
}

/// What `filter=` compiles to: takes Envoy's full name, such as `cluster.payments.upstream_rq_total`.
pub type NameFilter = Box<dyn Fn(&str) -> bool + Send>;

/// `type=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kinds {
    #[default]
    All,
    Counters,
    Gauges,
    Histograms,
    /// We have none.
    TextReadouts,
}

impl Kinds {
    fn has(self, kind: Kind) -> bool {
        match self {
            Kinds::All => true,
            Kinds::Counters => matches!(kind, Kind::Counter | Kind::Occasional | Kind::Codes),
            Kinds::Gauges => kind == Kind::Gauge,
            Kinds::Histograms => kind.is_histogram(),
            Kinds::TextReadouts => false,
        }
    }
}

/// `histogram_buckets=`: what text and JSON show of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buckets {
    /// Quantiles.
    #[default]
    Summary,
    /// Each bucket with all below it.
    Cumulative,
    Disjoint,
    /// Both buckets and quantiles.
    Detailed,
}

/// Which statistics to write, and how.
#[derive(Default)]
pub struct Query {
    pub format: Format,
    /// For text and JSON.
    pub kinds: Kinds,
    pub buckets: Buckets,
    /// `usedonly`: leaves out what is zero.
    pub used_only: bool,
    pub filter: Option<NameFilter>,
}

impl Query {
    fn shows(&self, kind: Kind, used: bool) -> bool {
        used || (kind.shows_zero() && !self.used_only)
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(name))
    }
}

/// One scrape under way.
pub struct Scrape {
    query: Query,
    page: Page,
}

enum Page {
    Text(text::Cursor),
    Json(json::Cursor),
    Prometheus(prometheus::Cursor),
}

impl Scrape {
    pub fn new(query: Query) -> Self {
        let page = match query.format {
            Format::Text => Page::Text(Default::default()),
            Format::Json => Page::Json(Default::default()),
            Format::Prometheus => Page::Prometheus(Default::default()),
        };
        Self { query, page }
    }

    /// Appends the next piece to `out`, about `STEP_BYTES`; false when that was the last.
    pub fn step(&mut self, registry: &Registry, out: &mut Vec<u8>) -> bool {
        match &mut self.page {
            Page::Text(cursor) => cursor.step(registry, &self.query, out),
            Page::Json(cursor) => cursor.step(registry, &self.query, out),
            Page::Prometheus(cursor) => cursor.step(registry, &self.query, out),
        }
    }

    /// The whole page at once; for tests and small registries.
    pub fn render(mut self, registry: &Registry) -> Vec<u8> {
        let mut out = Vec::new();
        while self.step(registry, &mut out) {}
        out
    }
}

/// How much a step may still do.
struct Budget {
    values: usize,
    bytes_end: usize,
}

impl Budget {
    fn new(out: &[u8]) -> Self {
        Self { values: STEP_VALUES_MAX, bytes_end: out.len() + STEP_BYTES }
    }

    /// Takes `values` off; false when the step is to end.
    fn spend(&mut self, values: usize, out: &[u8]) -> bool {
        self.values = self.values.saturating_sub(values);
        self.values > 0 && out.len() < self.bytes_end
    }
}

/// The scopes of a family after `last`, or all of them.
fn scopes_after<'a>(
    scopes: &'a BTreeMap<Labels, u32>,
    last: Option<&Labels>,
) -> impl Iterator<Item = (&'a Labels, u32)> + use<'a> {
    let from = last.map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
    scopes.range((from, Bound::Unbounded)).map(|(labels, base)| (labels, *base))
}

/// Appends `meta.text` with the labels in it: `cluster.payments.`
fn push_prefix(name: &mut String, meta: &FamilyMeta, labels: &Labels) {
    let mut rest = meta.text;
    while let Some(at) = rest.find('{') {
        name.push_str(&rest[..at]);
        let index = usize::from(rest.as_bytes()[at + 1] - b'0');
        // Envoy, cluster statistics: "Any : character in the stats name is replaced with _."
        name.extend(labels[index].chars().map(|char| if char == ':' { '_' } else { char }));
        rest = &rest[at + "{0}".len()..];
    }
    name.push_str(rest);
}

/// Appends a quantile as Envoy shows values: milliseconds, or plain microseconds of our own histograms, to three decimals.
fn write_quantile(out: &mut Vec<u8>, histogram: &Histogram, quantile: u64) {
    crate::access_log::write_thousandths(out, quantile * histogram.scale());
}
