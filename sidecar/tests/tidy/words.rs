//! What must not stand in the tree at all.

use crate::{
    findings::Findings,
    tree::{Tree, line_of, words},
};

const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];
/// Modules whose name says nothing about what is in them.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "types", "misc"];
/// Split so that this file does not find itself. Hosts of package registries, and paths of one machine.
const FOREIGN: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("npm", "js.org"),
    ("proxy.go", "lang.org"),
    ("deb.deb", "ian.org"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/wo", "rk/"),
];
/// Written by tools, or vendored word for word.
const FOREIGN_FREE: &[&str] = &["Cargo.lock", "engine/xds/proto/"];

pub fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.rust() {
        for word in UNFINISHED {
            for at in words(&file.code, word) {
                findings.add(&file.path, line_of(&file.code, at), "unfinished", *word);
            }
        }
        let stem = file
            .path
            .trim_end_matches("/mod.rs")
            .trim_end_matches(".rs")
            .rsplit('/')
            .next()
            .unwrap_or_default();
        // the API's own packages keep their names
        if EMPTY_NAMES.contains(&stem) && !file.is_generated() {
            findings.add(
                &file.path,
                1,
                "name",
                format!("a module called {stem} says nothing of what is in it"),
            );
        }
    }
    for file in tree.files.iter().filter(|file| !FOREIGN_FREE.iter().any(|free| file.path.starts_with(free)))
    {
        for (number, line) in file.text.lines().enumerate() {
            for (start, end) in FOREIGN {
                let word = format!("{start}{end}");
                if line.contains(&word) {
                    findings.add(
                        &file.path,
                        number + 1,
                        "foreign",
                        format!("{word} has no place in this tree"),
                    );
                }
            }
        }
    }
}
