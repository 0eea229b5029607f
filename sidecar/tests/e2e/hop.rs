//! The smallest configuration: a listener, an HTTP connection manager, one cluster. Tests add what they are about, as
//! lines of YAML.

use crate::support::Proxy;
use std::fmt::Write;
use tempfile::TempDir;

/// What a test adds to the hop, each a number of whole lines of YAML without indentation.
#[derive(Default)]
pub struct Hop<'a> {
    pub endpoints: &'a [u16],
    /// Of the HTTP connection manager.
    pub manager: &'a str,
    pub route: &'a str,
    pub cluster: &'a str,
    pub filter_chain: &'a str,
    /// Of the listener.
    pub listener: &'a str,
    /// Before the router.
    pub http_filters: &'a str,
}

/// A running hop and the folder that its files are in.
pub struct Running {
    pub proxy: Proxy,
    // removed when the proxy is gone
    _folder: TempDir,
}

impl Hop<'_> {
    pub fn start(&self) -> Running {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Running { proxy: Proxy::start(folder.path(), "hop", &self.yaml()), _folder: folder }
    }

    pub fn yaml(&self) -> String {
        let mut endpoints = String::new();
        for port in self.endpoints {
            let address = format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
            let _ = writeln!(endpoints, "- endpoint: {{ address: {address} }}");
        }
        let template = include_str!("hop.yaml");
        let parts = [
            ("ENDPOINTS", endpoints.as_str()),
            ("MANAGER", self.manager),
            ("ROUTE", self.route),
            ("CLUSTER", self.cluster),
            ("FILTER_CHAIN", self.filter_chain),
            ("LISTENER", self.listener),
            ("HTTP_FILTERS", self.http_filters),
        ];
        template.lines().map(|line| with_parts(line, &parts)).collect()
    }
}

/// A line that is a placeholder becomes the part's lines at its indentation.
fn with_parts(line: &str, parts: &[(&str, &str)]) -> String {
    let indent = &line[..line.len() - line.trim_start().len()];
    let place = line.trim().strip_prefix("${").and_then(|name| name.strip_suffix('}'));
    match place.and_then(|place| parts.iter().find(|(name, _)| *name == place)) {
        Some((_, part)) => part.lines().fold(String::new(), |text, line| text + indent + line + "\n"),
        None => format!("{line}\n"),
    }
}
