//! /stats and /stats/prometheus, written in bounded steps.

use super::super::{Query, Reply};
use crate::control::process::Process;
use corelane_telemetry::exposition::{self, Buckets, Format, Kinds, NameFilter, Scrape};
use std::rc::Rc;

pub fn stats(process: &Rc<Process>, query: &Query) -> Reply {
    let format = match query.get("format") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some("prometheus") => Format::Prometheus,
        Some(_) => return Reply::bad_request("usage: /stats?format=(json|prometheus|text)\n\n"),
    };
    page(process, query, format)
}

/// Envoy's values, and its words for others.
fn kinds(query: &Query) -> Result<Kinds, Reply> {
    Ok(match query.get("type") {
        None | Some("All") => Kinds::All,
        Some("Counters") => Kinds::Counters,
        Some("Gauges") => Kinds::Gauges,
        Some("Histograms") => Kinds::Histograms,
        Some("TextReadouts") => Kinds::TextReadouts,
        Some(_) => return Err(Reply::bad_request("invalid &type= param")),
    })
}

/// Prometheus has cumulative buckets, and nothing else is accepted for it: Envoy's refusal of the others.
fn buckets(query: &Query, format: Format) -> Result<Buckets, Reply> {
    Ok(match query.get("histogram_buckets") {
        None | Some("" | "none") => Buckets::Summary,
        Some("cumulative") => Buckets::Cumulative,
        Some("summary" | "disjoint" | "detailed") if matches!(format, Format::Prometheus) => {
            return Err(Reply::bad_request("unsupported prometheus histogram bucket mode"));
        }
        Some("summary") => Buckets::Summary,
        Some("disjoint") => Buckets::Disjoint,
        Some("detailed") => Buckets::Detailed,
        Some(_) => {
            let usage = "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n";
            return Err(Reply::bad_request(usage));
        }
    })
}

/// No statistic is hidden here: those that are hidden are none.
fn shows_visible(query: &Query) -> Result<bool, Reply> {
    match query.get("hidden") {
        None | Some("include" | "exclude") => Ok(true),
        Some("only") => Ok(false),
        Some(_) => Err(Reply::bad_request("usage: /stats?hidden=(include|only|exclude)\n\n")),
    }
}

pub fn stats_prometheus(process: &Rc<Process>, query: &Query) -> Reply {
    page(process, query, Format::Prometheus)
}

fn wanted(query: &Query, format: Format) -> Result<exposition::Query, Reply> {
    let (kinds, buckets) = (kinds(query)?, buckets(query, format)?);
    let filter = super::filter(query.get("filter"))?;
    let named = filter.map(|regex| Box::new(move |name: &str| regex.is_match(name.as_bytes())) as NameFilter);
    let filter = if shows_visible(query)? { named } else { Some(Box::new(|_: &str| false) as NameFilter) };
    Ok(exposition::Query { format, kinds, buckets, used_only: query.has("usedonly"), filter })
}

fn page(process: &Rc<Process>, query: &Query, format: Format) -> Reply {
    let wanted = match wanted(query, format) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    process.refresh_gauges();
    let mut scrape = Scrape::new(wanted);
    let stats = process.stats.clone();
    Reply::steps(
        format.content_type(),
        Box::new(move |out| stats.with(|registry| scrape.step(registry, out))),
    )
}
