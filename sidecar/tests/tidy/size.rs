//! How long a file and a function may be. Who is longer is listed with its length, and may only shrink: a file that
//! grew is a finding, and so is one that shrank without its line in the list.

use crate::{
    findings::Findings,
    tree::{File, Tree, line_of, words},
};
use std::collections::BTreeMap;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LIST: &str = "sidecar/tests/tidy/long.txt";

pub fn check(tree: &Tree, findings: &mut Findings) {
    let list = tree.file(LIST).expect("the list of exceptions");
    let mut allowed = BTreeMap::new();
    for (number, line) in
        list.text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    {
        let mut parts = line.split_whitespace();
        match (parts.next().and_then(|length| length.parse::<usize>().ok()), parts.next()) {
            (Some(length), Some(name)) => drop(allowed.insert(name.to_owned(), (length, number + 1))),
            _ => findings.add(LIST, number + 1, "length", "a line is: length, name"),
        }
    }
    for (name, (path, line, length, max)) in long(tree) {
        match allowed.remove(&name) {
            None => findings.add(
                &path,
                line,
                "length",
                format!("{name} has {length} lines, at most {max}: split it"),
            ),
            Some((listed, _)) if length > listed => {
                findings.add(
                    &path,
                    line,
                    "length",
                    format!("{name} grew from {listed} to {length} lines: split it"),
                );
            }
            Some((listed, at)) if length < listed => {
                findings.add(LIST, at, "length", format!("{name} has shrunk to {length}: write that"));
            }
            Some(_) => {}
        }
    }
    for (name, (_, at)) in allowed {
        findings.add(LIST, at, "length", format!("{name} is short now or gone: take it off the list"));
    }
}

type Long = BTreeMap<String, (String, usize, usize, usize)>;

fn long(tree: &Tree) -> Long {
    let mut long = Long::new();
    for file in tree.rust().filter(|file| !file.is_generated()) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.insert(file.path.clone(), (file.path.clone(), 1, lines, FILE_LINES_MAX));
        }
        // a test's table may take the lines it needs
        for (name, at, lines) in functions(file).into_iter().filter(|_| file.is_shipped()) {
            if lines > FUNCTION_LINES_MAX {
                long.insert(
                    format!("{}::{name}", file.path),
                    (file.path.clone(), at, lines, FUNCTION_LINES_MAX),
                );
            }
        }
    }
    long
}

/// Name, first line and length of each function that has a body.
fn functions(file: &File) -> Vec<(String, usize, usize)> {
    let code = &file.code;
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = &code[at + 2..];
        let name: String =
            rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = rest.find(['{', ';']).filter(|_| !name.is_empty()) else { continue };
        // `;` first: a declaration, or an array's length in the signature, of which there is none this long
        if rest.as_bytes()[open] == b';' {
            continue;
        }
        let mut depth = 0;
        let close = rest[open..].bytes().position(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth == 0
        });
        if let Some(close) = close {
            let first = line_of(code, at);
            found.push((name, first, line_of(code, at + 2 + open + close) - first + 1));
        }
    }
    found
}

#[test]
fn a_function_is_measured_from_its_name_to_its_last_brace() {
    let text =
        "fn a() {\n  if x { y() }\n}\ntrait T { fn b(&self); }\nfn c<'a>(f: fn(u8)) -> u8\nwhere\n{\n}\n";
    let file = File { path: "x.rs".into(), text: text.into(), code: crate::mask::mask(text) };
    assert_eq!(functions(&file), [("a".into(), 1, 3), ("c".into(), 5, 4)]);
}
