//! What of the authority takes part in routing: strip_any_host_port, strip_matching_host_port and
//! strip_trailing_host_dot of the HttpConnectionManager.

use crate::{Method, RequestHead};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HostRules {
    pub strip_any_port: bool,
    /// The listener's port, where strip_matching_host_port is on.
    pub strip_port: Option<u16>,
    pub strip_trailing_dot: bool,
}

pub fn apply_host_rules(head: &mut RequestHead, rules: &HostRules) {
    if rules.strip_trailing_dot && head.host().ends_with(b".") {
        head.remove_trailing_dot();
    }
    // The port of CONNECT's authority is where it wants to go.
    if head.method() == Method::Connect {
        return;
    }
    if rules.strip_any_port || (rules.strip_port.is_some() && head.port() == rules.strip_port) {
        let len = head.host().len();
        head.shorten_authority(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_dots() {
        let any = HostRules { strip_any_port: true, ..HostRules::default() };
        let port_80 = HostRules { strip_port: Some(80), ..HostRules::default() };
        let dot = HostRules { strip_trailing_dot: true, ..HostRules::default() };
        for (rules, authority, expected) in [
            (any, "a:80", "a"),
            (any, "[::1]:80", "[::1]"),
            (any, "[::1]", "[::1]"),
            (any, "a:", "a"),
            (port_80, "a:80", "a"),
            (port_80, "a:81", "a:81"),
            (port_80, "a", "a"),
            (dot, "a.b.", "a.b"),
            (dot, "a.b.:80", "a.b:80"),
            (dot, "a.b", "a.b"),
            (HostRules { strip_trailing_dot: true, ..any }, "a.:80", "a"),
            (HostRules::default(), "a.:80", "a.:80"),
        ] {
            let mut head = RequestHead::new();
            head.set_authority(authority.as_bytes()).unwrap();
            apply_host_rules(&mut head, &rules);
            assert_eq!(head.authority(), expected.as_bytes(), "{rules:?} {authority}");
        }
    }
}
