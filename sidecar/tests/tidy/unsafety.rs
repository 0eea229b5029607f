//! Unsafe code: one crate, one reason each.

use crate::{
    findings::Findings,
    tree::{Tree, line_of, words},
};

/// How far above the block its reason may begin; an attribute or the rest of a call may stand between.
const REASON_LINES_MAX: usize = 8;

/// Test programs that count a core's allocations, for which a global allocator must be written.
const COUNTING_ALLOCATORS: &[&str] = &["engine/proxy/tests/allocation.rs"];

pub fn check(tree: &Tree, findings: &mut Findings) {
    for file in tree.rust().filter(|file| !file.is_generated()) {
        for at in words(&file.code, "unsafe") {
            let line = line_of(&file.code, at);
            let counts = COUNTING_ALLOCATORS.iter().any(|path| file.path == *path);
            if !counts && !file.path.starts_with("engine/runtime/") {
                findings.add(&file.path, line, "unsafe", "only engine/runtime has unsafe code");
            } else if !reason(&file.text, line) && !is_declaration(&file.code[at..]) {
                findings.add(
                    &file.path,
                    line,
                    "unsafe",
                    "no `SAFETY:` comment above: which invariant, kept by whom",
                );
            }
        }
    }
}

fn reason(text: &str, line: usize) -> bool {
    let from = line.saturating_sub(REASON_LINES_MAX + 1);
    text.lines()
        .skip(from)
        .take(line - from)
        .any(|above| above.contains("SAFETY:") || above.contains("# Safety"))
}

/// An `unsafe fn` states a duty for its callers; what it relies on itself stands in blocks of its own (edition 2024).
fn is_declaration(code: &str) -> bool {
    code.starts_with("unsafe fn") || code.starts_with("unsafe extern")
}
