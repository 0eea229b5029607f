//! HTTP/2 as a third party tests it: every case of h2spec, but for a list that may only shrink.

use crate::{
    hop::Hop,
    support::{Answer, App, Process, skip::skip},
};
use std::{path::Path, process::Command};

/// Titles of cases that fail, each with its reason.
const EXPECTED_FAILURES: &[(&str, &str)] = &[];

#[test]
fn h2spec_finds_nothing_new() {
    let h2spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/h2spec");
    if !h2spec.is_file() {
        return skip("h2spec", "not installed by `make setup`");
    }
    let app = App::start(|_| Answer::ok("hello"));
    let hop = Hop { endpoints: &[app.port()], manager: "codec_type: HTTP2", ..Hop::default() }.start();
    let port = hop.proxy.listener("hop").port().to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(&h2spec);
    // seconds for each case to see nothing more; it only costs time where a case waits for silence
    command.args(["--host", "127.0.0.1", "--port", &port, "--timeout", "5"]);
    let mut run = Process::start(&mut command, &folder.path().join("h2spec"));
    run.wait();
    let log = run.log();
    let failed = |line: &str| line.trim_start().strip_prefix("× ").map(str::to_owned);
    let unexpected: Vec<String> = log
        .lines()
        .filter_map(failed)
        .filter(|title| !EXPECTED_FAILURES.iter().any(|(expected, _)| title.ends_with(expected)))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}\n{log}");
    let summary = log.lines().find(|line| line.contains(" tests, ")).expect("h2spec's summary");
    let passed = summary.split(", ").nth(1).and_then(|part| part.split(' ').next()?.parse::<usize>().ok());
    assert!(passed.is_some_and(|passed| passed + EXPECTED_FAILURES.len() >= 145), "{summary}");
}
