//! No statistic of our own is shown and never written: one that stays 0 says that nothing happens, which is worse than
//! none. Names are compared, not types: `Stat::Name` anywhere outside the tables and the tests counts as writing it.

use crate::{
    findings::Findings,
    tree::{File, Tree, line_of, words},
};

const TABLES: &str = "engine/telemetry/src/families/";
const OWN: &str = "engine/telemetry/src/families/own.rs";

pub fn check(tree: &Tree, findings: &mut Findings) {
    let Some(own) = tree.file(OWN) else {
        return findings.add(OWN, 1, "counted", "the table of our own statistics is gone");
    };
    let writers = tree.rust().filter(|file| file.is_shipped() && !file.path.starts_with(TABLES));
    let writers: Vec<&str> = writers.map(File::shipped_code).collect();
    for (name, at) in unwritten(&own.code, &writers) {
        findings.add(
            OWN,
            line_of(&own.code, at),
            "counted",
            format!("{name} is shown and written by nobody"),
        );
    }
}

/// Entries of the tables in `code` that no writer names, and where they stand.
fn unwritten(code: &str, writers: &[&str]) -> Vec<(String, usize)> {
    let (mut family, mut found, mut start) = ("", Vec::new(), 0);
    for line in code.split_inclusive('\n') {
        let mut parts = line.split_whitespace();
        match (parts.next(), parts.next()) {
            (Some(name), Some("=")) if line.contains(" scope ") => family = name,
            (Some(_), Some(entry)) if line.starts_with("        ") && line.contains('"') => {
                let name = format!("{family}::{entry}");
                if !writers.iter().any(|code| words(code, &name).next().is_some()) {
                    found.push((name, start));
                }
            }
            _ => {}
        }
        start += line.len();
    }
    found
}

#[test]
fn a_statistic_that_nobody_writes_is_found() {
    let table = "stats! {\n    /// One.\n    OneStat = One, scope one(name), text \"one.{0}.\" [] {\n        \
                 counter Written \"written\" \"w\",\n        gauge Lost \"lost\" \"l\",\n        \
                 micros Longer \"longer\" \"x\",\n    }\n}\n";
    let writer = "shard.inc(block, OneStat::Written); shard.inc(block, OneStat::LongerStill); Lost;";
    let found: Vec<String> = unwritten(table, &[writer]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["OneStat::Lost", "OneStat::Longer"]);
}
