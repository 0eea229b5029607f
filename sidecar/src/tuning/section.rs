//! The `corelane:` section of a file, as settings.

use super::{CORES_MAX, KNOBS, Place, Setting, Settings};
use crate::findings::Finding;
use corelane_xds::tree::{Node, Spanned};

/// Reads the section. `source` is the index of the file it stands in; a fault leaves the rest readable.
pub fn read(section: &Spanned<Node>, source: usize) -> (Settings, Vec<Finding>) {
    let mut reader = Reader { source, settings: Settings::default(), findings: Vec::new() };
    reader.section(section);
    (reader.settings, reader.findings)
}

struct Reader {
    source: usize,
    settings: Settings,
    findings: Vec<Finding>,
}

type Pair = (Spanned<String>, Spanned<Node>);

impl Reader {
    fn fault(&mut self, at: (u32, u32), path: &str, message: impl Into<String>) {
        self.findings.push(Finding::error(self.source, at, path, message));
    }

    fn section(&mut self, section: &Spanned<Node>) {
        match &section.value {
            Node::Null => {}
            Node::Map(pairs) => {
                self.duplicates(pairs, "corelane");
                for (key, value) in pairs {
                    match key.value.as_str() {
                        "cores" => self.cores(value),
                        _ => self.knob(key, value, None, format!("corelane.{}", key.value)),
                    }
                }
            }
            _ => self.fault((section.line, section.column), "corelane", "expected a mapping of knobs"),
        }
    }

    fn cores(&mut self, value: &Spanned<Node>) {
        let Node::Seq(items) = &value.value else {
            return self.fault((value.line, value.column), "corelane.cores", "expected a list of cores");
        };
        let mut seen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("corelane.cores[{index}]");
            let at = (item.line, item.column);
            let Node::Map(pairs) = &item.value else {
                self.fault(at, &path, "expected a mapping with `core` and the knobs that differ");
                continue;
            };
            self.duplicates(pairs, &path);
            let number = pairs.iter().find(|(key, _)| key.value == "core").map(|(_, value)| &value.value);
            let core = match number {
                Some(Node::Int(core)) if (0..CORES_MAX as i128).contains(core) => *core as u32,
                Some(_) => {
                    self.fault(at, &format!("{path}.core"), format!("expected a number below {CORES_MAX}"));
                    continue;
                }
                None => {
                    self.fault(at, &path, "`core` is missing: the number of the core, counted from 0");
                    continue;
                }
            };
            if seen.contains(&core) {
                self.fault(at, &path, format!("core {core} is listed twice"));
            }
            seen.push(core);
            for (key, value) in pairs.iter().filter(|(key, _)| key.value != "core") {
                self.knob(key, value, Some(core), format!("{path}.{}", key.value));
            }
        }
    }

    fn knob(&mut self, key: &Spanned<String>, value: &Spanned<Node>, core: Option<u32>, path: String) {
        // of a name that nobody knows, the name is what is wrong
        let known = KNOBS.iter().any(|knob| knob.name == key.value);
        let at = if known { (value.line, value.column) } else { (key.line, key.column) };
        let Some(text) = text(&value.value) else {
            return self.fault(at, &path, "expected one value, or a list of plain values");
        };
        let place = Place::File { source: self.source, line: at.0, column: at.1 };
        self.settings.push(Setting { knob: key.value.clone(), value: text, core, place, path });
    }

    fn duplicates(&mut self, pairs: &[Pair], path: &str) {
        for (index, (key, _)) in pairs.iter().enumerate() {
            if pairs[..index].iter().any(|(earlier, _)| earlier.value == key.value) {
                self.fault((key.line, key.column), &format!("{path}.{}", key.value), "duplicate key");
            }
        }
    }
}

/// A scalar as text; a list of scalars joined by commas, so that `cpus: [0, 2]` says the same as `cpus: 0,2`.
fn text(node: &Node) -> Option<String> {
    match node {
        Node::Bool(value) => Some(value.to_string()),
        Node::Int(value) => Some(value.to_string()),
        Node::Float(value) => Some(value.to_string()),
        Node::Str(value) => Some(value.clone()),
        Node::Seq(items) => {
            let parts: Option<Vec<String>> = items
                .iter()
                .map(|item| if matches!(item.value, Node::Seq(_)) { None } else { text(&item.value) })
                .collect();
            parts.map(|parts| parts.join(","))
        }
        Node::Null | Node::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{findings::line, tuning, yaml};
    use corelane_runtime::DriverChoice;

    fn read_text(text: &str) -> (tuning::Tuning, Vec<String>) {
        let (settings, mut findings) = read(&yaml::parse(text).expect("yaml"), 0);
        let (tuning, more) = tuning::resolve(&settings);
        findings.extend(more);
        let sources = [crate::findings::Source { name: "t".to_owned(), text: text.to_owned() }];
        (tuning, findings.iter().map(|finding| line(finding, &sources)).collect())
    }

    #[test]
    fn a_section_sets_knobs_for_all_and_for_one_core() {
        let text =
            "cpus: [0, 2-3]\nring_entries: 512\ndriver: io_uring\ncores:\n- {core: 2, driver: epoll}\n";
        let (tuning, findings) = read_text(text);
        assert_eq!(findings, [""; 0]);
        assert_eq!(tuning.cpus.as_ref().map(|list| list.0.clone()), Some(vec![0, 2, 3]));
        assert_eq!(tuning.for_core(0).driver, DriverChoice::IoUring);
        assert_eq!(tuning.for_core(2).driver, DriverChoice::Epoll);
        assert_eq!(tuning.for_core(2).ring_entries, 512);
    }

    #[test]
    fn every_fault_is_found_at_its_place() {
        let text = "\
ring_entries: 500
colour: red
workers: {a: 1}
workers: 2
cores:
- driver: epoll
- {core: -1}
- {core: 1, workers: 3}
- {core: 1}
- 7
";
        let (_, findings) = read_text(text);
        let starts = [
            "t:4:1: corelane.workers: duplicate key",
            "t:3:10: corelane.workers: expected one value",
            "t:6:3: corelane.cores[0]: `core` is missing",
            "t:7:3: corelane.cores[1].core: expected a number below 256",
            "t:9:3: corelane.cores[3]: core 1 is listed twice",
            "t:10:3: corelane.cores[4]: expected a mapping",
            "t:1:15: corelane.ring_entries: 500 is not a power of two; expected a power of two from 256 to 32768",
            "t:2:1: corelane.colour: unknown knob \"colour\"; one of ",
            "t:8:22: corelane.cores[2].workers: workers holds for the process",
        ];
        assert_eq!(findings.len(), starts.len(), "{findings:#?}");
        for (found, start) in findings.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
    }
}
