//! A process without a descriptor to spare. Alone in its program: the limit holds for all of it.

mod support;

use corelane_telemetry::CoreStat;
use std::{fs::File, process::Command};
use support::{Setup, Upstream, ok};

/// Enough for the test itself.
const DESCRIPTORS: u32 = 200;

#[test]
fn a_listener_without_descriptors_counts_that_and_goes_on_when_there_are_some() {
    let upstream = Upstream::answering(|_, _| ok("at last"));
    let proxy = Setup::to(&[upstream.address]).start();
    let own = std::process::id();
    let limited = Command::new("prlimit")
        .args([format!("--pid={own}"), format!("--nofile={DESCRIPTORS}:")])
        .status()
        .expect("prlimit, of util-linux");
    assert!(limited.success());
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
        assert!(held.len() <= DESCRIPTORS as usize);
    }
    // one is left for the client's end, none for ours
    held.pop();
    let mut client = proxy.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.until("it was tried twice", || proxy.core_count(CoreStat::AcceptFailures) >= 2);
    held.clear();
    assert_eq!(client.answer().text(), "at last");
}
