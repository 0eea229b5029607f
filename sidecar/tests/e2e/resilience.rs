//! What a caller must not notice, and what it must be told at once.

use crate::{
    hop::Hop,
    story::{self, Story},
    support::{Answer, App, Client, Request, WITHIN, wait_for},
};
use std::{
    net::TcpListener,
    sync::{Arc, Barrier, mpsc},
    time::Duration,
};

const RETRY: &str =
    "retry_policy: { retry_on: \"connect-failure,5xx,reset\", num_retries: 2, per_try_timeout: 0.25s }";

/// A port at which nobody listens.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a loopback port")
        .port()
}

#[test]
fn the_first_example_with_resets_during_the_handshake() {
    let played = story::play("e2e", Story::DuringHandshake);
    assert!(played.all_well);
}

#[test]
fn the_first_example_with_resets_after_the_request() {
    let played = story::play("e2e", Story::AfterRequest);
    assert!(played.all_well);
}

#[test]
fn a_failing_answer_is_tried_again_with_the_same_body() {
    let app = App::start(|request| match request.number {
        1 => Answer::status(503, "not yet"),
        2 => Answer::reset(),
        _ => Answer::ok(request.body.clone()),
    });
    let hop = Hop { endpoints: &[app.port()], route: RETRY, ..Hop::default() }.start();
    let body = vec![b'x'; 10_000];
    let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::post("/", body.clone()));
    assert_eq!((answer.status, answer.body), (200, body));
    hop.proxy.wait_stat("cluster.app.upstream_rq_retry", 2);
    hop.proxy.wait_stat("cluster.app.upstream_rq_retry_success", 1);
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let app = App::start(|_| Answer::ok("alive"));
    let hop = Hop { endpoints: &[dead_port(), app.port()], route: RETRY, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    for _ in 0..6 {
        assert_eq!(client.call(&Request::get("/")).text(), "alive");
    }
    assert!(hop.proxy.stat("cluster.app.upstream_cx_connect_fail") >= 1);
}

#[test]
fn without_a_policy_a_failure_is_told_as_envoy_tells_it() {
    let hop = Hop { endpoints: &[dead_port()], ..Hop::default() }.start();
    let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::get("/"));
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().starts_with("upstream connect error or disconnect/reset before headers"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_try_that_hangs_ends_by_its_own_timeout() {
    let app = App::start_early(|request| match request.number {
        1 => Answer::Takeover(Box::new(|mut stream| drop(crate::support::app::drain(&mut stream)))),
        _ => Answer::ok("second"),
    });
    let hop = Hop { endpoints: &[app.port()], route: RETRY, ..Hop::default() }.start();
    let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::get("/"));
    assert_eq!(answer.text(), "second");
    hop.proxy.wait_stat("cluster.app.upstream_rq_per_try_timeout", 1);
}

#[test]
fn a_route_that_hangs_is_answered_with_504() {
    let app = App::start_early(|_| {
        Answer::Takeover(Box::new(|mut stream| drop(crate::support::app::drain(&mut stream))))
    });
    let hop = Hop { endpoints: &[app.port()], route: "timeout: 0.2s", ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    let answer = client.call(&Request::get("/"));
    assert_eq!((answer.status, answer.text()), (504, "upstream request timeout"));
    hop.proxy.wait_stat("cluster.app.upstream_rq_timeout", 1);
    hop.proxy.wait_stat("vhost.all.route.any.upstream_rq_timeout", 1);
    hop.proxy.wait_stat("vhost.all.route.any.upstream_rq_total", 1);
}

#[test]
fn one_of_two_hosts_is_ejected_and_let_back_in() {
    let bad = App::start(|_| Answer::status(500, "bad"));
    let good = App::start(|_| Answer::ok("good"));
    let outlier = "outlier_detection: { consecutive_5xx: 5, base_ejection_time: 1s, interval: 0.1s }";
    let hop = Hop { endpoints: &[bad.port(), good.port()], cluster: outlier, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    while hop.proxy.stat("cluster.app.outlier_detection.ejections_active") == 0 {
        client.call(&Request::get("/"));
        assert!(bad.requests() <= 6, "not ejected after {} failures", bad.requests());
    }
    assert_eq!(bad.requests(), 5);
    assert_eq!(hop.proxy.endpoint("app", bad.address, "health_flags"), "/failed_outlier_check");
    wait_for("the way back in", || {
        client.call(&Request::get("/"));
        if bad.requests() > 5 { Ok(()) } else { Err(bad.requests()) }
    });
    hop.proxy.wait_stat("cluster.app.outlier_detection.ejections_enforced_consecutive_5xx", 1);
}

#[test]
fn retries_stay_within_a_budget_that_nobody_configured() {
    let app = App::start(|_| Answer::status(503, "down"));
    let hop = Hop { endpoints: &[app.port()], route: RETRY, ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    for _ in 0..100 {
        assert_eq!(client.call(&Request::get("/")).status, 503);
    }
    // 20 % of what was sent and three more, where two retries each would have made 200
    let retries = hop.proxy.stat("cluster.app.upstream_rq_retry");
    assert!((3..=23).contains(&retries), "{retries}");
    assert_eq!(app.requests(), 100 + retries);
    assert!(hop.proxy.stat("cluster.app.upstream_rq_retry_overflow") > 0);
}

#[test]
fn a_body_too_large_to_keep_is_sent_once() {
    let app = App::start(|_| Answer::status(503, "no"));
    let hop = Hop { endpoints: &[app.port()], route: RETRY, ..Hop::default() }.start();
    let answer = Client::connect(hop.proxy.listener("hop")).call(&Request::post("/", vec![b'x'; 200_000]));
    assert_eq!((answer.status, app.requests()), (503, 1));
}

#[test]
fn a_full_circuit_breaker_answers_at_once() {
    let (arrived, arrivals) = mpsc::channel();
    let go_on = Arc::new(Barrier::new(2));
    let held = go_on.clone();
    let app = App::start(move |_| {
        arrived.send(()).expect("the test waits");
        held.wait();
        Answer::ok("held")
    });
    let breaker = "circuit_breakers: { thresholds: [ { max_requests: 1 } ] }";
    let hop = Hop { endpoints: &[app.port()], cluster: breaker, ..Hop::default() }.start();
    let address = hop.proxy.listener("hop");
    let mut first = Client::connect(address);
    first.send(&Request::get("/").bytes());
    arrivals.recv_timeout(WITHIN).expect("the first request upstream");
    // whichever core takes these: the limit is one for all
    for _ in 0..4 {
        let refused = Client::connect(address).call(&Request::get("/"));
        assert_eq!((refused.status, refused.get("x-envoy-overloaded")), (503, Some("true")));
    }
    hop.proxy.wait_stat("cluster.app.circuit_breakers.default.rq_open", 1);
    go_on.wait();
    assert_eq!(first.read("GET").text(), "held");
    let refused = |why: &str| hop.proxy.stat(&format!("cluster.app.upstream_rq_{why}_overflow"));
    wait_for("the refusals to be counted", || match refused("pending") + refused("active") {
        4 => Ok(()),
        count => Err(count),
    });
    assert!(arrivals.recv_timeout(Duration::ZERO).is_err(), "nothing else got through");
}

#[test]
fn what_a_circuit_breaker_still_admits_is_shown_where_that_is_asked_for() {
    let app = App::start(|_| Answer::ok("fine"));
    let cluster = "circuit_breakers: { thresholds: [ { max_connections: 7, track_remaining: true } ] }\n";
    let hop = Hop { endpoints: &[app.port()], cluster, ..Hop::default() }.start();
    hop.proxy.wait_stat("cluster.app.circuit_breakers.default.remaining_cx", 7);
    hop.proxy.wait_stat("cluster.app.circuit_breakers.default.remaining_rq", 1024);
    let mut client = Client::connect(hop.proxy.listener("hop"));
    assert_eq!(client.call(&Request::get("/")).status, 200);
    // the connection is kept
    hop.proxy.wait_stat("cluster.app.circuit_breakers.default.remaining_cx", 6);
}
