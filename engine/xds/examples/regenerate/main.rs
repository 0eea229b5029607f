//! Writes `src/generated` from `proto/descriptors.bin` and the table in `src/supported/mod.rs`; with the argument
//! `descriptors` first makes `proto/descriptors.bin` from the .proto files, for which protoc must be installed.

mod generate;

use std::{error::Error, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    if std::env::args().nth(1).as_deref() == Some("descriptors") {
        let roots = std::fs::read_to_string(home.join("proto/roots.txt"))?;
        let status = Command::new("protoc")
            .current_dir(home.join("proto"))
            .args(["--include_imports", "--descriptor_set_out=descriptors.bin", "-I."])
            .args(roots.lines())
            .status()?;
        if !status.success() {
            return Err(format!("protoc failed: {status}").into());
        }
    }
    let descriptors = std::fs::read(home.join("proto/descriptors.bin"))?;
    let out = home.join("src/generated");
    for entry in std::fs::read_dir(&out)? {
        std::fs::remove_file(entry?.path())?;
    }
    generate::generate(&descriptors, &out)?;
    Ok(())
}
