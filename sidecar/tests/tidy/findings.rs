//! Findings of one rule, reported together.

use std::fmt::Write;

#[derive(Default)]
pub struct Findings {
    lines: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, path: &str, line: usize, rule: &str, detail: impl std::fmt::Display) {
        self.lines.push(format!("{path}:{line}: {rule}: {detail}"));
    }

    pub fn report(mut self) {
        self.lines.sort();
        let mut text = String::new();
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        assert!(self.lines.is_empty(), "{} findings\n{text}", self.lines.len());
    }
}
