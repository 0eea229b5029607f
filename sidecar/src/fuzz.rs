//! What must hold for any text whatever that the process reads. The fuzzer (`fuzz/`) and `tests/corpus.rs` call the same
//! functions; a broken invariant is a panic.

use crate::{admin, tuning, yaml};
use corelane_snapshot::{Builder, StatAllocator, StatBlock, StatScope, template::Template};
use corelane_telemetry::access_log::{first_unknown_conversion, write_strftime};
use corelane_xds::{Document, Schema, to_json, translate};
use std::sync::OnceLock;

/// Takes any input and panics if an invariant does not hold for it.
pub type Target = fn(&[u8]);

/// Name of the target, which is the name of its corpus folder, and its function.
pub const TARGETS: &[(&str, Target)] = &[
    ("admin_query", admin_query),
    ("configuration", configuration),
    ("format_string", format_string),
    ("tuning", tuning_section),
];

struct NoStats;

impl StatAllocator for NoStats {
    fn block(&mut self, _: StatScope) -> StatBlock {
        StatBlock::default()
    }
}

/// A bootstrap file, from its text to a snapshot: every finding lies within the text.
///
/// # Panics
/// Where that does not hold.
pub fn configuration(data: &[u8]) {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u32;
    let tree = match yaml::parse(text) {
        Ok(tree) => tree,
        Err(error) => return assert!(error.line <= lines + 1, "{error}"),
    };
    let schema = SCHEMA.get_or_init(|| Schema::load().unwrap_or_else(|error| panic!("{error}")));
    let Ok(document) = Document::read(schema, &tree) else { return };
    let mut builder = Builder::new(Box::new(NoStats));
    let translation = translate::bootstrap(&document, &mut builder);
    for finding in &translation.findings {
        assert!(finding.line.is_some_and(|line| line <= lines + 1), "outside of the text: {finding}");
    }
    assert!(builder.build().is_ok(), "a snapshot is built from what is sound");
    let shown = to_json(schema, "envoy.config.bootstrap.v3.Bootstrap", &document.encoded);
    assert!(shown.is_ok(), "what was read can be shown");
}

/// The `corelane:` section.
///
/// # Panics
/// Where a finding lies outside of the text.
pub fn tuning_section(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(tree) = yaml::parse(text) else { return };
    let (settings, findings) = tuning::read(&tree, 0);
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u32;
    let (_, more) = tuning::resolve(&settings);
    for finding in findings.iter().chain(&more) {
        assert!(finding.line <= lines + 1, "outside of the text: {finding:?}");
    }
}

/// Format strings of access logs and header values, and the times in them.
///
/// # Panics
/// Where a conversion writes more than the longest there is.
pub fn format_string(data: &[u8]) {
    const SOME_TIME: u64 = 1_460_751_420_310_000_000;
    const CONVERSION_BYTES_MAX: usize = 32;
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Template::parse(text);
    let mut written = Vec::new();
    write_strftime(&mut written, text, SOME_TIME);
    assert!(written.len() <= CONVERSION_BYTES_MAX * text.len());
    if let Some(unknown) = first_unknown_conversion(text) {
        assert!(text.contains(unknown));
    }
}

/// Parameters of the admin pages: decoding never makes them longer than they came.
///
/// # Panics
/// Where it does.
pub fn admin_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let query = admin::Query::parse(Some(text));
    for (name, value) in query.pairs() {
        // a byte that is no UTF-8 is shown as U+FFFD, of three bytes
        assert!(name.len() + value.len() <= 3 * text.len());
        assert!(query.has(name));
    }
}
