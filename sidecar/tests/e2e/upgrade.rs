//! Connections that stop being HTTP, and clients that stop sending.

use crate::{
    hop::Hop,
    support::{Answer, App, Client, Request, app::drain, wait_for},
};
use std::io::{Read, Write};

const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

fn websocket_app() -> App {
    App::start_early(|request| {
        if request.head.get("upgrade").is_none() {
            return Answer::ok("plain");
        }
        Answer::Takeover(Box::new(|mut stream| {
            stream.write_all(SWITCH).expect("the peer reads");
            let mut frame = [0; 5];
            stream.read_exact(&mut frame).expect("what the client says");
            stream.write_all(&frame.map(|byte| byte.to_ascii_uppercase())).expect("the peer reads");
            let rest = drain(&mut stream);
            stream.write_all(&[b"then: ", &rest[..]].concat()).expect("the other half is still open");
        }))
    })
}

const UPGRADE: &[u8] =
    b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n\r\n";

#[test]
fn a_websocket_is_a_relay_with_half_close() {
    let app = websocket_app();
    let hop = Hop {
        endpoints: &[app.port()],
        manager: "upgrade_configs: [ { upgrade_type: websocket } ]",
        ..Hop::default()
    }
    .start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.send(UPGRADE);
    let answer = client.read("GET");
    assert_eq!((answer.status, answer.get("upgrade")), (101, Some("websocket")));
    client.send(b"hello");
    assert_eq!(client.read_exact(5), b"HELLO");
    client.send(b"bye");
    client.half_close();
    assert_eq!(client.read_to_end().expect("a clean end"), b"then: bye");
    hop.proxy.wait_stat("http.hop.downstream_cx_upgrades_active", 0);
    hop.proxy.wait_stat("http.hop.downstream_cx_upgrades_total", 1);
}

#[test]
fn an_upgrade_that_is_not_configured_is_refused() {
    let app = websocket_app();
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.send(UPGRADE);
    assert_eq!(client.read("GET").status, 403);
    assert_eq!(app.requests(), 0);
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answer() {
    let app = App::start(|_| Answer::ok("late but whole"));
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let mut client = Client::connect(hop.proxy.listener("hop"));
    client.send(&Request::get("/").bytes());
    client.half_close();
    assert_eq!(client.read("GET").text(), "late but whole");
    assert_eq!(client.read_to_end().expect("a clean end"), b"");
}

#[test]
fn a_client_that_has_gone_frees_its_request() {
    let app = App::start_early(|_| {
        Answer::Takeover(Box::new(|mut stream| {
            assert_eq!(drain(&mut stream), b"", "the proxy closes instead of sending more");
        }))
    });
    let hop = Hop { endpoints: &[app.port()], ..Hop::default() }.start();
    let client = Client::connect(hop.proxy.listener("hop"));
    let mut client = client;
    client.send(&Request::get("/").bytes());
    wait_for("the request upstream", || if app.requests() == 1 { Ok(()) } else { Err(app.requests()) });
    let _ = socket2::SockRef::from(client.tcp()).set_linger(Some(std::time::Duration::ZERO));
    drop(client);
    hop.proxy.wait_stat("http.hop.downstream_rq_active", 0);
    hop.proxy.wait_stat("cluster.app.upstream_rq_active", 0);
    hop.proxy.wait_stat("cluster.app.upstream_cx_active", 0);
}
