//! The admin pages of a running sidecar, as Envoy's tools read them.

use crate::{
    hop::{Hop, Running},
    support::{Answer, App, Client, Request, wait_for},
};
use serde_json::Value;

fn running() -> (App, Running) {
    let app = App::start(|_| Answer::ok("ok"));
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    for _ in 0..3 {
        assert_eq!(client.call(&Request::get("/")).status, 200);
    }
    (app, hop)
}

fn json(hop: &Running, path: &str) -> Value {
    let page = hop.proxy.page(path);
    serde_json::from_str(&page).unwrap_or_else(|error| panic!("{path}: {error}\n{page}"))
}

#[test]
fn server_info_says_who_runs_and_on_what() {
    let (_app, hop) = running();
    let info = json(&hop, "/server_info");
    assert_eq!(info["state"], "LIVE");
    assert_eq!(info["node"]["id"], "hop");
    assert_eq!(info["command_line_options"]["concurrency"], 2);
    // docs/tuning.md: what is in force is shown here
    let (all, core) = (&info["corelane"], &info["corelane"]["cores"][0]);
    for (knob, default) in [
        (&all["stall_limit_ms"], 500),
        (&all["limits"]["park_after_ms"], 1_000),
        (&core["ring_entries"], 1_024),
        (&core["mails_max"], 4_096),
    ] {
        assert_eq!(knob, default, "{info}");
    }
    for flag in ["coop_taskrun", "single_issuer", "defer_taskrun"] {
        assert_eq!(core[flag], true, "{flag}");
    }
    if let Ok(driver) = std::env::var("CORELANE_TEST_DRIVER") {
        let cores = info["corelane"].to_string();
        assert!(cores.contains(&format!("\"{driver}\"")), "{cores}");
    }
}

#[test]
fn statistics_come_in_three_shapes() {
    let (app, hop) = running();
    hop.proxy.wait_stat("cluster.app.upstream_rq_200", 3);
    let stats = json(&hop, "/stats?format=json&filter=^cluster.app.upstream_rq_total$");
    assert_eq!(stats["stats"][0]["value"], app.requests());
    let page = hop.proxy.page("/stats/prometheus");
    let line = page.lines().find(|line| line.starts_with("envoy_cluster_upstream_rq_total{"));
    assert_eq!(line.and_then(|line| line.rsplit(' ').next()), Some("3"), "{line:?}");
    assert!(page.contains("# TYPE envoy_cluster_upstream_rq_total counter"));
    assert!(page.contains("envoy_cluster_upstream_rq_time_bucket{"), "a latency histogram");
}

#[test]
fn the_process_shows_its_start_and_how_connections_spread() {
    let (_app, hop) = running();
    let stat = |name: &str| hop.proxy.stat(name);
    assert_eq!(stat("listener_manager.workers_started"), 1);
    assert_eq!(stat("cluster_manager.cluster_added"), 1);
    assert!(stat("server.version") > 0);
    let started = hop.proxy.page("/stats/prometheus?filter=^server.initialization_time_ms$");
    let lines = started.lines().filter(|line| *line == "envoy_server_initialization_time_ms_count{} 1");
    assert_eq!(lines.count(), 1, "{started}");
    assert!(hop.proxy.page("/stats").contains("server.worker_1.watchdog_miss: 0"));
    let of = |page: &str, name: &str| -> u64 {
        let lines = page.lines().filter(|line| line.contains(name));
        lines.filter_map(|line| line.rsplit(": ").next()?.parse::<u64>().ok()).sum()
    };
    wait_for("the one client to be gone", || {
        let page = hop.proxy.page("/stats?filter=worker_[01].downstream_cx");
        let shown = (of(&page, ".downstream_cx_total"), of(&page, ".downstream_cx_active"));
        if shown == (1, 0) { Ok(()) } else { Err(page) }
    });
}

#[test]
fn clusters_and_listeners_have_envoys_lines() {
    let (app, hop) = running();
    let endpoint = |what: &str| hop.proxy.endpoint("app", app.address, what);
    assert_eq!((endpoint("rq_total").as_str(), endpoint("health_flags").as_str()), ("3", "healthy"));
    assert_eq!(endpoint("weight"), "1");
    let listeners = json(&hop, "/listeners?format=json");
    assert_eq!(listeners["listener_statuses"][0]["name"], "hop");
    let clusters = json(&hop, "/clusters?format=json");
    let names: Vec<&str> = clusters["cluster_statuses"]
        .as_array()
        .expect("clusters")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["app"]);
}

#[test]
fn the_configuration_can_be_read_back() {
    let (_app, hop) = running();
    let dump = json(&hop, "/config_dump");
    let sections = dump["configs"].as_array().expect("sections");
    let bootstrap =
        sections.iter().find(|s| s["@type"].as_str().is_some_and(|t| t.ends_with("BootstrapConfigDump")));
    let listener = &bootstrap.expect("the bootstrap")["bootstrap"]["static_resources"]["listeners"][0];
    assert_eq!(listener["name"], "hop");
}

#[test]
fn what_changes_something_wants_a_post() {
    let (_app, mut hop) = running();
    let refused = Client::connect(hop.proxy.admin).call(&Request::get("/quitquitquit"));
    assert_eq!(refused.status, 405);
    assert_eq!(hop.proxy.post("/logging?level=debug").status, 200);
    assert_eq!(hop.proxy.post("/healthcheck/fail").status, 200);
    assert_eq!(Client::connect(hop.proxy.admin).call(&Request::get("/nothing-here")).status, 404);
    assert_eq!(hop.proxy.post("/quitquitquit").status, 200);
    assert_eq!(hop.proxy.process.wait().code(), Some(0));
}
