//! No statistic is shown and never written: one that stays 0 says that nothing happens, which is worse than none. And
//! none of Envoy's is left out in silence: what we do not show is in a list, with the reason.
//!
//! Names are compared, not types: `Stat::Name` anywhere in what ships, or by a name that the file gives the family,
//! counts as writing it.

use crate::{
    findings::Findings,
    tree::{File, Tree, line_of, words},
};
use std::collections::BTreeMap;

const TABLES: &str = "engine/telemetry/src/families/";
/// What Envoy shows: kind, name and labels.
const ENVOY: &str = "engine/telemetry/tests/fixtures/envoy_1.40_metrics.txt";
const LIST: &str = "sidecar/tests/tidy/uncounted.txt";
/// Families that are written under another's names, because their blocks are the same.
const TWINS: &[(&str, &str)] = &[
    ("HttpRbacRulesStat", "HttpRbacStat"),
    ("NetworkRbacRulesStat", "NetworkRbacStat"),
    ("GrpcMethodStat", "ClusterGrpcStat"),
];

/// One line of a family's table.
struct Entry<'a> {
    family: &'a str,
    variant: &'a str,
    /// In Prometheus's form, without labels.
    metric: String,
    at: usize,
}

pub fn check(tree: &Tree, findings: &mut Findings) {
    let writers: Vec<&str> = tree.rust().filter(|file| file.is_shipped()).map(File::shipped_code).collect();
    let mut shown = BTreeMap::new();
    for file in tree.rust().filter(|file| file.path.starts_with(TABLES)) {
        let entries = entries(&file.text);
        for entry in entries.iter().filter(|entry| !is_written(entry, &writers)) {
            let at = line_of(&file.text, entry.at);
            let name = format!("{}::{}", entry.family, entry.variant);
            findings.add(&file.path, at, "counted", format!("{name} is shown and written by nobody"));
        }
        for twins in TWINS {
            unequal(twins, &entries, &file.path, findings);
        }
        shown.extend(entries.into_iter().map(|entry| (entry.metric, file.path.clone())));
    }
    if shown.is_empty() {
        findings.add(TABLES, 1, "counted", "the tables of statistics are gone");
    }
    left_out(tree, &shown, findings);
}

fn unequal((one, other): &(&str, &str), entries: &[Entry<'_>], path: &str, findings: &mut Findings) {
    let of = |family: &str| -> Vec<&str> {
        entries.iter().filter(|entry| entry.family == family).map(|entry| entry.variant).collect()
    };
    if of(one) != of(other) && !of(one).is_empty() {
        findings.add(path, 1, "counted", format!("{one} is written as {other}, and is another table"));
    }
}

/// What Envoy shows is shown here or in the list, not in both.
fn left_out(tree: &Tree, shown: &BTreeMap<String, String>, findings: &mut Findings) {
    let (Some(envoy), Some(list)) = (tree.file(ENVOY), tree.file(LIST)) else {
        return findings.add(LIST, 1, "counted", "the list, or what Envoy shows, is gone");
    };
    let envoy: Vec<&str> = envoy.text.lines().filter_map(|line| line.split([' ', '{']).nth(1)).collect();
    let mut listed = BTreeMap::new();
    for (number, line) in list.text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        match line.split_once(": ") {
            Some((name, reason)) if !reason.trim().is_empty() => drop(listed.insert(name, number + 1)),
            _ => findings.add(LIST, number + 1, "counted", "a line is: name, colon, reason"),
        }
    }
    for name in &envoy {
        if !shown.contains_key(*name) && !listed.contains_key(name) {
            findings.add(
                ENVOY,
                1,
                "counted",
                format!("{name} is neither shown nor, with a reason, in {LIST}"),
            );
        }
    }
    for (name, at) in listed {
        if let Some(path) = shown.get(name) {
            findings.add(LIST, at, "counted", format!("{name} is in {path}: take it off the list"));
        } else if !envoy.contains(&name) {
            findings.add(LIST, at, "counted", format!("Envoy shows no {name}"));
        }
    }
}

fn is_written(entry: &Entry<'_>, writers: &[&str]) -> bool {
    let twin = TWINS.iter().find(|(family, _)| *family == entry.family);
    let family = twin.map_or(entry.family, |(_, other)| other);
    let direct = format!("{family}::{}", entry.variant);
    writers.iter().any(|code| {
        let renamed = aliases(code, family).any(|alias| {
            let name = format!("{alias}::{}", entry.variant);
            words(code, &name).next().is_some()
        });
        renamed || words(code, &direct).next().is_some()
    })
}

/// What a file calls the family besides.
fn aliases<'a>(code: &'a str, family: &'a str) -> impl Iterator<Item = &'a str> {
    words(code, family).filter_map(|at| {
        let mut rest = code[at + family.len()..].split([' ', ';', ',', '}']);
        (rest.next() == Some("") && rest.next() == Some("as")).then(|| rest.next()).flatten()
    })
}

/// The entries of the tables in `text`.
fn entries(text: &str) -> Vec<Entry<'_>> {
    let (mut family, mut prefix, mut found, mut start) = ("", "", Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let mut parts = line.split_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some("="), _) if line.contains(" scope ") => {
                family = name;
                prefix = line.split("metric \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("");
            }
            (Some(kind), Some(variant), Some(name))
                if line.starts_with("        ") && name.starts_with('"') =>
            {
                let name = name.trim_matches('"').replace('.', "_");
                // a class of answers is a label
                let class =
                    name.strip_suffix("xx").map(|rest| rest.trim_end_matches(|c: char| c.is_ascii_digit()));
                let name = class
                    .filter(|rest| rest.ends_with("_rq_"))
                    .map_or(name.clone(), |rest| format!("{rest}xx"));
                let metric = format!("{prefix}{name}");
                if kind == "codes" {
                    found.push(Entry { family, variant, metric: format!("{metric}_xx"), at: start });
                }
                found.push(Entry { family, variant, metric, at: start });
            }
            _ => {}
        }
        start += line.len();
    }
    found
}

#[cfg(test)]
const TABLE: &str = "stats! {\n    /// One.\n    OneStat = One, scope one(name), text \"one.{0}.\", metric \"envoy_one_\", labels [] {\n        \
     counter Written \"a.written\" \"w\",\n        gauge Lost \"lost\" \"l\",\n        codes Renamed \"rq\" \"x\",\n        \
     counter Longer \"a_rq_5xx\" \"x\",\n    }\n}\n";

#[test]
fn a_statistic_that_nobody_writes_is_found() {
    let entries = entries(TABLE);
    let writers = [
        "shard.inc(block, OneStat::Written); shard.inc(block, OneStat::LongerStill); Lost; Stat::Lost;",
        "use {OtherStat as Other, OneStat as Stat}; shard.code(block, Stat::Renamed, 200);",
    ];
    let found: Vec<&str> =
        entries.iter().filter(|entry| !is_written(entry, &writers)).map(|entry| entry.variant).collect();
    assert_eq!(found, ["Lost", "Longer"]);
}

#[test]
fn metrics_are_named_as_their_page_names_them() {
    let entries = entries(TABLE);
    let names: Vec<&str> = entries.iter().map(|entry| entry.metric.as_str()).collect();
    assert_eq!(
        names,
        ["envoy_one_a_written", "envoy_one_lost", "envoy_one_rq_xx", "envoy_one_rq", "envoy_one_a_rq_xx"]
    );
}
