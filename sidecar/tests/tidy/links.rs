//! Links between documents: the file must be there, and the heading in it.

use crate::{
    findings::Findings,
    tree::{File, Tree, line_of},
};
use std::path::{Component, Path, PathBuf};

pub fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (at, target) in links(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = resolve(&file.path, path);
            let mut refuse = |why: &str| {
                findings.add(&file.path, line_of(&file.text, at), "link", format!("{target}: {why}"))
            };
            if !tree.root.join(&to).exists() {
                refuse("no such file");
            } else if !anchor.is_empty() && to.ends_with(".md") {
                let found =
                    tree.file(&to).is_some_and(|page| headings(page).any(|heading| heading == anchor));
                if !found {
                    refuse("no such heading");
                }
            }
        }
    }
}

/// Targets of `[text](target)`, outside of code blocks and spans.
fn links(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut fenced, mut start) = (Vec::new(), false, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            for (at, _) in line.match_indices("](") {
                let in_span = line[..at].matches('`').count() % 2 == 1;
                let rest = &line[at + 2..];
                if let Some(end) = rest.find(')').filter(|_| !in_span) {
                    found.push((start + at, &rest[..end]));
                }
            }
        }
        start += line.len();
    }
    found
}

fn resolve(from: &str, path: &str) -> String {
    if path.is_empty() {
        return from.to_owned();
    }
    let mut to = PathBuf::from(from).parent().map(Path::to_owned).unwrap_or_default();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(to.pop()),
            Component::Normal(name) => to.push(name),
            _ => {}
        }
    }
    to.to_string_lossy().into_owned()
}

/// Headings as the anchors that a forge makes of them.
fn headings(page: &File) -> impl Iterator<Item = String> {
    page.text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .collect::<String>()
            .replace(' ', "-")
    })
}

#[test]
fn links_are_found_outside_of_code() {
    let found = links("a [b](c.md#d) `[x](y)`\n```\n[e](f)\n```\n[g](../h)\n");
    assert_eq!(found.iter().map(|(_, target)| *target).collect::<Vec<_>>(), ["c.md#d", "../h"]);
    assert_eq!(resolve("docs/adr/0001.md", "../security.md"), "docs/security.md");
}
