//! docs/compatibility.md is the table that decides what is accepted, written out. `CORELANE_WRITE_DOCS=1` writes it anew.

use corelane_xds::supported::{self, Supported};
use std::{collections::BTreeMap, fmt::Write, path::Path};

const HEAD: &str = "\
<!-- Written by sidecar/tests/compatibility.rs from engine/xds/src/supported/; that test compares. -->

# What of Envoy's API is understood

The sidecar reads Envoy's v3 bootstrap. This page lists every message and field that it understands; it is made from the very
table that the check of a configuration and the generated types come from, so what is not here is refused by name, file, line and
column, never ignored. `corelane-sidecar --mode validate` tells all findings of a file at once.

A field is *read*, or *accepted*: setting it changes nothing that is promised, and the reason stands beside it.

Where behaviour differs from Envoy's on purpose: [one of two failing hosts is ejected](adr/0004-eject-one-of-two.md),
[retries have a budget by default](adr/0005-retry-budget-by-default.md),
[a client that has finished sending still gets its answer](adr/0007-half-closed-clients.md), and SIGTERM
[drains](operations.md#end).

In format strings (access logs, header values) an operator that is not implemented is refused too. These are accepted and always
absent: `DYNAMIC_METADATA`, `FILTER_STATE` and `UPSTREAM_FILTER_STATE`, which no filter here sets; `VIRTUAL_CLUSTER_NAME`, as virtual
clusters are refused; `TRACE_ID` and `SPAN_ID`, as a tracing provider is refused. `tracing` without one makes no spans, in Envoy either.
";

#[test]
fn the_page_lists_exactly_what_is_supported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = page();
    if std::env::var_os("CORELANE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("a writable tree");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    if written != page {
        let differs = written.lines().zip(page.lines()).position(|(a, b)| a != b);
        let line = differs.unwrap_or(written.lines().count().min(page.lines().count())) + 1;
        panic!(
            "docs/compatibility.md:{line}: out of date: CORELANE_WRITE_DOCS=1 cargo test -p corelane-sidecar --test compatibility"
        );
    }
}

fn page() -> String {
    let mut packages: BTreeMap<&str, BTreeMap<&str, &Supported>> = BTreeMap::new();
    for supported in supported::table() {
        let (package, message) = split(supported.message);
        packages.entry(package).or_default().insert(message, supported);
    }
    let mut page = HEAD.to_owned();
    for (package, messages) in packages {
        let _ =
            write!(page, "\n## {package}\n\n| message | read | accepted without effect |\n|---|---|---|\n");
        for (message, supported) in messages {
            let read: Vec<String> =
                supported.read.split_whitespace().map(|field| format!("`{field}`")).collect();
            let accepted: Vec<String> = supported
                .accepted
                .iter()
                .map(|(field, why)| format!("`{field}`: {}", why.replace('|', "\\|")))
                .collect();
            let read = if read.is_empty() { "-".to_owned() } else { read.join(" ") };
            let _ = writeln!(page, "| {message} | {read} | {} |", accepted.join("; "));
        }
    }
    page
}

/// `envoy.config.core.v3` and `Address.Inner`: a package's parts are in lower case.
fn split(name: &str) -> (&str, &str) {
    let at =
        name.match_indices('.').find(|(at, _)| name[at + 1..].starts_with(|c: char| c.is_ascii_uppercase()));
    at.map_or(("", name), |(at, _)| (&name[..at], &name[at + 1..]))
}
