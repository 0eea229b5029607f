//! docs/tuning.md, written from the table.

use super::knobs::{KNOBS, Knob, Scope};
use std::fmt::Write as _;

const HEAD: &str = "\
<!-- Written by `corelane-sidecar tuning-doc` from the table in sidecar/src/tuning/knobs.rs; a test compares. -->

# Tuning the cores

How the event loops run is not Envoy's business, so it stands in a section of its own: top-level `corelane:` in the
bootstrap, or, where Envoy must accept the same bootstrap, in a file given with `--tuning`. Both are read with the same
rules; where a knob is set twice, flags win over the `--tuning` file, and that over the bootstrap.

```yaml
corelane:
  cpus: 2-3
  busy_poll: 20us
  cores:
  - core: 1          # counted from 0; what is not set here is as for all
    driver: epoll
```

What is in force is shown by `/server_info`, in the object `corelane`. An unknown knob or a value out of range is
refused at start and by `--mode validate`.
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    section(&mut page, "For the process", |knob| matches!(knob.scope, Scope::Process(_)));
    section(&mut page, "For every core, or one under `cores`", |knob| matches!(knob.scope, Scope::Core(_)));
    page
}

fn section(page: &mut String, title: &str, here: impl Fn(&Knob) -> bool) {
    let _ = write!(page, "\n## {title}\n\n| knob | values | default | what it does |\n|---|---|---|---|\n");
    for knob in KNOBS.iter().filter(|knob| here(knob)) {
        let _ = writeln!(page, "| `{}` | {} | `{}` | {} |", knob.name, knob.values, knob.default, knob.doc);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tuning.md");
        let written = std::fs::read_to_string(path).expect("docs/tuning.md");
        assert!(written == super::page(), "write it anew: corelane-sidecar tuning-doc > docs/tuning.md");
    }
}
