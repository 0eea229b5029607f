//! /server_info and /memory.

use super::super::{Query, Reply};
use crate::{control::process::Process, flags::Mode, logging::Level, memory as kernel};
use serde_json::{Value, json};
use std::rc::Rc;

/// Shown where Envoy shows its commit, version and build.
pub fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("corelane/{}/{build}/aws-lc-rs", env!("CARGO_PKG_VERSION"))
}

/// envoy.admin.v3.ServerInfo, and what only this proxy has in `corelane`.
pub fn server_info(process: &Rc<Process>, _: &Query) -> Reply {
    let uptime = format!("{}s", process.started.elapsed().as_secs());
    let node = &process.node;
    Reply::value(&json!({
        "version": version(),
        "state": process.lifecycle.state().name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": command_line(process),
        "node": {
            "id": node.id,
            "cluster": node.cluster,
            "locality": { "zone": node.zone },
            "user_agent_name": "corelane",
        },
        "corelane": corelane(process),
    }))
}

/// envoy.admin.v3.CommandLineOptions, as far as the flags exist here.
fn command_line(process: &Process) -> Value {
    let flags = &process.flags;
    let path =
        |path: &Option<std::path::PathBuf>| path.as_ref().map_or(String::new(), |p| p.display().to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let level: Level = flags.log.log_level;
    json!({
        "concurrency": process.plane().cores().len(),
        "config_path": path(&flags.config_path),
        "config_yaml": text(&flags.config_yaml),
        "admin_address_path": path(&flags.admin_address_path),
        "log_level": level.name(),
        "log_path": path(&flags.log.log_path),
        "service_cluster": text(&flags.service_cluster),
        "service_node": text(&flags.service_node),
        "service_zone": text(&flags.service_zone),
        "drain_time": format!("{}s", flags.drain_time_s),
        "mode": match flags.mode {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
            Mode::InitOnly => "InitOnly",
        },
        "disable_hot_restart": true,
        "restart_epoch": 0,
        "drain_strategy": "Immediate",
    })
}

/// What is in force on the cores.
fn corelane(process: &Process) -> Value {
    let plane = process.plane();
    let limits = &process.tuning.limits;
    let shown = plane.cores();
    let cores: Vec<Value> = shown
        .iter()
        .enumerate()
        .map(|(core, shown)| {
            let config = process.tuning.for_core(core);
            json!({
                "core": core,
                "driver": shown.driver,
                "cpu": shown.cpu,
                "connections": shown.connections,
                "ring_entries": config.ring_entries,
                "coop_taskrun": config.coop_taskrun,
                "single_issuer": config.single_issuer,
                "defer_taskrun": config.defer_taskrun,
                "busy_poll_us": config.busy_poll_us,
                "buffer_bytes": config.buffer_bytes,
                "buffers_kept_max": config.buffers_kept_max,
                "mails_max": config.mails_max,
            })
        })
        .collect();
    json!({
        "cores": cores,
        "io_uring_denied": plane.ring_denied(),
        "configuration_version": process.configuration.current().version,
        "downstream_connections": plane.connections(),
        "requests": plane.requests(),
        "stall_limit_ms": process.tuning.stall_limit.as_millis() as u64,
        "limits": {
            "downstream_connections_max": limits.downstream_connections_max,
            "idle_per_endpoint_max": limits.idle_per_endpoint_max,
            "park_after_ms": limits.park_after.as_millis() as u64,
            "replay_bytes_max": limits.replay_bytes_max,
        },
    })
}

/// envoy.admin.v3.Memory. The allocator is the C library's, so that there is no page heap of its own to show.
pub fn memory(_: &Rc<Process>, _: &Query) -> Reply {
    let memory = kernel::read();
    Reply::value(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.data.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    }))
}
