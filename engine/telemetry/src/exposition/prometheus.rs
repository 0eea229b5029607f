//! `/stats/prometheus`: Prometheus's text format, with the labels that Envoy takes out of names.
//!
//! The format wants all lines of a metric together, so this page goes statistic by statistic and, inside, scope by scope. Labels come
//! from the scope itself and not from patterns over names: a cluster called `a.b` keeps its name, which Envoy's default pattern cuts at
//! the dot.

use std::sync::LazyLock;

use super::{Budget, Query, push_prefix, scopes_after};
use crate::access_log::{write_thousandths, write_uint};
use crate::block::Labels;
use crate::codes::CodeCount;
use crate::families::FAMILIES;
use crate::histogram::Histogram;
use crate::registry::Registry;
use crate::stat::{FamilyMeta, Kind, StatMeta};

#[derive(Default)]
pub(super) struct Cursor {
    /// The first of the families that share their metrics' names.
    family: usize,
    stat: usize,
    part: Part,
    /// The family among those that share the names, and the last of its scopes that was written.
    member: usize,
    last: Option<Labels>,
    /// The metric that the last TYPE line was for.
    typed: String,
}

/// A response code statistic is two metrics; any other is the first part alone.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Classes,
    Codes,
}

/// One statistic on its way to the page.
struct Metric<'a> {
    registry: &'a Registry,
    query: &'a Query,
    stat: &'a StatMeta,
    part: Part,
    name: String,
    /// The class that the statistic's name ends in.
    class: Option<&'static str>,
}

impl Cursor {
    pub(super) fn step(&mut self, registry: &Registry, query: &Query, out: &mut Vec<u8>) -> bool {
        let mut budget = Budget::new(out);
        while let Some(lead) = FAMILIES.get(self.family) {
            let Some(stat) = lead.stats.get(self.stat) else {
                self.next_family();
                continue;
            };
            let metric = Metric::new(registry, query, lead, stat, self.part);
            if !self.write_metric(&metric, &mut budget, out) {
                return true;
            }
            if stat.kind == Kind::Codes && self.part == Part::Classes {
                self.part = Part::Codes;
            } else {
                self.part = Part::Classes;
                self.stat += 1;
            }
            self.member = self.family;
        }
        false
    }

    fn next_family(&mut self) {
        let after = self.family + 1;
        self.family =
            (after..FAMILIES.len()).find(|family| leader(*family) == *family).unwrap_or(FAMILIES.len());
        self.member = self.family;
        self.stat = 0;
    }

    /// The metric for all scopes of all families that have it; false when the step is to end.
    fn write_metric(&mut self, metric: &Metric<'_>, budget: &mut Budget, out: &mut Vec<u8>) -> bool {
        while self.member < FAMILIES.len() {
            let meta = FAMILIES[self.member];
            for (labels, base) in scopes_after(metric.registry.live(self.member), self.last.as_ref()) {
                metric.write(&Line { meta, labels }, base, &mut self.typed, out);
                if !budget.spend(1, out) {
                    self.last = Some(labels.clone());
                    return false;
                }
            }
            self.last = None;
            let after = self.member + 1;
            self.member = (after..FAMILIES.len())
                .find(|member| leader(*member) == self.family)
                .unwrap_or(FAMILIES.len());
        }
        true
    }
}

impl<'a> Metric<'a> {
    fn new(
        registry: &'a Registry,
        query: &'a Query,
        meta: &FamilyMeta,
        stat: &'a StatMeta,
        part: Part,
    ) -> Self {
        let (stem, class) = split_class(stat.name);
        let mut name = String::from(meta.metric);
        name.extend(stem.chars().map(|char| if char == '.' { '_' } else { char }));
        if class.is_some() {
            name.push_str("xx");
        } else if stat.kind == Kind::Codes && part == Part::Classes {
            name.push_str("_xx");
        }
        Self { registry, query, stat, part, name, class }
    }

    fn write(&self, line: &Line<'_>, base: u32, typed: &mut String, out: &mut Vec<u8>) {
        let slot = base + u32::from(self.stat.offset);
        match self.stat.kind {
            kind @ (Kind::Counter | Kind::Occasional | Kind::Gauge) => {
                let value = self.registry.scalar_at(base, self.stat);
                if self.wanted(line, value > 0, None) {
                    self.write_type(typed, if kind == Kind::Gauge { "gauge" } else { "counter" }, out);
                    let class = self.class.map(|class| ("envoy_response_code_class", class));
                    self.write_value(line, class, value, out);
                }
            }
            Kind::Codes => {
                let exact = self.part == Part::Codes;
                for code in self.registry.codes_at(slot).filter(|code| code.is_exact() == exact) {
                    if self.wanted(line, true, Some(code)) {
                        let mut number = String::new();
                        code.push_number(&mut number);
                        self.write_type(typed, "counter", out);
                        let label = if exact { "envoy_response_code" } else { "envoy_response_code_class" };
                        self.write_value(line, Some((label, &number)), code.count, out);
                    }
                }
            }
            kind @ (Kind::Millis | Kind::Micros | Kind::Number) => {
                let histogram = self.registry.histogram_at(slot, kind);
                if self.wanted(line, histogram.count() > 0, None) {
                    self.write_type(typed, "histogram", out);
                    self.write_histogram(line, &histogram, out);
                }
            }
        }
    }

    /// Filters look at Envoy's full name, which is only put together for them.
    fn wanted(&self, line: &Line<'_>, used: bool, code: Option<CodeCount>) -> bool {
        if !self.query.shows(self.stat.kind, used) || self.query.filter.is_none() {
            return self.query.shows(self.stat.kind, used);
        }
        let mut name = String::new();
        push_prefix(&mut name, line.meta, line.labels);
        name.push_str(self.stat.name);
        if let Some(code) = code {
            name.push('_');
            code.push_suffix(&mut name);
        }
        self.query.wants(&name)
    }

    fn write_type(&self, typed: &mut String, kind: &str, out: &mut Vec<u8>) {
        if *typed != self.name {
            for part in ["# TYPE ", &self.name, " ", kind, "\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            typed.clone_from(&self.name);
        }
    }

    fn write_value(&self, line: &Line<'_>, first: Option<(&str, &str)>, value: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        line.write_labels(first, None, out);
        out.push(b' ');
        write_uint(out, value);
        out.push(b'\n');
    }

    fn write_histogram(&self, line: &Line<'_>, histogram: &Histogram, out: &mut Vec<u8>) {
        let begin = |out: &mut Vec<u8>, suffix: &str, le: Option<Le>| {
            out.extend_from_slice(self.name.as_bytes());
            out.extend_from_slice(suffix.as_bytes());
            line.write_labels(None, le, out);
            out.push(b' ');
        };
        let mut cumulative = 0_u64;
        for (i, records) in histogram.buckets.iter().enumerate() {
            cumulative = cumulative.wrapping_add(*records);
            let bound = histogram.bounds().get(i).map(|bound| u64::from(*bound) * histogram.scale());
            begin(out, "_bucket", Some(bound.map_or(Le::Infinite, Le::Thousandths)));
            write_uint(out, cumulative);
            out.push(b'\n');
        }
        begin(out, "_sum", None);
        write_thousandths(out, histogram.sum.saturating_mul(histogram.scale()));
        out.push(b'\n');
        begin(out, "_count", None);
        write_uint(out, cumulative);
        out.push(b'\n');
    }
}

/// A bucket's bound.
#[derive(Clone, Copy)]
enum Le {
    Thousandths(u64),
    Infinite,
}

/// The scope that a line is for.
struct Line<'a> {
    meta: &'a FamilyMeta,
    labels: &'a Labels,
}

impl Line<'_> {
    /// Envoy writes the response code (`first`) before the scope's own labels, and empty braces where there are none.
    fn write_labels(&self, first: Option<(&str, &str)>, le: Option<Le>, out: &mut Vec<u8>) {
        let mut separator: &[u8] = b"";
        let mut begin = |out: &mut Vec<u8>, name: &str| {
            out.extend_from_slice(separator);
            separator = b",";
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"=\"");
        };
        out.push(b'{');
        if let Some((name, value)) = first {
            begin(out, name);
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        }
        for label in self.meta.labels {
            begin(out, label.name);
            write_label_value(out, &self.labels[usize::from(label.value)], label.name != ENDPOINT_LABEL);
            out.push(b'"');
        }
        if let Some(le) = le {
            begin(out, "le");
            match le {
                Le::Thousandths(bound) => write_thousandths(out, bound),
                Le::Infinite => out.extend_from_slice(b"+Inf"),
            }
            out.push(b'"');
        }
        out.push(b'}');
    }
}

/// The one label in which Envoy keeps `:`.
const ENDPOINT_LABEL: &str = "envoy_endpoint_address";

fn write_label_value(out: &mut Vec<u8>, value: &str, replace_colons: bool) {
    for byte in value.bytes() {
        match byte {
            b':' if replace_colons => out.push(b'_'),
            // exposition format: "label_value can be any sequence of UTF-8 characters, but the backslash, double-quote, and line feed
            // characters have to be escaped"
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// `downstream_rq_2xx` is the metric `downstream_rq_xx` with the class in a label.
fn split_class(name: &'static str) -> (&'static str, Option<&'static str>) {
    if let Some(stem) = name.strip_suffix("xx")
        && let Some((stem, class)) = stem.split_at_checked(stem.len().saturating_sub(1))
        && stem.ends_with("_rq_")
        && class.as_bytes().iter().all(u8::is_ascii_digit)
    {
        return (stem, Some(class));
    }
    (name, None)
}

/// The first family whose metrics have the same names as those of `family` (`http_rbac` and `http_rbac_rules`).
fn leader(family: usize) -> usize {
    static LEADERS: LazyLock<Box<[usize]>> = LazyLock::new(|| {
        let first = |family: &&FamilyMeta| FAMILIES.iter().position(|other| other.metric == family.metric);
        FAMILIES.iter().enumerate().map(|(i, family)| first(family).unwrap_or(i)).collect()
    });
    LEADERS[family]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_split_off_and_codes_are_not() {
        assert_eq!(split_class("downstream_rq_2xx"), ("downstream_rq_", Some("2")));
        assert_eq!(split_class("upstream_rq_xx"), ("upstream_rq_xx", None));
        assert_eq!(split_class("xx"), ("xx", None));
        assert_eq!(split_class("upstream_rq_total"), ("upstream_rq_total", None));
    }

    #[test]
    fn families_that_share_a_prefix_share_the_whole_table() {
        for (i, family) in FAMILIES.iter().enumerate() {
            let names =
                |meta: &FamilyMeta| meta.stats.iter().map(|stat| (stat.name, stat.kind)).collect::<Vec<_>>();
            assert_eq!(names(family), names(FAMILIES[leader(i)]), "{:?}", family.family);
        }
    }
}
