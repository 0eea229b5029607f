//! The checked-in types are what the checked-in descriptors and the table of supported fields give.

#![allow(clippy::unwrap_used)]

#[path = "../examples/regenerate/generate.rs"]
mod generate;
#[path = "../src/supported/mod.rs"]
#[allow(dead_code)]
mod supported;

use std::{collections::BTreeMap, path::Path};

fn files(folder: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn generated_types_match_the_descriptors() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = std::fs::read(home.join("proto/descriptors.bin")).unwrap();
    generate::generate(&descriptors, out.path()).unwrap();
    let (fresh, checked_in) = (files(out.path()), files(&home.join("src/generated")));
    assert_eq!(fresh.keys().collect::<Vec<_>>(), checked_in.keys().collect::<Vec<_>>());
    assert!(fresh.contains_key(generate::INCLUDE));
    for (name, text) in &fresh {
        assert_eq!(
            text, &checked_in[name],
            "{name} is stale: run `cargo run -p corelane-xds --example regenerate`"
        );
    }
}
