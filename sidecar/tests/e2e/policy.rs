//! What routes and filters decide: who may call what, which version answers, what is limited or made to fail.

use crate::{
    hop::Hop,
    support::{Answer, App, Client, Identities, Proxy, Request, fill, wait_for},
};
use std::collections::BTreeMap;

fn filter(name: &str, kind: &str, body: &str) -> String {
    let body = body.lines().fold(String::new(), |text, line| text + "    " + line + "\n");
    format!(
        "- name: {name}\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.{kind}\n{body}"
    )
}

#[test]
fn orders_may_charge_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identities = Identities::issue(folder.path());
    let app = App::start(|_| Answer::ok("charged"));
    let rbac = filter(
        "rbac",
        "rbac.v3.RBAC",
        "rules:\n  action: ALLOW\n  policies:\n    orders-charge:\n      permissions:\n      - and_rules:\n          rules:\n          \
         - { url_path: { path: { prefix: /charge } } }\n          - { header: { name: \":method\", string_match: { exact: POST } } }\n      \
         principals:\n      - authenticated: { principal_name: { exact: \"spiffe://cluster.local/ns/prod/sa/orders\" } }\n",
    );
    let config = fill(
        include_str!("../../demo/payments.yaml"),
        &[("NAME", &"payments"), ("FOLDER", &folder.path().display()), ("APP_PORT", &app.port())],
    );
    let indented = rbac.lines().fold(String::new(), |text, line| text + "          " + line + "\n");
    let config = config.replace("          http_filters:\n", &format!("          http_filters:\n{indented}"));
    let payments = Proxy::start(folder.path(), "payments", &config);
    let address = payments.listener("inbound");
    let call = |who: &str, request: &Request| {
        let config = identities.client(Some(who), "http/1.1");
        Client::connect_tls(address, config).expect("a member of the mesh").call(request)
    };
    assert_eq!(call("orders", &Request::post("/charge", "1")).text(), "charged");
    for (who, request) in [
        ("ledger", Request::post("/charge", "1")),
        ("orders", Request::get("/charge")),
        ("orders", Request::post("/refund", "1")),
        // a path that only looks allowed before it is normalized
        ("ledger", Request::post("/charge/../charge", "1")),
    ] {
        let answer = call(who, &request);
        assert_eq!(
            (answer.status, answer.text()),
            (403, "RBAC: access denied"),
            "{who} {} {}",
            request.method,
            request.path
        );
    }
    assert_eq!(app.requests(), 1);
    payments.wait_stat("http.inbound.rbac.denied", 4);
    payments.wait_stat("http.inbound.rbac.allowed", 1);
}

#[test]
fn a_policy_on_trial_is_counted_under_its_own_name() {
    let app = App::start(|_| Answer::ok("fine"));
    let rules = |action: &str| {
        format!(
            "  action: {action}\n  policies:\n    all: {{ permissions: [{{ any: true }}], principals: [{{ any: true }}] }}\n"
        )
    };
    let rbac = filter(
        "rbac",
        "rbac.v3.RBAC",
        &format!(
            "rules_stat_prefix: live\nrules:\n{}shadow_rules_stat_prefix: trial.\nshadow_rules:\n{}",
            rules("ALLOW"),
            rules("DENY")
        ),
    );
    let hop = Hop { endpoints: &[app.port()], http_filters: &rbac, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    assert_eq!(client.call(&Request::get("/")).text(), "fine");
    hop.proxy.wait_stat("http.hop.rbac.live.allowed", 1);
    hop.proxy.wait_stat("http.hop.rbac.trial.shadow_denied", 1);
}

#[test]
fn weights_and_headers_choose_the_version() {
    let (v1, v2) = (App::start(|_| Answer::ok("v1")), App::start(|_| Answer::ok("v2")));
    let config = fill(include_str!("versions.yaml"), &[("V1_PORT", &v1.port()), ("V2_PORT", &v2.port())]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let proxy = Proxy::start(folder.path(), "versions", &config);
    let mut client = Client::connect(proxy.listener("versions"));
    for _ in 0..5 {
        let gated = Request::get("/").field("x-canary", "yes");
        assert_eq!(client.call(&gated).text(), "v2", "the gate comes first");
    }
    let mut answers = BTreeMap::new();
    for _ in 0..1000 {
        *answers.entry(client.call(&Request::get("/")).text().to_owned()).or_insert(0u32) += 1;
    }
    // 5 % of 1000; six standard deviations are 41
    let canary = answers.get("v2").copied().unwrap_or(0);
    assert!((9..=91).contains(&canary), "{answers:?}");
    let old = client.call(&Request::get("/old/page?x=1"));
    assert_eq!((old.status, old.get("location")), (301, Some("http://payments/new/page?x=1")));
    assert_eq!(client.call(&Request::get("/health")).text(), "here");
    assert_eq!(client.call(&Request { host: "elsewhere".to_owned(), ..Request::get("/") }).status, 404);
}

#[test]
fn a_fault_can_be_injected_into_a_share_of_requests() {
    let app = App::start(|_| Answer::ok("fine"));
    let fault = filter(
        "fault",
        "fault.v3.HTTPFault",
        "abort: { http_status: 418, percentage: { numerator: 100 } }\nheaders: [ { name: x-fault, string_match: { exact: \"on\" } } ]\n",
    );
    let hop = Hop { endpoints: &[app.port()], http_filters: &fault, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    let faulty = client.call(&Request::get("/").field("x-fault", "on"));
    assert_eq!((faulty.status, faulty.text()), (418, "fault filter abort"));
    assert_eq!(client.call(&Request::get("/")).text(), "fine");
    hop.proxy.wait_stat("http.hop.fault.aborts_injected", 1);
}

#[test]
fn a_local_rate_limit_counts_over_all_cores() {
    let app = App::start(|_| Answer::ok("fine"));
    let limit = filter(
        "limit",
        "local_ratelimit.v3.LocalRateLimit",
        "stat_prefix: limit\ntoken_bucket: { max_tokens: 5, tokens_per_fill: 5, fill_interval: 3600s }\n\
         filter_enabled: { default_value: { numerator: 100 } }\nfilter_enforced: { default_value: { numerator: 100 } }\n",
    );
    let hop = Hop { endpoints: &[app.port()], http_filters: &limit, ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    // a connection each, so that both cores are asked
    let statuses: Vec<u16> =
        (0..20).map(|_| Client::connect(address).call(&Request::get("/")).status).collect();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((passed, app.requests()), (5, 5), "{statuses:?}");
    assert!(statuses[5..].iter().all(|status| *status == 429), "{statuses:?}");
}

#[test]
fn an_endpoint_that_fails_its_health_check_gets_no_request() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    };
    let sick = Arc::new(AtomicBool::new(false));
    let is_sick = sick.clone();
    let one = App::start(move |request| match request.path.as_str() {
        "/healthz" if is_sick.load(SeqCst) => Answer::status(503, "sick"),
        "/healthz" => Answer::ok("well"),
        _ => Answer::ok("one"),
    });
    let two = App::start(|_| Answer::ok("two"));
    let check = "health_checks:\n- timeout: 1s\n  interval: 0.05s\n  no_traffic_interval: 0.05s\n  unhealthy_threshold: 1\n  healthy_threshold: 1\n  \
                 http_health_check: { path: /healthz }\n";
    let hop = Hop { endpoints: &[one.port(), two.port()], cluster: check, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    let flags = |wanted: &str| {
        wait_for(wanted, || match hop.proxy.endpoint("app", one.address, "health_flags") {
            flags if flags == wanted => Ok(()),
            flags => Err(flags),
        });
    };
    flags("healthy");
    sick.store(true, SeqCst);
    flags("/failed_active_hc");
    for _ in 0..10 {
        assert_eq!(client.call(&Request::get("/")).text(), "two");
    }
    sick.store(false, SeqCst);
    flags("healthy");
    wait_for("the way back in", || match client.call(&Request::get("/")).text() {
        "one" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn an_access_log_line_tells_what_became_of_a_request() {
    let app = App::start(|_| Answer::ok("fine"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("access.log");
    let place = path.display();
    let log = format!(
        "access_log:\n- name: file\n  typed_config:\n    \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n    path: {place}\n    \
         log_format:\n      json_format:\n        status: \"%RESPONSE_CODE%\"\n        path: \"%REQ(:PATH)%\"\n        \
         flags: \"%RESPONSE_FLAGS%\"\n        sent: \"%BYTES_SENT%\"\n        upstream: \"%UPSTREAM_HOST%\"\n        \
         agent: \"%REQ(USER-AGENT)%\"\n"
    );
    let hop = Hop { endpoints: &[app.port()], manager: &log, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.call(&Request::get("/a?b=\"c\"").field("user-agent", "tést \\"));
    client.call(&Request::get("/second"));
    let lines = wait_for("two lines", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<serde_json::Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() == 2 { Ok(lines) } else { Err(text) }
    });
    let line = &lines[0];
    assert_eq!(line["status"], 200);
    assert_eq!(line["sent"], 4);
    assert_eq!(line["path"], "/a?b=\"c\"");
    assert_eq!(line["upstream"], app.address.to_string());
    assert_eq!(line["flags"], serde_json::Value::String("-".to_owned()));
    assert_eq!(lines[1]["path"], "/second");
    assert_eq!(lines[1]["agent"], serde_json::Value::Null);
}
