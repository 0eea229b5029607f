//! SIGTERM: what is under way is finished, new callers are served and asked to go, then the process ends with 0.

use crate::{
    hop::Hop,
    http2,
    support::{Answer, App, Client, Proxy, Request, Response, WITHIN, proxy::sidecar, wait_for},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
};

const CALLERS: usize = 8;

fn start(app: &App, flags: &[&str]) -> (Proxy, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = sidecar();
    command.args(["--concurrency", "2"]).args(flags);
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() };
    (Proxy::run(command, folder.path(), "hop", &hop.yaml()), folder)
}

fn says_close(answer: &Response) -> bool {
    answer.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

/// Calls on one connection until the answer says that it is the last; then the caller has somewhere else to go.
fn call_until_asked_to_go(address: SocketAddr, answered: &AtomicU64) {
    let mut client = Client::connect(address);
    loop {
        let answer = client.call(&Request::post("/", vec![b'x'; 2000]));
        assert_eq!((answer.status, answer.body.len()), (200, 2000));
        answered.fetch_add(1, SeqCst);
        if says_close(&answer) {
            assert_eq!(client.read_to_end().expect("a clean end, not a reset"), b"");
            return;
        }
    }
}

#[test]
fn sigterm_under_load_loses_nothing() {
    let app = App::start(|request| Answer::ok(request.body.clone()));
    let (mut proxy, _folder) = start(&app, &["--drain-time-s", "10", "--drain-strategy", "immediate"]);
    let address = proxy.listener("hop");
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| call_until_asked_to_go(address, &answered));
        }
        wait_for("load", || if answered.load(SeqCst) > 200 { Ok(()) } else { Err(answered.load(SeqCst)) });
        proxy.process.terminate();
    });
    let status = proxy.process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(app.requests(), answered.into_inner(), "what the callers got is what the app was asked");
}

#[test]
fn sigterm_under_load_loses_no_stream() {
    let app = App::start(|request| Answer::ok(request.body.clone()));
    let (mut proxy, _folder) = start(&app, &["--drain-time-s", "10", "--drain-strategy", "immediate"]);
    let address = proxy.listener("hop");
    let answered = std::rc::Rc::new(std::cell::Cell::new(0));
    http2::run(async {
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let sender = http2::connect(address).await;
            for _ in 0..4 {
                let (sender, answered) = (sender.clone(), answered.clone());
                callers.push(tokio::task::spawn_local(async move {
                    // until the connection takes no more streams, which is how HTTP/2 asks to go
                    while let Ok(ready) = sender.clone().ready().await {
                        let (status, body) = http2::exchange(ready, "/", vec![b'x'; 2000]).await;
                        assert_eq!((status, body.len()), (200, 2000));
                        answered.set(answered.get() + 1);
                    }
                }));
            }
        }
        while answered.get() < 200 {
            tokio::task::yield_now().await;
        }
        proxy.process.terminate();
        for caller in callers {
            caller.await.expect("no assertion failed");
        }
    });
    let status = proxy.process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(app.requests(), answered.get(), "what the callers got is what the app was asked");
}

#[test]
fn what_is_under_way_is_finished_and_new_callers_are_served() {
    let (arrived, arrivals) = mpsc::channel();
    let go_on = Arc::new(Barrier::new(2));
    let held = go_on.clone();
    let app = App::start(move |request| {
        if request.path == "/slow" {
            arrived.send(()).expect("the test waits");
            held.wait();
        }
        Answer::ok(request.path.clone())
    });
    let (mut proxy, _folder) = start(&app, &["--drain-time-s", "15", "--drain-strategy", "immediate"]);
    let address = proxy.listener("hop");
    let mut slow = Client::connect(address);
    slow.send(&Request::get("/slow").bytes());
    arrivals.recv_timeout(WITHIN).expect("the slow request upstream");
    proxy.process.terminate();
    let mut late = wait_for("the drain", || {
        let mut late = Client::connect(address);
        let answer = late.call(&Request::get("/late"));
        assert_eq!(answer.text(), "/late");
        if says_close(&answer) { Ok(late) } else { Err("still keeps connections") }
    });
    assert_eq!(late.read_to_end().expect("a clean end"), b"");
    assert!(proxy.process.exited().is_none(), "a request is under way");
    go_on.wait();
    let answer = slow.read("GET");
    assert_eq!((answer.status, answer.text()), (200, "/slow"));
    assert_eq!(slow.read_to_end().expect("a clean end"), b"");
    let status = proxy.process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let app = App::start(|_| Answer::ok("ok"));
    let (mut proxy, _folder) = start(&app, &["--drain-time-s", "600"]);
    let mut held = Client::connect(proxy.listener("hop"));
    assert_eq!(held.call(&Request::get("/")).status, 200);
    proxy.process.terminate();
    wait_for("the drain", || {
        if proxy.process.log().contains("drain") { Ok(()) } else { Err(proxy.process.log_tail()) }
    });
    proxy.process.terminate();
    proxy.process.wait();
}

#[test]
fn a_hangup_is_told_and_ends_nothing() {
    let app = App::start(|_| Answer::ok("ok"));
    let (mut proxy, _folder) = start(&app, &[]);
    let mut client = Client::connect(proxy.listener("hop"));
    assert_eq!(client.call(&Request::get("/")).status, 200);
    proxy.process.hang_up();
    wait_for("the signal to be told", || match proxy.process.log().contains("SIGHUP is ignored") {
        true => Ok(()),
        false => Err(proxy.process.log_tail()),
    });
    assert!(proxy.process.exited().is_none());
    assert_eq!(client.call(&Request::get("/")).status, 200, "the same connection");
}

/// The hop's listener, and the same again as another, with the directions that Istio gives them.
fn both_ways(app: &App) -> String {
    let inbound =
        Hop { endpoints: &[app.port()], listener: "traffic_direction: INBOUND", ..Hop::default() }.yaml();
    let (start, end) = (inbound.find("  - name: hop"), inbound.find("  clusters:"));
    let (start, end) = (start.expect("a listener"), end.expect("clusters"));
    let outbound =
        inbound[start..end].replacen("name: hop", "name: out", 1).replacen("INBOUND", "OUTBOUND", 1);
    format!("{}{outbound}{}", &inbound[..end], &inbound[end..])
}

#[test]
fn inbound_listeners_drain_and_stop_by_themselves() {
    let app = App::start(|_| Answer::ok("ok"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let proxy = Proxy::start(folder.path(), "both", &both_ways(&app));
    let (inbound, outbound) = (proxy.listener("hop"), proxy.listener("out"));
    let mut kept = Client::connect(inbound);
    assert!(!says_close(&kept.call(&Request::get("/"))));

    assert_eq!(proxy.post("/drain_listeners?inboundonly&graceful&skip_exit").text(), "OK\n");
    let asked = |address| says_close(&Client::connect(address).call(&Request::get("/")));
    wait_for(
        "callers from outside to be asked to go",
        || if asked(inbound) { Ok(()) } else { Err("not yet") },
    );
    assert!(says_close(&kept.call(&Request::get("/"))));
    assert!(!asked(outbound), "the app's own calls go on");

    proxy.post("/drain_listeners?inboundonly");
    wait_for("the listener to stop", || match Client::try_connect(inbound) {
        Err(_) => Ok(()),
        Ok(_) => Err("accepted"),
    });
    assert!(!asked(outbound));
    assert_eq!(proxy.page("/ready"), "LIVE\n");
}
