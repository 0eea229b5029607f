//! No field of the configuration is accepted and then not obeyed: whatever a snapshot holds, somebody outside the
//! crates that fill it reads. Names are compared, not types: a field that shares its name with a method or field of
//! something else may pass unread, one that is reported is unread for certain.

use crate::{
    findings::Findings,
    tree::{File, Tree, line_of, words},
};

/// Fields and variants that nobody reads by name, each with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("ClusterKind::Static", "nobody has to do anything for it"),
    ("ClusterKind::Eds", "over the control stream only, which a static file is refused for"),
    ("ClusterKind::Eds.service_name", "over the control stream only"),
    ("ForwardClientCert::Sanitize", "what is left when the others are told apart"),
    ("HeaderAppend::OverwriteIfExistsOrAdd", "what is left when the others are told apart"),
    ("Operator::Absent", "always absent, as docs/compatibility.md says"),
];

struct Item {
    /// `Listener` or `ClusterKind::OriginalDst`.
    of: String,
    /// None: the variant itself.
    field: Option<String>,
    at: usize,
}

impl Item {
    fn name(&self) -> String {
        match &self.field {
            Some(field) => format!("{}.{field}", self.of),
            None => self.of.clone(),
        }
    }

    fn is_read(&self, code: &str) -> bool {
        match &self.field {
            None => words(code, &self.of).next().is_some(),
            Some(field) if self.of.contains("::") => is_taken_apart(code, &self.of, field),
            Some(field) => is_accessed(code, field) || is_taken_apart(code, &self.of, field),
        }
    }
}

pub fn check(tree: &Tree, findings: &mut Findings) {
    let shipped = || tree.rust().filter(|file| file.is_shipped());
    let fills = |file: &&File| ["engine/snapshot/", "engine/xds/"].iter().any(|f| file.path.starts_with(f));
    let readers: Vec<&str> = shipped().filter(|file| !fills(file)).map(File::shipped_code).collect();
    let mut excused = Vec::new();
    for file in shipped().filter(|file| file.path.starts_with("engine/snapshot/src/")) {
        // its errors are read as text
        if file.path.ends_with("/error.rs") {
            continue;
        }
        for item in items(file.shipped_code()) {
            let name = item.name();
            if EXCEPTIONS.iter().any(|(excused, _)| *excused == name) {
                excused.push(name);
            } else if !readers.iter().any(|code| item.is_read(code)) {
                let line = line_of(file.shipped_code(), item.at);
                findings.add(&file.path, line, "read", format!("{name} is filled and read by nobody"));
            }
        }
    }
    for (name, _) in EXCEPTIONS.iter().filter(|(name, _)| !excused.iter().any(|found| found == name)) {
        findings.add(file!(), 1, "read", format!("{name} is excused and does not exist"));
    }
}

/// Public fields of structs, variants of enums, and their fields.
fn items(code: &str) -> Vec<Item> {
    let mut found = Vec::new();
    for kind in ["pub struct ", "pub enum "] {
        for (start, _) in code.match_indices(kind) {
            let rest = &code[start + kind.len()..];
            let name_end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let name = &rest[..name_end];
            let Some(body) = rest[name_end..].strip_prefix(" {").and_then(braced) else { continue };
            let base = start + kind.len() + name_end + " {".len();
            match kind {
                "pub struct " => fields(name, body, base, "pub ", &mut found),
                _ => variants(name, body, base, &mut found),
            }
        }
    }
    found
}

fn fields(of: &str, body: &str, base: usize, visibility: &str, found: &mut Vec<Item>) {
    for (at, part) in parts(body) {
        let field = part.trim_start();
        let Some((field, _)) = field.strip_prefix(visibility).and_then(|field| field.split_once(':')) else {
            continue;
        };
        let at = base + at + part.len() - part.trim_start().len();
        found.push(Item { of: of.to_owned(), field: Some(field.trim().to_owned()), at });
    }
}

fn variants(of: &str, body: &str, base: usize, found: &mut Vec<Item>) {
    for (at, part) in parts(body) {
        // an attribute such as #[default] stands before the name
        let after =
            part.rfind(']').filter(|end| part[..*end].trim_start().starts_with('#')).map_or(0, |e| e + 1);
        let name = part[after..].trim_start();
        let at = base + at + part.len() - name.len();
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        if end == 0 {
            continue;
        }
        let of = format!("{of}::{}", &name[..end]);
        if let Some(body) = name[end..].strip_prefix(" {").and_then(braced) {
            fields(&of, body, at + end + " {".len(), "", found);
        }
        found.push(Item { of, field: None, at });
    }
}

/// The pieces between the commas of this level, with their offsets.
fn parts(body: &str) -> Vec<(usize, &str)> {
    let (mut depth, mut start, mut found) = (0_i32, 0, Vec::new());
    for (at, character) in body.char_indices() {
        match character {
            '{' | '(' | '<' | '[' => depth += 1,
            '}' | ')' | '>' | ']' => depth -= 1,
            ',' if depth == 0 => {
                found.push((start, &body[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push((start, &body[start..]));
    found
}

/// What stands before the brace that closes the one just passed.
fn braced(rest: &str) -> Option<&str> {
    let mut depth = 1;
    for (at, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&rest[..at]);
        }
    }
    None
}

/// `.field`, and no call of a method.
fn is_accessed(code: &str, field: &str) -> bool {
    words(code, field).any(|at| {
        code[..at].ends_with('.')
            && !code[..at].ends_with("..")
            && !code[at + field.len()..].starts_with(['(', ':'])
    })
}

/// `of { field, .. }` as a pattern; what makes one anew does not read.
fn is_taken_apart(code: &str, of: &str, field: &str) -> bool {
    words(code, of).any(|at| {
        let rest = &code[at + of.len()..];
        let Some(body) = rest.strip_prefix(" {").and_then(braced) else { return false };
        let after = rest[" {".len() + body.len() + 1..].trim_start();
        let is_pattern = body.trim_end().ends_with("..")
            || ["=>", "= ", "=\n", "|", "if "].iter().any(|next| after.starts_with(next));
        is_pattern && words(body, field).next().is_some()
    })
}

#[test]
fn what_nobody_reads_is_found() {
    let code = "pub struct A {\n    pub read: u8,\n    pub taken: Vec<(u8, u8)>,\n    pub lost: u8,\n    own: u8,\n}\n\
                pub enum E {\n    #[default]\n    On,\n    Off { why: u8, kept: u8 },\n    Gone(u8),\n}\n";
    let reader = "fn f(a: &A, e: E) { a.read; let A { taken, .. } = a; let b = A { lost: 1, ..a.lost() }; \
                  match e { E::On => {} E::Off { why, .. } => {} } }";
    let unread: Vec<String> =
        items(code).iter().filter(|item| !item.is_read(reader)).map(Item::name).collect();
    assert_eq!(unread, ["A.lost", "E::Off.kept", "E::Gone"]);
}
