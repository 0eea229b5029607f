//! The pages, one file a kind.

mod certificates;
mod clusters;
mod config_dump;
mod listeners;
mod server;
mod state;
mod statistics;

pub use certificates::certs;
pub use clusters::clusters;
pub use config_dump::config_dump;
pub use listeners::listeners;
pub use server::{memory, server_info};
pub use state::{drain_listeners, logging, quit, ready, reopen_logs};
pub use statistics::{stats, stats_prometheus};

use super::Reply;
use std::net::SocketAddr;

/// envoy.config.core.v3.Address.
fn address(address: SocketAddr) -> serde_json::Value {
    serde_json::json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// An optional regular expression that may match anywhere.
fn filter(pattern: Option<&str>) -> Result<Option<corelane_snapshot::Regex>, Reply> {
    match pattern {
        None | Some("") => Ok(None),
        Some(pattern) => corelane_snapshot::Regex::unanchored(pattern)
            .map(Some)
            .map_err(|error| Reply::bad_request(format!("Invalid re2 regex: {error}\n"))),
    }
}
