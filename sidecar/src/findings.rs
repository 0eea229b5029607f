//! What is wrong with a configuration, and how it is shown: `file:line:column: field.path: message`, with the line
//! and a caret for people, or as JSON for tools.

use std::fmt::Write as _;

/// Findings printed; beyond it only their number is.
pub const FINDINGS_MAX: usize = 1000;

/// Characters of a source line shown around a caret.
const EXCERPT_MAX: usize = 160;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong. `line` and `column` count from 1, in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Index into the sources; None: not in a file (a flag).
    pub source: Option<usize>,
    pub line: u32,
    pub column: u32,
    /// `static_resources.listeners[0].name`; empty: the document.
    pub path: String,
    pub message: String,
}

impl Finding {
    pub fn error(
        source: usize,
        at: (u32, u32),
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            severity: Severity::Error,
            source: Some(source),
            line: at.0,
            column: at.1,
            path: path.into(),
            message: message.into(),
        }
    }

    /// Of something that stands in no file.
    pub fn outside(path: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Error,
            source: None,
            line: 0,
            column: 0,
            path: path.into(),
            message: message.into(),
        }
    }
}

/// A text that was read, under the name its reader knows.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Everything found, in the order of the sources and their lines.
#[derive(Debug, Default)]
pub struct Findings {
    pub list: Vec<Finding>,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    pub fn errors(&self) -> usize {
        self.list.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    pub fn sort(&mut self) {
        self.list.sort_by(|a, b| {
            (a.source, a.line, a.column, &a.path).cmp(&(b.source, b.line, b.column, &b.path))
        });
        self.list.dedup();
    }

    /// For people.
    pub fn text(&self, sources: &[Source]) -> String {
        let mut out = String::new();
        for finding in self.list.iter().take(FINDINGS_MAX) {
            one(&mut out, finding, sources);
        }
        if let Some(more) = self.list.len().checked_sub(FINDINGS_MAX).filter(|more| *more > 0) {
            let _ = writeln!(out, "... and {more} more findings");
        }
        out
    }

    /// For tools: one object with a list.
    pub fn json(&self, sources: &[Source]) -> String {
        let list: Vec<serde_json::Value> = self.list.iter().map(|finding| object(finding, sources)).collect();
        let all = serde_json::json!({ "errors": self.errors(), "findings": list });
        format!("{all}\n")
    }
}

/// One finding on one line, as a log line has it.
pub fn line(finding: &Finding, sources: &[Source]) -> String {
    let mut out = String::new();
    if let Some(source) = finding.source.and_then(|index| sources.get(index)) {
        let _ = write!(out, "{}:{}:{}: ", source.name, finding.line, finding.column);
    }
    if finding.severity == Severity::Warning {
        out.push_str("warning: ");
    }
    if !finding.path.is_empty() {
        let _ = write!(out, "{}: ", finding.path);
    }
    out.push_str(&finding.message);
    out
}

fn one(out: &mut String, finding: &Finding, sources: &[Source]) {
    let _ = writeln!(out, "{}", line(finding, sources));
    let text = finding
        .source
        .and_then(|index| sources.get(index))
        .and_then(|source| source.text.lines().nth((finding.line as usize).checked_sub(1)?));
    let Some(text) = text else { return };
    let column = (finding.column as usize).saturating_sub(1);
    // a long line (JSON on one line) is shown around the place
    let skip = column.saturating_sub(EXCERPT_MAX / 2);
    let shown: String =
        text.chars().skip(skip).take(EXCERPT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let number = finding.line.to_string();
    let _ = writeln!(out, "  {number} | {shown}");
    let _ = writeln!(out, "  {:width$} | {:caret$}^", "", "", width = number.len(), caret = column - skip);
}

fn object(finding: &Finding, sources: &[Source]) -> serde_json::Value {
    let source = finding.source.and_then(|index| sources.get(index));
    serde_json::json!({
        "severity": match finding.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "file": source.map(|source| source.name.as_str()),
        "line": source.map(|_| finding.line),
        "column": source.map(|_| finding.column),
        "path": finding.path,
        "message": finding.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<Source> {
        vec![Source { name: "envoy.yaml".to_owned(), text: "node:\n  idd: a\n\tx: é\n".to_owned() }]
    }

    #[test]
    fn a_finding_is_shown_with_its_line_and_a_caret() {
        let mut findings = Findings::default();
        findings.push(Finding::error(0, (2, 3), "node.idd", "unknown field"));
        let expected = "envoy.yaml:2:3: node.idd: unknown field\n  2 |   idd: a\n    |   ^\n";
        assert_eq!(findings.text(&sources()), expected);
    }

    #[test]
    fn findings_are_ordered_by_place_and_said_once() {
        let mut findings = Findings::default();
        for (line, path) in [(3, "b"), (1, "a"), (3, "b")] {
            findings.push(Finding::error(0, (line, 1), path, "m"));
        }
        findings.push(Finding::outside("--cpus", "empty"));
        findings.sort();
        let paths: Vec<&str> = findings.list.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["--cpus", "a", "b"]);
        assert!(findings.text(&sources()).starts_with("--cpus: empty\nenvoy.yaml:1:1: a: m\n"));
    }

    #[test]
    fn a_long_line_is_shown_around_the_place_only() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let sources = [Source { name: "one.json".to_owned(), text }];
        let mut findings = Findings::default();
        findings.push(Finding::error(0, (1, 501), "", "here"));
        let text = findings.text(&sources);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].chars().nth(lines[2].find('^').expect("caret")), Some('X'));
        assert!(lines[1].len() < EXCERPT_MAX + 10);
    }

    #[test]
    fn the_list_is_bounded_and_json_carries_every_field() {
        let mut findings = Findings::default();
        for line in 0..FINDINGS_MAX as u32 + 5 {
            findings.push(Finding::error(0, (line + 10, 1), "p", "m"));
        }
        assert!(findings.text(&sources()).ends_with("... and 5 more findings\n"));
        findings.list.truncate(1);
        let json: serde_json::Value = serde_json::from_str(&findings.json(&sources())).expect("json");
        let first = serde_json::json!({
            "severity": "error", "file": "envoy.yaml", "line": 10, "column": 1, "path": "p", "message": "m"
        });
        assert_eq!(json, serde_json::json!({ "errors": 1, "findings": [first] }));
    }
}
