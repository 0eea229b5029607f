//! Configurations that are wrong: every finding with its place, and an exit code that says what kind of wrong it is.

use crate::{
    hop::Hop,
    support::{Client, Process, Proxy, Request, proxy::sidecar},
};
use std::{net::TcpListener, path::Path, process::Command};

/// Runs to the end and gives the exit code and all that was printed.
fn run(folder: &Path, config: &str, flags: &[&str]) -> (Option<i32>, String) {
    let path = folder.join("tested.yaml");
    std::fs::write(&path, config).expect("a writable folder");
    let mut command = sidecar();
    command.arg("-c").arg(&path).args(flags);
    let mut process = Process::start(&mut command, &folder.join("log"));
    let code = process.wait().code();
    (code, process.log())
}

fn line_of(text: &str, word: &str) -> usize {
    text.lines().position(|line| line.contains(word)).expect("the word") + 1
}

#[test]
fn a_sound_file_validates() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, printed) =
        run(folder.path(), &Hop { endpoints: &[1], ..Hop::default() }.yaml(), &["--mode", "validate"]);
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn the_demos_files_validate() {
    use crate::support::{Identities, fill};
    let folder = tempfile::tempdir().expect("a temporary folder");
    Identities::issue(folder.path());
    let place = folder.path().display();
    let orders =
        fill(include_str!("../../demo/orders.yaml"), &[("FOLDER", &place), ("B1_PORT", &1), ("B2_PORT", &2)]);
    let payments = fill(
        include_str!("../../demo/payments.yaml"),
        &[("FOLDER", &place), ("NAME", &"b"), ("APP_PORT", &1)],
    );
    for config in [orders, payments] {
        let (code, printed) = run(folder.path(), &config, &["--mode", "validate"]);
        assert_eq!(code, Some(0), "{printed}");
    }
}

#[test]
fn the_file_to_begin_with_says_hello() {
    let page = include_str!("../../../docs/configuration.md");
    let block = page.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```\n"));
    let config = block.expect("a block of YAML").0;
    // ports that nobody else has
    let config =
        config.replace("port_value: 8080", "port_value: 0").replace("port_value: 9901", "port_value: 0");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let proxy = Proxy::start(folder.path(), "begin", &config);
    let answer = Client::connect(proxy.listener("ingress")).call(&Request::get("/hello"));
    assert_eq!((answer.status, answer.text()), (200, "hello\n"));
}

#[test]
fn a_reader_that_goes_early_is_no_fault_of_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tested.yaml");
    std::fs::write(&path, Hop { endpoints: &[1], ..Hop::default() }.yaml()).expect("a writable folder");
    let path = path.display().to_string();
    for (arguments, code) in [
        (&["completions", "bash"][..], 0),
        (&["-c", &path, "--mode", "validate"], 0),
        (&["-c", &path, "--mode", "validate", "--config-yaml", "nope: 1"], 1),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(sidecar().get_program());
        let status = command.args(arguments).stdout(writer).status().expect("it runs");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn every_finding_is_named_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Hop {
        endpoints: &[1],
        manager: "no_such_field: 1",
        route: "timeout: soon",
        cluster: "lb_policy: BEST_EFFORT",
        http_filters: "- name: lua\n  typed_config:\n    \
                       \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n",
        ..Hop::default()
    }
    .yaml();
    let (code, printed) = run(folder.path(), &config, &["--mode", "validate"]);
    assert_eq!(code, Some(1), "{printed}");
    for word in ["no_such_field", "timeout: soon", "lb_policy", "filters.http.lua"] {
        let place = format!("tested.yaml:{}:", line_of(&config, word));
        assert!(printed.contains(&place), "no {place} for {word} in\n{printed}");
    }
    assert!(printed.contains("static_resources.clusters[0].lb_policy"), "{printed}");
    let (code, _) = run(folder.path(), &config, &[]);
    assert_eq!(code, Some(1), "nor does it start");
}

#[test]
fn text_that_is_not_yaml_is_one_finding() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for text in ["a: [1,", "a: 1\na: 2\n", "\tx: 1", "", "- 1\n"] {
        let (code, printed) = run(folder.path(), text, &["--mode", "validate"]);
        assert_eq!(code, Some(1), "{text:?}: {printed}");
        assert!(!printed.contains("panicked"), "{text:?}: {printed}");
    }
}

#[test]
fn findings_come_as_json_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Hop { endpoints: &[1], route: "no_such_field: 1", ..Hop::default() }.yaml();
    let (code, printed) = run(folder.path(), &config, &["--mode", "validate", "--format", "json"]);
    assert_eq!(code, Some(1), "{printed}");
    let json = &printed[printed.find('{').expect("an object")..];
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>();
    let found = values.next().expect("an object").expect("JSON");
    assert_eq!(found["errors"], 1);
    let finding = &found["findings"][0];
    assert_eq!(finding["line"], line_of(&config, "no_such_field"));
    assert!(finding["message"].as_str().is_some_and(|text| text.contains("no_such_field")), "{finding}");
}

#[test]
fn usage_and_start_failures_have_codes_of_their_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, printed) = run(folder.path(), "{}", &["--no-such-flag"]);
    assert_eq!(code, Some(2), "{printed}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = taken.local_addr().expect("a bound socket").port();
    let config = Hop { endpoints: &[1], ..Hop::default() }.yaml();
    let (before, after) = config.split_once("- name: hop").expect("the listener");
    let config =
        format!("{before}- name: hop{}", after.replacen("port_value: 0", &format!("port_value: {port}"), 1));
    let (code, printed) = run(folder.path(), &config, &[]);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains(&format!("127.0.0.1:{port}")), "{printed}");
}
