//! Configurations in which a mark stands where a finding should point.
#![allow(dead_code)]

use super::NoStats;
use super::{lines, read};
use corelane_snapshot::Builder;
use corelane_xds::translate;

/// Stands in a text where a finding should point; twice for two findings at one place.
pub const MARK: char = '§';

/// Asserts these findings, in order, at the marks of the text.
pub fn refused(marked: &str, messages: &[String]) {
    let mut places = Vec::new();
    let (mut line, mut column, mut text) = (1, 1, String::new());
    for c in marked.chars() {
        match c {
            MARK => places.push(format!("{line}:{column}: ")),
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
        text.extend((c != MARK).then_some(c));
    }
    let mut builder = Builder::new(Box::new(NoStats));
    let found = lines(&translate::bootstrap(&read(&text), &mut builder).findings);
    assert_eq!(places.len(), messages.len(), "a mark a message: {marked}");
    let expected: Vec<String> =
        places.iter().zip(messages).map(|(place, message)| format!("{place}{message}")).collect();
    assert_eq!(found, expected, "{text}");
}

/// One route in a configuration around it, with a cluster `c`.
pub fn route(route: &str) -> String {
    format!(
        "static_resources:
  clusters: [{{ name: c }}]
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: 80 }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, http_filters: [{{ name: r, typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}], route_config: {{ virtual_hosts: [{{ name: v, domains: ['*'], routes: [
          {route}
        ] }}] }} }}
"
    )
}
