//! What an engine crate may reach for in the standard library.

use crate::{
    findings::Findings,
    tree::{Tree, line_of, words},
};

/// Deterministic by construction: what they need comes in as arguments, `now` and random numbers among them.
const PURE: &[&str] = &["engine/http/src/", "engine/snapshot/src/", "engine/traffic/src/", "engine/xds/src/"];

const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant::now", "time is an argument"),
    ("SystemTime::now", "time is an argument"),
    ("std::fs", "no files"),
    ("File::open", "no files"),
    ("std::env", "no environment"),
    ("std::thread", "no threads"),
    ("std::process", "no processes"),
    ("TcpStream", "no sockets"),
    ("TcpListener", "no sockets"),
    ("UdpSocket", "no sockets"),
    ("UnixStream", "no sockets"),
    ("ToSocketAddrs", "no name look-ups"),
    ("corelane_runtime", "no event loop"),
];

pub fn pure_crates(tree: &Tree, findings: &mut Findings) {
    let pure =
        tree.rust().filter(|file| file.is_shipped() && PURE.iter().any(|start| file.path.starts_with(start)));
    for file in pure {
        let code = file.shipped_code();
        for (word, why) in FORBIDDEN {
            for at in words(code, word) {
                findings.add(&file.path, line_of(code, at), "sans-io", format!("{word}: {why}"));
            }
        }
        if let Some((at, group)) = std_groups(code).into_iter().find(|(_, group)| {
            ["fs", "env", "thread", "process"].iter().any(|module| words(group, module).next().is_some())
        }) {
            findings.add(&file.path, line_of(code, at), "sans-io", format!("use std::{{{group}}}"));
        }
    }
}

/// First-level names of `use std::{...}` groups, inner groups left out.
fn std_groups(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use std::{") {
        let (mut depth, mut names, mut tail) = (0, String::new(), false);
        for character in code[at + "use std::".len()..].chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => (tail, names) = (false, names + " "),
                ':' => tail = true,
                _ if depth == 1 && !tail => names.push(character),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        found.push((at, names));
    }
    found
}

pub fn environment(tree: &Tree, findings: &mut Findings) {
    for file in tree.rust().filter(|file| file.path.starts_with("engine/") && file.is_shipped()) {
        let code = file.shipped_code();
        for word in ["std::env", "env::var", "env::var_os", "env::args"] {
            for at in words(code, word) {
                findings.add(
                    &file.path,
                    line_of(code, at),
                    "no environment",
                    format!("{word}: sidecar reads it and passes it down"),
                );
            }
        }
    }
}

#[test]
fn a_group_import_shows_its_modules() {
    let groups =
        std_groups("use std::{\n    collections::{HashMap, env},\n    fs::{self, File},\n    io,\n};");
    assert_eq!(groups.len(), 1);
    assert!(
        words(&groups[0].1, "fs").next().is_some() && words(&groups[0].1, "env").next().is_none(),
        "{groups:?}"
    );
}
