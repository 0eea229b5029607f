use super::*;
use crate::control::{
    lifecycle::{Listeners, State, Stop, Wish},
    testing,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::LocalSet,
    time::timeout,
};

const CONFIG: &str = "\
node: {id: orders-1, cluster: orders}
static_resources:
  clusters:
  - name: payments
    outlier_detection: {}
    load_assignment:
      cluster_name: payments
      endpoints:
      - locality: {zone: a}
        lb_endpoints: [{endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 80}}}}]
  - {name: empty, load_assignment: {cluster_name: empty}}
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            name: local
            virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: payments}}]}]
          http_filters:
          - name: router
            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
";

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("json")
    }
}

/// Sends what is given on a connection of its own and reads to the end.
async fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("read");
    let text = String::from_utf8(bytes).expect("utf-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Answer { status, head: head.to_owned(), body: if chunked { unchunk(body) } else { body.to_owned() } }
}

/// RFC 9112, 7.1.
fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        out.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    out
}

async fn ask(address: SocketAddr, method: &str, target: &str) -> Answer {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    timeout(Duration::from_secs(30), exchange(address, &request)).await.expect("an answer in time")
}

/// Runs `test` against the real server of a process made from `CONFIG`.
async fn with_admin<F: Future<Output = ()>>(test: impl FnOnce(Rc<Process>, SocketAddr) -> F) {
    let process = testing::process(CONFIG);
    process.lifecycle.enter(State::Live);
    let local = LocalSet::new();
    local
        .run_until(async {
            let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.expect("bind");
            let address = listener.local_addr().expect("address");
            tokio::task::spawn_local(serve(listener, process.clone()));
            test(process, address).await;
        })
        .await;
}

#[tokio::test]
async fn pages_have_envoys_shapes() {
    with_admin(async |_, admin| {
        let ready = ask(admin, "GET", "/ready").await;
        assert_eq!((ready.status, ready.body.as_str()), (200, "LIVE\n"));
        assert!(ready.head.contains("content-type: text/plain; charset=UTF-8"), "{}", ready.head);
        assert!(ready.head.contains("cache-control: no-cache, max-age=0"), "{}", ready.head);

        let listeners = ask(admin, "GET", "/listeners").await;
        assert_eq!(listeners.body, "ingress::127.0.0.1:15001\n");
        let listeners = ask(admin, "GET", "/listeners?format=json").await.json();
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 15001 } });
        assert_eq!(
            listeners,
            json!({ "listener_statuses": [{ "name": "ingress", "local_address": address }] })
        );

        let info = ask(admin, "GET", "/server_info").await.json();
        assert_eq!(info["state"], "LIVE");
        assert_eq!(info["node"]["id"], "orders-1");
        assert_eq!(info["command_line_options"]["mode"], "Serve");
        assert_eq!(info["corelane"]["configuration_version"], 1);

        assert_eq!(ask(admin, "GET", "/certs").await.json(), json!({ "certificates": [] }));
        assert_eq!(ask(admin, "GET", "/runtime").await.json(), json!({ "layers": [], "entries": {} }));
        assert!(ask(admin, "GET", "/memory").await.json()["total_physical_bytes"].is_string());
        assert!(ask(admin, "GET", "/").await.body.contains("<a href=\"clusters\">/clusters</a>"));
    })
    .await;
}

#[tokio::test]
async fn clusters_are_shown_line_by_line_and_as_json() {
    with_admin(async |process, admin| {
        let snapshot = process.configuration.current();
        let endpoint = &snapshot.cluster_by_name("payments").expect("cluster").endpoints.endpoints[0];
        endpoint.live.unhealthy.store(
            corelane_snapshot::live::EndpointLive::FAILED_OUTLIER,
            std::sync::atomic::Ordering::Relaxed,
        );
        let text = ask(admin, "GET", "/clusters").await.body;
        for line in [
            "payments::observability_name::payments",
            "payments::outlier::success_rate_average::-1",
            "payments::default_priority::max_connections::1024",
            "payments::added_via_api::false",
            "payments::192.0.2.1:80::cx_active::0",
            "payments::192.0.2.1:80::health_flags::/failed_outlier_check",
            "payments::192.0.2.1:80::zone::a",
            "empty::high_priority::max_retries::3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let json = ask(admin, "GET", "/clusters?format=json&filter=^pay").await.json();
        let statuses = json["cluster_statuses"].as_array().expect("a list");
        assert_eq!(statuses.len(), 1);
        assert_eq!(statuses[0]["host_statuses"][0]["health_status"]["failed_outlier_check"], true);
        assert_eq!(statuses[0]["host_statuses"][0]["locality"], json!({ "zone": "a" }));
        // what a sweep of outlier detection found
        endpoint.live.success_rate.set(Some(200.0 / 3.0));
        let live = &snapshot.cluster_by_name("payments").expect("cluster").live;
        live.success_rates.set(Some((100.0 / 3.0, 12.5)));
        endpoint.live.unhealthy.store(9, std::sync::atomic::Ordering::Relaxed);
        let text = ask(admin, "GET", "/clusters").await.body;
        for line in [
            "payments::outlier::success_rate_average::33.3333",
            "payments::outlier::success_rate_ejection_threshold::12.5",
            "payments::outlier::local_origin_success_rate_average::-1",
            "payments::192.0.2.1:80::success_rate::66.66666666666667",
            "payments::192.0.2.1:80::local_origin_success_rate::-1",
            "payments::192.0.2.1:80::health_flags::/failed_active_hc/active_hc_timeout",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let json = ask(admin, "GET", "/clusters?format=json&filter=^pay").await.json();
        let status = &json["cluster_statuses"][0];
        assert_eq!(status["success_rate_ejection_threshold"], json!({ "value": 12.5 }));
        assert_eq!(status["host_statuses"][0]["success_rate"], json!({ "value": 200.0 / 3.0 }));
        assert_eq!(status["host_statuses"][0]["health_status"]["active_hc_timeout"], true);
        let none = ask(admin, "GET", "/clusters?format=json&filter=nothing").await.json();
        assert_eq!(none, json!({ "cluster_statuses": [] }));
    })
    .await;
}

#[tokio::test]
async fn statistics_are_filtered_and_formatted() {
    with_admin(async |_, admin| {
        let text = ask(admin, "GET", "/stats?filter=^cluster%5C.payments%5C.membership_total$").await.body;
        assert_eq!(text, "cluster.payments.membership_total: 1\n");
        let json = ask(admin, "GET", "/stats?format=json&filter=payments.membership_total").await.json();
        assert_eq!(json["stats"][0], json!({ "name": "cluster.payments.membership_total", "value": 1 }));
        let prometheus = ask(admin, "GET", "/stats/prometheus?usedonly").await.body;
        assert!(
            prometheus.contains("envoy_cluster_membership_total{envoy_cluster_name=\"payments\"} 1\n"),
            "{prometheus}"
        );
        assert_eq!(ask(admin, "GET", "/stats?format=xml").await.status, 400);
        let gauges = ask(admin, "GET", "/stats?type=Gauges&filter=payments.upstream_rq").await.body;
        assert!(
            gauges.contains("upstream_rq_active: 0\n") && !gauges.contains("upstream_rq_total"),
            "{gauges}"
        );
        assert_eq!(ask(admin, "GET", "/stats?type=TextReadouts").await.body, "");
        assert_eq!(ask(admin, "GET", "/stats?hidden=only").await.body, "");
        let empty =
            ask(admin, "GET", "/stats?histogram_buckets=detailed&filter=s.upstream_rq_time$").await.body;
        assert_eq!(empty, "cluster.payments.upstream_rq_time: No recorded values\n");
        for (wrong, said) in [
            ("type=counters", "invalid &type= param"),
            ("hidden=x", "usage: /stats?hidden=(include|only|exclude)\n\n"),
            ("format=prometheus&histogram_buckets=disjoint", "unsupported prometheus histogram bucket mode"),
            ("format=prometheus&histogram_buckets=summary", "unsupported prometheus histogram bucket mode"),
            (
                "histogram_buckets=x",
                "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n",
            ),
        ] {
            let refused = ask(admin, "GET", &format!("/stats?{wrong}")).await;
            assert_eq!((refused.status, refused.body.as_str()), (400, said));
        }
        let broken = ask(admin, "GET", "/stats?filter=(").await;
        assert!(broken.status == 400 && broken.body.starts_with("Invalid re2 regex: "), "{}", broken.body);
    })
    .await;
}

#[tokio::test]
async fn the_configuration_is_dumped_whole_or_in_part() {
    with_admin(async |_, admin| {
        let dump = ask(admin, "GET", "/config_dump").await.json();
        let configs = dump["configs"].as_array().expect("a list");
        assert_eq!(configs.len(), 6);
        assert_eq!(configs[0]["bootstrap"]["node"]["id"], "orders-1");
        assert_eq!(configs[1]["static_clusters"][0]["cluster"]["name"], "payments");
        assert_eq!(configs[4]["static_route_configs"][0]["route_config"]["name"], "local");
        let names =
            ask(admin, "GET", "/config_dump?resource=static_clusters&mask=cluster.name&name_regex=^e")
                .await
                .json();
        assert_eq!(names["configs"].as_array().map(Vec::len), Some(1));
        assert_eq!(names["configs"][0]["cluster"]["name"], "empty");
        assert_eq!(ask(admin, "GET", "/config_dump?resource=nothing").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn what_changes_something_needs_post() {
    with_admin(async |process, admin| {
        for target in
            ["/quitquitquit", "/logging", "/healthcheck/fail", "/drain_listeners?graceful", "/reopen_logs"]
        {
            let refused = ask(admin, "GET", target).await;
            assert_eq!(
                (refused.status, refused.body.as_str()),
                (405, "Method GET not allowed, POST required."),
                "{target}"
            );
        }
        assert_eq!(process.lifecycle.state(), State::Live);
        assert_eq!(ask(admin, "DELETE", "/stats").await.status, 405);

        assert_eq!(ask(admin, "POST", "/healthcheck/fail").await.body, "OK\n");
        let ready = ask(admin, "GET", "/ready").await;
        assert_eq!((ready.status, ready.body.as_str()), (503, "DRAINING\n"));
        ask(admin, "POST", "/healthcheck/ok").await;
        assert_eq!(ask(admin, "GET", "/ready").await.status, 200);

        for (query, listeners, stop) in [
            ("", Listeners::All, Stop::Now),
            ("?graceful", Listeners::All, Stop::Later),
            // what Istio's agent asks for at the end of a pod
            ("?inboundonly&graceful", Listeners::Inbound, Stop::Later),
            ("?inboundonly&graceful&skip_exit", Listeners::Inbound, Stop::Never),
            ("?skip_exit", Listeners::All, Stop::Never),
        ] {
            assert_eq!(ask(admin, "POST", &format!("/drain_listeners{query}")).await.body, "OK\n");
            assert_eq!(process.lifecycle.wished().await, Wish::Drain(listeners, stop), "{query}");
        }
        ask(admin, "POST", "/quitquitquit").await;
        assert_eq!(process.lifecycle.wished().await, Wish::Quit);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_the_help() {
    with_admin(async |_, admin| {
        let answer = ask(admin, "GET", "/nope").await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.starts_with("invalid path. admin commands are:\n"), "{}", answer.body);
        assert!(answer.body.contains("  /quitquitquit (POST): exit the server\n"), "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn broken_requests_are_refused_and_connections_are_bounded() {
    with_admin(async |_, admin| {
        assert_eq!(exchange(admin, "GET / HTTP/1.1\r\nbad header\r\n\r\n").await.status, 400);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
        let refused = exchange(admin, &long).await.status;
        assert!([414, 431].contains(&refused), "{refused}");

        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(admin).await.expect("connect");
            stream.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
            let mut first = [0; 1];
            stream.read_exact(&mut first).await.expect("served, and kept open");
            held.push(stream);
        }
        let mut over = TcpStream::connect(admin).await.expect("connect");
        let read = over.read(&mut [0; 1]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "one too many is closed");
    })
    .await;
}

#[tokio::test]
async fn the_bound_address_is_written_down() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("admin");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = bind(any, Some(&path)).await.expect("bind");
    let address = listener.local_addr().expect("address");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), address.to_string());
    let reason = bind(address, None).await.expect_err("taken");
    assert!(reason.starts_with(&format!("admin: cannot bind {address}: ")), "{reason}");
    assert!(reason.ends_with("is another proxy running with this admin address?"), "{reason}");
    let nowhere = bind(any, Some(Path::new("/nowhere/admin"))).await.expect_err("no directory");
    assert!(nowhere.starts_with("--admin-address-path /nowhere/admin: cannot write: "), "{nowhere}");
}
