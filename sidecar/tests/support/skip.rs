//! Tests that this machine does not permit. The runner counts them by the file that CORELANE_TEST_SKIPS names, and fails
//! on a skip that it does not know.

use std::{env, fs::OpenOptions, io::Write};

pub fn skip(name: &str, reason: &str) {
    eprintln!("skipped: {name}: {reason}");
    let Some(path) = env::var_os("CORELANE_TEST_SKIPS") else { return };
    let mut file = OpenOptions::new().append(true).open(path).expect("the runner's file");
    writeln!(file, "{name}\t{}", reason.replace('\n', " ")).expect("the runner's file");
}
