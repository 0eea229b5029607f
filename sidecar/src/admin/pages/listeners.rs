//! /listeners: where each is bound.

use super::super::{Query, Reply};
use crate::control::process::Process;
use std::{fmt::Write as _, rc::Rc};

pub fn listeners(process: &Rc<Process>, query: &Query) -> Reply {
    let snapshot = process.configuration.current();
    let plane = process.plane();
    // one that is not bound has the address that it was configured with, as Envoy shows it
    let all = snapshot
        .listeners
        .iter()
        .map(|listener| (listener, plane.bound(listener.id).unwrap_or(listener.address)));
    if query.get("format") == Some("json") {
        let statuses: Vec<serde_json::Value> = all
            .map(|(listener, bound)| {
                serde_json::json!({ "name": listener.name, "local_address": super::address(bound) })
            })
            .collect();
        return Reply::value(&serde_json::json!({ "listener_statuses": statuses }));
    }
    let mut text = String::new();
    for (listener, bound) in all {
        let _ = writeln!(text, "{}::{bound}", listener.name);
    }
    Reply::text(text)
}
