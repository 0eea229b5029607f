//! /config_dump: envoy.admin.v3.ConfigDump of the file that was read, secrets left out.
//!
//! The bootstrap is kept as encoded protobuf. Turning it into JSON takes the API's descriptors and some milliseconds a
//! megabyte, so it is done on a thread of its own that ends with the page.

use super::super::{Query, Reply, reply::pretty};
use crate::control::process::Process;
use corelane_xds::{Schema, to_json};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::{cell::Cell, rc::Rc};
use tokio::sync::oneshot;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const ROUTE_CONFIGURATION: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Dumps under way at once.
const DUMPS_MAX: u32 = 2;

thread_local! {
    static UNDER_WAY: Cell<u32> = const { Cell::new(0) };
}

struct UnderWay;

impl UnderWay {
    fn enter() -> Option<UnderWay> {
        UNDER_WAY.with(|count| {
            let now = count.get();
            (now < DUMPS_MAX).then(|| {
                count.set(now + 1);
                UnderWay
            })
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.with(|count| count.set(count.get() - 1));
    }
}

/// What of the dump is asked for.
struct Wanted {
    resource: Option<String>,
    mask: Option<String>,
    name: Option<corelane_snapshot::Regex>,
}

pub async fn config_dump(process: &Rc<Process>, query: &Query) -> Reply {
    let name = match super::filter(query.get("name_regex")) {
        Ok(name) => name,
        Err(refusal) => return refusal,
    };
    let Some(_under_way) = UnderWay::enter() else {
        return Reply::refused(StatusCode::TOO_MANY_REQUESTS, "other dumps are under way; try again\n");
    };
    let text = |name: &str| query.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let wanted = Wanted { resource: text("resource"), mask: text("mask"), name };
    let bootstrap = process.bootstrap.clone();
    let updated = timestamp(process.started_at);
    let (made, page) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name("config-dump".to_owned())
        .spawn(move || made.send(dump(&bootstrap, &updated, &wanted)).is_ok());
    if let Err(error) = spawned {
        let text = format!("cannot start a thread: {error}\n");
        return Reply::refused(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let page = page.await;
    // the dump took many times what is left of it
    corelane_runtime::memory::trim();
    match page {
        Ok(Ok(page)) => Reply::json(page),
        Ok(Err((status, reason))) => Reply::refused(status, reason),
        Err(_) => Reply::refused(StatusCode::INTERNAL_SERVER_ERROR, "the dump was not made\n"),
    }
}

type Refusal = (StatusCode, String);

fn dump(bootstrap: &[u8], updated: &str, wanted: &Wanted) -> Result<Vec<u8>, Refusal> {
    let failed = |reason: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"));
    let schema = Schema::load().map_err(|e| failed(e.to_string()))?;
    let text = to_json(&schema, BOOTSTRAP, bootstrap).map_err(|e| failed(e.to_string()))?;
    drop(schema);
    let bootstrap: Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    drop(text);
    let sections = sections(bootstrap, updated);
    let configs = select(sections, wanted)?;
    Ok(pretty(&json!({ "configs": configs })))
}

/// One object a kind of resource, in Envoy's order.
fn sections(bootstrap: Value, updated: &str) -> Vec<Value> {
    let list = |field: &str| {
        bootstrap
            .pointer(&format!("/static_resources/{field}"))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let typed = |kind: &str, value: Value| {
        let mut object =
            Map::from_iter([("@type".to_owned(), json!(format!("type.googleapis.com/envoy.{kind}")))]);
        if let Value::Object(fields) = value {
            object.extend(fields);
        }
        Value::Object(object)
    };
    let wrapped = |field: &str, key: &str, kind: &str| -> Vec<Value> {
        let wrap = |value: Value| {
            let mut entry = Map::new();
            if key == "secret" {
                entry.insert("name".to_owned(), value.get("name").cloned().unwrap_or_default());
            }
            entry.insert(key.to_owned(), typed(kind, value));
            entry.insert("last_updated".to_owned(), json!(updated));
            Value::Object(entry)
        };
        list(field).into_iter().map(wrap).collect()
    };
    let mut routes = Vec::new();
    find_routes(&bootstrap, updated, &mut routes);
    let section = |name: &str, field: &str, entries: Vec<Value>| {
        let mut section = Map::from_iter([(
            "@type".to_owned(),
            json!(format!("type.googleapis.com/envoy.admin.v3.{name}")),
        )]);
        if !entries.is_empty() {
            section.insert(field.to_owned(), Value::Array(entries));
        }
        Value::Object(section)
    };
    let clusters = wrapped("clusters", "cluster", "config.cluster.v3.Cluster");
    let listeners = wrapped("listeners", "listener", "config.listener.v3.Listener");
    let secrets = wrapped("secrets", "secret", "extensions.transport_sockets.tls.v3.Secret");
    vec![
        json!({
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": bootstrap,
            "last_updated": updated,
        }),
        section("ClustersConfigDump", "static_clusters", clusters),
        section("ListenersConfigDump", "static_listeners", listeners),
        section("ScopedRoutesConfigDump", "", Vec::new()),
        section("RoutesConfigDump", "static_route_configs", routes),
        section("SecretsConfigDump", "static_secrets", secrets),
    ]
}

/// The inline route tables, in the order of the connection managers that have them.
fn find_routes(value: &Value, updated: &str, routes: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            let is_manager = fields.get("@type").is_some_and(|kind| kind == HTTP_CONNECTION_MANAGER);
            if let Some(Value::Object(table)) = fields.get("route_config").filter(|_| is_manager) {
                let mut config = Map::from_iter([("@type".to_owned(), json!(ROUTE_CONFIGURATION))]);
                config.extend(table.clone());
                routes.push(json!({ "route_config": config, "last_updated": updated }));
            }
            fields.values().for_each(|value| find_routes(value, updated, routes));
        }
        Value::Array(items) => items.iter().for_each(|item| find_routes(item, updated, routes)),
        _ => {}
    }
}

fn select(mut sections: Vec<Value>, wanted: &Wanted) -> Result<Vec<Value>, Refusal> {
    if let Some(name) = &wanted.name {
        sections.iter_mut().for_each(|section| keep_named(section, name));
    }
    let Some(resource) = &wanted.resource else {
        if let Some(mask) = &wanted.mask {
            sections.iter_mut().for_each(|section| *section = masked(section, mask));
        }
        return Ok(sections);
    };
    let of = |section: &mut Value| {
        let kind = section.get("@type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = section.as_object_mut()?.remove(resource.as_str())?;
        Some((kind, found))
    };
    match sections.iter_mut().find_map(of) {
        Some((kind, Value::Array(entries))) => {
            // static_clusters of ClustersConfigDump holds ClustersConfigDump.StaticCluster
            let entry_kind = entry_kind(&kind, resource);
            let typed = |entry: Value| {
                let mut object = Map::from_iter([("@type".to_owned(), json!(entry_kind))]);
                if let Value::Object(fields) = entry {
                    object.extend(fields);
                }
                let entry = Value::Object(object);
                wanted.mask.as_deref().map_or_else(|| entry.clone(), |mask| masked(&entry, mask))
            };
            Ok(entries.into_iter().map(typed).collect())
        }
        Some(_) => {
            let text = format!("{resource} is not a repeated field. Use ?mask to get only this field");
            Err((StatusCode::BAD_REQUEST, text))
        }
        None => Err((StatusCode::NOT_FOUND, format!("{resource} not found in config dump"))),
    }
}

fn entry_kind(section: &str, resource: &str) -> String {
    let name = match resource {
        "static_clusters" => "StaticCluster",
        "static_listeners" => "StaticListener",
        "static_route_configs" => "StaticRouteConfig",
        "static_secrets" => "StaticSecret",
        _ => resource,
    };
    format!("{section}.{name}")
}

/// Drops the entries whose resource has another name.
fn keep_named(section: &mut Value, name: &corelane_snapshot::Regex) {
    let named = |entry: &Value| {
        let resource =
            ["cluster", "listener", "route_config", "secret"].iter().find_map(|key| entry.get(key));
        let text = resource.and_then(|resource| resource.get("name")).and_then(Value::as_str);
        text.is_some_and(|text| name.is_match(text.as_bytes()))
    };
    for value in section.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
        if let Value::Array(entries) = value {
            entries.retain(named);
        }
    }
}

/// google.protobuf.FieldMask: paths separated by commas, each names separated by dots. Types are always kept.
fn masked(value: &Value, mask: &str) -> Value {
    let mut out = Map::new();
    if let Some(kind) = value.get("@type") {
        out.insert("@type".to_owned(), kind.clone());
    }
    for path in mask.split(',').filter(|path| !path.is_empty()) {
        let names: Vec<&str> = path.split('.').collect();
        copy_path(value, &names, &mut out);
    }
    Value::Object(out)
}

fn copy_path(from: &Value, names: &[&str], to: &mut Map<String, Value>) {
    let Some((first, rest)) = names.split_first() else { return };
    let Some(field) = from.get(first) else { return };
    if rest.is_empty() {
        to.insert((*first).to_owned(), field.clone());
        return;
    }
    let kind = field.get("@type").cloned();
    let slot = to.entry((*first).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = slot {
        if let Some(kind) = kind {
            inner.insert("@type".to_owned(), kind);
        }
        copy_path(field, rest, inner);
    }
}

fn timestamp(at: std::time::SystemTime) -> String {
    let mut out = String::new();
    crate::logging::timestamp(&mut out, at.into());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Value {
        json!({
            "node": { "id": "a", "cluster": "b" },
            "static_resources": {
                "clusters": [{ "name": "payments" }, { "name": "orders" }],
                "listeners": [{ "name": "in", "filter_chains": [{ "filters": [{ "typed_config": {
                    "@type": HTTP_CONNECTION_MANAGER, "stat_prefix": "x", "route_config": { "name": "local" }
                } }] }] }],
            },
        })
    }

    fn wanted(resource: Option<&str>, mask: Option<&str>, name: Option<&str>) -> Wanted {
        Wanted {
            resource: resource.map(str::to_owned),
            mask: mask.map(str::to_owned),
            name: name.map(|name| corelane_snapshot::Regex::unanchored(name).expect("regex")),
        }
    }

    #[test]
    fn sections_are_envoys_in_its_order() {
        let sections = sections(bootstrap(), "now");
        let kinds: Vec<&str> = sections
            .iter()
            .filter_map(|s| s["@type"].as_str()?.strip_prefix("type.googleapis.com/envoy.admin.v3."))
            .collect();
        assert_eq!(
            kinds,
            [
                "BootstrapConfigDump",
                "ClustersConfigDump",
                "ListenersConfigDump",
                "ScopedRoutesConfigDump",
                "RoutesConfigDump",
                "SecretsConfigDump",
            ]
        );
        let cluster =
            json!({ "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "payments" });
        assert_eq!(sections[1]["static_clusters"][0], json!({ "cluster": cluster, "last_updated": "now" }));
        assert_eq!(sections[4]["static_route_configs"][0]["route_config"]["name"], "local");
        assert_eq!(sections[5].as_object().map(Map::len), Some(1), "no secrets, no field");
    }

    #[test]
    fn a_resource_is_listed_alone_and_masks_leave_the_rest_out() {
        let all = || sections(bootstrap(), "now");
        let clusters =
            select(all(), &wanted(Some("static_clusters"), Some("cluster.name"), None)).expect("found");
        assert_eq!(clusters.len(), 2);
        assert_eq!(
            clusters[0],
            json!({
                "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
                "cluster": { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "payments" },
            })
        );
        let masked = select(all(), &wanted(None, Some("bootstrap.node.id"), None)).expect("found");
        assert_eq!(masked[0]["bootstrap"], json!({ "node": { "id": "a" } }));
        let named = select(all(), &wanted(Some("static_clusters"), None, Some("^ord"))).expect("found");
        assert_eq!(named.len(), 1);
        assert_eq!(
            select(all(), &wanted(Some("nope"), None, None)),
            Err((StatusCode::NOT_FOUND, "nope not found in config dump".to_owned()))
        );
        let single = select(all(), &wanted(Some("bootstrap"), None, None)).expect_err("not a list");
        assert_eq!(single.0, StatusCode::BAD_REQUEST);
    }
}
