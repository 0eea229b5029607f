//! Writes `proto/descriptors.bin` from the .proto files, for which protoc must be installed, and `src/generated` from
//! that, both cut down to the table in `src/supported`.

mod generate;
mod shrink;
#[path = "../../src/supported/mod.rs"]
#[allow(dead_code)]
mod supported;

use std::{error::Error, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = home.join("proto");
    let roots = std::fs::read_to_string(proto.join("roots.txt"))?;
    let full = tempfile::NamedTempFile::new()?;
    let status = Command::new("protoc")
        .current_dir(&proto)
        .args(["--include_imports", "-I.", "-I/usr/include", "-o"])
        .arg(full.path())
        .args(roots.lines())
        .status()?;
    if !status.success() {
        return Err(format!("protoc failed: {status}").into());
    }
    let descriptors = shrink::shrink(&std::fs::read(full.path())?)?;
    std::fs::write(proto.join("descriptors.bin"), &descriptors)?;
    let out = home.join("src/generated");
    for entry in std::fs::read_dir(&out)? {
        std::fs::remove_file(entry?.path())?;
    }
    generate::generate(&descriptors, &out)?;
    Ok(())
}
