//! /stats and /stats/prometheus, written in bounded steps.

use super::super::{Query, Reply};
use crate::control::process::Process;
use corelane_telemetry::exposition::{self, Format, NameFilter, Scrape};
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

pub fn stats_prometheus(process: &Rc<Process>, query: &Query) -> Reply {
    page(process, query, Format::Prometheus)
}

fn page(process: &Rc<Process>, query: &Query, format: Format) -> Reply {
    let filter = match super::filter(query.get("filter")) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    let filter =
        filter.map(|regex| Box::new(move |name: &str| regex.is_match(name.as_bytes())) as NameFilter);
    process.refresh_gauges();
    let mut scrape = Scrape::new(exposition::Query { format, used_only: query.has("usedonly"), filter });
    let stats = process.stats.clone();
    Reply::steps(
        format.content_type(),
        Box::new(move |out| stats.with(|registry| scrape.step(registry, out))),
    )
}
