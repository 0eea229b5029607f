//! `/config_dump` of a static configuration, in Envoy's shape (envoy.admin.v3.ConfigDump).

use crate::{
    Error, Schema,
    json::{string, write},
    schema::BOOTSTRAP,
};
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// `encoded`: a bootstrap, as [`crate::Document`] keeps it. `last_updated`: when it took effect, RFC 3339.
///
/// # Errors
/// The bytes are no bootstrap.
pub fn config_dump(schema: &Schema, encoded: &[u8], last_updated: &str) -> Result<String, Error> {
    let bootstrap = schema.decode(BOOTSTRAP, encoded)?;
    let resources = field(&bootstrap, "static_resources");
    let list = |name: &str| {
        let resources = resources.as_ref().and_then(Value::as_message);
        let found = resources.and_then(|resources| field(resources, name));
        found.and_then(|value| value.as_list().map(<[Value]>::to_vec)).unwrap_or_default()
    };
    let listeners = list("listeners");
    let routes =
        listeners.iter().filter_map(Value::as_message).flat_map(|l| route_tables(schema, l)).collect();
    let mut out = String::with_capacity(encoded.len() * 6);
    out.push_str("{\"configs\":[{");
    type_of(&mut out, "envoy.admin.v3.BootstrapConfigDump");
    out.push_str(",\"bootstrap\":");
    write(schema, &bootstrap, &mut out);
    updated(&mut out, last_updated);
    out.push('}');
    for (name, list_name, member, messages) in [
        ("ClustersConfigDump", "static_clusters", "cluster", list("clusters")),
        ("ListenersConfigDump", "static_listeners", "listener", listeners),
        ("RoutesConfigDump", "static_route_configs", "route_config", routes),
        ("SecretsConfigDump", "static_secrets", "secret", list("secrets")),
    ] {
        out.push_str(",{");
        type_of(&mut out, &format!("envoy.admin.v3.{name}"));
        out.push(',');
        string(&mut out, list_name);
        out.push_str(":[");
        for (index, message) in messages.iter().filter_map(Value::as_message).enumerate() {
            if index > 0 {
                out.push(',');
            }
            entry(schema, &mut out, member, message);
            updated(&mut out, last_updated);
            out.push('}');
        }
        out.push_str("]}");
    }
    out.push_str("]}");
    Ok(out)
}

/// `{"name":…,"cluster":{"@type":…,…}`, without the closing brace. Envoy names secrets beside their content.
fn entry(schema: &Schema, out: &mut String, member: &str, message: &DynamicMessage) {
    out.push('{');
    if member == "secret" {
        let name = field(message, "name").and_then(|name| name.as_str().map(str::to_owned));
        out.push_str("\"name\":");
        string(out, &name.unwrap_or_default());
        out.push(',');
    }
    string(out, member);
    out.push_str(":{");
    type_of(out, message.descriptor().full_name());
    let mut body = String::new();
    write(schema, message, &mut body);
    if body != "{}" {
        out.push(',');
    }
    // the body brings its own closing brace
    out.push_str(&body[1..]);
}

fn type_of(out: &mut String, name: &str) {
    out.push_str("\"@type\":");
    string(out, &format!("type.googleapis.com/{name}"));
}

fn updated(out: &mut String, last_updated: &str) {
    out.push_str(",\"last_updated\":");
    string(out, last_updated);
}

fn field(message: &DynamicMessage, name: &str) -> Option<Value> {
    message.has_field_by_name(name).then(|| message.get_field_by_name(name)).flatten().map(|v| v.into_owned())
}

/// The inline route tables of a listener's connection managers.
fn route_tables(schema: &Schema, listener: &DynamicMessage) -> Vec<Value> {
    let mut chains: Vec<Value> =
        field(listener, "filter_chains").and_then(|c| c.as_list().map(<[Value]>::to_vec)).unwrap_or_default();
    chains.extend(field(listener, "default_filter_chain"));
    let mut tables = Vec::new();
    for chain in chains.iter().filter_map(Value::as_message) {
        let filters =
            field(chain, "filters").and_then(|f| f.as_list().map(<[Value]>::to_vec)).unwrap_or_default();
        for filter in filters.iter().filter_map(Value::as_message) {
            tables.extend(manager(schema, filter).and_then(|manager| field(&manager, "route_config")));
        }
    }
    tables
}

fn manager(schema: &Schema, filter: &DynamicMessage) -> Option<DynamicMessage> {
    let any = field(filter, "typed_config")?;
    let any = any.as_message()?;
    let url = field(any, "type_url")?;
    let bytes = field(any, "value")?;
    let is_manager = crate::schema::type_name(url.as_str()?) == MANAGER;
    is_manager.then(|| schema.decode(MANAGER, bytes.as_bytes()?).ok()).flatten()
}
