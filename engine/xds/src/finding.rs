//! What is wrong with a configuration, one finding a fault, and where it stands.

use std::fmt;

/// Findings beyond this are counted, not kept: a broken file of any size gives a readable list.
pub const FINDINGS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is used, and this is what its author should know.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Field path: `static_resources.listeners[0].filter_chains[1].filters[0].typed_config.route_config`; empty
    /// for the whole document. Map keys stand in brackets.
    pub path: String,
    /// From 1; None where the configuration did not come from a file.
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub severity: Severity,
    pub message: String,
}

/// `12:7: static_resources.clusters[0].name: must not be empty`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Findings as they are made, up to [`FINDINGS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    dropped: usize,
}

impl Findings {
    pub fn add(&mut self, path: &str, at: Option<(u32, u32)>, severity: Severity, message: String) {
        if self.list.len() >= FINDINGS_MAX {
            self.dropped += 1;
            return;
        }
        let (line, column) = (at.map(|at| at.0), at.map(|at| at.1));
        self.list.push(Finding { path: path.to_owned(), line, column, severity, message });
    }

    pub fn error(&mut self, path: &str, message: impl Into<String>) {
        self.add(path, None, Severity::Error, message.into());
    }

    pub fn into_vec(mut self) -> Vec<Finding> {
        if self.dropped > 0 {
            let message = format!("{} further findings are not shown", self.dropped);
            self.list.push(Finding {
                path: String::new(),
                line: None,
                column: None,
                severity: Severity::Error,
                message,
            });
        }
        self.list
    }
}

/// A finding of a later pass says nothing new where an earlier pass found fault in the same field, in the message
/// around it, or inside it.
pub(crate) fn merge(mut first: Vec<Finding>, second: Vec<Finding>) -> Vec<Finding> {
    let related = |a: &str, b: &str| {
        let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
        long.starts_with(short)
            && (long.len() == short.len() || matches!(long.as_bytes()[short.len()], b'.' | b'['))
    };
    let known: Vec<String> = first
        .iter()
        .filter(|finding| finding.severity == Severity::Error && !finding.path.is_empty())
        .map(|finding| finding.path.clone())
        .collect();
    first.extend(second.into_iter().filter(|late| !known.iter().any(|path| related(path, &late.path))));
    first
}

/// A field path under construction; pushing and popping never allocates twice.
#[derive(Debug, Default)]
pub(crate) struct Path {
    text: String,
    ends: Vec<usize>,
}

impl Path {
    pub fn field(&mut self, name: &str) {
        self.ends.push(self.text.len());
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(name);
    }

    pub fn index(&mut self, index: usize) {
        self.key(&index.to_string());
    }

    pub fn key(&mut self, key: &str) {
        self.ends.push(self.text.len());
        self.text.push('[');
        self.text.push_str(key);
        self.text.push(']');
    }

    pub fn pop(&mut self) {
        if let Some(end) = self.ends.pop() {
            self.text.truncate(end);
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &str) -> Finding {
        Finding {
            path: path.into(),
            line: None,
            column: None,
            severity: Severity::Error,
            message: "bad".into(),
        }
    }

    #[test]
    fn a_later_finding_on_the_same_field_is_dropped() {
        let merged =
            merge(vec![error("a.b")], vec![error("a"), error("a.b[0].c"), error("a.bc"), error("a.b")]);
        assert_eq!(merged.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["a.b", "a.bc"]);
    }

    #[test]
    fn findings_are_bounded() {
        let mut findings = Findings::default();
        for _ in 0..FINDINGS_MAX + 2 {
            findings.error("a", "bad");
        }
        let list = findings.into_vec();
        assert_eq!(list.len(), FINDINGS_MAX + 1);
        assert_eq!(list.last().unwrap().to_string(), "2 further findings are not shown");
    }
}
