//! The licences of everything that is linked, from cargo's own metadata.

use crate::{findings::Findings, tree::Tree};
use std::process::Command;

const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "0BSD",
];

pub fn check(tree: &Tree, findings: &mut Findings) {
    // other platforms' packages are neither linked nor downloaded
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &platform])
        .current_dir(&tree.root)
        .output()
        .expect("cargo runs where it has just built this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "only {} packages", packages.len());
    for package in packages {
        let (name, licence) =
            (package["name"].as_str().unwrap_or("?"), package["license"].as_str().unwrap_or("none"));
        if !acceptable(licence) {
            findings.add("Cargo.lock", line_in_lock(tree, name), "licence", format!("{name}: {licence}"));
        }
    }
}

/// An SPDX expression: every part joined by AND needs an allowed one among those joined by OR.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    split(&expression, " AND ").iter().all(|all| {
        let all = all.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(all);
        split(all, " OR ").iter().any(|one| ALLOWED.contains(&one.trim()))
    })
}

/// Splits where no parenthesis is open. An unbracketed OR binds weaker than AND and so is read more strictly than meant.
fn split<'a>(expression: &'a str, by: &str) -> Vec<&'a str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, _) in expression.match_indices(by) {
        let before = &expression[..at];
        if before.matches('(').count() == before.matches(')').count() {
            parts.push(&expression[start..at]);
            start = at + by.len();
        }
    }
    parts.push(&expression[start..]);
    parts
}

fn line_in_lock(tree: &Tree, name: &str) -> usize {
    let text = std::fs::read_to_string(tree.root.join("Cargo.lock")).unwrap_or_default();
    text.lines().position(|line| line == format!("name = \"{name}\"")).map_or(1, |at| at + 1)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    assert!(
        acceptable("MIT/Apache-2.0")
            && acceptable("(MIT OR GPL-3.0) AND ISC")
            && acceptable("GPL-3.0 OR MIT")
    );
    assert!(!acceptable("GPL-3.0") && !acceptable("MIT AND GPL-3.0") && !acceptable("none"));
}
