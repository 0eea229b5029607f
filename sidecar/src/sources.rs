//! The texts that make up one configuration, read and put together: the bootstrap file, `--config-yaml` laid over it,
//! the `corelane:` sections taken out.
//!
//! Each text keeps its own lines: in the common tree the lines of a later text come after those of the texts before
//! it, and [`Sources::locate`] says where a line of the tree really stands.

use crate::{
    findings::{Finding, Source},
    flags::Flags,
    tuning::{self, Settings},
    yaml,
};
use corelane_xds::tree::{Node, Spanned};
use std::{fs::File, io::Read, path::Path};

type Tree = Spanned<Node>;

/// What was read. With findings the tree may be incomplete, but is always one.
#[derive(Debug)]
pub struct Sources {
    pub list: Vec<Source>,
    /// Lines of the common tree before each text.
    first_lines: Vec<u32>,
    /// Envoy's part.
    pub bootstrap: Tree,
    /// Ours, flags included.
    pub settings: Settings,
    pub findings: Vec<Finding>,
}

impl Sources {
    /// Reads all that the flags name. Nothing fails here: what is wrong is among the findings.
    pub fn read(flags: &Flags) -> Sources {
        let mut sources = Sources {
            list: Vec::new(),
            first_lines: Vec::new(),
            bootstrap: Spanned::new(Node::Null, 1, 1),
            settings: Settings::default(),
            findings: Vec::new(),
        };
        if let Some(path) = &flags.config_path {
            let tree = sources.file(path);
            sources.take_bootstrap(tree);
        }
        if let Some(text) = &flags.config_yaml {
            let tree = sources.text("--config-yaml".to_owned(), text.clone());
            sources.take_bootstrap(tree);
        }
        if let Some(path) = &flags.tuning {
            let tree = sources.file(path);
            sources.take_tuning(tree);
        }
        sources.settings.extend(flags.settings());
        sources.name_node(flags);
        sources
    }

    /// The text and line of it in which a line of the common tree stands.
    pub fn locate(&self, line: u32) -> (usize, u32) {
        let index = self.first_lines.partition_point(|first| *first < line).saturating_sub(1);
        (index, line - self.first_lines.get(index).copied().unwrap_or(0))
    }

    fn file(&mut self, path: &Path) -> Option<Tree> {
        let name = path.display().to_string();
        // a device has no end
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(yaml::TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        match read.map(|_| bytes) {
            Ok(bytes) if bytes.len() > yaml::TEXT_BYTES_MAX => {
                let message = format!("{name}: more than {} bytes, the limit", yaml::TEXT_BYTES_MAX);
                self.findings.push(Finding::outside("", message));
                None
            }
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => self.text(name, text),
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    self.findings.push(Finding::outside("", format!("{name}: not UTF-8 at byte {at}")));
                    None
                }
            },
            Err(error) => {
                self.findings.push(Finding::outside("", format!("{name}: cannot read: {error}")));
                None
            }
        }
    }

    fn text(&mut self, name: String, text: String) -> Option<Tree> {
        let index = self.list.len();
        let first = self.list.iter().map(|source| source.text.lines().count() as u32 + 1).sum();
        let parsed = yaml::parse(&text);
        self.list.push(Source { name, text });
        self.first_lines.push(first);
        match parsed {
            Ok(mut tree) => {
                shift(&mut tree, first);
                Some(tree)
            }
            Err(error) => {
                self.findings.push(Finding::error(index, (error.line, error.column), "", error.message));
                None
            }
        }
    }

    fn take_bootstrap(&mut self, tree: Option<Tree>) {
        let Some(mut tree) = tree else { return };
        let at = (tree.line, tree.column);
        match &mut tree.value {
            Node::Null => {}
            Node::Map(pairs) => {
                let (ours, envoys): (Vec<_>, Vec<_>) =
                    std::mem::take(pairs).into_iter().partition(|(key, _)| key.value == "corelane");
                *pairs = envoys;
                self.take_sections(ours);
                overlay(&mut self.bootstrap, tree);
            }
            _ => self.fault(at, "", "expected a mapping: an Envoy v3 bootstrap"),
        }
    }

    fn take_tuning(&mut self, tree: Option<Tree>) {
        let Some(tree) = tree else { return };
        let at = (tree.line, tree.column);
        let Node::Map(pairs) = tree.value else {
            return self.fault(at, "", "expected a mapping with the section `corelane`");
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(key, _)| key.value == "corelane");
        for (key, _) in others {
            self.fault(
                (key.line, key.column),
                &key.value,
                "unknown section; a tuning file has only `corelane`, with the knobs below it",
            );
        }
        self.take_sections(ours);
    }

    fn take_sections(&mut self, sections: Vec<(Spanned<String>, Tree)>) {
        for (nth, (key, mut section)) in sections.into_iter().enumerate() {
            if nth > 0 {
                self.fault((key.line, key.column), "corelane", "duplicate key");
                continue;
            }
            let (source, line) = self.locate(key.line);
            unshift(&mut section, key.line - line);
            let (settings, findings) = tuning::read(&section, source);
            self.settings.extend(settings);
            self.findings.extend(findings);
        }
    }

    fn fault(&mut self, at: (u32, u32), path: &str, message: &str) {
        let (source, line) = self.locate(at.0);
        self.findings.push(Finding::error(source, (line, at.1), path, message));
    }

    /// The flags that name this node fill in what the file leaves open, as Envoy's do.
    fn name_node(&mut self, flags: &Flags) {
        let plain = |text: &str| Spanned::new(Node::Str(text.to_owned()), 1, 1);
        let pair = |key: &str, value: Tree| (Spanned::new(key.to_owned(), 1, 1), value);
        let mut fields = Vec::new();
        fields.extend(flags.service_node.as_deref().map(|id| pair("id", plain(id))));
        fields.extend(flags.service_cluster.as_deref().map(|cluster| pair("cluster", plain(cluster))));
        fields.extend(
            flags
                .service_zone
                .as_deref()
                .map(|zone| pair("locality", Spanned::new(Node::Map(vec![pair("zone", plain(zone))]), 1, 1))),
        );
        if fields.is_empty() {
            return;
        }
        let mut named =
            Spanned::new(Node::Map(vec![pair("node", Spanned::new(Node::Map(fields), 1, 1))]), 1, 1);
        std::mem::swap(&mut self.bootstrap, &mut named);
        overlay(&mut self.bootstrap, named);
    }
}

/// Lays `over` over `base`, as a protobuf merge does: fields by name, lists appended, anything else replaced.
fn overlay(base: &mut Tree, over: Tree) {
    let Spanned { value, line, column } = over;
    match (&mut base.value, value) {
        (Node::Map(pairs), Node::Map(others)) => {
            // what is twice in one text stays twice, to be reported
            let known = pairs.len();
            for (key, value) in others {
                match pairs[..known].iter_mut().find(|(name, _)| name.value == key.value) {
                    Some((_, below)) => overlay(below, value),
                    None => pairs.push((key, value)),
                }
            }
        }
        (Node::Seq(items), Node::Seq(others)) => items.extend(others),
        (_, Node::Null) => {}
        (_, value) => *base = Spanned::new(value, line, column),
    }
}

fn shift(tree: &mut Tree, lines: u32) {
    walk(tree, &mut |line| *line += lines);
}

fn unshift(tree: &mut Tree, lines: u32) {
    walk(tree, &mut |line| *line -= lines);
}

fn walk(tree: &mut Tree, change: &mut dyn FnMut(&mut u32)) {
    change(&mut tree.line);
    match &mut tree.value {
        Node::Seq(items) => items.iter_mut().for_each(|item| walk(item, change)),
        Node::Map(pairs) => {
            for (key, value) in pairs {
                change(&mut key.line);
                walk(value, change);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::line;
    use clap::Parser;
    use std::fs;

    fn read(args: &[&str]) -> Sources {
        Sources::read(&Flags::parse_from([&["corelane-sidecar"], args].concat()))
    }

    fn said(sources: &Sources) -> Vec<String> {
        sources.findings.iter().map(|finding| line(finding, &sources.list)).collect()
    }

    /// `a.b[0]` of a tree.
    fn at<'a>(tree: &'a Tree, path: &[&str]) -> Option<&'a Tree> {
        let Some((first, rest)) = path.split_first() else { return Some(tree) };
        match &tree.value {
            Node::Map(pairs) => at(&pairs.iter().find(|(key, _)| key.value == *first)?.1, rest),
            Node::Seq(items) => at(items.get(first.parse::<usize>().ok()?)?, rest),
            _ => None,
        }
    }

    fn text_at(tree: &Tree, path: &[&str]) -> Option<String> {
        match &at(tree, path)?.value {
            Node::Str(text) => Some(text.clone()),
            _ => None,
        }
    }

    #[test]
    fn the_tuning_section_is_taken_out_and_layers_follow_each_other() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (config, tuned) = (dir.path().join("envoy.yaml"), dir.path().join("tuning.yaml"));
        fs::write(&config, "node: {id: a}\ncorelane: {workers: 1, driver: epoll}\n").expect("write");
        fs::write(&tuned, "corelane:\n  driver: io_uring\n  pin: never\n").expect("write");
        let (config, tuned) = (config.display().to_string(), tuned.display().to_string());
        let sources = read(&["-c", &config, "--tuning", &tuned, "--driver", "auto"]);
        assert_eq!(said(&sources), [""; 0]);
        assert!(at(&sources.bootstrap, &["corelane"]).is_none());
        let (tuning, findings) = tuning::resolve(&sources.settings);
        assert_eq!(findings, []);
        assert_eq!(tuning.workers, Some(1));
        assert_eq!(tuning.pin, tuning::Pin::Never);
        assert_eq!(tuning.core.driver, corelane_runtime::DriverChoice::Auto);
    }

    #[test]
    fn the_text_of_the_flag_is_laid_over_the_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = dir.path().join("envoy.yaml");
        fs::write(&config, "node: {id: a, cluster: c}\nlist: [1]\n").expect("write");
        let sources =
            read(&["-c", &config.display().to_string(), "--config-yaml", "list: [2]\nnode: {id: b}"]);
        assert_eq!(text_at(&sources.bootstrap, &["node", "id"]).as_deref(), Some("b"));
        assert_eq!(text_at(&sources.bootstrap, &["node", "cluster"]).as_deref(), Some("c"));
        assert_eq!(at(&sources.bootstrap, &["list", "1"]).map(|node| node.value.clone()), Some(Node::Int(2)));
        let id = at(&sources.bootstrap, &["node", "id"]).expect("there").line;
        assert_eq!(sources.locate(id), (1, 2), "the second text's second line");
        assert_eq!(sources.locate(1), (0, 1));
    }

    #[test]
    fn the_node_flags_fill_in_what_the_file_leaves_open() {
        let sources =
            read(&["--config-yaml", "node: {id: mine}", "--service-node", "n", "--service-zone", "z"]);
        assert_eq!(text_at(&sources.bootstrap, &["node", "id"]).as_deref(), Some("mine"));
        assert_eq!(text_at(&sources.bootstrap, &["node", "locality", "zone"]).as_deref(), Some("z"));
    }

    #[test]
    fn every_text_that_can_not_be_read_is_a_finding() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (config, tuned) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
        fs::write(&config, b"a: \xff").expect("write");
        fs::write(&tuned, "workers: 2\n").expect("write");
        let (config, tuned) = (config.display().to_string(), tuned.display().to_string());
        let sources = read(&["-c", &config, "--config-yaml", "- a", "--tuning", &tuned]);
        assert_eq!(
            said(&sources),
            [
                format!("{config}: not UTF-8 at byte 3"),
                "--config-yaml:1:1: expected a mapping: an Envoy v3 bootstrap".to_owned(),
                format!(
                    "{tuned}:1:1: workers: unknown section; a tuning file has only `corelane`, with the knobs below it"
                ),
            ]
        );
        let sources = read(&["-c", "/nowhere/envoy.yaml"]);
        assert_eq!(
            said(&sources),
            ["/nowhere/envoy.yaml: cannot read: No such file or directory (os error 2)"]
        );
    }

    #[test]
    fn a_fault_in_the_section_is_shown_in_its_own_file() {
        let sources = read(&["--config-yaml", "node: {}\ncorelane:\n  workers: {}\ncorelane: {}\n"]);
        assert_eq!(
            said(&sources),
            [
                "--config-yaml:3:12: corelane.workers: expected one value, or a list of plain values",
                "--config-yaml:4:1: corelane: duplicate key",
            ]
        );
    }
}
