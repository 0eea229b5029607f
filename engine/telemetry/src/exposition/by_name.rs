//! All counters and gauges by name, then all histograms by name, as Envoy's text and JSON pages have them.
//!
//! Names are sorted a group at a time: a scope together with those whose prefix begins with its own (`cluster.a.` and
//! `cluster.a.outlier_detection.`). All names of a group lie on the same side of any name outside of it, so that no more
//! than one cluster's are ever held at once.

use super::{Budget, Query, push_prefix};
use crate::block::Labels;
use crate::families::FAMILIES;
use crate::histogram::Histogram;
use crate::registry::Registry;
use crate::stat::{Kind, StatMeta};

/// One value under its full name.
pub(super) enum Value {
    Scalar(u64),
    Histogram(Box<Histogram>),
}

/// The scopes that there were when the page was begun; what comes later is not on it, what goes meanwhile is left out.
#[derive(Default)]
pub(super) struct Cursor {
    scopes: Option<Vec<NamedScope>>,
    histograms: bool,
    next: usize,
}

struct NamedScope {
    prefix: String,
    family: usize,
    labels: Labels,
}

fn sorted_scopes(registry: &Registry) -> Vec<NamedScope> {
    let mut scopes = Vec::new();
    for (family, meta) in FAMILIES.iter().enumerate() {
        for labels in registry.live(family).keys() {
            let mut prefix = String::new();
            push_prefix(&mut prefix, meta, labels);
            scopes.push(NamedScope { prefix, family, labels: labels.clone() });
        }
    }
    scopes.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
    scopes
}

impl Cursor {
    /// Calls `write` for the values of the next scopes; false when there are no more.
    pub fn step(
        &mut self,
        registry: &Registry,
        query: &Query,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&mut Vec<u8>, &str, &Value),
    ) -> bool {
        let scopes = self.scopes.get_or_insert_with(|| sorted_scopes(registry));
        let mut budget = Budget::new(out);
        let mut found = Vec::new();
        loop {
            let Some(root) = scopes.get(self.next) else {
                if self.histograms {
                    return false;
                }
                (self.histograms, self.next) = (true, 0);
                continue;
            };
            let group = scopes[self.next..].iter().take_while(|scope| scope.prefix.starts_with(&root.prefix));
            let (mut members, mut values) = (0, 0);
            for scope in group {
                members += 1;
                values += read(registry, query, scope, self.histograms, &mut found);
            }
            found.sort_unstable_by(|a: &(String, Value), b| a.0.cmp(&b.0));
            found.drain(..).for_each(|(name, value)| write(out, &name, &value));
            self.next += members;
            if !budget.spend(values, out) {
                return true;
            }
        }
    }
}

/// Returns how many values were looked at.
fn read(
    registry: &Registry,
    query: &Query,
    scope: &NamedScope,
    histograms: bool,
    found: &mut Vec<(String, Value)>,
) -> usize {
    let Some(base) = registry.live(scope.family).get(&scope.labels) else { return 0 };
    let meta = FAMILIES[scope.family];
    let mut name = scope.prefix.clone();
    let asked = |stat: &&StatMeta| stat.kind.is_histogram() == histograms && query.kinds.has(stat.kind);
    for stat in meta.stats.iter().filter(asked) {
        read_stat(registry, query, *base, stat, &mut name, found);
    }
    meta.stats.len()
}

/// Reads one statistic of the scope that `name` is the prefix of, and leaves `name` as it was.
fn read_stat(
    registry: &Registry,
    query: &Query,
    base: u32,
    stat: &StatMeta,
    name: &mut String,
    found: &mut Vec<(String, Value)>,
) {
    let prefix = name.len();
    name.push_str(stat.name);
    match stat.kind {
        Kind::Counter | Kind::Occasional | Kind::Gauge => {
            let value = registry.scalar_at(base, stat);
            if query.shows(stat.kind, value > 0) && query.wants(name) {
                found.push((name.clone(), Value::Scalar(value)));
            }
        }
        Kind::Codes => {
            for code in registry.codes_at(base + u32::from(stat.offset)) {
                let full = name.len();
                name.push('_');
                code.push_suffix(name);
                if query.wants(name) {
                    found.push((name.clone(), Value::Scalar(code.count)));
                }
                name.truncate(full);
            }
        }
        Kind::Millis | Kind::Micros | Kind::Number => {
            let histogram = registry.histogram_at(base + u32::from(stat.offset), stat.kind);
            if query.shows(stat.kind, histogram.count() > 0) && query.wants(name) {
                found.push((name.clone(), Value::Histogram(Box::new(histogram))));
            }
        }
    }
    name.truncate(prefix);
}
